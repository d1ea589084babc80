"""Finds the highest arrival rate that meets a target: which rate comes next, and what a step at one rate shows. Pure.

A *step* is a stretch at one rate. Rates grow by doubling until a step misses the target; then the gap between the highest
that met it and the lowest that missed it is halved, on a logarithmic scale, until it is as narrow as asked. A rate counts as
missed when it has missed the target twice: once may be a disturbance of the machine.

A step is judged by seconds, after a warm-up, because the answers of one second are slow together. The share of answers
slower than the p99 asked for is compared with 1 %, and the share of errors with the one allowed: its standard error comes
from how much the seconds differ, and is at least that of independent answers. A step ends as soon as a share is
`_DECIDED` standard errors from its limit, which few shares at their limit ever are although each second is looked at. A
queue that never drains is told by the users in flight: their number grows steadily, by more than `_GROWTH` of the arrivals.

What slows a service every now and then, such as a checkpoint each ten seconds, shows only in a step that is longer than that.
So a step that misses the target by a few slow seconds goes on to `LONGEST_STEP_S`, and a rate between one that met the target
and one that missed it meets it only if it does so for that long, and the answer was held for `_LONG_STEP_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

import numpy as np

_SLOW_SHARE = 0.01
_DECIDED = 3.0
_GROWTH = 0.02
_WARM_UP_SHARE = 0.25
_LEAST_WARM_UP_S = 2
_LEAST_JUDGED_S = 3
_LONGEST_SETTLING_S = 12
LEAST_STEP_S = _LEAST_WARM_UP_S + _LEAST_JUDGED_S + 1
"""The shortest step that can be judged, in seconds."""
LONGEST_STEP_S = 20
"""The longest step, in seconds."""
_LONG_STEP_S = 15
"""The rate of the answer has met the target for these seconds at least."""
_FACTOR = 2.0
_ALIKE = 1.1
"""Ratio of two rates, within which what limits the higher limits the lower, too."""
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
    """One second of a step: requests, answers, those slower than the target's p99, errors, and users in flight at its end: all
    who do not think.
    """

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
    thinking_s: float = 0.0
    """Users who were thinking at its end, divided by the rate: for how long each user thinks, or has so far."""

    @property
    def is_partial(self) -> bool:
        """Whether users think for so long that the step saw only a part of what they ask for."""
        return self.thinking_s > _WARM_UP_SHARE * LONGEST_STEP_S


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
    if not even the lowest rate met the target, `high` if no rate missed it. `finished`: the time was enough for an answer
    as precise as asked.
    """

    rate: float | None
    low: float
    high: float | None
    limit: Limit
    steps: tuple[Step, ...]
    finished: bool = True


def is_over(seconds: Sequence[SecondSeen], target: Target, rate: float, steps: Sequence[Step]) -> bool:
    """Whether a step at `rate` has shown enough after these seconds; `steps` are those before it."""
    judgement = judge(seconds, target)
    # What was missed before any rate met the target may have been a slow start.
    first_met = next((number for number, step in enumerate(steps) if step.met), 0)
    later = steps[first_met:]
    is_climbing = all(step.rate >= rate * _FACTOR**2 if not step.met else step.rate < rate for step in later)
    if judgement.met and is_climbing:
        return judgement.decided or len(seconds) >= LEAST_STEP_S
    return len(seconds) >= LONGEST_STEP_S or (judgement.decided and not judgement.met)


def judge(seconds: Sequence[SecondSeen], target: Target) -> Judgement:
    """Judge the seconds of a step so far, from its first one."""
    warm_up_s = max(_LEAST_WARM_UP_S, int(_WARM_UP_SHARE * len(seconds)))
    judged = seconds[warm_up_s:]
    if len(judged) < _LEAST_JUDGED_S:
        return Judgement(met=False, decided=False)
    arrived, answered = sum(s.requests for s in judged), sum(s.answers for s in judged)
    settled, least_s = judged, _LEAST_JUDGED_S
    if target.p99_ms > 1000 and judged[-1].in_flight * len(judged) > arrived:
        # Users stay for more than a second, and those in flight become more until the first can have been answered in time.
        settled = seconds[max(warm_up_s, min(ceil(target.p99_ms / 1000) + 1, _LONGEST_SETTLING_S)) :]
        least_s = 2 * _LEAST_JUDGED_S
    is_settled = len(settled) >= least_s
    if not answered:
        # At less than one user each second, perhaps nobody was there to be answered.
        could_be = any(s.requests for s in judged[:-1])
        return Judgement(met=False, decided=is_settled and could_be, why="no answers" if could_be else "")
    if _grows(settled if is_settled else judged):
        decided = is_settled and (len(settled) >= 2 * _LEAST_JUDGED_S or answered < arrived / _FACTOR)
        return Judgement(met=False, decided=decided, why="the queue grows")
    slow = _against([s.slow for s in judged], [s.answers for s in judged], _SLOW_SHARE)
    failed = _against([s.errors for s in judged], [s.requests for s in judged], target.error_share)
    worst = max(slow, failed)
    why: Why = "" if worst <= 0 else "errors" if failed >= slow else "p99"
    if worst <= 0 and not is_settled:
        return Judgement(met=False, decided=False)
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
    if not steps:
        return first
    last = steps[-1]
    if last.why == "generator":
        return None if _was_late_twice(steps) else last.rate
    if not any(step.met for step in steps):
        return _lower(steps, first)
    if not last.met and _misses(steps, last.rate) == 1:
        return last.rate
    met, missed = _bracket(steps)
    if met is None:
        return _lower(steps, first)
    if missed is None:
        return met * _FACTOR
    is_narrow = missed <= met * (1 + precision)
    if not _held_long(steps, met) and (is_narrow or _missed_by_few(steps, missed)):
        # A rate that met the target at first has missed it in longer steps: so may all others.
        fallen = any(step.met for step in steps if step.rate == missed)
        lowest = min(step.rate for step in steps if step.met)
        return lowest if fallen and not _held_long(steps, lowest) else met
    return None if is_narrow else min(met * _FACTOR, sqrt(met * missed))


def _missed_by_few(steps: Sequence[Step], rate: float) -> bool:
    """Whether a few slow seconds are what a rate has missed by."""
    return not any(step.decided for step in steps if step.rate == rate and not step.met)


def _held_long(steps: Sequence[Step], rate: float) -> bool:
    return any(step.met and step.rate == rate and step.seconds >= _LONG_STEP_S for step in steps)


def _lower(steps: Sequence[Step], first: float) -> float | None:
    """A rate below all that missed the target; None if there is none left to try."""
    lowest = min((step for step in steps if not step.met), key=lambda step: step.rate)
    floor = min(1.0, first)
    # A service that is overwhelmed shows by its answers what it is able to do.
    able = lowest.answers / lowest.seconds if lowest.answers else lowest.rate
    if _misses(steps, lowest.rate) == 1 and (able > lowest.rate / _FACTOR or lowest.rate <= floor):
        return lowest.rate
    if lowest.rate <= floor or (lowest.rate < first and not any(step.answers for step in steps)):
        return None
    return max(min(lowest.rate, able) / _FACTOR, floor)


def missed_near(steps: Sequence[Step], rate: float | None) -> list[Step]:
    """The steps at this rate, or just above it, that are known to have missed the target; none without a rate."""
    return [
        step
        for step in steps
        if rate is not None and rate <= step.rate <= _ALIKE * rate and step.why not in ("", "generator")
    ]


def found(steps: Sequence[Step], *, finished: bool = True) -> Capacity:
    """The answer that these steps give; `finished`: the search was not ended by the time."""
    met, missed = _bracket(steps)
    reasons = {step.why for step in missed_near(steps, missed)}
    limit: Limit = "time"
    if _was_late_twice(steps):
        limit = "generator"
    elif reasons and (finished or met is not None):
        limit = "service" if reasons & {"the queue grows", "no answers"} else "target"
    if met is None:
        return Capacity(None, 0.0, missed, limit, tuple(steps), finished)
    if missed is None:
        return Capacity(met, met, None, limit, tuple(steps), finished)
    return Capacity(sqrt(met * missed), met, missed, limit, tuple(steps), finished)


def _bracket(steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """The highest rate below every missed one that met the target, and the lowest that missed it."""
    judged = [step for step in steps if step.why != "generator"]
    missed = min((step.rate for step in judged if _misses(judged, step.rate) > 1), default=None)
    met = [
        step.rate
        for step in judged
        if step.met and (missed is None or step.rate < missed) and not _was_refuted(step, judged)
    ]
    return max(met, default=None), missed


def _was_refuted(step: Step, steps: Sequence[Step]) -> bool:
    """Whether a step met the target because the time cut it short, where one of more than twice its length had missed it."""
    return any(each.rate == step.rate and not each.met and each.seconds > 2 * step.seconds for each in steps)


def _misses(steps: Sequence[Step], rate: float) -> int:
    """How often this rate missed the target.

    What it missed before any rate met the target counts once at most, as soon as one has met it: a service may be slow at its
    start.
    """
    at = [number for number, s in enumerate(steps) if s.rate == rate and not s.met and s.why != "generator"]
    first_met = next((number for number, step in enumerate(steps) if step.met), 0)
    return min(1, sum(number < first_met for number in at)) + sum(number > first_met or not first_met for number in at)


def _was_late_twice(steps: Sequence[Step]) -> bool:
    """Whether the generator was late in two steps in a row."""
    return len(steps) > 1 and all(step.why == "generator" for step in steps[-2:])
