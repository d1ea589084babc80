"""Finds borrowers who waited for a connection while others, who had asked later, were served first. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from poolbench.observed import Ask

MANY_TIMES = 3
_LEAST_WAIT_NS = 5_000_000
_MOST_LOOKED_AT = 2000


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
    waited = [(i, each) for i, each in enumerate(ordered) if each.wait_ns >= _LEAST_WAIT_NS]
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
