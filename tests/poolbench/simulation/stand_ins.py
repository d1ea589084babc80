"""The modules that the pool finds in the simulated machine instead of the real ones."""

from __future__ import annotations

import os
import random
import sys
import threading as real_threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, Self

from greenlet import getcurrent

from tests.poolbench.simulation.world import LoopTimer, Stopped, Thread, machine

at_fork: list[Callable[[], Any]] = []
"""What the pool wants to be called in a forked child."""


class Lock:
    """A lock of the simulated machine; also stands in for a Semaphore of 1."""

    def __init__(self) -> None:
        self._is_taken = False
        self._sleepers: list[tuple[Thread, object]] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = machine.world
        if not self._is_taken:
            self._is_taken = True
            return True
        if not blocking or timeout == 0:
            return False
        if world.is_over:
            raise Stopped
        thread, ended = world.thread, []
        if timeout > 0:
            world.at(timeout, lambda: (ended.append(1), self._wake_all()))
        while self._is_taken:
            if ended:
                return False
            sleeper = (thread, object())
            self._sleepers.append(sleeper)
            world.block(sleeper[1])
        self._is_taken = True
        return True

    def release(self) -> None:
        if not self._is_taken:
            raise RuntimeError("release unlocked lock")
        self._is_taken = False
        self._wake_all()

    def locked(self) -> bool:
        return self._is_taken

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _wake_all(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for thread, reason in sleepers:
            machine.world.wake(thread, reason)


class RLock(Lock):
    """A lock that its owner may take again."""

    def __init__(self) -> None:
        super().__init__()
        self._owner, self._depth = None, 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = getcurrent()
        if self._owner is me or super().acquire(blocking, timeout):
            self._owner, self._depth = me, self._depth + 1
            return True
        return False

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()


class Event:
    """A flag to wait for."""

    def __init__(self) -> None:
        self._is_set = False
        self._bells: list[Lock] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.release()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            bell = Lock()
            bell.acquire()
            self._bells.append(bell)
            if not bell.acquire(timeout=-1 if timeout is None else max(0.0, timeout)) and bell in self._bells:
                self._bells.remove(bell)
        return self._is_set


class Condition:
    """A lock with a queue of those who wait for news."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock or RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self._bells: list[Lock] = []

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def wait(self, timeout: float | None = None) -> bool:
        bell = Lock()
        bell.acquire()
        self._bells.append(bell)
        self.release()
        try:
            rung = bell.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
            if not rung and bell in self._bells:
                self._bells.remove(bell)
        finally:
            self.acquire()
        return rung

    def notify(self, n: int = 1) -> None:
        for bell in self._bells[:n]:
            self._bells.remove(bell)
            bell.release()

    def notify_all(self) -> None:
        self.notify(len(self._bells))


class SimulatedThread:
    """`threading.Thread` on the simulated machine."""

    def __init__(
        self,
        _group: None = None,
        target: Any = None,
        name: str | None = None,
        args: Any = (),
        kwargs: Any = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self.name, self.daemon = name, daemon
        self._greenlet: Any = None
        self._world = machine.world
        self._ended = Event()

    def start(self) -> None:
        self._greenlet = machine.world.spawn(self.run, None)

    def run(self) -> None:
        try:
            # Bound methods keep what they belong to alive, as in the real class.
            target, args, kwargs = self._target, self._args, self._kwargs
            target(*args, **kwargs)
        finally:
            del self._target, self._args, self._kwargs
            self._ended.set()

    def is_alive(self) -> bool:
        return any(thread.resumes is self._greenlet for thread in self._world.threads) or (
            self._greenlet is not None and machine.world is self._world and self._greenlet is getcurrent()
        )

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)


def _ident() -> int:
    world = machine.world
    return 0 if world.thread is None else world.thread.ident


def _start_new_thread(function: Any, args: Any, kwargs: Any = None) -> None:
    machine.world.spawn(lambda: function(*args, **(kwargs or {})), None)


def _like(real: ModuleType, **replaced: Any) -> ModuleType:
    """A module of which some names are replaced."""
    module = ModuleType(real.__name__)
    vars(module).update({**vars(real), **replaced})
    return module


def clock_s() -> float:
    """The simulated wall clock, in s."""
    return machine.world.now_ns / 1e9


def clock_ns() -> int:
    """The simulated monotonic clock, in ns."""
    return machine.world.now_ns


_TIME = _like(
    time,
    monotonic_ns=clock_ns,
    perf_counter_ns=clock_ns,
    time_ns=clock_ns,
    monotonic=clock_s,
    perf_counter=clock_s,
    time=clock_s,
    sleep=lambda seconds: machine.world.pause(round(seconds * 1e9)),
)
_RANDOM = _like(
    random,
    random=lambda *_: machine.world.rng.random(),
    uniform=lambda low, high: low + (high - low) * machine.world.rng.random(),
    expovariate=lambda rate: machine.world.rng.expovariate(rate) + 0.0,
)
_LOW = _like(real_threading, allocate_lock=Lock, get_ident=_ident, start_new_thread=_start_new_thread, RLock=RLock)
_THREADING = _like(
    real_threading,
    Lock=Lock,
    RLock=RLock,
    Event=Event,
    Condition=Condition,
    Thread=SimulatedThread,
    get_ident=_ident,
    get_native_id=_ident,
)
_OS = _like(os, register_at_fork=lambda after_in_child=None, **_: at_fork.append(after_in_child))


def _sys(modules: dict[str, Any]) -> ModuleType:
    return _like(
        sys,
        modules=modules,
        _current_frames=lambda: {thread.ident: None for thread in machine.world.threads},
        is_finalizing=lambda: False,
    )


def without_gevent() -> dict[str, Any]:
    """The modules of a process that has no gevent."""
    return {
        "time": _TIME,
        "random": _RANDOM,
        "threading": _THREADING,
        "_thread": _LOW,
        "os": _OS,
        "sys": _sys({}),
        "gevent": None,
    }


def _hub_if_exists() -> Any:
    thread = machine.world.thread
    return None if thread is None else thread.hub


def _spawn(function: Any, *args: Any, **kwargs: Any) -> Any:
    return machine.world.spawn(lambda: function(*args, **kwargs), _hub_if_exists())


class Timeout(BaseException):
    """gevent's Timeout, as far as the pool needs it."""

    def __init__(self, seconds: float | None = None, exception: Any = None) -> None:
        self.seconds, self._exception = seconds, exception
        self._timer: LoopTimer | None = None

    def start(self) -> None:
        hub, victim = _hub_if_exists(), getcurrent()
        if self.seconds is not None and hub is not None:
            self._timer = LoopTimer(hub, machine.world, self.seconds, 0.0)
            self._timer.start(lambda: None if victim.has_ended else victim.throw(self._exception or self))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.stop()

    cancel = close

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: object, value: object, __: object) -> bool:
        self.close()
        return value is self and self._exception is False


def _raw_switch(target: Any) -> Any:
    return target.switch()


def with_gevent() -> dict[str, Any]:
    """The modules of a process that has imported gevent; only one whose world has `is_patched` counts as patched."""
    originals = {"allocate_lock": Lock, "get_ident": _ident, "start_new_thread": _start_new_thread}
    monkey = SimpleNamespace(
        get_original=lambda _module, name: originals[name],
        is_module_patched=lambda _module: machine.world.is_patched,
        is_anything_patched=lambda: machine.world.is_patched,
    )
    hub = SimpleNamespace(MAIN_THREAD_IDENT=1, RawGreenlet=SimpleNamespace(switch=_raw_switch))
    local = SimpleNamespace(get_hub_if_exists=_hub_if_exists)
    gevent = SimpleNamespace(
        monkey=monkey,
        hub=hub,
        _hub_local=local,
        getcurrent=getcurrent,
        get_hub=_hub_if_exists,
        spawn_raw=_spawn,
        spawn=_spawn,
        sleep=lambda seconds=0: machine.world.pause(round(seconds * 1e9)),
        Timeout=Timeout,
        GreenletExit=SystemExit,
    )
    modules = {"gevent": gevent, "gevent.monkey": monkey, "gevent.hub": hub, "gevent._hub_local": local}
    return {**without_gevent(), **modules, "sys": _sys(modules)}
