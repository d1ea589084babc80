"""The commands `loadgen run` and `loadgen quick`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from loadgen.calibration import Calibration, beyond
from loadgen.commands.exits import (
    COULD_NOT_RUN,
    EXPECTATION_FAILED,
    SIGNALLED,
    calibrate_for,
    calibration_option,
    warn,
    write_json,
)
from loadgen.commands.outlet import outliving_the_terminal
from loadgen.commands.script_options import variables_of
from loadgen.rows import RowsError, RowsFile, rows_file
from loadgen.runner import Elsewhere, ScriptRun, SectionFailed, new_run_id, read_bytes, read_script, run_script
from loadgen.schedule import expected_users, spans
from loadgen.script.ensure import EnsureResult, apdex_line, evaluate
from loadgen.script.model import Script, ScriptErrors
from loadgen.script.parse import RunOptions, parse_script
from loadgen.watch.console import Console
from loadgen.watch.observer import Observer, ObserverError
from loadgen.watch.progress import LiveLine
from reports.cli import BadInput, FiniteRange, junit_option, step_summary
from reports.files import WriteError, check_writable, is_folder
from reports.printable import shown_url

if TYPE_CHECKING:
    from loadgen.crew.distributed import Crews
    from loadgen.watch.abort import AbortWatch
    from loadgen.watch.live import LivePage
    from reports.model import Report

_Command = TypeVar("_Command", bound=Callable[..., Any])


def limit_options(command: _Command) -> _Command:
    """Add the options that keep a server from holding a run for ever, or from filling the memory: --drain, --max-body."""
    drain = click.option(
        "--drain",
        "drain_s",
        type=FiniteRange(0, 1e9),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="Longest time that an answer may take after the last arrival; 0: wait for all. Exit code 3 if any is given up.",
    )
    body = click.option(
        "--max-body",
        "max_body_mb",
        type=FiniteRange(0, 1e6, min_open=True),
        default=64,
        show_default=True,
        metavar="MB",
        help="The most that is kept of an answer's body for captures and checks; if a body is longer, they fail.",
    )
    return drain(body(command))


@click.command()
@click.argument("scripts", nargs=-1, required=True, metavar="SCRIPT...")
@click.option("-t", "--target", help="Base URL of the service, instead of the script's `target`.")
@click.option("-e", "--environment", help="Name of the script's environment (`config.environments`) to use.")
@click.option("-v", "--variables", metavar="JSON", help="Variables of every virtual user, as a JSON object.")
@click.option("--overrides", metavar="JSON", help="A JSON object that is merged over the script.")
@click.option("-c", "--config", "config_file", help="A file that is merged over the script.")
@click.option("-p", "--payload", help="A CSV file to use instead of the script's payload.")
@click.option("-i", "--input", "inputs", multiple=True, help="Another script file to merge in; may be repeated.")
@click.option("-o", "--output", help="Write the report as JSON to this file, or to a new file in this folder.")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["artillery", "ab"]),
    default="artillery",
    show_default=True,
    help="What stdout shows: Artillery's console, or one report in ApacheBench's layout at the end.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print neither phases nor reports on stdout.")
@click.option("-s", "--solo", is_flag=True, help="Run a single virtual user.")
@click.option("--scenario-name", help="Run only the scenario with this name, or those that match it as a pattern.")
@click.option(
    "--dotenv",
    "--env-file",
    "dotenv",
    help="Read environment variables from this file; they win over those set.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["artillery", "uniform", "poisson"]),
    default="artillery",
    show_default=True,
    help="How users arrive: as Artillery's, whose ramps climb once a second; evenly; or at random with the same mean rate.",
)
@click.option("--seed", type=int, help="Seed of all random choices: the same seed gives the same run.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Number of processes on this machine that share the load.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Share the load among the workers of a Dask cluster: tcp://HOST:PORT, or local:N to start N of them here.",
)
@click.option(
    "--live", metavar="[HOST:]PORT", help="Serve a web page at this address that shows the run and then its report."
)
@click.option(
    "--prometheus", metavar="[HOST:]PORT", help="Serve the run's totals at this address, for Prometheus to scrape."
)
@click.option(
    "--rows",
    metavar="FILE",
    help="Write a row for each request to this file: .csv while the run goes on, or .parquet at its end.",
)
@click.option(
    "--abort-on",
    multiple=True,
    metavar="CONDITION",
    help="End the run early, with exit code 1, when this condition has held for three seconds; may be repeated.",
)
@junit_option
@limit_options
@calibration_option()
@click.option("--check", is_flag=True, help="Look for problems in the script without running it.")
@click.option("--skip-unsupported", is_flag=True, help="Skip unsupported parts of the script instead of refusing it.")
@click.option("--name", "_name", hidden=True)
@click.option("--tags", "_tags", hidden=True)
@click.option("--note", "_note", hidden=True)
@click.option("--count", "_count", hidden=True)
@click.option("--platform", hidden=True)
@click.option("--platform-opt", "_platform_opt", multiple=True, hidden=True)
def run(
    scripts: tuple[str, ...],
    inputs: tuple[str, ...],
    config_file: str | None,
    dotenv: str | None,
    arrivals: str,
    output: str | None,
    style: str,
    quiet: bool,
    seed: int | None,
    workers: int,
    dask: str | None,
    live: str | None,
    prometheus: str | None,
    rows: str | None,
    abort_on: tuple[str, ...],
    junit: str | None,
    calibrates: bool | None,
    check: bool,
    platform: str | None,
    **given: Any,
) -> None:
    """Run Artillery scripts.

    stdout shows what Artillery's console would show; progress, warnings and all that Artillery does not have go to stderr.

    A CONDITION of --abort-on is about the figures of the run so far: 'errors > 5%', 'p99 > 2000' (ms), 'rps < 50' or
    'http.codes.503 > 20'. It is checked once a second, from the fifth second on, as soon as 30 requests have ended, at
    least 10 of which must have failed or been slower than the limit. At the end of the run, a condition that cannot be
    judged gives exit code 1.

    If $GITHUB_STEP_SUMMARY is set, a summary of the run is appended to that file.
    """
    try:
        if dotenv:
            # Also for functions of the processor, and for what libraries read themselves.
            os.environ.update(variables_of(dotenv))
    except BadInput as error:
        _fail(str(error))
    environment = dict(os.environ)
    run_id = new_run_id(environment.get("ARTILLERY_TEST_RUN_ID"))
    paths = [*scripts, *inputs, *([config_file] if config_file else [])]
    # The options that are accepted for Artillery's sake and have no effect are hidden and begin with `_`.
    known = {name: value for name, value in given.items() if not name.startswith("_")}
    options = RunOptions(
        config_file=config_file,
        poisson=arrivals == "poisson",
        smooth_ramps=arrivals != "artillery",
        env=environment,
        directory=str(Path.cwd()),
        test_id=run_id,
        **known,
    )
    if platform not in (None, "local"):
        _say(
            f"Warning: --platform {platform} has no effect: the run is on this machine; --workers and --dask share the load"
        )
    script = _read_files(paths, options, seed)
    if check and script.warnings:
        sys.exit(1)
    if check:
        click.echo(_outline(script), err=True)
    abort = _abort_watch(abort_on, script) if abort_on else None
    if check:
        return
    path = _output_path(output)
    if junit is not None:
        _check_writable(Path(junit))
    observers = [] if prometheus is None else [_prometheus(prometheus)]
    with ExitStack() as opened:
        crews = None if dask is None else opened.enter_context(_dask_crews(dask, script, workers))
        page = None if live is None else _live_page(live, script, ", ".join(paths), crews.count if crews else workers)
        gates = _Gates("loadgen run", " ".join(map(os.path.basename, scripts)), abort, junit)
        stdout = opened.enter_context(outliving_the_terminal())
        with _rows(rows, crews) as file:
            calibration = None if crews else _calibration(script, calibrates, workers)
            code = _run_script(
                script, run_id, path, quiet, seed, workers, observers, page, crews, gates, file, calibration, style
            )
    sys.exit(stdout.judged(code, 1))


@click.command()
@click.argument("url")
@click.option(
    "-c", "--count", type=click.IntRange(min=1), default=10, show_default=True, help="Number of virtual users."
)
@click.option(
    "-n", "--num", type=click.IntRange(min=1), default=10, show_default=True, help="Number of requests of each user."
)
@click.option("-o", "--output", help="Write the report as JSON to this file, or to a new file in this folder.")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("-q", "--quiet", is_flag=True, help="Print neither phases nor reports on stdout.")
@limit_options
def quick(url: str, count: int, num: int, output: str | None, insecure: bool, quiet: bool, **limits: Any) -> None:
    """Send GETs to one URL from a number of virtual users.

    If $GITHUB_STEP_SUMMARY is set, a summary of the run is appended to that file.
    """
    if not url.startswith(("http://", "https://")):
        _fail(f"invalid URL {shown_url(url)}: it must begin with http:// or https://")
    run_id = new_run_id(os.environ.get("ARTILLERY_TEST_RUN_ID"))
    flow = [{"loop": [{"get": {"url": url}}], "count": num}]
    phases = [{"duration": 1, "arrivalCount": count}]
    text = json.dumps({"config": {"target": url, "phases": phases}, "scenarios": [{"flow": flow}]})
    options = RunOptions(insecure=insecure, env=os.environ, test_id=run_id, **limits)
    script = _read(lambda: parse_script([("quick.json", text)], options, read_bytes))
    path = _output_path(output)
    with outliving_the_terminal() as stdout:
        code = _run_script(script, run_id, path, quiet, None)
    sys.exit(stdout.judged(code, 1))


def _read(read: Callable[[], Script]) -> Script:
    """Read the script, and print its warnings to stderr. Exits with 1 where it has problems, all of them printed."""
    try:
        script = read()
    except ScriptErrors as errors:
        for warning in errors.warnings:
            click.echo(f"Warning: {warning}", err=True)
        _fail(*(str(problem) for problem in errors.problems))
    for warning in script.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return script


def _read_files(paths: list[str], options: RunOptions, seed: int | None) -> Script:
    """As `_read`, from files."""
    try:
        return _read(lambda: read_script(paths, options, seed))
    except OSError as error:
        _fail(f"cannot read {error.filename}: {error.strerror}")


def _outline(script: Script) -> str:
    """One line on a script without problems: its scenarios, the length of its plan, and the users that it starts.

    Closed phases, which only this program has, are named in a second line.
    """
    planned = spans(script.phases)
    seconds = planned[-1].end_ns / 1e9 if planned else 0.0
    amounts = ((len(script.scenarios), "scenario"), (seconds, "second"), (expected_users(script.phases), "user"))
    scenarios, length, users = (f"{amount:,.10g} {unit}{'' if amount == 1 else 's'}" for amount, unit in amounts)
    line = f"{scenarios}, {length}, about {users}; no problems"
    closed = [phase for phase in script.phases if phase.concurrency is not None]
    if not closed:
        return line
    where = ", ".join(
        f"{phase.name or f'phase {phase.index}'} ({phase.concurrency} users at a time)" for phase in closed
    )
    return f"{line}\nAn extension of this program, which Artillery does not have: `concurrency`, in {where}"


def _calibration(script: Script, wanted: bool | None, workers: int) -> Calibration | None:
    """What the generator can do here; warns of a plan that it cannot carry out."""
    planned = spans(script.phases)
    found = calibrate_for(wanted, planned[-1].end_ns / 1e9 if planned else 0.0)
    if found is not None and (told := beyond(found, script, workers)) is not None:
        _say(f"Warning: {told}")
    return found


@dataclass(frozen=True, slots=True)
class _Gates:
    """What a run is judged by beside the script's own checks, and where the results go."""

    command: str = "loadgen quick"
    name: str = ""
    """The script's name, for the summary."""
    abort: AbortWatch | None = None
    junit: str | None = None


def _abort_watch(texts: Sequence[str], script: Script) -> AbortWatch:
    """What ends the run when a condition holds. Exits with 1 for one that cannot be judged."""
    # Few runs have conditions.
    from loadgen.watch.abort import AbortWatch
    from reports.compare.conditions import Condition
    from reports.model import ReportError

    try:
        conditions = [Condition.parse(text, "--abort-on", custom=script.processor is not None) for text in texts]
    except ReportError as error:
        _fail(str(error))
    return AbortWatch(conditions, _say_beside_progress)


def _prometheus(text: str) -> Observer:
    """The observer that serves a run's totals at an address. Exits with 1 for an invalid address."""
    # Only a run with a page for Prometheus needs its library.
    from loadgen.watch.live import LiveError
    from loadgen.watch.prometheus import observer

    try:
        return observer(text, _say)
    except LiveError as error:
        _fail(f"--prometheus: {error}")


def _live_page(text: str, script: Script, source: str, workers: int) -> LivePage:
    """The page that shows a run at an address. Exits with 1 for an invalid address."""
    # Only a run with a live page needs a web server and the writer of HTML.
    from loadgen.watch.live import LiveError, LivePage

    planned = spans(script.phases)
    phases = ", ".join(
        f"{span.phase.name or f'phase {span.phase.index + 1}'} {span.phase.duration_text}" for span in planned
    )
    facts = [("Script", source), ("Target", shown_url(script.target) or "as each URL says"), ("Phases", phases)]
    try:
        return LivePage(text, facts, planned[-1].end_ns / 1e9 if planned else 0.0, workers, _say)
    except LiveError as error:
        _fail(f"--live: {error}")


@contextmanager
def _dask_crews(address: str, script: Script, workers: int) -> Iterator[Crews]:
    """While inside, gives the function that makes the workers of a run on the Dask cluster at this address.

    Exits with 1 for a script that cannot run there, with 3 if the cluster cannot be reached, and with 130 on a Ctrl-C before
    the start.
    """
    # Dask is an extra that need not be installed.
    try:
        from loadgen.crew.crew import CrewError
        from loadgen.crew.distributed import crews, problems
    except ModuleNotFoundError as error:
        _fail(f"--dask needs {error.name}, which is not installed: pip install '.[distributed]'")
    wrong = problems(address, script) + (["--workers and --dask exclude each other"] if workers > 1 else [])
    if wrong:
        _fail(*wrong)
    try:
        with crews(address, script, _say_beside_progress) as made:
            yield made
    except CrewError as error:
        _fail(str(error), code=COULD_NOT_RUN)
    except KeyboardInterrupt:
        _fail("interrupted before the start", code=SIGNALLED + signal.SIGINT)


def _run_script(
    script: Script,
    run_id: str,
    output: Path | None,
    quiet: bool,
    seed: int | None,
    workers: int = 1,
    observers: Sequence[Observer] = (),
    page: LivePage | None = None,
    elsewhere: Elsewhere | None = None,
    gates: _Gates = _Gates(),
    rows: RowsFile | None = None,
    calibration: Calibration | None = None,
    style: str = "artillery",
) -> int:
    """Run the script, show its report and write it to `output`. Returns the exit code."""
    live = LiveLine(sys.stderr, plain=False)
    write = live.beside(_write_through)
    console = _console(script, write, quiet=quiet or style == "ab")
    if style == "artillery":
        console.run_id(run_id)
    failed: str | None = None
    unwritten: list[str] = []

    def show(finished: ScriptRun) -> None:
        live.clear()
        console.summary(finished.report)
        if style == "ab" and not quiet:
            write(_as_ab(finished.report, script.target))
        if output is not None:
            # A full disk must not keep the script's `after` section from cleaning up.
            try:
                write_json(str(output), finished.report)
            except BadInput as error:
                unwritten.append(error.message)
            else:
                console.log_file(str(output))
        if page is not None:
            page.finish(finished.report)

    if page is not None:
        observers = [*observers, page.observe]
    if script.gateways or script.collectors:
        observers = [*observers, _publisher(script)]
    if gates.abort is not None:
        observers = [*observers, gates.abort.observe]
    try:
        finished = run_script(
            script,
            console,
            live,
            seed,
            show,
            workers=workers,
            observers=observers,
            elsewhere=elsewhere,
            rows=rows,
            calibration=calibration,
        )
    except ObserverError as error:
        _fail(str(error))
    except SectionFailed as error:
        if error.run is None:
            _fail(str(error))
        finished, failed = error.run, str(error)
    finally:
        if page is not None:
            page.close()
    for message in unwritten:
        click.echo(f"Error: {message}", err=True)
    code = _judge(script, console, finished, failed, gates)
    return code or int(bool(unwritten))


def _as_ab(report: Report, target: str) -> str:
    """The report on a run as text in ApacheBench's layout."""
    # Few runs want it.
    from reports.formats.apachebench import AbReport, to_text

    return to_text(AbReport.of_script(report, target))


@contextmanager
def _rows(path: str | None, elsewhere: Elsewhere | None) -> Iterator[RowsFile | None]:
    """While inside, the file for the rows of a run is open, if one is wanted. Exits with 1 where it cannot be made."""
    if path is None:
        yield None
        return
    if elsewhere is not None:
        _fail("--rows and --dask exclude each other: rows are written by the processes of this machine")
    try:
        with rows_file(path) as file:
            yield file
    except RowsError as error:
        _fail(f"--rows: {error}")


def _publisher(script: Script) -> Observer:
    """The observer that sends the metrics of each period to where the script wants them.

    Exits with 1 for a receiver whose address is invalid.
    """
    # Few scripts publish their metrics.
    from loadgen.watch.publish import observer

    try:
        return observer(script.gateways, script.collectors, _say_beside_progress)
    except ObserverError as error:
        _fail(str(error))


def _console(script: Script, write: Callable[[str], None], *, quiet: bool) -> Console:
    """Artillery's console on stdout, coloured and as wide as the terminal where stdout is one."""
    terminal = sys.stdout.isatty()
    return Console(
        write,
        hidden=script.hidden_metrics,
        quiet=quiet,
        colour=terminal and not os.environ.get("NO_COLOR"),
        width=min(79, max(50, shutil.get_terminal_size().columns)) if terminal else 79,
    )


def _judge(script: Script, console: Console, finished: ScriptRun, failed: str | None, gates: _Gates) -> int:
    """Print the results of the script's own checks, and the warnings; tell a CI system. Returns the exit code."""
    total, extras = finished.report.aggregate, finished.report.extras
    verdict = None if script.ensure is None else evaluate(script.ensure, total)
    if verdict is not None and verdict.lines:
        console.checks(verdict.lines)
    if script.apdex_threshold_ms is not None:
        score = apdex_line(total.counters)
        if score is not None:
            console.apdex(score)
    if finished.is_begun:
        warn(finished.report)
    if gates.junit is not None or step_summary() is not None:
        _tell_ci(finished, verdict, failed, gates)
    if not finished.is_begun:
        _fail(*finished.failures, *([] if failed is None else [failed]), code=COULD_NOT_RUN)
    if failed is not None:
        _fail(failed)
    if finished.signal is not None:
        return SIGNALLED + finished.signal
    if finished.failures:
        return COULD_NOT_RUN
    held = [] if gates.abort is None else [result for result in gates.abort.results(total) if not result.met]
    if gates.abort is not None and gates.abort.ended_by is None:
        for result in held:
            click.echo(f"--abort-on {result.line}", err=True)
    if held:
        return 1
    # A run that is partial for no other reason was ended from its live page.
    if extras is not None and extras.partial:
        return SIGNALLED + signal.SIGINT
    if verdict is not None and verdict.failed:
        return 1
    return EXPECTATION_FAILED if finished.expectation_failed else finished.exit_code


def _tell_ci(finished: ScriptRun, verdict: EnsureResult | None, failed: str | None, gates: _Gates) -> None:
    """Write the JUnit file and the step's summary, where they are wanted. Exits with 1 if the file cannot be written."""
    # Only CI systems need these.
    from loadgen.commands.gates import run_results
    from reports.ci import leave, run_summary

    results = run_results(finished, verdict, gates.abort, failed)
    about = finished.report.extras
    seconds = about.generator.get("wall_s", 0.0) if about else 0.0
    try:
        page = run_summary(finished.report, results)
        leave(gates.command, results, page, gates.junit, step_summary(), name=gates.name, seconds=seconds)
    except WriteError as error:
        _fail(str(error))


def _write_through(text: str) -> None:
    click.echo(text, nl=False)
    sys.stdout.flush()


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_beside_progress(line: str) -> None:
    """Print a line on stderr, in place of the progress line where stderr is a terminal."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(f"{clear}{line}", err=True)


def _fail(*messages: str, code: int = 1) -> NoReturn:
    """Print each message as an error on stderr, and exit."""
    for message in messages:
        click.echo(f"Error: {message}", err=True)
    sys.exit(code)


def _output_path(given: str | None) -> Path | None:
    """Where the JSON report goes: the given file, or a file named by the time in the given folder.

    Exits with 1 where no file can be written there.
    """
    if given is None:
        return None
    path = Path(given)
    if is_folder(path):
        # Local time, as on the console.
        now = datetime.now()  # noqa: DTZ005
        path /= f"artillery_report_{now:%Y%m%d_%H%M%S}{now.microsecond // 10_000:02d}.json"
    _check_writable(path)
    return path


def _check_writable(path: Path) -> None:
    """Exits with 1 where no file can be written there."""
    try:
        check_writable(path)
    except WriteError as error:
        _fail(str(error))
