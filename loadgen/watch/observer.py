"""A run in progress, as the console, the live page and Prometheus see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from loadgen.engine import Progress
from reports.model import Period, aggregate


@dataclass(frozen=True, slots=True)
class Underway:
    """A run in progress, in one process or several. Its functions may be called at any time."""

    totals: Callable[[], Period]
    """The totals of everything recorded so far."""
    latest: Callable[[], Period | None]
    """The period that is being recorded now; None before the first event."""
    progress: Callable[[], Progress]
    stop: Callable[[], None]
    """Ends the run as an interrupt does: after the first call users may finish, the second ends it at once."""
    warn: Callable[[str], None] = lambda _: None
    """Adds a sentence to the warnings of the run's report."""
    period_listeners: list[Callable[[Period], None]] = field(default_factory=list)
    """Functions to be called with each period once it is over."""

    def period_over(self, period: Period) -> None:
        """Pass on a period that is over."""
        for told in self.period_listeners:
            told(period)


class RunningTotals:
    """Adds up the periods of one run, those that are over once: making the totals anew at each look would delay arrivals.

    `part` gives of a period what is to be added up.
    """

    def __init__(self, part: Callable[[Period], Period] = lambda period: period) -> None:
        self._part = part
        self._over = Period(0)
        self._recent: dict[int, Period] = {}

    def follow(self, underway: Underway) -> None:
        """Take part in a run from its beginning. `so_far` must be called every few seconds, lest a period go by unseen."""
        underway.period_listeners.append(self._add)

    def so_far(self, underway: Underway) -> Period:
        """The totals of the periods that are over, and of those that are not as far as they were seen."""
        latest = underway.latest()
        if latest is not None and latest.start_ms > self._over.start_ms:
            self._recent[latest.start_ms] = self._part(latest)
        return aggregate([self._over, *self._recent.values()])

    def _add(self, period: Period) -> None:
        self._recent.pop(period.start_ms, None)
        self._over = aggregate([self._over, self._part(period)])


Observer = Callable[[Underway], AbstractContextManager[Any]]
"""Makes a context manager that is entered when the run begins and left when its last user has ended.

Entering it may raise ObserverError; nothing else is raised.
"""


class ObserverError(Exception):
    """A run cannot be watched in the way that was asked for; no request was sent. The message is one line."""
