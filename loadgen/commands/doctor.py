"""The command `loadgen doctor`: turns flags into one watched run of an application, and writes what holds it back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadgen.commands.application import application_options, asker, finish, one_line_errors, own_application, sayer
from loadgen.commands.exits import SIGNALLED, CouldNotRun
from reports.cli import BadInput, FiniteRange, check_output, output_options

if TYPE_CHECKING:
    from poolbench.findings import Diagnosis
    from reports.blocks import Page


@click.command()
@application_options
@click.option(
    "--seconds",
    type=FiniteRange(1, 3600),
    default=60,
    show_default=True,
    help="Duration of the load, in seconds: the script's phases are stretched or shortened to it, at their own rates.",
)
@click.option("--servers", type=click.IntRange(1, 64), default=4, show_default=True, help="Number of server processes.")
@click.option(
    "--max-connections",
    type=click.IntRange(5, 10_000),
    default=100,
    show_default=True,
    help="Connections that the embedded database allows.",
)
@click.option("--database-url", help="PostgreSQL to use instead of the embedded one.")
@click.option("--db-rtt", metavar="DURATION", help="Round-trip time to add on the way to the database: 5ms.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before your application writes to the database of --database-url."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files (default runs/<UTC stamp>).")
@output_options
def doctor(out: Path | None, style: str | None, output: str | None, **given: Any) -> None:
    """Run your own application under load, watch its database connections, and say what holds them back.

    Each finding names the line of your code, the endpoint, the share of all requests' time that it costs, and what to
    change. The command looks for connections that are not given back, a second connection asked for while one is held,
    connections shared after a fork, pools and connections made for each request, transactions left open, work while a
    connection is held, the same statement again and again, slow statements, and pools that are unfair, too small or too
    large. It changes nothing in your application.

    Exit code 0: nothing was found; 1: something was found; 2: bad usage or input; 3: the run could not be carried out;
    130 or 143: interrupted.
    """
    from loadgen.lab.folders import run_folder

    out = run_folder(out)
    if given["application"] is None:
        raise BadInput("--app and --script say which application to run")
    check_output(output)
    page, diagnosis, ended_by = _run(out, given)
    found = len(diagnosis.findings)
    finish(page, style, output, out, f" ({found} finding{'s' if found > 1 else ''})" if found else "")
    sys.exit(SIGNALLED + ended_by if ended_by is not None else 1 if diagnosis.findings else 0)


def _run(out: Path, given: dict[str, Any]) -> tuple[Page, Diagnosis, int | None]:
    from loadgen.commands.lab import round_trip_ms
    from loadgen.lab import doctor as lab
    from loadgen.lab.own_app import OwnAppOptions
    from loadgen.watch.progress import LiveLine

    application = own_application(given)
    assert application is not None  # noqa: S101 - checked by the caller
    live = LiveLine()
    options = OwnAppOptions(
        application,
        given["script"],
        out,
        strategies=("own",),
        servers=given["servers"],
        database_url=given["database_url"],
        round_trip_ms=round_trip_ms(given["db_rtt"]),
        max_connections=given["max_connections"],
        confirm=asker(yes=given["yes"]),
    )
    try:
        with one_line_errors(given["database_url"]):
            return lab.run(options, given["seconds"], sayer(live), live)
    except lab.NothingSeenError as error:
        raise CouldNotRun(str(error)) from None
    finally:
        live.clear()
