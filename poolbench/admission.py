"""Who may wait in a FairPool's queue: the bounds of its length and of the wait, deadlocks, and how a wait ends in vain."""

# ruff: noqa: SLF001 - the pool's own helper

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy import exc

from poolbench.errors import PoolDeadlock, QueueFull
from poolbench.fair_queue import removed

if TYPE_CHECKING:
    from poolbench.fair_pool import FairPool
    from poolbench.fair_queue import Waiter

LOOK_EVERY_NS = 1_000_000
"""How long the expected duration of a loan is kept before the loans are looked at again, in ns."""


def admit(pool: FairPool, waiter: Waiter) -> None:
    """Let the waiter, which has joined the queue, sleep; or take it off, and raise at once the reason why it may not.

    Raises QueueFull, PoolDeadlock, or TimeoutError for a timeout of 0.
    """
    rare, waiters, max_waiting, max_wait_s = pool._statistics.rare, pool._waiters, pool._max_waiting, pool._max_wait
    if max_waiting is not None or max_wait_s is not None:
        # Those for whom connections are or could be opened do not wait for others.
        waiting = len(waiters) - len(pool._openers.attempts) - pool._queue.room()
        if max_waiting is not None and waiting > max_waiting and removed(waiters, waiter):
            rare["rejected"] += 1
            raise QueueFull(f"FairPool: {max_waiting} wait already, and no more are allowed. {pool.status()}")
        expected_s = 0.0
        if max_wait_s is not None and waiting > 0 and _may_last(pool, len(waiters), max_wait_s * 1e9, waiter.since_ns):
            expected_s = expected_wait_ns(pool, len(waiters)) / 1e9
        if max_wait_s is not None and expected_s > max_wait_s and removed(waiters, waiter):
            rare["rejected"] += 1
            raise QueueFull(
                f"FairPool: the wait would take {expected_s:.2g} s, but at most {max_wait_s:g} s is allowed."
                f" {pool.status()}"
            )
    if pool._timeout_ns is not None and pool._timeout_ns <= 0 and removed(waiters, waiter):
        raise _timed_out(pool)
    if pool._detect_deadlock and _is_deadlocked(pool) and removed(waiters, waiter):
        rare["deadlocks"] += 1
        raise PoolDeadlock(
            f"FairPool: every connection is held by a greenlet or thread that waits here. {pool.status()}"
        )


def _may_last(pool: FairPool, place: int, bound_ns: float, now_ns: int) -> bool:
    """Whether `expected_wait_ns` may be more than `bound_ns` at this place in the queue.

    Judged without a look at the loans: none is older now than the oldest of the latest look would be by now, and none that
    has ended since then lasted longer. So while the queue is short there are few looks.
    """
    limit, statistics = pool._queue.limit, pool._statistics
    oldest_ns = statistics.oldest_ns + now_ns - statistics.looked_at_ns
    longest_ns = max(statistics.expected_hold_ns, oldest_ns) + statistics.gap_ns
    return limit is not None and place * longest_ns > bound_ns * limit


def expected_wait_ns(pool: FairPool, place: int) -> int:
    """The probable wait, in ns, of the waiter at this place in the queue (1: the head).

    From one return of a connection to the next pass a loan and the gap before it. If half of the loans of this moment
    last longer than those that have ended, they count: else the estimate would be too low until they end. These loans
    are looked at once a millisecond, since a look costs about as much as the rest of a wait.
    """
    limit, statistics = pool._queue.limit, pool._statistics
    if limit is None:
        return 0
    now_ns = time.monotonic_ns()
    if not 0 <= now_ns - statistics.looked_at_ns < LOOK_EVERY_NS:
        ages_ns = sorted(now_ns - record.since_ns for record in list(pool._queue.taken) if record.lent)
        median_ns = ages_ns[len(ages_ns) // 2] if ages_ns else 0
        statistics.expected_hold_ns = max(statistics.recent_hold_ns(len(ages_ns)), median_ns)
        statistics.oldest_ns = ages_ns[-1] if ages_ns else 0
        # Last: another thread may take what is known from then on.
        statistics.looked_at_ns = now_ns
    return round(place * (statistics.expected_hold_ns + statistics.gap_ns) / limit)


def fail(pool: FairPool, waiter: Waiter) -> NoReturn:
    """Raise why the waiter was taken off the queue without a connection: its own failure, or else the pool's timeout, with the
    latest failure to open a connection as its cause.
    """
    failure, waiter.failure = waiter.failure, None
    if failure is None:
        raise _timed_out(pool) from pool._openers.growth.last_failure
    try:
        raise failure
    finally:
        # A reference to its traceback, and so to this frame.
        del failure


def _timed_out(pool: FairPool) -> exc.TimeoutError:
    """Count a wait that has lasted for the pool's timeout; returns the error to be raised."""
    pool._statistics.rare["timeouts"] += 1
    return exc.TimeoutError(
        f"FairPool limit of size {pool._size} overflow {pool.overflow()} reached, connection timed out, "
        f"timeout {pool.timeout():0.2f}",
        code="3o7r",
    )


def _is_deadlocked(pool: FairPool) -> bool:
    waiting = {waiter.owner for waiter in list(pool._waiters)}
    taken = list(pool._queue.taken)
    holders = [record.holder for record in taken if record.lent]
    return not pool._queue.is_room() and len(holders) == len(taken) and waiting.issuperset(holders)
