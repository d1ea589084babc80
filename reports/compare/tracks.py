"""How a figure ran through a run: its value in each stretch of time, and what two runs' tracks say of a change.

Two runs of one plan are compared stretch by stretch: a ramp, a warm-up or a slow drift is the same in both and cancels. Runs of
different length are compared by the mean of all stretches. Either way it is the typical stretch that counts, so that one
burst, which may make a whole run's p99, is one observation among many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, hypot, inf
from typing import Final, Protocol

import numpy as np

from reports.compare import statistics
from reports.compare.quantiles import interpolated
from reports.compare.scales import on_log
from reports.compare.statistics import LEAST_PERIODS, MOST_BATCHES, Floats, Interval
from reports.sketch import Sketch

LEAST_BEYOND: Final = 3
"""Samples that must lie beyond a quantile in each stretch."""

BIN: Final = 0.0058
"""Standard error of a quantile that is the middle of a sketch's bin, 2 % wide, as a share of it."""

TRENDING = "too little data: the runs are short beside their own swings"


class Track(Protocol):
    """A figure over the periods of one run, in order of time."""

    @property
    def weights(self) -> Floats:
        """What each period measured: its samples, or its seconds."""

    @property
    def resolution(self) -> float:
        """Standard error on the scale that the figure's own coarseness gives, the same in all periods."""

    def stretches(self, bounds: Sequence[int]) -> Floats:
        """The figure on its scale between each of these period numbers and the next; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class SketchTrack:
    """A quantile or the mean (`q` None) by the periods' sketches."""

    sketches: Sequence[Sketch]
    q: float | None
    weights: Floats
    merged: dict[tuple[int, int], Sketch] = field(default_factory=dict)
    """Sketches of stretches by their bounds, shared by all rows of a distribution."""
    resolution: float = 0.0025

    def stretches(self, bounds: Sequence[int]) -> Floats:
        """As `Track` says."""
        return np.array([self._value(a, b) for a, b in pairwise(bounds)])

    def _value(self, first: int, last: int) -> float:
        found = self.merged.get((first, last))
        if found is None:
            found = self.merged[first, last] = Sketch.merged(self.sketches[first:last])
        if not found.count:
            return np.nan
        value = found.mean if self.q is None else interpolated(found, self.q)
        return on_log(value) if value >= 0 else np.nan


@dataclass(frozen=True, slots=True)
class ValueTrack:
    """Figures that the report has by period, on the scale: percentiles and means without sketches."""

    values: Floats
    weights: Floats
    resolution: float = BIN

    def stretches(self, bounds: Sequence[int]) -> Floats:
        """As `Track` says: weighted means."""
        at = list(bounds[:-1])
        with np.errstate(all="ignore"):
            weighted = np.add.reduceat(np.nan_to_num(self.values) * self.weights, at)
            found: Floats = weighted / np.add.reduceat(self.weights, at)
        return found


@dataclass(frozen=True, slots=True)
class RateTrack:
    """Events and seconds of each period."""

    events: Floats
    weights: Floats
    resolution: float = 0.0

    def stretches(self, bounds: Sequence[int]) -> Floats:
        """As `Track` says: events per second."""
        at = list(bounds[:-1])
        with np.errstate(all="ignore"):
            rates = np.add.reduceat(self.events, at) / np.add.reduceat(self.weights, at)
        return np.array([on_log(rate) if rate >= 0 else np.nan for rate in rates.tolist()])


@dataclass(frozen=True, slots=True)
class TrackChange:
    """New minus old on the scale with its 95 % interval, or why there is none; `apart`: no stretch of one reaches the other."""

    interval: Interval | None
    lacking: str = ""
    apart: bool = False


def changed(old: Track, new: Track, q: float | None = None) -> TrackChange:
    """What two runs' tracks, of `LEAST_PERIODS` periods at least, say of a change of the typical stretch."""
    ends = [_ends(track.weights) for track in (old, new)]
    same_plan = abs(len(old.weights) - len(new.weights)) <= 1
    if same_plan:
        first, last = max(ends[0][0], ends[1][0]), min(ends[0][1], ends[1][1])
        ends = [(first, last), (first, last)]
    sizes = [_periods_in_a_stretch(t.weights[a:b], q) for t, (a, b) in zip((old, new), ends, strict=True)]
    size = max(sizes)
    bounds = [[*range(a, b - size + 1, size), b] if b - a >= size else [] for a, b in ends]
    if min(len(some) for some in bounds) < LEAST_PERIODS + 1:
        return TrackChange(None, "too little data: too few samples in too few periods")
    before, after = old.stretches(bounds[0]), new.stretches(bounds[1])
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return TrackChange(None, "too little data: not in every period")
    long = min(b - a for a, b in ends) >= 2 * LEAST_PERIODS
    apart = bool(long and (before.max() < after.min() or after.max() < before.min()))
    if same_plan:
        found = statistics.ratio_over_periods(after - before)
        value, error, df, trending = found.value, found.error, found.df, found.trending
    else:
        one, other = statistics.ratio_over_periods(before), statistics.ratio_over_periods(after)
        value, error, trending = other.value - one.value, hypot(one.error, other.error), one.trending or other.trending
        parts = (one.error**4 / one.df + other.error**4 / other.df) if error else 0.0
        df = error**4 / parts if parts else inf
    interval = Interval(value, value, value, df)
    reach = error * statistics.student_critical(df)
    interval = Interval(value, value - reach, value + reach, df).widened(hypot(old.resolution, new.resolution))
    return TrackChange(interval, TRENDING if trending else "", apart)


def _ends(weights: Floats) -> tuple[int, int]:
    """The first period and the one after the last, without ones at either end that measured less than half as much as usual."""
    usual = np.flatnonzero(weights >= np.median(weights) / 2)
    return int(usual[0]), int(usual[-1]) + 1


def _periods_in_a_stretch(weights: Floats, q: float | None) -> int:
    size = ceil(len(weights) / MOST_BATCHES)
    if q is None or not len(weights):
        return max(1, size)
    return max(1, size, ceil(LEAST_BEYOND / (min(q, 1 - q) * max(float(weights.mean()), 1e-9))))
