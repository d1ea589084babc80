"""Several processes that carry out one plan together; what they measure arrives here and is merged exactly.

Workers are forked once the script is compiled and its `before` section has run. All count the plan from one instant of
CLOCK_MONOTONIC; worker k of N starts every N-th arrival from number k on, so that the stream stays as even as that of one.
Once a second a worker sends what it has filed since the last time, as periods in the form of a JSON report, and keeps
nothing: counters add up, sketches and rates merge exactly, and of a worker that is lost a second is missing at most. The
run goes on without it. Workers end with their parent (PR_SET_PDEATHSIG), and leave signals to it (a process group each).

A worker sends a JSON report (P), progress (T), a line for stdout (L) and the end with what `work` returned (E), framed as in
`loadgen.crew.framing`. Workers on other machines (`loadgen.crew.distributed`) send the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Generic, TypeVar

import gevent
import gevent.os
import orjson
from gevent.lock import BoundedSemaphore

from loadgen.clock import Alarm, WallOffset, now_ns
from loadgen.crew.framing import message, parted
from loadgen.engine import Listener, Progress
from loadgen.recorder import Recorder
from loadgen.schedule import Share, spans
from loadgen.script.model import Phase, Script
from reports.formats.artillery_json import from_json, to_json
from reports.merge import merge_periods
from reports.model import PERIOD_MS, Period, Report

_READ_BYTES = 1 << 16
_PERIOD_GRACE_MS = 200
_PARTS_MAX = 64
_PR_SET_PDEATHSIG = 1
# sysexits.h: internal software error.
DEFECT = 70
_NO_PROGRESS = Progress(0.0, 0, 0, 0, 0)


class CrewError(Exception):
    """The workers that a run was to have cannot be had; nothing was sent. The message is one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of a run must know; with a `Share` it is everything."""

    script: Script
    """Its built-ins include what its `before` section left."""
    plan_seed: int


class ParentPipe:
    """A worker's way to its parent. Whole messages, in order, whichever greenlet sends them; none stops the others."""

    def __init__(self, descriptor: int, recorder: Recorder, wall: WallOffset) -> None:
        gevent.os.make_nonblocking(descriptor)
        self._descriptor = descriptor
        self._recorder = recorder
        self._wall = wall
        self._gate = BoundedSemaphore(1)

    def line(self, text: str) -> None:
        """For stdout."""
        self._send(b"L", text.encode("utf-8", "surrogatepass"))

    def tick(self, progress: Progress) -> None:
        """How far it is, and all that was filed since the last time."""
        told_ms = (now_ns() + self._wall.wall_ns) // 1_000_000
        self._periods()
        self._send(b"T", orjson.dumps([asdict(progress), told_ms]))

    def end(self, result: dict[str, Any]) -> None:
        """It is over."""
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
"""What a worker does: (its share, its link, when the plan starts) to what its end says, which must be JSON."""


@dataclass(slots=True)
class CrewWorker:
    """What is known of a worker where the run was started."""

    share: Share
    progress: Progress = _NO_PROGRESS
    told_ms: int = 0
    """Epoch: all that happened until then has arrived."""
    result: dict[str, Any] | None = None
    lost: str | None = None
    """What became of it."""

    @property
    def running(self) -> bool:
        """Whether more may come from it."""
        return self.result is None and self.lost is None

    @property
    def label(self) -> str:
        """What to call it."""
        return f"worker {self.share.index + 1} of {self.share.of}"


AnyWorker = TypeVar("AnyWorker", bound=CrewWorker)


class Crew(ABC, Generic[AnyWorker]):
    """The side that started the run: has workers started, listens to them, and merges. May be asked at any time."""

    def __init__(self, count: int, wall: WallOffset, write_line: Callable[[str], None]) -> None:
        self.count = count
        self._wall = wall
        self._write_line = write_line
        self._workers: list[AnyWorker] = []
        self._parts: dict[int, list[Period]] = {}
        self._shown: set[int] = set()
        self._interrupts = 0
        self._started_ns = 0

    @abstractmethod
    def _launch(self) -> None:
        """Have all workers started, and say when the plan begins (`_started_ns`). Raises CrewError."""

    @abstractmethod
    def _attend(self, worker: AnyWorker) -> None:
        """`_take` what a worker says, until it has ended or is lost."""

    @abstractmethod
    def _pass_interrupt(self) -> None:
        """Tell all workers of the interrupt that has just been counted."""

    @abstractmethod
    def _end_all(self) -> None:
        """Whatever made the run end: no worker is left behind."""

    def run(self, phases: Sequence[Phase], listener: Listener, started: Callable[[], None] = lambda: None) -> None:
        """Block until the last worker has ended or is lost. `started` is called once all have been started."""
        announcer = ticker = None
        try:
            self._launch()
            # Interrupted before it began.
            if not self._workers:
                return
            readers = [gevent.spawn(self._attend, worker) for worker in self._workers]
            announcer = gevent.spawn(self._announce, phases, listener)
            ticker = gevent.spawn(self._tick, listener)
            started()
            gevent.joinall(readers, raise_error=True)
            if not self._interrupts and any(worker.lost is None for worker in self._workers):
                # The same instant; who is a little sooner does not matter.
                announcer.join()
        finally:
            gevent.killall([greenlet for greenlet in (announcer, ticker) if greenlet is not None])
            self._end_all()
        for period in self._over(inf):
            listener.period(period)

    def stop(self) -> None:
        """Pass an interrupt on: the first ends arrivals, the second everything."""
        self._interrupts += 1
        self._pass_interrupt()

    @property
    def interrupted(self) -> bool:
        """Whether `stop` was called."""
        return self._interrupts > 0

    def periods(self) -> list[Period]:
        """All that has arrived so far, in time order."""
        return [self._period(start) for start in sorted(self._parts)]

    def latest(self) -> Period | None:
        """The newest period, as far as it has arrived."""
        return self._period(max(self._parts)) if self._parts else None

    def results(self) -> list[dict[str, Any]]:
        """What the workers that ended properly returned."""
        return [worker.result for worker in self._workers if worker.result is not None]

    def places(self) -> list[dict[str, Any]]:
        """What the report says of each worker's machine; nothing where all are on this one."""
        return []

    def lost(self) -> tuple[str, ...]:
        """A sentence on each worker that did not."""
        return tuple(worker.lost for worker in self._workers if worker.lost is not None)

    def progress(self) -> Progress:
        """Of all workers together."""
        elapsed_s = max(0.0, (now_ns() - self._started_ns) / 1e9) if self._started_ns else 0.0
        known = [worker.progress for worker in self._workers]
        active = sum(w.progress.active_vus for w in self._workers if w.running)
        return Progress(
            elapsed_s,
            active,
            sum(p.requests for p in known),
            sum(p.responses for p in known),
            sum(p.errors for p in known),
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
        """Parts of a period are merged when it is asked for, or there are many: percentiles are worked out each time."""
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
        """Periods that had ended by then and were not given before."""
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

    def _announce(self, phases: Sequence[Phase], listener: Listener) -> None:
        alarm = Alarm()
        try:
            for span in spans(phases):
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
    """(kind, content) of what comes up a non-blocking pipe until its other end is closed; half a message is of no use."""
    pending = bytearray()
    while data := gevent.os.nb_read(descriptor, _READ_BYTES):
        pending += data
        yield from parted(pending)


def exit_text(code: int) -> str:
    """What became of a process that ended with this code (negative: of a signal)."""
    return f"was killed by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux). Raises BrokenPipeError where it has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise BrokenPipeError
