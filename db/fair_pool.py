"""A fair connection pool for gevent: whoever began to wait first is served first.

`FairPool` is a `poolclass` for SQLAlchemy 2.0 and 2.1 with QueuePool's arguments and methods. Where QueuePool puts a
returned connection on a shared shelf and calls for the oldest waiter, so that anybody running before that waiter can
take it, FairPool hands it over: from the moment it is returned it belongs to the greenlet at the head of the queue.

Rules of this file
------------------
1.  A *resource* is an idle connection or the right to open one (a slot). It rests only while nobody waits: whoever
    puts one back looks at the queue afterwards, whoever joins the queue looks for resources afterwards. So no order
    of events leaves both a waiter and something to give him.
2.  The queue is the decision. A waiter is served by whoever takes him off the queue, and gives up (timeout, kill) by
    taking himself off. The deque allows exactly one of the two.
3.  A served waiter finds his resource in `granted`. If he died meanwhile, whoever pops it from there passes it on.
4.  Every step that changes the books is one operation that CPython does not interrupt (append, pop, remove, ...), and
    the books are right after each. There is no lock and no "busy" flag. Hence all of this is safe when a garbage
    collection in the middle of these lines rolls back a forgotten connection and with that *switches greenlets*, and
    when connections come back in other native threads.
5.  Nothing that can switch (connect, close, listeners) happens between two such steps that belong together; a slot is
    taken before connecting starts and given back after closing ended.
6.  Any exception, BaseException above all, can come out of anything that switches: each such place gives back what it
    holds.

Counters of statistics are plain `+= 1`: exact among greenlets, approximate if several native threads share the pool.
All clocks are `time.monotonic_ns`, except SQLAlchemy's own `starttime`.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import traceback
import weakref
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
import gevent.monkey
import greenlet
from sqlalchemy import exc
from sqlalchemy.engine import Connection
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

__all__ = ["Checkout", "FairPool", "Histogram", "PoolDeadlock", "PoolSnapshot", "QueueFull", "WrongThread", "checkout_of"]

_clock_ns = time.monotonic_ns
_native_thread: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
_switch_to = greenlet.greenlet.switch  # straight into the hub: nothing in between that could collect garbage
_NEVER_NS = 1 << 63

BOUNDS_NS = tuple(round(1000 * 2 ** (step / 4)) for step in range(109))
"""Upper bounds of the histograms' buckets: 1 us to 134 s, four to the octave (a quantile is within 19 %)."""


class QueueFull(exc.TimeoutError):
    """`max_waiting` greenlets wait already; this one was refused at once. A web service answers 503."""


class PoolDeadlock(exc.TimeoutError):
    """Every connection is held by a greenlet that itself waits for one: no wait could ever end."""


class WrongThread(exc.InvalidRequestError):
    """This native thread would have to wait, but the pool's waiters live in another thread's event loop."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """What one loan has cost so far, in ns.

    wait_ns: from asking to being given a connection or a slot; 0 if nobody was before.
    connect_ns: opening (or reopening) the connection, listeners included; 0 if an open one was lent.
    held_ns: since the loan began, that is after waiting and connecting.
    """

    wait_ns: int
    connect_ns: int
    held_ns: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations counted in the buckets of `BOUNDS_NS`; the last count is for what is longer than all of them."""

    counts: tuple[int, ...]
    total_ns: int

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts)

    @property
    def mean_ns(self) -> float:
        """The exact mean in ns; 0 when empty."""
        return self.total_ns / max(1, self.count)

    def quantile_ns(self, q: float) -> int:
        """The bucket bound at or above quantile `q` (0..1) in ns: too large by at most 19 %; 0 when empty."""
        rank = q * self.count
        for bound, count in zip((0, *BOUNDS_NS[1:], _NEVER_NS), self.counts, strict=True):
            rank -= count
            if rank <= 0:
                return bound
        return _NEVER_NS


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at one moment: gauges, counters since the pool was made (or the process forked), histograms.

    in_use counts slots whose connection is lent, being opened or being closed; connecting is the part being opened.
    limit is pool_size + max_overflow, None when unlimited. closed tells why: overflow, idle, lifetime, disposed, and
    invalidated for all that SQLAlchemy closes (invalidation, recycle, a failed listener).
    estimated_wait_ns is (waiting + 1) x recent mean hold / limit if nothing is free, else 0.
    """

    size: int
    limit: int | None
    in_use: int
    idle: int
    waiting: int
    connecting: int
    estimated_wait_ns: int
    checkouts: int
    handed_over: int
    created: int
    closed: Mapping[str, int]
    connect_errors: int
    timeouts: int
    cancelled: int
    rejected: int
    deadlocks: int
    wait: Histogram
    connect: Histogram
    hold: Histogram


def checkout_of(connection: Connection | PoolProxiedConnection | ConnectionPoolEntry) -> Checkout | None:
    """Return the cost of the loan behind an engine's Connection, a pooled connection or a pool event's record.

    None if it does not come from a FairPool, was detached, or has gone back. In a "checkin" listener, given the
    record, `held_ns` is the whole hold.
    """
    entry: Any = connection.connection if isinstance(connection, Connection) else connection
    record = entry if isinstance(entry, _Record) else getattr(entry, "_connection_record", None)
    if not isinstance(record, _Record):
        return None
    return Checkout(record.wait_ns, record.connect_ns, _clock_ns() - record.since_ns)


class _Recorder:
    """A histogram being filled: one bisect and two additions a sample."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def freeze(self, zeros: int = 0) -> Histogram:
        first, *rest = self.counts
        return Histogram((first + zeros, *rest), self.total_ns)


class _Slots:
    """The rights to have a connection open. Taking and giving back are single list operations (rule 4)."""

    __slots__ = ("_free", "_taken", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._free: list[None] = [None] * (limit or 0)
        self._taken: list[None] = []  # counts only where there is no limit

    @property
    def taken(self) -> int:
        return len(self._taken) if self.limit is None else self.limit - len(self._free)

    def take(self) -> bool:
        if self.limit is None:
            self._taken.append(None)
            return True
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def give(self) -> None:
        if self.limit is None:
            self._taken.pop()
        else:
            self._free.append(None)


class _Record(_ConnectionRecord):
    """SQLAlchemy's record of one connection, owning one slot, and the latest loan of it.

    since_ns: the instant it was last lent or returned. expires_ns: not to be lent or kept from then on; 0 once the
    pool was disposed of. holder and stack: who borrowed it, kept only where an option needs them.
    """

    __slots__ = ("connect_ns", "expires_ns", "holder", "lent", "pool", "since_ns", "stack", "wait_ns")

    def __init__(self, pool: FairPool) -> None:
        super().__init__(pool, connect=False)
        self.pool = pool
        self.lent = False
        self.wait_ns = self.connect_ns = self.since_ns = 0
        self.expires_ns = _NEVER_NS
        self.holder: greenlet.greenlet | None = None
        self.stack: traceback.StackSummary | None = None

    def get_connection(self) -> DBAPIConnection:
        """Return the live connection; first close what is stale and connect where needed (switches, may raise)."""
        connection = self.dbapi_connection
        if connection is not None and self.since_ns < self.expires_ns and not self.is_stale():
            return connection
        if connection is not None and self.since_ns >= self.expires_ns:
            self.pool._stats.closed["lifetime" if self.expires_ns else "disposed"] += 1
            self.close()
        return self.pool._connecting(self, super().get_connection)

    def is_stale(self) -> bool:
        """Whether SQLAlchemy will replace the connection at the next checkout."""
        started, pool = self.starttime, self.pool
        return (
            pool._invalidate_time > started
            or self._soft_invalidate_time > started
            or (pool._recycle > -1 and time.time() - started > pool._recycle)
        )


class _Waiter:
    """A greenlet in the queue. `granted` is its letter-box (rule 3)."""

    __slots__ = ("deadline_ns", "expired", "gone", "granted", "greenlet", "hub", "parked", "since_ns")

    def __init__(self, timeout_ns: int | None) -> None:
        self.greenlet = greenlet.getcurrent()
        self.hub: Any = None  # until it is certain that it must sleep
        self.granted: list[_Record] = []
        self.parked = self.expired = self.gone = False
        self.since_ns = _clock_ns()
        self.deadline_ns = _NEVER_NS if timeout_ns is None else self.since_ns + timeout_ns

    def wake(self) -> None:
        """Run by the hub. Not parked: it died, or it is awake and will look into `granted` by itself."""
        if self.parked:
            self.greenlet.switch()

    def notify(self) -> None:
        """Have the hub wake it soon, from whatever thread."""
        hub = self.hub
        if hub is None:
            return
        if _native_thread() == hub.thread_ident:
            hub.loop.run_callback(self.wake)
        else:
            hub.loop.run_callback_threadsafe(self.wake)


class _Stats:
    """What the pool counts."""

    __slots__ = (
        "cancelled", "checkouts", "closed", "connect", "connect_errors", "connecting", "created", "deadlocks",
        "handed_over", "hold", "hold_mark", "rejected", "timeouts", "total_closed", "wait",
    )  # fmt: skip

    def __init__(self) -> None:
        self.checkouts = self.handed_over = self.created = self.connecting = self.connect_errors = 0
        self.timeouts = self.cancelled = self.rejected = self.deadlocks = self.total_closed = 0
        self.closed: Counter[str] = Counter()  # for the pool's own reasons; the rest is SQLAlchemy's
        self.wait, self.connect, self.hold = _Recorder(), _Recorder(), _Recorder()
        self.hold_mark = (0, 0, 0.0)

    def recent_hold_ns(self) -> float:
        """The mean hold since the last time this was asked and at least 100 loans had ended since."""
        count, total_ns = sum(self.hold.counts), self.hold.total_ns
        marked_count, marked_ns, mean_ns = self.hold_mark
        new = count - marked_count
        if new >= 100 or (new and not marked_count):
            mean_ns = (total_ns - marked_ns) / new
        if new >= 100:
            self.hold_mark = (count, total_ns, mean_ns)
        return mean_ns


class FairPool(Pool):
    """A pool of at most `pool_size + max_overflow` connections with a strict queue in front of it.

    Greenlets of one native thread may wait (the thread that was first to wait, as long as it lives); others may borrow
    what is free, and return. Raises from `connect()`: whatever connecting raised, to the greenlet that was connecting;
    `sqlalchemy.exc.TimeoutError` (code 3o7r) after `timeout` s, never earlier; its subclasses `QueueFull` and
    `PoolDeadlock` at once; `WrongThread` instead of waiting in a second native thread.

    creator, pool_size, max_overflow, timeout, use_lifo, recycle, echo, logging_name, reset_on_return, events, dialect,
    pre_ping: as QueuePool's. All may be given by position or name.
    max_waiting: at most so many may wait (None: no limit, 0: nobody); the next gets `QueueFull`.
    min_size: housekeeping keeps so many connections open, from the first connect on; at most `pool_size`.
    max_lifetime: s; each connection draws its own from `[max_lifetime * (1 - lifetime_jitter), max_lifetime]` and is
    replaced when that has passed and it is idle or asked for.
    idle_timeout: s; housekeeping closes what was idle so long, down to `min_size`. Wants `use_lifo`.
    maintenance_interval: s between rounds of housekeeping, which is also the pace of its connection attempts.
    leak_threshold: s; a loan that lasts longer is logged once as a warning with the borrower's stack.
    detect_deadlock: raise `PoolDeadlock` if every connection is held by a greenlet that waits for another. Assumes
    that whoever borrows returns.
    """

    _is_asyncio = False
    _sqla_logger_namespace = "sqlalchemy.pool.FairPool"

    __slots__ = (
        "_detect_deadlock", "_generation", "_idle", "_idle_timeout", "_keep", "_keeper", "_keeping", "_leak_threshold",
        "_lifetime_jitter", "_maintenance_interval", "_max_lifetime", "_max_overflow", "_max_waiting", "_min_size",
        "_owner", "_records", "_retired", "_size", "_slots", "_stats", "_take_idle", "_timeout", "_timeout_ns",
        "_timer", "_use_lifo", "_vacant", "_waiters",
    )  # fmt: skip

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
        **kw: Any,
    ) -> None:
        if pool_size and min_size > pool_size:
            raise exc.ArgumentError(f"min_size ({min_size}) must not be larger than pool_size ({pool_size})")
        super().__init__(creator, **kw)
        self._size = pool_size
        self._max_overflow = max_overflow if pool_size else -1
        self._timeout = timeout
        self._timeout_ns = None if timeout is None else round(timeout * 1e9)
        self._use_lifo = use_lifo
        self._max_waiting = max_waiting
        self._min_size = min_size
        self._max_lifetime = max_lifetime
        self._lifetime_jitter = lifetime_jitter
        self._idle_timeout = idle_timeout
        self._maintenance_interval = maintenance_interval
        self._leak_threshold = leak_threshold
        self._detect_deadlock = detect_deadlock
        self._idle: deque[_Record] = deque()  # live connections; the longest idle at the left
        self._vacant: deque[_Record] = deque()  # slots kept with a record that has to reconnect
        self._waiters: deque[_Waiter] = deque()
        self._take_idle = self._idle.pop if use_lifo else self._idle.popleft
        self._keeper: Any = None
        self._start_empty()
        _POOLS.add(self)

    def _start_empty(self) -> None:
        self._keep = self._size or sys.maxsize  # how many to keep when nobody wants them
        self._slots = _Slots(None if self._max_overflow == -1 else self._size + self._max_overflow)
        self._records: set[_Record] = set()
        self._stats = _Stats()
        self._owner: int | None = None
        self._timer: Any = None
        self._generation = 0
        self._retired = self._keeping = False

    # -- borrowing ---------------------------------------------------------------------------------------------------

    def _do_get(self) -> _Record:
        if self._waiters:
            record = self._wait()
        else:
            try:
                record = self._take_idle()
            except IndexError:
                record = self._take_vacant() or self._wait()
        stats = self._stats
        stats.checkouts += 1
        record.lent = True
        record.connect_ns = 0
        record.since_ns = _clock_ns()
        if self._detect_deadlock or self._leak_threshold is not None:
            self._remember_borrower(record)
        if not record.starttime:
            self._connect_first(record)
        return record

    def _take_vacant(self) -> _Record | None:
        """Take the right to connect, as a record."""
        try:
            return self._vacant.pop()
        except IndexError:
            return self._new_record() if self._slots.take() else None

    def _new_record(self) -> _Record:
        record = _Record(self)
        self._records.add(record)
        return record

    def _connect_first(self, record: _Record) -> None:
        """Open a new record's connection here, since SQLAlchemy would fire "checkin" if it failed later."""
        try:
            record.get_connection()
        except BaseException:
            self._drop(record)
            raise

    def _connecting(self, record: _Record, connect: Callable[[], DBAPIConnection]) -> DBAPIConnection:
        stats, generation, began_ns = self._stats, self._generation, _clock_ns()
        stats.connecting += 1
        try:
            connection = connect()
        except BaseException:
            stats.connect_errors += 1
            record.lent = False
            raise
        finally:
            stats.connecting -= 1
        now_ns = _clock_ns()
        stats.created += 1
        stats.connect.add(now_ns - began_ns)
        record.connect_ns += now_ns - began_ns
        record.since_ns = now_ns
        record.expires_ns = now_ns + self._lifetime_ns() if generation == self._generation else 0
        if self._keeper is None:
            self._start_housekeeping()
        return connection

    def _lifetime_ns(self) -> int:
        if self._max_lifetime is None:
            return _NEVER_NS
        return round(self._max_lifetime * (1 - self._lifetime_jitter * random.random()) * 1e9)

    def _remember_borrower(self, record: _Record) -> None:
        record.holder = greenlet.getcurrent()
        if self._leak_threshold is not None:
            frames = traceback.walk_stack(sys._getframe(2))
            record.stack = traceback.StackSummary.extract(frames, limit=20, lookup_lines=False)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> _Record:
        waiter = _Waiter(self._timeout_ns)
        self._waiters.append(waiter)
        try:
            self._match()
            if not waiter.granted:
                self._admit(waiter)
            while True:
                if waiter.granted:
                    break
                if waiter.expired:
                    raise self._timed_out()
                # From the look into `granted` to the switch there is nothing that could collect garbage or let
                # another thread in. So a wake-up comes either before the look, or when `parked` is true.
                waiter.parked = True
                _switch_to(waiter.hub)
                waiter.parked = False
            record = waiter.granted.pop()
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            if self._timer is not None and not self._waiters and waiter.hub is not None:
                self._disarm()
        record.wait_ns = _clock_ns() - waiter.since_ns
        self._stats.wait.add(record.wait_ns)
        return record

    def _admit(self, waiter: _Waiter) -> None:
        """Let it sleep, or raise at once the reason why it may not."""
        stats = self._stats
        if self._max_waiting is not None and len(self._waiters) > self._max_waiting and self._leave(waiter):
            stats.rejected += 1
            raise QueueFull(f"{self._max_waiting} already wait for a connection; {self.status()}")
        if self._timeout_ns is not None and self._timeout_ns <= 0 and self._leave(waiter):
            raise self._timed_out()
        if self._detect_deadlock and self._is_deadlocked() and self._leave(waiter):
            stats.deadlocks += 1
            raise PoolDeadlock(f"every connection is held by a greenlet that waits for another; {self.status()}")
        try:
            waiter.hub = self._owner_hub()
        except WrongThread:
            if not self._leave(waiter):  # served meanwhile
                return
            raise
        if self._timer is None and waiter.deadline_ns < _NEVER_NS:
            self._arm(waiter.hub, waiter.deadline_ns - waiter.since_ns)

    def _owner_hub(self) -> Any:
        me = _native_thread()
        if me != self._owner:
            if self._owner in sys._current_frames():
                raise WrongThread(
                    "no connection is free, and this pool's waiters live in another native thread's event loop: "
                    "wait in that thread only, or give each thread an engine of its own"
                )
            self._owner = me
        hub = gevent.get_hub()
        if greenlet.getcurrent() is hub:
            raise WrongThread("no connection is free, and a callback of the event loop cannot wait for one")
        return hub

    def _is_deadlocked(self) -> bool:
        waiting = {waiter.greenlet for waiter in self._waiters}
        holders = [record.holder for record in list(self._records) if record.lent]
        return len(holders) == self._slots.taken and waiting.issuperset(holders)

    def _timed_out(self) -> exc.TimeoutError:
        self._stats.timeouts += 1
        return exc.TimeoutError(
            f"FairPool limit of size {self._size} overflow {self.overflow()} reached, connection timed out, "
            f"timeout {self._timeout:0.2f}",
            code="3o7r",
        )

    def _leave(self, waiter: _Waiter) -> bool:
        """Take it off the queue. False: it is served already (rule 2)."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def _abandon(self, waiter: _Waiter) -> None:
        """Its greenlet goes elsewhere with an exception: nobody may wake it there, and a grant goes to the next."""
        waiter.parked = False
        waiter.gone = True
        if self._leave(waiter) or self._reclaim(waiter):
            self._stats.cancelled += 1

    def _reclaim(self, waiter: _Waiter) -> bool:
        try:
            record = waiter.granted.pop()
        except IndexError:
            return False
        self._do_return_conn(record)
        return True

    def _match(self) -> None:
        """Give resources to waiters, oldest first, until either runs out.

        May be entered again at any point, by another greenlet or thread: a resource is taken before its waiter, so
        that the waiter is the oldest at that moment, and whoever gave up or came too late is seen in the next round.
        """
        waiters = self._waiters
        while waiters:
            try:
                record = self._take_idle()
            except IndexError:
                vacant = self._take_vacant()
                if vacant is None:
                    return
                record = vacant
            try:
                waiter = waiters.popleft()
            except IndexError:
                self._do_return_conn(record)
                continue
            waiter.granted.append(record)
            if waiter.gone:
                self._reclaim(waiter)
            else:
                self._stats.handed_over += 1
                waiter.notify()

    # One timer for the whole queue: all have the same timeout, so the head's deadline is the next. `update` because
    # libev counts from its cached time, which is old if this greenlet computed for a while.

    def _arm(self, hub: Any, delay_ns: int) -> None:
        self._timer = hub.loop.timer(delay_ns / 1e9)
        self._timer.start(self._expire, update=True)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _expire(self) -> None:
        """Run by the hub when the head of the queue is due."""
        self._disarm()
        now_ns = _clock_ns()
        for waiter in list(self._waiters):
            if waiter.deadline_ns > now_ns:
                if waiter.hub is not None:
                    self._arm(waiter.hub, waiter.deadline_ns - now_ns)
                return
            if self._leave(waiter):
                waiter.expired = True
                waiter.notify()

    # -- returning ---------------------------------------------------------------------------------------------------

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        assert isinstance(record, _Record)
        now_ns = _clock_ns()
        if record.lent:
            record.lent = False
            self._stats.hold.add(now_ns - record.since_ns)
        record.since_ns = now_ns
        record.wait_ns = 0
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

    def _return_unfit(self, record: _Record) -> None:
        """Keep, pass on or close what is not a live connection that the pool has room for."""
        if record not in self._records:
            return  # forgotten by a fork
        if not record.starttime:
            self._drop(record)
        elif record.since_ns >= record.expires_ns:
            self._discard(record, "lifetime" if record.expires_ns else "disposed")
        elif self._waiters or len(self._idle) + len(self._vacant) < self._keep:
            self._vacant.append(record)
            if self._waiters:
                self._match()
        else:
            self._discard(record, "overflow")

    def _discard(self, record: _Record, why: str) -> None:
        """Close it, then give its slot away, whatever closing does."""
        try:
            if record.dbapi_connection is not None:
                self._stats.closed[why] += 1
                record.close()
        finally:
            self._drop(record)

    def _drop(self, record: _Record) -> None:
        self._records.discard(record)
        self._slots.give()
        if self._waiters:
            self._match()

    def _close_connection(self, connection: DBAPIConnection, *args: Any, **kw: Any) -> None:
        self._stats.total_closed += 1
        super()._close_connection(connection, *args, **kw)

    def _invalidate(
        self, connection: PoolProxiedConnection, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """As in Pool, and put what has become stale behind what is live."""
        super()._invalidate(connection, exception, _checkin=False)
        for record in list(self._idle):
            if record.is_stale() and self._claim(record):
                self._do_return_conn(record)
        if _checkin and getattr(connection, "is_valid", False):
            connection.invalidate(exception)

    def _claim(self, record: _Record) -> bool:
        """Take this one from the idle, if it is still there."""
        try:
            self._idle.remove(record)
        except ValueError:
            return False
        return True

    # -- the pool as a whole -----------------------------------------------------------------------------------------

    def recreate(self) -> FairPool:
        """Return a new pool with the same parameters and listeners. A disposed pool keeps nothing from then on."""
        self.logger.info("Pool recreating")
        if self._generation and not self._idle:
            self._retired = True
            self._keep = 0
        return type(self)(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._use_lifo,
            max_waiting=self._max_waiting,
            min_size=self._min_size,
            max_lifetime=self._max_lifetime,
            lifetime_jitter=self._lifetime_jitter,
            idle_timeout=self._idle_timeout,
            maintenance_interval=self._maintenance_interval,
            leak_threshold=self._leak_threshold,
            detect_deadlock=self._detect_deadlock,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def dispose(self) -> None:
        """Close the idle connections now and the lent ones when they return; waiters are served by new ones."""
        self._generation += 1
        for record in list(self._records):
            record.expires_ns = 0
        self._stop_housekeeping()
        for shelf in (self._idle, self._vacant):
            while shelf:
                try:
                    record = shelf.popleft()
                except IndexError:
                    break
                self._discard(record, "disposed")
        self.logger.info("Pool disposed. %s", self.status())

    def status(self) -> str:
        """Return the gauges as a line, in QueuePool's words and with the number of waiters."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out connections: {self.checkedout()} "
            f"Waiting: {len(self._waiters)}"
        )

    def size(self) -> int:
        """Return `pool_size`; 0 means no limit."""
        return self._size

    def timeout(self) -> float | None:
        """Return the longest wait in s; None means for ever."""
        return self._timeout

    def checkedin(self) -> int:
        """Return the number of slots whose connection nobody has borrowed."""
        return len(self._idle) + len(self._vacant)

    def checkedout(self) -> int:
        """Return the number of slots in use: lent, or their connection being opened or closed."""
        return self._slots.taken - self.checkedin()

    def overflow(self) -> int:
        """Return slots taken minus `pool_size`, negative while the pool is not full; 0 without limit."""
        return self._slots.taken - self._size if self._size else 0

    def waiting(self) -> int:
        """Return the number of greenlets in the queue."""
        return len(self._waiters)

    def estimated_wait_ns(self) -> int:
        """Return what a newcomer will probably wait, 0 if something is free."""
        limit = self._slots.limit
        if limit is None or not self._waiters and (self.checkedin() or self._slots.taken < limit):
            return 0
        return round((len(self._waiters) + 1) * self._stats.recent_hold_ns() / limit)

    def snapshot(self) -> PoolSnapshot:
        """Return gauges, counters and histograms as they are now."""
        stats = self._stats
        wait = stats.wait.freeze()
        closed = dict(stats.closed)
        closed["invalidated"] = max(0, stats.total_closed - sum(closed.values()))
        return PoolSnapshot(
            size=self._size,
            limit=self._slots.limit,
            in_use=self.checkedout(),
            idle=self.checkedin(),
            waiting=len(self._waiters),
            connecting=stats.connecting,
            estimated_wait_ns=self.estimated_wait_ns(),
            checkouts=stats.checkouts,
            handed_over=stats.handed_over,
            created=stats.created,
            closed=closed,
            connect_errors=stats.connect_errors,
            timeouts=stats.timeouts,
            cancelled=stats.cancelled,
            rejected=stats.rejected,
            deadlocks=stats.deadlocks,
            wait=stats.wait.freeze(zeros=max(0, stats.checkouts - wait.count)),
            connect=stats.connect.freeze(),
            hold=stats.hold.freeze(),
        )

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def _start_housekeeping(self) -> None:
        """Have the event loop of this thread look after the pool; the timer keeps neither loop nor pool alive."""
        wanted = self._min_size or self._max_lifetime or self._idle_timeout or self._leak_threshold
        if not wanted or self._retired:
            return
        interval = self._maintenance_interval
        self._keeper = gevent.get_hub().loop.timer(interval, interval, ref=False)
        self._keeper.start(_tick, weakref.ref(self), self._keeper)

    def _stop_housekeeping(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
            keeper.close()

    def _keep_house(self) -> None:
        """One round, in a greenlet of its own: close what is too old, fill up, report leaks."""
        if self._keeping:
            return
        self._keeping = True
        try:
            self._close_old()
            self._fill_up()
            self._report_leaks()
        finally:
            self._keeping = False

    def _close_old(self) -> None:
        idle_ns = _NEVER_NS if self._idle_timeout is None else self._idle_timeout * 1e9
        for record in list(self._idle):
            now_ns = _clock_ns()
            too_old = now_ns >= record.expires_ns
            too_idle = now_ns - record.since_ns >= idle_ns and self._open_count() > self._min_size
            if (too_old or too_idle) and self._claim(record):
                self._discard(record, "lifetime" if too_old else "idle")

    def _open_count(self) -> int:
        return self._slots.taken - len(self._vacant)

    def _fill_up(self) -> None:
        """Open connections up to `min_size`; the first failure ends the round."""
        generation = self._generation
        while self._open_count() < self._min_size and generation == self._generation:
            record = self._take_vacant()
            if record is None:
                return
            try:
                record.get_connection()
            except Exception as error:
                self.logger.warning("FairPool could not open a connection in reserve: %s", error)
                return
            finally:
                self._do_return_conn(record)

    def _report_leaks(self) -> None:
        if self._leak_threshold is None:
            return
        for record in list(self._records):
            stack, held_ns = record.stack, _clock_ns() - record.since_ns
            if record.lent and stack is not None and held_ns > self._leak_threshold * 1e9:
                record.stack = None
                where = "".join(stack.format())
                self.logger.warning("A connection is lent for %.1f s now, borrowed here:\n%s", held_ns / 1e9, where)

    def _forget(self) -> None:
        """In a forked child: start empty. The parent's sessions are neither used, rolled back nor closed here."""
        for record in list(self._records):
            _THE_PARENTS.append(record.dbapi_connection)
            record.dbapi_connection = None
            fairy = record.fairy_ref() if record.fairy_ref is not None else None
            if fairy is not None:
                fairy.dbapi_connection = None
        for queue in (self._idle, self._vacant, self._waiters):
            queue.clear()
        self._disarm()
        self._stop_housekeeping()
        self._start_empty()


def _tick(pool_ref: weakref.ref[FairPool], timer: Any) -> None:
    pool = pool_ref()
    if pool is None:
        timer.stop()
        timer.close()
    else:
        gevent.spawn_raw(pool._keep_house)


_POOLS: weakref.WeakSet[FairPool] = weakref.WeakSet()
_THE_PARENTS: list[Any] = []  # connections that a forked child must keep from being collected, and thereby closed


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


os.register_at_fork(after_in_child=_forget_all)
