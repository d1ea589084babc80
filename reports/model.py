"""A report as a value: periods of counters, rates and summaries, and what goes beyond Artillery. Frozen; no I/O.

The rules of merging and rounding are those of Artillery 2.0, so that a report has the figures that Artillery would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Any

from reports import names
from reports.sketch import Sketch

FORMAT_VERSION = 1
"""The version of the `poolbench` key of a JSON report."""

PERIOD_MS = 10_000
"""The length of a period in ms. Periods are aligned to the wall clock."""

SUMMARY_KEYS = ("min", "max", "count", "mean", "p50", "median", "p75", "p90", "p95", "p99", "p999")
QUANTILES = {"p50": 0.5, "median": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class ReportError(ValueError):
    """A text is not a report of the expected kind, or a report lacks required data. The message is one line."""


def round_half_up(value: float, digits: int = 0) -> float:
    """Round as JavaScript's Math.round does: halves go up, where Python's `round` goes to even."""
    scale: int = 10**digits
    return floor(value * scale + 0.5) / scale


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a distribution. Figures that the document did not have are None."""

    min: float | None = None
    max: float | None = None
    count: int | None = None
    mean: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None

    @property
    def median(self) -> float | None:
        """The 50th percentile, which Artillery prints under two names."""
        return self.p50

    def figure(self, key: str) -> float | None:
        """The figure of that name, to be shown; None where the document does not have it, or there was no sample."""
        found: float | None = getattr(self, key)
        return None if self.count == 0 and key != "count" else found

    @classmethod
    def of(cls, sketch: Sketch) -> Summary:
        """The summary of a sketch, rounded to one decimal, halves up. Raises ValueError for an empty sketch."""
        quantiles = {k: round_half_up(sketch.quantile(q), 1) for k, q in QUANTILES.items() if k != "median"}
        return cls(
            min=round_half_up(sketch.min, 1),
            max=round_half_up(sketch.max, 1),
            count=sketch.count,
            mean=round_half_up(sketch.mean, 1),
            **quantiles,
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per second of one period; `count`, `first_ms`, `last_ms` (epoch) let periods of several workers merge.

    Artillery's rates are whole numbers; those of other tools need not be.
    """

    per_second: float
    count: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None

    @classmethod
    def of(cls, count: int, first_ms: int, last_ms: int) -> Rate:
        """The rate of `count` events between two instants: round(count / max(1 s, time from the first event to the last))."""
        return cls(int(round_half_up(count / max(1.0, (last_ms - first_ms) / 1000))), count, first_ms, last_ms)


@dataclass(frozen=True, slots=True)
class Second:
    """What happened in one second of a run, for charts over time and for duels.

    `start_ms` is epoch ms, a whole second. The counts are of events of that second: requests that were sent
    (`http.requests`), answers whose first byte came (`http.responses`), failures (all of `errors.`, and answers of status
    500 or more). `response_time` is the sketch of `http.response_time` of those answers in ms, None where there was no
    answer. Over the seconds of a period they add up to the period's own figures.
    """

    start_ms: int
    requests: int = 0
    answers: int = 0
    errors: int = 0
    response_time: Sketch | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """One period of a report, or the aggregate of all. Instants are whole epoch ms, None without such an event.

    Metrics that Artillery does not know (`names.beyond_artillery`) are among the others; the writers keep them apart.
    `summaries` has every name that `sketches` has; documents of other tools have only summaries.
    """

    start_ms: int
    counters: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    sketches: Mapping[str, Sketch] = field(default_factory=dict)
    first_counter_ms: int | None = None
    last_counter_ms: int | None = None
    first_histogram_ms: int | None = None
    last_histogram_ms: int | None = None
    seconds: Sequence[Second] = ()
    """The seconds of this period that had events, in time order. Empty in an aggregate and in documents of other tools."""

    @property
    def first_metric_ms(self) -> int | None:
        """The instant of the first event of any kind."""
        return _least(self.first_counter_ms, self.first_histogram_ms)

    @property
    def last_metric_ms(self) -> int | None:
        """The instant of the last event of any kind."""
        return _most(self.last_counter_ms, self.last_histogram_ms)


@dataclass(frozen=True, slots=True)
class Extras:
    """The part of a report beyond Artillery's document: the `poolbench` key, except its sketches, which the periods have.

    `partial` says that the run did not reach its planned end. `model` is "open", "closed" or "mixed". `environment` has CPU,
    kernel, versions and settings, `generator` the generator's own health (CPU seconds and share, clocks, lag). `ab` has the
    figures of an ApacheBench report, as `apachebench.AbReport.to_json` gives them, for runs of `ab`.
    """

    tool_version: str
    model: str
    partial: bool = False
    environment: Mapping[str, Any] = field(default_factory=dict)
    generator: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ab: Mapping[str, Any] | None = None
    format_version: int = FORMAT_VERSION
    pauses: tuple[tuple[int, int], ...] = ()
    """The stretches of time, as (start, end) in epoch ms and in order, in which none of the merged runs was at work."""

    def paused_ms(self, from_ms: float, to_ms: float) -> float:
        """How much of the time between two instants lay in `pauses`, in ms."""
        return sum(max(0.0, min(to_ms, end) - max(from_ms, start)) for start, end in self.pauses)


@dataclass(frozen=True, slots=True)
class Report:
    """The report on a run: the aggregate, the periods in time order, and the extras if the document had them."""

    aggregate: Period
    periods: tuple[Period, ...] = ()
    extras: Extras | None = None

    def paused_ms(self, from_ms: float, to_ms: float) -> float:
        """How much of the time between two instants lay between runs that were merged, in ms."""
        return self.extras.paused_ms(from_ms, to_ms) if self.extras else 0.0

    @property
    def resolution_ms(self) -> float | None:
        """The shortest response time that the generator could tell, in ms; None where it was not calibrated."""
        calibration = self.extras.generator.get("calibration") if self.extras else None
        found = calibration.get("resolution_ms") if isinstance(calibration, Mapping) else None
        return found if isinstance(found, (int, float)) and found > 0 else None

    def bound_ms(self, name: str, value: float | None) -> float | None:
        """What a figure of the metric `name`, in ms, is known to be below, if it is too short to be told; None for others."""
        resolution = self.resolution_ms
        timed = name.startswith(names.RESPONSE_TIME) or names.ENDPOINT_TIME in name
        return resolution if timed and resolution is not None and value is not None and value < resolution else None

    @classmethod
    def of(cls, periods: Iterable[Period], extras: Extras | None = None) -> Report:
        """The report of these periods. In its aggregate counters add up, sketches merge, rates are averaged as in Artillery."""
        ordered = tuple(sorted(periods, key=lambda p: p.start_ms))
        return cls(aggregate(ordered), ordered, extras)


def aggregate(periods: Iterable[Period]) -> Period:
    """The aggregate of periods, as in Artillery: a rate is its sum over the periods divided by their number, rounded.

    Raises ValueError for sketches of different accuracy. A sketch without samples is left out.
    """
    parts = list(periods)
    sums: dict[str, int] = {}
    rate_sums: dict[str, float] = {}
    parts_of: dict[str, list[Sketch]] = {}
    for part in parts:
        for name, count in part.counters.items():
            sums[name] = sums.get(name, 0) + count
        for name, rate in part.rates.items():
            rate_sums[name] = rate_sums.get(name, 0) + rate.per_second
        for name, sketch in part.sketches.items():
            parts_of.setdefault(name, []).append(sketch)
    merged = ((name, Sketch.merged(some)) for name, some in parts_of.items())
    sketches = {name: sketch for name, sketch in merged if sketch.count}
    return Period(
        start_ms=max((p.start_ms for p in parts), default=0),
        counters=sums,
        rates={name: Rate(int(round_half_up(total / len(parts)))) for name, total in rate_sums.items()},
        summaries={name: Summary.of(sketch) for name, sketch in sketches.items()},
        sketches=sketches,
        first_counter_ms=_least(*(p.first_counter_ms for p in parts)),
        last_counter_ms=_most(*(p.last_counter_ms for p in parts)),
        first_histogram_ms=_least(*(p.first_histogram_ms for p in parts)),
        last_histogram_ms=_most(*(p.last_histogram_ms for p in parts)),
    )


def _least(*instants: int | None) -> int | None:
    return min((i for i in instants if i is not None), default=None)


def _most(*instants: int | None) -> int | None:
    return max((i for i in instants if i is not None), default=None)
