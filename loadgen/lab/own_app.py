"""A user's own application under each strategy: the same script and servers, with another pool in its DATABASE_URL."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from db.embedded import temporary_postgres
from loadgen.environment import environment
from loadgen.lab import distance
from loadgen.lab.distance_findings import crossing_text, crossing_values
from loadgen.lab.evidence import Crossing
from loadgen.lab.fairness import with_pool
from loadgen.lab.stack import BackendWatch, ServerProgram, Servers
from loadgen.runner import Live, ScriptRun, new_run_id, read_script, run_script
from loadgen.script.parse import RunOptions
from loadgen.watch.console import Console
from reports import names
from reports.answers import failed_share, good_answers
from reports.blocks import Block, Cell, Column, Page, Section, Table, Text, amount_cell, share_cell
from reports.files import write_text
from reports.formats import artillery_json
from reports.model import Report
from reports.page.sections import notices, report_sections
from reports.writers.output import write_summaries

STRATEGIES = ("null", "queue", "fair")

_SETTINGS = {
    "DB_POOL_SIZE": ("pool_size", ("queue", "fair")),
    "DB_POOL_MAX_OVERFLOW": ("max_overflow", ("queue", "fair")),
    "DB_POOL_TIMEOUT": ("pool_timeout", ("queue", "fair")),
    "DB_POOL_MIN": ("min_size", ("fair",)),
    "DB_POOL_IDLE": ("idle_timeout", ("fair",)),
    "DB_POOL_MAX_WAITING": ("max_waiting", ("fair",)),
}
_TIMES = (
    ("response", names.RESPONSE_TIME, ("p50", "p95", "p99", "max")),
    ("pool wait", f"{names.SERVER}pool", ("p50", "p99", "max")),
    ("connect", f"{names.SERVER}connect", ("mean", "p99")),
    ("held", f"{names.SERVER}db", ("mean",)),
)
"""Distributions to compare: the name for a reader, the metric, and fields of its summary."""

_DEFAULTS = {"DB_POOL_SIZE": "10", "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}


@dataclass(frozen=True, slots=True)
class OwnAppOptions:
    """The application to run, and how. `settings` are DB_POOL_… variables; a strategy gets those that it knows."""

    application: str
    """MODULE:APP, found from `folder`."""
    script: str
    folder: Path
    out: Path
    strategies: Sequence[str] = STRATEGIES
    servers: int = 4
    database_url: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULTS))
    round_trip_ms: float | None = None
    """Round trip to put between the application and the database, in ms; None: no distance."""


@dataclass(frozen=True, slots=True)
class OwnAppResult:
    """The run of one strategy."""

    strategy: str
    report: Report
    peak_backends: int
    wall_s: float
    interrupted: bool
    crossing: Crossing | None = None
    """Cost of a round trip to the database; None where it was not put at a distance."""


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """One figure of one strategy; its value is None where the run does not have it."""

    name: str
    value: float | None
    is_share: bool = False
    """Whether it is a share, 0 to 1."""


def run(options: OwnAppOptions, say: Callable[[str], None], live: Live) -> tuple[Page, bool]:
    """The comparison, and whether it was interrupted; all reports are written then.

    Raises StackError, ScriptErrors, EmbeddedPostgresError, psycopg2.Error, and WriteError or OSError for files.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[OwnAppResult] = []
    with (
        _database(options) as (near_url, monitor_url),
        distance.at(near_url, options.round_trip_ms) as (url, crossing),
        tempfile.TemporaryDirectory(prefix="poolbench-lab-") as logs,
    ):
        for strategy in options.strategies:
            say(f"{options.application} with DATABASE_URL's pool={strategy}")
            results.append(replace(_one(options, strategy, url, monitor_url, Path(logs), live), crossing=crossing))
            if results[-1].interrupted:
                break
    page = own_app_page(options, results)
    write_summaries(page, options.out, environment())
    return page, results[-1].interrupted


def parameters(strategy: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The plugin's parameters for those settings that the strategy knows."""
    return {_SETTINGS[key][0]: value for key, value in settings.items() if strategy in _SETTINGS[key][1]}


def chosen_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The default settings, replaced by those that the environment has."""
    return _DEFAULTS | {key: environ[key] for key in _SETTINGS if environ.get(key, "").strip()}


@contextmanager
def _database(options: OwnAppOptions) -> Iterator[tuple[str, str]]:
    if options.database_url is not None:
        yield options.database_url, options.database_url
        return
    with temporary_postgres() as postgres:
        yield postgres.url, postgres.admin_url


def _one(options: OwnAppOptions, strategy: str, url: str, monitor_url: str, logs: Path, live: Live) -> OwnAppResult:
    pooled = with_pool(url, strategy, **parameters(strategy, options.settings))
    here = Path(__file__).parent
    program = ServerProgram(here / "app_conf.py", options.application, options.folder, ready_path="/")
    parts: list[str] = []
    console = Console(parts.append)
    with Servers(program, options.servers, {"DATABASE_URL": pooled}, logs / f"{strategy}.log") as servers:
        script = read_script([options.script], RunOptions(target=servers.url, directory=str(options.folder)))
        console.run_id(new_run_id())
        with BackendWatch(monitor_url) as watch:
            started = time.monotonic()
            done: ScriptRun = run_script(script, console, live)
            wall_s = time.monotonic() - started
    console.summary(done.report)
    write_text(options.out / f"{strategy}.json", artillery_json.to_json(done.report) + "\n")
    write_text(options.out / f"{strategy}.txt", "".join(parts))
    return OwnAppResult(strategy, done.report, watch.peak, wall_s, done.signal is not None)


def figures(result: OwnAppResult) -> list[ComparedFigure]:
    """The figures that strategies are compared by. Pool wait, connect and held are from the answers' Server-Timing."""
    total = result.report.aggregate
    found = [
        ComparedFigure("requests", total.counters.get(names.REQUESTS, 0)),
        ComparedFigure("good per second", round(good_answers(total.counters) / result.wall_s, 1)),
        ComparedFigure("failed", round(failed_share(total.counters), 4), is_share=True),
        ComparedFigure("backends at peak", result.peak_backends),
    ]
    for label, name, keys in _TIMES:
        summary = total.summaries.get(name)
        found += [ComparedFigure(f"{label} {key} (ms)", getattr(summary, key) if summary else None) for key in keys]
    return found


def own_app_page(options: OwnAppOptions, results: Sequence[OwnAppResult]) -> Page:
    """The comparison as a result: a column for each strategy, then what there is to say of all runs side by side."""
    crossing = next((r.crossing for r in results if r.crossing), None)
    partial = any(r.interrupted for r in results)
    blocks: list[Block] = []
    if partial:
        blocks.append(Text("Partial: the run was interrupted. What follows was measured until then.", "warn"))
    blocks += [text for r in results for text in notices(r.strategy, r.report)]
    settings = ", ".join(f"{key}={value}" for key, value in options.settings.items())
    blocks.append(Text(f"Servers: {options.servers}. Settings, where a strategy knows them: {settings}."))
    if crossing is not None:
        blocks.append(Text(crossing_text(crossing)))
    columns = Column("figure"), *(Column(r.strategy, "number") for r in results)
    rows = tuple(
        (Cell(row[0].name), *(share_cell(f.value) if f.is_share else amount_cell(f.value) for f in row))
        for row in zip(*map(figures, results), strict=True)
    )
    blocks.append(Table("strategies-figures", "The same load under each strategy", columns, rows))
    compared = {r.strategy: {f.name: f.value for f in figures(r)} for r in results}
    summary = Section("strategies", "Strategies", tuple(blocks), menu="Strategies", data=compared)
    data = {
        "application": options.application,
        "script": options.script,
        "servers": options.servers,
        "settings": options.settings,
        "partial": partial,
        "crossing": None if crossing is None else crossing_values(crossing),
    }
    reports = [(r.strategy, r.report) for r in results]
    title = f"{options.application} under {options.script}"
    return Page(title, ", ".join(r.strategy for r in results), report_sections(reports, summary=summary), data)
