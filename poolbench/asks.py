"""How a pool's connections were asked for: more than they can do, and who was overtaken by others. Pure.

`processes` are the requests for a connection of each process, in any order; `limit` is how many connections each may have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from poolbench.observed import Ask

MANY_TIMES = 3
LEAST_WAIT_NS = 5_000_000
"""A shorter wait may be due to something else than the pool's other borrowers."""
_MOST_LOOKED_AT = 2000
_LEAST_ASKS = 10


class Overtaken(NamedTuple):
    """A borrower who waited for a connection while others, who had asked later, were served first."""

    wait_ns: int
    """The whole wait."""
    by: int
    """The number of borrowers who were served first."""
    excess_ns: float
    """The part of the wait that these caused."""


def overtaken(asks: Sequence[Ask], limit: int) -> list[Overtaken]:
    """The borrowers in `asks` who were overtaken by at least `MANY_TIMES` later ones for each of the pool's `limit` connections.

    Each of the later ones held a connection that could have been lent to the borrower. The excess is the sum of their holds,
    divided by `limit`, and at most the whole wait.
    """
    ordered = sorted(asks, key=lambda each: each.asked_ns)
    instants = [each.asked_ns for each in ordered]
    waited = [(i, each) for i, each in enumerate(ordered) if each.wait_ns >= LEAST_WAIT_NS]
    step = -(-len(waited) // _MOST_LOOKED_AT) or 1
    found = []
    for i, ask in waited[::step]:
        served_ns = ask.asked_ns + ask.wait_ns
        by, held_ns = 0, 0
        for later in ordered[i + 1 : bisect_left(instants, served_ns)]:
            # A millisecond: two that ask at one instant are in no order.
            if later.is_served and later.asked_ns + later.wait_ns + 1_000_000 < served_ns:
                by, held_ns = by + 1, held_ns + later.held_ns
        if by >= MANY_TIMES * limit:
            found += [Overtaken(ask.wait_ns, by, min(ask.wait_ns, held_ns / limit))] * step
    return found


def demanded(processes: Sequence[Sequence[Ask]], limit: int) -> float:
    """Connections asked for, divided by those there are, in the busiest process: requests per second by their mean hold."""
    found = [0.0]
    for asks in processes:
        first_ns, last_ns = (pick(ask.asked_ns for ask in _known(asks)) for pick in (min, max))
        asked = [ask for ask in asks if ask.asked_ns <= last_ns]
        served = [ask.held_ns for ask in asked if ask.is_served]
        if len(asked) >= _LEAST_ASKS and served:
            found.append(len(asked) * sum(served) / len(served) / max(1, limit * (last_ns - first_ns)))
    return max(found)


def _known(asks: Sequence[Ask]) -> Sequence[Ask]:
    """The requests that tell how long they are known one by one: the last of the loans that have ended ends that time."""
    return [ask for ask in asks if ask.has_ended] or asks


def used(processes: Sequence[Sequence[Ask]], limit: int) -> float:
    """The mean share of its connections that the busiest process had in use, 0 to 1."""
    found = [0.0]
    for asks in processes:
        first_ns = min(ask.asked_ns for ask in asks)
        last_ns = max(ask.asked_ns + ask.wait_ns + ask.held_ns for ask in _known(asks))
        held_ns = sum(max(0, min(ask.held_ns, last_ns - ask.asked_ns - ask.wait_ns)) for ask in asks)
        found.append(held_ns / max(1, limit * (last_ns - first_ns)))
    return min(1.0, max(found))
