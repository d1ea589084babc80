"""Finds the highest arrival rate that meets a target: which rate comes next, and what a step at one rate shows. Pure.

A *step* is a stretch at one rate. Rates grow by doubling until a step misses the target; then the gap between the highest
that met it and the lowest that missed it is halved, on a logarithmic scale, until it is as narrow as asked. A rate counts as
missed when it has missed the target twice: once may be a disturbance of the machine.

A step is judged by seconds, after a warm-up, because the answers of one second are slow together. The share of answers
slower than the p99 asked for is compared with 1 %, and the share of errors with the one allowed: its standard error comes
from how much the seconds differ, and is at least that of independent answers. A step ends as soon as a share is
`_DECIDED` standard errors from its limit, which few shares at their limit ever are although each second is looked at. A
queue that never drains is told by the users in flight: their number grows steadily, by more than `_GROWTH` of the arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

_SLOW_SHARE = 0.01
_DECIDED = 3.0
_GROWTH = 0.02
_WARM_UP_SHARE = 0.25
_LEAST_WARM_UP_S = 2
_LEAST_JUDGED_S = 3
LEAST_STEP_S = _LEAST_WARM_UP_S + _LEAST_JUDGED_S + 1
"""The shortest step that can be judged, in seconds."""
_FACTOR = 2.0
# Correlation of the users in flight with time, from which on they grow steadily.
_STEADY = 0.8

Why = Literal["", "p99", "errors", "no answers", "the queue grows", "generator"]
Limit = Literal["service", "target", "generator", "time"]


@dataclass(frozen=True, slots=True)
class Target:
    """What must hold: 99 % of the answers within `p99_ms`, and at most this share of the requests without a good answer."""

    p99_ms: float
    error_share: float = 0.01


@dataclass(frozen=True, slots=True)
class SecondSeen:
    """One second of a step: requests, answers, those slower than the target's p99, errors, and users in flight at its end."""

    requests: int
    answers: int
    slow: int
    errors: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a step at one rate (new users per second) showed. `decided`: by more than chance, else by its figures alone."""

    rate: float
    seconds: int
    answers: int
    p99_ms: float | None
    error_share: float
    met: bool
    decided: bool
    why: Why = ""
    """Why the target was missed; "" if it was met."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the seconds so far meet the target; `decided`: by more than chance."""

    met: bool
    decided: bool
    why: Why = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer: the highest rate that meets the target, the interval that it lies in, and what limits it.

    `low` met the target and `high` missed it; `rate` is between them, in the middle of a logarithmic scale. `rate` is None
    if not even the lowest rate met the target, `high` if no rate missed it.
    """

    rate: float | None
    low: float
    high: float | None
    limit: Limit
    steps: tuple[Step, ...]


def judge(seconds: Sequence[SecondSeen], target: Target) -> Judgement:
    """Judge the seconds of a step so far, from its first one."""
    judged = seconds[max(_LEAST_WARM_UP_S, int(_WARM_UP_SHARE * len(seconds))) :]
    if len(judged) < _LEAST_JUDGED_S:
        return Judgement(met=False, decided=False)
    if not any(s.answers for s in judged):
        return Judgement(met=False, decided=True, why="no answers")
    slow = _against([s.slow for s in judged], [s.answers for s in judged], _SLOW_SHARE)
    failed = _against([s.errors for s in judged], [s.requests for s in judged], target.error_share)
    if _grows(judged):
        return Judgement(met=False, decided=len(judged) >= 2 * _LEAST_JUDGED_S, why="the queue grows")
    worst = max(slow, failed)
    why: Why = "" if worst <= 0 else "errors" if failed >= slow else "p99"
    return Judgement(met=worst <= 0, decided=abs(worst) > _DECIDED, why=why)


def _against(hits: Sequence[int], of: Sequence[int], limit: float) -> float:
    """How many standard errors the share of all hits lies above a limit; without any events, it is as far above as can be."""
    total = sum(of)
    if not total:
        return float("inf")
    share = sum(hits) / total
    spread = sum((h - share * n) ** 2 for h, n in zip(hits, of, strict=True)) * len(of) / (len(of) - 1)
    least = max(limit, 1 / total)
    return (share - limit) / max(sqrt(spread) / total, sqrt(least * (1 - min(least, 0.5)) / total))


def _grows(judged: Sequence[SecondSeen]) -> bool:
    """Whether users in flight become steadily more, by more than a share of the arrivals and than chance makes them."""
    in_flight = np.array([s.in_flight for s in judged], float)
    if in_flight.min() == in_flight.max():
        return False
    at = np.arange(len(in_flight))
    slope, first = np.polyfit(at, in_flight, 1)
    added, arrivals = slope * len(at), sum(s.requests for s in judged)
    steady = np.corrcoef(at, in_flight)[0, 1] > _STEADY
    return bool(steady and added > max(_GROWTH * arrivals, 3 * sqrt(max(0.0, first) + 1)))


def next_rate(steps: Sequence[Step], first: float, precision: float) -> float | None:
    """The rate of the next step; None when the answer is as precise as asked, or nothing more can be learnt."""
    if steps and steps[-1].why == "generator":
        return None if _was_late_twice(steps) else steps[-1].rate
    if steps and not steps[-1].met and _misses(steps, steps[-1].rate) == 1:
        return steps[-1].rate
    met, missed = _bracket(steps)
    if missed is None:
        return first if met is None else met * _FACTOR
    if met is None:
        lower = missed / _FACTOR
        return lower if lower >= min(1.0, first) else None
    return None if missed <= met * (1 + precision) else sqrt(met * missed)


def found(steps: Sequence[Step]) -> Capacity:
    """The answer that these steps give."""
    met, missed = _bracket(steps)
    reasons = [step.why for step in steps if step.rate == missed and not step.met]
    limit: Limit = "time"
    if _was_late_twice(steps):
        limit = "generator"
    elif reasons:
        limit = "service" if reasons[-1] == "the queue grows" else "target"
    if met is None:
        return Capacity(None, 0.0, missed, limit, tuple(steps))
    if missed is None:
        return Capacity(met, met, None, limit, tuple(steps))
    return Capacity(sqrt(met * missed), met, missed, limit, tuple(steps))


def _bracket(steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """The highest rate below every missed one that met the target, and the lowest that missed it."""
    judged = [step for step in steps if step.why != "generator"]
    missed = min((step.rate for step in judged if _misses(judged, step.rate) > 1), default=None)
    met = [step.rate for step in judged if step.met and (missed is None or step.rate < missed)]
    return max(met, default=None), missed


def _misses(steps: Sequence[Step], rate: float) -> int:
    """How often this rate missed the target. Once may be a disturbance of the machine: it is run again before it counts."""
    return sum(step.rate == rate and not step.met and step.why != "generator" for step in steps)


def _was_late_twice(steps: Sequence[Step]) -> bool:
    """Whether the generator was late in two steps in a row."""
    return len(steps) > 1 and all(step.why == "generator" for step in steps[-2:])
