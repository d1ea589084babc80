"""Carries out one run in this process, from values to a finished report: what the commands and the lab have in common."""

from __future__ import annotations

import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from loadgen.clock import WallOffset
from loadgen.closed import ClosedRun, Workload
from loadgen.console import Console
from loadgen.engine import Engine, Listener, Progress, Watch
from loadgen.environment import environment, version
from loadgen.recorder import Recorder
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.transports import Transports
from loadgen.vu import Program
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
    served: tuple[int, ...] = ()
    """Answers to each user of a closed run, within its time."""
    expectation_failed: bool = False
    """Some expectation of the script did not hold."""


class SectionFailed(Exception):
    """The `before` or `after` section failed; the message names it and the error. `run` is None before the run."""

    def __init__(self, section: str, error: str, run: Run | None = None) -> None:
        super().__init__(f"the {section} section failed: {error}")
        self.run = run


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
    return Run(report, signals[0] if signals else None, samples, closed.refused, tuple(closed.served))


def new_run_id(given: str | None = None) -> str:
    """A run's id: as given, or of Artillery's form."""
    alphabet = "3456789abcdefghjkmnpqrtwxyz"
    parts = ("".join(secrets.choice(alphabet) for _ in range(length)) for length in (4, 29, 4))
    return given or "t" + "_".join(parts)


def read_script(paths: Sequence[str], options: RunOptions, seed: int | None = None) -> Script:
    """The script that files and options make. Raises ScriptErrors, and OSError for a script file."""
    sources = [(path, Path(path).read_text("utf-8-sig")) for path in paths]
    return parse_script(sources, options, lambda path: Path(path).read_bytes(), Random(seed))


def run_script(
    script: Script, console: Console, live: Live, seed: int | None = None, show: Callable[[Run], None] | None = None
) -> Run:
    """An open run to its end, or to a signal. `show` gets it before the `after` section is run. Raises SectionFailed."""
    wall = WallOffset()
    with closing(Transports(script, wall, _tell)) as transports:
        return _run_over(transports, script, console, live, wall, Random(seed), show)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - the debugging output that was asked for


def _run_over(
    transports: Transports,
    script: Script,
    console: Console,
    live: Live,
    wall: WallOffset,
    rng: Random,
    show: Callable[[Run], None] | None,
) -> Run:
    recorder = Recorder(wall)
    trouble: Counter[str] = Counter()
    program = Program(
        script,
        recorder,
        transports,
        rng,
        agent=agent(),
        write_line=console.line,
        warn=lambda message: trouble.update((message,)),
    )
    error = program.run_before()
    if error is not None:
        raise SectionFailed("before", error)
    watch = Watch()
    engine = Engine(program, script.phases, recorder, wall, rng)
    listener = Listener(console.phase_started, console.phase_completed, console.period, live)
    with stopping(engine.stop) as signals:
        engine.run(listener)
    said = [f"{message} ({times} times)" if times > 1 else message for message, times in trouble.items()]
    report = recorder.report(extras(watch, recorder, "open", partial=bool(signals), warnings=said))
    run = Run(report, signals[0] if signals else None, expectation_failed=program.expectation_failed)
    if show is not None:
        show(run)
    error = program.run_after()
    if error is not None:
        raise SectionFailed("after", error, run)
    return run


def agent() -> str:
    """What this program calls itself to servers."""
    return f"poolbench/{version()}"


def extras(
    watch: Watch,
    recorder: Recorder,
    model: str,
    *,
    partial: bool,
    ab: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Extras:
    """What the report says beyond Artillery's document. `warnings`: besides those about the generator."""
    health, doubts = watch.health(recorder)
    return Extras(
        tool_version=version(),
        model=model,
        partial=partial,
        environment=environment(),
        generator=health,
        warnings=(*warnings, *doubts),
        ab=ab,
    )
