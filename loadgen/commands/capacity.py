"""The command `loadgen capacity`: the highest arrival rate at which a service meets a target."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loadgen.commands.application import APPLICATION, application_options_of_script, one_line_errors, own_application
from loadgen.commands.exits import COULD_NOT_RUN, SIGNALLED, refused, write_json
from loadgen.commands.script_options import check_url, read_script_with, script_options
from reports.cli import BadInput, FiniteRange, PercentRange, check_output, output_options, show

if TYPE_CHECKING:
    from loadgen.lab.ending import Ending
    from loadgen.lab.own_app import OwnAppOptions
    from loadgen.lab.own_capacity import AppCapacity, Search
    from loadgen.lab.own_server import OwnApplication
    from loadgen.runner import ScriptRun
    from loadgen.script.model import Script
    from loadgen.sizing.capacity import Capacity, Step, Target
    from reports.blocks import Page


@click.command()
@click.argument("script", type=click.Path())
@click.option(
    "--p99",
    "p99_ms",
    type=FiniteRange(0, min_open=True),
    required=True,
    metavar="MS",
    help="The response time, in ms, that 99% of the answers must keep.",
)
@click.option(
    "--errors",
    "error_percent",
    type=PercentRange(0, 100),
    default="1%",
    show_default=True,
    metavar="PERCENT",
    help="The share of requests that may get an error, or an answer of 500 or higher, or 429 (too many requests); 1 is 1%.",
)
@click.option(
    "--max-seconds",
    type=FiniteRange(20, 86_400),
    default=180.0,
    show_default=True,
    help="Duration of the whole search, in seconds.",
)
@click.option(
    "--precision",
    type=PercentRange(0.5, 50),
    default="3%",
    show_default=True,
    metavar="PERCENT",
    help="How narrow the interval is to become, as a share of the rate; 3 is 3%.",
)
@click.option(
    "--first-rate",
    type=FiniteRange(0, 1e9, min_open=True),
    metavar="R",
    help="New users per second of the first step (default: the arrivalRate of the script's first phase, else 10).",
)
@click.option("-t", "--target", "url", help="Base URL of the service, instead of the script's `target`.")
@application_options_of_script
@click.option(
    "--strategies",
    metavar="NAME,...",
    help="Strategies to search for an application (default: own): own, null, queue, fair.",
)
@click.option("--sizes", metavar="N,...", help="Pool sizes to search with queue and fair (default: 10).")
@click.option(
    "--servers", type=click.IntRange(1, 64), default=4, show_default=True, help="Server processes of an application."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for an application's logs (default runs/<UTC stamp>)."
)
@script_options
@click.option("--seed", type=int, help="Seed of all random choices.")
@click.option(
    "--report", "report_path", type=click.Path(), metavar="FILE",
    help="Write the report on all steps as JSON to this file.",
)  # fmt: skip
@output_options
def capacity(
    script: str,
    p99_ms: float,
    error_percent: float,
    max_seconds: float,
    precision: float,
    first_rate: float | None,
    report_path: str | None,
    url: str | None,
    seed: int | None,
    style: str | None,
    output: str | None,
    strategies: str | None,
    sizes: str | None,
    servers: int,
    out: Path | None,
    **given: Any,
) -> None:
    """Find the highest arrival rate at which a service meets a target for its p99 and its errors.

    The phases of SCRIPT are replaced by steps at one rate each. The rate is doubled until a step misses the target; then
    the interval between the highest rate that met it and the lowest that missed it is halved until it is as narrow as
    --precision. A step that misses the target ends as soon as that is decided; below a rate that missed it, a rate must
    meet it for 20 seconds. The result says whether the service, the target or the generator is what limits the rate.

    With --app, your own application is searched: each strategy and pool size has a search of --max-seconds of its own, with
    a fresh database.

    Exit code 1: not even the lowest rate meets the target; 3: nothing was answered, or the generator was late at every rate
    that was tried.
    """
    from loadgen.sizing.capacity import Target
    from loadgen.sizing.capacity_findings import capacity_page, was_not_learnt
    from reports import names

    check_output(output)
    check_output(report_path)
    if url is not None:
        check_url(url, "--target: ")
    seed = randbelow(2**32) if seed is None else seed
    own = own_application({**given, "script": script})
    if own is not None:
        from loadgen.lab.own_capacity import Search

        if url is not None:
            raise BadInput("--target does not go with --app, whose servers are started here")
        search = Search(Target(p99_ms, error_percent / 100), first_rate, precision / 100, max_seconds, seed)
        options = _application_options(own, script, strategies or "own", servers, out, _of_script(given))
        _of_application(options, search, sizes or "10", report_path, style, output)
    for name, value in (("strategies", strategies), ("sizes", sizes)):
        if value is not None:
            raise BadInput(f"--{name} goes with --app")
    found_script = read_script_with(_of_script(given), script, seed, url)
    for warning in found_script.warnings:
        click.echo(f"Warning: {warning}", err=True)
    target = Target(p99_ms, error_percent / 100)
    how = {"first_rate": first_rate, "precision": precision / 100, "max_s": max_seconds, "seed": seed}
    found, run = _search(found_script, target, how)
    show(capacity_page(found, target, {**asdict(found), "seed": seed}), style, output)
    _tell_of(run)
    if report_path is not None:
        # Last: what was found is shown also if this cannot be written.
        write_json(report_path, run.report)
    if run.signal is not None:
        sys.exit(SIGNALLED + run.signal)
    if run.failures or was_not_learnt(found) or not run.report.aggregate.counters.get(names.RESPONSES):
        sys.exit(COULD_NOT_RUN)
    sys.exit(1 if found.rate is None else 0)


def _search(script: Script, target: Target, how: Mapping[str, Any]) -> tuple[Capacity, ScriptRun]:
    """Search the capacity of a service, telling each step on stderr; `how` are the keywords of `find_capacity`."""
    from loadgen.capacity import find_capacity
    from loadgen.runner import SectionFailed
    from loadgen.sizing.capacity_findings import step_line
    from loadgen.watch.progress import LiveLine

    live = LiveLine(plain=False)
    say = live.beside(lambda text: click.echo(text, err=True, nl=False))

    def tell(step: Step) -> None:
        say(f"{step_line(step, target)}\n")

    try:
        found = find_capacity(script, target, live, say, tell, **how)
    except SectionFailed as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    live.clear()
    return found


def _of_script(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `script_options` among all those given."""
    return {name: value for name, value in given.items() if name not in APPLICATION}


def _tell_of(run: ScriptRun) -> None:
    """Tell on stderr what failed in a run, and if every answer was an error."""
    for failure in run.failures:
        click.echo(f"Error: {failure}", err=True)
    if said := refused(run.report):
        click.echo(f"Warning: {said}", err=True)


def _application_options(
    application: OwnApplication,
    script: str,
    strategies: str,
    servers: int,
    out: Path | None,
    script_options: Mapping[str, Any],
) -> OwnAppOptions:
    """How an application is run. Raises BadInput."""
    from loadgen.lab.folders import run_folder
    from loadgen.lab.own_app import STRATEGIES, OwnAppOptions, chosen_settings
    from loadgen.lab.stack import StackError
    from loadgen.script.parse import RunOptions

    chosen = tuple(dict.fromkeys(name.strip() for name in strategies.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in STRATEGIES]
    if unknown or not chosen:
        raise BadInput(f"--strategies {strategies}: there are {', '.join(STRATEGIES)}")
    try:
        settings = chosen_settings(os.environ)
    except StackError as error:
        raise BadInput(str(error)) from None
    return OwnAppOptions(
        application,
        script,
        run_folder(out),
        strategies=chosen,
        servers=servers,
        settings=settings,
        script_options=RunOptions(**script_options),
    )


def _of_application(
    options: OwnAppOptions,
    search: Search,
    sizes: str,
    report_path: str | None,
    style: str | None,
    output: str | None,
) -> NoReturn:
    """Search the capacity of an application in each arrangement, show what was found, and end the program."""
    from loadgen.commands.sweep import sizes as listed_sizes
    from loadgen.lab import own_capacity
    from loadgen.lab.ending import Ending
    from loadgen.lab.folders import made
    from loadgen.sizing.capacity_findings import step_line, was_not_learnt
    from loadgen.watch.progress import LiveLine

    live = LiveLine(plain=False)
    say = live.beside(lambda text: click.echo(text, err=True, nl=False))
    wanted = listed_sizes(sizes)
    if report_path is not None and len(list(own_capacity.arrangements(options.strategies, wanted))) > 1:
        raise BadInput("--report has room for one search: with --app, give one strategy and one size")
    ending = Ending()
    found: list[AppCapacity] = []
    runs: list[ScriptRun] = []
    with one_line_errors(None), made(options.out):
        with ending.kept(lambda: bool(found)):
            for each, run in own_capacity.run(
                options,
                wanted,
                search,
                lambda text: say(f"{text}\n"),
                lambda step: say(f"  {step_line(step, search.target)}\n"),
                live,
            ):
                found.append(each)
                runs.append(run)
                ending.signal = run.signal
        live.clear()
        show(_arrangements_page(found, search, ending), style, output)
        for run in runs:
            _tell_of(run)
        if report_path is not None:
            write_json(report_path, runs[-1].report)
        if ending.error is not None:
            raise ending.error
    if ending.signal is not None:
        sys.exit(SIGNALLED + ending.signal)
    if any(run.failures for run in runs):
        sys.exit(COULD_NOT_RUN)
    if all(each.capacity.rate is None for each in found):
        sys.exit(COULD_NOT_RUN if all(was_not_learnt(each.capacity) for each in found) else 1)
    sys.exit(0)


def _arrangements_page(found: Sequence[AppCapacity], search: Search, ending: Ending) -> Page:
    """What was found for each arrangement of an application; as data, also the best one's figures."""
    from loadgen.sizing.capacity_findings import Found, capacities_page

    best = max(found, key=lambda each: each.capacity.rate or 0.0)
    data = {
        **asdict(best.capacity),
        "seed": search.seed,
        "searches": [asdict(each) for each in found],
        "partial": ending.is_early,
        "error": ending.told() or None,
    }
    named = [
        Found(each.strategy if each.size is None else f"{each.strategy}, {each.size}", each.capacity) for each in found
    ]
    return capacities_page(named, search.target, data, ending.told())
