"""CPU time of the running greenlet (or thread), and of the process for each answer, in ns.

Where greenlets share a thread, `greenlet.settrace` charges the thread's CPU time to whichever greenlet ran; without
greenlets a thread's CPU time is its own.
"""

from __future__ import annotations

import os
import sys
import threading
from time import process_time_ns, thread_time_ns
from typing import Any

_ATTRIBUTE = "_poolbench_cpu_ns"


class _Greenlets:
    """The CPU time of each greenlet of one native thread."""

    def __init__(self, greenlet: Any) -> None:
        self._current = greenlet.getcurrent
        self._switched_ns = thread_time_ns()
        self._outer = greenlet.settrace(self._switch)

    def own_ns(self) -> int:
        used_ns: int = getattr(self._current(), _ATTRIBUTE, 0)
        return used_ns + thread_time_ns() - self._switched_ns

    def _switch(self, event: str, both: tuple[Any, Any]) -> None:
        now_ns = thread_time_ns()
        origin = both[0]
        setattr(origin, _ATTRIBUTE, getattr(origin, _ATTRIBUTE, 0) + now_ns - self._switched_ns)
        self._switched_ns = now_ns
        if self._outer is not None:
            self._outer(event, both)


_clocks: dict[int, _Greenlets] = {}
"""By native thread."""


def watch_greenlets() -> None:
    """From now on, tell the greenlets of this thread apart, where gevent has patched the process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("_thread"):
        return
    native: int = monkey.get_original("_thread", "get_ident")()
    if native not in _clocks:
        import greenlet  # noqa: PLC0415

        _clocks[native] = _Greenlets(greenlet)


def own_cpu_ns() -> int:
    """CPU time that the running greenlet (or thread) has used so far; only differences mean something."""
    if _clocks:
        clock = _clocks.get(_native())
        if clock is not None:
            return clock.own_ns()
    return thread_time_ns()


def _native() -> int:
    native: int = sys.modules["gevent.monkey"].get_original("_thread", "get_ident")()
    return native


class AnswerCpu:
    """CPU time of the process for each answer: what the process has used since the answer before.

    So it contains all that a request costs: reading it, the application, writing the answer, and collecting garbage. The mean
    is exact whatever the server; the times of single requests are their own only where few overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._last_ns = 0

    def begin(self) -> None:
        """Call when a request arrives: the first one of a process does not pay for its start."""
        if self._pid != os.getpid():
            with self._lock:
                self._pid, self._last_ns = os.getpid(), process_time_ns()

    def take_ns(self) -> int:
        """CPU time since the answer before, in ns."""
        with self._lock:
            now_ns = process_time_ns()
            used_ns, self._last_ns = now_ns - self._last_ns, now_ns
        return used_ns
