"""The commands `loadgen run` and `loadgen quick`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loadgen.commands.exits import COULD_NOT_RUN, EXPECTATION_FAILED, SIGNALLED, warn, write_json

if TYPE_CHECKING:
    from loadgen.runner import Elsewhere, ScriptRun
    from loadgen.script.model import Script
    from loadgen.script.parse import RunOptions
    from loadgen.watch.console import Console
    from loadgen.watch.live import LivePage
    from loadgen.watch.observer import Observer


@click.command()
@click.argument("scripts", nargs=-1, required=True, metavar="SCRIPT...")
@click.option("-t", "--target", help="Base URL; replaces the script's.")
@click.option("-e", "--environment", help="Use this environment of the script.")
@click.option("-v", "--variables", metavar="JSON", help="Variables for every virtual user.")
@click.option("--overrides", metavar="JSON", help="Merged over the script.")
@click.option("-c", "--config", "config_file", help="A file merged over the script.")
@click.option("-p", "--payload", help="A CSV file in place of the script's payload.")
@click.option("-i", "--input", "inputs", multiple=True, help="One more script file; repeatable.")
@click.option("-o", "--output", help="Write a JSON report to this file, or into this folder.")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("-q", "--quiet", is_flag=True, help="No phases and reports on stdout.")
@click.option("-s", "--solo", is_flag=True, help="One virtual user only.")
@click.option("--scenario-name", help="Run this scenario only (a name or a regular expression).")
@click.option("--dotenv", "--env-file", "dotenv", help="Read environment variables from this file.")
@click.option("--arrivals", type=click.Choice(["artillery", "poisson"]), default="artillery", help="Law of arrivals.")
@click.option("--seed", type=int, help="Of everything random; the same seed gives the same run.")
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that share the load."
)
@click.option(
    "--dask", metavar="ADDRESS", help="Share it on a Dask cluster instead: tcp://HOST:PORT, or local:N workers."
)
@click.option("--live", metavar="[HOST:]PORT", help="Serve a page there that shows the run, and then its report.")
@click.option("--prometheus", metavar="[HOST:]PORT", help="Serve running totals there, on /metrics.")
@click.option("--check", is_flag=True, help="Only look for problems in the script.")
@click.option("--skip-unsupported", is_flag=True, help="Leave out what cannot be run, instead of refusing the script.")
@click.option("--name", "_name", hidden=True)
@click.option("--tags", "_tags", hidden=True)
@click.option("--note", "_note", hidden=True)
@click.option("--count", "_count", hidden=True)
@click.option("--platform", "_platform", hidden=True)
@click.option("--platform-opt", "_platform_opt", multiple=True, hidden=True)
def run(
    scripts: tuple[str, ...],
    inputs: tuple[str, ...],
    config_file: str | None,
    dotenv: str | None,
    arrivals: str,
    output: str | None,
    quiet: bool,
    seed: int | None,
    workers: int,
    dask: str | None,
    live: str | None,
    prometheus: str | None,
    check: bool,
    **given: Any,
) -> None:
    """Run Artillery scripts. stdout is what Artillery's console would show; the rest goes to stderr."""
    from loadgen.commands.dask import crews_at
    from loadgen.runner import new_run_id
    from loadgen.script.parse import RunOptions

    environment = {**os.environ, **(_dotenv(dotenv) if dotenv else {})}
    run_id = new_run_id(environment.get("ARTILLERY_TEST_RUN_ID"))
    paths = [*scripts, *inputs, *([config_file] if config_file else [])]
    known = {name: value for name, value in given.items() if not name.startswith("_")}
    options = RunOptions(
        config_file=config_file,
        poisson=arrivals == "poisson",
        env=environment,
        directory=str(Path.cwd()),
        test_id=run_id,
        **known,
    )
    script = _read(paths, options, seed, listing=check)
    if not check:
        path = _output_path(output)
        observers = [] if prometheus is None else [_prometheus(prometheus)]
        with ExitStack() as opened:
            crews = None if dask is None else opened.enter_context(crews_at(dask, script, workers))
            page = None if live is None else _live_page(live, script, crews.count if crews else workers)
            sys.exit(_run_script(script, run_id, path, quiet, seed, workers, observers, page, crews))


@click.command()
@click.argument("url")
@click.option("-c", "--count", type=click.IntRange(min=1), default=10, show_default=True, help="Virtual users.")
@click.option("-n", "--num", type=click.IntRange(min=1), default=10, show_default=True, help="Requests of each.")
@click.option("-o", "--output", help="Write a JSON report to this file, or into this folder.")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("-q", "--quiet", is_flag=True, help="No phases and reports on stdout.")
def quick(url: str, count: int, num: int, output: str | None, insecure: bool, quiet: bool) -> None:
    """Send GETs to one URL from a number of virtual users."""
    import json

    from loadgen.runner import new_run_id
    from loadgen.script.parse import RunOptions, parse_script

    if not url.startswith(("http://", "https://")):
        _fail(f"invalid URL {url}: it must begin with http:// or https://")
    run_id = new_run_id(os.environ.get("ARTILLERY_TEST_RUN_ID"))
    text = json.dumps({
        "config": {"target": url, "phases": [{"duration": 1, "arrivalCount": count}]},
        "scenarios": [{"flow": [{"loop": [{"get": {"url": url}}], "count": num}]}],
    })  # fmt: skip
    options = RunOptions(insecure=insecure, env=os.environ, test_id=run_id)
    script = parse_script([("quick.json", text)], options, lambda path: Path(path).read_bytes())
    sys.exit(_run_script(script, run_id, _output_path(output), quiet, None))


def _read(paths: list[str], options: RunOptions, seed: int | None, *, listing: bool) -> Script:
    """The script, its warnings on stderr; with problems, all of them there and exit code 1."""
    from loadgen.runner import read_script
    from loadgen.script.model import ScriptErrors

    try:
        script = read_script(paths, options, seed)
    except ScriptErrors as errors:
        for warning in errors.warnings:
            click.echo(f"Warning: {warning}", err=True)
        _fail(*(str(problem) for problem in errors.problems))
    except UnicodeDecodeError as error:
        _fail(f"cannot read {' '.join(paths)}: not UTF-8 ({error.reason} at byte {error.start})")
    except OSError as error:
        _fail(f"cannot read {error.filename}: {error.strerror}")
    for warning in script.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if listing and script.warnings:
        sys.exit(1)
    return script


def _prometheus(text: str) -> Observer:
    """Exit code 1 for an address that is none."""
    from loadgen.watch.live import LiveError
    from loadgen.watch.prometheus import observer

    try:
        return observer(text, lambda line: click.echo(line, err=True))
    except LiveError as error:
        _fail(f"--prometheus: {error}")


def _live_page(text: str, script: Script, workers: int) -> LivePage:
    """Exit code 1 for an address that is none."""
    from loadgen.schedule import spans
    from loadgen.watch.live import LiveError, LivePage

    planned = spans(script.phases)
    try:
        return LivePage(
            text, planned[-1].end_ns / 1e9 if planned else 0.0, workers, lambda line: click.echo(line, err=True)
        )
    except LiveError as error:
        _fail(f"--live: {error}")


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
) -> int:
    """The exit code."""
    from loadgen.runner import SectionFailed, run_script
    from loadgen.watch.observer import ObserverError
    from loadgen.watch.progress import LiveLine

    console = _console(script, quiet=quiet)
    live = LiveLine(plain=False)
    console.run_id(run_id)
    failed: str | None = None

    def show(finished: ScriptRun) -> None:
        live.clear()
        console.summary(finished.report)
        if output is not None:
            write_json(str(output), finished.report)
            console.log_file(str(output))
        if page is not None:
            page.finish(finished.report)

    if page is not None:
        observers = [*observers, page.observe]
    try:
        finished = run_script(
            script, console, live, seed, show, workers=workers, observers=observers, elsewhere=elsewhere
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
    return _judge(script, console, finished, failed)


def _console(script: Script, *, quiet: bool) -> Console:
    from loadgen.watch.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        _write_through,
        hidden=script.hidden_metrics,
        quiet=quiet,
        colour=terminal and not os.environ.get("NO_COLOR"),
        width=min(79, max(50, shutil.get_terminal_size().columns)) if terminal else 79,
    )


def _judge(script: Script, console: Console, finished: ScriptRun, failed: str | None) -> int:
    """Print what the script's checks say of the run. The exit code."""
    from loadgen.script.ensure import apdex_line, evaluate

    extras = finished.report.extras
    verdict = None if script.ensure is None else evaluate(script.ensure, finished.report.aggregate)
    if verdict is not None and verdict.lines:
        console.checks(verdict.lines)
    if script.apdex_threshold_ms is not None:
        score = apdex_line(finished.report.aggregate.counters)
        if score is not None:
            console.apdex(score)
    warn(finished.report)
    if failed is not None:
        _fail(failed)
    if finished.signal is not None:
        return SIGNALLED + finished.signal
    if finished.lost:
        return COULD_NOT_RUN
    if extras is not None and extras.partial:  # ended from its live page
        return SIGNALLED + signal.SIGINT
    if verdict is not None and verdict.failed:
        return 1
    return EXPECTATION_FAILED if finished.expectation_failed else 0


def _write_through(text: str) -> None:
    click.echo(text, nl=False)
    sys.stdout.flush()


def _fail(*messages: str) -> NoReturn:
    for message in messages:
        click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _output_path(given: str | None) -> Path | None:
    """Where a run's JSON goes: the file, or a file named by the time in a folder that exists. Exit code 1 if nowhere."""
    from reports.files import WriteError, check_writable

    if given is None:
        return None
    path = Path(given)
    if path.is_dir():
        now = datetime.now()  # noqa: DTZ005 - local time, as the console's
        path /= f"artillery_report_{now:%Y%m%d_%H%M%S}{now.microsecond // 10_000:02d}.json"
    try:
        check_writable(path)
    except WriteError as error:
        _fail(str(error))
    return path


def _dotenv(path: str) -> dict[str, str]:
    from dotenv import dotenv_values

    if not Path(path).is_file():
        _fail(f"cannot read {path}: no such file")
    return {name: value for name, value in dotenv_values(path).items() if value is not None}
