"""The command line: flags in, one call, the chosen format out. Files and terminal are opened here, not below."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from reports.cli import BadInput, diff, report

if TYPE_CHECKING:
    from loadgen.closed import Workload
    from loadgen.exchange import Origin
    from loadgen.lab.run import Options
    from loadgen.runner import Run
    from loadgen.progress import LiveLine
    from loadgen.script.model import Script
    from loadgen.script.parse import RunOptions

_EXPECTATION_FAILED = 21
_SIGNALLED = 128
_COULD_NOT_RUN = 3


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from loadgen.environment import version

        click.echo(f"loadgen {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Put load on an HTTP service and tell, with measurements, how it held."""


cli.add_command(diff)
cli.add_command(report)


@cli.command()
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
    check: bool,
    **given: Any,
) -> None:
    """Run Artillery scripts. stdout is what Artillery's console would show; the rest goes to stderr."""
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
        sys.exit(_run_script(script, run_id, _output_path(output), quiet, seed))


@cli.command()
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


@cli.command()
@click.option("--full", is_flag=True, help="The sources' exact sizes (under 10 minutes on 2 cores).")
@click.option("--only", metavar="ID,...", default="", help="These experiments or groups: B, B.3, A.pool10, ...")
@click.option("--strategies", metavar="NAME,...", default="", help="Experiments with these strategies only.")
@click.option("--servers", type=click.IntRange(1, 64), default=4, show_default=True, help="Servers of source A.")
@click.option("--clicks", type=click.IntRange(min=0), default=300, show_default=True, help="Clicks of each link.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the reports (default runs/<UTC stamp>).")
@click.option("--database-url", help="A PostgreSQL to use, in a schema of its own, in place of the embedded one.")
@click.option("--yes", is_flag=True, help="Do not ask before experiments that may use up the database's connections.")
@click.option("--app", "application", metavar="MODULE:APP", help="Your own WSGI application, in this folder, instead.")
@click.option("--script", metavar="FILE", help="The Artillery script to load your own application with.")
def lab(
    full: bool,
    only: str,
    strategies: str,
    servers: int,
    clicks: int,
    out: Path | None,
    database_url: str | None,
    yes: bool,
    application: str | None,
    script: str | None,
) -> None:
    """Run the experiments of both source documents and judge their claims.

    --only C runs the comparison of queue and fair under saturation. With --app and --script, your own application is run
    under each strategy (--strategies null,queue,fair) through the DATABASE_URL that it reads.
    """
    out = out or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if (application is None) != (script is None):
        raise BadInput("--app and --script go together")
    if application is not None and script is not None:
        sys.exit(_run_own_app(application, script, out, _listed(strategies), servers, database_url))
    from loadgen.lab import fairness
    from loadgen.lab.experiments import BRIEF, FULL, chosen, experiments
    from loadgen.lab.run import LabError, Options

    ids = _listed(only)
    of_sources = [name for name in ids if name not in ("C", fairness.ID)]
    try:
        options = Options(
            experiments=chosen(experiments(servers), of_sources, _listed(strategies), full=full)
            if of_sources or not ids
            else (),
            sizes=FULL if full else BRIEF,
            out=out,
            clicks=clicks,
            database_url=database_url,
            fairness_rounds=0 if ids == of_sources else 3,
            confirm=lambda question: yes or (sys.stdin.isatty() and click.confirm(question, err=True)),
        )
        sys.exit(_run_lab(options))
    except (ValueError, LabError) as error:
        raise BadInput(str(error)) from None


def _run_lab(options: Options) -> int:
    from loadgen.lab.run import Lab
    from loadgen.lab.summary import claim_lines, to_markdown
    from loadgen.progress import LiveLine

    live = LiveLine()
    evidence = Lab(options, _sayer(live), live).run()
    live.clear()
    click.echo(to_markdown(evidence), nl=False)
    if evidence.outcomes:
        click.echo("\n" + "\n".join(claim_lines(evidence)))
    click.echo(f"\nEverything is in {options.out}", err=True)
    return _SIGNALLED + signal.SIGINT if evidence.partial else 0


def _run_own_app(
    application: str, script: str, out: Path, strategies: list[str], servers: int, database_url: str | None
) -> int:
    import psycopg2

    from db.binaries import EmbeddedPostgresError
    from loadgen.lab import own_app
    from loadgen.lab.stack import StackError
    from loadgen.progress import LiveLine
    from loadgen.script.model import ScriptErrors

    unknown = [name for name in strategies if name not in own_app.STRATEGIES]
    if unknown:
        raise BadInput(f"no strategy {unknown[0]!r} for an application; there are {', '.join(own_app.STRATEGIES)}")
    live = LiveLine()
    options = own_app.Options(
        application, script, Path.cwd(), out, strategies or own_app.STRATEGIES, servers, database_url,
        own_app.chosen_settings(os.environ),
    )  # fmt: skip
    try:
        results = own_app.run(options, _sayer(live), live)
    except ScriptErrors as errors:
        raise BadInput("\n".join(str(problem) for problem in errors.problems)) from None
    except (StackError, EmbeddedPostgresError, psycopg2.Error) as error:
        raise BadInput(" ".join(str(error).split())) from None
    except OSError as error:
        raise BadInput(f"{error.filename}: {error.strerror}") from None
    live.clear()
    click.echo(own_app.to_markdown(options, results), nl=False)
    click.echo(f"\nEverything is in {out}", err=True)
    return _SIGNALLED + signal.SIGINT if any(r.interrupted for r in results) else 0


def _sayer(live: LiveLine) -> Callable[[str], None]:
    """Writes whole lines to stderr, between those of the live one."""

    def say(text: str) -> None:
        live.clear()
        click.echo(text, err=True)

    return say


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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


def _run_script(script: Script, run_id: str, output: Path | None, quiet: bool, seed: int | None) -> int:
    """The exit code."""
    from loadgen.console import Console
    from loadgen.progress import LiveLine
    from loadgen.runner import SectionFailed, run_script
    from loadgen.script.ensure import apdex_line, evaluate

    terminal = sys.stdout.isatty()
    console = Console(
        _write_through,
        hidden=script.hidden_metrics,
        quiet=quiet,
        colour=terminal and not os.environ.get("NO_COLOR"),
        width=min(79, max(50, shutil.get_terminal_size().columns)) if terminal else 79,
    )
    live = LiveLine(plain=False)
    console.run_id(run_id)
    failed: str | None = None

    def show(finished: Run) -> None:
        live.clear()
        console.summary(finished.report)
        if output is not None:
            _write_json(str(output), finished.report)
            console.log_file(str(output))

    try:
        finished = run_script(script, console, live, seed, show)
    except SectionFailed as error:
        if error.run is None:
            _fail(str(error))
        finished, failed = error.run, str(error)
    score = None if script.apdex_threshold_ms is None else apdex_line(finished.report.aggregate.counters)
    verdict = None if script.ensure is None else evaluate(script.ensure, finished.report.aggregate)
    if verdict is not None and verdict.lines:
        console.checks(verdict.lines)
    if score is not None:
        console.apdex(score)
    _warn(finished.report.extras.warnings if finished.report.extras else ())
    if failed is not None:
        _fail(failed)
    if finished.signal is not None:
        return _SIGNALLED + finished.signal
    if verdict is not None and verdict.failed:
        return 1
    return _EXPECTATION_FAILED if finished.expectation_failed else 0


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


@cli.command()
@click.argument("url")
@click.option("-n", "requests", type=click.IntRange(min=1), help="Requests in all (default 1; with -t: 50000).")
@click.option("-c", "concurrency", type=click.IntRange(min=1), default=1, show_default=True, help="Users at once.")
@click.option("-t", "duration_s", type=click.FloatRange(min=0, min_open=True), help="Seconds after which to stop.")
@click.option(
    "-s",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option("-k", "keep_alive", is_flag=True, help="Keep connections alive.")
@click.option("-m", "method", help="Method (default GET, with -p POST).")
@click.option("-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header to add; repeatable.")
@click.option("-p", "body_file", type=click.Path(), help="Send the bytes of this file as the body.")
@click.option("-T", "content_type", default="text/plain", show_default=True, help="Content type of the body.")
@click.option("-q", "quiet", is_flag=True, help="No progress on stderr.")
@click.option("-o", "--output", type=click.Path(), help="Write a JSON report too.")
def ab(
    url: str,
    requests: int | None,
    concurrency: int,
    duration_s: float | None,
    timeout_s: float,
    keep_alive: bool,
    method: str | None,
    headers: tuple[str, ...],
    body_file: str | None,
    content_type: str,
    quiet: bool,
    output: str | None,
) -> None:  # fmt: skip
    """A closed workload like ApacheBench's, with ApacheBench's report. One connection per request unless -k."""
    from loadgen.closed import Workload

    number = requests or (50_000 if duration_s is not None else 1)
    if concurrency > number:
        raise BadInput(f"-c {concurrency} is more than the number of requests ({number})")
    body = _bytes_of(body_file) if body_file is not None else None
    origin, path = _origin(url)
    _run_ab(
        Workload(
            origin=origin,
            path=path,
            requests=number,
            concurrency=concurrency,
            duration_s=duration_s,
            keep_alive=keep_alive,
            method=method or ("GET" if body is None else "POST"),
            headers=tuple(_header(text) for text in headers),
            body=body,
            content_type=content_type,
            timeout_s=timeout_s,
        ),
        quiet,
        output,
    )


def _run_ab(workload: Workload, quiet: bool, output: str | None) -> None:
    from loadgen.environment import version
    from loadgen.progress import LiveLine
    from loadgen.runner import run_ab
    from reports.apachebench import AbReport, opening_text, to_text

    _check_output(output)
    click.echo(opening_text(workload.origin.host, f"loadgen {version()}"))
    live = LiveLine(plain=not quiet)
    run = run_ab(workload, (lambda _: None) if quiet else live)
    live.clear()
    if run.samples is not None and (len(run.samples.total_us) or run.refused is None):
        click.echo(to_text(AbReport.of(run.samples)), nl=False)
    if output is not None:
        _write_json(output, run.report)
    _warn(run.report.extras.warnings if run.report.extras else ())
    if run.refused is not None:
        origin = workload.origin
        click.echo(f"Error: cannot connect to {origin.host}:{origin.port} ({run.refused})", err=True)
        sys.exit(_COULD_NOT_RUN)
    if run.signal is not None:
        sys.exit(_SIGNALLED + run.signal)


def _origin(url: str) -> tuple[Origin, str]:
    """Where a URL goes, and the path to ask for. Raises BadInput."""
    from loadgen.exchange import Origin

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"invalid URL {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"invalid URL {url}: it must begin with http:// or https:// and name a host")
    if parts.scheme == "https":
        raise BadInput(f"invalid URL {url}: TLS is not supported")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise BadInput(f"invalid URL {url}: the path must be percent-encoded")
    return Origin(parts.scheme, parts.hostname, port or 80), path


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or "\r" in text or "\n" in text:
        raise BadInput(f"invalid header {text!r}: it must be of the form 'Name: value'")
    return name.strip(), value.strip()


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _check_output(path: str | None) -> None:
    from reports.files import WriteError, check_writable

    if path is not None:
        try:
            check_writable(Path(path))
        except WriteError as error:
            raise BadInput(str(error)) from None


def _write_json(path: str, finished: Any) -> None:
    from reports.artillery_json import to_json
    from reports.files import WriteError, write_text

    try:
        write_text(path, to_json(finished) + "\n")
    except WriteError as error:
        raise BadInput(str(error)) from None


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
