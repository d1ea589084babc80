"""What a FairPool does without being asked: closes what is too old, keeps `min_size` open, reports leaks, and starts
empty in a forked child.
"""

# ruff: noqa: SLF001 - the pool's own helpers

from __future__ import annotations

import inspect
import os
import sys
import time
import weakref
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

from poolbench.fair_queue import NEVER_NS, removed
from poolbench.records import borrowers_line
from poolbench.waiters import Keeper, forget_threads, keeper_here, start_here

if TYPE_CHECKING:
    from poolbench.fair_pool import FairPool
    from poolbench.records import Record


class Housekeeping:
    """The rounds of one pool, once per `interval_s`, by the event loop or by a thread (see `waiters.keeper_here`).

    Begins with the first connection that is opened, ends with the pool, and with `stop`; keeps no pool alive.
    """

    def __init__(
        self,
        pool: FairPool,
        *,
        interval_s: float,
        min_size: int,
        idle_timeout_s: float | None,
        leak_threshold_s: float | None,
        has_lifetimes: bool,
    ) -> None:
        self._pool = weakref.ref(pool)
        self._interval_s = interval_s
        self._min_size = min_size
        self._idle_ns = NEVER_NS if idle_timeout_s is None else round(idle_timeout_s * 1e9)
        self._leak_ns = NEVER_NS if leak_threshold_s is None else round(leak_threshold_s * 1e9)
        self._has_work = bool(min_size or has_lifetimes) or self._idle_ns < NEVER_NS or self._leak_ns < NEVER_NS
        self._keeper: Keeper | None = None
        self._start_over()

    def _start_over(self) -> None:
        # Whoever takes it may start a keeper: of several threads that open connections at once, only one does.
        self._permission: list[None] = [None]
        self._busy = False

    def start(self, generation: int) -> None:
        """Begin, unless there is nothing to do or it has begun already; called for each connection that is opened.

        `generation`: the pool's when that began. dispose() ends the rounds of all generations before it, even those which
        another thread begins while it runs. Where the process may start no thread now, the next connection is the occasion.
        """
        if not self._has_work or (self._keeper is not None and self._keeper.is_running()):
            return
        pool = self._pool()
        if pool is None or generation != pool._generation:
            return
        try:
            self._permission.pop()
        except IndexError:
            return
        try:
            if self._keeper is None or not self._keeper.is_running():
                self._keeper = keeper_here(self._interval_s, partial(self._round, generation))
        except RuntimeError as error:
            self._cannot_start("start its housekeeping, and tries again with the next connection that it opens", error)
        finally:
            self._permission.append(None)

    def warm_up(self) -> None:
        """Open `min_size` connections in the background, all at once, when the engine to which the pool belongs is whole."""
        if self._min_size:
            try:
                start_here(self._warm_up)
            except RuntimeError as error:
                self._cannot_start(
                    "open its first connections in the background; they are opened when asked for", error
                )

    def _cannot_start(self, what: str, error: RuntimeError) -> None:
        """No thread is to be had, at a limit of the system or at the interpreter's end: no reason to refuse a connection."""
        pool = self._pool()
        if pool is not None:
            pool.logger.warning("FairPool could not %s: %s", what, error)

    def _warm_up(self) -> None:
        while _is_making_an_engine():
            time.sleep(0.005)
        pool = self._pool()
        if pool is not None:
            self._fill_up(pool, pool._generation)

    def stop(self) -> None:
        """Stop the rounds; the next `start` begins them again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()

    def forget_the_parent(self) -> None:
        """In a forked child: no thread of the parent's is here, and what one was doing at the fork is not being done."""
        if self._keeper is not None and self._keeper.is_running():
            self.stop()
        self._keeper = None
        self._start_over()

    def _round(self, generation: int) -> bool:
        """Do one round. False: the pool is gone, was disposed of since that generation, or keeps no connections any more."""
        pool = self._pool()
        if pool is None or not pool._keep or generation != pool._generation or self._keeper is None:
            return False
        if not self._busy:
            self._busy = True
            try:
                self._close_old(pool)
                self._fill_up(pool, generation)
                self._report_leaks(pool)
            # The thread or the event loop may look after other pools, too, and must go on.
            except Exception:
                pool.logger.exception("FairPool's housekeeping failed; it goes on in %g s", self._interval_s)
            finally:
                self._busy = False
        return True

    def _close_old(self, pool: FairPool) -> None:
        queue = pool._queue
        for record in list(queue.idle):
            now_ns = time.monotonic_ns()
            too_old = now_ns >= record.expires_ns
            too_idle = now_ns - record.since_ns >= self._idle_ns and self._open_count(pool) > self._min_size
            if (too_old or too_idle) and removed(queue.idle, record):
                self._close(pool, record, "lifetime" if too_old else "idle")
        for record in list(queue.vacant):
            if record.dbapi_connection is not None and removed(queue.vacant, record):
                self._close(pool, record, "stale")

    @staticmethod
    def _close(pool: FairPool, record: Record, why: str) -> None:
        try:
            pool._discard(record, why)
        # The connection is gone all the same, and the others are still to be looked at.
        except Exception:
            pool.logger.warning("FairPool could not close a connection properly", exc_info=True)

    @staticmethod
    def _open_count(pool: FairPool) -> int:
        return len(pool._queue.taken) - len(pool._queue.vacant)

    def _fill_up(self, pool: FairPool, generation: int) -> None:
        """Have connections opened up to `min_size`, in parallel; after a failure one, when the back-off allows it."""
        openers = pool._openers
        missing = self._min_size - self._open_count(pool)
        if missing > 0 and generation == pool._generation:
            # Those that are being opened count as open.
            openers.fill(missing + len(openers.attempts), generation)

    def _report_leaks(self, pool: FairPool) -> None:
        if self._leak_ns == NEVER_NS:
            return
        for record in list(pool._queue.taken):
            stack, held_ns = record.stack, time.monotonic_ns() - record.since_ns
            if record.lent and stack is not None and held_ns > self._leak_ns and not record.is_reported:
                record.is_reported = True
                line, calls = borrowers_line(stack), "".join(stack.format())
                pool.logger.warning(
                    "A connection has been lent for %.1f s, borrowed at %s\n%s", held_ns / 1e9, line, calls
                )


_CREATE_ENGINE = inspect.unwrap(create_engine).__code__

POOLS: weakref.WeakSet[FairPool] = weakref.WeakSet()
"""All FairPools of the process: a forked child empties them."""

THE_PARENTS: list[Any] = []
"""Connections that a forked child must keep from being collected, and thereby closed."""


def _is_making_an_engine() -> bool:
    """Whether create_engine is at work in some thread: what it has not listened to yet would not be done on new connections."""
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code is _CREATE_ENGINE:
                return True
            frame = frame.f_back
    return False


def _start_empty_in_the_child() -> None:
    forget_threads()
    for pool in list(POOLS):
        THE_PARENTS.extend(record.forget() for record in list(pool._queue.taken))
        for alarm in list(pool._alarms.values()):
            alarm.stop()
        pool._housekeeping.forget_the_parent()
        pool._start_empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_empty_in_the_child)
