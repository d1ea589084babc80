"""Change points of a series: where its level changed for good, by E-divisive means in windows. Pure; no I/O.

Candidates are where the energy statistic of Matteson and James (J. Am. Stat. Assoc. 109, 2014) is largest, found in
overlapping windows and then in the parts beside each, and weakest dropped until all are significant, as in Hunter (Fleming
and others, ICPE 2023, since then Apache Otava). The test differs: Student's t with a bound on all places that were looked
at, allowing for neighbours that resemble each other, and without the one value that speaks most for the change. Both make
false alarms rarer; docs/history.md has the measured rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf, log, sqrt
from typing import Final

import numpy as np

from reports.compare.statistics import LEVEL, Floats, student_p

LEAST_VALUES: Final = 8
"""A shorter series is not judged."""

LEAST_SEGMENT: Final = 3
"""A level is one that holds for at least this many values."""

WINDOW: Final = 50
"""Values that are searched at once, so that a level that comes and goes is found in a long series."""

_FIRST_PASS: Final = 5.0
"""Candidates may be as many times less significant than change points: where a level comes and goes, one side hides the other."""

_LOOKED_AT_TOO: Final = 5.0
"""P of a drift is multiplied by this, so that looking for drifts too adds little to false alarms."""

_MOST_CORRELATION: Final = 0.9
_LEAST_DF: Final = 3.0


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A change of level. `at` is the index of the first value of the new level."""

    at: int
    p: float
    """How likely a change like this is by chance anywhere in a series of this length."""


def change_points(values: Floats, least_spread: float = 0.0, level: float = LEVEL) -> list[ChangePoint]:
    """The change points of a series, in order; none where it has fewer than LEAST_VALUES values.

    `values` are finite and in order of time, on a scale on which they scatter equally everywhere. `least_spread` is a
    standard deviation that is never undercut, however well neighbouring values agree. A series without a change has any
    change point with a probability of about `level`.
    """
    if len(values) < LEAST_VALUES:
        return []
    starts = range(0, max(1, len(values) - WINDOW // 2), WINDOW // 2)
    found = {
        point
        for start in starts
        for point in _candidates(values, start, min(start + WINDOW, len(values)), least_spread, _FIRST_PASS * level)
    }
    return _pruned(values, sorted(found), least_spread, level)


def drift_p(values: Floats, points: list[ChangePoint], least_spread: float = 0.0) -> float:
    """How likely a series drifts like this by chance; 1 where its levels describe it as well as a straight line.

    A slow drift has no instant at which it happened, though the levels before and after its middle differ. Line and levels
    are compared by the Bayesian information criterion.
    """
    count = len(values)
    if count < LEAST_VALUES:
        return 1.0
    edges = [0, *(point.at for point in points), count]
    steps = sum(float(np.square(values[a:b] - values[a:b].mean()).sum()) for a, b in pairwise(edges))
    at = np.arange(count) - (count - 1) / 2
    slope = float((at * values).sum() / np.square(at).sum())
    rest = values - values.mean() - slope * at
    line = float(np.square(rest).sum())
    floor = count * least_spread**2 + 1e-300
    if (
        log(max(line, floor)) + 2 * log(count) / count
        >= log(max(steps, floor)) + (2 * len(points) + 1) * log(count) / count
    ):
        return 1.0
    inflation = _inflation(float((rest[1:] * rest[:-1]).sum()), line)
    spread = max(sqrt(line / (count - 2)), least_spread)
    error = spread * sqrt(inflation / float(np.square(at).sum()))
    return min(1.0, _LOOKED_AT_TOO * student_p(slope / error if error else inf, max(_LEAST_DF, count / inflation - 2)))


def energies(values: Floats) -> Floats:
    """The energy statistic of each stretch values[a:b] against the rest, as an array of n + 1 rows a and columns b; else 0.

    nm / (n + m) (2 E|X - Y| - E|X - X'| - E|Y - Y'|), with every value also paired with itself.
    """
    count = len(values)
    sums = np.zeros((count + 1, count + 1))
    sums[1:, 1:] = np.abs(values[:, None] - values[None, :]).cumsum(0).cumsum(1)
    own = np.diag(sums)
    a, b = np.arange(count + 1)[:, None], np.arange(count + 1)[None, :]
    inside = own[None, :] + own[:, None] - 2 * sums
    between = sums[b, count] - sums[a, count] - inside
    rest = sums[count, count] - inside - 2 * between
    n = np.clip(b - a, 1, count - 1)
    m = count - n
    found: Floats = n * m / count * (2 * between / (n * m) - inside / n**2 - rest / m**2)
    return np.where((b > a) & (b - a < count), found, 0.0)


def _candidates(values: Floats, start: int, end: int, least_spread: float, level: float) -> list[int]:
    """The significant splits of values[start:end], the parts beside each split again.

    Neighbours that resemble each other are allowed for only when all candidates are known: beside one step of a staircase
    they do so because of the other steps.
    """
    found: list[int] = []
    parts = [(start, end)]
    while parts:
        start, end = parts.pop()
        if end - start < 2 * LEAST_SEGMENT:
            continue
        energy = energies(values[start:end])
        first = energy[0, LEAST_SEGMENT : end - start - LEAST_SEGMENT + 1]
        at = start + LEAST_SEGMENT + int(first.argmax())
        edges: tuple[int, ...] = (at,)
        if _p(values, start, at, end, least_spread, correlated=False) > level:
            edges = _stretch(values, start, end, energy, least_spread, level / _FIRST_PASS)
        if edges:
            found += edges
            parts += pairwise((start, *edges, end))
    return found


def _stretch(
    values: Floats, start: int, end: int, energy: Floats, least_spread: float, level: float
) -> tuple[int, ...]:
    """Both edges of the stretch that differs most from what is before and after it; empty where that is not significant.

    A level that comes and goes need not show in any single split: each side has a part of it or of what is around it.
    """
    width = end - start
    a, b = np.indices(energy.shape)
    fits = (a >= LEAST_SEGMENT) & (b - a >= LEAST_SEGMENT) & (width - b >= LEAST_SEGMENT)
    places = int(fits.sum())
    if not places:
        return ()
    first, last = divmod(int(np.where(fits, energy, -inf).argmax()), width + 1)
    part = values[start:end]
    rest = np.concatenate([part[:first], part[last:]])
    p = _without_one(rest, part[first:last], least_spread) * places / 2
    return (start + first, start + last) if p <= level else ()


def _pruned(values: Floats, places: list[int], least_spread: float, level: float) -> list[ChangePoint]:
    """The places without those that are not significant beside their neighbours, the weakest dropped first."""
    while True:
        edges = [0, *places, len(values)]
        ps = [_p(values, edges[i], edges[i + 1], edges[i + 2], least_spread) for i in range(len(places))]
        if not ps or max(ps) <= level:
            return [ChangePoint(at, p) for at, p in zip(places, ps, strict=True)]
        places.pop(int(np.argmax(ps)))


def _p(values: Floats, start: int, at: int, end: int, least_spread: float, correlated: bool = True) -> float:
    """P of a change at `at`, bounded for all places of values[start:end]."""
    left, right = values[start:at], values[at:end]
    if min(len(left), len(right)) < LEAST_SEGMENT:
        return 1.0
    # Neighbouring places share most of their values: they count half.
    places = (end - start - 2 * LEAST_SEGMENT + 2) / 2
    return min(1.0, places * _without_one(left, right, least_spread, correlated))


def _without_one(left: Floats, right: Floats, least_spread: float, correlated: bool = True) -> float:
    """P of a difference between two sides, without the one value of either side that speaks most for it."""
    sign = 1 if right.mean() > left.mean() else -1
    fewer_left = np.delete(left, (sign * left).argmin())
    fewer_right = np.delete(right, (sign * right).argmax())
    return max(_student(a, b, sign, least_spread, correlated) for a, b in ((fewer_left, right), (left, fewer_right)))


def _student(left: Floats, right: Floats, sign: int, least_spread: float, correlated: bool = True) -> float:
    """Two-sided P of Student's t; `correlated`: its error is widened as far as neighbouring values resemble each other."""
    n, m = len(left), len(right)
    change = sign * float(right.mean() - left.mean())
    if change <= 0:
        return 1.0
    a, b = left - left.mean(), right - right.mean()
    squares = float(np.square(a).sum() + np.square(b).sum())
    df = n + m - 2
    spread = max(sqrt(squares / df), least_spread)
    products = float((a[1:] * a[:-1]).sum() + (b[1:] * b[:-1]).sum())
    inflation = _inflation(products, squares) if correlated else 1.0
    error = spread * sqrt((1 / n + 1 / m) * inflation)
    return student_p(change / error if error else inf, max(_LEAST_DF, (n + m) / inflation - 2))


def _inflation(products: float, squares: float) -> float:
    """By how much neighbours that resemble each other make the variance of a mean larger (a first-order autoregression).

    `products` are summed over neighbouring residuals, `squares` over all.
    """
    correlation = min(max(products / squares if squares else 0.0, 0.0), _MOST_CORRELATION)
    return (1 + correlation) / (1 - correlation)
