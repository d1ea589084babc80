"""What to change first, found by simulating each change: workers, connections, the statement, or a smaller pool. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Literal

import numpy as np

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
from loadgen.sizing.simulate import SERVED, Arrangement, quantile, simulate
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
_CHANGES: tuple[Remedy, ...] = ("more connections", "more workers", "cheaper statement")
_CHANGED = {
    "more connections": "twice the connections",
    "more workers": "twice the workers, with as many connections in all",
    "cheaper statement": "statements that take half of the time",
}


def remedy(question: Question, found: Sequence[Prediction]) -> tuple[Remedy, str]:
    """What to change first at this rate, and why, in a sentence.

    Where the largest size does not do, each change is simulated: twice the connections, twice the workers with as many
    connections in all, and a statement that takes half of the time. The one after which most requests are answered in time
    is named, or that of the scarcest part if it does as well.
    """
    largest = max(found, key=lambda each: each.size)
    kept_up = largest.lost <= LOST_ALIKE and largest.throughput_per_s >= (1 - WORSE / 2) * question.rate_per_s
    arrangement = question.of_size(largest.size)
    limits = limits_per_s(question, arrangement)
    scarcest = min(limits, key=limits.__getitem__)
    share = question.rate_per_s / limits[scarcest]
    best = recommended(found, question.p99_ms)
    is_short = share >= _BUSY and (scarcest != "connections" or not kept_up)
    if best is None or best.lost > LOST_ALIKE or is_short:
        return _most_helpful(question, largest.size, scarcest, share)
    smallest = min(found, key=lambda each: each.size)
    if best.size > smallest.size:
        return "more connections", f"fewer than {best.size} for each server are too few"
    if largest.size > best.size:
        return "smaller pool", f"{best.size} connections for each server do as well as {largest.size}"
    return "nothing", f"{best.size} connections for each server are enough"


def _most_helpful(question: Question, size: int, scarcest: Part, share: float) -> tuple[Remedy, str]:
    """The change that helps most, and why; `scarcest` would be busy for this share of the time."""
    tried = replace(question, requests=min(question.requests, TRIED))
    made = requests(tried)
    now = _in_time(tried, size, made, None)
    after = {change: _in_time(tried, size, made, change) for change in _CHANGES}
    most = max(after.values())
    of_scarcest = _OF_PART[scarcest]
    if most < now + _SAME / 2 or (share >= _BUSY and after[of_scarcest] >= most - _SAME):
        return of_scarcest, _why(scarcest, share, question.of_size(size))
    change = next(each for each in _CHANGES if after[each] >= most - _SAME / 2)
    return (
        change,
        f"with {_CHANGED[change]}, {after[change]:.1%} of the requests would be answered in time, now {now:.1%}",
    )


def _in_time(question: Question, size: int, made: Requests, change: Remedy | None) -> float:
    """Share of the requests that are answered in time after a change."""
    arrangement, holds_s = question.of_size(size), made.holds_s
    computing_s = made.cpu.inside_s + made.cpu.outside_s if made.cpu else np.zeros(len(holds_s))
    own_s = 0.0 if made.cpu else question.workload.own_s
    unhurried_s = quantile(holds_s + computing_s, 0.99) + own_s
    longest_s = _UNHURRIED * unhurried_s if question.p99_ms is None else question.p99_ms / 1000
    if change == "more connections":
        arrangement = question.of_size(max(1, 2 * size))
    elif change == "more workers":
        arrangement = replace(question.of_size((size + 1) // 2), servers=2 * arrangement.servers)
    elif change == "cheaper statement":
        holds_s = holds_s / 2
    outcome = simulate(arrangement, made.arrived_s, holds_s, made.connects_s, question.seed, made.cpu)
    counted = outcome.arrived_s >= settled_s(float(made.arrived_s[-1]), arrangement.timeout_s)
    done_s = outcome.ended_s if outcome.done_s is None else outcome.done_s
    in_time = (outcome.fates == SERVED) & (done_s - outcome.arrived_s + own_s <= longest_s)
    return float(np.mean(in_time[counted]))


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
