"""Opening connections for those who wait in a FairPool's queue, and ahead of them for `min_size`.

An attempt belongs to the queue, not to the waiter for whom it was begun: what it opens goes to the head of the queue, or
into the pool if everybody has been served meanwhile; its failure goes to the head of the queue, if nothing else can serve it.
How many attempts run at a time is decided in growth.py.

As in fair_queue.py there is no lock: each change of the books is one operation on a built-in list, which CPython's global
interpreter lock makes atomic. Whoever ends an attempt, or decides against one, looks at the queue again afterwards, so that
no order of events leaves a waiter beside a free slot with nobody at work.
"""

# ruff: noqa: SLF001 - the pool's own helper

from __future__ import annotations

import time
import weakref
from functools import partial
from typing import TYPE_CHECKING

from poolbench.fair_queue import removed
from poolbench.growth import Growth, another
from poolbench.housekeeping import THE_PARENTS
from poolbench.waiters import start_here

if TYPE_CHECKING:
    from poolbench.fair_pool import FairPool
    from poolbench.records import Record

KNOWN_TO_BE_AWAY_NS = 1_000_000_000
"""If every attempt has failed for so long, and nothing was returned, waiting for a lent connection is in vain, too."""

OVERDUE_NS = 100_000_000
"""An appointment not kept for so long will not be: its event loop has stopped."""

_clock_ns = time.monotonic_ns


class Attempt:
    """One connection being opened. began_ns: since when (monotonic). is_spare: for `min_size`, whoever waits.

    generation: how often the pool had been disposed of.
    """

    __slots__ = ("began_ns", "generation", "is_spare")

    def __init__(self, began_ns: int, generation: int, is_spare: bool) -> None:
        self.began_ns = began_ns
        self.generation = generation
        self.is_spare = is_spare


class Openers:
    """The attempts to open connections of one pool, at most `openers` at a time (None: no limit but demand)."""

    def __init__(self, pool: FairPool, openers: int | None) -> None:
        self._pool = weakref.ref(pool)
        timeout_ns = pool._timeout_ns
        self.growth = Growth(openers) if timeout_ns is None else Growth(openers, timeout_ns // 2)
        # Oldest first. Its place decides whether an attempt may go on, so that of two who begin at once one steps back.
        self.attempts: list[Attempt] = []
        # The instant at which somebody will look again, in at most one item.
        self.appointments: list[int] = []

    def look(self, began_ns: int | None = None) -> None:
        """Begin the attempts that the queue needs now (they count from `began_ns`, if given), and see to it that somebody
        looks again. Does not switch.
        """
        pool = self._pool()
        if pool is None or pool._openers is not self:
            return
        queue, growth, attempts = pool._queue, self.growth, self.attempts
        while queue.waiters and queue.is_room():
            now_ns = _clock_ns()
            waiting, running = len(queue.waiters), len(attempts)
            if running >= waiting:
                # Each of them looks again at its end.
                return
            oldest_ns = max((now_ns - attempt.began_ns for attempt in attempts[:1]), default=0)
            wanted = growth.wanted(now_ns, waiting, self.lent(pool), queue.handed_over, oldest_ns)
            if running >= wanted:
                self._look_again(pool, now_ns)
                return
            self._begin(pool, wanted, Attempt(began_ns or now_ns, pool._generation, is_spare=False))

    def fill(self, missing: int, generation: int) -> None:
        """Begin attempts for nobody in particular, so that `missing` run; one at most, and after its pause, in the back-off.

        `generation`: what the pool's was when the connections were found missing.
        """
        pool = self._pool()
        if pool is None or pool._openers is not self:
            return
        most = min(missing, self.growth.openers, 1 if self.growth.failures else missing)
        # As many as are missing now: those begun here may have ended before the last of them begins.
        for _ in range(most - len(self.attempts)):
            if pool._generation != generation or not self.growth.may_try(_clock_ns()):
                return
            if not self._begin(pool, most, Attempt(_clock_ns(), generation, is_spare=True)):
                return

    def lent(self, pool: FairPool) -> int:
        """Number of connections that may come back: of slots in use, those that are not being opened here."""
        return max(0, pool.checkedout() - len(self.attempts))

    def _begin(self, pool: FairPool, most: int, attempt: Attempt) -> bool:
        """Begin the attempt if fewer than `most` run. False: it was not begun."""
        queue, record = pool._queue, None
        self.attempts.append(attempt)
        try:
            start = start_here if attempt.is_spare else queue.waiters[0].start
            if self.attempts.index(attempt) < most:
                record = queue.take_vacant()
            if record is not None:
                try:
                    start(partial(self._run, attempt, record))
                except RuntimeError:
                    # No thread can be started: there is nobody to do it but us.
                    self._open(attempt, record)
                return True
        except IndexError:
            # Nobody waits any more.
            pass
        except BaseException:
            if record is not None:
                pool._do_return_conn(record)
            removed(self.attempts, attempt)
            raise
        removed(self.attempts, attempt)
        return False

    def _look_again(self, pool: FairPool, now_ns: int) -> None:
        """Have somebody look again when `growth` says so, unless somebody will in time."""
        due_ns = self.growth.look_again_ns(now_ns)
        for appointed_ns in self.appointments[:1]:
            if appointed_ns <= due_ns + 1_000_000 and now_ns < appointed_ns + OVERDUE_NS:
                return
        try:
            head = pool._queue.waiters[0]
        except IndexError:
            return
        self.appointments[:] = [due_ns]
        try:
            head.start(partial(self._keep_appointment, due_ns), max(0, due_ns - now_ns) / 1e9)
        except RuntimeError as error:
            # No thread can be started.
            pool._queue.fail(head, error)

    def _keep_appointment(self, due_ns: int) -> None:
        removed(self.appointments, due_ns)
        self.look()

    def _run(self, attempt: Attempt, record: Record) -> None:
        self._open(attempt, record)
        self.look()

    def _open(self, attempt: Attempt, record: Record) -> None:
        """Open the record's connection for whoever is at the head of the queue by then."""
        pool, began_ns = record.pool, _clock_ns()
        queue, failure, is_new = pool._queue, None, not record.starttime
        try:
            is_in_vain = not queue.waiters and not (attempt.is_spare and attempt.generation == pool._generation)
            if not is_in_vain and pool._openers is self:
                record.opening_since_ns = 0 if attempt.is_spare else attempt.began_ns
                record.get_connection()
                if attempt.generation != pool._generation and not queue.waiters:
                    record.expire()
        # Whatever it is, an exception of a driver or a kill of this greenlet: somebody must hear of it.
        except BaseException as error:  # noqa: BLE001
            failure = error
            if not isinstance(error, Exception):
                # The pool takes such a thing for the kill of a borrower, which it does not count. Here there is none.
                pool._statistics.rare["connect_errors"] += 1
                self.growth.failed(_clock_ns(), error, queue.handed_over)
        # From here on it is no attempt any more, and the slot is in use until it is given back.
        removed(self.attempts, attempt)
        if pool._openers is not self:
            # The process forked meanwhile: the connection is its parent's.
            THE_PARENTS.append(record.forget())
            return
        if failure is None:
            pool._do_return_conn(record)
            return
        try:
            if is_new:
                pool._return_failed(record)
            else:
                # It rests as before, and is opened again for the next.
                try:
                    record.close()
                finally:
                    pool._do_return_conn(record)
        except BaseException:
            pool.logger.debug("FairPool could not close a connection properly", exc_info=True)
        self._tell(pool, failure, began_ns)
        # A reference to its traceback, and so to this frame.
        del failure

    def _tell(self, pool: FairPool, failure: BaseException, began_ns: int) -> None:
        """Raise the failure in those whom nothing else can serve: the head of the queue; if it is not the first one, all who
        have waited since before the attempt.
        """
        queue, growth = pool._queue, self.growth
        if not queue.waiters:
            pool.logger.warning("FairPool could not open a spare connection: %s", failure)
            return
        away_ns = growth.away_ns(_clock_ns(), queue.handed_over)
        if away_ns < KNOWN_TO_BE_AWAY_NS and (queue.idle or self.attempts or self.lent(pool)):
            return
        for place, waiter in enumerate(list(queue.waiters)):
            if place and (growth.failures <= 1 or waiter.since_ns > began_ns):
                return
            if queue.fail(waiter, failure):
                failure = another(failure)
