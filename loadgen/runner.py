"""Carries out one run in this process, from values to a finished report: what the commands and the lab have in common."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loadgen.clock import WallOffset
from loadgen.closed import ClosedRun, Workload
from loadgen.engine import Progress, Watch
from loadgen.environment import environment, version
from loadgen.recorder import Recorder
from reports.apachebench import AbReport, AbSamples
from reports.model import Extras, Report

Live = Callable[[Progress], None]


class Interrupted(Exception):
    """The run was ended by a signal; its report, marked partial, is complete as far as it goes."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave."""

    report: Report
    signal: int | None = None
    """The signal that ended it early: the report is partial."""
    samples: AbSamples | None = None
    """Of a closed run."""
    refused: str | None = None
    """Error of a closed run that was given up because nothing answered."""


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM call `stop` instead of ending the program; the list gets their numbers."""
    seen: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        seen.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_ab(workload: Workload, live: Live) -> Run:
    """A closed run to its end, or to a signal."""
    wall = WallOffset()
    recorder = Recorder(wall)
    closed = ClosedRun(workload, recorder, wall, agent())
    watch = Watch()
    with stopping(closed.stop) as signals:
        samples = closed.run(live)
    ab = AbReport.of(samples).to_json()
    report = recorder.report(extras(watch, recorder, "closed", partial=bool(signals), ab=ab))
    return Run(report, signals[0] if signals else None, samples, closed.refused)


def agent() -> str:
    """What this program calls itself to servers."""
    return f"poolbench/{version()}"


def extras(
    watch: Watch, recorder: Recorder, model: str, *, partial: bool, ab: dict[str, Any] | None = None
) -> Extras:
    """What the report says beyond Artillery's document."""
    health, warnings = watch.health(recorder)
    return Extras(
        tool_version=version(),
        model=model,
        partial=partial,
        environment=environment(),
        generator=health,
        warnings=warnings,
        ab=ab,
    )
