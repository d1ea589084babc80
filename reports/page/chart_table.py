"""A chart in words and as a table, for readers who cannot see it and for scripts that want its figures. Pure."""

from __future__ import annotations

from reports.blocks import Chart, amount, clock
from reports.printable import printable

BINNED = ("step", "area", "bar")
"""Marks whose x holds the edges of bins."""


def describe(chart: Chart) -> str:
    """The chart in one sentence: its title, and each series with its lowest and highest value, for showing as it is."""
    parts = []
    for series in chart.series:
        values = [v for v in (series.x if chart.mark == "dot" else series.y) if v is not None]
        if values:
            low, high = amount(min(values)), amount(max(values))
            span = low if low == high else f"{low} to {high}"
            parts.append(f"{series.name} {span} {(chart.x if chart.y.scale == 'category' else chart.y).unit}".strip())
    return printable(f"{chart.title}: {'; '.join(parts) or 'nothing to draw'}.")


def positions(chart: Chart) -> list[float]:
    """The positions of the rows of the chart's table on its main axis, ascending: x, or the number of a row of names.

    The closing edge of the last bin has no row, as no value belongs to it.
    """
    points = [point for series in chart.series for point in _points(chart, series.x, series.y)]
    found = sorted({at for at, _ in points})
    if chart.mark in BINNED and found and all(value is None for at, value in points if at == found[-1]):
        found.pop()
    return found


def chart_table(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """(headings, rows): a row for each of `positions`, named in its first cell, and a column for each series."""
    columns = [dict(_points(chart, series.x, series.y)) for series in chart.series]
    labels = {x: text for s in chart.series for x, text in zip(s.x, s.labels, strict=False)}
    headings = [chart.y.title if chart.y.scale == "category" else chart.x.title, *(s.name for s in chart.series)]
    rows = [
        [labels.get(at) or _named(chart, at), *(amount(column.get(at)) for column in columns)]
        for at in positions(chart)
    ]
    return headings, rows


def _points(chart: Chart, x: tuple[float, ...], y: tuple[float | None, ...]) -> list[tuple[float, float | None]]:
    """The points of one series, as (position on the main axis, value)."""
    if chart.mark == "dot":
        return [(row, value) for value, row in zip(x, y, strict=True) if row is not None]
    return list(zip(x, y, strict=True))


def _named(chart: Chart, at: float) -> str:
    if chart.y.scale == "category":
        return chart.y.names[int(at)]
    return clock(at) if chart.x.scale == "elapsed" else amount(at)
