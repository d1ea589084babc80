"""Reports as one self-contained HTML file that opens offline.

All text of a report is treated as hostile: a server, a script or a stranger's file may have put it there. It reaches the
page only through the template's escaping. The page's Content-Security-Policy admits the page's own script, by its hash, and
nothing else. Everything can be read without the script: charts are drawings in the page, with their figures in tables below.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.blocks import Page, Section
from reports.compare.diff import Diff
from reports.compare.diff_blocks import changes
from reports.model import Report, ReportError
from reports.page.chart_table import chart_table
from reports.page.sections import report_sections
from reports.page.svg import margins, style, svg
from reports.printable import printable

_LONGEST_NAME = 40
"""Most characters of a report's name in tables and charts; the page's subtitle has the whole name."""


def report_page(reports: Sequence[tuple[str, Report]], comparison: Section | None = None, *, title: str) -> Page:
    """The page of one report, or of several in the same charts, each with its name; `comparison`: how two sides differ.

    Raises ReportError if `reports` is empty.
    """
    if not reports:
        raise ReportError("there is no report to draw")
    found = list(zip(_short([name for name, _ in reports]), (report for _, report in reports), strict=True))
    subtitle = reports[0][0] if len(found) == 1 else f"{len(found)} reports: {', '.join(name for name, _ in reports)}"
    return Page(title, subtitle, report_sections(found, comparison))


def to_html(
    reports: Sequence[tuple[str, Report]], diff: Diff | None = None, *, title: str, download: str | None = None
) -> str:
    """As `report_page`, in HTML; `diff` compares the reports. Raises ReportError if `reports` is empty."""
    return render(report_page(reports, None if diff is None else changes(diff), title=title), download)


def render(page: Page, download: str | None = None) -> str:
    """Write any result as one HTML file. `download`: where its server has the report as JSON, for a link to it."""
    script = _file("page.js")
    return (
        _templates()
        .get_template("page.html")
        .render(
            page=page,
            download=download,
            css=_trusted(style() + _file("page.css")),
            script=_trusted(script),
            policy=_policy(script),
        )
    )


def live_page(title: str, facts: Sequence[tuple[str, str]] = ()) -> str:
    """The page of a run in progress, which loads its style and script from the server that serves it.

    `facts` are names and values of what does not change during the run, such as its target.
    """
    return _templates().get_template("live.html").render(title=title, facts=facts)


def live_files() -> dict[str, tuple[str, str]]:
    """The files that `live_page` loads from its server: {path: (media type, text)}."""
    css = style() + "".join(_file(name) for name in ("page.css", "live.css"))
    return {"/live.css": ("text/css", css), "/live.js": ("text/javascript", _file("live.js"))}


def _short(names: Sequence[str]) -> Sequence[str]:
    """Names for heads of columns and curves: without folders, and without the middle of long ones, if they still differ then."""
    found = names
    for shorter in (_without_folder, _without_middle):
        cut = [shorter(name) for name in found]
        found = cut if len(set(cut)) == len(names) else found
    return found


def _without_folder(name: str) -> str:
    return name.rpartition("/")[2] or name


def _without_middle(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:14]}…{name[15 - _LONGEST_NAME :]}"


def _policy(script: str) -> str:
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _trusted(text: str) -> Markup:
    """A file of this program, for a place where HTML is not escaped. Raises ReportError if it would end its element."""
    if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text:
        raise ReportError("a packaged file cannot be put into a page: it would end its element")
    return Markup(text)  # noqa: S704 - packaged with the program


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _visible(value: Any) -> Any:
    """A value as the page shows it: controls and bidi marks in text of others are escaped; SVG and HTML of ours stay."""
    return printable(value, "\n\t") if type(value) is str else value


def _grouped(sections: Sequence[Section]) -> list[tuple[Section, list[Section]]]:
    """Each section of level 2 with those of level 3 that belong to it; a page may begin with one of level 3."""
    found: list[tuple[Section, list[Section]]] = []
    for section in sections:
        if section.level == 3 and found:
            found[-1][1].append(section)
        else:
            found.append((section, []))
    return found


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    found.filters["svg"] = svg
    found.filters["kind"] = lambda block: type(block).__name__
    found.filters["chart_table"] = chart_table
    found.filters["margins"] = margins
    found.filters["grouped"] = _grouped
    found.filters["ranked"] = lambda table: (
        sorted(table.rows, key=lambda row: not any(cell.tone for cell in row)) if table.quiet else table.rows
    )
    return found
