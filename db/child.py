"""A child process under supervision: started, awaited until it is ready, and ended. It is never left behind.

Only the standard library is imported here, so that `loadgen.crew`, which otherwise does without `db`, may use it as well.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Self

_PR_SET_PDEATHSIG = 1
_SHOWN_LINES = 3
_SHOWN_CHARACTERS = 300


class ChildError(Exception):
    """A child process did not become ready, and is ended. The message is one line: how it failed, and its log's last lines.

    `failure` is the first part of it, such as "ended with exit code 1"; `output` is everything that the log got.
    """

    def __init__(self, failure: str, output: str) -> None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        shown = " | ".join(lines[-_SHOWN_LINES:])[-_SHOWN_CHARACTERS:]
        super().__init__(f"it {failure}; its log ends with: {shown}" if shown else f"it {failure}; its log is empty")
        self.failure, self.output = failure, output


class Child:
    """A running process, started by the constructor, in a session and process group of its own.

    Ctrl-C in a terminal therefore reaches only this process, which then stops its children. Where `log` is given, stdout
    and stderr of the child are appended to that file; stdin is empty. `options` go to `subprocess.Popen` as they are: cwd,
    env, user, group, extra_groups, or pipes for stdin and stdout. The constructor raises OSError where the program cannot be
    started.

    `stop` sends `stop_signals` one after the other and waits up to `patience_s` seconds after each.

    Linux sends `death_signal` to the child when the thread that started it ends, however it ends: start the child from a
    thread that lives as long as the child should. None, or another system: the child outlives a killed parent.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | None = None,
        stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,),
        patience_s: float = 15.0,
        death_signal: signal.Signals | None = signal.SIGKILL,
        **options: Any,
    ) -> None:
        self._log = log
        self._log_start = 0
        self._stop_signals = stop_signals
        self._patience_s = patience_s
        self._group_killed = False
        with contextlib.ExitStack() as opened:
            if log is not None:
                file = opened.enter_context(log.open("ab"))
                self._log_start = file.tell()
                options |= {"stdout": file, "stderr": file}
            self.process: subprocess.Popen[Any] = subprocess.Popen(
                [str(part) for part in command],
                start_new_session=True,
                # One system call and no lock, so it is safe after a fork. It comes after the change of user, which would
                # undo it.
                preexec_fn=None if death_signal is None else _ask_for(death_signal),  # noqa: PLW1509
                **{"stdin": subprocess.DEVNULL, **options},
            )

    @property
    def pid(self) -> int:
        """Number of the process, and of its process group."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.poll() is None

    @property
    def stdin(self) -> IO[Any]:
        """The pipe to the child, if `stdin=PIPE` was among the options. Raises BrokenPipeError if it was not."""
        return _pipe(self.process.stdin)

    @property
    def stdout(self) -> IO[Any]:
        """The pipe from the child, if `stdout=PIPE` was among the options. Raises BrokenPipeError if it was not."""
        return _pipe(self.process.stdout)

    def output(self) -> str:
        """The text that the child has written to its log; empty if it has no log."""
        if self._log is None:
            return ""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def await_ready(self, ready: Callable[[], bool], within_s: float, *, every_s: float = 0.02) -> None:
        """Return once `ready()` is true, which is asked every `every_s` seconds.

        Raises ChildError where the process ends first, or is not ready within `within_s` seconds. The child is ended then,
        as it is when `ready` itself raises.
        """
        deadline = time.monotonic() + within_s
        late = False
        try:
            while self.running and not (late := time.monotonic() > deadline):
                if ready():
                    return
                time.sleep(every_s)
        except BaseException:
            self.kill()
            raise
        code = self.stop()
        raise ChildError(f"was not ready within {within_s:g} s" if late else _ending(code), self.output())

    def stop(self, *signals: signal.Signals) -> int:
        """End the process and return its exit code, negative where a signal ended it.

        Closes a pipe to its stdin and sends each signal in turn (by default the constructor's). What is left after the
        waits, be it the process or others of its group, is killed.
        """
        try:
            if self.process.stdin is not None:
                # What was written and not read is of no use any more.
                with contextlib.suppress(OSError):
                    self.process.stdin.close()
            for each in signals or self._stop_signals:
                self.process.send_signal(each)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(self._patience_s)
                    break
        finally:
            self.kill()
        return int(self.process.returncode)

    def kill(self) -> int:
        """End the process and its whole group with SIGKILL, and return its exit code as `stop` does."""
        # Once only: when nothing is left of the group, the system may give its number to somebody else.
        if not self._group_killed:
            self._group_killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return int(code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _ask_for(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a new child does before it becomes another program: it asks Linux for a signal when its parent ends."""
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork: after it nothing may take a lock.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal)
        # The parent may have ended before the call, and then no signal comes.
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _pipe(end: IO[Any] | None) -> IO[Any]:
    if end is None:
        raise BrokenPipeError
    return end


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
