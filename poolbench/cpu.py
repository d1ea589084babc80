"""CPU time of the running greenlet (or thread), and of the process for each answer, in ns.

Where greenlets share a thread, `greenlet.settrace` charges the thread's CPU time to whichever greenlet ran; without
greenlets a thread's CPU time is its own.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable
from time import process_time_ns, thread_time_ns
from typing import Any

from poolbench.native import native


def _greenlet_clock(greenlet: Any) -> Callable[[], int]:
    """Tell apart the CPU time of the greenlets of this native thread from now on.

    Returns a function: the CPU time of the running greenlet in ns; only differences mean something.
    """
    current, outer = greenlet.getcurrent, None
    switched_ns = thread_time_ns()

    # Runs at every switch of greenlets, so it does no more than it must.
    def switch(event: str, both: tuple[Any, Any]) -> None:
        nonlocal switched_ns
        now_ns = thread_time_ns()
        try:
            both[0]._poolbench_cpu_ns += now_ns - switched_ns  # noqa: SLF001
        except AttributeError:
            both[0]._poolbench_cpu_ns = now_ns - switched_ns  # noqa: SLF001
        switched_ns = now_ns
        if outer is not None:
            outer(event, both)

    def own_ns() -> int:
        used_ns: int = getattr(current(), "_poolbench_cpu_ns", 0)
        return used_ns + thread_time_ns() - switched_ns

    outer = greenlet.settrace(switch)
    return own_ns


_clocks: dict[int, Callable[[], int]] = {}
"""By native thread, in a process that gevent has patched."""
_native: Callable[[], int] | None = None
"""The number of the running native thread; None until gevent is known to have patched the process."""


def watch_greenlets() -> None:
    """From now on, tell the greenlets of this thread apart, where gevent has patched the process."""
    global _native  # noqa: PLW0603 - looked up once: this runs in every request
    if _native is None:
        monkey: Any = sys.modules.get("gevent.monkey")
        if monkey is None or not monkey.is_module_patched("_thread"):
            return
        _native = native(_thread, "get_ident")
    number = _native()
    if number not in _clocks:
        import greenlet  # noqa: PLC0415

        _clocks[number] = _greenlet_clock(greenlet)


def own_cpu_ns() -> int:
    """CPU time that the running greenlet (or thread) has used so far; only differences mean something."""
    if _native is not None:
        clock = _clocks.get(_native())
        if clock is not None:
            return clock()
    return thread_time_ns()


class AnswerCpu:
    """CPU time of the process for each answer: what the process has used since the answer before.

    So it contains all that a request costs: reading it, the application, writing the answer, and collecting garbage. The mean
    is exact whatever the server; the times of single requests are their own only where few overlap.
    """

    def __init__(self) -> None:
        # A lock of the interpreter's even where gevent has patched `threading`, at half the cost. Its owner is the thread, so
        # that another greenlet goes in, too, should garbage that is collected within switch to it.
        self._lock = native(_thread, "RLock")()
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
