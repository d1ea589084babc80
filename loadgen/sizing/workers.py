"""Servers whose requests need the CPU of their worker, in a simulation in progress. Pure.

Where the CPU time of requests is given, each server is one process with one CPU, which runs one request's piece of
work at a time, in order of arrival: half of the work outside a loan comes before the request asks for a connection and half
after it is returned; the work in a loan comes in equal parts before, between and after its statements, which are equal parts of
the hold at the database. A part of the work outside a loan may be the server program's own. Of this, half comes first, and half
when the answer is on its way.
A server has `slots` for requests (one: gunicorn's sync workers; its threads; no limit: gevent); a request that finds none waits
in front of it. With `turn_s`, as under Python's lock, a request that has waited for the CPU for so long, and seen nobody else
get it in that time, interrupts the one that computes, which goes to the end of the queue. A new request goes to a server whose
CPU is idle if there is one, else to any, with a free thread or not. Another thread accepts it, which does half of the server
program's work that comes first, or half of all that comes first where that is not known. A thread that sends its answer lets
the others go first. With one slot each, all servers share one line.
A server without a limit of slots is an event loop: it takes the events that have come since it last asked for them, deals with
them one after the other, the latest first (libev's order), then runs the waiters that were woken meanwhile and the requests
that were accepted, and only then asks for events again. Several loops share one line of new connections, and each accepts one
of them whenever it asks for events; a single loop accepts all that have come (gevent's servers under gunicorn).
With more servers computing than the machine has `cores`, all of them go on at a share of their speed, as holds do.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from math import ceil, inf

from loadgen.sizing.course import SHED, Arrangement, SharedCores, SimulationCourse


@dataclass(slots=True)
class _Worker:
    """One server process: its CPU, and the requests that wait for it or for a slot."""

    free: float
    """Slots that are free."""
    line: deque[int]
    """Requests that no server has accepted: those of this one, or of all that share them."""
    running: tuple[int, int, float] | None = None
    """The piece of work on the CPU: request, stage, and what is left of it after this turn."""
    work: deque[tuple[int, int, float]] = field(default_factory=deque)
    since_s: deque[float] = field(default_factory=deque)
    """Where a request can be interrupted: since when each of `work` has been waiting."""
    switched_s: float = 0.0
    """When the CPU went from one request to another."""
    began_s: float = 0.0
    """When the turn on the CPU began, or several of them at once."""
    until_s: float = 0.0
    """When it ends, as the work that one server would have done since the start."""
    ahead: int = 0
    """Where it is not 0, so many whole turns of `turn_s` of the requests that compute, in their order, count as one turn."""
    alone: bool = False
    """Whether the work on the CPU is done in one turn, unless another request comes and interrupts it."""
    woken: deque[tuple[int, int, float]] = field(default_factory=deque)
    """Of an event loop: pieces of work that come before events which it has not asked for yet."""
    polled: list[tuple[int, int, float]] = field(default_factory=list)
    """Of an event loop: the events that it has asked for; the last one comes first."""


_ACCEPT, _BEFORE, _IN_FIRST, _IN_NEXT, _AFTER, _SENT = range(6)
"""The pieces of a request's work on the CPU."""
_SAME, _NEAR = 1e-9, 1e-12
"""Instants that differ by less, in s and as a share of them, are the same. The former also for shares of a turn."""


class WorkersCourse(SimulationCourse):
    """A simulation whose servers have a CPU each."""

    def __init__(
        self,
        arrangement: Arrangement,
        arrived_s: list[float],
        holds_s: list[float],
        connects_s: list[float],
        inside_s: list[float],
        outside_s: list[float],
        server_share: float = 0.0,
        *,
        is_split: bool = False,
    ) -> None:
        """`server_share`: of `outside_s`, the server program's own work. `is_split`: whether each request has its server from the
        start, whichever are idle.
        """
        super().__init__(arrangement, arrived_s, holds_s, connects_s)
        self._inside_s, self._outside_s = inside_s, outside_s
        # Shares of the work outside a loan: what the accepting thread does, until the request asks, and after its return.
        self._accepting = 0.0 if arrangement.slots is None or arrangement.slots == 1 else server_share / 4 or 0.25
        self._before, self._after_loan, self._sent = 0.5 - self._accepting, (1 - server_share) / 2, server_share / 2
        self._turn_s, self._prefers_first = arrangement.turn_s, arrangement.prefers_first
        self._is_loop = arrangement.slots is None
        slots = inf if arrangement.slots is None else arrangement.slots
        # One line for all, as a worker takes the next connection from the socket that all listen on. Threaded workers accept
        # more connections than they work on, each for itself.
        self._accepts_one = slots == 1 or (self._is_loop and arrangement.servers > 1)
        self._is_split, all_lines = is_split, deque[int]()
        self._workers = [
            _Worker(slots, all_lines if self._accepts_one and not is_split else deque())
            for _ in range(arrangement.servers)
        ]
        # Parts of the work in a loan, and statements that each request has yet to make.
        self._parts = arrangement.statements + 1
        self._left = [0] * len(arrived_s)
        self._worker_of = [0] * len(arrived_s)
        self._pool_of = [self._pools[0]] * len(arrived_s)
        self.asked_s = list(arrived_s)
        self.done_s = list(arrived_s)
        # Servers whose CPU is busy.
        self._computing = 0
        # Turns on the CPUs, by server.
        self._turns = SharedCores(arrangement.cores)
        # How many were begun; those between which nothing else happens count as one.
        self.turns = 0
        self._to_connect_s = [0.0] * len(arrived_s)
        self._granted = bytearray(len(arrived_s))

    def run(self, servers: list[int]) -> None:
        """Run all requests; `servers` holds the server of each, or of each that finds no idle one."""
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
                self._compute(request, _IN_NEXT, self._inside_s[request] / self._parts, end_s)
        if until_s < inf:
            database.advance(until_s)
            turns.advance(until_s)

    def _arrive(self, request: int, drawn: int, now_s: float) -> None:
        found = None if self._is_split else self._idle(0 if self._prefers_first else drawn)
        server = drawn if found is None else found
        worker = self._workers[server]
        # A loop that accepts one at a time does so when it asks for events.
        if worker.free > 0 and (worker.running is None or not (self._is_loop and self._accepts_one)):
            self._start(request, server, now_s)
        else:
            worker.line.append(request)

    def _idle(self, drawn: int) -> int | None:
        """The first server from this one on whose CPU is idle and that accepts requests; None if there is none."""
        workers = self._workers
        if self._computing == len(workers):
            return None
        # Threaded workers accept connections whether a thread is free or not.
        always = not self._accepts_one
        return next(
            (
                number
                for number in chain(range(drawn, len(workers)), range(drawn))
                if workers[number].running is None and (always or workers[number].free)
            ),
            None,
        )

    def _start(self, request: int, server: int, now_s: float) -> None:
        self._compute(*self._accepted(request, server), now_s)

    def _accepted(self, request: int, server: int) -> tuple[int, int, float]:
        """The first piece of work of a request that this server now works on."""
        self._workers[server].free -= 1
        self._worker_of[request] = server
        self._pool_of[request] = self._pools[server]
        return request, _ACCEPT, self._outside_s[request] * self._accepting

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
            if worker.ahead or worker.alone:
                self._break_off(server, now_s)
            self._wait_for_cpu(worker, (request, stage, work_s), now_s)

    def _wait_for_cpu(self, worker: _Worker, piece: tuple[int, int, float], now_s: float) -> None:
        worker.work.append(piece)
        if self._turn_s < inf:
            worker.since_s.append(now_s)

    def _interrupts_s(self, worker: _Worker) -> float:
        """When the first of those that wait for the CPU interrupts the work on it: each looks every `turn_s` whether another one
        got it since it looked before."""
        turn_s, switched_s = self._turn_s, worker.switched_s
        return min(
            (each_s + turn_s * (1 + max(0, ceil((switched_s - each_s) / turn_s - _SAME))) for each_s in worker.since_s),
            default=inf,
        )

    def _begin_turn(self, server: int, piece: tuple[int, int, float], now_s: float) -> None:
        worker, (request, stage, work_s) = self._workers[server], piece
        worker.began_s = now_s
        turn_s = min(work_s, self._turn_s)
        if worker.since_s:
            if worker.since_s[-1] == worker.switched_s == now_s:
                # All take turns of equal length now, as each is interrupted by the one that was interrupted before.
                worker.ahead = self._whole_turns(worker, work_s)
                turn_s = self._turn_s * worker.ahead or turn_s
            else:
                turn_s = max(0.0, min(turn_s, self._interrupts_s(worker) - now_s))
        elif self._turn_s < inf:
            worker.alone, turn_s = True, work_s
        worker.running = (request, stage, work_s if worker.ahead else work_s - turn_s)
        self._computing += 1
        if stage == _IN_FIRST and not self._granted[request]:
            # A waiter has its connection only when it runs.
            self._granted[request] = 1
            self.granted_s[request] = now_s
        self.turns += 1
        self._begin_work(server, turn_s)

    def _begin_work(self, server: int, work_s: float) -> None:
        self._workers[server].until_s = self._turns.work_s + work_s
        self._turns.begin(server, work_s)

    def _whole_turns(self, worker: _Worker, work_s: float) -> int:
        """How many turns pass until a piece of work ends if no other request comes; 0 if one in a loan has yet to begin."""
        turn_s, number = self._turn_s, len(worker.work) + 1
        if work_s <= turn_s:
            return 0
        least = ceil(work_s / turn_s - 1) * number
        for place, (request, stage, left_s) in enumerate(worker.work, 1):
            if stage == _IN_FIRST and not self._granted[request]:
                return 0
            least = min(least, max(0, ceil(left_s / turn_s - 1)) * number + place)
        return least

    def _pass_turns(self, worker: _Worker, passed: int, each_s: float) -> None:
        """Pass so many of the turns that count as one, which took `each_s`; the next request is about to begin its own."""
        assert worker.running is not None  # noqa: S101
        turn_s, pieces, since_s = self._turn_s, deque((worker.running, *worker.work)), worker.since_s
        rounds, more = divmod(passed, len(pieces))
        for place, (request, stage, left_s) in enumerate(pieces):
            pieces[place] = (request, stage, left_s - turn_s * (rounds + (place < more)))
        pieces.rotate(-more)
        # Each waits since the end of its last turn.
        for number in range(max(0, passed - len(since_s)), passed):
            since_s.popleft()
            since_s.append(worker.began_s + each_s * (number + 1))
        worker.running, worker.work = pieces.popleft(), pieces
        worker.began_s = worker.switched_s = worker.began_s + each_s * passed
        worker.ahead = 0

    def _break_off(self, server: int, now_s: float) -> None:
        """End the turn on the CPU when it would have ended had it been known that another request comes now."""
        worker = self._workers[server]
        turn_s, left_s = self._turn_s, worker.until_s - self._turns.work_s
        assert worker.running is not None  # noqa: S101
        request, stage, after_s = worker.running
        if worker.ahead:
            done = worker.ahead - left_s / turn_s
            passed = max(0, min(worker.ahead - 1, int(done + _SAME)))
            # With all cores busy, a turn lasts longer than the work that is done in it.
            is_slow = self._turns.full_at < len(self._workers) and done > 0
            self._pass_turns(worker, passed, (now_s - worker.began_s) / done if is_slow else turn_s)
            (request, stage, work_s), rest_s = worker.running, turn_s * (passed + 1 - done)
            after_s = work_s - turn_s
        else:
            rest_s = min(turn_s, left_s)
            after_s, worker.alone = left_s - rest_s, False
        worker.running = (request, stage, after_s)
        self._turns.break_off(server, worker.until_s)
        self._begin_work(server, max(0.0, rest_s))

    def _end_turn(self, server: int, now_s: float) -> None:
        worker = self._workers[server]
        assert worker.running is not None  # noqa: S101
        if worker.ahead:
            self._pass_turns(worker, worker.ahead, (now_s - worker.began_s) / worker.ahead)
            on_cpu, worker.running = worker.running, None
            worker.switched_s = worker.since_s[-1] = now_s
            self._computing -= 1
            self._begin_turn(server, on_cpu, now_s)
            return
        request, stage, left_s = worker.running
        worker.running, worker.alone = None, False
        self._computing -= 1
        if left_s <= 0:
            self._after(request, stage, now_s)
        elif worker.since_s and self._interrupts_s(worker) <= now_s * (1 + _NEAR) + _SAME:
            self._wait_for_cpu(worker, (request, stage, left_s), now_s)
        else:
            self._begin_turn(server, (request, stage, left_s), now_s)
        if worker.running is None:
            piece = self._next(server)
            if piece is not None:
                worker.switched_s = now_s
                self._begin_turn(server, piece, now_s)

    def _next(self, server: int) -> tuple[int, int, float] | None:
        """Take the piece of work that comes next; None if there is none."""
        worker = self._workers[server]
        if not self._is_loop:
            if worker.since_s:
                worker.since_s.popleft()
            return worker.work.popleft() if worker.work else None
        if worker.polled:
            return worker.polled.pop()
        if worker.woken:
            return worker.woken.popleft()
        if worker.line:
            worker.work.append(self._accepted(worker.line.popleft(), server))
        worker.polled.extend(worker.work)
        worker.work.clear()
        return worker.polled.pop() if worker.polled else None

    def _after(self, request: int, stage: int, now_s: float) -> None:
        """Go on with a request whose piece of work is done."""
        if stage == _ACCEPT:
            self._compute(request, _BEFORE, self._outside_s[request] * self._before, now_s, woken=True)
        elif stage == _BEFORE:
            self.asked_s[request] = self.granted_s[request] = self.ended_s[request] = now_s
            self._ask(request, now_s)
            if self.fates[request] == SHED:
                # An answer that says no is work, too.
                self._compute(request, _AFTER, self._outside_s[request] * self._after_loan, now_s, goes_on=True)
        elif stage == _IN_FIRST:
            self._left[request] = self._parts - 2
            self._database.begin(request, self._to_connect_s[request] + self._holds_s[request] / (self._parts - 1))
        elif stage == _IN_NEXT and self._left[request]:
            self._left[request] -= 1
            self._database.begin(request, self._holds_s[request] / (self._parts - 1))
        elif stage == _IN_NEXT:
            # It runs on, and the waiter that gets its connection comes after it.
            self._compute(request, _AFTER, self._outside_s[request] * self._after_loan, now_s, goes_on=True)
            self._give_back(request, now_s)
        elif stage == _AFTER and self._sent:
            # A thread lets go of Python's lock while it sends.
            self._compute(request, _SENT, self._outside_s[request] * self._sent, now_s, goes_on=self._turn_s == inf)
            self._answer(request, now_s)
        else:
            self._leave(request, now_s)
            if stage == _AFTER:
                self._answer(request, now_s)

    def _answer(self, request: int, now_s: float) -> None:
        self.done_s[request] = now_s

    def _leave(self, request: int, now_s: float) -> None:
        server = self._worker_of[request]
        worker = self._workers[server]
        worker.free += 1
        # An event loop takes the next connection when it asks for events.
        if worker.line and not self._is_loop:
            self._start(worker.line.popleft(), server, now_s)

    def _begin_hold(self, request: int, connect_s: float, now_s: float) -> None:
        self._to_connect_s[request] = connect_s
        # Who finds an idle connection does not wait for the CPU.
        at_once = self.asked_s[request] == now_s
        self._compute(request, _IN_FIRST, self._inside_s[request] / self._parts, now_s, goes_on=at_once, woken=True)

    def _give_up(self, waiter: int) -> None:
        super()._give_up(waiter)
        now_s = max(self.granted_s[waiter], self._database.now_s)
        self._compute(waiter, _AFTER, self._outside_s[waiter] * self._after_loan, now_s)


class ClosedCourse(WorkersCourse):
    """A simulation of users who ask again when they have their answer, until all requests have been made."""

    began_s = 0.0
    """When the last request was made."""

    def run_users(self, users: int, servers: list[int]) -> None:
        """Run all requests; `servers` holds the server of each that finds no idle one."""
        self._drawn, self._next_request = servers, min(users, len(servers))
        for request in range(self._next_request):
            self._arrive(request, servers[request], 0.0)
        self._catch_up(inf)

    def _answer(self, request: int, now_s: float) -> None:
        super()._answer(request, now_s)
        if self._next_request < len(self._drawn):
            self.began_s = now_s
            self._next_request += 1
            self._arrive(self._next_request - 1, self._drawn[self._next_request - 1], now_s)
