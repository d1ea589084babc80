"""What one run's report says of a figure: the figure with its 95 % interval, or why there is none.

Figures are estimated on a scale on which runs differ by about as much wherever they lie: times and rates by their
logarithm, shares by the angle 2 asin sqrt(share), whose standard error is 1 / sqrt(count). The interval holds what is not known
of this run alone. How much another run of the same version would differ is for `reports.compare.diff` to add.

With at least `LEAST_PERIODS` periods the interval rests on the variation between them. With fewer, or none, the run is
supposed to vary within itself by `ASSUMED_WITHIN`: a reading of totals, not a measurement of their stability.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import asin, hypot, inf, log, sqrt
from typing import Literal

import numpy as np

from reports import names
from reports.compare import statistics
from reports.compare.period_bins import PeriodBins, interpolated
from reports.compare.rates import MeasuredRate, measured_rate
from reports.compare.statistics import LEAST_PERIODS, Floats, Interval
from reports.formats.apachebench import AbReport, AbRow
from reports.model import QUANTILES, Period, Report, Summary

ASSUMED_WITHIN = 0.15
"""Standard error of a figure, as a share of it, where too few periods show how much a run varies within itself."""

BURSTS = 2.0
"""How many times as far as independent ones failures are supposed to stray where no periods tell."""

LEAST_BEYOND = 10
"""A quantile with fewer independent samples on either side of it is decided by too few of them."""

SLICES = "no seconds to divide by: this report's rate is a mean over slices of the clock, cut ones included"

_OFFSET = 0.1
"""Added before a logarithm is taken, in ms or per second: zeros have none, and reports are rounded to this."""

_ROUNDED_MS = 0.03
"""Standard error of a time rounded to 0.1 ms."""

_BIN = 0.0058
"""Standard error of a quantile that is the middle of a sketch's bin, 2 % wide, as a share of it."""

Basis = Literal["periods", "totals"]


def on_log(value: float) -> float:
    """A time in ms or a rate per second, at least 0, on the scale it is compared on."""
    return log(value + _OFFSET)


def on_angle(share: float) -> float:
    """A share, 0 to 1, on the scale it is compared on."""
    return 2 * asin(sqrt(min(max(share, 0.0), 1.0)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure's interval, on its scale, and what it rests on; no interval: `lacking` says why."""

    interval: Interval | None
    basis: Basis = "totals"
    lacking: str = ""
    lowest: float | None = None
    """Least figure of any period, on the scale; None where periods are too few."""
    highest: float | None = None


class RunEstimates:
    """The estimates of one report's figures, each made when it is asked for."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total = report.aggregate
        self._bins: dict[str, PeriodBins | None] = {}
        self._found: dict[str, list[Summary]] = {}

    # Distributions

    def quantiles(self, metric: str) -> Mapping[str, Estimate]:
        """The report's quantiles of a distribution by row (`median`, `p99`)."""
        summary = self._total.summaries[metric]
        rows = {row: q for row, q in QUANTILES.items() if row != "p50" and getattr(summary, row) is not None}
        few = {row: lacking for row, q in rows.items() if (lacking := too_few(summary.count, q, row))}
        enough = {row: q for row, q in rows.items() if row not in few}
        bins = self._of_periods(metric)
        if bins is not None:
            found = _quantiles_of_bins(bins, enough)
        else:
            found = {row: self._quantile(metric, summary, row, q) for row, q in enough.items()}
        found |= {row: Estimate(None, lacking=lacking) for row, lacking in few.items()}
        return {row: self._with_range(estimate, metric, row) for row, estimate in found.items()}

    def mean(self, metric: str) -> Estimate:
        """The estimate of a distribution's mean."""
        return self._with_range(self._mean(metric), metric, "mean")

    def _mean(self, metric: str) -> Estimate:
        bins = self._of_periods(metric)
        if bins is not None:
            return _of_ratio(bins.sums, bins.sizes)
        known = [s for s in self._summaries(metric) if s.mean is not None]
        if len(known) >= LEAST_PERIODS:
            weights = np.array([s.count or 1 for s in known], np.float64)
            return _of_ratio(weights * np.array([s.mean for s in known], np.float64), weights)
        summary = self._total.summaries[metric]
        value, high, count = summary.mean or 0.0, summary.p95, summary.count
        if count is not None and count < 2 * LEAST_BEYOND:
            return Estimate(None, lacking=f"too little data: {count} samples")
        # p95 lies of the order of two standard deviations above the mean
        spread = abs((high if high is not None else 2 * value) - value)
        return _assumed(value, spread / sqrt(count) if count else 0.0)

    def _quantile(self, metric: str, summary: Summary, row: str, q: float) -> Estimate:
        known = [(s.count or 1, v) for s in self._summaries(metric) if (v := getattr(s, row)) is not None]
        value = float(getattr(summary, row))
        if len(known) >= LEAST_PERIODS:
            weights, values = np.array(known, np.float64).T
            around = _of_ratio(weights * values, weights)
            if around.interval is None:
                return around
            return _placed(around.interval, value, hypot(_BIN * value, _ROUNDED_MS))
        curve = {1.0: summary.max} | {share: getattr(summary, key) for key, share in QUANTILES.items()}
        return _on_curve({0.0: summary.min, **curve}, q, value, summary.count)

    def _with_range(self, estimate: Estimate, metric: str, row: str) -> Estimate:
        values = ((s.count, getattr(s, row)) for s in self._summaries(metric))
        return _with_range(
            estimate, [(1 if n is None else n, on_log(v)) for n, v in values if v is not None and v >= 0]
        )

    def _summaries(self, metric: str) -> list[Summary]:
        found = self._found.get(metric)
        if found is None:
            found = self._found[metric] = [p.summaries[metric] for p in self._report.periods if metric in p.summaries]
        return found

    def _of_periods(self, metric: str) -> PeriodBins | None:
        if metric not in self._bins:
            sketches = [s for p in self._report.periods if (s := p.sketches.get(metric)) is not None]
            sketches = [s for s in sketches if len(s.positive.counts) or s.count]
            usable = len(sketches) >= LEAST_PERIODS and len({s.relative_accuracy for s in sketches}) == 1
            self._bins[metric] = PeriodBins.of(sketches) if usable else None
        return self._bins[metric]

    # Counts

    def share(self, counters: Sequence[str], of: Sequence[str]) -> Estimate | None:
        """The sum of some counters as a share of the sum of others; None where the report lacks the latter."""
        count, whole = _sum(self._total, counters), _whole(self._total, of)
        if whole <= 0:
            return None
        count = max(0, min(count, whole))
        parts = np.array([(_sum(p, counters), _whole(p, of)) for p in self._report.periods], np.float64).reshape(-1, 2)
        parts = parts[parts[:, 1] > 0]
        few = len(parts) < LEAST_PERIODS
        ratio = statistics.ratio_over_periods(parts[:, :1], parts[:, 1:])
        alone, varying = count / whole * (1 - count / whole) / whole, float(ratio.error[0]) ** 2
        design = varying / alone if alone and varying > alone else 1.0
        df = float(ratio.df[0]) if design > 1 else inf
        if few:
            design, df = max(design, BURSTS**2), inf
        exact = statistics.share_interval(count / design, whole / design)
        low, value, high = (on_angle(share) for share in (exact.low, exact.value, exact.high))
        stretch = statistics.student_critical(df) / statistics.student_critical(inf)
        interval = Interval(value, value - (value - low) * stretch, value + (high - value) * stretch, df)
        if few:
            interval = interval.widened(assumed_angle(count / whole, ASSUMED_WITHIN))
        shares = [(n, on_angle(part / n)) for part, n in parts.tolist()]
        return _with_range(Estimate(interval, "totals" if few else "periods"), shares)

    def rate(self, name: str) -> Estimate:
        """Events per second; by the variation between periods, of which a first or last counts for its seconds."""
        found = measured_rate(self._report, name)
        if found is not None:
            return _of_measured(found)
        value, events = self._total.rates[name].per_second, self._total.rates[name].count
        if self._report.extras is None or self._report.periods or value < 0:
            return Estimate(None, lacking=SLICES)
        return _assumed(value, value / sqrt(events) if events else 0.0)


def ab_estimates(ab: AbReport) -> dict[str, Estimate]:
    """Estimates of ApacheBench's own figures by name (`ab.requests_per_second`): totals in whole ms, without periods."""
    found: dict[str, Estimate] = {}
    count = ab.complete or 0
    if count < 2 * LEAST_BEYOND:
        return found
    for name in ("requests_per_second", "time_per_request_ms", "time_per_request_all_ms", "transfer_rate_kbytes_s"):
        value = getattr(ab, name)
        if value is not None:
            found[f"ab.{name}"] = _assumed(value, value / sqrt(count))
    for name in ("failed", "non_2xx", "write_errors"):
        value = getattr(ab, name)
        if value is not None:
            share = max(0, min(value, count)) / count
            exact = statistics.share_interval(share * count / BURSTS**2, count / BURSTS**2)
            ends = Interval(on_angle(share), on_angle(exact.low), on_angle(exact.high))
            found[f"ab.{name}"] = Estimate(ends.widened(assumed_angle(share, ASSUMED_WITHIN)))
    for row, figures in ab.rows.items():
        found |= _ab_row(row, figures, count)
    curve = {percentage / 100: float(ms) for percentage, ms in ab.percentiles.items()}
    for percentage, ms in ab.percentiles.items():
        lacking = too_few(count, percentage / 100, f"{percentage} %")
        estimate = Estimate(None, lacking=lacking) if lacking else _on_curve(curve, percentage / 100, float(ms), count)
        found[f"ab.percentile.{percentage}"] = estimate
    return found


def _ab_row(row: str, figures: AbRow, count: int) -> dict[str, Estimate]:
    # 0.3 ms: what rounding to whole ones leaves unknown
    error = sqrt(figures.sd**2 / count + 0.3**2)
    return {f"ab.{row}.{column}": _assumed(getattr(figures, column), error) for column in ("mean", "median")}


def assumed_angle(share: float, relative: float) -> float:
    """Standard error on the angle's scale of a share, or of what is left of it to 1, that varies by a part of itself."""
    rare = min(share, 1 - share)
    return relative * sqrt(rare / (1 - rare)) if rare > 0 else 0.0


def too_few(count: int | None, q: float, row: str) -> str:
    """Why a quantile of `count` samples (unknown: None) cannot be judged; empty where it can."""
    beyond = LEAST_BEYOND if count is None else min(q, 1 - q) * count
    return (
        f"too little data: {beyond:.0f} of {count} samples lie beyond {row}" if round(beyond, 9) < LEAST_BEYOND else ""
    )


def _quantiles_of_bins(bins: PeriodBins, rows: Mapping[str, float]) -> dict[str, Estimate]:
    """Woodruff's intervals (JASA 47, 1952): how the share of samples under the quantile varies, taken back to values.

    Where the share beyond a quantile is known less well than that of `LEAST_BEYOND` independent samples would be, a few
    bursts decide it, and the upper end of its interval would be the largest sample that happened to be seen: no interval.
    """
    shares, sizes = list(rows.values()), bins.sizes
    if not rows:
        return {}
    ratio = statistics.ratio_over_periods(bins.under(shares), sizes[:, None])
    found = {}
    for (row, q), seen, df in zip(rows.items(), ratio.error.tolist(), ratio.df.tolist(), strict=True):
        alone = sqrt(q * (1 - q) / bins.total.count)
        error = max(seen, alone)
        if min(q, 1 - q) * q * (1 - q) / error**2 < LEAST_BEYOND:
            found[row] = Estimate(None, "periods", f"too little data: what lies beyond {row} came in few bursts")
            continue
        reach = statistics.student_critical(df) * error
        value, low, high = (interpolated(bins.total, share) for share in (q, q - reach, q + reach))
        if low < 0:
            found[row] = _NEGATIVE
            continue
        interval = Interval(on_log(value), on_log(low), on_log(high), df)
        resolution = bins.total.relative_accuracy * value / 2
        found[row] = Estimate(interval.widened(resolution / (value + _OFFSET)), "periods")
    return found


_NEGATIVE = Estimate(None, lacking="a time or rate below zero")


def _of_measured(rate: MeasuredRate) -> Estimate:
    if len(rate.events) < LEAST_PERIODS:
        events = float(rate.events.sum())
        return _assumed(rate.per_second, rate.per_second / sqrt(events) if events > 0 else 0.0)
    parts = zip(rate.events.tolist(), rate.seconds.tolist(), strict=True)
    return _with_range(_of_ratio(rate.events, rate.seconds), [(s, on_log(e / s)) for e, s in parts])


def _of_ratio(numerators: Floats, denominators: Floats) -> Estimate:
    ratio = statistics.ratio_over_periods(numerators[:, None], denominators[:, None])
    value, error, df = float(ratio.value[0]), float(ratio.error[0]), float(ratio.df[0])
    if not value >= 0:
        return _NEGATIVE
    if error > value / sqrt(LEAST_BEYOND):
        return Estimate(None, "periods", "too little data: a few bursts decide it")
    return Estimate(_log_interval(value, error, df), "periods")


def _placed(around: Interval, value: float, error: float) -> Estimate:
    """The interval of a figure by that of the mean of its periods' figures, which need not be the same as its own."""
    middle = on_log(value)
    moved = Interval(middle, middle - around.value + around.low, middle - around.value + around.high, around.df)
    return Estimate(moved.widened(error / (value + _OFFSET)), "periods")


def _on_curve(curve: Mapping[float, float | None], q: float, value: float, count: int | None) -> Estimate:
    """A quantile of `count` independent samples, their distribution drawn through the quantiles that are known."""
    known = sorted((share, at) for share, at in curve.items() if at is not None)
    reach = statistics.student_critical(inf) * sqrt(q * (1 - q) / count) if count else 0.0
    ends = np.interp([q - reach, q + reach], [share for share, _ in known], [at for _, at in known])
    low, high = min(float(ends[0]), value), max(float(ends[1]), value)
    if not low >= 0:
        return _NEGATIVE
    sampled = Interval(on_log(value), on_log(low), on_log(high))
    return Estimate(sampled.widened(hypot(ASSUMED_WITHIN * value, _ROUNDED_MS) / (value + _OFFSET)))


def _assumed(value: float, error: float) -> Estimate:
    return Estimate(_log_interval(value, hypot(error, ASSUMED_WITHIN * value), inf)) if value >= 0 else _NEGATIVE


def _log_interval(value: float, error: float, df: float) -> Interval:
    middle, reach = on_log(value), error / (value + _OFFSET) * statistics.student_critical(df)
    return Interval(middle, middle - reach, middle + reach, df)


def _with_range(estimate: Estimate, parts: Iterable[tuple[float, float]]) -> Estimate:
    """The estimate with the least and greatest figure of its periods, given as (weight, figure); slight ones left out."""
    parts = list(parts)
    if len(parts) < 2 * LEAST_PERIODS:
        return estimate
    usual = sorted(weight for weight, _ in parts)[len(parts) // 2]
    values = [value for weight, value in parts if weight >= usual / 4]
    return replace(estimate, lowest=min(values), highest=max(values))


def _sum(period: Period, counters: Sequence[str]) -> int:
    return sum(period.counters.get(name, 0) for name in counters)


def _whole(period: Period, counters: Sequence[str]) -> int:
    """What counters are a share of: their sum, or of requests that the report did not count, answers and failures."""
    if tuple(counters) == (names.REQUESTS,):
        return requests(period) or 0
    return _sum(period, counters)


def requests(period: Period) -> int | None:
    """Requests of a period; where those are not in the report, answers and failures; None without either."""
    counted = period.counters.get(names.REQUESTS)
    if counted is not None:
        return counted
    parts = [n for name, n in period.counters.items() if name.startswith((names.CODES, names.ERRORS))]
    return sum(parts) if parts else None
