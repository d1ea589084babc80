"""A discrete-event simulation of servers that borrow database connections from their pools. Pure: numbers in, numbers out.

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

Workers. Where the CPU time of requests is given, each server is one process with one CPU, which runs one request's piece of
work at a time, in order of arrival: half of the work outside a loan comes before the request asks for a connection and half
after it is returned; of the work in a loan, half comes before the database's part of the hold and half after it. A server has
`slots` for requests (one: gunicorn's sync workers; its threads; no limit: gevent); a request that finds none waits in front
of it. With `turn_s`, as under Python's lock, a piece of work that takes longer lets the others go first. A new request goes
to a server whose CPU is idle if there is one, else to any, with a free thread or not; the thread that accepts does half of the
work before it asks. With one slot each, all servers share one line.
A server without a limit of slots is an event loop: it takes the events that have come since it last asked for them, deals with
them one after the other, the latest first (libev's order), then runs the waiters that were woken meanwhile and the requests
that were accepted, and only then asks for events again. Several loops share one line of new connections, and each accepts one
of them whenever it asks for events; a single loop accepts all that have come (gevent's servers under gunicorn).
With more servers computing than the machine has `cores`, all of them go on at a share of their speed, as holds do.
Times are in seconds. All random numbers come from numpy's PCG64: the same seed gives the same outcome.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import inf, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
HandOver = Literal["fifo", "barging"]

SERVED, TIMED_OUT, SHED = range(3)
"""The ways in which a request can end."""

_REQUESTS_OF_USER = 4
"""Requests that each user makes at least, where users ask again and again."""


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
    """Longest piece of work before another request's goes on."""
    cores: float = inf
    """Cores that the servers share, where their CPU time is given."""

    def __post_init__(self) -> None:
        if self.servers < 1 or self.size < 0 or self.limit < 1:
            raise ValueError(f"{self.servers} servers with {self.size} + {self.max_overflow} connections serve nobody")
        if not (
            self.timeout_s >= 0 and self.wake_s >= 0 and min(self.db_cores, self.cores) > 0 and 0 <= self.db_share <= 1
        ):
            raise ValueError("times must not be negative, cores more than 0, and a share between 0 and 1")

    @property
    def limit(self) -> float:
        """Most connections that each server may have open."""
        return inf if self.max_overflow < 0 else self.size + self.max_overflow


@dataclass(frozen=True, slots=True)
class SimulationCounts:
    """How many requests have arrived, and where they are: the other four counts add up to `arrived`."""

    arrived: int
    served: int
    timed_out: int
    shed: int
    in_flight: int
    """Requests that are waiting, connecting or holding a connection."""


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """The outcome of each request, in order of arrival. All requests ran to their end.

    All figures except `counts` cover the requests that arrived from `since_s` on, until the last arrival.
    """

    arrangement: Arrangement
    arrived_s: Floats
    granted_s: Floats
    """When the wait ended: by a connection, by giving up, or, for a shed request, at its arrival."""
    ended_s: Floats
    """When the connection was returned; equal to `granted_s` for requests that got none."""
    fates: NDArray[np.uint8]
    since_s: float = 0.0
    asked_s: Floats | None = None
    """When the request asked for a connection; None: at its arrival."""
    done_s: Floats | None = None
    """When the request was done with; None: when it returned the connection."""

    @property
    def waits_s(self) -> Floats:
        """Waits of the requests that were served, without connecting."""
        return self._of_served(self.granted_s - (self.arrived_s if self.asked_s is None else self.asked_s))

    @property
    def held_s(self) -> Floats:
        """Times from getting a connection, or the right to open one, to returning it."""
        return self._of_served(self.ended_s - self.granted_s)

    @property
    def responses_s(self) -> Floats:
        """Times from arrival to being done with: the return of the connection, or the end of the work after it."""
        return self._of_served((self.ended_s if self.done_s is None else self.done_s) - self.arrived_s)

    @property
    def throughput_per_s(self) -> float:
        """Connections returned per second; nan if all requests arrived at once."""
        given_back = (self.fates == SERVED) & (self.ended_s > self.since_s) & (self.ended_s <= self.arrived_s[-1])
        return int(np.count_nonzero(given_back)) / self._span_s if self._span_s else nan

    @property
    def utilisation(self) -> float:
        """Average share of the possible connections that are lent or being opened."""
        window = (self.since_s, float(self.arrived_s[-1]))
        busy_s = float((np.clip(self.ended_s, *window) - np.clip(self.granted_s, *window)).sum())
        return busy_s / self._span_s / (self.arrangement.servers * self.arrangement.limit) if self._span_s else nan

    def share(self, fate: int) -> float:
        """Return the share of requests that ended in the given way."""
        return float(np.mean(self.fates[self.arrived_s >= self.since_s] == fate))

    def counts(self, at_s: float = inf) -> SimulationCounts:
        """Count where the requests are at an instant."""
        here = self.arrived_s <= at_s
        over = self.ended_s <= at_s
        served, timed_out, shed = (int(np.count_nonzero(over & (self.fates == f))) for f in (SERVED, TIMED_OUT, SHED))
        return SimulationCounts(
            int(np.count_nonzero(here)), served, timed_out, shed, int(np.count_nonzero(here & ~over))
        )

    def _of_served(self, times_s: Floats) -> Floats:
        chosen: Floats = times_s[(self.fates == SERVED) & (self.arrived_s >= self.since_s)]
        return chosen

    @property
    def _span_s(self) -> float:
        return float(self.arrived_s[-1]) - self.since_s


def quantile(values: Floats, q: float) -> float:
    """Return the value of rank q * (count - 1), rounded down, as sketches do; nan without values."""
    return float(np.quantile(values, q, method="lower")) if len(values) else nan


def arrivals(rate_per_s: float, count: int, rng: np.random.Generator, variation: float = 1.0) -> Floats:
    """Draw the instants of `count` arrivals whose distances follow a gamma law.

    `variation`: variance of the distances over their mean squared. 1 is Poisson, 0 a steady beat, more than 1 bursts.
    """
    if variation == 0:
        return np.cumsum(np.full(count, 1 / rate_per_s))
    return np.cumsum(rng.gamma(1 / variation, variation / rate_per_s, count))


@dataclass(frozen=True, slots=True, eq=False)
class CpuTimes:
    """CPU time of the worker for each request, in s."""

    inside_s: Floats
    """While it holds a connection; comes on top of the hold that the simulation is given."""
    outside_s: Floats
    """Before and after."""


def simulate(
    arrangement: Arrangement,
    arrived_s: Floats,
    holds_s: Floats,
    connects_s: ArrayLike = 0.0,
    seed: int = 0,
    cpu: CpuTimes | None = None,
) -> Simulation:
    """Run every request to its end.

    `arrived_s`: instants in order. `holds_s`, `connects_s`: how long each request holds a connection and connecting takes
    when it has the database's cores to itself. `cpu`: None for servers that need no CPU. `seed` determines the choice of
    servers. Raises ValueError if lengths differ, instants go back, or a time is negative.
    """
    connects = np.broadcast_to(np.asarray(connects_s, np.float64), arrived_s.shape)
    if not len(arrived_s) or holds_s.shape != arrived_s.shape:
        raise ValueError(f"{len(arrived_s)} arrivals and {len(holds_s)} holds")
    if min(arrived_s[0], holds_s.min(), connects.min(), np.diff(arrived_s).min(initial=0.0)) < 0:
        raise ValueError("instants must be in order, and no time negative")
    servers = np.random.default_rng(seed).integers(arrangement.servers, size=len(arrived_s)).tolist()
    if cpu is None:
        course = _SimulationCourse(arrangement, arrived_s.tolist(), holds_s.tolist(), connects.tolist())
        course.run(servers)
        return Simulation(
            arrangement,
            arrived_s,
            np.array(course.granted_s),
            np.array(course.ended_s),
            np.frombuffer(course.fates, np.uint8),
        )
    worked = _WorkersCourse(
        arrangement,
        arrived_s.tolist(),
        holds_s.tolist(),
        connects.tolist(),
        cpu.inside_s.tolist(),
        cpu.outside_s.tolist(),
    )
    worked.run(servers)
    return Simulation(
        arrangement,
        arrived_s,
        np.array(worked.granted_s),
        np.array(worked.ended_s),
        np.frombuffer(worked.fates, np.uint8),
        asked_s=np.array(worked.asked_s),
        done_s=np.array(worked.done_s),
    )


def busy_rate_per_s(arrangement: Arrangement, holds_s: Floats, cpu: CpuTimes, users: int, seed: int = 0) -> float:
    """Requests per second that the servers answer to `users` who each ask again when they have their answer: the most they can.

    `holds_s` and `cpu`: of each request, as for `simulate`, and repeated where that is less than some for each user; the last
    requests and the first tenth do not count.
    """
    count = max(len(holds_s), _REQUESTS_OF_USER * users)
    held_s, inside_s, outside_s = (np.resize(each, count).tolist() for each in (holds_s, cpu.inside_s, cpu.outside_s))
    patient = replace(arrangement, timeout_s=inf, max_waiting=None, cold=False)
    course = _ClosedCourse(patient, [0.0] * count, held_s, [0.0] * count, inside_s, outside_s)
    course.run_users(users, np.random.default_rng(seed).integers(arrangement.servers, size=count).tolist())
    done_s = np.sort(course.done_s)
    begins_s, ends_s = done_s[count // 10], course.began_s
    return float(np.count_nonzero((done_s > begins_s) & (done_s <= ends_s)) / (ends_s - begins_s))


class _SharedCores:
    """Cores that are shared by all work under way, which is holds or servers. `work_s` is the work that one under way since
    the start would have done; the heap is ordered by it.
    """

    __slots__ = ("busy", "full_at", "now_s", "work_s")

    def __init__(self, full_at: float) -> None:
        # The number of pieces of work under way that keep all cores busy.
        self.full_at = full_at
        self.now_s = self.work_s = 0.0
        # A heap of (work_s at its end, number of the request or server).
        self.busy: list[tuple[float, int]] = []

    def next_end_s(self) -> float:
        if not self.busy:
            return inf
        left_s, number = self.busy[0][0] - self.work_s, len(self.busy)
        return self.now_s + (left_s * number / self.full_at if number > self.full_at else left_s)

    def advance(self, to_s: float) -> None:
        """Advance the clock, at most to the end of the next piece of work."""
        passed_s, number = to_s - self.now_s, len(self.busy)
        self.work_s += passed_s * self.full_at / number if number > self.full_at else passed_s
        self.now_s = to_s

    def finish(self, at_s: float) -> int:
        """End the piece of work that is due, and return its number."""
        self.now_s = at_s
        self.work_s, number = heappop(self.busy)
        return number

    def begin(self, number: int, work_s: float) -> None:
        heappush(self.busy, (self.work_s + work_s, number))


class _PoolModel:
    """The connections of one server. With fifo, some are idle only while nobody waits."""

    __slots__ = ("idle", "opened", "queue")

    def __init__(self, opened: int) -> None:
        self.idle = self.opened = opened
        # Requests that have given up stay in the queue until they are looked at.
        self.queue: deque[int] = deque()


class _SimulationCourse:
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
        self._database = _SharedCores(arrangement.db_cores / share if share else inf)
        self._pools = [_PoolModel(0 if arrangement.cold else arrangement.size) for _ in range(arrangement.servers)]
        self._pool_of: list[_PoolModel] = []
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

    def _waiting(self, pool: _PoolModel, now_s: float) -> int:
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


@dataclass(slots=True)
class _Worker:
    """One server process: its CPU, and the requests that wait for it or for a slot."""

    free: float
    """Slots that are free."""
    running: tuple[int, int, float] | None = None
    """The piece of work on the CPU: request, stage, and what is left of it after this turn."""
    work: deque[tuple[int, int, float]] = field(default_factory=deque)
    woken: deque[tuple[int, int, float]] = field(default_factory=deque)
    """Of an event loop: pieces of work that come before events which it has not asked for yet."""
    polled: list[tuple[int, int, float]] = field(default_factory=list)
    """Of an event loop: the events that it has asked for; the last one comes first."""
    backlog: deque[int] = field(default_factory=deque)


_ACCEPT, _BEFORE, _IN_FIRST, _IN_LAST, _AFTER = range(5)
"""The pieces of a request's work on the CPU."""


class _WorkersCourse(_SimulationCourse):
    """A simulation whose servers have a CPU each."""

    def __init__(
        self,
        arrangement: Arrangement,
        arrived_s: list[float],
        holds_s: list[float],
        connects_s: list[float],
        inside_s: list[float],
        outside_s: list[float],
    ) -> None:
        super().__init__(arrangement, arrived_s, holds_s, connects_s)
        self._inside_s, self._outside_s = inside_s, outside_s
        self._turn_s = arrangement.turn_s
        self._is_loop = arrangement.slots is None
        slots = inf if arrangement.slots is None else arrangement.slots
        self._workers = [_Worker(slots) for _ in range(arrangement.servers)]
        # One line for all, as a worker takes the next connection from the socket that all listen on. Threaded workers accept
        # more connections than they work on, each for itself.
        accepts_one = slots == 1 or (self._is_loop and arrangement.servers > 1)
        self._shared: deque[int] | None = deque() if accepts_one else None
        self._worker_of = [0] * len(arrived_s)
        self._pool_of = [self._pools[0]] * len(arrived_s)
        self.asked_s = list(arrived_s)
        self.done_s = list(arrived_s)
        # Turns on the CPUs, by server.
        self._turns = _SharedCores(arrangement.cores)
        self._to_connect_s = [0.0] * len(arrived_s)
        self._granted = bytearray(len(arrived_s))

    def run(self, servers: list[int]) -> None:
        """Run all requests; `servers` holds the server of each that finds no idle one."""
        for request, at_s in enumerate(self._arrived_s):
            self._catch_up(at_s)
            self._arrive(request, servers[request], at_s)
        self._catch_up(inf)

    def _catch_up(self, until_s: float) -> None:
        database, woken, turns = self._database, self._woken, self._turns
        while True:
            end_s, turn_s = database.next_end_s(), turns.next_end_s()
            wake_s = woken[0][0] if woken else inf
            next_s = min(end_s, turn_s, wake_s)
            if next_s > until_s or next_s == inf:
                break
            if turn_s == next_s:
                database.advance(turn_s)
                self._end_turn(turns.finish(turn_s), turn_s)
            elif wake_s == next_s:
                _, waiter = woken.popleft()
                database.advance(wake_s)
                turns.advance(wake_s)
                self._wake(waiter, wake_s)
            else:
                turns.advance(end_s)
                request = database.finish(end_s)
                self._compute(request, _IN_LAST, self._inside_s[request] / 2, end_s)
        if until_s < inf:
            database.advance(until_s)
            turns.advance(until_s)

    def _arrive(self, request: int, drawn: int, now_s: float) -> None:
        # Threaded workers accept connections whether a thread is free or not.
        always = self._shared is None
        idle = [number for number, each in enumerate(self._workers) if each.running is None and (always or each.free)]
        server = idle[drawn % len(idle)] if idle else drawn
        worker = self._workers[server]
        if worker.free > 0 and (idle or not self._is_loop or self._shared is None):
            self._start(request, server, now_s)
        elif self._shared is not None:
            self._shared.append(request)
        else:
            worker.backlog.append(request)
            self._worker_of[request] = server

    def _start(self, request: int, server: int, now_s: float) -> None:
        self._compute(*self._accepted(request, server), now_s)

    def _accepted(self, request: int, server: int) -> tuple[int, int, float]:
        """The first piece of work of a request that this server now works on."""
        self._workers[server].free -= 1
        self._worker_of[request] = server
        self._pool_of[request] = self._pools[server]
        return (request, _ACCEPT, 0.0) if self._is_loop else (request, _ACCEPT, self._outside_s[request] / 4)

    def _compute(
        self, request: int, stage: int, work_s: float, now_s: float, *, goes_on: bool = False, woken: bool = False
    ) -> None:
        """Give the CPU of the request's server a piece of work: at once if it `goes_on` or nothing is waiting, else in turn.

        An event loop deals with what is `woken` before events that it has not asked for.
        """
        server = self._worker_of[request]
        worker = self._workers[server]
        if worker.running is None and (goes_on or not (worker.work or worker.woken or worker.polled)):
            self._begin_turn(server, (request, stage, work_s), now_s)
        elif woken and self._is_loop:
            worker.woken.append((request, stage, work_s))
        else:
            worker.work.append((request, stage, work_s))

    def _begin_turn(self, server: int, piece: tuple[int, int, float], now_s: float) -> None:
        worker, (request, stage, work_s) = self._workers[server], piece
        turn_s = min(work_s, self._turn_s)
        worker.running = (request, stage, work_s - turn_s)
        if stage == _IN_FIRST and not self._granted[request]:
            # A waiter has its connection only when it runs.
            self._granted[request] = 1
            self.granted_s[request] = now_s
        self._turns.begin(server, turn_s)

    def _end_turn(self, server: int, now_s: float) -> None:
        worker = self._workers[server]
        assert worker.running is not None  # noqa: S101
        request, stage, left_s = worker.running
        worker.running = None
        if left_s > 0:
            worker.work.append((request, stage, left_s))
        else:
            self._after(request, stage, now_s)
        if worker.running is None:
            piece = self._next(server)
            if piece is not None:
                self._begin_turn(server, piece, now_s)

    def _next(self, server: int) -> tuple[int, int, float] | None:
        """Take the piece of work that comes next; None if there is none."""
        worker = self._workers[server]
        if not self._is_loop:
            return worker.work.popleft() if worker.work else None
        if worker.polled:
            return worker.polled.pop()
        if worker.woken:
            return worker.woken.popleft()
        if self._shared:
            worker.work.append(self._accepted(self._shared.popleft(), server))
        worker.polled.extend(worker.work)
        worker.work.clear()
        return worker.polled.pop() if worker.polled else None

    def _after(self, request: int, stage: int, now_s: float) -> None:
        """Go on with a request whose piece of work is done."""
        if stage == _ACCEPT:
            self._compute(request, _BEFORE, self._outside_s[request] / (2 if self._is_loop else 4), now_s, woken=True)
        elif stage == _BEFORE:
            self.asked_s[request] = self.granted_s[request] = self.ended_s[request] = now_s
            self._ask(request, now_s)
            if self.fates[request] == SHED:
                # An answer that says no is work, too.
                self._compute(request, _AFTER, self._outside_s[request] / 2, now_s, goes_on=True)
        elif stage == _IN_FIRST:
            self._database.begin(request, self._to_connect_s[request] + self._holds_s[request])
        elif stage == _IN_LAST:
            # It runs on, and the waiter that gets its connection comes after it.
            self._compute(request, _AFTER, self._outside_s[request] / 2, now_s, goes_on=True)
            self._give_back(request, now_s)
        else:
            self._leave(request, now_s)

    def _leave(self, request: int, now_s: float) -> None:
        self.done_s[request] = now_s
        server = self._worker_of[request]
        worker = self._workers[server]
        worker.free += 1
        line = worker.backlog if self._shared is None else self._shared
        # An event loop takes the next connection when it asks for events.
        if line and not self._is_loop:
            self._start(line.popleft(), server, now_s)

    def _begin_hold(self, request: int, connect_s: float, now_s: float) -> None:
        self._to_connect_s[request] = connect_s
        # Who finds an idle connection does not wait for the CPU.
        at_once = self.asked_s[request] == now_s
        self._compute(request, _IN_FIRST, self._inside_s[request] / 2, now_s, goes_on=at_once, woken=True)

    def _give_up(self, waiter: int) -> None:
        super()._give_up(waiter)
        now_s = max(self.granted_s[waiter], self._database.now_s)
        self._compute(waiter, _AFTER, self._outside_s[waiter] / 2, now_s)


class _ClosedCourse(_WorkersCourse):
    """A simulation of users who ask again when they have their answer, until all requests have been made."""

    began_s = 0.0
    """When the last request was made."""

    def run_users(self, users: int, servers: list[int]) -> None:
        """Run all requests; `servers` holds the server of each that finds no idle one."""
        self._drawn, self._next_request = servers, min(users, len(servers))
        for request in range(self._next_request):
            self._arrive(request, servers[request], 0.0)
        self._catch_up(inf)

    def _leave(self, request: int, now_s: float) -> None:
        super()._leave(request, now_s)
        if self._next_request < len(self._drawn):
            self.began_s = now_s
            self._next_request += 1
            self._arrive(self._next_request - 1, self._drawn[self._next_request - 1], now_s)
