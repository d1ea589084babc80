"""Carries out one run in this process, from values to a finished report: what the commands and the lab have in common."""

from __future__ import annotations

import errno
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from loadgen.clock import WallOffset
from loadgen.closed import ClosedRun, Workload
from loadgen.crew.crew import Crew, Job, ParentPipe, Work, at_most
from loadgen.crew.forked import ForkedCrew
from loadgen.engine import Engine, Listener, Progress
from loadgen.environment import environment, version
from loadgen.health import HealthWatch, health, undisturbed
from loadgen.recorder import Recorder
from loadgen.schedule import Share
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript
from loadgen.vu.transports import Transports
from loadgen.watch.console import Console
from loadgen.watch.observer import Observer, Underway
from reports.formats.apachebench import AbReport, AbSamples
from reports.model import Extras, Report, aggregate

Live = Callable[[Progress], None]


Elsewhere = Callable[[Job, WallOffset, Callable[[str], None]], Crew[Any]]
"""Makes workers that are not forked from this process, of (the job, this process's wall clock, what takes their lines)."""


class Interrupted(Exception):
    """The run was ended by a signal; its report, marked partial, is complete as far as it goes."""


@dataclass(frozen=True, slots=True)
class ScriptRun:
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
    lost: tuple[str, ...] = ()
    """A sentence on each worker that was lost: the report is partial."""


class SectionFailed(Exception):
    """The `before` or `after` section failed; the message names it and the error. `run` is None before the run."""

    def __init__(self, section: str, error: str, run: ScriptRun | None = None) -> None:
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


def run_ab(workload: Workload, live: Live) -> ScriptRun:
    """A closed run to its end, or to a signal."""
    wall = WallOffset()
    recorder = Recorder(wall)
    closed = ClosedRun(workload, recorder, wall, agent())
    watch = HealthWatch()
    with stopping(closed.stop) as signals:
        samples = closed.run(live)
    ab = AbReport.of(samples).to_json()
    report = recorder.report(extras(watch, recorder, "closed", partial=bool(signals), ab=ab))
    return ScriptRun(report, signals[0] if signals else None, samples, closed.refused, tuple(closed.served))


def new_run_id(given: str | None = None) -> str:
    """A run's id: as given, or of Artillery's form."""
    alphabet = "3456789abcdefghjkmnpqrtwxyz"
    parts = ("".join(secrets.choice(alphabet) for _ in range(length)) for length in (4, 29, 4))
    return given or "t" + "_".join(parts)


def read_script(paths: Sequence[str], options: RunOptions, seed: int | None = None) -> Script:
    """The script that files and options make. Raises ScriptErrors, and OSError for a script file."""
    sources = [(path, Path(path).read_text("utf-8-sig")) for path in paths]
    return parse_script(sources, options, read_bytes, Random(seed))


def read_bytes(path: str) -> bytes:
    """A file that a script names: anything but a device, which need not end. Raises OSError."""
    if Path(path).is_char_device() or Path(path).is_block_device():
        raise OSError(errno.EINVAL, "it is a device", path)
    return Path(path).read_bytes()


def run_script(
    script: Script,
    console: Console,
    live: Live,
    seed: int | None = None,
    show: Callable[[ScriptRun], None] | None = None,
    *,
    workers: int = 1,
    observers: Sequence[Observer] = (),
    elsewhere: Elsewhere | None = None,
) -> ScriptRun:
    """An open run to its end, or to a signal. `show` gets it before the `after` section is run. Raises SectionFailed.

    `workers`: processes that share the plan; fewer where a phase's `maxVusers` is less. `elsewhere`: makes the workers that
    do it in their place; raises CrewError.
    """
    wall = WallOffset()
    with closing(Transports(script, wall, _tell)) as transports, undisturbed():
        course = _ScriptRunCourse(script, console, live, wall, transports, Random(seed), observers)
        return course.run(at_most(workers, script.phases), elsewhere, show)


@contextmanager
def generator(job: Job, wall: WallOffset, stamps: WallOffset) -> Iterator[tuple[Recorder, Work]]:
    """What carries out a part of another process's run in this one, compiled: where it files, and what does it.

    `wall` gives the report's epoch time, `stamps` that of this machine's kernel.
    """
    with closing(Transports(job.script, stamps, _tell)) as transports, undisturbed():
        silent = Console(lambda _: None, quiet=True)
        course = _ScriptRunCourse(job.script, silent, lambda _: None, wall, transports, Random(0), ())
        course.plan_seed = job.plan_seed
        yield course.recorder, course.work


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - the debugging output that was asked for


class _ScriptRunCourse:
    """One run of a script: its sections, and between them the plan, carried out here or by workers."""

    def __init__(
        self,
        script: Script,
        console: Console,
        live: Live,
        wall: WallOffset,
        transports: Transports,
        rng: Random,
        observers: Sequence[Observer],
    ) -> None:
        self._script, self._console, self._live = script, console, live
        self._wall, self._transports, self._observers = wall, transports, observers
        self.recorder = Recorder(wall)
        self._trouble: Counter[str] = Counter()
        self.plan_seed = rng.getrandbits(64)  # of its own, so that workers draw the same plan whatever users draw
        self._write_line = console.line
        self._program = CompiledScript(
            script,
            self.recorder,
            transports,
            rng,
            agent=agent(),
            write_line=self._write,
            warn=lambda message: self._trouble.update((message,)),
        )

    def run(self, workers: int, elsewhere: Elsewhere | None, show: Callable[[ScriptRun], None] | None) -> ScriptRun:
        """The whole. Raises SectionFailed, CrewError."""
        error = self._program.run_before()
        if error is not None:
            raise SectionFailed("before", error)
        if elsewhere is not None:
            run = self._together(elsewhere(self._job(), self._wall, self._console.line))
        elif workers > 1:
            run = self._together(ForkedCrew(workers, self.work, self.recorder, self._wall, self._console.line))
        else:
            run = self._alone()
        if show is not None:
            show(run)
        error = self._program.run_after()
        if error is not None:
            raise SectionFailed("after", error, run)
        return run

    def _write(self, text: str) -> None:
        self._write_line(text)

    def _alone(self) -> ScriptRun:
        watch, recorder, console = HealthWatch(), self.recorder, self._console
        engine = self._engine(Share())
        with ExitStack() as observed, stopping(engine.stop) as signals:
            underway = Underway(lambda: recorder.report().aggregate, recorder.latest, engine.progress, engine.stop)
            for observer in self._observers:
                observed.enter_context(observer(underway))
            tick = _both(watch.sample, self._live)
            engine.run(Listener(console.phase_started, console.phase_completed, console.period, tick))
        said = _told(self._trouble)
        report = recorder.report(
            extras(watch, recorder, "open", partial=engine.interrupted, warnings=said, script=self._script.source)
        )
        return ScriptRun(report, signals[0] if signals else None, expectation_failed=self._program.expectation_failed)

    def _job(self) -> Job:
        script = replace(self._script, before=(), after=(), built_ins=self._program.known)
        return Job(script, self.plan_seed)

    def _together(self, crew: Crew[Any]) -> ScriptRun:
        console = self._console
        with ExitStack() as observed, stopping(crew.stop) as signals:
            underway = Underway(lambda: aggregate(crew.periods()), crew.latest, crew.progress, crew.stop)

            def started() -> None:
                for observer in self._observers:
                    observed.enter_context(observer(underway))

            listener = Listener(console.phase_started, console.phase_completed, console.period, self._live)
            crew.run(self._script.phases, listener, started)
        periods, results = crew.periods(), crew.results()
        figures, doubts = health([result["figures"] for result in results], aggregate(periods))
        if crew.places():
            figures["cluster"] = crew.places()
        for result in results:
            self._trouble.update(result["trouble"])
        warnings = (*crew.lost(), *_told(self._trouble), *doubts)
        partial = crew.interrupted or bool(crew.lost())
        beyond = Extras(version(), "open", partial, environment(self._script.source), figures, warnings)
        return ScriptRun(
            Report.of(periods, beyond),
            signals[0] if signals else None,
            expectation_failed=any(result["expectation_failed"] for result in results),
            lost=crew.lost(),
        )

    def work(self, share: Share, link: ParentPipe, started_ns: int) -> dict[str, Any]:
        """In a worker: its share, to the end."""
        self._write_line = link.line
        self._program.take_share(share.index, share.of, f"{self.plan_seed}/{share.index}")
        self._transports.take_share(share)
        watch, engine = HealthWatch(), self._engine(share)
        with stopping(engine.stop):
            engine.run(Listener(tick=_both(watch.sample, link.tick)), started_ns)
        return {
            "figures": watch.figures(self.recorder) | self._transports.about(),
            "expectation_failed": self._program.expectation_failed,
            "trouble": dict(self._trouble),
        }

    def _engine(self, share: Share) -> Engine:
        plan = Random(self.plan_seed)
        return Engine(self._program, self._script.phases, self.recorder, self._wall, plan, share)


def _both(first: Callable[[], None], then: Live) -> Live:
    def tick(progress: Progress) -> None:
        first()
        then(progress)

    return tick


def _told(trouble: Counter[str]) -> list[str]:
    return [f"{message} ({times} times)" if times > 1 else message for message, times in trouble.items()]


def agent() -> str:
    """What this program calls itself to servers."""
    return f"poolbench/{version()}"


def extras(
    watch: HealthWatch,
    recorder: Recorder,
    model: str,
    *,
    partial: bool,
    ab: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    script: str = "",
) -> Extras:
    """What the report says beyond Artillery's document. `warnings`: besides those about the generator."""
    health, doubts = watch.health(recorder)
    return Extras(
        tool_version=version(),
        model=model,
        partial=partial,
        environment=environment(script),
        generator=health,
        warnings=(*warnings, *doubts),
        ab=ab,
    )
