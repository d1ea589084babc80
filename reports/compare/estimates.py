"""What one run's report lets one say of a figure: the figure with its 95 % interval, or why there is none.

With at least `LEAST_PERIODS` periods the interval rests on the variation between them. With fewer, or none, requests are
taken as independent and the run is supposed to differ from another one like it by `ASSUMED_VARIATION`: a reading of
totals, not a measurement of their stability, and the basis says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Literal

import numpy as np

from reports import names
from reports.compare import statistics
from reports.compare.period_bins import PeriodBins, interpolated
from reports.compare.statistics import LEAST_PERIODS, Floats, Interval
from reports.formats.apachebench import AbReport, AbRow
from reports.model import PERIOD_MS, QUANTILES, Period, Report, Summary

ASSUMED_VARIATION = 0.10
"""Standard deviation between runs, as a share of the figure, where a report does not let it be estimated."""

BURSTS = 2.0
"""How many times as far as independent ones error shares are supposed to stray where no periods tell."""

LEAST_BEYOND = 10
"""A quantile with fewer samples on either side of it is decided by too few of them."""

Basis = Literal["periods", "totals"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure's interval and what it rests on; no interval: `lacking` says why."""

    interval: Interval | None
    basis: Basis = "totals"
    lacking: str = ""


class RunEstimates:
    """The estimates of one report's figures, each made when it is asked for."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total = report.aggregate
        self._bins: dict[str, PeriodBins | None] = {}
        self._found: dict[str, list[Summary]] = {}

    # Distributions

    def quantiles(self, metric: str) -> Mapping[str, Estimate]:
        """By row (`median`, `p99`) those that the report has of a distribution."""
        summary = self._total.summaries[metric]
        rows = {row: q for row, q in QUANTILES.items() if row != "p50" and getattr(summary, row) is not None}
        few = {row: lacking for row, q in rows.items() if (lacking := _too_few(summary.count, q, row))}
        enough = {row: q for row, q in rows.items() if row not in few}
        bins = self._of_periods(metric)
        if bins is not None:
            found = _quantiles_of_bins(bins, enough)
        else:
            found = {row: self._quantile(metric, summary, row, q) for row, q in enough.items()}
        return {**{row: Estimate(None, lacking=lacking) for row, lacking in few.items()}, **found}

    def mean(self, metric: str) -> Estimate:
        """Of a distribution's mean."""
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
        spread = abs((high if high is not None else 2 * value) - value)  # of the order of two standard deviations
        return _assumed(value, spread / sqrt(count) if count else 0.0)

    def _quantile(self, metric: str, summary: Summary, row: str, q: float) -> Estimate:
        known = [(s.count or 1, v) for s in self._summaries(metric) if (v := getattr(s, row)) is not None]
        value = float(getattr(summary, row))
        if len(known) >= LEAST_PERIODS:
            weights, values = np.array(known, np.float64).T
            around = _of_ratio(weights * values, weights).interval
            if around is not None:
                low, high = value - around.value + around.low, value - around.value + around.high
                return Estimate(Interval(value, low, high, around.df).widened(0.03), "periods")
        curve = {1.0: summary.max} | {share: getattr(summary, key) for key, share in QUANTILES.items()}
        return _on_curve({0.0: summary.min, **curve}, q, value, summary.count)

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
        """Of the sum of some counters as a share of the sum of others; None where the report lacks the latter."""
        count, whole = _sum(self._total, counters), _sum(self._total, of)
        if whole <= 0 or not any(name in self._total.counters for name in of):
            return None
        exact = statistics.share_interval(max(0, min(count, whole)), whole)
        parts = np.array([(_sum(p, counters), _sum(p, of)) for p in self._report.periods], np.float64).reshape(-1, 2)
        parts = parts[parts[:, 1] > 0]
        few = len(parts) < LEAST_PERIODS
        least = _of_bursts(exact) if few else exact
        varying = _of_ratio(parts[:, 0], parts[:, 1]).interval if len(parts) > 2 else None
        wider = varying if varying and varying.high - varying.low > least.high - least.low else least
        return Estimate(wider, "totals" if few else "periods")

    def rate(self, name: str) -> Estimate:
        """Of events per second. A first or last period counts for the seconds in which it measured."""
        counts = [self._events(p, name) for p in self._report.periods]
        if len(counts) >= LEAST_PERIODS and None not in counts:
            seconds = np.array(self._seconds)
            return _of_ratio(np.array(counts, np.float64), seconds)
        value, events = self._total.rates[name].per_second, self._events(self._total, name)
        if events is None or events <= 0:
            return _assumed(value, 0.0)
        exact = statistics.count_interval(events)
        scaled = Interval(value, exact.low * value / events, exact.high * value / events)
        return Estimate(scaled.widened(ASSUMED_VARIATION * value))

    @staticmethod
    def _events(period: Period, name: str) -> int | None:
        rate = period.rates.get(name)
        counted = period.counters.get(names.REQUESTS, 0) if name == names.REQUEST_RATE else None
        return rate.count if rate is not None and rate.count is not None else counted

    @cached_property
    def _seconds(self) -> list[float]:
        periods = self._report.periods
        seconds = [PERIOD_MS / 1000] * len(periods)
        first, last = periods[0].first_metric_ms, periods[-1].last_metric_ms
        if first is not None:
            seconds[0] = _within_period((periods[0].start_ms + PERIOD_MS - first) / 1000)
        if last is not None:
            seconds[-1] = _within_period((last - periods[-1].start_ms) / 1000)
        return seconds


def ab_estimates(ab: AbReport) -> dict[str, Estimate]:
    """Of ApacheBench's own figures, by name (`ab.requests_per_second`): from totals, whole milliseconds, no periods."""
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
            exact = statistics.share_interval(max(0, min(value, count)), count)
            found[f"ab.{name}"] = Estimate(_of_bursts(exact))
    for row, figures in ab.rows.items():
        found |= _ab_row(row, figures, count)
    curve = {percentage / 100: float(ms) for percentage, ms in ab.percentiles.items()}
    for percentage, ms in ab.percentiles.items():
        lacking = _too_few(count, percentage / 100, f"{percentage} %")
        estimate = Estimate(None, lacking=lacking) if lacking else _on_curve(curve, percentage / 100, float(ms), count)
        found[f"ab.percentile.{percentage}"] = estimate
    return found


def _ab_row(row: str, figures: AbRow, count: int) -> dict[str, Estimate]:
    error = sqrt(figures.sd**2 / count + 0.3**2)  # 0.3 ms: what rounding to whole ones leaves unknown
    return {f"ab.{row}.{column}": _assumed(getattr(figures, column), error) for column in ("mean", "median")}


def _quantiles_of_bins(bins: PeriodBins, rows: Mapping[str, float]) -> dict[str, Estimate]:
    """Woodruff's intervals (JASA 47, 1952): how the share of samples under the quantile varies, taken back to values."""
    shares, sizes = list(rows.values()), bins.sizes
    ratio = statistics.ratio_over_periods(bins.under(shares), sizes[:, None])
    critical = statistics.student_critical(ratio.df)
    found = {}
    for (row, q), error in zip(rows.items(), ratio.error, strict=True):
        reach = critical * max(float(error), sqrt(q * (1 - q) / bins.total.count))
        value, low, high = (interpolated(bins.total, share) for share in (q, q - reach, q + reach))
        resolution = bins.total.relative_accuracy * value / 2
        found[row] = Estimate(Interval(value, low, high, ratio.df).widened(resolution), "periods")
    return found


def _of_ratio(numerators: Floats, denominators: Floats) -> Estimate:
    ratio = statistics.ratio_over_periods(numerators[:, None], denominators[:, None])
    value, reach = float(ratio.value[0]), float(ratio.error[0]) * statistics.student_critical(ratio.df)
    return Estimate(Interval(value, value - reach, value + reach, ratio.df), "periods")


def _on_curve(curve: Mapping[float, float | None], q: float, value: float, count: int | None) -> Estimate:
    """A quantile of `count` independent samples, their distribution drawn through the quantiles that are known."""
    known = sorted((share, at) for share, at in curve.items() if at is not None)
    reach = statistics.student_critical(float("inf")) * sqrt(q * (1 - q) / count) if count else 0.0
    low, high = np.interp([q - reach, q + reach], [share for share, _ in known], [at for _, at in known])
    sampled = Interval(value, min(float(low), value), max(float(high), value))
    return Estimate(sampled.widened(sqrt((ASSUMED_VARIATION * value) ** 2 + 0.03**2)))


def _of_bursts(exact: Interval) -> Interval:
    """Errors come in bursts; where no periods show how much so, they are supposed to vary twice as much as alone."""
    low, high = (exact.value + BURSTS * (end - exact.value) for end in (exact.low, exact.high))
    return Interval(exact.value, low, high).widened(ASSUMED_VARIATION * exact.value)


def _assumed(value: float, error: float) -> Estimate:
    return Estimate(Interval(value, value, value).widened(sqrt(error**2 + (ASSUMED_VARIATION * value) ** 2)))


def _too_few(count: int | None, q: float, row: str) -> str:
    beyond = LEAST_BEYOND if count is None else min(q, 1 - q) * count
    return (
        f"too little data: {beyond:.0f} of {count} samples lie beyond {row}" if round(beyond, 9) < LEAST_BEYOND else ""
    )


def _within_period(seconds: float) -> float:
    return min(max(seconds, 0.001), PERIOD_MS / 1000)


def _sum(period: Period, counters: Sequence[str]) -> int:
    return sum(period.counters.get(name, 0) for name in counters)
