"""A crew: several processes that carry out one plan together, and whose measurements are merged exactly.

Workers start once the script is compiled and its `before` section has run. All count the plan from one instant of
CLOCK_MONOTONIC. Worker k of N starts every N-th arrival from number k on, so that arrivals stay as even as those of a
single process. Once a second a worker sends what it has recorded since the last time, as periods of a JSON report, and
forgets it. Counters, sketches, rates and seconds merge exactly, and if a worker is lost, at most a second of its
measurements is missing; the run goes on without it. Workers end with their parent (PR_SET_PDEATHSIG), and leave signals to
it (each has a process group of its own).

A worker sends JSON reports (P), its progress (T), lines for stdout (L), and at its end the result of its work (E), framed
as in `loadgen.crew.framing`. Workers on other machines (`loadgen.crew.distributed`) send the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Generic, TypeVar

import gevent
import gevent.os
import orjson
from gevent.lock import BoundedSemaphore

from loadgen.clock import Alarm, WallOffset, now_ns
from loadgen.crew.framing import message, parted
from loadgen.engine import Listener, Progress, stage_at
from loadgen.recorder import Recorder
from loadgen.schedule import Share, spans
from loadgen.script.model import Phase, Script
from reports import names
from reports.formats.artillery_json import from_json, to_json
from reports.merge import merge_periods
from reports.model import PERIOD_MS, Period, Report

_READ_BYTES = 1 << 16
_PERIOD_GRACE_MS = 200
_PARTS_MAX = 64
_PR_SET_PDEATHSIG = 1
DEFECT = 70
"""Exit code of a worker that ended with an error of its own (EX_SOFTWARE of sysexits.h)."""
_NO_PROGRESS = Progress(0.0, 0, 0, 0, 0)


class CrewError(Exception):
    """The workers of a run could not be started: nothing of its plan was sent. The message is one line.

    The script's `before` section may have run already.
    """


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of a run must know. Together with a `Share` it describes the work of one worker."""

    script: Script
    """The script. Its built-ins include the variables that its `before` section set."""
    plan_seed: int


class ParentPipe:
    """A worker's connection to its parent.

    It sends whole messages, in order, whichever greenlet sends them, and other greenlets go on meanwhile.
    """

    def __init__(self, descriptor: int, recorder: Recorder, wall: WallOffset) -> None:
        gevent.os.make_nonblocking(descriptor)
        self._descriptor = descriptor
        self._recorder = recorder
        self._wall = wall
        self._gate = BoundedSemaphore(1)

    def line(self, text: str) -> None:
        """Send a line for stdout."""
        self._send(b"L", text.encode("utf-8", "surrogatepass"))

    def tick(self, progress: Progress) -> None:
        """Send the progress, and everything recorded since the last time."""
        told_ms = (now_ns() + self._wall.wall_ns) // 1_000_000
        self._periods()
        self._send(b"T", orjson.dumps([asdict(replace(progress, stage=None)), told_ms]))

    def end(self, result: dict[str, Any]) -> None:
        """Send everything that has not been sent, and the result of the work."""
        self._periods()
        self._send(b"E", orjson.dumps(result))

    def _periods(self) -> None:
        periods = self._recorder.drain()
        if periods:
            self._send(b"P", to_json(Report(Period(0), tuple(periods))).encode())

    def _send(self, kind: bytes, content: bytes) -> None:
        with self._gate:
            rest = memoryview(message(kind, content))
            while rest:
                rest = rest[gevent.os.nb_write(self._descriptor, rest) :]


Work = Callable[[Share, ParentPipe, int], dict[str, Any]]
"""The work of a worker: (its share, its connection, the instant when the plan starts) -> its result, which JSON can hold."""


@dataclass(slots=True)
class CrewWorker:
    """What the process that started the run knows about one worker."""

    share: Share
    progress: Progress = _NO_PROGRESS
    told_ms: int = 0
    """Everything that happened up to this instant, in epoch ms, has arrived."""
    result: dict[str, Any] | None = None
    lost: str | None = None
    """A sentence on how the worker was lost; None if it was not."""

    @property
    def running(self) -> bool:
        """Whether the worker may still send something."""
        return self.result is None and self.lost is None

    @property
    def label(self) -> str:
        """The worker's name in messages to the user."""
        return f"worker {self.share.index + 1} of {self.share.of}"


AnyWorker = TypeVar("AnyWorker", bound=CrewWorker)


class Crew(ABC, Generic[AnyWorker]):
    """The workers of a run, for the process that started it: starts them, listens to them, and merges what they send.

    Its results so far may be asked for at any time.
    """

    def __init__(self, count: int, wall: WallOffset, write_line: Callable[[str], None]) -> None:
        self.count = count
        self._wall = wall
        self._write_line = write_line
        self._workers: list[AnyWorker] = []
        self._parts: dict[int, list[Period]] = {}
        self._shown: set[int] = set()
        self._interrupts = 0
        self._started_ns = 0
        self._phases: Sequence[Phase] = ()

    @abstractmethod
    def _launch(self) -> None:
        """Start all workers, and set the instant when the plan begins (`_started_ns`). Raises CrewError."""

    @abstractmethod
    def _attend(self, worker: AnyWorker) -> None:
        """Give every message of a worker to `_take`, until the worker has ended or is lost."""

    @abstractmethod
    def _pass_interrupt(self) -> None:
        """Pass the interrupt that has just been counted on to all workers."""

    @abstractmethod
    def _end_all(self) -> None:
        """End all workers that are still running, whatever made the run end."""

    def run(self, phases: Sequence[Phase], listener: Listener, started: Callable[[], None] = lambda: None) -> None:
        """Block until the last worker has ended or is lost. `started` is called once all workers have been started."""
        announcer = ticker = None
        self._phases = phases
        try:
            self._launch()
            # The run was interrupted before it began.
            if not self._workers:
                return
            readers = [gevent.spawn(self._attend, worker) for worker in self._workers]
            announcer = gevent.spawn(self._announce, listener)
            ticker = gevent.spawn(self._tick, listener)
            started()
            gevent.joinall(readers, raise_error=True)
            if not self._interrupts and any(worker.lost is None for worker in self._workers):
                # The last phase ends at this instant; let its end be announced.
                announcer.join()
        finally:
            gevent.killall([greenlet for greenlet in (announcer, ticker) if greenlet is not None])
            self._end_all()
        for period in self._over(inf):
            listener.period(period)

    def stop(self) -> None:
        """End the run: after the first call no more users start, the second ends everything."""
        self._interrupts += 1
        self._pass_interrupt()

    @property
    def interrupted(self) -> bool:
        """Whether `stop` was called."""
        return self._interrupts > 0

    def periods(self) -> list[Period]:
        """The periods that have arrived so far, merged and in time order."""
        return [self._period(start) for start in sorted(self._parts)]

    def latest(self) -> Period | None:
        """The newest period, as far as it has arrived; None before the first."""
        return self._period(max(self._parts)) if self._parts else None

    def results(self) -> list[dict[str, Any]]:
        """The results of the workers that ended properly."""
        return [worker.result for worker in self._workers if worker.result is not None]

    def places(self) -> list[dict[str, Any]]:
        """What the report says about each worker's machine; empty if all workers run on this one."""
        return []

    def lost(self) -> tuple[str, ...]:
        """A sentence about each worker that was lost."""
        return tuple(worker.lost for worker in self._workers if worker.lost is not None)

    def progress(self) -> Progress:
        """The progress of all workers together."""
        elapsed_s = max(0.0, (now_ns() - self._started_ns) / 1e9) if self._started_ns else 0.0
        known = [worker.progress for worker in self._workers]
        latest = self.latest()
        times = latest.summaries.get(names.RESPONSE_TIME) if latest else None
        active = sum(w.progress.active_vus for w in self._workers if w.running)
        return Progress(
            elapsed_s,
            active,
            sum(p.requests for p in known),
            sum(p.responses for p in known),
            sum(p.errors for p in known),
            stage_at(spans(self._phases), elapsed_s),
            times.p95 if times else None,
            self._started_ns,
        )

    def _take(self, worker: AnyWorker, kind: bytes, content: bytes) -> None:
        if kind == b"L":
            self._write_line(content.decode("utf-8", "surrogatepass"))
        elif kind == b"P":
            for period in from_json(content.decode()).periods:
                self._file(period)
        elif kind == b"T":
            progress, worker.told_ms = orjson.loads(content)
            worker.progress = Progress(**progress)
        else:
            worker.result = orjson.loads(content)

    def _file(self, period: Period) -> None:
        """Keep a part of a period. Parts are merged when the period is asked for, or when there are many."""
        parts = self._parts.setdefault(period.start_ms, [])
        parts.append(period)
        if len(parts) == _PARTS_MAX:
            self._period(period.start_ms)

    def _period(self, start_ms: int) -> Period:
        parts = self._parts[start_ms]
        if len(parts) > 1:
            parts[:] = merge_periods(parts)
        return parts[0]

    def _over(self, until_ms: float) -> Iterator[Period]:
        """The periods that ended by this instant (epoch ms) and that this method has not given before."""
        for start in sorted(self._parts.keys() - self._shown):
            if start + PERIOD_MS <= until_ms:
                self._shown.add(start)
                yield self._period(start)

    def _lose(self, worker: AnyWorker, cause: str) -> None:
        if not self._started_ns:
            worker.lost = f"{worker.label} {cause}, before the start"
            return
        after_s = max(0.0, (now_ns() - self._started_ns) / 1e9)
        worker.lost = f"{worker.label} {cause} after {after_s:.1f} s: its part is missing from there on"

    def _announce(self, listener: Listener) -> None:
        alarm = Alarm()
        try:
            for span in spans(self._phases):
                alarm.sleep_until(self._started_ns + span.start_ns)
                listener.phase_started(span.phase)
                alarm.sleep_until(self._started_ns + span.end_ns)
                if self._interrupts:
                    return
                listener.phase_completed(span.phase)
        finally:
            alarm.close()

    def _tick(self, listener: Listener) -> None:
        while True:
            gevent.sleep(1.0)
            self._wall.measure()
            told_ms = min((worker.told_ms for worker in self._workers if worker.running), default=0)
            for period in self._over(told_ms - _PERIOD_GRACE_MS):
                listener.period(period)
            listener.tick(self.progress())


def messages(descriptor: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each message from a non-blocking pipe, until its other end is closed. Half a message is dropped."""
    pending = bytearray()
    while data := gevent.os.nb_read(descriptor, _READ_BYTES):
        pending += data
        yield from parted(pending)


def exit_text(code: int) -> str:
    """How a process with this exit code ended, in words. A negative code is that of a signal."""
    return f"was killed by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux). Raises BrokenPipeError if the parent has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise BrokenPipeError
