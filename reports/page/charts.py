"""The charts of one report, or of several laid over each other. Pure: reports in, charts as data out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10

import numpy as np

from reports import names
from reports.blocks import Axis, Chart, Dash, Mark, Series, decimal
from reports.model import Report
from reports.page.measures import Moment, Slice, bad_answers, breakdown, sketch, slices, timeline
from reports.sketch import Sketch

Named = tuple[str, Report]

RATE = Axis("per second", "/s")
TIME = Axis("milliseconds", "ms")
ELAPSED = Axis("time since the start", "s", "elapsed")

BREAKDOWN_NAMES = {
    "pool": "pool wait",
    "connect": "connect",
    "db": "statements",
    "held-cpu": "connection held: the worker's CPU",
    "held-rest": "connection held: statements, waiting",
    "rest": "rest of server",
    "outside": "outside the service: waiting for a worker, network",
}
_BREAKDOWN_COLOURS = {"pool": 1, "connect": 3, "db": 0, "held-cpu": 5, "held-rest": 0, "rest": 2, "outside": 7}
_QUANTILES: tuple[tuple[str, int], ...] = (("p50", 0), ("p95", 3), ("p99", 1))
QUANTILE_KEYS = tuple(key for key, _ in _QUANTILES)
_RATES: tuple[tuple[str, Callable[[Moment], float | None], int, Dash], ...] = (
    ("requests", lambda m: m.requests, 7, "dash"),
    ("answers", lambda m: m.answers, 0, "solid"),
    ("errors", lambda m: m.errors, 4, "solid"),
)
_QUANTILE_DASHES: Mapping[str, Dash] = {"p50": "dot", "p95": "dash", "p99": "solid"}
_MOST_KINDS = 7
"""Rarer kinds of failure than these share one colour."""

_FEWEST_POINTS = 3
_FEWEST_OF_A_LINE = 30
"""Fewer points than this are drawn as levels, each as long as it held: a line would show little but dots."""

_OF_PERIODS = "For each reporting period of 10 s."
_HISTOGRAM_BARS = 60
_TAIL_END = 1000.0
"""The percentile curve ends at p99.9, which is 1 / (1 - 0.999) on its axis."""


@dataclass(frozen=True, slots=True)
class _ChartedReport:
    """A report as the charts over time need it."""

    name: str
    moments: Sequence[Moment]
    slices: Sequence[Slice]
    has_seconds: bool


def over_time(reports: Sequence[Named]) -> tuple[Chart, ...]:
    """The charts over time that can be drawn: throughput, response time percentiles, failures, and where the time goes.

    Throughput and percentiles have a point for each second if the document has seconds; failures by kind and parts of the
    time have one for each period. A run with fewer than three points shows no course over time, and has no such chart.
    """
    runs = [
        _ChartedReport(name, timeline(report, QUANTILE_KEYS), slices(report), any(p.seconds for p in report.periods))
        for name, report in reports
    ]
    runs = [run for run in runs if len(run.moments) >= _FEWEST_POINTS]
    if not runs:
        return ()
    charts = (_throughput(runs), _latency(runs), _failures(runs), _breakdown_over_time(runs))
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
    """A chart with a bar for each report whose server reports its times; None if no report has such times."""
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


def _throughput(runs: Sequence[_ChartedReport]) -> Chart:
    series = []
    if len(runs) == 1:
        run = runs[0]
        for label, of, colour, dash in _RATES:
            one = _over_time(label, runs, run, of, colour, dash)
            if any(one.y if label == "errors" else (y is not None for y in one.y)):
                series.append(one)
    else:
        series = [_over_time(run.name, runs, run, lambda m: m.answers, i) for i, run in enumerate(runs)]
    title = "Throughput" if len(runs) == 1 else "Answers per second"
    return Chart("throughput", title, _mark(runs), ELAPSED, RATE, tuple(series), _resolution(runs))


def _latency(runs: Sequence[_ChartedReport]) -> Chart | None:
    series = []
    for i, run in enumerate(runs):
        for key, colour in _QUANTILES:
            if len(runs) == 1:
                series.append(_over_time(key, runs, run, _time_of(key), colour))
            else:
                series.append(_over_time(f"{run.name} {key}", runs, run, _time_of(key), i, _QUANTILE_DASHES[key]))
    series = [s for s in series if any(y is not None for y in s.y)]
    if not series:
        return None
    title = "Response time percentiles"
    return Chart("latency", title, _mark(runs), ELAPSED, _scaled(series), tuple(series), _resolution(runs))


def _failures(runs: Sequence[_ChartedReport]) -> Chart | None:
    title = "Errors and answers of 400 and above"
    runs = [run for run in runs if len(run.slices) >= _FEWEST_POINTS]
    if not runs:
        return None
    if len(runs) > 1:
        many = [_by_period(run.name, run, _failure_rate, i) for i, run in enumerate(runs)]
        if not any(y for s in many for y in s.y):
            return None
        return Chart("failures", title, "step", ELAPSED, RATE, tuple(many), _OF_PERIODS)
    totals: dict[str, int] = {}
    for part in runs[0].slices:
        for kind, n in bad_answers(part.period.counters).items():
            totals[kind] = totals.get(kind, 0) + n
    if not totals:
        return None
    kinds = sorted(totals, key=lambda kind: (-totals[kind], kind))
    groups = [(kind, [kind]) for kind in kinds[:_MOST_KINDS]]
    groups += [("other kinds", kinds[_MOST_KINDS:])] if len(kinds) > _MOST_KINDS else []
    series = tuple(
        _by_period(label, runs[0], _kinds_rate(group), (4 + i) % 8) for i, (label, group) in enumerate(groups)
    )
    return Chart("failures", title, "bar", ELAPSED, RATE, series, _OF_PERIODS)


def _breakdown_over_time(runs: Sequence[_ChartedReport]) -> Chart | None:
    if len(runs) > 1 or len(runs[0].slices) < _FEWEST_POINTS:
        return None
    shares = {id(s.period): {share.name: share.ms for share in breakdown(s.period)} for s in runs[0].slices}
    series = tuple(
        _by_period(BREAKDOWN_NAMES[part], runs[0], _share_of(shares, part), _BREAKDOWN_COLOURS[part])
        for part in BREAKDOWN_NAMES
        if any(part in found for found in shares.values())
    )
    if not series:
        return None
    title = "Where the time goes, means"
    return Chart("time-goes-over-time", title, "bar", ELAPSED, TIME, series, _OF_PERIODS)


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
    return Series(
        label, tuple(float(r) for r in reach), values, colour, dash, tuple(f"p{decimal(q * 100, 4)}" for q in qs)
    )


def _histogram(known: Sequence[tuple[int, str, Sketch]]) -> Chart:
    """The sketches' buckets as bins, several buckets to a bin where there are many; the same edges for every report."""
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
        spans = tuple(f"{decimal(a, 3)} to {decimal(b, 3)} ms" for a, b in pairwise(edges))
        label = "response time" if len(known) == 1 else name
        levels = (*(_figure(float(s)) for s in shares), None)
        series.append(Series(label, tuple(edges), levels, i, labels=spans))
    zeros = sum(k[2].zero_count for k in alike)
    note = f"{zeros} answers of 0 ms have no place on a logarithmic axis." if zeros else ""
    return Chart(
        "histogram",
        "Histogram",
        "area",
        Axis("milliseconds", "ms", "log"),
        Axis("percent of answers", "%"),
        tuple(series),
        note,
    )


def _mark(runs: Sequence[_ChartedReport]) -> Mark:
    """How the charts over time are drawn: as levels if points are few, else as lines."""
    return "line" if max(len(run.moments) for run in runs) >= _FEWEST_OF_A_LINE else "step"


def _resolution(runs: Sequence[_ChartedReport]) -> str:
    """The duration that each point stands for, in words; empty if the reports differ in it."""
    found = {round(r.moments[0].end_s - r.moments[0].start_s) if r.has_seconds else 0 for r in runs}
    step = found.pop()
    if found:
        return ""
    return _OF_PERIODS if not step else "For each second." if step == 1 else f"For each {step} s."


def _over_time(
    label: str,
    runs: Sequence[_ChartedReport],
    run: _ChartedReport,
    of: Callable[[Moment], float | None],
    colour: int,
    dash: Dash = "solid",
) -> Series:
    if _mark(runs) == "line":
        return Series(
            label,
            tuple(round(m.start_s, 3) for m in run.moments),
            tuple(_figure(of(m)) for m in run.moments),
            colour % 8,
            dash,
        )
    return _binned(label, [(m.start_s, m.end_s, of(m)) for m in run.moments], colour, dash)


def _by_period(label: str, run: _ChartedReport, of: Callable[[Slice], float | None], colour: int) -> Series:
    return _binned(label, [(s.start_s, s.end_s, of(s)) for s in run.slices], colour)


def _binned(label: str, bins: Sequence[tuple[float, float, float | None]], colour: int, dash: Dash = "solid") -> Series:
    """Turn (start, end, value) into a series of edges and levels, with a gap where a bin does not begin at the last one's end."""
    points: list[tuple[float, float | None]] = []
    for i, (start, end, value) in enumerate(bins):
        points.append((round(start, 3), _figure(value)))
        if i + 1 == len(bins) or bins[i + 1][0] > end:
            points.append((round(end, 3), None))
    return Series(label, tuple(at for at, _ in points), tuple(value for _, value in points), colour % 8, dash)


def _failure_rate(s: Slice) -> float:
    return s.per_second(sum(bad_answers(s.period.counters).values()))


def _kinds_rate(kinds: Iterable[str]) -> Callable[[Slice], float | None]:
    wanted = tuple(kinds)
    return lambda s: s.per_second(sum(bad_answers(s.period.counters).get(kind, 0) for kind in wanted))


def _time_of(key: str) -> Callable[[Moment], float | None]:
    return lambda m: m.times_ms.get(key)


def _share_of(shares: Mapping[int, Mapping[str, float]], part: str) -> Callable[[Slice], float | None]:
    return lambda s: shares[id(s.period)].get(part)


def _scaled(series: Sequence[Series]) -> Axis:
    """An axis of times; logarithmic if the largest is over 30 times the smallest, which a linear one would flatten."""
    values = [y for s in series for y in s.y if y is not None and y > 0]
    wide = bool(values) and max(values) / min(values) > 30
    return Axis(TIME.title, TIME.unit, "log") if wide else TIME


def _figure(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
