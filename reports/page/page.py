"""Reports as one self-contained HTML file that opens offline.

All text of a report is hostile: it may hold what a server, a script or a stranger's file put there. It reaches the page by
two ways only: through the template's escaping, and as JSON in a block that no browser runs, with every character that could
end it written as an escape. The page's Content-Security-Policy admits the page's own scripts, by their hash, and nothing else.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import orjson
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from reports.blocks import Chart, Charts, Page, Section
from reports.compare.diff import Diff
from reports.compare.diff_blocks import changes
from reports.model import Report, ReportError
from reports.page.sections import report_sections
from reports.page.svg import describe, height, points, style, svg, ticks

ReportJs = Literal["inline", "shared", "none"]

SHARED_JS = "plotly.min.js"
"""Name under which a page with `js="shared"` looks for the library, in its own folder."""

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def report_page(reports: Sequence[tuple[str, Report]], comparison: Section | None = None, *, title: str) -> Page:
    """One report, or several laid over each other, each with the name to show it by; `comparison` says how two sides differ.

    Raises ReportError for no report.
    """
    if not reports:
        raise ReportError("there is no report to draw")
    found = list(zip(_short([name for name, _ in reports]), (report for _, report in reports), strict=True))
    subtitle = reports[0][0] if len(found) == 1 else f"{len(found)} reports: {', '.join(name for name, _ in reports)}"
    return Page(title, subtitle, report_sections(found, comparison))


def to_html(
    reports: Sequence[tuple[str, Report]], diff: Diff | None = None, *, title: str, js: ReportJs = "inline"
) -> str:
    """As `report_page`, in HTML; `diff` compares the reports. Raises ReportError as `report_page` and `render`."""
    return render(report_page(reports, None if diff is None else changes(diff), title=title), js)


def render(page: Page, js: ReportJs = "inline") -> str:
    """Any result as a page.

    `js`: the chart library in the page ("inline"), beside it as SHARED_JS ("shared": see `plotly_js`), or no script at all
    ("none": the same charts as static SVG). Raises ReportError where the library is wanted and not installed.
    """
    library = plotly_js() if js == "inline" else ""
    own = _file("page.js") if js != "none" else ""
    return (
        _templates()
        .get_template("page.html")
        .render(
            page=page,
            css=_trusted(style() + _file("page.css")),
            library=_trusted(library),
            own=_trusted(own),
            shared=SHARED_JS if js == "shared" else "",
            policy=_policy([text for text in (library, own) if text], shared=js == "shared"),
            data=_json_block([_chart_json(chart) for chart in _charts(page)]) if js != "none" else "",
        )
    )


def live_page(title: str) -> str:
    """The page that `loadgen.watch.live` serves while a run is in progress; its style and script come from its own server."""
    return _templates().get_template("live.html").render(title=title)


def live_files() -> dict[str, tuple[str, str]]:
    """What `live_page` asks its server for: {path: (media type, text)}."""
    css = style() + "".join(_file(name) for name in ("page.css", "live.css"))
    return {"/live.css": ("text/css", css), "/live.js": ("text/javascript", _file("live.js"))}


@cache
def plotly_js() -> str:
    """The chart library, of the installed plotly package. Raises ReportError where that is missing."""
    spec = find_spec("plotly")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise ReportError(
            "charts that move need the plotly package (pip install plotly); --report-js none does without"
        )
    return (Path(next(iter(places))) / "package_data" / "plotly.min.js").read_text("utf-8")


def _short(names: Sequence[str]) -> Sequence[str]:
    """File names without their folders, where that leaves them different: they head columns and label curves."""
    bare = [name.rpartition("/")[2] or name for name in names]
    return bare if len(set(bare)) == len(names) else names


def _charts(page: Page) -> Iterator[Chart]:
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Charts):
                yield from block.items


def _chart_json(chart: Chart) -> dict[str, Any]:
    """What the page's script needs to draw a chart."""
    tail = chart.x.scale == "tail"
    reach = max((x for s in chart.series for x in s.x), default=1.0)
    return {
        "id": chart.id,
        "title": chart.title,
        "mark": chart.mark,
        "width": chart.bar_width,
        "height": height(chart),
        "x": {"title": chart.x.title, "unit": chart.x.unit, "scale": chart.x.scale,
              "ticks": ticks(chart.x, 1.0, reach) if tail else []},
        "y": {"title": chart.y.title, "unit": chart.y.unit, "scale": chart.y.scale, "names": chart.y.names},
        "series": [
            {"name": s.name, "x": s.x, "y": s.y, "colour": s.colour % 8, "dash": s.dash, "labels": s.labels}
            for s in chart.series
        ],
    }  # fmt: skip


def _json_block(value: Any) -> Markup:
    """JSON that is safe inside a script element: it can neither end the element nor begin a comment in it."""
    text = orjson.dumps(value).decode()
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - no character of it has a meaning in HTML any more


def _policy(scripts: Sequence[str], *, shared: bool) -> str:
    hashes = [f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    sources = " ".join([*hashes, *(["'self'", "file:"] if shared else [])]) or "'none'"
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _trusted(text: str) -> Markup:
    """A file of ours or of the chart library, for a place where HTML is not escaped."""
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
    found.filters["describe"] = describe
    found.filters["kind"] = lambda block: type(block).__name__
    found.filters["chart_rows"] = points
    found.filters["ranked"] = lambda table: (
        sorted(table.rows, key=lambda row: not any(cell.tone for cell in row)) if table.quiet else table.rows
    )
    return found
