"""A DBAPI driver that does what a test tells it: scripted failures, slow steps, and a count of what is open."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import gevent

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
            gevent.sleep(self.delays[name])

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
