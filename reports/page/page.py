"""Reports as one self-contained HTML file that opens offline.

All text of a report is hostile: it may hold what a server, a script or a stranger's file put there. It reaches the page
through the template's escaping only. The page's Content-Security-Policy admits the page's own script, by its hash, and
nothing else. Everything can be read without the script: charts are drawings in the page, their figures tables beneath.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.blocks import Page, Section
from reports.compare.diff import Diff
from reports.compare.diff_blocks import changes
from reports.model import Report, ReportError
from reports.page.chart_table import chart_table
from reports.page.sections import report_sections
from reports.page.svg import margins, style, svg


def report_page(reports: Sequence[tuple[str, Report]], comparison: Section | None = None, *, title: str) -> Page:
    """One report, or several laid over each other, each with the name to show it by; `comparison` says how two sides differ.

    Raises ReportError where `reports` is empty.
    """
    if not reports:
        raise ReportError("there is no report to draw")
    found = list(zip(_short([name for name, _ in reports]), (report for _, report in reports), strict=True))
    subtitle = reports[0][0] if len(found) == 1 else f"{len(found)} reports: {', '.join(name for name, _ in reports)}"
    return Page(title, subtitle, report_sections(found, comparison))


def to_html(reports: Sequence[tuple[str, Report]], diff: Diff | None = None, *, title: str) -> str:
    """As `report_page`, in HTML; `diff` compares the reports. Raises ReportError where `reports` is empty."""
    return render(report_page(reports, None if diff is None else changes(diff), title=title))


def render(page: Page) -> str:
    """Any result, as one HTML file."""
    script = _file("page.js")
    return (
        _templates()
        .get_template("page.html")
        .render(page=page, css=_trusted(style() + _file("page.css")), script=_trusted(script), policy=_policy(script))
    )


def live_page(title: str) -> str:
    """The page of a run in progress, which loads its style and script from the server that serves it."""
    return _templates().get_template("live.html").render(title=title)


def live_files() -> dict[str, tuple[str, str]]:
    """The files that `live_page` loads from its server: {path: (media type, text)}."""
    css = style() + "".join(_file(name) for name in ("page.css", "live.css"))
    return {"/live.css": ("text/css", css), "/live.js": ("text/javascript", _file("live.js"))}


def _short(names: Sequence[str]) -> Sequence[str]:
    """File names without their folders, where they stay different: they head columns and label curves."""
    bare = [name.rpartition("/")[2] or name for name in names]
    return bare if len(set(bare)) == len(names) else names


def _policy(script: str) -> str:
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _trusted(text: str) -> Markup:
    """A file of this program, for a place where HTML is not escaped. Raises ReportError where it would end its element."""
    if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text:
        raise ReportError("a packaged file cannot be put into a page: it would end its element")
    return Markup(text)  # noqa: S704 - packaged with the program


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters["svg"] = svg
    found.filters["kind"] = lambda block: type(block).__name__
    found.filters["chart_table"] = chart_table
    found.filters["margins"] = margins
    found.filters["ranked"] = lambda table: (
        sorted(table.rows, key=lambda row: not any(cell.tone for cell in row)) if table.quiet else table.rows
    )
    return found
