"""Ends a run that is hopeless: `--abort-on` conditions, looked at once a second while the run goes on.

A run ends early when one of its conditions holds at three looks in a row over everything measured so far. The first look
comes five seconds after the start, so that a service that is slow at first is not given up at once. From then on users may
finish as after an interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import gevent

from loadgen.watch.observer import RunningTotals, Underway
from reports.compare.conditions import Condition
from reports.compare.gates import GateResult
from reports.model import Period

FIRST_LOOK_S = 5
"""Seconds from the start of a run to the first look at its figures."""

LOOKS_LEAST = 3
"""Looks in a row at which a condition must hold before it ends the run."""


class AbortWatch:
    """Watches one run. `say` is called with one line when the run is ended."""

    def __init__(self, conditions: Sequence[Condition], say: Callable[[str], None]) -> None:
        self._conditions = conditions
        self._say = say
        self._looks: dict[Condition, int] = {}
        self._totals = RunningTotals()
        self.ended_by: GateResult | None = None
        """The condition that ended the run, with the figure that it was decided by."""

    @contextmanager
    def observe(self, underway: Underway) -> Iterator[None]:
        """Look at the run's figures once a second while inside, and end it when a condition has held for long enough."""
        self._totals.follow(underway)
        watching = gevent.spawn(self._watch, underway)
        try:
            yield
        finally:
            watching.kill()

    def results(self, total: Period) -> list[GateResult]:
        """What became of every condition: as it was when it ended the run; else judged by the figures of the whole run."""
        ended = self.ended_by
        return [
            ended if ended is not None and ended.rule == condition.text else condition.judge(total)
            for condition in self._conditions
        ]

    def _watch(self, underway: Underway) -> None:
        while self.ended_by is None:
            gevent.sleep(1.0)
            # From the beginning, so that no period passes by unseen.
            total = self._totals.so_far(underway)
            if underway.progress().elapsed_s >= FIRST_LOOK_S:
                for condition in self._conditions:
                    self._look(condition, condition.judge(total), underway)

    def _look(self, condition: Condition, found: GateResult, underway: Underway) -> None:
        self._looks[condition] = 0 if found.met or found.unknown else self._looks.get(condition, 0) + 1
        if self._looks[condition] < LOOKS_LEAST or self.ended_by is not None:
            return
        self.ended_by = found
        at = datetime.now(UTC).isoformat(timespec="seconds")
        figures = found.line.removeprefix("FAILED: ")
        after_s = underway.progress().elapsed_s
        said = f"the run was aborted after {after_s:.1f} s, at {at}, because --abort-on held: {figures}"
        underway.warn(said)
        self._say(f"Aborted: {said}")
        underway.stop()
