"""What to change first, found by simulating each change: workers, connections, the statement, or a smaller pool. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf
from typing import Literal

import numpy as np

from loadgen.sizing.course import SERVED, Arrangement
from loadgen.sizing.predict import (
    LOST_ALIKE,
    TRIED,
    WORSE,
    Part,
    Prediction,
    Question,
    Requests,
    limits_per_s,
    recommended,
    requests,
    settled_s,
)
from loadgen.sizing.simulate import quantile, simulate
from reports.blocks import decimal

Remedy = Literal["more workers", "cheaper statement", "more connections", "smaller pool", "nothing"]

_BUSY = 0.8
_SAME = 0.02
"""Shares of requests that are answered in time count as the same if they differ by less."""
_UNHURRIED = 2
"""Without a target, in time means: within so many times the p99 of requests that do not wait."""
_OF_PART: dict[Part, Remedy] = {
    "connections": "more connections",
    "CPU": "more workers",
    "places": "more workers",
    "cores": "cheaper statement",
}
_ROOM = 1.3
"""How much more of a part than is needed is tried."""
_MOST_TIMES = 16
_CHANGES: tuple[Remedy, ...] = ("more connections", "more workers", "cheaper statement")
_CHANGED = {
    "more connections": "{times} the connections",
    "more workers": "{times} the workers and as many connections in all",
    "cheaper statement": "statements that take half of the time",
}


def remedy(question: Question, found: Sequence[Prediction]) -> tuple[Remedy, str]:
    """What to change first at this rate, and why, in a sentence.

    Where the largest size does not do, each change is simulated: twice the connections, twice the workers with as many
    connections in all, or more of either where the scarcest part needs more, and a statement that takes half of the time. The
    one after which most requests are answered in time is named, or that of the scarcest part if it does as well.
    """
    largest = max(found, key=lambda each: each.size)
    kept_up = largest.lost <= LOST_ALIKE and largest.throughput_per_s >= (1 - WORSE / 2) * question.rate_per_s
    arrangement = question.of_size(largest.size)
    limits = limits_per_s(question, arrangement)
    scarcest = min(limits, key=limits.__getitem__)
    share = question.rate_per_s / limits[scarcest]
    best = recommended(found, question.p99_ms)
    # A target that is kept is enough, however busy a part is; but a queue that grows as long as the load lasts keeps none.
    is_busy = share >= _BUSY and (scarcest != "connections" or not kept_up) and question.p99_ms is None
    is_short = share >= 1 or is_busy
    if best is None or best.lost > LOST_ALIKE or is_short:
        return _most_helpful(question, largest.size, scarcest, share)
    smallest = min(found, key=lambda each: each.size)
    if best.size == largest.size > smallest.size and question.p99_ms is not None:
        return "nothing", f"a pool of {best.size} for each server is enough, and fewer are too few"
    if largest.size > best.size and question.p99_ms is not None:
        return "smaller pool", f"a pool of {best.size} for each server keeps the target"
    if best.size > smallest.size:
        return "more connections", f"fewer than {best.size} for each server are too few"
    if largest.size > best.size:
        return "smaller pool", f"a pool of {best.size} for each server does as well as {largest.size}"
    return "nothing", f"a pool of {best.size} for each server is enough"


def _most_helpful(question: Question, size: int, scarcest: Part, share: float) -> tuple[Remedy, str]:
    """The change that helps most, and why; `scarcest` would be busy for this share of the time."""
    tried = replace(question, requests=min(question.requests, TRIED))
    made = requests(tried)
    longest_s, factor = _longest_s(tried, made), max(2, min(_MOST_TIMES, ceil(_ROOM * share)))
    now = _in_time(tried, size, made, longest_s)
    after = {
        change: _in_time(tried, size, made, longest_s, change, factor)
        for change in _CHANGES
        if _is_allowed(question, _changed(tried, size, change, factor))
    }
    most = max(after.values())
    of_scarcest = _OF_PART[scarcest]
    if most < now + _SAME / 2 or (share >= _BUSY and after.get(of_scarcest, 0.0) >= most - _SAME):
        why = _why(scarcest, share, question.of_size(size))
        return of_scarcest, why if of_scarcest in after else f"{why}, and --max-connections allows no more"
    change = next(each for each in after if after[each] >= most - _SAME / 2)
    changed = _CHANGED[change].format(times="twice" if factor == 2 else f"{factor} times")
    return change, (
        f"with {changed}, {after[change]:.1%} of the requests would be answered within {decimal(longest_s * 1000, 3)} ms,"
        f" now {now:.1%}"
    )


def _longest_s(question: Question, made: Requests) -> float:
    """The time, in s, within which a request is answered in time."""
    if question.p99_ms is not None:
        return question.p99_ms / 1000
    if made.cpu is None:
        return _UNHURRIED * (quantile(made.holds_s, 0.99) + question.workload.own_s)
    return _UNHURRIED * quantile(made.holds_s + made.cpu.inside_s + made.cpu.outside_s, 0.99)


def _in_time(
    question: Question, size: int, made: Requests, longest_s: float, change: Remedy | None = None, factor: int = 1
) -> float:
    """Share of the requests that are answered in time after a change, with so many times the connections or the workers."""
    arrangement = _changed(question, size, change, factor)
    holds_s = made.holds_s / 2 if change == "cheaper statement" else made.holds_s
    outcome = simulate(arrangement, made.arrived_s, holds_s, made.connects_s, question.seed, made.cpu)
    counted = outcome.arrived_s >= settled_s(float(made.arrived_s[-1]), arrangement.timeout_s)
    done_s = outcome.ended_s + question.workload.own_s if outcome.done_s is None else outcome.done_s
    in_time = (outcome.fates == SERVED) & (done_s - outcome.arrived_s <= longest_s)
    return float(np.mean(in_time[counted]))


def _changed(question: Question, size: int, change: Remedy | None, factor: int) -> Arrangement:
    """The arrangement after a change."""
    arrangement = question.of_size(size)
    if change == "more connections":
        return question.of_size(max(1, factor * size))
    if change == "more workers":
        return replace(question.of_size(ceil(size / factor)), servers=factor * arrangement.servers)
    return arrangement


def _is_allowed(question: Question, changed: Arrangement) -> bool:
    return question.max_connections is None or changed.servers * changed.limit <= question.max_connections


def _why(part: Part, share: float, arrangement: Arrangement) -> str:
    """Why the remedy of a part that is busy for this share of the time, or would be."""
    if part == "connections":
        limit = "no limit of" if arrangement.limit == inf else f"{int(arrangement.limit)}"
        return f"{limit} connections for each server would be in use {share:.0%} of the time"
    if part == "places":
        places = (arrangement.slots or 1) * arrangement.servers
        return f"their {places} places for requests are taken {share:.0%} of the time"
    if part == "cores":
        return f"the database's cores are busy for {share:.0%} of the time"
    if arrangement.cores < arrangement.servers:
        return (
            f"their {decimal(arrangement.cores)} cores are busy for {share:.0%} of the time: more workers need more cores, and"
            " no pool size changes that"
        )
    return f"each worker's CPU is busy for {share:.0%} of the time: no pool size changes that"
