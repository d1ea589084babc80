"""The arithmetic of verdicts: exact intervals, block bootstrap, differences, permutation, many comparisons. Pure; no I/O.

What is assumed, why each method was chosen and how well it does in simulation stands in docs/statistics.md. Everything
here is deterministic: where chance is needed (a permutation test with too many splits to try all) it has a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import ceil, comb, exp, hypot, inf, isfinite, lgamma, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Two-sided: intervals are 95 % ones, and at most 5 % of comparisons without a change end in a verdict."""

BLOCKS = 5
"""The block bootstrap cuts a run into about so many blocks: long ones keep what neighbouring periods share."""

LEAST_PERIODS = 12
"""Below that the variation between periods cannot be told from chance."""

_MOST_SPLITS = 10_000
_MOST_EXACT = 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; `df`: degrees of freedom that its standard error is known with."""

    value: float
    low: float
    high: float
    df: float = inf

    def widened(self, by: float) -> Interval:
        """With another source of error, independent of the first, whose standard error is `by`."""
        more = by * student_critical(self.df)
        low, high = self.value - hypot(self.value - self.low, more), self.value + hypot(self.high - self.value, more)
        return Interval(self.value, low, high, self.df)


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old with its 95 % interval, and how likely a difference so large is by chance alone."""

    value: float
    low: float
    high: float
    p: float


# Distributions


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), a and b > 0, to about 1e-12.

    Continued fraction DLMF 8.17.22, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1 - beta_cdf(1 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d, c = 1 / (1 + step * d), 1 + step / c
            total *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * total


def student_p(t: float, df: float) -> float:
    """Probability of a Student's t beyond `t` on either side; df = inf is the normal distribution."""
    t = abs(t)
    df = min(df, 1e6)
    return 0.0 if not isfinite(t) else beta_cdf(df / (df + t * t), df / 2, 0.5)


def student_critical(df: float) -> float:
    """The t that is exceeded on either side with probability `LEVEL`."""
    return _critical(round(min(df, 1e6), 1))


@lru_cache(maxsize=4096)
def _critical(df: float) -> float:
    return _root(lambda t: student_p(t, df) - LEVEL, 0.0, 1000.0)


def _root(falls: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes zero, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return (low + high) / 2


# Exact intervals of counts


def share_interval(count: int, of: int) -> Interval:
    """Clopper and Pearson's exact interval of a share (Biometrika 26, 1934), 0 <= count <= of, of > 0.

    With more than 1,000 on either side Wilson's, which then agrees with it to 0.1 % of the share and is quick.
    """
    share = count / of
    if min(count, of - count) > _MOST_EXACT:
        z2 = student_critical(inf) ** 2
        middle = (count + z2 / 2) / (of + z2)
        half = sqrt(z2 * (count * (of - count) / of + z2 / 4)) / (of + z2)
        return Interval(share, middle - half, middle + half)
    tail = LEVEL / 2
    low = _root(lambda p: tail - beta_cdf(p, count, of - count + 1), 0, share) if count else 0.0
    high = _root(lambda p: 1 - beta_cdf(p, count + 1, of - count) - tail, share, 1) if count < of else 1.0
    return Interval(share, low, high)


def count_interval(count: int) -> Interval:
    """Garwood's exact interval of the mean of a Poisson count (Biometrika 28, 1936).

    Beyond 1,000 events by Wilson and Hilferty's approximation of it, good to 5 digits there.
    """
    if count > _MOST_EXACT:
        z = student_critical(inf)
        low, high = (n * (1 - 1 / (9 * n) + s * z / (3 * sqrt(n))) ** 3 for n, s in ((count, -1), (count + 1, 1)))
        return Interval(count, low, high)
    tail, most = LEVEL / 2, count + 8 * sqrt(count + 1) + 8
    low = _root(lambda mean: _poisson_cdf(count - 1, mean) - 1 + tail, 0, count) if count else 0.0
    return Interval(count, low, _root(lambda mean: _poisson_cdf(count, mean) - tail, count, most))


def _poisson_cdf(count: int, mean: float) -> float:
    if mean <= 0:
        return 1.0
    terms = (k * log(mean) - mean - lgamma(k + 1) for k in range(count + 1))
    return sum(map(exp, terms))


# Variation between periods


@dataclass(frozen=True, slots=True)
class Ratio:
    """Sum of numerators / sum of denominators over periods, one per column, with standard errors."""

    value: Floats
    error: Floats
    df: float


def ratio_over_periods(numerators: Floats, denominators: Floats) -> Ratio:
    """The standard errors of ratios by a circular block bootstrap over periods (rows); columns are figures.

    A period weighs what its denominator says (requests, or seconds), so that a short first or last one counts for
    little. Resampling blocks with replacement is not done by drawing: of a sum, its variance over all possible draws
    is known, B x mean square of the block sums (B blocks), here of the linearised ratio's residuals. It is corrected
    for the mean having been fitted; never taken below what the lag-1 autocorrelation implies for a first-order
    autoregression (which short runs' blocks miss); and known with the degrees of freedom of overlapping batch means
    (Meketon and Schmeiser, WSC 1984). Fewer than `LEAST_PERIODS` rows give errors too small to use.
    """
    totals = denominators.sum(0)
    with np.errstate(all="ignore"):
        value = numerators.sum(0) / totals
        residuals = numerators - value * denominators
        periods = len(residuals)
        length = ceil(periods / BLOCKS)
        circle = np.concatenate([residuals, residuals[: length - 1]]) if length > 1 else residuals
        sums = np.concatenate([np.zeros_like(circle[:1]), circle.cumsum(0)])
        blocks = sums[length:] - sums[:-length]
        variance = periods / length * np.square(blocks).mean(0) / (1 - length / periods)
        error = np.sqrt(np.maximum(variance, _autoregressive(residuals))) / totals
    return Ratio(value, error, 1.5 * (periods / length - 1))


def _autoregressive(residuals: Floats) -> Floats:
    """Variance of the sum of a first-order autoregression; its coefficient is corrected for its bias in short series."""
    periods, squares = len(residuals), np.square(residuals).sum(0)
    lag1 = (residuals[1:] * residuals[:-1]).sum(0) / np.where(squares > 0, squares, 1)
    lag1 = np.clip(lag1 + (1 + 3 * lag1) / periods, 0, 0.9)
    result: Floats = squares * periods / (periods - 1) * (1 + lag1) / (1 - lag1)
    return result


# Two sides


def difference(old: Interval, new: Interval) -> Difference:
    """New minus old by recovering each side's variance from its interval (Zou and Donner, Stat. Med. 27, 2008).

    The sides of the intervals that face each other decide whether there is a difference, so skewed intervals keep
    their skew. Degrees of freedom by Welch and Satterthwaite.
    """
    value = new.value - old.value
    below, df_below = _joint_error(new.value - new.low, new.df, old.high - old.value, old.df)
    above, df_above = _joint_error(new.high - new.value, new.df, old.value - old.low, old.df)
    facing, df = (below, df_below) if value > 0 else (above, df_above)
    p = student_p(abs(value) / facing if facing else inf, df) if value else 1.0
    return Difference(value, value - below * student_critical(df_below), value + above * student_critical(df_above), p)


def _joint_error(width_a: float, df_a: float, width_b: float, df_b: float) -> tuple[float, float]:
    a, b = width_a / student_critical(df_a), width_b / student_critical(df_b)
    joint = hypot(a, b)
    if not joint:
        return 0.0, inf
    spread = (a / joint) ** 4 / df_a + (b / joint) ** 4 / df_b
    return joint, 1 / spread if spread else inf


# Several runs a side


def pooled_t(old: Floats, new: Floats, least_spread: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """Student's t of each column (a figure) and its standard error; rows are runs. Three runs at least in all.

    `least_spread`: a standard deviation between runs that is never undercut. Two runs that agree by chance, as rounded
    figures and small counts often do, would otherwise pass for runs that always agree.
    """
    df = len(old) + len(new) - 2
    with np.errstate(all="ignore"):
        squares = np.square(old - old.mean(0)).sum(0) + np.square(new - new.mean(0)).sum(0)
        error = np.sqrt(np.maximum(squares / df, np.square(least_spread)) * (1 / len(old) + 1 / len(new)))
        t = (new.mean(0) - old.mean(0)) / error
    return np.where(np.isnan(t), 0.0, t), error


def permutation_can_tell(old_runs: int, new_runs: int) -> bool:
    """Whether there are enough ways of splitting the runs for the rarest to be rarer than `LEVEL`."""
    mirrored = 2 if old_runs == new_runs else 1
    return mirrored / comb(old_runs + new_runs, old_runs) <= LEVEL


def permutation_p(old: Floats, new: Floats, *, seed: int = 0) -> Floats:
    """P of each column, adjusted for all columns together: Westfall and Young's single-step maxT (1993).

    How often the largest |t| of any column is as large as this column's, when runs are dealt to the sides anew: all
    ways, or 10,000 drawn by `seed` where there are more. Columns may depend on each other in any way.
    """
    runs = np.concatenate([old, new])
    runs = runs - runs.mean(0)
    chosen = _splits(len(runs), len(old), seed)
    n, rest = len(old), len(new)
    with np.errstate(all="ignore"):
        sums = chosen @ runs  # of the one side; the other's is the same with its sign turned, as all add up to nothing
        within = np.square(runs).sum(0) - np.square(sums) * (1 / n + 1 / rest)
        t2 = np.square(sums) / np.maximum(within, 1e-12 * np.square(runs).sum(0))
    t2 = np.nan_to_num(t2, nan=0.0)  # a figure that is the same in all runs
    reached = t2.max(1)[:, None] >= t2[0] * (1 - 1e-9)  # the observed split must count, however it was rounded
    beyond: Floats = reached.mean(0)
    return beyond


def _splits(runs: int, first: int, seed: int) -> Floats:
    """A row per way of dealing the runs, 1 for those on the first side; the first row is the way they are."""
    if comb(runs, first) <= _MOST_SPLITS:
        members = np.array(list(combinations(range(runs), first)))
    else:
        members = np.random.default_rng(seed).random((_MOST_SPLITS, runs)).argsort(1)[:, :first]
        members[0] = np.arange(first)
    chosen = np.zeros((len(members), runs))
    np.put_along_axis(chosen, members, 1.0, axis=1)
    return chosen


def adjusted(ps: list[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (J. R. Stat. Soc. B 57, 1995), in the order given.

    Calling those up to `LEVEL` keeps the expected share of false ones among them under `LEVEL`; with no change
    anywhere, that is the chance of any verdict at all.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i], reverse=True)
    found, least = [1.0] * len(ps), 1.0
    for above, i in enumerate(order):
        least = min(least, ps[i] * len(ps) / (len(ps) - above))
        found[i] = least
    return found
