"""A simulation in progress: servers that borrow database connections from their pools, one event after the other. Pure.

The model. A request arrives at one of S servers, chosen at random, and asks that server's pool for a connection. If one is
idle, the request gets it at once. If fewer than size + overflow are open, it opens one, which takes the connecting time.
Otherwise it waits, unless `max_waiting` requests wait already: then it is shed. A request that has waited for `timeout_s` gives
up. A request holds its connection for a time given with it. A returned connection goes to the first waiter; if nobody waits it
becomes idle, or is closed if `size` are idle already.

fifo     a returned connection belongs to the first waiter from that instant on; the waiter runs `wake_s` later
barging  a returned connection is free for `wake_s`, until the first waiter runs; a request that asks in between gets it, and
         the waiter goes back to the end of the queue (SQLAlchemy's QueuePool under gevent)

The database has C cores, and a hold keeps a core busy for a share f of its time. While n holds are under way and n f > C,
all of them go on at C / (n f) of their speed: processor sharing (Kleinrock, Queueing Systems II, 1976, section 4.4). A part
of a hold that needs no core slows down with the rest, which is what a closed network of C cores and n holds does on average
once the cores are busy all the time: they finish C / f holds' worth of work per second, however many are under way.
Connecting is work as a hold is, so a storm of connects slows itself down.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Literal

HandOver = Literal["fifo", "barging"]

SERVED, TIMED_OUT, SHED = range(3)
"""The ways in which a request can end."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The servers, their pools and the database. Raises ValueError for impossible values."""

    servers: int = 1
    size: int = 10
    """Connections that each server's pool keeps."""
    max_overflow: int = 0
    """Connections beyond `size`, which are closed on return; -1 means no limit."""
    timeout_s: float = inf
    """Longest wait for a connection."""
    max_waiting: int | None = None
    """Most requests that may wait at each server; None means no limit."""
    hand_over: HandOver = "fifo"
    wake_s: float = 0.0
    """Time from a return until the waiter runs: one pass of the event loop."""
    db_cores: float = inf
    db_share: float = 1.0
    """The share of a hold during which it keeps a core of the database busy."""
    cold: bool = False
    """Whether to start without open connections, as after a deployment."""
    slots: int | None = None
    """Requests that each server works on at a time; None means no limit."""
    turn_s: float = inf
    """How long a request waits for the CPU before it interrupts another one's work."""
    cores: float = inf
    """Cores that the servers share, where their CPU time is given."""
    statements: int = 1
    """Equal parts of a hold at the database, between which the request computes, where the servers' CPU time is given."""
    prefers_first: bool = False
    """Whether a new request always goes to the first server whose CPU is idle, where their CPU time is given; else to any."""

    def __post_init__(self) -> None:
        if self.servers < 1 or self.size < 0 or self.limit < 1 or self.statements < 1:
            raise ValueError(f"{self.servers} servers with {self.size} + {self.max_overflow} connections serve nobody")
        if not (
            self.timeout_s >= 0 and self.wake_s >= 0 and min(self.db_cores, self.cores) > 0 and 0 <= self.db_share <= 1
        ):
            raise ValueError("times must not be negative, cores more than 0, and a share between 0 and 1")

    @property
    def limit(self) -> float:
        """Most connections that each server may have open."""
        return inf if self.max_overflow < 0 else self.size + self.max_overflow


class SharedCores:
    """Cores that are shared by all work under way, which is holds or servers. `work_s` is the work that one under way since
    the start would have done; the heap is ordered by it.
    """

    __slots__ = ("broken_off", "busy", "full_at", "now_s", "work_s")

    def __init__(self, full_at: float) -> None:
        # The number of pieces of work under way that keep all cores busy.
        self.full_at = full_at
        self.now_s = self.work_s = 0.0
        # A heap of (work_s at its end, number of the request or server).
        self.busy: list[tuple[float, int]] = []
        # A heap of those in it that no longer count.
        self.broken_off: list[tuple[float, int]] = []

    def next_end_s(self) -> float:
        """When the next piece of work ends if none begins before; infinite without any."""
        while self.broken_off and self.broken_off[0] == self.busy[0]:
            heappop(self.broken_off)
            heappop(self.busy)
        if not self.busy:
            return inf
        left_s, number = self.busy[0][0] - self.work_s, len(self.busy) - len(self.broken_off)
        return self.now_s + (left_s * number / self.full_at if number > self.full_at else left_s)

    def advance(self, to_s: float) -> None:
        """Advance the clock, at most to the end of the next piece of work."""
        passed_s, number = to_s - self.now_s, len(self.busy) - len(self.broken_off)
        self.work_s += passed_s * self.full_at / number if number > self.full_at else passed_s
        self.now_s = to_s

    def finish(self, at_s: float) -> int:
        """End the piece of work whose end is the next, and return its number."""
        self.now_s = at_s
        self.work_s, number = heappop(self.busy)
        return number

    def begin(self, number: int, work_s: float) -> None:
        """Begin a piece of work that takes so long when it has a core to itself."""
        heappush(self.busy, (self.work_s + work_s, number))

    def break_off(self, number: int, until_s: float) -> None:
        """Take back a piece of work that would end at this value of `work_s`."""
        heappush(self.broken_off, (until_s, number))


class PoolModel:
    """The connections of one server. With fifo, some are idle only while nobody waits."""

    __slots__ = ("idle", "opened", "queue")

    def __init__(self, opened: int) -> None:
        self.idle = self.opened = opened
        # Requests that have given up stay in the queue until they are looked at.
        self.queue: deque[int] = deque()


class SimulationCourse:
    """A simulation in progress. After each call of a method, everything that was due has happened."""

    def __init__(
        self, arrangement: Arrangement, arrived_s: list[float], holds_s: list[float], connects_s: list[float]
    ) -> None:
        self._arrived_s, self._holds_s, self._connects_s = arrived_s, holds_s, connects_s
        self._size, self._limit = arrangement.size, arrangement.limit
        self._timeout_s, self._wake_s = arrangement.timeout_s, arrangement.wake_s
        self._max_waiting = inf if arrangement.max_waiting is None else arrangement.max_waiting
        self._is_fifo = arrangement.hand_over == "fifo"
        share = arrangement.db_share
        self._database = SharedCores(arrangement.db_cores / share if share else inf)
        self._pools = [PoolModel(0 if arrangement.cold else arrangement.size) for _ in range(arrangement.servers)]
        self._pool_of: list[PoolModel] = []
        # With barging: (when it runs, waiter), in order of time.
        self._woken: deque[tuple[float, int]] = deque()
        self.granted_s = list(arrived_s)
        self.ended_s = list(arrived_s)
        self.fates = bytearray(len(arrived_s))
        # The instants of asking, from which a wait is counted.
        self.asked_s = self._arrived_s

    def run(self, servers: list[int]) -> None:
        """Run all requests; `servers` holds the server of each."""
        self._pool_of = [self._pools[server] for server in servers]
        catch_up, ask = self._catch_up, self._ask
        for request, at_s in enumerate(self._arrived_s):
            catch_up(at_s)
            ask(request, at_s)
        catch_up(inf)

    def _catch_up(self, until_s: float) -> None:
        """Process everything that is due by an instant."""
        database, woken = self._database, self._woken
        while True:
            end_s = database.next_end_s()
            if woken and woken[0][0] < end_s and woken[0][0] <= until_s:
                at_s, waiter = woken.popleft()
                database.advance(at_s)
                self._wake(waiter, at_s)
            elif end_s <= until_s and end_s < inf:
                self._give_back(database.finish(end_s), end_s)
            else:
                break
        if until_s < inf:
            database.advance(until_s)

    def _ask(self, request: int, now_s: float) -> None:
        pool = self._pool_of[request]
        if pool.idle:
            pool.idle -= 1
            self._begin_hold(request, 0.0, now_s)
        elif pool.opened < self._limit:
            pool.opened += 1
            self._begin_hold(request, self._connects_s[request], now_s)
        elif len(pool.queue) < self._max_waiting or self._waiting(pool, now_s) < self._max_waiting:
            pool.queue.append(request)
        else:
            self.fates[request] = SHED

    def _begin_hold(self, request: int, connect_s: float, _now_s: float) -> None:
        """Begin a hold, with `connect_s` of other work before it."""
        self._database.begin(request, connect_s + self._holds_s[request])

    def _waiting(self, pool: PoolModel, now_s: float) -> int:
        """Count the waiting requests, without those that have given up."""
        latest_s = now_s - self._timeout_s
        # With fifo, requests give up in order of arrival.
        if self._is_fifo:
            while pool.queue and self.asked_s[pool.queue[0]] <= latest_s:
                self._give_up(pool.queue.popleft())
        else:
            for waiter in [waiter for waiter in pool.queue if self.asked_s[waiter] <= latest_s]:
                pool.queue.remove(waiter)
                self._give_up(waiter)
        return len(pool.queue)

    def _give_up(self, waiter: int) -> None:
        self.granted_s[waiter] = self.ended_s[waiter] = self.asked_s[waiter] + self._timeout_s
        self.fates[waiter] = TIMED_OUT

    def _give_back(self, request: int, now_s: float) -> None:
        self.ended_s[request] = now_s
        pool, latest_s = self._pool_of[request], now_s - self._timeout_s
        while pool.queue:
            waiter = pool.queue.popleft()
            if self.asked_s[waiter] <= latest_s:
                self._give_up(waiter)
            elif self._is_fifo:
                self.granted_s[waiter] = now_s + self._wake_s
                self._begin_hold(waiter, self._wake_s, now_s)
                return
            else:
                self._woken.append((now_s + self._wake_s, waiter))
                break
        if pool.idle < self._size:
            pool.idle += 1
        else:
            pool.opened -= 1

    def _wake(self, waiter: int, now_s: float) -> None:
        """Run a waiter of a barging pool; the connection it was woken for may be gone."""
        pool = self._pool_of[waiter]
        if pool.idle or pool.opened < self._limit:
            self.granted_s[waiter] = now_s
            self._ask(waiter, now_s)
        elif self.asked_s[waiter] + self._timeout_s <= now_s:
            self._give_up(waiter)
        else:
            pool.queue.append(waiter)
