"""A fair connection pool for gevent: whoever began to wait first is served first.

`FairPool` is a `poolclass` for SQLAlchemy 2.0 and 2.1 with QueuePool's arguments and methods. Where QueuePool puts a
returned connection on a shared shelf and calls for the oldest waiter, so that anybody who runs before that waiter can
take it, FairPool hands it over: from the moment it is returned it belongs to the greenlet at the head of the queue.

Rules of this file
------------------
1.  A *resource* is a slot: the right to have one connection, as a record, open or not. It rests only while nobody
    waits: whoever puts one back looks at the queue afterwards, whoever joins the queue looks for resources afterwards.
    So no order of events leaves both a waiter and something to give him.
2.  The queue is the decision. A waiter is served by whoever takes him off the queue, and gives up (timeout, kill) by
    taking himself off. The deque allows exactly one of the two.
3.  A served waiter finds his resource in `granted`. If he died meanwhile, whoever pops it from there passes it on.
4.  Every step that changes the books is one operation that CPython does not interrupt (append, pop, remove), and the
    books are right after each. There is no lock and no "busy" flag. Hence all of this is safe when a garbage collection
    in the middle of these lines rolls back a forgotten connection and with that *switches greenlets*, and when
    connections come back in other native threads.
5.  What can switch (connect, close, listeners) runs while its slot is taken and nothing else is held: a slot is taken
    before connecting starts and given back after closing ended.
6.  Any exception, BaseException above all, can come out of what switches: each such place gives back what it holds.

Statistics are plain `+= 1`: exact among greenlets, approximate if several native threads share the pool.
All clocks are `time.monotonic_ns`, except SQLAlchemy's own `starttime`.
"""

# ruff: noqa: SLF001, BLE001 - the classes here and SQLAlchemy's pool know each other's insides; kills are BaseExceptions

from __future__ import annotations

import inspect
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
from gevent import _hub_local
from gevent.hub import RawGreenlet  # type: ignore[attr-defined]
from sqlalchemy import exc, util
from sqlalchemy.engine import Connection
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord, _finalize_fairy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

__all__ = [
    "CannotWait",
    "Checkout",
    "FairPool",
    "Histogram",
    "PoolDeadlock",
    "PoolSnapshot",
    "QueueFull",
    "checkout_of",
]

_clock_ns = time.monotonic_ns
_unpatched: Callable[..., Any] = gevent.monkey.get_original
_native_thread: Callable[[], int] = _unpatched("_thread", "get_ident")
_native_lock: Callable[[], Any] = _unpatched("_thread", "allocate_lock")
_hub_if_exists: Callable[[], Any] = _hub_local.get_hub_if_exists
_current: Callable[[], Any] = gevent.getcurrent
_get_hub: Callable[[], Any] = gevent.get_hub
_spawn: Callable[..., Any] = gevent.spawn_raw
_switch_to: Callable[[Any], Any] = (
    RawGreenlet.switch
)  # straight into the hub: nothing in between that could collect garbage
_NEVER_NS = 1 << 63

BOUNDS_NS = (0, *(round(1000 * 2 ** (step / 4)) for step in range(109)))
"""Upper bounds of the histograms' buckets: 0, then 1 us to 134 s, four to the octave (a quantile is within 19 %)."""


class QueueFull(exc.TimeoutError):
    """`max_waiting` greenlets wait already; this one was refused at once. A web service answers 503."""


class PoolDeadlock(exc.TimeoutError):
    """Every connection is held by a greenlet that itself waits for one: no wait could ever end."""


class CannotWait(exc.InvalidRequestError):
    """Nothing is free, and here one cannot wait: the waiters live in another native thread's event loop, or this is a
    callback of the event loop itself.
    """


@dataclass(frozen=True, slots=True)
class Checkout:
    """What one loan has cost so far, in ns.

    wait_ns: from asking to being given a connection or the right to open one; 0 if it was there at once.
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
        """Return the bucket bound at or above quantile `q` (0..1): too large by at most 19 %; 0 when empty."""
        rank = q * self.count
        for bound_ns, count in zip(BOUNDS_NS, self.counts, strict=False):
            rank -= count
            if rank <= 0:
                return bound_ns
        return BOUNDS_NS[-1]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at one moment: gauges, counters since the pool was made (or the process forked), histograms.

    limit is pool_size + max_overflow, None when unlimited. in_use counts slots whose connection is lent, being opened
    or being closed; connecting is the part being opened. estimated_wait_ns: see `FairPool.estimated_wait_ns`.
    closed tells why: overflow, idle, lifetime, disposed, and invalidated for all that SQLAlchemy closes by itself
    (invalidation, recycle, a failed listener).
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
    connect_errors: int
    timeouts: int
    cancelled: int
    rejected: int
    deadlocks: int
    closed: Mapping[str, int]
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
        return Histogram((self.counts[0] + zeros, *self.counts[1:]), self.total_ns)


class _Stats:
    """What the pool counts. `rare` holds the counters that are not on the way of every checkout."""

    __slots__ = ("checkouts", "closed", "closed_in_all", "connect", "handed_over", "hold", "hold_mark", "rare", "wait")

    def __init__(self) -> None:
        self.checkouts = self.handed_over = self.closed_in_all = 0
        names = ("connecting", "created", "connect_errors", "timeouts", "cancelled", "rejected", "deadlocks")
        self.rare = dict.fromkeys(names, 0)
        self.closed: Counter[str] = Counter()  # for the pool's own reasons; the rest is SQLAlchemy's
        self.wait, self.connect, self.hold = _Recorder(), _Recorder(), _Recorder()
        self.hold_mark = (0, 0, 0.0)

    def recent_hold_ns(self) -> float:
        """The mean hold of the last 100 loans or more, counted from one call to a later one."""
        count, total_ns = sum(self.hold.counts), self.hold.total_ns
        marked_count, marked_ns, mean_ns = self.hold_mark
        new = count - marked_count
        if new >= 100 or (new and not marked_count):
            mean_ns = (total_ns - marked_ns) / new
        if new >= 100:
            self.hold_mark = (count, total_ns, mean_ns)
        return mean_ns


def _removed(queue: deque[Any], item: Any) -> bool:
    """Take this one out of the queue. False: somebody else has (rules 2 and 4)."""
    try:
        queue.remove(item)
    except ValueError:
        return False
    return True


def _stop_timer(timer: Any) -> None:
    if timer is not None:
        timer.stop()
        timer.close()


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
        self.holder: Any = None
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
    """A greenlet in the queue. `granted` is its letter-box (rule 3); it sleeps on its hub, or without gevent on `bell`."""

    __slots__ = ("bell", "deadline_ns", "expired", "gone", "granted", "greenlet", "hub", "parked", "since_ns")

    def __init__(self, timeout_ns: int | None) -> None:
        self.greenlet = _current()
        self.hub: Any = None
        self.bell: Any = None
        self.granted: list[_Record] = []
        self.parked = self.expired = self.gone = False
        self.since_ns = _clock_ns()
        self.deadline_ns = _NEVER_NS if timeout_ns is None else self.since_ns + timeout_ns

    def wake(self) -> None:
        """Run by the hub. Not parked: it died, or it is awake and will look into `granted` by itself."""
        if self.parked:
            self.greenlet.switch()

    def notify(self) -> None:
        """Have it wake up soon, from whatever thread; it is called once, by whoever took it off the queue."""
        hub = self.hub
        if hub is None:
            if self.bell is not None:
                self.bell.release()
        elif _native_thread() == hub.thread_ident:
            hub.loop.run_callback(self.wake)
        else:
            hub.loop.run_callback_threadsafe(self.wake)

    def sleep(self) -> None:
        """Sleep until notified; without gevent also until the deadline.

        From the look into `granted` to the switch nothing can collect garbage or let another thread in, so a wake-up
        comes either before the look, or when `parked` is true.
        """
        if self.bell is not None:
            seconds = -1 if self.deadline_ns == _NEVER_NS else max(0.0, (self.deadline_ns - _clock_ns()) / 1e9)
            self.bell.acquire(timeout=seconds)
        elif not self.granted and not self.expired:
            self.parked = True
            _switch_to(self.hub)
            self.parked = False


class _Finalizer(weakref.ref["_Loan"]):
    """Brings back the connection of a forgotten loan; a quarter of the price of `weakref.finalize`."""

    __slots__ = ("record",)
    record: _Record | None

    def detach(self) -> None:
        self.record = None

    def loan_is_gone(self) -> None:
        if self.record is not None and not sys.is_finalizing():
            _finalize_fairy(None, self.record, self.record.pool, False, is_gc_cleanup=True)


class _Loan(_ConnectionFairy):
    """SQLAlchemy's proxy of a lent connection, made in a third of the time."""

    __slots__ = ()

    def __init__(self, pool: FairPool, connection: DBAPIConnection, record: _Record, echo: bool) -> None:
        self._pool = pool
        self._counter = 0
        self.dbapi_connection = connection
        self._connection_record = record
        self._echo = echo
        finalizer = _Finalizer(self, _Finalizer.loan_is_gone)
        finalizer.record = record
        self._finalizer = record.fairy_ref = finalizer  # type: ignore[assignment]


# `_Loan` stands in for what SQLAlchemy does in its checkout only as long as that is what it was written for.
_STOCK_CHECKOUT = _ConnectionRecord.__dict__["checkout"]
_KNOWN_SQLALCHEMY = "_finalizer" in _ConnectionFairy.__slots__ and list(
    inspect.signature(_finalize_fairy).parameters
) == ["dbapi_connection", "connection_record", "pool", "echo", "transaction_was_reset", "fairy", "is_gc_cleanup"]


class FairPool(Pool):
    """A pool of at most `pool_size + max_overflow` connections with a strict queue in front of it.

    Greenlets of one native thread may wait: the first thread with an event loop that had to. Where gevent is not in
    play, plain threads may. All may borrow what is free, and return. `connect()` raises whatever connecting raised, in
    the greenlet that was connecting; `sqlalchemy.exc.TimeoutError` (code 3o7r) after `timeout` s, never earlier; its
    subclasses `QueueFull` and `PoolDeadlock` at once; `CannotWait` instead of waiting in a second native thread.

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
        self._remembers = detect_deadlock or leak_threshold is not None
        self._start_empty()
        _POOLS.add(self)

    def _start_empty(self) -> None:
        self._idle: deque[_Record] = deque()  # live connections; the longest idle at the left
        self._vacant: deque[_Record] = deque()  # records that have to reconnect
        self._waiters: deque[_Waiter] = deque()
        self._take_idle = self._idle.pop if self._use_lifo else self._idle.popleft
        self._limit = None if self._max_overflow == -1 else self._size + self._max_overflow
        self._free: list[None] = [None] * (self._limit or 0)  # the slots not taken, where there is a limit
        self._records: set[_Record] = set()  # one for each slot taken
        self._stats = _Stats()
        self._keep = self._size or sys.maxsize  # so many records rest here; 0 after engine.dispose()
        self._generation = 0  # counts dispose()
        self._owner: int | None = None  # the native thread whose event loop the waiters sleep on
        self._timer: Any = None  # for the deadline of the head of the queue
        self._keeper: Any = None  # the timer of housekeeping
        self._keeping = False

    # -- borrowing ---------------------------------------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Lend a connection; its `close()` returns it. Raises as the class says."""
        if not _KNOWN_SQLALCHEMY or _ConnectionRecord.__dict__["checkout"] is not _STOCK_CHECKOUT:
            return super().connect()
        record = self._do_get()
        try:
            connection = record.get_connection()
        except BaseException as error:
            with util.safe_reraise():
                record._checkin_failed(error, _fairy_was_created=False)
        echo = self._should_log_debug()
        loan = _Loan(self, connection, record, echo)
        if echo:
            self.logger.debug("Connection %r checked out from pool", connection)
        if self._pre_ping or self.dispatch.checkout:
            return _ConnectionFairy._checkout(self, fairy=loan)
        loan._counter = 1
        return loan

    def _do_get(self) -> _Record:
        record = None
        if not self._waiters:
            try:
                record = self._take_idle()
            except IndexError:
                pass
            else:
                record.wait_ns = 0
        if record is None:
            record = self._get_slowly()
        self._stats.checkouts += 1
        record.lent = True
        record.connect_ns = 0
        record.since_ns = _clock_ns()
        if self._remembers:
            self._remember_borrower(record)
        if not record.starttime:
            self._connect_first(record)
        return record

    def _get_slowly(self) -> _Record:
        """Take the right to connect if nobody waits, else wait."""
        record = None if self._waiters else self._take_vacant()
        if record is None:
            return self._wait()
        record.wait_ns = 0
        self._keep = self._size or sys.maxsize  # a newcomer: so the pool is in use again after dispose()
        return record

    def _take_vacant(self) -> _Record | None:
        try:
            return self._vacant.pop()
        except IndexError:
            pass
        if self._limit is not None:
            try:
                self._free.pop()
            except IndexError:
                return None
        record = _Record(self)
        self._records.add(record)
        return record

    def _connect_first(self, record: _Record) -> None:
        """Open a new record's connection here: if it failed later, SQLAlchemy would fire "checkin" for it."""
        try:
            record.get_connection()
        except BaseException:
            self._drop(record)
            raise

    def _connecting(self, record: _Record, connect: Callable[[], DBAPIConnection]) -> DBAPIConnection:
        rare, generation, began_ns = self._stats.rare, self._generation, _clock_ns()
        rare["connecting"] += 1
        try:
            connection = connect()
        except BaseException:
            rare["connect_errors"] += 1
            record.lent = False
            raise
        finally:
            rare["connecting"] -= 1
        now_ns = _clock_ns()
        rare["created"] += 1
        self._stats.connect.add(now_ns - began_ns)
        record.connect_ns += now_ns - began_ns
        record.since_ns = now_ns
        record.expires_ns = now_ns + self._lifetime_ns() if generation == self._generation else 0
        if self._keeper is None and self._keep:
            self._start_housekeeping()
        return connection

    def _lifetime_ns(self) -> int:
        if self._max_lifetime is None:
            return _NEVER_NS
        return round(self._max_lifetime * (1 - self._lifetime_jitter * random.random()) * 1e9)

    def _remember_borrower(self, record: _Record) -> None:
        record.holder = _current()
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
            self._sleep_until_granted(waiter)
            record = waiter.granted.pop()
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            if self._timer is not None and waiter.hub is not None and not self._waiters:
                self._disarm()
        record.wait_ns = _clock_ns() - waiter.since_ns
        self._stats.wait.add(record.wait_ns)
        return record

    def _sleep_until_granted(self, waiter: _Waiter) -> None:
        while not waiter.granted:
            if waiter.expired:
                raise self._timed_out()
            waiter.sleep()
            if waiter.bell is not None and _clock_ns() >= waiter.deadline_ns and _removed(self._waiters, waiter):
                waiter.expired = True

    def _admit(self, waiter: _Waiter) -> None:
        """Let it sleep, or raise at once the reason why it may not."""
        rare = self._stats.rare
        if self._max_waiting is not None and len(self._waiters) > self._max_waiting and _removed(self._waiters, waiter):
            rare["rejected"] += 1
            raise QueueFull(f"FairPool: {self._max_waiting} wait already, no more may. {self.status()}")
        if self._timeout_ns is not None and self._timeout_ns <= 0 and _removed(self._waiters, waiter):
            raise self._timed_out()
        if self._detect_deadlock and self._is_deadlocked() and _removed(self._waiters, waiter):
            rare["deadlocks"] += 1
            raise PoolDeadlock(f"FairPool: every connection is held by a greenlet that waits here. {self.status()}")
        try:
            waiter.hub = self._hub_to_sleep_on()
        except CannotWait:
            if _removed(self._waiters, waiter):
                raise
        if waiter.hub is None:
            waiter.bell = _native_lock()
            waiter.bell.acquire()
        elif self._timer is None and waiter.deadline_ns < _NEVER_NS:
            self._arm(waiter.hub, waiter.deadline_ns - waiter.since_ns)

    def _hub_to_sleep_on(self) -> Any:
        """Return this thread's hub, None where gevent is not in play."""
        me, hub = _native_thread(), _hub_if_exists()
        if me != self._owner:
            if self._owner in sys._current_frames():
                raise CannotWait(
                    "FairPool: no connection is free, and those who wait for one live in another native thread's event "
                    "loop. Wait in that thread only, or give each thread an engine of its own."
                )
            self._owner = None if hub is None else me
        if hub is not None and _current() is hub:
            raise CannotWait("FairPool: no connection is free, and a callback of the event loop cannot wait for one.")
        return hub

    def _is_deadlocked(self) -> bool:
        waiting = {waiter.greenlet for waiter in self._waiters}
        holders = [record.holder for record in list(self._records) if record.lent]
        return len(holders) == len(self._records) and waiting.issuperset(holders)

    def _timed_out(self) -> exc.TimeoutError:
        self._stats.rare["timeouts"] += 1
        return exc.TimeoutError(
            f"FairPool limit of size {self._size} overflow {self.overflow()} reached, connection timed out, "
            f"timeout {self._timeout:0.2f}",
            code="3o7r",
        )

    def _abandon(self, waiter: _Waiter) -> None:
        """Its greenlet goes elsewhere with an exception: nobody may wake it there, and a grant goes to the next."""
        waiter.parked = False
        waiter.gone = True
        if _removed(self._waiters, waiter) or self._reclaim(waiter):
            self._stats.rare["cancelled"] += 1

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
        that the waiter is the oldest at that moment, and what came in between is seen in the next round.
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
        _stop_timer(timer)

    def _expire(self) -> None:
        """Run by the hub when the head of the queue is due."""
        self._disarm()
        now_ns = _clock_ns()
        for waiter in list(self._waiters):
            if waiter.deadline_ns > now_ns:
                self._arm(_get_hub(), waiter.deadline_ns - now_ns)
                return
            if _removed(self._waiters, waiter):
                waiter.expired = True
                waiter.notify()

    # -- returning ---------------------------------------------------------------------------------------------------

    def _do_return_conn(self, record: _Record) -> None:  # type: ignore[override]
        now_ns = _clock_ns()
        if record.lent:
            record.lent = False
            held_ns, hold = now_ns - record.since_ns, self._stats.hold
            hold.counts[bisect_left(BOUNDS_NS, held_ns)] += 1  # as `add`, written out: every loan comes by here
            hold.total_ns += held_ns
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

    _return_conn = _do_return_conn  # type: ignore[assignment] # SQLAlchemy's only calls the other

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
            self._discard(record, "overflow" if self._keep else "disposed")

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
        if self._limit is not None:
            self._free.append(None)
        if self._waiters:
            self._match()

    def _close_connection(self, connection: DBAPIConnection, *args: Any, **kw: Any) -> None:
        self._stats.closed_in_all += 1
        super()._close_connection(connection, *args, **kw)

    def _invalidate(
        self, connection: PoolProxiedConnection, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """As in Pool, and put what has become stale behind what is live."""
        super()._invalidate(connection, exception, _checkin=False)
        for record in list(self._idle):
            if record.is_stale() and _removed(self._idle, record):
                self._do_return_conn(record)
        if _checkin and getattr(connection, "is_valid", False):
            connection.invalidate(exception)

    # -- the pool as a whole -----------------------------------------------------------------------------------------

    def recreate(self) -> FairPool:
        """Return a new pool with the same parameters and listeners; a disposed pool then keeps nothing any more."""
        self.logger.info("Pool recreating")
        if self._generation and not self._idle:
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
        """Close the idle connections now and the lent ones when they return; waiters are served by new ones.

        Never more than the limit, old and new together. `engine.dispose()` makes a new pool beside this one, which
        drains by itself: for a moment the two may have twice the limit.
        """
        self._generation += 1
        for record in list(self._records):
            record.expires_ns = 0
        self._stop_housekeeping()
        for shelf in (self._idle, self._vacant):
            for record in list(shelf):
                if _removed(shelf, record):
                    self._discard(record, "disposed")
        self.logger.info("Pool disposed. %s", self.status())

    def status(self) -> str:
        """Return the gauges as a line, in QueuePool's words and with the number of waiters."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out connections: {self.checkedout()} "
            f"Waiting: {self.waiting()}"
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
        return len(self._records) - self.checkedin()

    def overflow(self) -> int:
        """Return slots taken minus `pool_size`, negative while the pool is not full; 0 without limit."""
        return len(self._records) - self._size if self._size else 0

    def waiting(self) -> int:
        """Return the length of the queue."""
        return len(self._waiters)

    def estimated_wait_ns(self) -> int:
        """Return what a newcomer will probably wait: 0 if something is free, else (waiting + 1) x mean hold / limit."""
        if self._limit is None or (not self._waiters and (self._free or self.checkedin())):
            return 0
        return round((len(self._waiters) + 1) * self._stats.recent_hold_ns() / self._limit)

    def snapshot(self) -> PoolSnapshot:
        """Return gauges, counters and histograms as they are now."""
        stats, closed = self._stats, dict(self._stats.closed)
        closed["invalidated"] = max(0, stats.closed_in_all - sum(closed.values()))
        return PoolSnapshot(
            size=self._size,
            limit=self._limit,
            in_use=self.checkedout(),
            idle=self.checkedin(),
            waiting=self.waiting(),
            estimated_wait_ns=self.estimated_wait_ns(),
            checkouts=stats.checkouts,
            handed_over=stats.handed_over,
            closed=closed,
            wait=stats.wait.freeze(zeros=max(0, stats.checkouts - sum(stats.wait.counts))),
            connect=stats.connect.freeze(),
            hold=stats.hold.freeze(),
            **stats.rare,
        )

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def _start_housekeeping(self) -> None:
        """Have this thread's event loop look after the pool; the timer keeps neither the loop nor the pool alive."""
        if self._min_size or self._max_lifetime or self._idle_timeout or self._leak_threshold:
            seconds = self._maintenance_interval
            self._keeper = _get_hub().loop.timer(seconds, seconds, ref=False)
            self._keeper.start(_tick, weakref.ref(self), self._keeper)

    def _stop_housekeeping(self) -> None:
        keeper, self._keeper = self._keeper, None
        _stop_timer(keeper)

    def _keep_house(self) -> None:
        """One round, in a greenlet of its own: close what is too old, fill up, report leaks."""
        if not self._keep:
            self._stop_housekeeping()
        if self._keeping or not self._keep:
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
            if (too_old or too_idle) and _removed(self._idle, record):
                self._discard(record, "lifetime" if too_old else "idle")

    def _open_count(self) -> int:
        return len(self._records) - len(self._vacant)

    def _fill_up(self) -> None:
        """Open connections up to `min_size`; the first failure ends the round."""
        generation = self._generation
        while self._open_count() < self._min_size and generation == self._generation:
            record = self._take_vacant()
            if record is None:
                return
            try:
                record.get_connection()
            except Exception as error:  # whatever the driver raises: the next round tries again
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
            loan = record.fairy_ref() if record.fairy_ref is not None else None
            if loan is not None:
                loan.dbapi_connection = None  # type: ignore[assignment]
        self._disarm()
        self._stop_housekeeping()
        self._start_empty()


def _tick(pool_ref: weakref.ref[FairPool], timer: Any) -> None:
    pool = pool_ref()
    if pool is None:
        _stop_timer(timer)
    else:
        _spawn(pool._keep_house)


_POOLS: weakref.WeakSet[FairPool] = weakref.WeakSet()
_THE_PARENTS: list[Any] = []  # connections that a forked child must keep from being collected, and thereby closed


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


os.register_at_fork(after_in_child=_forget_all)
