"""Greenlets that wait, and housekeeping in gevent's event loop. Imported only where the process has gevent itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
import gevent.monkey
from gevent import _hub_local
from gevent.hub import MAIN_THREAD_IDENT, RawGreenlet  # type: ignore[attr-defined]

from poolbench.fair_queue import NEVER_NS, FairQueue, Waiter, removed

if TYPE_CHECKING:
    from collections.abc import Callable

current: Callable[[], Any] = gevent.getcurrent
hub_if_exists: Callable[[], Any] = _hub_local.get_hub_if_exists
_get_hub: Callable[[], Any] = gevent.get_hub
_native_thread: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
_clock_ns = time.monotonic_ns
_spawn: Callable[..., Any] = gevent.spawn_raw
# Straight into the hub: nothing in between that could collect garbage.
_switch_to: Callable[[Any], Any] = RawGreenlet.switch


class QueueAlarm:
    """The deadlines of all greenlets that wait in one queue and sleep in one event loop, on a single timer.

    All waiters of a queue have the same timeout, so the one that has waited longest is the next to expire. Used in the
    loop's own thread only.
    """

    __slots__ = ("_hub", "_queue", "_timer", "sleepers")

    def __init__(self, hub: Any, queue: FairQueue[Any]) -> None:
        self._hub = hub
        self._queue = queue
        self._timer: Any = None
        self.sleepers = 0

    def start(self, deadline_ns: int) -> None:
        """Ring at the deadline (monotonic ns), unless it is set to ring earlier."""
        if self._timer is None:
            # `update`: libev counts from its cached time, which is old if this greenlet computed for a while.
            timer = self._hub.loop.timer(max(0, deadline_ns - time.monotonic_ns()) / 1e9)
            timer.start(self._ring, update=True)
            # A collection of garbage may have switched greenlets meanwhile, and one of them started a later timer.
            replaced, self._timer = self._timer, timer
            _close(replaced)

    def stop(self) -> None:
        """Stop the timer: nobody is woken up by it any more, and it does not keep the loop alive."""
        timer, self._timer = self._timer, None
        _close(timer)

    def _ring(self) -> None:
        """Run by the loop when the longest sleeper is due."""
        self.stop()
        now_ns = time.monotonic_ns()
        for waiter in list(self._queue.waiters):
            if not isinstance(waiter, GreenletWaiter) or waiter.hub is not self._hub:
                continue
            if waiter.deadline_ns > now_ns:
                self.start(waiter.deadline_ns)
                return
            if removed(self._queue.waiters, waiter):
                waiter.expired = True
                waiter.notify()


class GreenletWaiter(Waiter):
    """A greenlet in the queue. It sleeps by switching to its thread's event loop `hub`, which goes on."""

    __slots__ = ("_alarm", "_alarms", "_parked", "hub")

    def __init__(self, owner: Any, hub: Any, timeout_ns: int | None, alarms: dict[Any, QueueAlarm]) -> None:
        # As Waiter's, written out: every greenlet that waits comes by here.
        self.owner = owner
        self.granted = []
        self.expired = self.gone = False
        self.failure = None
        self.since_ns = since_ns = _clock_ns()
        self.deadline_ns = NEVER_NS if timeout_ns is None else since_ns + timeout_ns
        self.hub = hub
        self._alarms = alarms
        self._alarm: QueueAlarm | None = None
        self._parked = False

    def notify(self) -> None:
        """As in Waiter."""
        hub = self.hub
        if _native_thread() == hub.thread_ident:
            hub.loop.run_callback(self._wake)
        else:
            hub.loop.run_callback_threadsafe(self._wake)

    def sleep(self, queue: FairQueue[Any]) -> None:
        """As in Waiter.

        From the look into `granted` to the switch nothing can collect garbage or let another thread in, so a wake-up
        comes either before the look, or when `_parked` is true.
        """
        # With one thread and no deadline there is no alarm: gevent then raises LoopExit if no greenlet can return anything.
        if self._alarm is None and (self.deadline_ns < NEVER_NS or len(sys._current_frames()) > 1):  # noqa: SLF001
            alarm = self._alarm = self._alarms.get(self.hub) or self._first_alarm(queue)
            alarm.sleepers += 1
            alarm.start(self.deadline_ns)
        if not self.granted and not self.expired:
            self._parked = True
            try:
                _switch_to(self.hub)
            finally:
                self._parked = False

    def start(self, work: Callable[[], Any], delay_s: float = 0) -> None:
        """As in Waiter."""
        start_in(self.hub, work, delay_s)

    def leave(self) -> None:
        """As in Waiter."""
        alarm = self._alarm
        if alarm is not None:
            # The loop may not turn again, and until then it refers to this waiter.
            self._alarm = None
            alarm.sleepers -= 1
            if not alarm.sleepers:
                self._alarms.pop(self.hub, None)
                alarm.stop()

    def _first_alarm(self, queue: FairQueue[Any]) -> QueueAlarm:
        alarm = self._alarms[self.hub] = QueueAlarm(self.hub, queue)
        return alarm

    def _wake(self) -> None:
        """Wake the sleeper; run by the loop. If it is not parked, it died, or it is awake and will look into `granted`."""
        if self._parked:
            self.owner.switch()


def start_in(hub: Any, work: Callable[[], Any], delay_s: float = 0) -> None:
    """Run `work` in a greenlet of the event loop `hub`, in `delay_s`; may be called in any thread."""
    if _native_thread() != hub.thread_ident:
        hub.loop.run_callback_threadsafe(start_in, hub, work, delay_s)
    elif delay_s > 0:
        timer = hub.loop.timer(delay_s)
        timer.start(_fire, timer, work, update=True)
    else:
        _spawn(work)


def _fire(timer: Any, work: Callable[[], Any]) -> None:
    _close(timer)
    _spawn(work)


class HubKeeper:
    """Housekeeping by a timer of an event loop, which keeps neither the loop nor what `work` belongs to alive.

    `work` runs once per `interval_s`, each time in a greenlet of its own, until it returns False or `stop` is called.
    """

    def __init__(self, hub: Any, interval_s: float, work: Callable[[], bool]) -> None:
        self._hub = hub
        self._work = work
        self._timer = hub.loop.timer(interval_s, interval_s, ref=False)
        self._timer.start(_spawn, self._run)

    def stop(self) -> None:
        """As in Keeper."""
        timer, self._timer = self._timer, None
        if timer is None:
            return
        if _native_thread() == self._hub.thread_ident:
            _close(timer)
        else:
            self._hub.loop.run_callback_threadsafe(_close, timer)

    def is_running(self) -> bool:
        """As in Keeper."""
        return self._timer is not None and self._hub.thread_ident in sys._current_frames()  # noqa: SLF001

    def _run(self) -> None:
        if not self._work():
            self.stop()


def is_in_play() -> bool:
    """Whether an event loop is known to be running: all of the process is patched, or the caller is a greenlet in one."""
    if gevent.monkey.is_module_patched("threading"):
        return True
    hub = hub_if_exists()
    return hub is not None and current() is not hub and current().parent is hub


def hub_here() -> Any:
    """The running thread's event loop, called only where `is_in_play()`; the main thread's may be made now, others' are None
    if they have none.
    """
    hub = hub_if_exists()
    return _get_hub() if hub is None and _native_thread() == MAIN_THREAD_IDENT else hub


def keeper_here(interval_s: float, work: Callable[[], bool]) -> HubKeeper | None:
    """As `waiters.keeper_here`, called only where `is_in_play()`. None in a thread that has no event loop of its own."""
    hub = hub_here()
    return None if hub is None else HubKeeper(hub, interval_s, work)


def _close(timer: Any) -> None:
    if timer is not None:
        timer.stop()
        timer.close()
