"""Charts as one SVG file of their own, for documents: light or dark, as the reader's system is set. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from reports.blocks import Chart, Series
from reports.page.chart_table import describe
from reports.page.svg import FILLED, drawing, labelled, margins, plot_height, style

WIDTH = 560
"""Width of a chart with its margins, in px."""

_MARGIN, _GAP = 16, 28
_TITLE, _LEGEND_LINE = 24, 18
_CHARACTER = 6.4
"""Mean width in px of a character of 12 px, on the safe side."""
_KEY = 24

_STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.paper { fill: var(--paper); } .plot .title { fill: var(--ink); font-weight: 600; font-size: 13px; }
.plot .unit { fill: var(--soft); font-weight: 400; font-size: 12px; }
"""
"""The style sheet of a picture file, in addition to that of all charts."""


def picture(charts: Sequence[Chart], columns: int = 2) -> str:
    """The SVG document: charts in rows of `columns`, each with its title and its legend, and all of them in words."""
    placed: list[Markup] = []
    top = float(_MARGIN)
    for first in range(0, len(charts), columns):
        row = charts[first : first + columns]
        head = _TITLE + _LEGEND_LINE * max(len(_legend(chart)) for chart in row)
        for column, chart in enumerate(row):
            group = Markup('<g transform="translate({},{})">').format(_MARGIN + column * (WIDTH + _GAP), top)
            placed += [group, *_headed(chart), _framed(chart, head), Markup("</g>")]
        top += head + max(map(_tall, row)) + _GAP
    wide = 2 * _MARGIN + min(columns, len(charts)) * (WIDTH + _GAP) - _GAP
    size = Markup('viewBox="0 0 {} {:.0f}" width="{}" height="{:.0f}"').format(wide, top, wide, top)
    opened = Markup('<svg xmlns="http://www.w3.org/2000/svg" role="img" {}>').format(size)
    words = Markup("<title>{}</title>").format(" ".join(describe(chart) for chart in charts))
    css = Markup(f"<style>{style()}{_STYLE}</style>")  # noqa: S704 - ours
    paper = Markup('<rect class="paper" width="100%" height="100%"/><g class="plot">')
    return str(opened + words + css + paper + Markup("").join(placed) + Markup("</g></svg>\n"))


def _tall(chart: Chart) -> int:
    top, _, bottom, _ = margins(chart)
    return top + plot_height(chart) + bottom


def _framed(chart: Chart, head: int) -> Markup:
    """The drawing in a frame of its own, with its margins around it."""
    top, right, _, left = margins(chart)
    frame = Markup('<svg x="{}" y="{}" width="{}" height="{}">')
    return (
        frame.format(left, head + top, WIDTH - left - right, plot_height(chart))
        + drawing(chart, both_scales=False)
        + Markup("</svg>")
    )


def _headed(chart: Chart) -> Iterator[Markup]:
    unit = Markup('<tspan class="unit" dx="8">{}</tspan>').format(chart.y.title) if chart.y.title else ""
    yield Markup('<text class="title" x="0" y="13">{}{}</text>').format(chart.title, unit)
    for number, line in enumerate(_legend(chart)):
        y = _TITLE + _LEGEND_LINE * number + 9
        for x, series in line:
            filled = chart.mark in FILLED
            block = "outlined" if series.dash == "dash" else "block"
            stroke = Markup('<path class="{} s{}" d="M{:.0f},{}h{}"/>').format(
                block if filled else f"line {series.dash}", series.colour % 8, x, y - 4, 10 if filled else 18
            )
            yield stroke + Markup('<text x="{:.0f}" y="{}">{}</text>').format(
                x + (16 if filled else _KEY), y, series.name
            )


def _legend(chart: Chart) -> list[list[tuple[float, Series]]]:
    """The legend's lines of (place, series), each as full as there is room for; empty if curves have their names beside them."""
    if labelled(chart):
        return []
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
