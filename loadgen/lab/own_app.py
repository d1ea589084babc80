"""Somebody else's application under each strategy: the same script, the same servers, another pool by its DATABASE_URL."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from db.embedded import temporary_postgres
from loadgen.environment import environment
from loadgen.lab import distance
from loadgen.lab import distance_findings as distance_summary
from loadgen.lab.evidence import Crossing
from loadgen.lab.fairness import with_pool
from loadgen.lab.stack import BackendWatch, ServerProgram, Servers
from loadgen.runner import Live, ScriptRun, new_run_id, read_script, run_script
from loadgen.script.parse import RunOptions
from loadgen.watch.console import Console
from reports import names
from reports.files import write_text
from reports.formats import artillery_json
from reports.formats.markdown import table
from reports.model import Report

STRATEGIES = ("null", "queue", "fair")

_SETTINGS = {
    "DB_POOL_SIZE": ("pool_size", ("queue", "fair")),
    "DB_POOL_MAX_OVERFLOW": ("max_overflow", ("queue", "fair")),
    "DB_POOL_TIMEOUT": ("pool_timeout", ("queue", "fair")),
    "DB_POOL_MIN": ("min_size", ("fair",)),
    "DB_POOL_IDLE": ("idle_timeout", ("fair",)),
    "DB_POOL_MAX_WAITING": ("max_waiting", ("fair",)),
}
_DEFAULTS = {"DB_POOL_SIZE": "10", "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}


@dataclass(frozen=True, slots=True)
class OwnAppOptions:
    """Which application, and how. `settings` are DB_POOL_… variables; those a strategy does not know are left out for it."""

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
    """A distance to put between the application and the database."""


@dataclass(frozen=True, slots=True)
class OwnAppResult:
    """One strategy's run."""

    strategy: str
    report: Report
    peak_backends: int
    wall_s: float
    interrupted: bool
    crossing: Crossing | None = None
    """What a round trip to the database cost, where it was put at a distance."""


def run(options: OwnAppOptions, say: Callable[[str], None], live: Live) -> list[OwnAppResult]:
    """Each strategy's result, its reports written. Raises StackError, ScriptErrors, EmbeddedPostgresError, psycopg2.Error."""
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
    write_text(options.out / "summary.md", to_markdown(options, results))
    write_text(options.out / "summary.json", json.dumps(to_document(options, results), indent=2) + "\n")
    write_text(options.out / "environment.json", json.dumps(environment(), indent=2) + "\n")
    return results


def parameters(strategy: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The plugin's parameters that stand for the settings."""
    return {_SETTINGS[key][0]: value for key, value in settings.items() if strategy in _SETTINGS[key][1]}


def chosen_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The defaults, and what the environment says in their place."""
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


def figures(result: OwnAppResult) -> dict[str, Any]:
    """What is compared. Times in ms; pool and connect are what the application's answers tell (Server-Timing)."""
    total = result.report.aggregate
    requests = total.counters.get(names.REQUESTS, 0)
    good = sum(n for name, n in total.counters.items() if name.startswith((f"{names.CODES}2", f"{names.CODES}3")))
    out: dict[str, Any] = {
        "requests": requests,
        "good per second": round(good / result.wall_s, 1),
        "failed": round(1 - good / requests, 4) if requests else None,
        "backends at peak": result.peak_backends,
    }
    for label, name, keys in (
        ("response", names.RESPONSE_TIME, ("p50", "p95", "p99", "max")),
        ("pool wait", f"{names.SERVER}pool", ("p50", "p99", "max")),
        ("connect", f"{names.SERVER}connect", ("mean", "p99")),
        ("held", f"{names.SERVER}db", ("mean",)),
    ):
        summary = total.summaries.get(name)
        for key in keys:
            out[f"{label} {key} (ms)"] = getattr(summary, key) if summary else None
    return out


def to_document(options: OwnAppOptions, results: Sequence[OwnAppResult]) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "application": options.application,
        "script": options.script,
        "servers": options.servers,
        "settings": dict(options.settings),
        "partial": any(r.interrupted for r in results),
        "crossing": next((distance_summary.crossing_document(r.crossing) for r in results if r.crossing), None),
        "strategies": {r.strategy: figures(r) for r in results},
    }


def to_markdown(options: OwnAppOptions, results: Sequence[OwnAppResult]) -> str:
    """The comparison as a table, a column for each strategy."""
    columns = [figures(r) for r in results]
    rows = [(name, *("-" if c[name] is None else f"{c[name]:g}" for c in columns)) for name in (columns or [{}])[0]]
    settings = ", ".join(f"{key}={value}" for key, value in options.settings.items())
    crossed = next((f"{distance_summary.crossing_text(r.crossing)}\n\n" for r in results if r.crossing), "")
    partial = "**Partial: the run was interrupted.**\n\n" if any(r.interrupted for r in results) else ""
    return (
        f"# {options.application} under {options.script}\n\n{partial}"
        f"{options.servers} servers; {settings} (where the strategy knows them).\n\n{crossed}"
        + table(("", *(r.strategy for r in results)), rows)
    )
