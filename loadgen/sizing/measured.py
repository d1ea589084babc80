"""Reads from a report how a service borrows connections: how often, for how long, and what opening one costs.

All of it comes from the Server-Timing entries `pool`, `connect`, `db` and `total`, whose sketches our reports keep. An
answer without a loan has a `db` of 0.000 ms, and one that needed no new connection a `connect` of 0.000 ms: zeros are left
out. An answer without a loan that failed (5xx: a timeout, a full queue) did ask for a connection. Others without a loan, such
as those to a health probe, did not, and are not part of the workload.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from reports import names
from reports.blocks import decimal
from reports.model import PERIOD_MS, Report, ReportError
from reports.sketch import Sketch

POOL, CONNECT, DB, TOTAL, CPU, LOAN_CPU = (
    f"{names.SERVER}{entry}" for entry in ("pool", "connect", "db", "total", "cpu", "loan-cpu")
)

_FEW = 200
_PERIODS_TO_JUDGE_BY = 6
_Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class WorkerCpu:
    """CPU time that a request costs its worker, in ms."""

    all_ms: Sketch
    """Of each answer, from reading the request to writing it; single values are exact where few requests overlap."""
    loan_ms: Sketch
    """The part of it while the request held a connection."""
    mean_ms: float
    """For each request for a connection, on average. The CPU time of requests that need no connection is shared among them."""
    answers: float
    """For each request for a connection, the number of answers, with those that need none."""

    @property
    def outside_mean_ms(self) -> float:
        """Mean of the part outside of loans."""
        return max(0.0, self.mean_ms - self.loan_ms.mean)


@dataclass(frozen=True, slots=True)
class MeasuredWorkload:
    """How a service borrowed connections during one measured run."""

    rate_per_s: float
    """Requests for a connection per second, all servers together."""
    arrival_variation: float
    """Variance over mean squared of the time between two requests; 1 unless the report contradicts Poisson arrivals."""
    holds: Sketch
    """Times from getting a connection to returning it, in ms."""
    connects: Sketch | None
    """Times to open a connection, in ms; None if none was opened."""
    own_s: float
    """Mean time, in s, that an answer takes the service outside the database; 0 if not known."""
    waits: Sketch
    """Times spent waiting for a connection, in ms."""
    cpu: WorkerCpu | None = None
    """CPU time of the workers; None if the answers do not tell it."""
    doubts: tuple[str, ...] = ()
    """A sentence for each reason to doubt predictions from this workload."""


def workload(report: Report) -> MeasuredWorkload:
    """Read the workload from a report.

    Raises ReportError if the report has no Server-Timing sketches, no loans or no duration, or a sketch that no times have.
    """
    sketches = report.aggregate.sketches
    for name in (POOL, CONNECT, DB, TOTAL, CPU, LOAN_CPU):
        if name in sketches:
            _check(name, sketches[name])
    missing = [name for name in (POOL, DB) if name not in sketches or not sketches[name].count]
    if missing:
        raise ReportError(
            f"no sketch of {missing[0]}: a plan needs a JSON report of loadgen, of a service with Server-Timing"
        )
    waits, holds = sketches[POOL], _positive(sketches[DB])
    if not holds.count:
        raise ReportError("no connection was lent in this run")
    span_s = _span_s(report)
    if span_s <= 0:
        raise ReportError("the run was too short to tell a rate")
    connects = _positive(sketches[CONNECT]) if CONNECT in sketches else None
    arrivals, doubt = _arrival_variation(report)
    return MeasuredWorkload(
        rate_per_s=_asking(report) / span_s,
        arrival_variation=arrivals,
        holds=holds,
        connects=connects if connects and connects.count else None,
        own_s=_own_s(report),
        waits=waits,
        cpu=_worker_cpu(report),
        doubts=(*doubt, *_doubts(report, holds)),
    )


def _worker_cpu(report: Report) -> WorkerCpu | None:
    sketches = report.aggregate.sketches
    if any(name not in sketches or not sketches[name].positive.total for name in (CPU, LOAN_CPU)):
        return None
    answers = sketches[DB].count / _asking(report)
    return WorkerCpu(_positive(sketches[CPU]), _positive(sketches[LOAN_CPU]), sketches[CPU].mean * answers, answers)


def draw_s(sketch: Sketch, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples, in s, of the positive values (in ms) of a sketch: uniform within a bin, with the exact mean.

    `shares`: for each sample the share of values below it, from 0 to 1; numbers drawn uniformly draw from the sketch.
    """
    bins = sketch.positive
    gamma = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
    below = np.concatenate(([0.0], np.cumsum(bins.counts) / bins.total))
    chosen = np.clip(np.searchsorted(below, shares, side="right") - 1, 0, len(bins.counts) - 1)
    upper = gamma ** (bins.offset + chosen.astype(np.float64))
    within = (below[chosen + 1] - shares) / np.maximum(below[chosen + 1] - below[chosen], 1e-300)
    samples = np.clip(upper * (1 - within * (1 - 1 / gamma)), sketch.min, sketch.max)
    kept: NDArray[np.float64] = samples * (sketch.mean / _mean_of_bins(sketch)) / 1000
    return kept


def variation(sketch: Sketch) -> float:
    """Return variance over mean squared of the positive values of a sketch, to within a few per cent."""
    bins = sketch.positive
    values = _middles(sketch)
    mean = float(np.average(values, weights=bins.counts))
    return float(np.average((values - mean) ** 2, weights=bins.counts)) / mean**2


def _middles(sketch: Sketch) -> NDArray[np.float64]:
    gamma = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
    upper = gamma ** (sketch.positive.offset + np.arange(len(sketch.positive.counts), dtype=np.float64))
    middles: NDArray[np.float64] = np.clip(upper * (1 + 1 / gamma) / 2, sketch.min, sketch.max)
    return middles


def _mean_of_bins(sketch: Sketch) -> float:
    return float(np.average(_middles(sketch), weights=sketch.positive.counts))


def _check(name: str, sketch: Sketch) -> None:
    """Raise ReportError if the sketch's sum, least and greatest value are not those of times in its bins."""
    if not sketch.count:
        return
    near = 2 * sketch.relative_accuracy
    binned = _positive(sketch)
    expected = _mean_of_bins(binned) * binned.count if binned.count else 0.0
    if sketch.min < 0 or sketch.max < sketch.min or not abs(sketch.sum - expected) <= near * expected:
        raise ReportError(
            f"the sketch {name} contradicts itself: its sum, least and greatest value are not of its counts"
        )


def _positive(sketch: Sketch) -> Sketch:
    """Return the sketch without its zeros."""
    gamma = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
    least = sketch.min if sketch.min > 0 else gamma ** (sketch.positive.offset - 1)
    return Sketch(sketch.positive, Sketch.of([]).negative, 0, least, sketch.max, sketch.sum, sketch.relative_accuracy)


def _span_s(report: Report) -> float:
    """Return the time from the first request to the last, in s, without pauses between runs that were merged."""
    rates = [period.rates.get(names.REQUEST_RATE) for period in (*report.periods, report.aggregate)]
    firsts = [rate.first_ms for rate in rates if rate is not None and rate.first_ms is not None]
    lasts = [rate.last_ms for rate in rates if rate is not None and rate.last_ms is not None]
    first = min(firsts, default=report.aggregate.first_counter_ms)
    last = max(lasts, default=report.aggregate.last_counter_ms)
    return 0.0 if first is None or last is None else (last - first - report.paused_ms(first, last)) / 1000


def _asking(report: Report) -> int:
    """Count the requests for a connection: those that got one, and those that failed because they did not."""
    total = report.aggregate
    answers, held = total.sketches[DB].count, _positive(total.sketches[DB]).count
    failed = sum(count for name, count in total.counters.items() if name.startswith(f"{names.CODES}5"))
    return min(answers, held + failed)


def _own_s(report: Report) -> float:
    sketches = report.aggregate.sketches
    if TOTAL not in sketches or not sketches[TOTAL].count:
        return 0.0
    inside = sum(sketches[name].mean for name in (POOL, CONNECT, DB) if name in sketches and sketches[name].count)
    return max(0.0, sketches[TOTAL].mean - inside) / 1000


def _arrival_variation(report: Report) -> tuple[float, tuple[str, ...]]:
    """Estimate the variation of the times between arrivals: variance over mean squared.

    The estimate is the index of dispersion (variance over mean) of the requests in each whole period, which for long periods
    equals it (Cox and Lewis, The Statistical Analysis of Series of Events, 1966, section 4.5).

    Arrivals count as Poisson unless a chi-square test at the 95 % level rejects that. If the counts vary more than the test
    allows, the rate itself has changed, which says nothing about the law of arrivals.
    """
    whole = [p for p in report.periods[1:-1] if not report.paused_ms(p.start_ms, p.start_ms + PERIOD_MS)]
    counts = np.array([period.counters.get(names.REQUESTS, 0) for period in whole], np.float64)
    degrees = len(counts) - 1
    if len(counts) < _PERIODS_TO_JUDGE_BY or not counts.mean():
        return 1.0, ()
    dispersion = float(counts.var(ddof=1) / counts.mean())
    # The quantiles of chi-square over its degrees of freedom, by Wilson and Hilferty.
    low, high = (max(0.0, 1 - 2 / (9 * degrees) + z * sqrt(2 / (9 * degrees))) ** 3 for z in (-_Z_95, _Z_95))
    if dispersion < low:
        return dispersion, ()
    if dispersion > high:
        least, most = counts.min() / 10, counts.max() / 10
        return 1.0, (
            (
                f"the rate changed during the run, from {decimal(least, 4)} to {decimal(most, 4)} requests/s: its mean is "
                f"used (--rate)"
            ),
        )
    return 1.0, ()


def _doubts(report: Report, holds: Sketch) -> tuple[str, ...]:
    said = []
    if report.extras is not None and report.extras.model == "closed":
        said.append("a closed run: its rate is what its users reached, not what arrives (--rate)")
    if report.extras is not None and report.extras.partial:
        said.append("the run is partial")
    if holds.count < _FEW:
        said.append(f"only {holds.count} loans were measured: the long holds are hardly known")
    return tuple(said)
