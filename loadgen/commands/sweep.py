"""The command `loadgen sweep`: turns flags into one sweep, and writes its answer."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadgen.commands.application import application_options, asker, finish, one_line_errors, own_application, sayer
from loadgen.commands.exits import SIGNALLED
from reports.cli import BadInput, FiniteRange, check_output, output_options

if TYPE_CHECKING:
    from loadgen.lab.sweep import SweepOptions
    from loadgen.sizing.search import Goal
    from loadgen.sizing.sweep_findings import Sweep

_LARGEST = 1000
_MOST_SIZES = 1000
_POSITIVE = FiniteRange(0, min_open=True)


@click.command()
@application_options
@click.option(
    "--rate",
    metavar="R,...",
    required=True,
    help="New virtual users per second, over all servers; one or several rates, separated by commas.",
)
@click.option(
    "--p99", "p99_ms", type=_POSITIVE, metavar="MS", help="Longest response time wanted at the 99th percentile, in ms."
)
@click.option(
    "--sizes", metavar="N-M,...", default="1-40", show_default=True, help="Pool sizes to choose from, of each server."
)
@click.option(
    "--strategy",
    "--strategies",
    "strategy",
    type=click.Choice(["fair", "queue"]),
    default="fair",
    show_default=True,
    help="Connection strategy (DB_POOL) whose pool size is sought.",
)
@click.option(
    "--servers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Number of servers; each has a pool of its own.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(5, 10_000),
    help="Connections that the database allows (default: 100, or those of the database of --database-url).",
)
@click.option(
    "--memory", metavar="SIZE", help="Memory of the database, such as 512MB or 2GB; sizes that do not fit are left out."
)
@click.option(
    "--precision",
    metavar="SHARE",
    default="10%",
    show_default=True,
    help="Measure until the 95 % intervals are within +/- this; 0.1 is 10%.",
)
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=5, show_default=True, help="Duration of each run, in seconds."
)
@click.option("--max-rounds", type=click.IntRange(1, 100), default=8, show_default=True, help="Most runs of each size.")
@click.option(
    "--max-seconds", type=_POSITIVE, default=900, show_default=True, help="Duration of the whole sweep, in seconds."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random order in which sizes are run.")
@click.option("--database-url", help="PostgreSQL to use instead of the embedded one.")
@click.option("--db-rtt", metavar="DURATION", help="Round-trip time to add on the way to the database: 5ms.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before your application writes to the database of --database-url."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files (default runs/<UTC stamp>).")
@output_options
def sweep(out: Path | None, style: str | None, output: str | None, **given: Any) -> None:
    """Search, with load, for the smallest pool size that is not measurably worse than the best.

    The service of this project is loaded with the script of a published experiment, or your own application with yours
    (--app and --script). Exit code 1: no size meets --p99.
    """
    from loadgen.lab.folders import run_folder
    from loadgen.sizing.sweep_findings import meets_targets, sweep_page
    from loadgen.watch.progress import LiveLine

    out = run_folder(out)
    options = _options(out, given)
    check_output(output)
    live = LiveLine(plain=False)
    with _interruptible() as signals:
        found = _run(options, live, signals)
    live.clear()
    finish(sweep_page(found), style, output, out)
    if found.partial:
        sys.exit(SIGNALLED + signals[0])
    sys.exit(0 if meets_targets(found) else 1)


def _run(options: SweepOptions, live: Any, signals: list[int]) -> Sweep:
    from loadgen.lab.sweep import SweepError, run

    try:
        with one_line_errors(options.database_url):
            return run(options, sayer(live), live, signals)
    except (SweepError, ValueError) as error:
        raise BadInput(" ".join(str(error).split())) from None


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM raise KeyboardInterrupt, and their numbers are added to the list it gives.

    Python drops the exception if it comes in the middle of a fork, and every start of servers is one; the list still has it.
    """
    seen: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(out: Path, given: dict[str, Any]) -> SweepOptions:
    """Make the options of the sweep from the flags. Raises BadInput."""
    from loadgen.commands.lab import round_trip_ms
    from loadgen.lab.sweep import SweepOptions

    application = own_application(given)
    memory = given["memory"]
    if memory is not None and given["database_url"] is not None:
        raise BadInput(
            "--memory needs the embedded database, whose processes can be looked at: leave --database-url out"
        )
    return SweepOptions(
        sizes=sizes(given["sizes"]),
        goals=_goals(given),
        out=out,
        application=application,
        confirm=asker(yes=given["yes"]),
        memory_mb=None if memory is None else megabytes(memory),
        round_trip_ms=round_trip_ms(given["db_rtt"]),
        **{
            name: given[name]
            for name in (
                "script",
                "strategy",
                "servers",
                "max_connections",
                "seconds",
                "max_seconds",
                "database_url",
                "seed",
            )
        },
    )


def _goals(given: dict[str, Any]) -> tuple[Goal, ...]:
    from loadgen.sizing.search import Goal

    part = share(given["precision"])
    return tuple(Goal(rate, given["p99_ms"], part, given["max_rounds"]) for rate in _rates(given["rate"]))


def sizes(text: str) -> tuple[int, ...]:
    """The pool sizes of a text such as `1-40` or `1,2,5-8`, in ascending order. Raises BadInput."""
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", part)
        low = int(ends[1]) if ends else 0
        high = int(ends[2] or ends[1]) if ends else 0
        if not 1 <= low <= high <= _LARGEST:
            raise BadInput(
                f"--sizes {text}: whole numbers from 1 to {_LARGEST} and ranges of them, such as 1-40 or 2,5,10-20"
            )
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def megabytes(text: str) -> float:
    """The MB of a text such as `512MB`, `2GB` or `512`; a GB is 1024 MB. Raises BadInput."""
    parts = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*(MB?|GB?)?\s*", text, re.IGNORECASE)
    if parts is None or not float(parts[1]):
        raise BadInput(f"--memory {text}: an amount of memory, such as 512MB or 2GB")
    return float(parts[1]) * (1024 if (parts[2] or "M").upper().startswith("G") else 1)


def share(text: str) -> float:
    """The share of a text such as `10%` or `0.1`. Raises BadInput."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    found = float(parts[1]) / (100 if parts[2] else 1) if parts else 0.0
    if not 0.001 <= found <= 1:
        raise BadInput(f"--precision {text}: a share from 0.1% to 100%, such as 10% or 0.1")
    return found


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        found = (0.0,)
    if not all(isfinite(rate) and 0.1 <= rate <= 100_000 for rate in found):
        raise BadInput(f"--rate {text}: virtual users per second, from 0.1 to 100000; several with commas between them")
    return found
