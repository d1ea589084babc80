"""Those who wait: plain threads here, greenlets in greenlets.py, which is imported only where the process has gevent.

How to wait is decided at each wait, by where the caller runs: in a thread with an event loop of gevent the greenlet sleeps
and the loop goes on; anywhere else the thread itself sleeps.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from poolbench.fair_queue import NEVER_NS, FairQueue, Waiter, removed
from poolbench.native import native

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class CannotWaitHereError(Exception):
    """Nobody may sleep in a callback of the event loop: the loop itself would stand still."""


class Keeper(Protocol):
    """Calls a pool's housekeeping once per interval."""

    def stop(self) -> None:
        """Stop calling it; may be called in any thread, and more than once."""

    def is_running(self) -> bool:
        """Whether calls are still to be expected."""


_native_lock: Callable[[], Any] = native(_thread, "allocate_lock")
_start_native_thread: Callable[..., int] = native(_thread, "start_new_thread")
_native_thread: Callable[[], int] = native(_thread, "get_ident")
_greenlets: ModuleType | None = None

# Threads of this package, which borrow nothing.
_own_threads: set[int] = set()


class ThreadWaiter(Waiter):
    """A thread in the queue. It sleeps on a lock of its own, which is released to wake it up."""

    __slots__ = ("_bell",)

    def __init__(self, owner: Any, timeout_ns: int | None) -> None:
        # As Waiter's, written out: every thread that waits comes by here.
        self.owner = owner
        self.granted = []
        self.expired = self.gone = False
        self.failure = None
        self.since_ns = since_ns = time.monotonic_ns()
        self.deadline_ns = NEVER_NS if timeout_ns is None else since_ns + timeout_ns
        bell = self._bell = _native_lock()
        bell.acquire()

    def notify(self) -> None:
        """As in Waiter."""
        self._bell.release()

    def sleep(self, queue: FairQueue[Any]) -> None:
        """As in Waiter."""
        if self.deadline_ns == NEVER_NS:
            self._bell.acquire()
            return
        left_s = (self.deadline_ns - time.monotonic_ns()) / 1e9
        if self._bell.acquire(timeout=min(max(0.0, left_s), threading.TIMEOUT_MAX)):
            return
        if time.monotonic_ns() >= self.deadline_ns and removed(queue.waiters, self):
            self.expired = True

    def start(self, work: Callable[[], Any], delay_s: float = 0) -> None:
        """As in Waiter."""
        start_thread(work, delay_s)


def start_thread(work: Callable[[], Any], delay_s: float = 0) -> None:
    """Run `work` in a thread, in `delay_s`; the thread does not keep the process alive. Raises RuntimeError if there cannot be
    one.
    """

    def run() -> None:
        me = _native_thread()
        _own_threads.add(me)
        try:
            if delay_s > 0:
                bell = _native_lock()
                bell.acquire()
                bell.acquire(timeout=delay_s)
            work()
        finally:
            _own_threads.discard(me)

    _start_native_thread(run, ())


class ThreadKeeper:
    """Housekeeping by a daemon thread, which neither keeps the process nor what `work` belongs to alive.

    `work` is called once per `interval_s`, until it returns False or `stop` is called. A fork's child has no such thread.
    """

    def __init__(self, interval_s: float, work: Callable[[], bool]) -> None:
        self._interval_s = interval_s
        self._work = work
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poolbench-housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As in Keeper."""
        self._stopped.set()

    def is_running(self) -> bool:
        """As in Keeper."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def _run(self) -> None:
        me = _native_thread()
        _own_threads.add(me)
        try:
            self._keep_on()
        finally:
            _own_threads.discard(me)

    def _keep_on(self) -> None:
        while not self._stopped.wait(self._interval_s) and self._work():
            pass


def greenlets() -> Any:
    """The module poolbench.greenlets, or None where the process has not imported gevent (we never do so ourselves)."""
    global _greenlets  # noqa: PLW0603 - gevent may be imported later than this module
    if _greenlets is None and sys.modules.get("gevent") is not None:
        from poolbench import greenlets as found  # noqa: PLC0415 - it needs gevent

        _greenlets = found
    return _greenlets


def current() -> Any:
    """The running greenlet, or the running thread's number where the process has no gevent."""
    gevent = _greenlets or greenlets()
    return threading.get_ident() if gevent is None else gevent.current()


def is_alone() -> bool:
    """Whether nobody but the caller can run here: it is the only thread that is not ours, or a callback of the event loop."""
    gevent = _greenlets or greenlets()
    hub = None if gevent is None else gevent.hub_if_exists()
    if gevent is not None and hub is not None:
        return bool(gevent.current() is hub)
    return not sys._current_frames().keys() - _own_threads - {_native_thread()}  # noqa: SLF001


def start_here(work: Callable[[], Any]) -> None:
    """Run `work` soon: in a greenlet where the running thread has an event loop, else in a thread. Raises RuntimeError if there
    cannot be one.
    """
    gevent = _greenlets or greenlets()
    hub = gevent.hub_here() if gevent is not None and gevent.is_in_play() else None
    if gevent is None or hub is None:
        start_thread(work)
    else:
        gevent.start_in(hub, work)


def forget_threads() -> None:
    """In a forked child, which has none of its parent's threads: their numbers may be given to others."""
    _own_threads.clear()


def current_function() -> Callable[[], Any]:
    """A function that gives the running greenlet, or the running thread's number where the process has no gevent so far."""
    gevent = _greenlets or greenlets()
    return native(_thread, "get_ident") if gevent is None else gevent.current  # type: ignore[no-any-return]


def waiter_here(timeout_ns: int | None, alarms: dict[Any, Any]) -> Waiter:
    """A waiter for the running greenlet or thread. `alarms` belongs to the queue, empty at first: a timer per event loop.

    Raises CannotWaitHereError in a callback of the event loop.
    """
    gevent = _greenlets or greenlets()
    if gevent is not None:
        hub = gevent.hub_if_exists()
        if hub is not None:
            me = gevent.current()
            if me is hub:
                raise CannotWaitHereError
            waiter: Waiter = gevent.GreenletWaiter(me, hub, timeout_ns, alarms)
            return waiter
        return ThreadWaiter(gevent.current(), timeout_ns)
    return ThreadWaiter(threading.get_ident(), timeout_ns)


def keeper_here(interval_s: float, work: Callable[[], bool]) -> Keeper | None:
    """Start calling `work` once per `interval_s` until it returns False: in the event loop if one is running, else in
    a daemon thread. None if neither can be had here, though it can elsewhere in the process.
    """
    gevent = greenlets()
    if gevent is not None and gevent.is_in_play():
        keeper: Keeper | None = gevent.keeper_here(interval_s, work)
        return keeper
    return ThreadKeeper(interval_s, work)
