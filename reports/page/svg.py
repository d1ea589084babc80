"""A chart as static SVG: what stands in a page until a script draws over it, on paper, and where there is no script.

Colours come from a style sheet (`style`: `s0` to `s7` inside `plot`), so that one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil, floor, log10
from pathlib import Path

from markupsafe import Markup

from reports.blocks import Axis, Chart, Series, amount

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 44
_ROW = 40
_BAR = 16
_TAIL_TICKS = ((1, "0"), (2, "50"), (10, "90"), (20, "95"), (100, "99"), (1000, "99.9"))
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(frozen=True, slots=True)
class _AxisScale:
    """From values to drawing units, with the places of its ticks and what they say."""

    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


@cache
def style() -> str:
    """The style sheet of drawings, in pages and beside them."""
    return (Path(__file__).parent / "chart.css").read_text("utf-8")


def height(chart: Chart) -> int:
    """Of the drawing; charts with a row for each name grow with them."""
    return _TOP + _BOTTOM + _ROW * len(chart.y.names) if chart.y.scale == "category" else HEIGHT


def ticks(axis: Axis, low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Where to label an axis from `low` to `high`, and how."""
    if axis.scale == "tail":
        return tuple((float(at), text) for at, text in _TAIL_TICKS if low <= at <= high * 1.001)
    if axis.scale == "elapsed":
        return tuple((at, clock(at)) for at in _multiples(max(0.0, low), high, _time_step(high - low)))
    if axis.scale == "log":
        return tuple((at, _short(at)) for at in _log_ticks(low, high))
    return tuple((at, _short(at)) for at in _multiples(low, high, _step(high - low)))


def clock(seconds: float) -> str:
    """0:07, 12:30, 1:00:00."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def svg(chart: Chart) -> Markup:
    """The drawing, hidden from screen readers: `describe` and `points` say the same in words and figures."""
    head = Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">').format(WIDTH, height(chart))
    return head + drawing(chart) + Markup("</svg>")


def drawing(chart: Chart) -> Markup:
    """What is in it, WIDTH wide and `height` high."""
    tall = height(chart)
    xs, ys = _values(chart)
    rows = range(len(chart.y.names))
    x = _scale(chart.x, xs, _left(chart), WIDTH - _RIGHT)
    if chart.y.scale == "category":
        y = _AxisScale(
            lambda row: _TOP + _ROW * (row + 0.7), tuple((row, "") for row in rows) if chart.mark == "dot" else ()
        )
        body = _rows(chart, x, y)
    else:
        y = _scale(chart.y, ys, tall - _BOTTOM, _TOP)
        body = _marks(chart, x, y)
    return Markup("").join([*_grid(chart, x, y, tall), *body])


def describe(chart: Chart) -> str:
    """The chart in words: each series with its range."""
    parts = []
    for series in chart.series:
        values = [v for v in (series.x if chart.mark == "dot" else series.y) if v is not None]
        if values:
            low, high = amount(min(values)), amount(max(values))
            span = low if low == high else f"{low} to {high}"
            parts.append(f"{series.name} {span} {(chart.x if chart.y.scale == 'category' else chart.y).unit}".strip())
    return f"{chart.title}: {'; '.join(parts) or 'nothing to draw'}."


def points(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """(headings, rows): the chart as a table, a column for each series."""
    table: dict[float, dict[str, float | None]] = {}
    for series in chart.series:
        for x, y in zip(series.x, series.y, strict=True):
            row, value = (y, x) if chart.mark == "dot" else (x, y)
            if row is not None:
                table.setdefault(row, {})[series.name] = value
    labels = {x: text for s in chart.series for x, text in zip(s.x, s.labels, strict=False)}
    headings = [chart.y.title if chart.y.scale == "category" else chart.x.title, *(s.name for s in chart.series)]
    rows = [
        [labels.get(x) or _said(chart, x), *(amount(values.get(s.name)) for s in chart.series)]
        for x, values in sorted(table.items())
        if labels.get(x) != ""
    ]
    return headings, rows


def _said(chart: Chart, x: float) -> str:
    if chart.y.scale == "category":
        return chart.y.names[int(x)]
    return clock(x) if chart.x.scale == "elapsed" else amount(x)


def stacked(series: Sequence[Series]) -> Iterator[tuple[Series, int, float, float]]:
    """(series, point, from, to): where each part of a stack begins and ends; points are told apart by their place."""
    tops: dict[float, float] = {}
    for one in series:
        for i, (at, value) in enumerate(zip(one.x, one.y, strict=True)):
            if value is not None:
                base = tops.get(at, 0.0)
                tops[at] = base + value
                yield one, i, base, tops[at]


def _values(chart: Chart) -> tuple[list[float], list[float]]:
    """What the axes must hold, in the order of the axes of the drawing."""
    xs = [x for s in chart.series for x in s.x]
    ys = [y for s in chart.series for y in s.y if y is not None]
    if chart.mark == "bar":
        ends = [x + side * chart.bar_width / 2 for x in xs for side in (-1, 1)]
        return ends, [top for *_, top in stacked(chart.series)]
    if chart.mark == "hbar":
        return [top for *_, top in stacked(chart.series)], []
    return xs, ys


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _AxisScale:
    if axis.scale in ("log", "tail"):
        above = [v for v in values if v > 0] or [1.0]
        low, high = min(above), max(above)
        if axis.scale == "log" and high / low < 10:
            low, high = low / 2, high * 2
        low_log, span = log10(low), (log10(high) - log10(low)) or 1.0
        return _AxisScale(
            lambda v: start + (end - start) * (log10(max(v, low)) - low_log) / span, ticks(axis, low, high)
        )
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    high = high if high > low else low + 1.0
    if axis.scale == "linear":
        step = _step(high - low)
        high = ceil(high / step) * step
    return _AxisScale(lambda v: start + (end - start) * (v - low) / (high - low), ticks(axis, low, high))


def _left(chart: Chart) -> int:
    return _RIGHT if chart.y.scale == "category" else _LEFT


def _grid(chart: Chart, x: _AxisScale, y: _AxisScale, tall: float) -> Iterator[Markup]:
    bottom, left = tall - _BOTTOM, _left(chart)
    line = Markup('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    for at, label in y.ticks:
        yield line.format(left, y.place(at), WIDTH - _RIGHT, y.place(at))
        yield text.format(left - 7, y.place(at) + 4, "end", label)
    for at, label in x.ticks:
        yield line.format(x.place(at), _TOP, x.place(at), bottom)
        yield text.format(x.place(at), bottom + 17, "middle", label)
    yield text.format((left + WIDTH - _RIGHT) / 2, bottom + 36, "middle", chart.x.title)
    if chart.y.title:
        middle = (_TOP + bottom) / 2
        turned = Markup('<text x="12" y="{:.1f}" text-anchor="middle" transform="rotate(-90 12 {:.1f})">{}</text>')
        yield turned.format(middle, middle, chart.y.title)


def _marks(chart: Chart, x: _AxisScale, y: _AxisScale) -> Iterator[Markup]:
    if chart.mark == "bar":
        for series, i, base, top in stacked(chart.series):
            left = x.place(series.x[i] - chart.bar_width / 2)
            wide = x.place(series.x[i] + chart.bar_width / 2) - left
            yield _rectangle(series.colour, left, y.place(top), wide, y.place(base) - y.place(top))
        return
    for series in chart.series:
        points = [(x.place(a), y.place(b)) if b is not None else None for a, b in zip(series.x, series.y, strict=True)]
        if chart.mark == "step":
            yield _staircase(series, [p for p in points if p is not None], y.place(0))
        else:
            yield from _polyline(series, points)


def _polyline(series: Series, points: Sequence[tuple[float, float] | None]) -> Iterator[Markup]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    path = "".join(f"M{' L'.join(f'{a:.1f},{b:.1f}' for a, b in run)}" for run in runs if len(run) > 1)
    yield Markup('<path class="line s{} {}" d="{}"/>').format(series.colour % 8, series.dash, path)
    if len(points) <= 40:
        for a, b in (p for run in runs for p in run):
            yield Markup('<circle class="fill s{}" cx="{:.1f}" cy="{:.1f}" r="2.2"/>').format(series.colour % 8, a, b)


def _staircase(series: Series, points: Sequence[tuple[float, float]], floor_at: float) -> Markup:
    if not points:
        return Markup("")
    steps = [f"M{points[0][0]:.1f},{floor_at:.1f}", f"V{points[0][1]:.1f}"]
    steps += [f"H{b[0]:.1f}V{b[1]:.1f}" for _, b in pairwise(points)]
    return Markup('<path class="area s{}" d="{}"/>').format(series.colour % 8, "".join(steps))


def _rows(chart: Chart, x: _AxisScale, y: _AxisScale) -> Iterator[Markup]:
    for row, name in enumerate(chart.y.names):
        yield Markup('<text class="name" x="{}" y="{:.1f}">{}</text>').format(_left(chart), y.place(row) - 9, name)
    if chart.mark == "dot":
        for series in chart.series:
            for at, level in zip(series.x, series.y, strict=True):
                if level is not None:
                    yield Markup('<circle class="{} s{}" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(
                        "ring" if series.dash == "dash" else "fill", series.colour % 8, x.place(at), y.place(level)
                    )
        return
    for series, i, base, top in stacked(chart.series):
        left = x.place(base)
        yield _rectangle(series.colour, left, y.place(series.x[i]) - 4, x.place(top) - left, _BAR)


def _rectangle(colour: int, left: float, top: float, wide: float, tall: float) -> Markup:
    return Markup('<rect class="fill s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        colour % 8, left, top, max(0.0, wide), max(0.0, tall)
    )


def _short(tick: float) -> str:
    return f"{tick:,.0f}" if tick >= 10 else f"{tick:.6g}"


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five ticks fit."""
    rough = (span or 1.0) / 5
    power: float = 10.0 ** floor(log10(rough))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.999)


def _time_step(span_s: float) -> float:
    return next((float(s) for s in _STEPS_S if span_s / s <= 8), float(_STEPS_S[-1]))


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    few = (1, 2, 5) if log10(high / low) < 3.2 else (1,)
    return [m * 10.0**p for p in powers for m in few if low * 0.999 <= m * 10.0**p <= high * 1.001]
