"""Runs a plan of arrivals: every virtual user is started at its planned instant, whatever the server does (open workload).

The plan is fixed before the first byte is sent, except in closed phases (`concurrency`): there a number of users is active
all the time, each replaced when it ends, until the phase is over. An arrival that finds `maxVusers` users active is counted
as skipped. One that is late is started all the same, and its lag recorded. The run ends when the phases are over and all
virtual users (VUs) have finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from traceback import print_exception
from typing import Any, Protocol
from weakref import WeakSet

import gevent
from gevent import get_hub
from gevent.event import Event
from greenlet import getcurrent, greenlet

from loadgen.clock import Alarm, WallOffset, now_ns
from loadgen.recorder import Recorder
from loadgen.schedule import PhaseSpan, Share, arrivals, spans
from loadgen.script.model import Phase
from reports import names
from reports.model import Period

GRACE_S = 10.0
"""How long VUs may go on after the first interrupt, in seconds."""

_PERIOD_GRACE_NS = 200_000_000
_SPARES_MAX = 1000
"""The most greenlets that are kept for further users, so that a rush does not keep its memory for ever."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The part of a run that is going on: a phase, or the wait for the last users (whose length nobody knows)."""

    name: str
    elapsed_s: float
    length_s: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run at one instant."""

    elapsed_s: float
    active_vus: int
    requests: int
    responses: int
    errors: int
    stage: Stage | None = None
    p95_ms: float | None = None
    """The 95th percentile of the response times of the newest second with answers; None where it is not known."""
    started_ns: int = 0
    """The instant when the run began, which tells runs apart."""
    thinking_vus: int = 0
    """Those of the active users who think, and wait for nothing."""


def stage_at(spans: Sequence[PhaseSpan], elapsed_s: float) -> Stage | None:
    """The stage of a plan at this time after its start; None for a plan without phases."""
    for span in spans:
        if elapsed_s * 1e9 < span.end_ns:
            name = span.phase.name or f"phase {span.phase.index + 1}"
            return Stage(name, elapsed_s - span.start_ns / 1e9, (span.end_ns - span.start_ns) / 1e9)
    return Stage("waiting for the last users", elapsed_s - spans[-1].end_ns / 1e9, None) if spans else None


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Listener:
    """The functions to call while a run goes on: as phases start and end, as periods end, and with progress once a second."""

    phase_started: Callable[[Phase], None] = _nothing
    phase_completed: Callable[[Phase], None] = _nothing
    period: Callable[[Period], None] = _nothing
    tick: Callable[[Progress], None] = _nothing


class VuStarter(Protocol):
    """Starts virtual users; a compiled script is one."""

    def start_vu(self, intended_ns: int) -> None:
        """Run one virtual user to its end in the calling greenlet. Failures are recorded, not raised."""


class Engine:
    """One run of a plan. `run` blocks until it is over; `stop` may be called from a signal handler."""

    def __init__(
        self,
        program: VuStarter,
        phases: tuple[Phase, ...],
        recorder: Recorder,
        wall: WallOffset,
        rng: Random,
        share: Share = Share(),  # noqa: B008 - frozen
        plan_ended: Callable[[], None] = _nothing,
    ) -> None:
        """`plan_ended` is called when no more users will start."""
        self._plan_ended = plan_ended
        self._program = program
        self._phases = phases
        self._recorder = recorder
        self._wall = wall
        self._rng = rng
        self._share = share
        self._hub = get_hub()
        # gevent.spawn_raw does the same, but also copies a context that nobody uses.
        self._run_soon = self._hub.loop.run_callback
        self._active = 0
        # Functions that wake greenlets which have finished a user and wait for another.
        self._spare: list[Callable[[int], Any]] = []
        self._spares_max = _SPARES_MAX
        # The greenlets that run users, one after the other.
        self._greenlets: WeakSet[greenlet] = WeakSet()
        self._arriving = True
        self._over = Event()
        self._crash: BaseException | None = None
        self._defects: dict[str, tuple[int, str]] = {}
        self._arrivals: gevent.Greenlet | None = None
        self._started_ns = 0
        self.interrupted = False

    def run(self, listener: Listener, started_ns: int | None = None) -> None:
        """Start every arrival of the plan, which counts from `started_ns` (default: now), and wait for the last VU to end.

        An error that a virtual user should not have raised ends that user only: see `defects`.
        """
        self._started_ns = now_ns() if started_ns is None else started_ns
        if self.interrupted:
            return
        self._arrivals = gevent.spawn(self._arrive, listener)
        ticker = gevent.spawn(self._tick, listener)
        try:
            self._over.wait()
        finally:
            ticker.kill()
            self._arrivals.kill()
            self._spares_max = 0
            self._spare.clear()
        if self._crash is not None:
            raise self._crash
        for period in self._recorder.remaining():
            listener.period(period)

    def stop(self) -> None:
        """End the run. After the first call no more VUs start, and the others have GRACE_S to finish; the second ends it now."""
        if self.interrupted:
            self._over.set()
            return
        self.interrupted = True
        if self._arrivals is not None:
            self._arrivals.kill(block=False)
        gevent.spawn_later(GRACE_S, self._over.set)

    def end_users(self) -> None:
        """End the users that a run has left behind, soon: their connections are closed, and nothing more is recorded of them."""
        for each in self._greenlets:
            gevent.kill(each)

    def progress(self) -> Progress:
        """The progress now; requests, responses and errors are as of the recorder's last flush."""
        recorder = self._recorder
        elapsed_s = max(0, now_ns() - self._started_ns) / 1e9
        return Progress(
            elapsed_s,
            self._active,
            recorder.requests,
            recorder.responses,
            recorder.errors,
            stage_at(spans(self._phases), elapsed_s),
            recorder.recent_ms(0.95),
            self._started_ns,
            recorder.thinking,
        )

    def _arrive(self, listener: Listener) -> None:
        alarm = Alarm()
        try:
            plan = self._share.arrivals(arrivals(self._phases, self._rng))
            planned = next(plan, None)
            for span in spans(self._phases):
                listener.phase_started(span.phase)
                if span.phase.concurrency is not None:
                    # A worker is ready before the instant at which all of them are to begin.
                    alarm.sleep_until(self._started_ns + span.start_ns)
                    self._fill(span.phase.concurrency, self._started_ns + span.end_ns)
                while planned is not None and planned[1] == span.phase.index:
                    intended_ns = self._started_ns + planned[0]
                    alarm.sleep_until(intended_ns)
                    self._admit(span, intended_ns)
                    planned = next(plan, None)
                alarm.sleep_until(self._started_ns + span.end_ns)
                listener.phase_completed(span.phase)
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._crash = error
            self._over.set()
        finally:
            alarm.close()
            self._arriving = False
            self._plan_ended()
            self._check_over()

    def _fill(self, users: int, ends_ns: int) -> None:
        """Start this generator's share of the users of a closed phase, which ends at the instant `ends_ns`."""
        for _ in range(self._share.part(users)):
            gevent.spawn(self._succeed, ends_ns)

    def _succeed(self, ends_ns: int) -> None:
        """Run one user after the other until the instant `ends_ns`; the last one comes to its own end."""
        self._greenlets.add(getcurrent())
        while not self.interrupted and now_ns() < ends_ns:
            self._active += 1
            try:
                # No plan says when such a user starts, so none is late.
                self._program.start_vu(0)
            except Exception as error:  # noqa: BLE001 - an error of one user must not end the run
                self._note_defect(error)
            finally:
                self._active -= 1
            # A user that never waits must let the others go on.
            gevent.sleep(0)
        self._check_over()

    def _admit(self, span: PhaseSpan, intended_ns: int) -> None:
        limit = span.phase.max_vusers
        if limit is not None and self._active >= self._share.part(limit):
            self._recorder.count(names.VUSERS_SKIPPED)
            return
        self._active += 1
        spare = self._spare
        begin = spare.pop() if spare else greenlet(self._walk, self._hub).switch
        self._run_soon(begin, intended_ns)

    def _walk(self, intended_ns: int) -> None:
        """Run one user to its end, and then others: a new greenlet for each would need a new stack from the kernel."""
        started, start_vu, spare = self._recorder.started, self._program.start_vu, self._spare
        me, rest = getcurrent(), self._hub.switch
        resume = me.switch
        self._greenlets.add(me)
        while True:
            # A user must not see context variables of the user before it.
            me.gr_context = None
            try:
                started(intended_ns)
                start_vu(intended_ns)
            except Exception as error:  # noqa: BLE001 - an error of one user must not end the run
                self._note_defect(error)
            finally:
                self._active -= 1
                if not self._arriving:
                    self._check_over()
            if len(spare) >= self._spares_max:
                return
            spare.append(resume)
            while type(begun := rest()) is not int:
                # Something that the user before left behind has woken this greenlet.
                pass
            intended_ns = begun

    def _note_defect(self, error: Exception) -> None:
        """Count a virtual user that ended with an error it should not have raised; print the first one's traceback."""
        name = type(error).__name__
        self._recorder.count(names.ERRORS + name)
        self._recorder.count(names.VUSERS_FAILED)
        if not self._defects:
            print_exception(error)
        count, first = self._defects.get(name, (0, f"{name}: {error}".partition("\n")[0]))
        self._defects[name] = count + 1, first

    def defects(self) -> tuple[str, ...]:
        """A sentence about each kind of error that ended virtual users through a defect of this program; usually empty."""
        return tuple(
            f"a defect of this program ended {count} virtual user{'s' if count > 1 else ''}: {first}"
            for count, first in self._defects.values()
        )

    def _check_over(self) -> None:
        if not self._arriving and not self._active:
            self._over.set()

    def _tick(self, listener: Listener) -> None:
        while True:
            gevent.sleep(1.0)
            self._wall.measure()
            for period in self._recorder.over(_PERIOD_GRACE_NS):
                listener.period(period)
            listener.tick(self.progress())
