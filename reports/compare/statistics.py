"""The arithmetic of verdicts: exact intervals, variation within a run, differences, several runs, several figures. Pure; no I/O.

What is assumed, why each method was chosen and how well it does in simulation stands in docs/statistics.md. Everything
here is deterministic: the rotation test, which needs random directions, draws them from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, hypot, inf, isfinite, lgamma, log, log1p, nan, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Two-sided: intervals are 95 % ones, and at most 5 % of comparisons without a change end in a verdict."""

RUNS_LEVEL = 0.03
"""The level of verdicts by several runs: stricter, since runs scatter with heavier tails than the normal distribution's."""

LEAST_PERIODS = 6
"""With fewer periods than this, the variation between them is not estimated."""

MOST_BATCHES = 20
"""Neighbouring periods are added up until there are at most this many batches, which depend less on each other."""

CORRELATION_MARGIN = 1.0
"""Standard errors by which the correlation of neighbouring batches is taken higher than estimated: few show too little."""

_MOST_CORRELATION = 0.9
_ROTATIONS = 4_999
_MANY_DF = 30.0
_MOST_EXACT = 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; `df`: degrees of freedom that its standard error is known with."""

    value: float
    low: float
    high: float
    df: float = inf

    def widened(self, by: float) -> Interval:
        """The interval with another source of error added, independent of the first, whose standard error is `by`."""
        if not by:
            return self
        low, df_low = _with_exact(self.value - self.low, self.df, by)
        high, df_high = _with_exact(self.high - self.value, self.df, by)
        df = min(df_low, df_high)
        reach = student_critical(df)
        return Interval(self.value, self.value - low * reach, self.value + high * reach, df)


def _with_exact(width: float, df: float, by: float) -> tuple[float, float]:
    """Joint standard error and degrees of freedom (Welch and Satterthwaite) of half an interval and an error known exactly."""
    error = width / student_critical(df)
    joint = hypot(error, by)
    return joint, df * (joint / error) ** 4 if error and isfinite(df) and (error / joint) ** 4 > 1e-9 else inf


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old with its 95 % interval, and how likely a difference this large is by chance alone."""

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
    # The fraction converges fast on the other side only.
    if x > (a + 1) / (a + b + 2):
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
    """By halving; for many degrees of freedom by Cornish and Fisher's expansion around the normal quantile, to 1e-5."""
    if df > _MANY_DF:
        z = 1.959963984540054
        terms = (
            (z**3 + z) / (4 * df),
            (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2),
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3),
        )
        return z + sum(terms)
    return _root(lambda t: student_p(t, df) - LEVEL, 0.0, 1000.0)


def _root(falls: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes zero, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return (low + high) / 2


# Exact intervals of counts


def share_interval(count: float, of: float) -> Interval:
    """Clopper and Pearson's exact interval of a share (Biometrika 26, 1934), 0 <= count <= of, of > 0.

    Counts need not be whole: those of an effective sample size are not.

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


# Variation between periods


@dataclass(frozen=True, slots=True)
class Ratio:
    """Sum of numerators / sum of denominators over periods, with its standard error and that one's degrees of freedom."""

    value: float
    error: float
    df: float
    trending: bool
    """Neighbours resemble each other as far as can be told: the run is too short beside its own swings, or has a trend."""


def ratio_over_periods(
    numerators: Floats,
    denominators: Floats | float = 1.0,
    *,
    margin: float = CORRELATION_MARGIN,
    batches: int = MOST_BATCHES,
) -> Ratio:
    """The ratio of sums over periods, in order of time, with its standard error; a plain mean without denominators.

    A period weighs what its denominator says (requests, or seconds), so that a short first or last one counts for
    little. The error is that of a sum of a first-order autoregression of at most that many `batches` of neighbouring
    periods: slow swings of a server, such as queues that build up, make neighbours alike. The correlation is corrected
    for its bias in short series, and taken `margin` of its own standard errors higher; the degrees of freedom are those of the
    number of independent batches that is left. With fewer than 3 periods the error is NaN.
    """
    wholes = np.broadcast_to(np.asarray(denominators, np.float64), numerators.shape)
    total = float(wholes.sum())
    value = float(numerators.sum()) / total if total else nan
    residuals = _batches(numerators - value * wholes, batches)
    count = len(residuals)
    if count < 3:
        return Ratio(value, nan, 2.0, trending=False)
    squares = float(np.square(residuals).sum())
    seen = float((residuals[1:] * residuals[:-1]).sum()) / squares if squares > 0 else 0.0
    higher = margin * sqrt(max(0.0, 1 - seen * seen) / count)
    correlation = min(max(seen + (1 + 3 * seen) / count + higher, 0.0), _MOST_CORRELATION)
    inflation = (1 + correlation) / (1 - correlation)
    error = sqrt(squares * count / (count - 1) * inflation) / total
    return Ratio(value, error, max(2.0, count / inflation - 1), trending=correlation >= _MOST_CORRELATION)


def _batches(values: Floats, most: int) -> Floats:
    """Sums of neighbouring values, at most `most` of them, of as many values each but for the last."""
    size = ceil(len(values) / most)
    return values if size <= 1 else np.add.reduceat(values, np.arange(0, len(values), size))


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


def rotation_p(old: Floats, new: Floats, least_spread: Floats | float = 0.0, *, seed: int = 0) -> Floats:
    """P of each column, adjusted for all columns together: a rotation test (Langsrud, Stat. Comput. 15, 2005).

    How often the largest |t| of any column is as large as this column's when the runs' scatter is turned into a random
    direction. Where nothing changed and runs scatter normally, every direction is as likely, whatever the spread of the
    columns and however they depend on each other; so this is exact already for two runs against one, where dealing
    the runs to the sides anew has too few ways. Columns with a larger |t| are left out of the others' comparison (Westfall
    and Young's step-down, 1993). `least_spread` holds under every rotation, as in `pooled_t`: a column that is the same
    in all runs is no evidence in any of them. The order of the runs and of the sides does not matter.
    """
    runs = np.concatenate([old, new])
    runs = runs[np.lexsort(runs.T[::-1])]
    runs = runs - runs.mean(0)
    df, a, b = len(runs) - 2, len(old), len(new)
    towards = np.random.default_rng(seed).normal(size=(_ROTATIONS, len(runs)))
    towards -= towards.mean(1, keepdims=True)
    towards /= np.sqrt(np.square(towards).sum(1, keepdims=True))
    least, total = np.square(least_spread), np.square(runs).sum(0)

    def t_squared(along: Floats) -> Floats:
        with np.errstate(all="ignore"):
            within = np.maximum((total - np.square(along)) / df, least)
            t2: Floats = np.nan_to_num(np.square(along) / within, nan=0.0, posinf=np.finfo(np.float64).max)
        return t2

    seen = t_squared((new.mean(0) - old.mean(0)) * sqrt(a * b / (a + b)))
    rising = np.argsort(seen, kind="stable")
    largest = np.maximum.accumulate(t_squared(towards @ runs)[:, rising], axis=1)
    # a tie must count as reached, however it was rounded
    beyond = (1 + (largest >= seen[rising] * (1 - 1e-9)).sum(0)) / (1 + _ROTATIONS)
    found: Floats = np.empty(len(beyond))
    found[rising] = np.maximum.accumulate(beyond[::-1])[::-1]
    return found


def runs_needed(change: float, deviation: float, most: int = 100) -> int | None:
    """Runs a side with which a change is found 8 times in 10, where runs differ by `deviation` (both on one scale).

    At least 2; None where more than `most` are needed.
    """
    for runs in range(2, most + 1):
        df = 2 * runs - 2
        # Student's t that 8 in 10 exceed lies 0.84 below its mean, by and large
        if abs(change) >= deviation * sqrt(2 / runs) * (student_critical(df) + 0.84):
            return runs
    return None


# Several figures


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
