"""A deterministic machine: threads, an event loop, locks and a clock, all driven by one seed.

Each thread is a greenlet (so is each of the event loop's own greenlets), and only draws of one random generator decide which
of them goes on. Time stands still while anybody can run, and then jumps to the next instant at which somebody can.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count, repeat
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from tests.poolbench.simulation.weaving import Package

Item = TypeVar("Item")
MS = 1_000_000
MOST_STEPS = 20_000
"""More than any schedule takes that ends; the longest of 4,000 took 1,643."""

BEGINNING_NS = 1_000 * 1_000_000_000

NOT_SOON = 255
"""Switch points until the next look whether an interruption could change anything."""


class Machine:
    """The machine that runs at this moment. Not an attribute of `World`: a class that changes makes each use of it slower."""

    __slots__ = ("world",)

    world: World


machine = Machine()


class Stopped(GreenletExit):
    """The schedule is over; thrown into whatever is left of it."""


class Violation(Exception):
    """Something that the pool promises did not hold."""


class Task(greenlet):  # type: ignore[misc]
    """A greenlet of the simulated machine: it runs `task` once. has_ended: it did, or will not.

    The next world may give it another task: the memory in which a greenlet runs comes from the kernel, and starting one
    costs more than what many of them do here.
    """

    __slots__ = ("has_ended", "task")

    def __init__(self) -> None:
        super().__init__()
        self.task: Callable[[], Any] | None = None
        self.has_ended = True

    def run(self) -> None:
        while True:
            failures = []
            task, self.task = self.task, None
            try:
                if task is not None:
                    task()
            except GreenletExit:
                pass
            except BaseException as error:
                failures.append(error)
            # Nothing may be kept alive by a greenlet that has ended.
            del task
            self.has_ended = True
            if failures:
                self.parent.throw(failures.pop())
            else:
                self.parent.switch()

    def end(self, scheduler: Any) -> None:
        """Stop whatever it does."""
        if self.has_ended:
            return
        if self.task is not None:
            self.task, self.has_ended = None, True
            return
        self.parent = scheduler
        # Whatever it held is gone with the world.
        with contextlib.suppress(Exception):
            self.throw(Stopped)


class Thread:
    """A thread of the simulated machine. `hub` is its event loop, or None. resumes: what is switched to for it to go on."""

    __slots__ = ("hub", "ident", "resumes", "waits_for")

    def __init__(self, world: World, run: Callable[[], Any], *, hub: bool = False) -> None:
        self.ident = next(world.idents)
        self.hub: Hub | None = None
        self.resumes: Any
        if hub:
            self.resumes = self.hub = world.new_hub(self)
        else:
            self.resumes = world.new_task(run, world.scheduler)
        self.waits_for: Any = None
        world.threads.append(self)
        world.may_run(self)


class Hub(Task):
    """An event loop as gevent's: callbacks in their order, timers when they are due, greenlets in between."""

    __slots__ = ("_callbacks", "_due", "_thread", "_world", "loop", "thread_ident")

    def begin(self, thread: Thread, world: World) -> None:
        """Become the event loop of that thread."""
        self.loop = self
        self.thread_ident = thread.ident
        self._thread: Any = thread
        self._world: Any = world
        self._callbacks: deque[tuple[Any, Any]] = deque()
        self._due: list[LoopTimer] = []
        self.parent, self.task, self.has_ended = world.scheduler, self._serve, False

    def end(self, scheduler: Any) -> None:
        """As in Task."""
        if not self.has_ended and self._thread.waits_for is self:
            # It rests, and notices: an exception thrown into a greenlet costs more.
            self.switch()
        else:
            super().end(scheduler)

    def forget(self) -> None:
        """Forget all that is still to be done."""
        self._callbacks.clear()
        self._due.clear()

    def _serve(self) -> None:
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
                if world.is_over:
                    return
                continue
            try:
                callback(*args)
            except Exception as error:
                world.fail(f"a callback of the event loop raised {error!r}")

    def run_callback(self, callback: Any, *args: Any) -> None:
        self._callbacks.append((callback, args))
        thread = self._thread
        if thread.waits_for is self:
            thread.waits_for = None
            self._world.may_run(thread)

    run_callback_threadsafe = run_callback

    def timer(self, after_s: float, repeat_s: float = 0.0, **_: Any) -> LoopTimer:
        return LoopTimer(self, self._world, after_s, repeat_s)

    def becomes_due(self, timer: LoopTimer) -> None:
        self._due.append(timer)
        self._world.wake(self._thread, self)


class LoopTimer:
    """A timer of the event loop."""

    __slots__ = ("_after_s", "_hub", "_repeat_s", "_round", "_task", "_world", "is_active")

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
    some switch point collects them. names: where the code that is interrupted looks up `__ticks__`, an iterator that ends
    at the switch point of the next interruption: in CPython, a step of it costs a tenth of what counting in an attribute does.
    """

    def __init__(self, seed: int, most_steps: int = MOST_STEPS) -> None:
        machine.world = self
        self._most_steps = most_steps
        self.names: dict[str, Any] = {}
        # One for all worlds: making one takes as long as seeding it.
        self.rng = _RNG
        self.rng.seed(seed)
        self._draw = self.rng.random
        self._can_interrupt = True
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
        self.names["__ticks__"] = repeat(None, NOT_SOON)
        self._each_step: Callable[[], None] = _nothing
        self._steps = 0
        self._timers: list[tuple[int, float, Callable[[], Any]]] = []
        self._tasks: list[Task] = []
        self._hubs: list[Hub] = []

    # What runs

    def run(
        self, is_done: Callable[[], bool], each_step: Callable[[], None], when_quiet: Callable[[], None], until_s: float
    ) -> None:
        """Run until `is_done`, or nothing more can happen, or `until_s` (of simulated time from now) is over."""
        end_ns = self.now_ns + round(until_s * 1e9)
        draw, threads, ready = self._draw, self.threads, self.ready
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
                if thread.resumes.has_ended and thread in threads:
                    threads.remove(thread)
                    ready.remove(thread)
                self.thread = None
                if self.failure is None:
                    each_step()
                continue
            when_quiet()
            if ready:
                continue
            timers = self._timers
            if is_done() or not timers or timers[0][0] > end_ns or self.failure is not None:
                break
            now_ns = self.now_ns = timers[0][0]
            while timers and timers[0][0] == now_ns:
                heappop(timers)[2]()
        self.names["__ticks__"] = repeat(None, NOT_SOON)

    def pick(self, among: Sequence[Item]) -> Item:
        """One of them, each as likely; `Random.choice` takes longer."""
        return among[int(self._draw() * len(among))]

    def after_a_call(self) -> None:
        """What an interruption after a call may be: garbage is collected, or another thread runs."""
        if self.garbage and self.gap and self._draw() < 0.5:
            self._interrupt_soon()
            self.collect()
        else:
            self.interrupt()

    def collect(self) -> None:
        """Collect a piece of garbage, in the running thread."""
        if self.garbage:
            self.garbage.pop(int(self._draw() * len(self.garbage)))

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
            if not self._can_interrupt:
                self.fail("there is somebody who could interrupt, in code without switch points")
            self.names["__ticks__"] = repeat(None, int(self._draw() * 2 * self.gap))

    def interrupts(self, package: Package) -> None:
        """From now on it is the code of this copy of the package that is interrupted."""
        self._can_interrupt = package.has_points
        names = self.names = package.names
        names["__ticks__"] = repeat(None, NOT_SOON)
        names["__interrupt__"], names["__after_a_call__"] = self.interrupt, self.after_a_call

    def interrupt_next(self) -> None:
        """Interrupt the running thread at its next switch point."""
        self.names["__ticks__"] = repeat(None, 0)

    def interrupt(self) -> None:
        """Let another thread run, if one can; each that can run is as likely to go on as this one."""
        steps = self._steps = self._steps + 1
        ready, gap, draw = self.ready, self.gap, self._draw
        number = len(ready)
        if gap and (number > 1 or self.garbage):
            self.names["__ticks__"] = repeat(None, int(draw() * 2 * gap))
        else:
            self.names["__ticks__"] = repeat(None, NOT_SOON)
        if steps > self._most_steps:
            self.fail(f"no end in {self._most_steps} steps")
        if number > 1:
            thread, chosen = self.thread, ready[int(draw() * number)]
            if chosen is thread or thread is None or self.is_over:
                return
            thread.resumes = getcurrent()
            each_step = self._each_step
            each_step()
            if self.failure is None:
                # Straight to it, not by way of the scheduler.
                self.thread = chosen
                chosen.resumes.switch()
            else:
                self.scheduler.switch()

    def block(self, reason: Any) -> None:
        """Stop the running thread until `wake(thread, reason)`."""
        if self.is_over or self.thread is None:
            raise Stopped
        thread, ready = self.thread, self.ready
        thread.resumes, thread.waits_for = getcurrent(), reason
        ready.remove(thread)
        if ready and self.failure is None:
            each_step = self._each_step
            each_step()
            if self.failure is None and self._steps < self._most_steps:
                self._steps += 1
                # Straight to the next, not by way of the scheduler.
                thread = self.thread = ready[0] if len(ready) == 1 else ready[int(self._draw() * len(ready))]
                thread.resumes.switch()
                return
        self.scheduler.switch()

    def wake(self, thread: Thread, reason: Any) -> None:
        """Let a thread go on if it was blocked for this reason."""
        if thread.waits_for is reason:
            thread.waits_for = None
            self.may_run(thread)

    def at(self, after_s: float, callback: Callable[[], Any]) -> None:
        """Call back after so many seconds; of several at one instant, in a random order."""
        heappush(self._timers, (self.now_ns + round(after_s * 1e9), self._draw(), callback))

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
                self.at(duration_ns / 1e9, partial(self.wake, thread, token))
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
            self.at(duration_ns / 1e9, partial(hub.run_callback, over))
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
        made = self.new_task(run, hub)
        hub.run_callback(lambda: None if made.has_ended else made.switch())
        return made

    def new_task(self, run: Callable[[], Any], parent: Any) -> Task:
        """A greenlet that will run this when it is switched to, and then go on with its parent."""
        made = _idle_tasks.pop() if _idle_tasks else Task()
        made.parent, made.task, made.has_ended = parent, run, False
        self._tasks.append(made)
        return made

    def new_hub(self, thread: Thread) -> Hub:
        """An event loop for that thread."""
        made = _idle_hubs.pop() if _idle_hubs else Hub()
        made.begin(thread, self)
        self._hubs.append(made)
        return made

    def throw(self, victim: Task, hub: Hub, error: BaseException) -> None:
        """Have the event loop throw an exception into a greenlet."""
        hub.run_callback(lambda: None if victim.has_ended else victim.throw(error))

    def fork(self) -> None:
        """Go on as the child: only the running greenlet or thread is left of what ran."""
        for thread in self.threads:
            if thread is not self.thread:
                # Nothing wakes it up any more.
                thread.waits_for = None
        for threads in (self.threads, self.ready):
            threads[:] = [thread for thread in threads if thread is self.thread]
        self._timers.clear()
        if self.thread is not None and self.thread.hub is not None:
            self.thread.hub.forget()

    def wrong(self, what: str) -> None:
        """Record that something does not hold; the schedule ends at the next step."""
        if self.failure is None and not self.is_over:
            self.failure = what

    def fail(self, what: str) -> None:
        """Record that something does not hold, and end whatever runs. Raises Stopped."""
        self.wrong(what)
        raise Stopped

    def end(self) -> None:
        """Stop everything that still runs."""
        self.is_over = True
        self.names["__ticks__"] = repeat(None, NOT_SOON)
        # Event loops last. A greenlet that cannot be stopped is not used again.
        for task in self._tasks:
            task.end(self.scheduler)
            if task.has_ended:
                _idle_tasks.append(task)
        for hub in self._hubs:
            hub.end(self.scheduler)
            hub.forget()
            hub._thread = hub._world = None
            if hub.has_ended:
                _idle_hubs.append(hub)
        for each in (self.threads, self.ready, self._tasks, self._hubs, self._timers, self.garbage):
            each.clear()
        self._each_step = _nothing


def _nothing() -> None:
    pass


_RNG = random.Random()
_idle_tasks: list[Task] = []
_idle_hubs: list[Hub] = []
