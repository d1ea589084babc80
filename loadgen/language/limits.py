"""What a script's small languages refuse to do, so that no answer of a server can hold the whole generator. Pure."""

from __future__ import annotations

from time import monotonic

EVALUATION_S = 1.0
"""The longest time that one regular expression, path or selector may take, in seconds."""


class LimitExceeded(ValueError):
    """Raised for a value that would take too much time or memory. `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Stopwatch:
    """Raises LimitExceeded with a given name once EVALUATION_S have passed since it was made."""

    __slots__ = ("_ends_s", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._ends_s = monotonic() + EVALUATION_S

    def check(self) -> None:
        """Raise LimitExceeded if the time is over."""
        if monotonic() > self._ends_s:
            raise LimitExceeded(self._name)
