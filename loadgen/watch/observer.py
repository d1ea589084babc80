"""A run in progress, as others may look at it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from loadgen.engine import Progress
from reports.model import Period


@dataclass(frozen=True, slots=True)
class Underway:
    """A run in progress, of one process or several: may be asked at any time."""

    totals: Callable[[], Period]
    """Everything so far."""
    latest: Callable[[], Period | None]
    """The period that is being recorded now."""
    progress: Callable[[], Progress]
    stop: Callable[[], None]
    """As an interrupt: once, and users finish; twice, and it is over."""


Observer = Callable[[Underway], AbstractContextManager[Any]]
"""Entered when the run begins, left when its last user has ended. Raises ObserverError on entering, or does not raise."""


class ObserverError(Exception):
    """A run cannot be observed as was asked; nothing was sent. The message is one line."""
