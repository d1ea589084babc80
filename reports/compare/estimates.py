"""What one run's report says of a figure: the figure with its 95 % interval on its scale, its track over the run's periods,
or why it cannot be judged.

The interval holds what is not known of this run alone. How much another run of the same version would differ is for
`reports.compare.diff` to add. Where there are at least `LEAST_PERIODS` periods, the track decides; with fewer, or none, the
run is assumed to vary within itself by `ASSUMED_WITHIN`: a reading of totals, not a measurement of their stability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, sqrt
from typing import Literal

import numpy as np

from reports import names
from reports.answers import requests
from reports.compare import statistics
from reports.compare.rates import measured_rate
from reports.compare.scales import OFFSET, assumed_angle, on_angle, on_log
from reports.compare.statistics import LEAST_PERIODS, Interval
from reports.compare.tracks import RateTrack, SketchTrack, Track, ValueTrack
from reports.formats.apachebench import AbReport, AbRow
from reports.model import QUANTILES, Period, Report, Summary
from reports.sketch import Sketch

ASSUMED_WITHIN = 0.15
"""Standard error of a figure, as a share of it, where too few periods show how much a run varies within itself."""

ASSUMED_BETWEEN = 0.5
"""Standard deviation of the logarithm of a time between such runs of one version, which bursts and queues may outlast."""

BURSTS = 2.0
"""Failures are assumed to vary this many times as much as independent ones would, where no periods show how much they do."""

LEAST_BEYOND = 10
"""A quantile with fewer samples on either side of it is decided by too few of them."""

SLICES = "no seconds to divide by: this report's rate is a mean over slices of the clock, cut ones included"

_ROUNDED_MS = 0.03
"""Standard error of a time rounded to 0.1 ms."""

Basis = Literal["periods", "totals"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure's interval, on its scale, and what it rests on; neither interval nor track: `lacking` says why."""

    interval: Interval | None
    basis: Basis = "totals"
    lacking: str = ""
    track: Track | None = None
    """The figure over time, where there are periods enough to compare it with another run's."""
    q: float | None = None
    """The quantile that this is, 0 to 1; None for other figures."""

    @property
    def few_periods(self) -> bool:
        """Whether the run had too few periods to show how it varies: its totals decide, or the seconds of a short run."""
        return self.basis == "totals"


class RunEstimates:
    """The estimates of one report's figures, each made when it is asked for."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total = report.aggregate
        self._sketches: dict[str, SketchTrack | None] = {}

    # Distributions

    def quantiles(self, metric: str) -> Mapping[str, Estimate]:
        """The report's quantiles of a distribution by row (`median`, `p99`)."""
        summary = self._total.summaries[metric]
        rows = {row: q for row, q in QUANTILES.items() if row != "p50" and getattr(summary, row) is not None}
        found: dict[str, Estimate] = {}
        for row, q in rows.items():
            few = too_few(summary.count, q, row)
            found[row] = Estimate(None, lacking=few) if few else self._quantile(metric, summary, row, q)
        return found

    def mean(self, metric: str) -> Estimate:
        """The estimate of a distribution's mean."""
        summary = self._total.summaries[metric]
        value, high, count = summary.mean or 0.0, summary.p95, summary.count
        if count is not None and count < 2 * LEAST_BEYOND:
            return Estimate(None, lacking=f"too little data: {count} samples")
        # p95 lies of the order of two standard deviations above the mean
        spread = abs((high if high is not None else 2 * value) - value)
        assumed = _assumed(value, spread / sqrt(count) if count else 0.0)
        return Estimate(assumed.interval, self._basis(metric), assumed.lacking, self._track(metric, "mean", None))

    def _quantile(self, metric: str, summary: Summary, row: str, q: float) -> Estimate:
        curve = {1.0: summary.max} | {share: getattr(summary, key) for key, share in QUANTILES.items()}
        found = _on_curve({0.0: summary.min, **curve}, q, float(getattr(summary, row)), summary.count)
        return Estimate(found.interval, self._basis(metric), found.lacking, self._track(metric, row, q), q)

    def _basis(self, metric: str) -> Basis:
        having = sum(metric in period.summaries or metric in period.sketches for period in self._report.periods)
        return "totals" if having < LEAST_PERIODS else "periods"

    def _track(self, metric: str, row: str, q: float | None) -> Track | None:
        sketches = self._of_sketches(metric)
        if sketches is not None:
            return SketchTrack(sketches.sketches, q, sketches.weights, sketches.merged, sketches.resolution)
        found = [
            (1.0 if s.count is None else float(s.count), on_log(value))
            for period in self._report.periods
            if (s := period.summaries.get(metric)) is not None and (value := getattr(s, row)) is not None and value >= 0
        ]
        if len(found) < LEAST_PERIODS or len(found) < len(self._report.periods) / 2:
            return None
        weights, values = np.array(found, np.float64).T
        return ValueTrack(values, weights)

    def _of_sketches(self, metric: str) -> SketchTrack | None:
        """The distribution's sketches with their sizes, from the first period that has samples to the last."""
        if metric not in self._sketches:
            empty, periods = Sketch.of([]), self._report.periods
            sketches = [period.sketches.get(metric, empty) for period in periods]
            if len(periods) < LEAST_PERIODS and metric == names.RESPONSE_TIME:
                # Our own reports say of each second what others say of periods only.
                seconds = [second.response_time or empty for period in periods for second in period.seconds]
                sketches = seconds or sketches
            sizes = np.array([s.count for s in sketches], np.float64)
            having = np.flatnonzero(sizes)
            some = sketches[having[0] : having[-1] + 1] if len(having) else []
            usable = len(some) >= LEAST_PERIODS and len({s.relative_accuracy for s in some}) == 1
            resolution = some[0].relative_accuracy / 4 if usable else 0.0
            track = SketchTrack(some, None, sizes[having[0] : having[-1] + 1], {}, resolution) if usable else None
            self._sketches[metric] = track
        return self._sketches[metric]

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
        ratio = statistics.ratio_over_periods(parts[:, 0], parts[:, 1])
        alone, varying = count / whole * (1 - count / whole) / whole, ratio.error**2
        design = varying / alone if alone and varying > alone else 1.0
        df = ratio.df if design > 1 else inf
        if few:
            design, df = max(design, BURSTS**2), inf
        exact = statistics.share_interval(count / design, whole / design)
        low, value, high = (on_angle(share) for share in (exact.low, exact.value, exact.high))
        stretch = statistics.student_critical(df) / statistics.student_critical(inf)
        interval = Interval(value, value - (value - low) * stretch, value + (high - value) * stretch, df)
        if few:
            interval = interval.widened(assumed_angle(count / whole, ASSUMED_WITHIN))
        return Estimate(interval, "totals" if few else "periods")

    def rate(self, name: str) -> Estimate:
        """Events per second; by the variation between periods, of which a first or last counts for its seconds."""
        found = measured_rate(self._report, name)
        if found is not None:
            events = max(1.0, float(found.events.sum()))
            assumed = _assumed(found.per_second, found.per_second / sqrt(events))
            enough = len(found.events) >= LEAST_PERIODS
            track = RateTrack(found.events, found.seconds) if enough else None
            return Estimate(assumed.interval, "periods" if enough else "totals", track=track)
        value, count = self._total.rates[name].per_second, self._total.rates[name].count
        if self._report.extras is None or self._report.periods or value < 0:
            return Estimate(None, lacking=SLICES)
        return _assumed(value, value / sqrt(count) if count else 0.0)


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


def too_few(count: int | None, q: float, row: str) -> str:
    """Why a quantile of `count` samples (unknown: None) cannot be judged; empty where it can."""
    beyond = LEAST_BEYOND if count is None else min(q, 1 - q) * count
    return (
        f"too little data: {beyond:.0f} of {count} samples lie beyond {row}" if round(beyond, 9) < LEAST_BEYOND else ""
    )


_NEGATIVE = Estimate(None, lacking="a time or rate below zero")


def _on_curve(curve: Mapping[float, float | None], q: float, value: float, count: int | None) -> Estimate:
    """A quantile of `count` independent samples, their distribution drawn through the quantiles that are known."""
    known = sorted((share, at) for share, at in curve.items() if at is not None)
    reach = statistics.student_critical(inf) * sqrt(q * (1 - q) / count) if count else 0.0
    ends = np.interp([q - reach, q + reach], [share for share, _ in known], [at for _, at in known])
    low, high = min(float(ends[0]), value), max(float(ends[1]), value)
    if not low >= 0:
        return _NEGATIVE
    sampled = Interval(on_log(value), on_log(low), on_log(high))
    return Estimate(sampled.widened(hypot(ASSUMED_WITHIN * value, _ROUNDED_MS) / (value + OFFSET)))


def _assumed(value: float, error: float) -> Estimate:
    return Estimate(_log_interval(value, hypot(error, ASSUMED_WITHIN * value), inf)) if value >= 0 else _NEGATIVE


def _log_interval(value: float, error: float, df: float) -> Interval:
    middle, reach = on_log(value), error / (value + OFFSET) * statistics.student_critical(df)
    return Interval(middle, middle - reach, middle + reach, df)


def _sum(period: Period, counters: Sequence[str]) -> int:
    return sum(period.counters.get(name, 0) for name in counters)


def _whole(period: Period, counters: Sequence[str]) -> int:
    """What counters are a share of: their sum, or of requests that the report did not count, answers and failures."""
    if tuple(counters) == (names.REQUESTS,):
        return requests(period.counters) or 0
    return _sum(period, counters)
