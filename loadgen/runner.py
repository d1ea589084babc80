"""Carries out one run, from values to a finished report, for the commands and the lab."""

from __future__ import annotations

import errno
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from loadgen.calibration import Calibration, calibrated
from loadgen.clock import WallOffset
from loadgen.engine import Engine, Listener, Progress
from loadgen.environment import environment, version
from loadgen.health import HealthWatch, health, undisturbed
from loadgen.recorder import Recorder
from loadgen.rows import Rows, RowsFile
from loadgen.schedule import Share, distortion, most_shares
from loadgen.script.model import Phase, Place, Script, ScriptErrors, ScriptProblem, workload_model
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript
from loadgen.vu.transports import Transports
from loadgen.watch.console import Console
from loadgen.watch.observer import Observer, Underway
from reports.files import read_text
from reports.model import Extras, Report, aggregate

if TYPE_CHECKING:
    from loadgen.closed import Workload
    from loadgen.crew.crew import Crew, Job, ParentPipe, Work
    from reports.formats.apachebench import AbSamples

_Told = TypeVar("_Told")

Live = Callable[[Progress], None]
"""Takes the progress of a run, once a second."""

Elsewhere = Callable[["Job", WallOffset, Callable[[str], None]], "Crew[Any]"]
"""Makes the workers of a run that are not forked from this process, from the job, this process's wall clock, and the
function that takes lines for stdout. Raises CrewError.
"""


class Interrupted(Exception):
    """The run was ended by a signal; its report, marked partial, is complete as far as it goes. `number`: the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = int(number)


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """The result of a run of a script."""

    report: Report
    signal: int | None = None
    """Number of the signal that ended the run early; the report is partial then."""
    expectation_failed: bool = False
    """Whether an expectation of the script did not hold."""
    exit_code: int = 0
    """The exit code that functions of the script's processor asked for; 0 if they did not."""
    failures: tuple[str, ...] = ()
    """A sentence on each worker that was lost, and on virtual users that a defect ended; the report is partial then."""
    is_begun: bool = True
    """False where the workers could not be started: the report is empty then, and `failures` has the one reason."""


@dataclass(frozen=True, slots=True)
class ClosedResult:
    """The result of a closed run."""

    report: Report
    samples: AbSamples
    signal: int | None = None
    """Number of the signal that ended the run early; the report is partial then."""
    refused: str | None = None
    """The error's name, where the run was given up because too many connections in a row could not be opened; the report is
    partial then.
    """
    served: tuple[int, ...] = ()
    """How many answers each user had within the run's time."""
    failures: tuple[str, ...] = ()
    """A sentence on users that a defect ended; the report is partial then."""


class SectionFailed(Exception):
    """The `before` or `after` section failed; the message names it and the error. `run` is None before the run."""

    def __init__(self, section: str, error: str, run: ScriptRun | None = None) -> None:
        super().__init__(f"the {section} section failed: {error}")
        self.run = run


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM call `stop` instead of ending the program; the list collects their numbers."""
    seen: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        seen.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    # A forked worker comes here with both blocked, so that none is lost before it can be handled.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_ab(
    workload: Workload,
    live: Live,
    completed: Callable[[int], None] | None = None,
    calibration: Calibration | None = None,
    show: Callable[[ClosedResult], None] = lambda _: None,
) -> ClosedResult:
    """Carry out a closed run to its end, or to a signal.

    `live` is called with the progress once a second, `completed`, if given, with the number of finished requests after
    each of them. `calibration` goes into the report. `show` gets the result; no signal keeps it from its end.
    """
    # Runs of scripts, which start more often, need neither of these.
    from loadgen.closed import ClosedRun  # noqa: PLC0415
    from reports.formats.apachebench import AbReport  # noqa: PLC0415

    wall = WallOffset()
    recorder = Recorder(wall)
    closed = ClosedRun(workload, recorder, wall, agent(), completed)
    watch = HealthWatch()
    with stopping(closed.stop) as signals:
        samples = closed.run(live)
        ab = AbReport.of(samples).to_json()
        defects = closed.defects()
        partial = bool(signals or defects or closed.refused)
        report = recorder.report(extras(watch, recorder, "closed", partial=partial, ab=ab, warnings=defects))
        report = calibrated(report, calibration)
        result = ClosedResult(report, samples, _first(signals), closed.refused, tuple(closed.served), defects)
        show(result)
    return replace(result, signal=_first(signals))


def new_run_id(given: str | None = None) -> str:
    """The id of a run: the given one, or a random one of Artillery's form."""
    alphabet = "3456789abcdefghjkmnpqrtwxyz"
    choice = SystemRandom().choice
    parts = ("".join(choice(alphabet) for _ in range(length)) for length in (4, 29, 4))
    return given or "t" + "_".join(parts)


def read_script(paths: Sequence[str], options: RunOptions, seed: int | None = None) -> Script:
    """Read the script that the files and options give together. Raises ScriptErrors, and OSError for a script file."""
    return parse_script([(path, _text_of(path)) for path in paths], options, read_bytes, Random(seed))


def _text_of(path: str) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        message = f"not UTF-8 ({error.reason} at byte {error.start})"
        raise ScriptErrors((ScriptProblem(Place(path, 0, 0, ""), message),)) from None


def read_bytes(path: str) -> bytes:
    """The content of a file that a script names. Raises OSError, also for a device, which may never end."""
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
    rows: RowsFile | None = None,
    calibration: Calibration | None = None,
) -> ScriptRun:
    """Carry out an open run to its end, or to a signal. `show` gets its result before the `after` section runs; no signal
    keeps it from its end.

    `workers` is the number of processes that share the plan; there are fewer where a phase's `maxVusers` is less.
    `elsewhere` makes the workers that carry out the plan instead. `rows` gets a row for each request, except with `elsewhere`.
    `calibration` goes into the report. Where the workers cannot be started, the result says so (`is_begun`).
    Raises SectionFailed.
    """
    wall = WallOffset()
    with closing(Transports(script, wall, print_debug)) as transports, undisturbed():
        execution = ScriptExecution(script, console, live, wall, transports, Random(seed), observers, rows)
        return execution.run(most_shares(workers, script.phases), elsewhere, show, calibration)


@contextmanager
def generator(job: Job, wall: WallOffset, stamps: WallOffset) -> Iterator[tuple[Recorder, Work]]:
    """Prepare a share of another process's run. Returns the recorder that it fills, and the function that carries it out.

    `wall` gives the report's epoch time; `stamps` is the offset of this machine's kernel, for its receive stamps.
    """
    with closing(Transports(job.script, stamps, print_debug)) as transports, undisturbed():
        silent = Console(lambda _: None, quiet=True)
        execution = ScriptExecution(job.script, silent, lambda _: None, wall, transports, Random(0), ())
        execution.plan_seed = job.plan_seed
        yield execution.recorder, execution.work


def print_debug(text: str) -> None:
    """Print debugging output that the user asked for (DEBUG=http) to stderr."""
    print(text, file=sys.stderr)  # noqa: T201


class ScriptExecution:
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
        rows: RowsFile | None = None,
    ) -> None:
        self._script, self._console, self._live = script, console, live
        self._wall, self._transports, self._observers = wall, transports, observers
        self.recorder = Recorder(wall)
        self._warnings: Counter[str] = Counter()
        self._signals: Sequence[int] = ()
        # The plan has a seed of its own, so that all workers draw the same plan whatever their users draw.
        self.plan_seed = rng.getrandbits(64)
        self._write_line = console.line
        self._rows = None if rows is None else Rows(rows, wall, self._warn)
        self._program = CompiledScript(
            script,
            self.recorder,
            transports,
            rng,
            agent=agent(),
            write_line=self._write,
            warn=self._warn,
            rows=self._rows,
        )

    def run(
        self,
        workers: int,
        elsewhere: Elsewhere | None,
        show: Callable[[ScriptRun], None] | None,
        calibration: Calibration | None,
    ) -> ScriptRun:
        """Run `before`, the plan and `after`. Raises SectionFailed."""
        self.before()
        with ExitStack() as held:
            alone = elsewhere is None and workers == 1
            run = self._alone(held) if alone else self._in_a_crew(workers, elsewhere, held)
            run = replace(run, report=calibrated(run.report, calibration))
            if show is not None:
                show(run)
        return self.after(replace(run, signal=_first(self._signals)))

    def before(self) -> None:
        """Run the `before` section. Raises SectionFailed."""
        if (told := distortion(self._script.phases)) is not None:
            self._warn(told)
        error = self._program.run_before()
        if error is not None:
            raise SectionFailed("before", error)

    def after(self, run: ScriptRun) -> ScriptRun:
        """Run the `after` section. Returns the run with its final exit code. Raises SectionFailed, which carries the run."""
        error = self._program.run_after()
        if error is not None:
            raise SectionFailed("after", error, run)
        return replace(run, exit_code=max(run.exit_code, self._program.exit_code))

    def _write(self, text: str) -> None:
        self._write_line(text)

    def _warn(self, message: str) -> None:
        self._warnings.update((message,))

    def _alone(self, held: ExitStack) -> ScriptRun:
        """Carry out the whole plan in this process. Signals are collected until `held` is left."""
        watch, recorder, console = HealthWatch(), self.recorder, self._console
        engine = self.engine(Share())
        self._signals = held.enter_context(stopping(engine.stop))
        with ExitStack() as observed:
            underway = Underway(
                lambda: recorder.report().aggregate, recorder.latest, engine.progress, engine.stop, self._warn
            )
            for observer in self._observers:
                observed.enter_context(observer(underway))
            tick = self._each_second(watch, self._live)
            period = _both(underway.period_over, console.period)
            engine.run(Listener(console.phase_started, console.phase_completed, period, tick))
        self._flush_rows()
        return self.finished(engine, watch, self._signals)

    def _each_second(self, watch: HealthWatch, then: Live) -> Live:
        def tick(progress: Progress) -> None:
            watch.sample()
            self._flush_rows()
            then(progress)

        return tick

    def _flush_rows(self) -> None:
        if self._rows is not None:
            self._rows.flush()

    def finished(
        self, engine: Engine, watch: HealthWatch, signals: Sequence[int], others: Sequence[Engine] = ()
    ) -> ScriptRun:
        """What a run gave that this engine carried out in this process, and that these signals ended, if any; `others`: engines
        that carried out parts of it before.
        """
        defects = dict.fromkeys(defect for each in (*others, engine) for defect in each.defects())
        failures = (*defects, *self._transports.cut_off())
        partial = engine.interrupted or bool(failures)
        warnings = (*failures, *_counted(self._warnings))
        report = self.recorder.report(
            extras(
                watch,
                self.recorder,
                workload_model(self._script.phases),
                partial=partial,
                warnings=warnings,
                script=self._script,
            )
        )
        return ScriptRun(report, _first(signals), self._program.expectation_failed, self._program.exit_code, failures)

    def _job(self) -> Job:
        """The job of workers on other machines: the script without its sections, and the variables that `before` has set."""
        from loadgen.crew.crew import Job  # noqa: PLC0415 - most runs have no workers

        script = replace(self._script, before=(), after=(), built_ins=self._program.known)
        return Job(script, self.plan_seed)

    def _in_a_crew(self, workers: int, elsewhere: Elsewhere | None, held: ExitStack) -> ScriptRun:
        """Carry out the plan in workers: those that `elsewhere` makes, else processes that are forked from this one.

        Signals are collected until `held` is left.
        """
        from loadgen.crew.crew import CrewError  # noqa: PLC0415 - most runs have no workers
        from loadgen.crew.forked import ForkedCrew  # noqa: PLC0415

        write_line = self._console.line
        try:
            if elsewhere is not None:
                return self._together(elsewhere(self._job(), self._wall, write_line), held)
            return self._together(ForkedCrew(workers, self.work, self.recorder, self._wall, write_line), held)
        except CrewError as error:
            model, why = workload_model(self._script.phases), str(error)
            about = environment(self._script.source, self._script.target)
            warnings = (why, *_counted(self._warnings))
            empty = Report.of((), Extras(version(), model, partial=True, environment=about, warnings=warnings))
            return ScriptRun(empty, failures=(why,), is_begun=False)

    def _together(self, crew: Crew[Any], held: ExitStack) -> ScriptRun:
        """Have a crew of workers carry out the plan, and merge what they measure."""
        console = self._console
        self._signals = held.enter_context(stopping(crew.stop))
        with ExitStack() as observed:
            underway = Underway(lambda: aggregate(crew.periods()), crew.latest, crew.progress, crew.stop, self._warn)

            def started() -> None:
                for observer in self._observers:
                    observed.enter_context(observer(underway))

            period = _both(underway.period_over, console.period)
            listener = Listener(console.phase_started, console.phase_completed, period, self._live)
            crew.run(self._script.phases, listener, started)
        periods, results = crew.periods(), crew.results()
        figures, doubts = health([result["figures"] for result in results], aggregate(periods))
        if crew.places():
            figures["cluster"] = crew.places()
        for result in results:
            self._warnings.update(result["warnings"])
        failures = (*crew.lost(), *(sentence for result in results for sentence in result["defects"]))
        partial = crew.interrupted or bool(failures)
        warnings = (*failures, *_counted(self._warnings), *doubts)
        script = self._script
        about = environment(script.source, script.target)
        beyond = Extras(version(), workload_model(script.phases), partial, about, figures, warnings)
        return ScriptRun(
            Report.of(periods, beyond),
            _first(self._signals),
            any(result["expectation_failed"] for result in results),
            max((result["exit_code"] for result in results), default=0),
            failures,
        )

    def work(self, share: Share, link: ParentPipe, started_ns: int) -> dict[str, Any]:
        """Carry out a worker's share of the plan. Returns what the parent needs besides the periods, as JSON values."""
        self._write_line = link.line
        self._program.take_share(share.index, share.of, f"{self.plan_seed}/{share.index}")
        self._transports.take_share(share)
        if self._rows is not None:
            self._rows.worker = share.index
        watch, engine = HealthWatch(), self.engine(share)
        with stopping(engine.stop):
            engine.run(Listener(tick=self._each_second(watch, link.tick)), started_ns)
        self._flush_rows()
        return {
            "figures": watch.figures(self.recorder) | self._transports.about(),
            "expectation_failed": self._program.expectation_failed,
            "exit_code": self._program.exit_code,
            "warnings": dict(self._warnings),
            "defects": (*engine.defects(), *self._transports.cut_off()),
        }

    def engine(self, share: Share, phases: tuple[Phase, ...] | None = None) -> Engine:
        """What carries out a share of the plan, or of other phases than the script's."""
        plan = Random(self.plan_seed)
        self._transports.plan_begins()
        ended = self._transports.plan_ended
        return Engine(self._program, phases or self._script.phases, self.recorder, self._wall, plan, share, ended)


def _first(signals: Sequence[int]) -> int | None:
    return signals[0] if signals else None


def _both(first: Callable[[_Told], None], then: Callable[[_Told], None]) -> Callable[[_Told], None]:
    def call(value: _Told) -> None:
        first(value)
        then(value)

    return call


def _counted(warnings: Counter[str]) -> list[str]:
    """Each warning once, with the number of times that it was given."""
    return [f"{message} ({times} times)" if times > 1 else message for message, times in warnings.items()]


def agent() -> str:
    """The User-Agent that this program sends."""
    return f"poolbench/{version()}"


def extras(
    watch: HealthWatch,
    recorder: Recorder,
    model: str,
    *,
    partial: bool,
    ab: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    script: Script | None = None,
) -> Extras:
    """The part of a report that Artillery's document does not have. `warnings` are those that are not about the generator."""
    health, doubts = watch.health(recorder)
    return Extras(
        tool_version=version(),
        model=model,
        partial=partial,
        environment=environment() if script is None else environment(script.source, script.target),
        generator=health,
        warnings=(*warnings, *doubts),
        ab=ab,
    )
