"""Draws charts as SVG; the only module that does.

The drawing is as wide as its container allows: horizontal positions are percentages, curves are stretched without their
strokes growing thicker, and text keeps its size, so that one drawing serves a phone, a screen, paper and a picture file.
Ticks and labels are outside the plotted area, in a margin that the container must leave around it (`margins`).

A chart whose values are all above zero is drawn on a linear and on a logarithmic scale, one of them hidden, so that a
script switches between them without drawing anything itself. Colours come from a style sheet (`style`: classes `s0` to
`s7`), so that the same drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from textwrap import wrap

from markupsafe import Markup

from reports.blocks import Chart, Series, amount
from reports.page.chart_table import BINNED, describe, positions
from reports.page.scales import AxisScale, Tick, axis_scale
from reports.printable import printable

ACROSS = 2000
"""Units across the plotted area, whatever its width in px. Whole units keep paths short."""

_DOWN = 4
"""Units for each px of height."""

FILLED = ("bar", "hbar", "bars", "area")
"""Marks whose series are areas: a legend shows a block for each."""

_PLOT_PX = 200
_ROW_PX, _BAR_PX = 44, 14
_NEXT_BAR_PX = 19
"""From one bar of the mark "bars" to the next one of its row."""

_WORD_CHARACTER_PX = 6.7
"""Width of a character of the words beside a bar."""

_NAME_CHARACTERS, _NAME_LINES, _NAME_LINE_PX = 42, 3, 14
"""A row's name is broken into lines that a phone has room for."""

_LABEL_PX = 15
"""Least distance between two labels beside each other's curves."""

_GAP = 6
"""Units left free between bars that are wide enough for it."""

_MOST_LABELS, _LONGEST_LABEL = 5, 11
_CHARACTER_PX = 7.5
"""Width of a character of a label, generously."""
_MOST_DOTS = 40
"""A line of no more points than this shows each of them as a dot."""

_MANY_POINTS = 300
"""A line of more points than this is drawn finer, so that its ups and downs stay apart."""

_MOST_X_TICKS = 5
"""Where there are more, every second one is hidden on narrow pages; of percentiles, these."""

_SPARE_PERCENTILES = ("75", "95")

Point = tuple[int, int]


@cache
def style() -> str:
    """The style sheet of drawings, for pages and for pictures."""
    return (Path(__file__).parent / "chart.css").read_text("utf-8")


def plot_height(chart: Chart) -> int:
    """Height of the plotted area in px: fixed, or growing with the number of named rows."""
    return _row_height(chart) * len(chart.y.names) if chart.y.scale == "category" else _PLOT_PX


def margins(chart: Chart) -> tuple[int, int, int, int]:
    """The margins in px (top, right, bottom, left) that ticks, labels and the x axis's title need around the plotted area."""
    longest = max((len(series.name) for series in chart.series), default=0) if labelled(chart) else 0
    words = max((len(text.text) for series in chart.series for text in series.words), default=0)
    beside = 14 + round(max(_CHARACTER_PX * longest, _WORD_CHARACTER_PX * words))
    right = max(22, beside, _half_a_tick(x_scale(chart).ticks))
    if chart.y.scale == "category":
        return 8, right, 46, 12
    digits = max(len(label) for scale in y_scales(chart) for _, label in scale.ticks)
    return 8, right, 46, max(54, 14 + round(_CHARACTER_PX * digits))


def _half_a_tick(ticks: Sequence[Tick]) -> int:
    """The width in px of half the last tick's label, which stands under the end of its axis."""
    return round(_CHARACTER_PX * len(ticks[-1][1]) / 2) if ticks else 0


def x_scale(chart: Chart) -> AxisScale:
    """The scale of the horizontal axis; in rows of names, of their bars or dots."""
    if chart.y.scale != "category":
        return axis_scale(chart.x, (x for s in chart.series for x in s.x), rounded=chart.x.scale == "linear")
    if chart.mark == "bars":
        return axis_scale(chart.x, [0.0, *_values(s.y for s in chart.series)])
    if chart.mark == "hbar":
        return axis_scale(chart.x, [top for *_, top in stacked(chart.series)])
    return axis_scale(chart.x, (x for s in chart.series for x in s.x))


def y_scales(chart: Chart) -> list[AxisScale]:
    """The scale of the vertical axis of figures, and the other one that a script can switch to, if there is one."""
    values = [top for *_, top in stacked(chart.series)] if chart.mark == "bar" else _values(s.y for s in chart.series)
    kinds = [chart.y]
    if switchable(chart):
        kinds.append(replace(chart.y, scale="linear" if chart.y.scale == "log" else "log"))
    return [axis_scale(axis, values) for axis in kinds]


def labelled(chart: Chart) -> bool:
    """Whether each curve's name stands beside its end."""
    names = [series.name for series in chart.series]
    few = 2 <= len(names) <= _MOST_LABELS and all(len(name) <= _LONGEST_LABEL for name in names)
    return chart.mark in ("line", "step") and few


def svg(chart: Chart) -> Markup:
    """The drawing as an SVG element, with the chart in words for those who cannot see it."""
    head = Markup('<svg class="drawing" width="100%" height="{}" role="img" aria-label="{}">')
    return head.format(plot_height(chart), printable(describe(chart))) + drawing(chart) + Markup("</svg>")


def drawing(chart: Chart, *, both_scales: bool = True) -> Markup:
    """The content of an SVG element of any width and of `plot_height`, with or without the second scale to switch to.

    For scripts: `data-at` holds the places of the rows of the chart's table on the main axis, in units of ACROSS;
    `data-bins` is 1 where they are left edges of bins. For rows of names they are upper edges in px, and `data-row` is the
    height of each. `data-low`, `data-high` and `data-log` of a group say how values are placed in it.
    """
    return Markup("").join(_rows(chart) if chart.y.scale == "category" else _curves(chart, both_scales))


def _curves(chart: Chart, both_scales: bool) -> Iterator[Markup]:
    x = x_scale(chart)
    at = " ".join(str(round(x.place(p) * ACROSS)) for p in positions(chart))
    yield Markup('<g class="at" data-at="{}" data-bins="{}">').format(at, int(chart.mark in BINNED))
    yield from _x_axis(chart, x)
    for mark in chart.marks:
        yield Markup('<line class="mark" x1="{0}" x2="{0}" y2="100%"/>').format(_percent(x.place(mark)))
    for number, y in enumerate(y_scales(chart)[: 2 if both_scales else 1]):
        yield Markup('<g class="{}" data-low="{:.6g}" data-high="{:.6g}" data-log="{}">').format(
            "other" if number else "on", y.low, y.high, int(y.log)
        )
        for value, label in y.ticks:
            place = _percent(1 - y.place(value))
            yield Markup('<line class="grid" x2="100%" y1="{0}" y2="{0}"/>').format(place)
            yield Markup('<text x="-8" y="{}" dy=".32em" text-anchor="end">{}</text>').format(place, label)
        tall = _PLOT_PX * _DOWN
        yield Markup(
            '<svg class="marks" width="100%" height="100%" viewBox="0 0 {} {}" preserveAspectRatio="none">'
        ).format(ACROSS, tall)
        yield from _marks(chart, x, y, tall)
        yield Markup("</svg>")
        if labelled(chart):
            yield from _end_labels(chart, y)
        yield Markup("</g>")
    yield Markup("</g>")


def switchable(chart: Chart) -> bool:
    """Whether the chart is drawn on both scales: it has lines, and all its values can stand on a logarithmic axis."""
    values = list(_values(s.y for s in chart.series))
    return chart.mark in ("line", "step") and chart.y.scale in ("linear", "log") and bool(values) and min(values) > 0


def stacked(series: Sequence[Series]) -> Iterator[tuple[int, int, float, float]]:
    """All parts of the stacks, as (number of the series, of its point, from, to); parts at the same x are stacked."""
    tops: dict[float, float] = {}
    for number, one in enumerate(series):
        for i, (at, value) in enumerate(zip(one.x, one.y, strict=True)):
            if value is not None:
                base = tops.get(at, 0.0)
                tops[at] = base + value
                yield number, i, base, tops[at]


def _values(rows: Iterable[Iterable[float | None]]) -> list[float]:
    return [value for row in rows for value in row if value is not None]


def _percent(share: float) -> str:
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"


def _x_axis(chart: Chart, x: AxisScale) -> Iterator[Markup]:
    upright = chart.y.scale == "category"
    yield Markup('<line class="{}" x2="100%" y1="100%" y2="100%"/>').format("grid" if upright else "axis")
    many = len(x.ticks) > _MOST_X_TICKS
    for number, (value, label) in enumerate(x.ticks):
        spare = label in _SPARE_PERCENTILES if chart.x.scale == "tail" else many and number % 2
        place = _percent(x.place(value))
        if upright:
            yield Markup('<line class="grid" x1="{0}" x2="{0}" y2="100%"/>').format(place)
        text = Markup('<text{} x="{}" y="100%" dy="1.45em" text-anchor="middle">{}</text>')
        yield text.format(Markup(' class="spare"') if spare else "", place, label)
    yield Markup('<text x="50%" y="100%" dy="3.05em" text-anchor="middle">{}</text>').format(chart.x.title)


# Curves and bins


def _marks(chart: Chart, x: AxisScale, y: AxisScale, tall: int) -> Iterator[Markup]:
    if chart.mark == "bar":
        yield from _stacks(chart, x, y, tall)
        return
    for number, series in enumerate(chart.series):
        points = [
            (round(x.place(a) * ACROSS), None if b is None else round((1 - y.place(b)) * tall))
            for a, b in zip(series.x, series.y, strict=True)
        ]
        if chart.mark == "line":
            runs = _runs(points)
            count = sum(map(len, runs))
            kind = f"line {series.dash}{' fine' if count > _MANY_POINTS else ''}"
            yield _path(kind, number, series, "".join(map(_joined, runs)))
            if count <= _MOST_DOTS:
                yield _path("dots", number, series, "".join(f"M{a} {b}h0" for run in runs for a, b in run))
        elif chart.mark == "step":
            yield _path(f"line {series.dash}", number, series, _staircase(points))
        else:
            yield _path("area", number, series, _staircase(points, tall))


def _staircase(points: Sequence[tuple[int, int | None]], floor_at: int | None = None) -> str:
    """Levels from each edge to the next; closed along `floor_at` where that is given."""
    runs: list[list[Point]] = [[]]
    for (left, level), (right, _) in pairwise(points):
        if level is None:
            runs.append([])
        else:
            runs[-1] += [(left, level), (right, level)]
    if floor_at is not None:
        runs = [[(run[0][0], floor_at), *run, (run[-1][0], floor_at)] for run in runs if run]
    return "".join(map(_joined, runs))


def _stacks(chart: Chart, x: AxisScale, y: AxisScale, tall: int) -> Iterator[Markup]:
    for number, parts in groupby(stacked(chart.series), key=lambda part: part[0]):
        series, path = chart.series[number], ""
        for _, i, base, top in parts:
            if top > base and i + 1 < len(series.x):
                left, right = (round(x.place(series.x[k]) * ACROSS) for k in (i, i + 1))
                right -= _GAP if right - left > 10 * _GAP else 0
                low, high = (round((1 - y.place(v)) * tall) for v in (base, top))
                path += f"M{left} {low}V{high}H{right}V{low}z"
        yield _path("fill", number, series, path)


def _runs(points: Iterable[tuple[int, int | None]]) -> list[list[Point]]:
    """The stretches of a curve between its gaps."""
    runs: list[list[Point]] = [[]]
    for a, b in points:
        if b is None:
            runs.append([])
        else:
            runs[-1].append((a, b))
    return runs


def _joined(run: Sequence[Point]) -> str:
    """A path through the points, each given by its distance from the one before; a lone point is a dot."""
    if not run:
        return ""
    (a, b), *others = run
    steps: list[str] = []
    for to_a, to_b in others:
        steps += [f"{to_a - a}", f"{to_b - b}"]
        a, b = to_a, to_b
    moves = "".join(step if step.startswith("-") else f" {step}" for step in steps)
    return f"M{run[0][0]} {run[0][1]}" + (f"l{moves.strip()}" if steps else "h0")


def _path(kind: str, number: int, series: Series, path: str) -> Markup:
    return Markup('<path class="{} s{}" data-series="{}" d="{}"/>').format(kind, series.colour % 8, number, path)


def _end_labels(chart: Chart, y: AxisScale) -> Iterator[Markup]:
    """Each series' name at the height where its curve ends, moved apart where two would overlap."""
    ends = [
        ((1 - y.place(last)) * _PLOT_PX, number, series)
        for number, series in enumerate(chart.series)
        if (last := next((v for v in reversed(series.y) if v is not None), None)) is not None
    ]
    # If curves end at the same height, the later series is the higher percentile, and its label goes above.
    ends.sort(key=lambda end: (round(end[0]), -end[1]))
    heights: list[float] = []
    for height, *_ in ends:
        heights.append(max(height, heights[-1] + _LABEL_PX) if heights else height)
    # Labels that were pushed below the axis push the others up again.
    lowest = _PLOT_PX - 4.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], lowest)
        lowest = heights[i] - _LABEL_PX
    for height, (_, number, series) in zip(heights, ends, strict=True):
        label = Markup('<text class="end s{}" data-series="{}" x="100%" dx="7" y="{:.0f}" dy=".32em">{}</text>')
        yield label.format(series.colour % 8, number, height, printable(series.name))


# Rows of names


def _rows(chart: Chart) -> Iterator[Markup]:
    bars = chart.mark == "hbar"
    x = x_scale(chart)
    tall = plot_height(chart)
    row_px = _row_height(chart)
    middles = [(row + 1) * row_px - 14 for row in range(len(chart.y.names))]
    places = " ".join(str(int(row) * row_px) for row in positions(chart))
    yield Markup('<g class="at" data-at="{}" data-bins="1" data-row="{}">').format(places, row_px)
    yield from _x_axis(chart, x)
    for row, name in enumerate(chart.y.names):
        lines = _name_lines(name)
        for number, line in enumerate(lines, 1 - len(lines)):
            height = middles[row] - 14 - _above(chart) + number * _NAME_LINE_PX
            yield Markup('<text class="name" y="{}">{}</text>').format(height, printable(line))
        if bars:
            total = sum(s.y[i] or 0.0 for s in chart.series for i, at in enumerate(s.x) if at == row)
            said = Markup('<text class="name" x="100%" y="{}" text-anchor="end">{} {}</text>')
            yield said.format(middles[row] - 14, amount(total), chart.x.unit)
        elif chart.mark == "dot":
            yield Markup('<line class="grid" x2="100%" y1="{0}" y2="{0}"/>').format(middles[row])
    yield Markup(
        '<svg class="marks" width="100%" height="100%" viewBox="0 0 {} {}" preserveAspectRatio="none">'
    ).format(ACROSS, tall)
    if chart.mark == "bars":
        yield from _bars_apart(chart, x, middles)
    else:
        yield from _bars(chart, x, middles) if bars else _dots(chart, x, middles)
    yield Markup("</svg>")
    yield from _words(chart, x, middles)
    yield Markup("</g>")


def _row_height(chart: Chart) -> int:
    most = max((len(_name_lines(name)) for name in chart.y.names), default=1)
    return _ROW_PX + _NAME_LINE_PX * (most - 1) + _above(chart)


def _above(chart: Chart) -> int:
    """Height in px that a row needs for bars above its lowest one."""
    return _NEXT_BAR_PX * (len(chart.series) - 1) if chart.mark == "bars" else 0


def _name_lines(name: str) -> list[str]:
    return wrap(name, _NAME_CHARACTERS, max_lines=_NAME_LINES, placeholder=" …") or [""]


def _bars(chart: Chart, x: AxisScale, middles: Sequence[int]) -> Iterator[Markup]:
    for number, parts in groupby(stacked(chart.series), key=lambda part: part[0]):
        series, path = chart.series[number], ""
        for _, i, base, top in parts:
            left, right = (round(x.place(v) * ACROSS) for v in (base, top))
            path += f"M{left} {middles[int(series.x[i])] - _BAR_PX // 2}h{right - left}v{_BAR_PX}H{left}z"
        yield _path("fill", number, series, path)


def _bars_apart(chart: Chart, x: AxisScale, middles: Sequence[int]) -> Iterator[Markup]:
    for number, series in enumerate(chart.series):
        lift = _NEXT_BAR_PX * (len(chart.series) - 1 - number) + _BAR_PX // 2
        path = "".join(
            f"M0 {middles[int(row)] - lift}h{round(x.place(value) * ACROSS)}v{_BAR_PX}H0z"
            for row, value in zip(series.x, series.y, strict=True)
            if value is not None
        )
        yield _path("outline" if series.dash == "dash" else "fill", number, series, path)


def _words(chart: Chart, x: AxisScale, middles: Sequence[int]) -> Iterator[Markup]:
    """The words of each bar of the mark "bars", at its end."""
    for number, series in enumerate(chart.series):
        lift = _NEXT_BAR_PX * (len(chart.series) - 1 - number)
        for row, value, text in zip(series.x, series.y, series.words, strict=False):
            yield Markup('<text{} data-series="{}" x="{}" dx="7" y="{}" dy=".32em">{}</text>').format(
                Markup(' class="bad"') if text.tone == "bad" else "",
                number,
                _percent(x.place(value or 0.0)),
                middles[int(row)] - lift,
                printable(text.text),
            )


def _dots(chart: Chart, x: AxisScale, middles: Sequence[int]) -> Iterator[Markup]:
    for number, series in enumerate(chart.series):
        places = [
            f"M{round(x.place(at) * ACROSS)} {middles[int(row)]}h0"
            for at, row in zip(series.x, series.y, strict=True)
            if row is not None
        ]
        path = "".join(places)
        yield _path("spot", number, series, path)
        if series.dash == "dash":
            yield _path("hole", number, series, path)
