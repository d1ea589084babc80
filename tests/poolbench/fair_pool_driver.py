"""A DBAPI driver that does what a test tells it: scripted failures, slow steps, and a count of what is open; and what the
tests of the pool do with it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from poolbench import FairPool
from tests.support.paths import ROOT

try:
    import gevent
except ImportError:
    # There are tests of a process without it.
    gevent = None

if TYPE_CHECKING:
    from collections.abc import Callable


class DriverError(Exception):
    """What the scripted database answers when it is down."""


class ScriptedConnection:
    """Counts itself as open from the start of connecting to the end of closing."""

    def __init__(self, driver: ScriptedDriver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.closed = False
        self.rollbacks = 0

    def rollback(self) -> None:
        self.rollbacks += 1
        self.driver.step("rollback")

    def commit(self) -> None:
        self.driver.step("commit")

    def close(self) -> None:
        try:
            self.driver.step("close")
        finally:
            self.__del__()

    def __del__(self) -> None:
        """As real drivers do: a session ends with its last reference at the latest."""
        if not self.closed:
            self.closed = True
            self.driver.open -= 1


class ScriptedDriver:
    """`connect` is the pool's creator. Delays are in s and switch greenlets; a failure is raised once each.

    delays: step -> s, for connect, rollback, commit, close. failures: what the next connects raise.
    hooks: step -> called at its beginning. down: every connect fails.
    """

    def __init__(self, **delays: float) -> None:
        self.delays = delays
        self.failures: deque[BaseException] = deque()
        self.hooks: dict[str, Callable[[], Any]] = {}
        self.down = False
        self.open = 0
        self.most_open = 0
        self.attempts = 0

    def step(self, name: str) -> None:
        if hook := self.hooks.get(name):
            hook()
        if name in self.delays:
            (time if gevent is None else gevent).sleep(self.delays[name])

    def answer(self) -> None:
        if self.failures:
            raise self.failures.popleft()
        if self.down:
            raise DriverError("the database is down")

    def connect(self) -> ScriptedConnection:
        self.attempts += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.step("connect")
            self.answer()
        except BaseException:
            self.open -= 1
            raise
        return ScriptedConnection(self, self.attempts)


def pool_of(driver, size=1, max_overflow=0, timeout=5, **kw):
    return FairPool(driver.connect, pool_size=size, max_overflow=max_overflow, timeout=timeout, **kw)


def queue_up(pool, names, served, hold_s=0.0):
    """Start one greenlet for each name, in this order; each notes its name in `served` when it is."""

    def borrow(name):
        connection = pool.connect()
        served.append(name)
        if hold_s:
            gevent.sleep(hold_s)
        connection.close()

    greenlets = [gevent.spawn(borrow, name) for name in names]
    gevent.sleep(0)
    return greenlets


def eventually(condition, within_s=20.0):
    """Whether the condition comes true while the event loop turns."""
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        gevent.sleep(0.002)
    return condition()


def is_full_and_idle(pool):
    """Whether every slot can be had at once, and nobody holds or waits for one."""
    limit = pool.snapshot().limit
    held = [pool.connect() for _ in range(limit)]
    for connection in held:
        connection.close()
    return pool.checkedout() == 0 and pool.waiting() == 0


def run_script(code):
    """Run Python in a process of its own; its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
