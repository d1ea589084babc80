"""A fair connection pool for SQLAlchemy: whoever began to wait first is served first.

`FairPool` is a `poolclass` for SQLAlchemy 2.0 and 2.1 with QueuePool's arguments and methods. Where QueuePool puts a
returned connection on a shared shelf and calls for the oldest waiter, so that anybody who runs before that waiter can
take it, FairPool hands it over: from the moment it is returned it belongs to whoever is at the head of the queue.

The rules of the queue are in fair_queue.py; those of this file are two more:

5.  What can switch (connect, close, listeners) runs while its slot is taken and nothing else is held: a slot is taken
    before connecting starts and given back after closing ended.
6.  Any exception, BaseException above all, can come out of what switches: each such place gives back what it holds.

All clocks are `time.monotonic_ns`, except SQLAlchemy's own `starttime`.
"""

# ruff: noqa: SLF001 - SQLAlchemy's pool and the classes of this package know each other's insides

from __future__ import annotations

import random
import sys
import time
import traceback
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import exc, util
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord

from poolbench import settings
from poolbench.admission import admit, expected_wait_ns, fail
from poolbench.costs import charge_opening
from poolbench.errors import CannotWait, PoolClosed, PoolDeadlock, QueueFull
from poolbench.fair_queue import NEVER_NS, FairQueue, removed
from poolbench.housekeeping import POOLS, Housekeeping
from poolbench.openers import Openers
from poolbench.records import KNOWN_SQLALCHEMY, STOCK_CHECKOUT, Loan, Record, oldest_loans
from poolbench.telemetry import BOUNDS_NS, SMOOTHING, PoolSnapshot, PoolStatistics
from poolbench.transactions import outside_test
from poolbench.waiters import CannotWaitHereError, current, is_alone, waiter_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

_clock_ns = time.monotonic_ns


class FairPool(Pool):
    """A pool of at most `pool_size + max_overflow` connections with a strict queue in front of it.

    Greenlets and threads may borrow, wait and return, all in one queue. Connections are opened for the queue: a waiter gets
    whatever comes first, a returned connection or a new one. `connect()` raises whatever opening one raised, if nothing else
    could serve the caller; `sqlalchemy.exc.TimeoutError` (code 3o7r) after `timeout` s, never earlier; its
    subclasses `QueueFull` and `PoolDeadlock` at once; `PoolClosed` after `close`; `CannotWait` in a callback of
    gevent's event loop. The constructor raises `sqlalchemy.exc.ArgumentError` for a value that an argument cannot have.

    creator, pool_size, max_overflow, timeout, use_lifo, recycle, echo, logging_name, reset_on_return, events, dialect,
    pre_ping: as QueuePool's, but that `recycle` of 0 means no limit. All may be given by position or name.
    max_waiting: at most this many may wait (None: no limit, 0: nobody); the next gets `QueueFull`.
    max_wait: s; whoever would have to wait longer, by the estimate of `estimated_wait_ns`, gets `QueueFull` at once.
    min_size: housekeeping keeps this many connections open, from the first connect on; at most `pool_size`.
    warm_up: open `min_size` connections in the background as soon as the engine is made; not after `engine.dispose()`.
    openers: at most this many connections are being opened for the queue at one time (None: as many as the queue needs).
    max_lifetime: s; each connection draws its own from `[max_lifetime * (1 - lifetime_jitter), max_lifetime]` and is
    replaced when that has passed and it is idle or asked for.
    idle_timeout: s; housekeeping closes what was idle for this long, down to `min_size`. Wants `use_lifo`.
    maintenance_interval: s between rounds of housekeeping, which is also the pace of its connection attempts.
    ping_idle: s; a connection that was idle for longer is tested before it is lent, and replaced if it is dead.
    leak_threshold: s; a loan that lasts longer is logged once as a warning with the borrower's line and stack.
    detect_deadlock: raise `PoolDeadlock` if every connection is held by somebody who waits for another. Assumes that
    whoever borrows returns.

    max_wait, max_lifetime, idle_timeout, ping_idle and leak_threshold: None and 0 both mean no limit.
    """

    _is_asyncio = False
    _sqla_logger_namespace = "sqlalchemy.pool.FairPool"

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        max_waiting: int | None = None,
        min_size: int = 0,
        max_lifetime: float | None = None,
        lifetime_jitter: float = 0.1,
        idle_timeout: float | None = None,
        maintenance_interval: float = 1.0,
        leak_threshold: float | None = None,
        detect_deadlock: bool = False,
        max_wait: float | None = None,
        recycle: float = -1,
        ping_idle: float | None = None,
        openers: int | None = None,
        warm_up: bool = False,
        **kw: Any,
    ) -> None:
        self._options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": max_overflow if pool_size else -1,
            "timeout": timeout,
            "use_lifo": use_lifo,
            "max_waiting": max_waiting,
            "min_size": min_size,
            "max_lifetime": max_lifetime,
            "lifetime_jitter": lifetime_jitter,
            "idle_timeout": idle_timeout,
            "maintenance_interval": maintenance_interval,
            "leak_threshold": leak_threshold,
            "detect_deadlock": detect_deadlock,
            "max_wait": max_wait,
            "recycle": recycle,
            "ping_idle": ping_idle,
            "openers": openers,
            "warm_up": warm_up,
        }
        try:
            settings.check({**self._options, "pre_ping": kw.get("pre_ping", False)})
        except ValueError as error:
            raise exc.ArgumentError(f"FairPool: {error}") from None
        self._options |= settings.in_effect(self._options)
        super().__init__(creator, recycle=self._options["recycle"], **kw)
        self._size = pool_size
        self._max_overflow = self._options["max_overflow"]
        self._limit = None if self._max_overflow == -1 else self._size + self._max_overflow
        self._timeout = timeout
        self._timeout_ns = None if timeout is None else round(timeout * 1e9)
        self._max_waiting = max_waiting
        self._max_wait = max_wait or None
        self._detect_deadlock = detect_deadlock
        self._remembers_stacks = bool(leak_threshold)
        self._remembers = detect_deadlock or self._remembers_stacks
        self._ping_idle_ns = round(ping_idle * 1e9) if ping_idle else NEVER_NS
        self._prepares = self._remembers or bool(ping_idle)
        self._is_closed = self._is_shrinking = False
        self._housekeeping = Housekeeping(
            self,
            interval_s=maintenance_interval,
            min_size=min_size,
            idle_timeout_s=idle_timeout or None,
            leak_threshold_s=leak_threshold or None,
            has_lifetimes=bool(max_lifetime),
        )
        self._connect_timers: list[Callable[[int], None]] = []
        self._start_empty()
        POOLS.add(self)
        # Not after engine.dispose(), which may be the end of a process.
        if warm_up and "_dispatch" not in kw:
            self._housekeeping.warm_up()

    def _start_empty(self) -> None:
        openers = self._openers = Openers(self, self._options["openers"])
        lifo = self._options["use_lifo"]
        queue = FairQueue(self._limit, lifo, lambda: Record(self), self._do_return_conn, openers.look)
        self._queue: FairQueue[Record] = queue
        # The same objects and methods by shorter names, for what every loan passes through.
        self._idle, self._vacant, self._waiters = queue.idle, queue.vacant, queue.waiters
        self._take_idle, self._match = queue.take_idle, queue.match
        self._statistics = PoolStatistics()
        self._alarms: dict[Any, Any] = {}
        # As many items as connections are being opened; and the number of loans that began with an opening of their own.
        self._connecting_now: list[None] = []
        self._opened_at_once = 0
        # Number of resources that rest here at most; 0 after engine.dispose(). Below, the number of calls of dispose().
        self._keep = self._size or sys.maxsize
        self._generation = 0
        self._closers: list[FairQueue[Record]] = []  # one for each who waits in close(), with a timeout of its own
        if self._is_closed:
            self._refuse_all()

    # -- borrowing ---------------------------------------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Lend a connection; its `close()` returns it. Raises as the class says."""
        if not KNOWN_SQLALCHEMY or _ConnectionRecord.__dict__["checkout"] is not STOCK_CHECKOUT:
            # Somebody (an APM agent, say) has replaced SQLAlchemy's checkout, or it is not the one that `Loan` knows.
            return super().connect()
        record = self._do_get()
        try:
            connection = record.get_connection()
        except BaseException as error:  # noqa: BLE001 - raised again
            with util.safe_reraise():
                record._checkin_failed(error, _fairy_was_created=False)
        echo = self._should_log_debug()
        loan = Loan(self, connection, record, echo)
        if echo:
            self.logger.debug("Connection %r checked out from pool", connection)
        if self._pre_ping or self.dispatch.checkout:
            return _ConnectionFairy._checkout(self, fairy=loan)
        loan._counter = 1
        return loan

    def _do_get(self) -> Record:
        record = None
        if not self._waiters:
            try:
                record = self._take_idle()
            except IndexError:
                pass
            else:
                record.wait_ns = record.connect_ns = record.opening_since_ns = 0
        if record is None:
            record = self._get_slowly()
        self._statistics.checkouts += 1
        record.lent = True
        returned_ns, record.since_ns = record.since_ns, _clock_ns()
        if self._prepares:
            self._prepare(record, returned_ns)
        if not record.starttime:
            self._connect_first(record)
        return record

    def _get_slowly(self) -> Record:
        """Wait in the queue, or take a slot whose connection is to be opened here, where nobody else could open it."""
        if self._is_closed:
            self._refuse()
        record = None
        if not self._waiters and self._queue.is_room():
            # A newcomer: so the pool is in use again after dispose().
            self._keep = self._most_resting()
            if self._opens_itself():
                record = self._queue.take_vacant()
        if record is None:
            record = self._wait()
        else:
            record.wait_ns = record.connect_ns = record.opening_since_ns = 0
        if self._is_closed:
            # Closed by another thread in the midst of this.
            self._do_return_conn(record)
            self._refuse()
        return record

    def _most_resting(self) -> int:
        return 0 if self._is_closed or self._is_shrinking else self._size or sys.maxsize

    def _opens_itself(self) -> bool:
        """Whether borrowers open their connections: they may not wait, or there is nobody else, or SQLite, whose connections
        belong to the thread that opened them.
        """
        return self._timeout_ns == 0 or getattr(self._dialect, "name", "") == "sqlite" or is_alone()

    def _connect_first(self, record: Record) -> None:
        """Open a new record's connection here: if it failed later, SQLAlchemy would fire "checkin" for it."""
        try:
            record.get_connection()
        except BaseException:
            self._drop(record)
            raise

    def _connecting(self, record: Record, connect: Callable[[], DBAPIConnection]) -> DBAPIConnection:
        rare, generation, began_ns = self._statistics.rare, self._generation, _clock_ns()
        growth, opening = self._openers.growth, self._connecting_now
        opening.append(None)
        try:
            connection = connect()
        except BaseException as error:
            record.lent = False
            if isinstance(error, Exception):  # else a greenlet was killed, which says nothing about the server
                rare["connect_errors"] += 1
                growth.failed(_clock_ns(), error, self._queue.handed_over)
            raise
        finally:
            opening.pop()
        now_ns = _clock_ns()
        rare["created"] += 1
        for learn in (growth.succeeded, self._statistics.connect.add, *self._connect_timers):
            learn(now_ns - began_ns)
        record.connect_ns += now_ns - began_ns
        record.since_ns = now_ns
        record.is_outside = outside_test(connection, self._dialect)
        record.expires_ns = now_ns + self._lifetime_ns()
        # After that, as dispose() may have come in between.
        if generation != self._generation:
            record.expire()
        if not record.opening_since_ns:
            self._start_housekeeping(generation)
        return connection

    def _start_housekeeping(self, generation: int) -> None:
        """Called where borrowers run: there it is known whether an event loop turns."""
        if self._keep:
            self._housekeeping.start(generation)

    def _lifetime_ns(self) -> int:
        longest_s: float | None = self._options["max_lifetime"]
        if longest_s is None:
            return NEVER_NS
        drawn_s: float = longest_s * (1 - self._options["lifetime_jitter"] * random.random())
        return round(max(settings.SHORTEST_S, drawn_s) * 1e9)

    def _prepare(self, record: Record, returned_ns: int) -> None:
        """What options ask for before a loan: remember the borrower, and test a connection that was idle for long."""
        if self._remembers:
            record.holder = current()
        if self._remembers_stacks:
            frames = traceback.walk_stack(sys._getframe(2))
            record.stack = traceback.StackSummary.extract(frames, limit=20, lookup_lines=False)
            record.is_reported = False
        connection = record.dbapi_connection
        if (
            connection is None
            or record.since_ns - returned_ns <= self._ping_idle_ns
            or record.since_ns >= record.expires_ns
            or record.is_stale()
        ):
            return
        try:
            if not self._dialect._do_ping_w_event(connection):
                # `get_connection` opens another in its place.
                record.invalidate()
        except BaseException:
            self._return_failed(record)
            raise

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> Record:
        try:
            waiter = waiter_here(self._timeout_ns, self._alarms)
        except CannotWaitHereError:
            raise CannotWait(
                "FairPool: no connection is free, and a callback of the event loop cannot wait for one."
            ) from None
        queue = self._queue
        granted = waiter.granted
        try:
            if not self._waiters:
                self._openers.growth.queue_began(waiter.since_ns, queue.handed_over)
            self._waiters.append(waiter)
            self._match()
            if not granted:
                admit(self, waiter)
                if queue.is_room():
                    self._openers.look(waiter.since_ns)
                    self._start_housekeeping(self._generation)
            while not granted:
                if self._is_closed:
                    self._refuse()
                if waiter.expired:
                    fail(self, waiter)
                waiter.sleep(queue)
            record: Record = granted.pop()
        except BaseException as error:
            if queue.abandon(waiter):
                self._statistics.rare["cancelled"] += 1
            refused = isinstance(error, (QueueFull, PoolDeadlock))
            self._statistics.add_unserved(0 if refused else _clock_ns() - waiter.since_ns)
            raise
        finally:
            waiter.leave()
        now_ns = _clock_ns()
        statistics = self._statistics
        record.wait_ns, record.connect_ns = now_ns - waiter.since_ns, 0
        if record.opening_since_ns:
            self._charge_opening(record, waiter.since_ns, now_ns)
        statistics.wait.add(record.wait_ns)
        # Returned, and handed over, while it waited.
        if record.since_ns >= waiter.since_ns:
            statistics.gap_ns += (now_ns - record.since_ns - statistics.gap_ns) * SMOOTHING
        return record

    def _charge_opening(self, record: Record, since_ns: int, now_ns: int) -> None:
        """Tell waiting for a connection that was opened meanwhile from waiting, since `since_ns`, before that."""
        began_ns, record.opening_since_ns = max(record.opening_since_ns, since_ns), 0
        record.wait_ns, record.connect_ns = began_ns - since_ns, now_ns - began_ns
        charge_opening(record.connect_ns)
        self._start_housekeeping(self._generation)
        if not record.wait_ns:
            self._opened_at_once += 1

    # -- returning ---------------------------------------------------------------------------------------------------

    def _do_return_conn(self, record: Record) -> None:  # type: ignore[override]
        now_ns = _clock_ns()
        if record.lent:
            record.lent = False
            statistics = self._statistics
            held_ns, hold = now_ns - record.since_ns, statistics.hold
            # As `hold.add`, written out: every loan comes by here.
            hold.counts[bisect_left(BOUNDS_NS, held_ns)] += 1
            hold.total_ns += held_ns
            statistics.hold_mean_ns += (held_ns - statistics.hold_mean_ns) * SMOOTHING
        record.since_ns = now_ns
        if self._remembers:
            record.holder = record.stack = None
        if (
            record.dbapi_connection is not None
            and now_ns < record.expires_ns
            and len(self._idle) + len(self._vacant) < self._keep
            and not record.is_stale()
        ):
            self._idle.append(record)
            if self._waiters:
                self._match()
        else:
            self._return_unfit(record)

    def _return_conn(self, record: Record) -> None:  # type: ignore[override]
        record.is_due = False
        self._do_return_conn(record)

    def _return_unfit(self, record: Record) -> None:
        """Keep, pass on or close a record that is not simply a live connection that the pool has room for."""
        if record not in self._queue.taken:
            # Forgotten by a fork.
            return
        if self._is_shrinking and not self._queue.surplus:
            self._is_shrinking = False
            self._keep = self._most_resting()
            self._do_return_conn(record)
        elif not record.starttime:
            self._drop(record)
        elif record.since_ns >= record.expires_ns:
            self._discard(record, "lifetime" if record.expires_ns else "disposed")
        elif self._queue.surplus:
            self._discard(record, "resized")
        elif self._waiters and record.dbapi_connection is not None and not record.is_stale():
            # More rest here than may, but somebody wants it.
            self._queue.add_idle(record)
            if self._queue.resting() > self._keep and removed(self._idle, record):
                self._discard(record, "overflow" if self._keep else "disposed")
        elif self._queue.resting() < self._keep:
            self._queue.add_vacant(record, is_open=record.dbapi_connection is not None)
        else:
            self._discard(record, "overflow" if self._keep else "disposed")

    def _return_failed(self, record: Record) -> None:
        """A "checkin" listener failed: the connection is in no known state, and its borrower may still refer to it."""
        record.lent = False
        try:
            record.close()
        finally:
            # Unless it was forgotten by a fork.
            if record in self._queue.taken:
                self._drop(record)

    def _discard(self, record: Record, why: str) -> None:
        """Close the record's connection, then give its slot away, even if closing fails."""
        try:
            if record.dbapi_connection is not None:
                self._statistics.closed[why] += 1
                record.close()
        finally:
            self._drop(record)

    def _close_connection(self, connection: DBAPIConnection, *args: Any, **kw: Any) -> None:
        self._statistics.closed_in_all += 1
        super()._close_connection(connection, *args, **kw)

    def _invalidate(
        self, connection: PoolProxiedConnection, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """As in SQLAlchemy's Pool; also put stale connections behind live ones; housekeeping or the next borrower closes them."""
        super()._invalidate(connection, exception, _checkin=False)
        for record in list(self._idle):
            if record.is_stale() and removed(self._idle, record):
                self._queue.add_vacant(record, is_open=True)
        if _checkin and getattr(connection, "is_valid", False):
            connection.invalidate(exception)

    # -- the pool as a whole -----------------------------------------------------------------------------------------

    def recreate(self) -> FairPool:
        """Return a new pool with the same parameters and listeners; a disposed pool then keeps nothing any more."""
        self.logger.info("Pool recreating")
        if self._generation and not self._idle:
            self._keep, self._is_shrinking = 0, False
        pool = type(self)(
            self._creator,
            **self._options,
            pre_ping=self._pre_ping,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        pool._connect_timers = self._connect_timers
        return pool

    def dispose(self) -> None:
        """Close idle connections now and lent ones on return; the limit, and serving those who wait, go on.

        A connection that is being opened is closed on return, too. `engine.dispose()` makes a new pool beside this one,
        which drains by itself: for a moment the two may have twice the limit.
        """
        self._generation += 1
        for record in list(self._queue.taken):
            record.expire()
        self._housekeeping.stop()
        for shelf in (self._idle, self._vacant):
            for record in list(shelf):
                if removed(shelf, record):
                    self._discard(record, "disposed")
        self.logger.info("Pool disposed. %s", self.status())

    def close(self, timeout: float | None = 5.0) -> int:
        """Close the pool for good: refuse newcomers and all who wait with `PoolClosed`, close idle connections, end
        housekeeping, and wait up to `timeout` s (None: for ever) for the lent ones, which are closed as they come back.

        Returns the number of connections that are still lent or being opened; those too are closed on return. Raises
        ArgumentError for a timeout that is not a duration, `CannotWait` in a callback of gevent's event loop.
        """
        if timeout is not None and not settings.seconds().accepts(timeout):
            raise exc.ArgumentError(f"FairPool.close: timeout must be {settings.seconds().wanted}, not {timeout!r}")
        self._refuse_all()
        for waiter in list(self._waiters):
            if removed(self._waiters, waiter):
                waiter.notify()
        self.dispose()
        if self._queue.taken and timeout != 0:
            self._wait_for_the_lent(None if timeout is None else round(timeout * 1e9))
        return len(self._queue.taken)

    def _wait_for_the_lent(self, timeout_ns: int | None) -> None:
        try:
            waiter = waiter_here(timeout_ns, {})
        except CannotWaitHereError:
            raise CannotWait("FairPool: a callback of the event loop cannot wait for lent connections") from None
        closing: FairQueue[Record] = FairQueue(0, False, lambda: Record(self), self._do_return_conn, lambda: None)
        closing.waiters.append(waiter)
        self._closers.append(closing)
        try:
            while self._queue.taken and not waiter.expired and not waiter.granted:
                waiter.sleep(closing)
        finally:
            self._closers.remove(closing)
            waiter.leave()

    def _refuse_all(self) -> None:
        self._is_closed = True
        self._keep = 0
        # Instead of a test in the path that every loan takes.
        self._take_idle = self._refuse

    def _refuse(self) -> NoReturn:
        self._statistics.rare["rejected"] += 1
        raise PoolClosed("FairPool: this pool was closed, and lends no connections any more")

    def _drop(self, record: Record) -> None:
        """Give the slot away; the last to come back wakes those up who wait in `close`."""
        self._queue.drop(record)
        for closing in [] if self._queue.taken else list(self._closers):
            for waiter in list(closing.waiters):
                if removed(closing.waiters, waiter):
                    waiter.granted.append(record)
                    waiter.notify()

    def resize(self, pool_size: int, max_overflow: int | None = None) -> None:
        """Change `pool_size`, and `max_overflow` unless it is None. One caller at a time.

        A larger pool serves waiters at once. A smaller one closes idle connections at once and lent ones as they come back,
        before anybody else is served. Raises ArgumentError, and changes nothing, for values that the constructor refuses,
        and for a change from or to a pool without limit.
        """
        overflow = self._max_overflow if max_overflow is None else max_overflow
        options = {**self._options, "pool_size": pool_size, "max_overflow": overflow}
        try:
            settings.check(options)
        except ValueError as error:
            raise exc.ArgumentError(f"FairPool.resize: {error}") from None
        if self._limit is None or not pool_size or overflow == -1:
            raise exc.ArgumentError(
                "FairPool.resize: a pool without a limit has no size to change, nor can one get rid of it"
            )
        change = pool_size + overflow - self._limit
        self._options, self._size, self._max_overflow, self._limit = options, pool_size, overflow, pool_size + overflow
        self._queue.change_limit(change)
        # While more slots are taken than the new size allows, what comes back is closed, whoever waits.
        self._is_shrinking = bool(self._queue.surplus)
        self._keep = self._most_resting()
        while self._queue.surplus or self._queue.resting() > self._size:
            record = self._queue.take_longest_unused()
            if record is None:
                break
            self._discard(record, "resized")

    def status(self) -> str:
        """The gauges as a line, in QueuePool's words and with the number of waiters."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out connections: {self.checkedout()} "
            f"Waiting: {self.waiting()}"
        )

    def size(self) -> int:
        """`pool_size`; 0 means no limit."""
        return self._size

    def timeout(self) -> float | None:
        """The longest wait in s; None means for ever."""
        return self._timeout

    def checkedin(self) -> int:
        """Number of slots whose connection nobody has borrowed."""
        return self._queue.resting()

    def checkedout(self) -> int:
        """Number of slots in use: lent, or their connection being opened or closed."""
        return len(self._queue.taken) - self._queue.resting()

    def overflow(self) -> int:
        """Slots taken minus `pool_size`, negative while the pool is not full; 0 without limit."""
        return len(self._queue.taken) - self._size if self._size else 0

    def waiting(self) -> int:
        """Length of the queue."""
        return len(self._waiters)

    def estimated_wait_ns(self) -> int:
        """The probable wait of a newcomer, in ns: 0 if something is free, else its place in the queue times the recent
        time from one return of a connection to the next, by the limit.
        """
        queue = self._queue
        if queue.limit is None or (not queue.waiters and (queue.free or queue.resting())):
            return 0
        return expected_wait_ns(self, len(queue.waiters) + 1)

    def snapshot(self) -> PoolSnapshot:
        """Gauges, counters and histograms as they are now."""
        statistics, closed = self._statistics, dict(self._statistics.closed)
        closed["invalidated"] = max(0, statistics.closed_in_all - sum(closed.values()))
        return PoolSnapshot(
            size=self._size,
            min_size=self._options["min_size"],
            limit=self._limit,
            in_use=self.checkedout(),
            # A vacant resource whose connection is closed rests, too, but is no connection.
            idle=max(0, self.checkedin() - sum(record.dbapi_connection is None for record in list(self._queue.vacant))),
            waiting=self.waiting(),
            estimated_wait_ns=self.estimated_wait_ns(),
            checkouts=statistics.checkouts,
            connecting=max(len(self._connecting_now), len(self._openers.attempts)),
            handed_over=max(0, self._queue.handed_over - self._opened_at_once),
            closed=closed,
            oldest_loans=oldest_loans(list(self._queue.taken)),
            wait=statistics.wait.freeze(
                zeros=max(0, statistics.checkouts + statistics.unserved - sum(statistics.wait.counts))
            ),
            connect=statistics.connect.freeze(),
            hold=statistics.hold.freeze(),
            **statistics.rare,
        )
