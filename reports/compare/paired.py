"""The statistics of a duel: two sides that were under load in the same seconds, by whose arrivals chance dealt them.

What disturbs the machine disturbs both sides, so each second's samples of both are ranked together and only the
difference of the sides within that second counts. A quantile is compared by how many samples of each side lie above the
common quantile of that second: under no change the sides can be swapped, whatever the second was like. The error of the
sum of these differences over the seconds is that of `statistics.ratio_over_periods`, which allows for neighbours that
resemble each other (queues that build up on one side by chance), and is never taken smaller than that of independent
samples. An interval of a ratio holds every factor that, taken out of one side's times, leaves no significant difference.
Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import asin, atanh, ceil, inf, log1p, sqrt
from typing import Final

import numpy as np

from reports.compare import statistics
from reports.compare.statistics import Floats
from reports.model import Report, Second
from reports.sketch import RELATIVE_ACCURACY, Sketch

LEAST_STRETCHES: Final = 12
"""Fewest stretches of time with samples on both sides from which anything is judged."""

LEAST_BEYOND: Final = 20
"""Samples of both sides together that must lie beyond a quantile."""

SOUGHT: Final = 0.1
"""The change of a quantile, as a share of it, that a duel of the recommended length finds."""

_Z_95, _Z_99, _Z_90_ONE_SIDED = 1.96, 2.576, 1.282
_BEYOND_IN_A_STRETCH: Final = 2.0
_MARGIN: Final = 0.2
"""Less than for a run alone: that sides take turns within seconds leaves little correlation, and Holm's procedure is strict."""
_APART: Final = 0.5
"""Sides stand apart where the shares of their samples above the common median differ by more: 75 % against 25 %."""
_MARGIN_APART: Final = 1.5
"""For sides that stand apart the correlation is taken higher: one swing, or half of one, shows little of it."""
_MOST_APART: Final = 0.97
_BATCHES: Final = 40
"""Twice as many as of a run alone, for more degrees of freedom: what lasts in a run is mostly in both sides of a duel."""
_NEAR: Final = 8
"""Bins, within which a ratio's interval is looked for first: some 17 %."""
_BIN_WIDTH: Final = 2 * atanh(RELATIVE_ACCURACY)
"""Width of a sketch's bin on the scale of logarithms."""
_OUTLASTING: Final = (
    "too little data: one side is ahead nearly all the time, but so slow are the swings of both that chance may have put it "
    "there (queues near saturation outlast a duel)"
)
_SHORT: Final = "too little data: both sides need answers in {} stretches of {} s at least, there are {}"


@dataclass(frozen=True, slots=True)
class Paired:
    """What a duel says of one figure: B against A, as the logarithm of a ratio, or as 2 asin(difference) of shares.

    `low` and `high` are the 95 % interval, infinite where the data set no limit. `lacking`: why nothing can be said.
    """

    value: float = 0.0
    low: float = -inf
    high: float = inf
    p: float = 1.0
    lacking: str = ""


class Duel:
    """The seconds of both sides of a duel, side by side. Both reports must have seconds, which our own runs record."""

    def __init__(self, a: Report, b: Report) -> None:
        of = [{s.start_ms: s for period in side.periods for s in period.seconds} for side in (a, b)]
        starts = sorted({*of[0], *of[1]})
        seconds = range(starts[0], starts[-1] + 1000, 1000) if starts else ()
        self._sides = [[found.get(start, Second(start)) for start in seconds] for found in of]
        self._times = _binned([[second.response_time for second in side] for side in self._sides])

    @property
    def seconds(self) -> int:
        """Seconds from the first event of either side to the last."""
        return len(self._sides[0])

    def quantile(self, q: float) -> Paired:
        """The quantile `q`, 0 to 1, of the response times: by which factor B's are longer than A's in the same seconds."""
        a, b = self._times
        total = float((a + b).sum())
        beyond = min(q, 1 - q) * total
        if beyond < LEAST_BEYOND:
            return Paired(lacking=f"too little data: {beyond:.0f} of {total:.0f} samples lie beyond the quantile")
        size = max(1, min(round(_BEYOND_IN_A_STRETCH * self.seconds / beyond), self.seconds // LEAST_STRETCHES))
        a, b = _stretches(a, size), _stretches(b, size)
        both = (a.sum(1) > 0) & (b.sum(1) > 0)
        a, b = a[both], b[both]
        if len(a) < LEAST_STRETCHES:
            return Paired(lacking=_SHORT.format(LEAST_STRETCHES, size, len(a)))
        bins = a.shape[1]
        # B's times, taken to be longer by so many bins, are moved down by them.
        by_shift: dict[int, _Excess] = {}

        def excess(shift: int) -> _Excess:
            if shift not in by_shift:
                before, after = (a, b) if shift >= 0 else (b, a)
                moved = _excess(np.pad(before, ((0, 0), (abs(shift), 0))), np.pad(after, ((0, 0), (0, abs(shift)))), q)
                by_shift[shift] = moved if shift >= 0 else moved.mirrored()
            return by_shift[shift]

        if excess(0).trending:
            return Paired(lacking="too little data: the duel is short beside the sides' own swings")
        # Holm's procedure asks this of the first of four figures.
        if self._by_swings > statistics.LEVEL / 4:
            return Paired(lacking=_OUTLASTING)
        value, low, high = (_crossing(_end_of(excess, ends), bins) * _BIN_WIDTH for ends in (0.0, 1.0, -1.0))
        low, high = min(low, high), max(low, high)
        return Paired(value, low, high, max(excess(0).p, self._by_swings))

    @cached_property
    def _by_swings(self) -> float:
        """How likely slow swings of equal sides put one as far ahead, for so long, as one is here; 0 where none stands apart.

        Where nearly all of one side's samples lie above the other's, their excess varies no more, and its error says nothing.
        Then the ratio of the sides' medians does: it tells how many independent stretches of time the duel has. All of n point
        the same way once in 2^(n-1) duels by chance. A ratio that is large beside its own swings is less likely still.
        """
        a, b = self._times
        both = (a.sum(1) > 0) & (b.sum(1) > 0)
        if not both.any() or abs(_excess(a[both], b[both], 0.5).value) <= _APART:
            return 0.0
        size = ceil(self.seconds / _BATCHES)
        ratios = _medians(_stretches(b, size)) - _medians(_stretches(a, size))
        ratios = ratios[np.isfinite(ratios)]
        count = len(ratios)
        if count < LEAST_STRETCHES:
            return 1.0
        at = np.arange(count) - (count - 1) / 2
        swings = ratios - ratios.mean()
        # A side whose queue grows all the time is no swing.
        swings -= at * (swings @ at) / (at @ at)
        squares = float(swings @ swings)
        seen = float(swings[1:] @ swings[:-1]) / squares if squares else 0.0
        higher = (2 + 4 * seen) / count + _MARGIN_APART * sqrt(max(0.0, 1 - seen * seen) / count)
        correlation = min(max(seen + higher, 0.0), _MOST_APART)
        inflation = (1 + correlation) / (1 - correlation)
        stretches = count / inflation
        error = sqrt(squares * inflation / (count - 1) / count)
        t = float(ratios.mean()) / error if error else inf
        return min(1.0, 2 ** (1 - stretches), statistics.student_p(t, max(2.0, stretches - 1)))

    def failures(self) -> Paired:
        """The difference of the shares of requests that failed."""
        counts = np.array([[(s.requests, s.errors) for s in side] for side in self._sides], np.float64)
        (requests_a, failed_a), (requests_b, failed_b) = (side.T for side in counts)
        failed, sent = failed_a.sum() + failed_b.sum(), requests_a.sum() + requests_b.sum()
        if not failed:
            return Paired(lacking="nothing failed")
        both = requests_a + requests_b
        weights = np.divide(requests_a * requests_b, both, out=np.zeros_like(both), where=both > 0)
        if (weights > 0).sum() < LEAST_STRETCHES:
            return Paired(lacking=_SHORT.format(LEAST_STRETCHES, 1, (weights > 0).sum()))
        found = _difference(failed_b, failed_a, requests_a, requests_b, failed / sent)
        alone = _binomial_p(failed_b.sum(), failed, requests_b.sum() / sent)
        value, low, high = (2 * asin(min(max(found.above(ends), -1.0), 1.0)) for ends in (0.0, -1.0, 1.0))
        return Paired(value, low, high, max(found.p, alone))

    def rate(self) -> Paired:
        """Requests per second."""
        a, b = (np.array([s.requests for s in side], np.float64) for side in self._sides)
        if len(a) < LEAST_STRETCHES or not (a.sum() and b.sum()):
            return Paired(lacking=_SHORT.format(LEAST_STRETCHES, 1, len(a)))
        found = statistics.ratio_over_periods(b - a, (a + b) / 2)
        reach = found.error * statistics.student_critical(found.df)
        # (b - a) / mean of both is 2 tanh(log(b / a) / 2)
        value, low, high = (_log_of_share(found.value + by) for by in (0.0, -reach, reach))
        p = statistics.student_p(found.value / found.error if found.error else inf, found.df) if found.value else 1.0
        return Paired(value, low, high, p)


def minutes_needed(width: float, seconds: float) -> float:
    """Minutes in which a change of `SOUGHT` would be found nine times in ten.

    By the width of a quantile's 95 % interval after a number of seconds, on the scale of logarithms: it shrinks with the square
    root of time. The verdict is at 1 %, as several figures are judged at once.
    """
    error = width / (2 * _Z_95)
    return seconds / 60 * (error * (_Z_99 + _Z_90_ONE_SIDED) / log1p(SOUGHT)) ** 2


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scand. J. Stat. 6, 1979), in the order given.

    Those up to a level hold the chance of any false one among them to that level, however the figures depend on each other.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    found, least = [1.0] * len(ps), 0.0
    for before, i in enumerate(order):
        least = max(least, min(1.0, ps[i] * (len(ps) - before)))
        found[i] = least
    return found


@dataclass(frozen=True, slots=True)
class _Excess:
    """How much more of B than of A lies above the common quantile; its 95 % interval reaches as far on either side."""

    value: float
    reach: float
    p: float
    trending: bool = False

    def above(self, ends: float) -> float:
        """The excess (0), its upper end (1) or its lower end (-1)."""
        return self.value + ends * self.reach

    def mirrored(self) -> _Excess:
        return _Excess(-self.value, self.reach, self.p, self.trending)


def _difference(of_b: Floats, of_a: Floats, count_a: Floats, count_b: Floats, share: float) -> _Excess:
    """B's share minus A's, of counts in each stretch; `share` of all samples is expected where chance alone decides."""
    both = count_a + count_b
    weights = np.divide(count_a * count_b, both, out=np.zeros_like(both), where=both > 0)
    excess = np.divide(of_b * count_a - of_a * count_b, both, out=np.zeros_like(both), where=both > 0)
    found = statistics.ratio_over_periods(excess, weights, margin=_MARGIN, batches=_BATCHES)
    error = max(found.error, sqrt(share * (1 - share) / float(weights.sum())))
    reach = error * statistics.student_critical(found.df)
    return _Excess(
        found.value, reach, statistics.student_p(found.value / error if error else inf, found.df), found.trending
    )


def _excess(a: Floats, b: Floats, q: float) -> _Excess:
    """The same of samples above the quantile `q` of both sides together in each stretch. Rows are stretches, columns bins.

    The bin in which the quantile lies is divided between above and below in the same proportion for both sides.
    """
    falling = (a + b)[:, ::-1]
    count = falling.sum(1)
    reached = falling.cumsum(1)
    wanted = (1 - q) * count
    rows, at = np.arange(len(a)), (reached >= wanted[:, None] * (1 - 1e-12)).argmax(1)
    left_out = (reached[rows, at] - wanted) / falling[rows, at]

    def above(side: Floats) -> Floats:
        turned = side[:, ::-1]
        found: Floats = turned.cumsum(1)[rows, at] - left_out * turned[rows, at]
        return found

    return _difference(above(b), above(a), a.sum(1), b.sum(1), 1 - q)


def _end_of(excess: Callable[[int], _Excess], ends: float) -> Callable[[int], float]:
    return lambda shift: excess(shift).above(ends)


def _crossing(falls: Callable[[int], float], most: int) -> float:
    """Where a falling function of a whole number passes zero, linear between two of them; infinite beyond `most`.

    Looked for near zero first: most changes are small, and small numbers are the quicker ones.
    """
    low, high = -min(_NEAR, most), min(_NEAR, most)
    while falls(low) <= 0:
        if low == -most:
            return -inf
        low, high = max(2 * low, -most), low
    while falls(high) >= 0:
        if high == most:
            return inf
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return low + falls(low) / (falls(low) - falls(high))


def _binomial_p(count: float, of: float, share: float) -> float:
    """How likely a count of `of` as far from its share as this one is; exact, the smaller tail doubled (Clopper and Pearson)."""
    at_least = statistics.beta_cdf(share, count, of - count + 1) if count else 1.0
    at_most = 1 - statistics.beta_cdf(share, count + 1, of - count) if count < of else 1.0
    return min(1.0, 2 * min(at_least, at_most))


def _log_of_share(difference: float) -> float:
    return 2 * atanh(difference / 2) if abs(difference) < 2 else inf if difference > 0 else -inf


# Sketches as rows of bins


def _binned(sides: Sequence[Sequence[Sketch | None]]) -> tuple[Floats, Floats]:
    """Both sides' samples by second (rows) and bin (columns, the same for both). What is not above zero is in the first."""
    parts = [sketch.positive for side in sides for sketch in side if sketch is not None and len(sketch.positive.counts)]
    low = min((bins.offset for bins in parts), default=1) - 1
    high = max((bins.offset + len(bins.counts) for bins in parts), default=1)
    tables = [np.zeros((len(side), high - low)) for side in sides]
    for table, side in zip(tables, sides, strict=True):
        for row, sketch in zip(table, side, strict=True):
            if sketch is not None:
                bins = sketch.positive
                row[bins.offset - low : bins.offset - low + len(bins.counts)] = bins.counts
                row[0] = sketch.count - bins.total
    return tables[0], tables[1]


def _medians(table: Floats) -> Floats:
    """The bin in which the median of each row lies; NaN where a row has no samples."""
    reached = table.cumsum(1)
    total = reached[:, -1:]
    found: Floats = np.where(total[:, 0] > 0, (2 * reached >= total).argmax(1), np.nan)
    return found


def _stretches(table: Floats, size: int) -> Floats:
    """Sums of `size` rows; the last sum has what is left over, too."""
    starts = np.arange(0, max(1, len(table) - size + 1), size)
    found: Floats = np.add.reduceat(table, starts)
    return found
