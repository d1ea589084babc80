"""The charts of one report, or of several laid over each other: every one a value that can be drawn as SVG or by plotly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import log10

import numpy as np

from reports import names
from reports.blocks import Axis, Chart, Dash, Series
from reports.model import Report
from reports.page.measures import Slice, breakdown, failures, quantile, sketch, slices
from reports.sketch import Sketch

Named = tuple[str, Report]

RATE = Axis("per second", "/s")
TIME = Axis("milliseconds", "ms")
ELAPSED = Axis("time since the first request", "s", "elapsed")

BREAKDOWN_NAMES = {
    "pool": "pool wait",
    "connect": "connect",
    "db": "statements",
    "rest": "rest of server",
    "network": "network",
}
_BREAKDOWN_COLOURS = {"pool": 1, "connect": 3, "db": 0, "rest": 2, "network": 7}
_QUANTILES: tuple[tuple[str, int], ...] = (("p50", 0), ("p95", 3), ("p99", 1))
_QUANTILE_DASHES: Mapping[str, Dash] = {"p50": "dot", "p95": "dash", "p99": "solid"}
_MOST_KINDS = 7
_HISTOGRAM_BARS = 60
_TAIL_END = 1000.0
"""1 / (1 - 0.999): where the percentile curve ends."""


def over_time(reports: Sequence[Named]) -> tuple[Chart, ...]:
    """Throughput, failures, latency percentiles and the generator's lag by reporting period; those that can be drawn."""
    timed = [(name, found) for name, report in reports if len(found := slices(report)) > 1]
    if not timed:
        return ()
    charts = (_throughput(timed), _failures(timed), _latency(timed), _breakdown_over_time(timed))
    return tuple(chart for chart in charts if chart is not None)


def distribution(reports: Sequence[Named]) -> tuple[Chart, ...]:
    """The percentile curve and the histogram of response times, for reports with sketches."""
    known = [
        (i, name, found) for i, (name, report) in enumerate(reports) if (found := sketch(report, names.RESPONSE_TIME))
    ]
    if not known:
        return ()
    return _percentile_curve(reports), _histogram(known)


def where_time_goes(reports: Sequence[Named]) -> Chart | None:
    """One bar for each report that tells its server's time."""
    found = [(name, {s.name: s.ms for s in breakdown(report.aggregate)}) for name, report in reports]
    told = [(name, shares) for name, shares in found if shares]
    if not told:
        return None
    return Chart(
        id="time-goes",
        title="Mean time of an answer, by where it was spent",
        mark="hbar",
        x=TIME,
        y=Axis("", "", "category", tuple(name if len(reports) > 1 else "whole run" for name, _ in told)),
        series=tuple(
            Series(
                BREAKDOWN_NAMES[part],
                tuple(float(i) for i in range(len(told))),
                tuple(_figure(shares.get(part)) for _, shares in told),
                _BREAKDOWN_COLOURS[part],
            )
            for part in BREAKDOWN_NAMES
            if any(part in shares for _, shares in told)
        ),
        wide=True,
    )


def _throughput(timed: Sequence[tuple[str, list[Slice]]]) -> Chart:
    series: list[Series] = []
    if len(timed) == 1:
        found = timed[0][1]
        for label, metric, colour in (("requests sent", names.REQUESTS, 7), ("answers", names.RESPONSES, 0)):
            if any(metric in s.period.counters for s in found):
                dash: Dash = "dash" if colour else "solid"
                series.append(_line(label, found, _rate_of(metric), colour, dash))
    else:
        series = [_line(name, found, _rate_of(names.RESPONSES), i) for i, (name, found) in enumerate(timed)]
    title = "Throughput" if len(timed) == 1 else "Answers per second"
    return Chart("throughput", title, "line", ELAPSED, RATE, tuple(series))


def _failures(timed: Sequence[tuple[str, list[Slice]]]) -> Chart | None:
    if len(timed) > 1:
        many = [_line(name, found, _failure_rate, i) for i, (name, found) in enumerate(timed)]
        if not any(y for s in many for y in s.y):
            return None
        return Chart("failures", "Errors and answers of 400 and above, per second", "line", ELAPSED, RATE, tuple(many))
    found = timed[0][1]
    totals: dict[str, int] = {}
    for s in found:
        for kind, n in failures(s.period.counters).items():
            totals[kind] = totals.get(kind, 0) + n
    if not totals:
        return None
    kinds = sorted(totals, key=lambda kind: (-totals[kind], kind))
    groups = [(kind, [kind]) for kind in kinds[:_MOST_KINDS]]
    groups += [("other kinds", kinds[_MOST_KINDS:])] if len(kinds) > _MOST_KINDS else []
    series = tuple(_line(label, found, _kinds_rate(group), (4 + i) % 8) for i, (label, group) in enumerate(groups))
    return Chart(
        "failures", "Errors and answers of 400 and above", "bar", ELAPSED, RATE, series, bar_width=_width(found)
    )


def _latency(timed: Sequence[tuple[str, list[Slice]]]) -> Chart | None:
    series = []
    for i, (name, found) in enumerate(timed):
        for key, colour in _QUANTILES:
            if len(timed) == 1:
                series.append(_line(key, found, _quantile_of(key), colour))
            else:
                series.append(_line(f"{name} {key}", found, _quantile_of(key), i, _QUANTILE_DASHES[key]))
    series = [s for s in series if any(y is not None for y in s.y)]
    if not series:
        return None
    return Chart("latency", "Response time percentiles", "line", ELAPSED, _scaled(series), tuple(series))


def _breakdown_over_time(timed: Sequence[tuple[str, list[Slice]]]) -> Chart | None:
    if len(timed) > 1:
        return None
    found = timed[0][1]
    shares = [{s.name: s.ms for s in breakdown(one.period)} for one in found]
    series = tuple(
        Series(
            BREAKDOWN_NAMES[part],
            _middles(found),
            tuple(_figure(s.get(part)) for s in shares),
            _BREAKDOWN_COLOURS[part],
        )
        for part in BREAKDOWN_NAMES
        if any(part in s for s in shares)
    )
    if not series:
        return None
    title = "Where the time goes, means by period"
    return Chart("time-goes-over-time", title, "bar", ELAPSED, TIME, series, bar_width=_width(found))


def _percentile_curve(reports: Sequence[Named]) -> Chart:
    series = []
    one = len(reports) == 1
    for i, (name, report) in enumerate(reports):
        found, intended = sketch(report, names.RESPONSE_TIME), sketch(report, names.INTENDED)
        if found is not None:
            series.append(_tail("response time" if one else name, found, i))
        if one and intended is not None:
            series.append(_tail("from intended start to last byte", intended, 1, "dash"))
    note = "Drawn as far as the samples reach: a percentile needs at least one sample beyond it."
    axis = Axis("percentile", "%", "tail")
    return Chart("percentiles", "Percentile curve", "line", axis, _scaled(series), tuple(series), note)


def _tail(label: str, found: Sketch, colour: int, dash: Dash = "solid") -> Series:
    end = min(_TAIL_END, max(2.0, float(found.count)))
    reach = np.logspace(0, log10(end), 61)
    qs = [1 - 1 / float(r) for r in reach]
    values = tuple(_figure(min(max(found.quantile(q), found.min), found.max)) for q in qs)
    return Series(label, tuple(float(r) for r in reach), values, colour, dash, tuple(f"p{q * 100:.4g}" for q in qs))


def _histogram(known: Sequence[tuple[int, str, Sketch]]) -> Chart:
    """Buckets of the sketches, some of them taken together: the same edges for every report."""
    base = known[0][2]
    alike = [k for k in known if k[2].relative_accuracy == base.relative_accuracy]
    low = min((k[2].positive.offset for k in alike if len(k[2].positive.counts)), default=0)
    high = max((k[2].positive.offset + len(k[2].positive.counts) for k in alike), default=1)
    step = max(1, -(-(high - low) // _HISTOGRAM_BARS))
    gamma = (1 + base.relative_accuracy) / (1 - base.relative_accuracy)
    series = []
    for i, name, found in alike:
        counts = np.zeros(-(-(high - low) // step) * step)
        at = found.positive.offset - low
        counts[at : at + len(found.positive.counts)] = found.positive.counts
        shares = counts.reshape(-1, step).sum(axis=1) / found.count * 100
        edges = [gamma ** (low - 1 + k * step) for k in range(len(shares) + 1)]
        spans = tuple(f"{a:.3g} to {b:.3g} ms" for a, b in pairwise(edges))
        label = "response time" if len(known) == 1 else name
        series.append(
            Series(label, tuple(edges), (*(_figure(float(s)) for s in shares), 0.0), i, "solid", (*spans, ""))
        )
    zeros = sum(k[2].zero_count for k in alike)
    note = f"{zeros} answers of 0 ms have no place on a logarithmic axis." if zeros else ""
    return Chart("histogram", "Histogram", "step", Axis("milliseconds", "ms", "log"), Axis("percent of answers", "%"),
                 tuple(series), note)  # fmt: skip


def _line(
    label: str, found: Sequence[Slice], of: Callable[[Slice], float | None], colour: int, dash: Dash = "solid"
) -> Series:
    return Series(label, _middles(found), tuple(_figure(of(s)) for s in found), colour % 8, dash)


def _middles(found: Sequence[Slice]) -> tuple[float, ...]:
    return tuple(round(s.middle_s, 3) for s in found)


def _width(found: Sequence[Slice]) -> float:
    """Of a bar: the shortest way from one to the next, so that none covers another."""
    middles = _middles(found)
    return min((b - a for a, b in pairwise(middles)), default=1.0) * 0.86


def _rate_of(metric: str) -> Callable[[Slice], float | None]:
    return lambda s: s.per_second(s.period.counters.get(metric, 0))


def _failure_rate(s: Slice) -> float:
    return s.per_second(sum(failures(s.period.counters).values()))


def _kinds_rate(kinds: Iterable[str]) -> Callable[[Slice], float | None]:
    wanted = tuple(kinds)
    return lambda s: s.per_second(sum(failures(s.period.counters).get(kind, 0) for kind in wanted))


def _quantile_of(key: str) -> Callable[[Slice], float | None]:
    return lambda s: quantile(s.period, names.RESPONSE_TIME, key)


def _scaled(series: Sequence[Series]) -> Axis:
    """Logarithmic where the largest is more than 30 times the smallest: a linear axis would show only the largest."""
    values = [y for s in series for y in s.y if y is not None and y > 0]
    wide = bool(values) and max(values) / min(values) > 30
    return Axis(TIME.title, TIME.unit, "log") if wide else TIME


def _figure(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
