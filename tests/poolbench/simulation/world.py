"""A deterministic machine: threads, an event loop, locks and a clock, all driven by one seed.

Each thread is a greenlet (so is each of the event loop's own greenlets), and only the scheduler, `World.run`, decides
which of them goes on. Time stands still while anybody can run, and then jumps to the next instant at which somebody can.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, repeat
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Greenlet: Any = greenlet
Item = TypeVar("Item")
MS = 1_000_000
MOST_STEPS = 20_000
"""More than any schedule takes that ends. Few take more than 1,000; seed 5032528 takes more than 6,000."""

BEGINNING_NS = 1_000 * 1_000_000_000


NOT_SOON = 256
"""Switch points until the next look whether an interruption could change anything."""


class Countdown:
    """Number of switch points until the next interruption, of the machine that runs at this moment.

    It is kept as an iterator `__ticks__` that ends with the interruption: in CPython, a step of it costs a tenth of what
    counting in an attribute does. names: where the code that is interrupted looks it up.
    """

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def follow(self, names: dict[str, Any]) -> None:
        """From now on it is the code with these names that is interrupted."""
        self.names = names
        self.set(NOT_SOON)

    def set(self, points: int) -> None:
        """The interruption is at this switch point from now, 1 for the next."""
        globals()["__ticks__"] = self.names["__ticks__"] = repeat(None, points - 1)


countdown = Countdown()
__ticks__: Any = ()


class Machine:
    """The machine that runs at this moment. Not an attribute of `World`: a class that changes makes each use of it slower."""

    __slots__ = ("world",)

    world: World


machine = Machine()


class Stopped(GreenletExit):
    """The schedule is over; thrown into whatever is left of it."""


class Violation(Exception):
    """Something that the pool promises did not hold."""


class Thread:
    """A thread of the simulated machine. `hub` is its event loop, or None."""

    def __init__(self, world: World, run: Callable[[], Any], *, hub: bool = False) -> None:
        self.ident = next(world.idents)
        self.hub: Hub | None = Hub(self, world) if hub else None
        self.resumes: Any = Greenlet(run, world.scheduler) if self.hub is None else self.hub
        if self.hub is not None:
            world.hubs.append(self.hub)
        self.waits_for: Any = None
        world.threads.append(self)
        world.may_run(self)


class Hub(greenlet):  # type: ignore[misc]
    """An event loop as gevent's: callbacks in their order, timers when they are due, greenlets in between."""

    def __init__(self, thread: Thread, world: World) -> None:
        super().__init__(None, world.scheduler)
        self.loop = self
        self.thread_ident = thread.ident
        self._thread, self._world = thread, world
        self._callbacks: deque[tuple[Any, Any]] = deque()
        self._due: list[LoopTimer] = []

    def run(self) -> None:
        world = self._world
        while True:
            if self._callbacks and not (self._due and world.rng.random() < 0.5):
                callback, args = self._callbacks.popleft()
            elif self._due:
                timer = self._due.pop(world.rng.randrange(len(self._due)))
                if not timer.is_active:
                    continue
                callback, args = timer.fired()
            else:
                world.block(self)
                continue
            try:
                callback(*args)
            except Exception as error:
                world.fail(f"a callback of the event loop raised {error!r}")

    def run_callback(self, callback: Any, *args: Any) -> None:
        self._callbacks.append((callback, args))
        self._world.wake(self._thread, self)

    run_callback_threadsafe = run_callback

    def timer(self, after_s: float, repeat_s: float = 0.0, **_: Any) -> LoopTimer:
        return LoopTimer(self, self._world, after_s, repeat_s)

    def becomes_due(self, timer: LoopTimer) -> None:
        self._due.append(timer)
        self._world.wake(self._thread, self)


class LoopTimer:
    """A timer of the event loop."""

    def __init__(self, hub: Hub, world: World, after_s: float, repeat_s: float) -> None:
        self._hub, self._world = hub, world
        self._after_s, self._repeat_s = after_s, repeat_s
        self.is_active = False
        self._round = 0

    def start(self, callback: Any, *args: Any, **_: Any) -> None:
        self._task = callback, args
        self.is_active = True
        self._set(self._after_s)

    def stop(self) -> None:
        self.is_active = False
        self._round += 1

    def close(self) -> None:
        self.stop()

    def fired(self) -> Any:
        if self._repeat_s:
            self._set(self._repeat_s)
        else:
            self.is_active = False
        return self._task

    def _set(self, after_s: float) -> None:
        self._round += 1
        mine = self._round
        self._world.at(after_s, lambda: self._hub.becomes_due(self) if self._round == mine and self.is_active else None)


class World:
    """One machine, from its beginning to the end of one schedule.

    gap: the mean number of switch points from one interruption of a thread to the next, while there is another thread that
    could run, or garbage; 0 for none. ready: the threads that can run. garbage: objects that nobody refers to any more, until
    some switch point collects them.
    """

    def __init__(self, seed: int, most_steps: int = MOST_STEPS) -> None:
        machine.world = self
        self._most_steps = most_steps
        self.rng = random.Random(seed)
        self.now_ns = BEGINNING_NS
        self.idents = count(1)
        self.threads: list[Thread] = []
        self.ready: list[Thread] = []
        self.thread: Thread | None = None
        self.scheduler = getcurrent()
        self.garbage: list[Any] = []
        self.gap = 0
        self.failure: str | None = None
        self.is_over = False
        self.trace: list[str] | None = None
        countdown.set(NOT_SOON)
        self._each_step: Callable[[], None] = lambda: None
        self._steps = 0
        self._timers: list[tuple[int, float, Callable[[], Any]]] = []
        self.hubs: list[Hub] = []
        self._greenlets: list[Any] = []
        self._abandoned: list[Any] = []

    # What runs

    def run(
        self, is_done: Callable[[], bool], each_step: Callable[[], None], when_quiet: Callable[[], None], until_s: float
    ) -> None:
        """Run until `is_done`, or nothing more can happen, or `until_s` (of simulated time from now) is over."""
        end_ns = self.now_ns + round(until_s * 1e9)
        draw, threads, ready = self.rng.random, self.threads, self.ready
        self._each_step = each_step
        while self.failure is None:
            self._steps += 1
            if self._steps > self._most_steps:
                self.failure = f"no end in {self._most_steps} steps"
                break
            if ready:
                thread = self.thread = ready[0] if len(ready) == 1 else ready[int(draw() * len(ready))]
                thread.resumes.switch()
                # Since then threads may have been followed by others directly, in `interrupt`.
                thread = self.thread
                if thread.resumes.dead and thread in threads:
                    threads.remove(thread)
                    ready.remove(thread)
                self.thread = None
                if self.failure is None:
                    each_step()
                continue
            when_quiet()
            if ready:
                continue
            if is_done() or not self._timers or self._timers[0][0] > end_ns or self.failure is not None:
                break
            now_ns = self.now_ns = self._timers[0][0]
            while self._timers and self._timers[0][0] == now_ns:
                heapq.heappop(self._timers)[2]()
        countdown.set(NOT_SOON)

    def pick(self, among: Sequence[Item]) -> Item:
        """One of them, each as likely; `Random.choice` takes longer."""
        return among[int(self.rng.random() * len(among))]

    def after_a_call(self) -> None:
        """What an interruption after a call may be: garbage is collected, or another thread runs."""
        if self.garbage and self.gap and self.rng.random() < 0.5:
            self._interrupt_soon()
            self.collect()
        else:
            self.interrupt()

    def collect(self) -> None:
        """Collect a piece of garbage, in the running thread."""
        if self.garbage:
            self.garbage.pop(int(self.rng.random() * len(self.garbage)))

    def abandon(self, item: Any) -> None:
        """Nobody refers to the item any more: it is garbage from now on."""
        self.garbage.append(item)
        self._interrupt_soon()

    def may_run(self, thread: Thread) -> None:
        """The thread can run from now on."""
        ready = self.ready
        ready.append(thread)
        if len(ready) == 2:
            self._interrupt_soon()

    def _interrupt_soon(self) -> None:
        if self.gap:
            countdown.set(1 + int(self.rng.random() * 2 * self.gap))

    def interrupt_next(self) -> None:
        """Interrupt the running thread at its next switch point."""
        countdown.set(1)

    def interrupt(self) -> None:
        """Let another thread run, if one can; each that can run is as likely to go on as this one."""
        self._steps += 1
        ready, gap, thread = self.ready, self.gap, self.thread
        if not gap or (len(ready) < 2 and not self.garbage):
            countdown.set(NOT_SOON)
        else:
            countdown.set(1 + int(self.rng.random() * 2 * gap))
        if thread is None or self.is_over or self._steps > self._most_steps:
            if self._steps > self._most_steps:
                self.fail(f"no end in {self._most_steps} steps")
            return
        if len(ready) > 1:
            thread.resumes = getcurrent()
            self._each_step()
            if self.failure is not None:
                self.scheduler.switch()
                return
            chosen = ready[int(self.rng.random() * len(ready))]
            if chosen is not thread:
                # Straight to it, not by way of the scheduler.
                self.thread = chosen
                chosen.resumes.switch()

    def block(self, reason: Any) -> None:
        """Stop the running thread until `wake(thread, reason)`."""
        if self.is_over or self.thread is None:
            raise Stopped
        thread = self.thread
        thread.resumes, thread.waits_for = getcurrent(), reason
        self.ready.remove(thread)
        self.scheduler.switch()

    def wake(self, thread: Thread, reason: Any) -> None:
        """Let a thread go on if it was blocked for this reason."""
        if thread.waits_for is reason:
            thread.waits_for = None
            self.may_run(thread)

    def at(self, after_s: float, callback: Callable[[], Any]) -> None:
        """Call back after so many seconds; of several at one instant, in a random order."""
        heapq.heappush(self._timers, (self.now_ns + round(after_s * 1e9), self.rng.random(), callback))

    def goes_on(self) -> bool:
        """Whether anything happens within the next second."""
        return bool(self._timers) and self._timers[0][0] < self.now_ns + 1_000_000_000

    def pause(self, duration_ns: int) -> None:
        """Let the running greenlet or thread sleep. Raises RuntimeError in a callback of the event loop."""
        thread = self.thread
        if self.is_over or thread is None:
            return
        hub = thread.hub
        if hub is None:
            if duration_ns:
                token = object()
                self.at(duration_ns / 1e9, lambda: self.wake(thread, token))
                self.block(token)
            else:
                self.interrupt()
            return
        me: Any = getcurrent()
        if me is hub:
            raise RuntimeError("a callback of the event loop cannot sleep")
        state = ["asleep"]

        def over() -> None:
            if state[0] == "asleep":
                state[0] = "over"
                me.switch()

        if duration_ns:
            self.at(duration_ns / 1e9, lambda: hub.run_callback(over))
        else:
            hub.run_callback(over)
        try:
            hub.switch()
            if state[0] == "asleep" and not self.is_over:
                self.fail("a greenlet that slept elsewhere was woken up")
        finally:
            state[0] = "left"

    def spawn(self, run: Callable[[], Any], hub: Hub | None) -> Any:
        """Start a greenlet in an event loop, or a thread; returns the greenlet that it runs in."""
        if hub is None:
            return Thread(self, run).resumes
        made = Greenlet(run, hub)
        self._greenlets.append(made)
        hub.run_callback(lambda: None if made.dead else made.switch())
        return made

    def throw(self, victim: Any, hub: Hub, error: BaseException) -> None:
        """Have the event loop throw an exception into a greenlet."""
        hub.run_callback(lambda: None if victim.dead else victim.throw(error))

    def fork(self) -> None:
        """Go on as the child: only the running greenlet or thread is left of what ran."""
        me = getcurrent()
        for thread in self.threads:
            if thread is not self.thread:
                self._abandoned.append(thread.resumes)
                # Nothing wakes it up any more.
                thread.waits_for = None
        for threads in (self.threads, self.ready):
            threads[:] = [thread for thread in threads if thread is self.thread]
        self._abandoned += [each for each in self._greenlets if each is not me]
        self._greenlets = [me]
        self._timers.clear()
        if self.thread is not None and self.thread.hub is not None:
            self.thread.hub._callbacks.clear()
            self.thread.hub._due.clear()

    def fail(self, what: str) -> None:
        """Record that something does not hold; the schedule ends."""
        if self.failure is None and not self.is_over:
            self.failure = what
        raise Stopped

    def end(self) -> None:
        """Stop everything that still runs."""
        self.is_over = True
        countdown.set(NOT_SOON)
        left = [*self._greenlets, *self._abandoned, *(thread.resumes for thread in self.threads)]
        # Event loops last, and all of them: Python never collects a greenlet that has begun and not ended.
        for each in [*(one for one in left if not isinstance(one, Hub)), *self.hubs]:
            if not each.dead:
                each.parent = self.scheduler
                # Whatever it held is gone with the world.
                with contextlib.suppress(Exception):
                    each.throw(Stopped)
        # A greenlet that was thrown out may stay for ever: not with the whole world, whose next collections would take long.
        for hub in self.hubs:
            vars(hub).clear()
        self.threads.clear()
        self.ready.clear()
        self.hubs.clear()
        self._timers.clear()
        self.garbage.clear()


def interrupt() -> None:
    """The countdown of switch points has ended: another thread may go on."""
    machine.world.interrupt()


def after_a_call() -> None:
    """The countdown has ended at a switch point after a call: another thread may go on, or garbage is collected."""
    machine.world.after_a_call()


def after(value: Any) -> Any:
    """A switch point after a call, whose value it passes on; now and then garbage is collected here."""
    for _ in __ticks__:
        return value
    machine.world.after_a_call()
    return value
