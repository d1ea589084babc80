"""A crew on this machine: its workers are forked from this process."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import gevent
import gevent.os

from loadgen.clock import WallOffset, now_ns
from loadgen.crew.crew import DEFECT, Crew, CrewError, CrewWorker, ParentPipe, Work, end_with, exit_text, messages
from loadgen.recorder import Recorder
from loadgen.schedule import Share

_PIPE_BYTES = 1 << 20
# The plan starts this long after the fork begins, plus as long again for each worker: by then all are ready.
_START_AFTER_NS = 100_000_000
_INTERRUPTS = frozenset((signal.SIGINT, signal.SIGTERM))
_LAST_WAIT_S = 2.0
_SILENT_LOOKS = 20
"""A worker says something every second. One that was silent at so many looks, a second apart, is stopped or hangs."""


@dataclass(slots=True)
class _Forked(CrewWorker):
    pid: int = 0
    descriptor: int = -1
    silent_looks: int = 0


class ForkedCrew(Crew[_Forked]):
    """Workers that are forked from this process, each with a copy of everything that `work` needs."""

    def __init__(
        self, count: int, work: Work, recorder: Recorder, wall: WallOffset, write_line: Callable[[str], None]
    ) -> None:
        """`recorder` is what each worker records in after the fork; nothing is recorded in it here."""
        super().__init__(count, wall, write_line)
        self._work = work
        self._recorder = recorder

    def _launch(self) -> None:
        self._started_ns = now_ns() + _START_AFTER_NS * (1 + self.count)
        sys.stdout.flush()
        sys.stderr.flush()
        # An interrupt waits until it can be passed on to every worker, and in a worker until its work can end for it.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        try:
            for index in range(self.count):
                if self._interrupts or signal.sigpending() & _INTERRUPTS:
                    return
                self._workers.append(self._fork(Share(index, self.count), self._started_ns))
        except OSError as error:
            label = f"worker {len(self._workers) + 1} of {self.count}"
            self._end_all()
            # What follows, such as writing the report, may need the files.
            for worker in self._workers:
                os.close(worker.descriptor)
            self._workers.clear()
            raise CrewError(f"{label} cannot be started: {error.strerror or error}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def _pass_interrupt(self) -> None:
        for worker in self._workers:
            if worker.running:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGINT)
        if self._interrupts > 1:
            gevent.spawn_later(_LAST_WAIT_S, self._kill_all)

    def _fork(self, share: Share, started_ns: int) -> _Forked:
        """Start a worker. Raises OSError where the system allows no more processes or open files."""
        read_end, write_end = os.pipe()
        # The pipe should hold what a worker sends in a second, so that the worker need not wait.
        with suppress(OSError):
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        parent = os.getpid()
        # Unlike gevent's `fork`, this one leaves it to us to wait for the child.
        try:
            pid = gevent.os.fork_gevent()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if not pid:
            # Those of the parent, which were inherited, would interrupt the other workers.
            for number in _INTERRUPTS:
                signal.signal(number, lambda *_: None)
            os.close(read_end)
            for worker in self._workers:
                os.close(worker.descriptor)
            self._be_worker(share, write_end, started_ns, parent)
        os.close(write_end)
        gevent.os.make_nonblocking(read_end)
        return _Forked(share, pid=pid, descriptor=read_end)

    def _be_worker(self, share: Share, descriptor: int, started_ns: int, parent: int) -> NoReturn:
        """Do the work of a worker in the forked process, and exit."""
        code = DEFECT
        try:
            os.setpgid(0, 0)
            end_with(parent)
            self._wall.measure()
            link = ParentPipe(descriptor, self._recorder, self._wall)
            link.end(self._work(share, link, started_ns))
            code = 0
        except BrokenPipeError:
            # The parent is gone.
            code = 0
        except BaseException:  # noqa: BLE001 - the parent's code must not go on in this process
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _attend(self, worker: _Forked) -> None:
        watcher = gevent.spawn(self._watch, worker)
        try:
            for kind, content in messages(worker.descriptor):
                worker.silent_looks = 0
                self._take(worker, kind, content)
        finally:
            watcher.kill()
            os.close(worker.descriptor)
        status = 0
        # Another handler of SIGCHLD may have waited for the child already.
        with suppress(ChildProcessError):
            _, status = os.waitpid(worker.pid, 0)
        if worker.result is None and worker.silent_looks >= _SILENT_LOOKS:
            self._lose(worker, f"said nothing for {_SILENT_LOOKS} s and was killed")
        elif worker.result is None:
            self._lose(worker, exit_text(os.waitstatus_to_exitcode(status)))

    def _watch(self, worker: _Forked) -> None:
        """Kill a worker that is silent for too long. Looks are counted, not seconds: this process may be stopped as well."""
        while worker.silent_looks < _SILENT_LOOKS:
            gevent.sleep(1.0)
            worker.silent_looks += now_ns() > self._started_ns
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.running:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Kill the workers that are still running, whatever made the parent end the run."""
        running = [worker for worker in self._workers if worker.running]
        self._kill_all()
        for worker in running:
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
