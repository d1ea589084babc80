"""The command `loadgen plan`: predicts how each pool size would perform, from a measured report, without any load."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import click

from reports.cli import BadInput, FiniteRange, check_output, output_options, refused, remember_explain, show

if TYPE_CHECKING:
    from loadgen.sizing.measured import MeasuredWorkload
    from loadgen.sizing.predict import Prediction, Question
    from loadgen.watch.progress import LiveLine
    from reports.blocks import Page

_VARIATIONS = {"poisson": 1.0, "uniform": 0.0}
_MOST_SIZES = 100
_LARGEST = 10_000
# The largest value of any option: with more, the formulas would overflow.
_MOST = 1e9


_NUMBER = FiniteRange(0, _MOST)
_POSITIVE = FiniteRange(0, _MOST, min_open=True)


@click.command()
@click.argument("report")
@click.option(
    "--servers",
    type=click.IntRange(1, _LARGEST),
    default=4,
    show_default=True,
    help="Number of servers; each has a pool of its own.",
)
@click.option(
    "--sizes",
    metavar="N-M,...",
    default="2,5,10,20,40",
    show_default=True,
    help="Pool sizes, of each server, to make predictions for.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    help="Connections that the database allows; sizes that need more are left out.",
)
@click.option(
    "--p99", "p99_ms", type=_POSITIVE, metavar="MS", help="Longest response time wanted at the 99th percentile, in ms."
)
@click.option(
    "--rate", type=_POSITIVE, metavar="N", help="Requests per second, over all servers (default: as measured)."
)
@click.option(
    "--timeout", type=_NUMBER, default=5, show_default=True, help="Longest wait for a connection, in seconds."
)
@click.option(
    "--max-overflow",
    type=click.IntRange(-1, _LARGEST),
    default=0,
    show_default=True,
    help="Connections that a pool may open beyond its size; -1: no limit.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0, _LARGEST * 100),
    help="Most requests waiting for a connection at one server (default with fifo: 10 x size).",
)
@click.option(
    "--hand-over",
    type=click.Choice(["fifo", "barging"]),
    default="fifo",
    show_default=True,
    help="How a returned connection is lent: fifo, to the first in the queue, as DB_POOL=fair does; or barging, to"
    " whichever request asks first, as DB_POOL=queue does.",
)
@click.option(
    "--wake-ms",
    type=_NUMBER,
    help="Time from the return of a connection until its waiter runs, in ms (default: as measured).",
)
@click.option("--db-cores", type=_POSITIVE, metavar="N", help="Cores of the database (default: as many as are needed).")
@click.option(
    "--db-cpu-ms",
    type=_NUMBER,
    help="CPU time of the database for each loan of a connection, in ms (default: the whole time that the loan lasts).",
)
@click.option(
    "--worker",
    type=click.Choice(["gevent", "gthread", "sync"]),
    default="gevent",
    show_default=True,
    help="Kind of worker that each server is, where the report tells their CPU: gevent, any number of requests; gthread,"
    " --threads requests, one computing at a time; sync, one request.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1000), default=8, show_default=True, help="Threads of each gthread worker."
)
@click.option(
    "--cores",
    type=_POSITIVE,
    metavar="N",
    help="Cores that the servers share, where the report tells their CPU (default: one for each server).",
)
@click.option(
    "--measured-servers",
    type=click.IntRange(1, _LARGEST),
    metavar="N",
    help="Number of servers in the measured run, where the report tells their CPU (default: as many as --servers).",
)
@click.option(
    "--statements",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Number of statements in each loan; before each, a request may wait for the CPU of its worker, where the report tells"
    " that.",
)
@click.option("--connect-ms", type=_NUMBER, help="Time to open a connection, in ms (default: as measured).")
@click.option(
    "--arrivals",
    type=click.Choice(["measured", *_VARIATIONS]),
    default="measured",
    show_default=True,
    help="How requests arrive; if a measured run is too short to tell, it counts as poisson.",
)
@click.option("--cold", is_flag=True, help="Start without an open connection, as after a deployment.")
@click.option(
    "--requests",
    type=click.IntRange(100, 10**7),
    help="Requests to simulate for each size; fewer give a quicker answer, and a larger error of the simulation (default: as many"
    " as about 10 s of CPU allow, up to 100000).",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the random numbers; the same seed gives the same plan.",
)
@click.option(
    "--explain",
    is_flag=True,
    callback=remember_explain,
    help="Show the formulas of queueing theory beside the simulation, and where the two differ. If REPORT cannot be read, say "
    "for each known format why not.",
)
@output_options
def plan(report: str, sizes: str, explain: bool, style: str | None, output: str | None, **given: Any) -> None:
    """Predict how each pool size would do, from one measured run, without any load.

    The plan gives waits for a connection, timeouts, refusals and response times, and names the smallest size that is good
    enough. It is a simulation.

    REPORT is a JSON report of loadgen run, ab or lab, of a service whose answers have the header Server-Timing. Warnings of
    the report are shown above the plan. A run cannot be used, and the exit code is 2, if its users started late, if more
    than 5 % of its requests failed, or if requests queued for a connection or for the CPU of the workers.
    """
    # Imported here, so that the program's --help is quick.
    from loadgen.sizing.grounds import check_run, grounds
    from loadgen.sizing.measured import workload
    from loadgen.sizing.plan_findings import plan_page
    from loadgen.sizing.predict import predict
    from loadgen.watch.progress import LiveLine
    from reports.formats.read import load
    from reports.model import ReportError

    check_output(output)
    try:
        given_report = load(report, lambda note: click.echo(note, err=True))
        # Before anything else, as a run that failed has no loans to look at.
        check_run(given_report)
        measured = workload(given_report)
        cautions = grounds(given_report, measured, given["measured_servers"] or given["servers"])
        question = _question(measured, _within(_sizes(sizes), given), given)
    except ReportError as error:
        raise refused(error if str(error).startswith(report) else ReportError(f"{report}: {error}")) from None
    live = LiveLine(sys.stderr)
    try:
        found = [*_told(predict(question), question.sizes, live)]
        live.say("simulating what to change first")
        page = plan_page(question, found, report, explain=explain)
    finally:
        live.clear()
    show(_with_cautions(page, cautions) if cautions else page, style, output)
    for doubt in (*cautions, *page.data["warnings"]):
        click.echo(f"Warning: {doubt}", err=True)


def _told(predictions: Iterator[Prediction], sizes: tuple[int, ...], live: LiveLine) -> Iterator[Prediction]:
    """The predictions for the sizes; on a terminal, a line shows which one is being made."""
    for number, size in enumerate(sizes, 1):
        live.say(f"simulating a pool of {size} ({number} of {len(sizes)})")
        yield next(predictions)


def _wake_s(measured: MeasuredWorkload) -> float:
    """Time until a waiter runs: the service's own work, unless the simulation has the CPU that this stands for."""
    return measured.own_s if measured.cpu is None else 0.0


def _with_cautions(page: Page, cautions: Sequence[str]) -> Page:
    """The result with what must be known of the measured run before anything else; JSON has it as `cautions`."""
    from reports.blocks import Text

    first, *others = page.sections
    told = (*(Text(f"Warning: {caution}", "warn") for caution in cautions), *first.blocks)
    return replace(page, sections=(replace(first, blocks=told), *others), data={**page.data, "cautions": cautions})


def _sizes(text: str) -> tuple[int, ...]:
    """The sizes of a list like 2,5,10-20. Raises BadInput."""
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not first <= last <= _LARGEST:
            raise BadInput(f"--sizes {text}: must be whole numbers up to {_LARGEST} or ranges of them, as in 2,5,10-20")
        found.update(range(first, last + 1))
    if len(found) > _MOST_SIZES:
        raise BadInput(f"--sizes {text}: at most {_MOST_SIZES} sizes at once")
    return tuple(sorted(found))


def _within(sizes: tuple[int, ...], given: dict[str, Any]) -> tuple[int, ...]:
    """The sizes whose connections the database allows. Raises BadInput if no size is left."""
    most, overflow = given["max_connections"], given["max_overflow"]
    if most is None:
        return sizes
    if overflow < 0:
        raise BadInput("--max-connections cannot be kept with --max-overflow -1")
    kept = tuple(size for size in sizes if given["servers"] * (size + overflow) <= most)
    if not kept:
        least = given["servers"] * (sizes[0] + overflow)
        raise BadInput(f"--max-connections {most}: even size {sizes[0]} needs {least} connections")
    return kept


def _question(measured: MeasuredWorkload, sizes: tuple[int, ...], given: dict[str, Any]) -> Question:
    """Make the question from the options. Raises BadInput for options that do not go together."""
    from loadgen.sizing.course import Arrangement
    from loadgen.sizing.predict import Question, affordable_requests, with_db_cores

    cpu_ms, connect_ms, wake_ms = given["db_cpu_ms"], given["connect_ms"], given["wake_ms"]
    if cpu_ms is not None and given["db_cores"] is None:
        raise BadInput("--db-cpu-ms has no effect without --db-cores")
    if 0 in sizes and given["max_overflow"] >= 0:
        raise BadInput(
            "--sizes 0: to a pool, 0 means no limit, whatever --max-overflow says; with --max-overflow -1 it has none"
        )
    arrangement = Arrangement(
        servers=given["servers"],
        size=max(sizes),
        max_overflow=given["max_overflow"],
        timeout_s=given["timeout"],
        max_waiting=given["max_waiting"],
        hand_over=given["hand_over"],
        wake_s=_wake_s(measured) if wake_ms is None else wake_ms / 1000,
        cold=given["cold"],
        statements=given["statements"],
        slots={"gevent": None, "gthread": given["threads"], "sync": 1}[given["worker"]],
        cores=given["cores"] or inf,
        # Python's lock goes to another thread that wants it after 5 ms.
        turn_s=0.005 if given["worker"] == "gthread" else inf,
    )
    question = Question(
        workload=measured,
        arrangement=arrangement,
        sizes=sizes,
        rate_per_s=given["rate"] or measured.rate_per_s,
        arrival_variation=_VARIATIONS.get(given["arrivals"], measured.arrival_variation),
        connect_s=None if connect_ms is None else connect_ms / 1000,
        measured_servers=given["measured_servers"],
        p99_ms=given["p99_ms"],
        seed=given["seed"],
        max_connections=given["max_connections"],
    )
    if given["db_cores"]:
        question = with_db_cores(question, given["db_cores"], cpu_ms)
    return replace(question, requests=given["requests"] or affordable_requests(question))
