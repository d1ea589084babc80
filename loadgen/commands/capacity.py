"""The command `loadgen capacity`: the highest arrival rate at which a service meets a target."""

from __future__ import annotations

import sys
from dataclasses import asdict
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import click

from loadgen.commands.exits import COULD_NOT_RUN, SIGNALLED, write_json
from loadgen.commands.script_options import read_script_with, script_options
from reports.cli import FiniteRange, check_output, output_options, show

if TYPE_CHECKING:
    from loadgen.script.model import Script
    from loadgen.sizing.capacity import Step


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
    type=FiniteRange(0, 100),
    default=1.0,
    show_default=True,
    metavar="PERCENT",
    help="The share of requests that may get an error, or an answer of 500 or higher.",
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
    type=FiniteRange(0.5, 50),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="How narrow the interval is to become, in percent of the rate.",
)
@click.option(
    "--first-rate",
    type=FiniteRange(0, min_open=True),
    metavar="R",
    help="New users per second of the first step (default: the arrivalRate of the script's first phase, else 10).",
)
@click.option("-t", "--target", "url", help="Base URL of the service, instead of the script's `target`.")
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
    **given: Any,
) -> None:
    """Find the highest arrival rate at which a service meets a target for its p99 and its errors.

    The phases of SCRIPT are replaced by steps at one rate each. The rate is doubled until a step misses the target; then
    the interval between the highest rate that met it and the lowest that missed it is halved until it is as narrow as
    --precision. A step ends as soon as it is decided. The result says whether the service, the target or the generator is
    what limits the rate.

    Exit code 1: not even the lowest rate meets the target.
    """
    from loadgen.capacity import find_capacity
    from loadgen.runner import SectionFailed
    from loadgen.sizing.capacity import Target
    from loadgen.sizing.capacity_findings import capacity_page, step_line
    from loadgen.watch.progress import LiveLine
    from reports import names

    check_output(output)
    check_output(report_path)
    seed = randbelow(2**32) if seed is None else seed
    found_script = read_script_with(given, script, seed, url)
    target = Target(p99_ms, error_percent / 100)
    live = LiveLine(plain=False)
    say = live.beside(lambda text: click.echo(text, err=True, nl=False))

    def tell(step: Step) -> None:
        say(f"{step_line(step, target)}\n")

    try:
        found, run = find_capacity(
            found_script,
            target,
            live,
            say,
            tell,
            first_rate=first_rate or _first_rate(found_script),
            precision=precision / 100,
            max_s=max_seconds,
            seed=seed,
        )
    except SectionFailed as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    live.clear()
    if report_path is not None:
        write_json(report_path, run.report)
    show(capacity_page(found, target, {**asdict(found), "seed": seed}), style, output)
    for failure in run.failures:
        click.echo(f"Error: {failure}", err=True)
    if run.signal is not None:
        sys.exit(SIGNALLED + run.signal)
    if run.failures or not run.report.aggregate.counters.get(names.RESPONSES):
        sys.exit(COULD_NOT_RUN)
    sys.exit(1 if found.rate is None else 0)


def _first_rate(script: Script) -> float:
    return next((phase.arrival_rate for phase in script.phases if phase.arrival_rate > 0), 10.0)
