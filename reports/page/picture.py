"""Charts as one SVG file of their own, for documents: light or dark as its reader has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from reports.blocks import Chart, Series
from reports.page.svg import WIDTH, describe, drawing, height, style

_MARGIN, _GAP = 16, 24
_TITLE, _LEGEND_LINE = 22, 18
_CHARACTER = 6.4
"""Mean width of a character of 12 px, generously."""
_KEY = 24

_STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.paper { fill: var(--paper); } .plot .title { fill: var(--ink); font-weight: 600; font-size: 13px; }
"""
"""Beyond that of all charts."""


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
    css = Markup(f"<style>{style()}{_STYLE}</style>")  # noqa: S704 - ours
    paper = Markup('<rect class="paper" width="100%" height="100%"/><g class="plot">')
    return str(opened + words + css + paper + Markup("").join(placed) + Markup("</g></svg>\n"))


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
