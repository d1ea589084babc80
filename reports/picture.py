"""Charts as one SVG file of their own, for documents: light or dark as its reader has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from reports.html_blocks import Chart, Series
from reports.html_svg import WIDTH, describe, drawing, height

_MARGIN, _GAP = 16, 24
_TITLE, _LEGEND_LINE = 22, 18
_CHARACTER = 6.4
"""Mean width of a character of 12 px, generously."""
_KEY = 24

_STYLE = """
svg { color-scheme: light dark; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; background: #fff; }
text { fill: #56606c; } .title { fill: #15191e; font-weight: 600; font-size: 13px; } .name { fill: #15191e; }
.paper { fill: #fff; } .grid { stroke: #e9ecef; } .line { fill: none; stroke: currentColor; stroke-width: 1.8; }
.dash { stroke-dasharray: 6 4; } .dot { stroke-dasharray: 2 3; } .fill { fill: currentColor; }
.ring { fill: none; stroke: currentColor; stroke-width: 2; }
.area { fill: currentColor; fill-opacity: .16; stroke: currentColor; }
.s0 { color: #1f6fb8; } .s1 { color: #c85a00; } .s2 { color: #14865a; } .s3 { color: #8347b0; }
.s4 { color: #c0302b; } .s5 { color: #0b7c8c; } .s6 { color: #7d5f1e; } .s7 { color: #6a7583; }
@media (prefers-color-scheme: dark) {
  svg { background: #11151a; } .paper { fill: #11151a; } text { fill: #9ba7b4; } .title, .name { fill: #e3e8ed; }
  .grid { stroke: #232b33; } .s0 { color: #63aef2; } .s1 { color: #f59a52; } .s2 { color: #4fc794; } .s3 { color: #c297ee; }
  .s4 { color: #f57f76; } .s5 { color: #4cc6d6; } .s6 { color: #cfae6b; } .s7 { color: #9eabb9; }
}
"""


def picture(charts: Sequence[Chart], columns: int = 2) -> str:
    """The document: charts in rows of `columns`, each with its title and its legend; in words for those who cannot see it."""
    placed: list[Markup] = []
    top = float(_MARGIN)
    for first in range(0, len(charts), columns):
        row = charts[first : first + columns]
        head = _TITLE + _LEGEND_LINE * max(len(_legend(chart)) for chart in row)
        for column, chart in enumerate(row):
            group = Markup('<g transform="translate({},{})">').format(_MARGIN + column * (WIDTH + _GAP), top)
            placed += [group, *_headed(chart), Markup('<g transform="translate(0,{})">').format(head), drawing(chart)]
            placed.append(Markup("</g></g>"))
        top += head + max(map(height, row)) + _GAP
    wide = 2 * _MARGIN + min(columns, len(charts)) * (WIDTH + _GAP) - _GAP
    size = Markup('viewBox="0 0 {} {:.0f}" width="{}" height="{:.0f}"').format(wide, top, wide, top)
    opened = Markup('<svg xmlns="http://www.w3.org/2000/svg" role="img" {}>').format(size)
    words = Markup("<title>{}</title>").format(" ".join(describe(chart) for chart in charts))
    style = Markup(f"<style>{_STYLE}</style>")  # noqa: S704 - ours
    paper = Markup('<rect class="paper" width="100%" height="100%"/>')
    return str(opened + words + style + paper + Markup("").join(placed) + Markup("</svg>\n"))


def _headed(chart: Chart) -> Iterator[Markup]:
    yield Markup('<text class="title" x="0" y="13">{}</text>').format(chart.title)
    for number, line in enumerate(_legend(chart)):
        y = _TITLE + _LEGEND_LINE * number + 9
        for x, series in line:
            stroke = Markup('<path class="line s{} {}" d="M{:.0f},{}h18"/>').format(
                series.colour % 8, series.dash, x, y - 4
            )
            yield stroke + Markup('<text x="{:.0f}" y="{}">{}</text>').format(x + _KEY, y, series.name)


def _legend(chart: Chart) -> list[list[tuple[float, Series]]]:
    """Lines of (place, series), as many to a line as there is room for."""
    lines: list[list[tuple[float, Series]]] = [[]]
    x = 0.0
    for series in chart.series:
        wide = _KEY + _CHARACTER * len(series.name) + 14
        if lines[-1] and x + wide > WIDTH:
            lines.append([])
            x = 0.0
        lines[-1].append((x, series))
        x += wide
    return lines
