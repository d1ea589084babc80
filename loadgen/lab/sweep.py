"""Carries out `loadgen sweep`: starts the servers with one pool size after the other, loads them, and lets
`loadgen.sizing.search` decide what to measure next.

Each run starts the servers again with its size, loads them for `WARM_S` seconds that are not counted, to open their
connections, and then applies the load to measure. So all runs begin alike, and sizes can take turns.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from random import Random
from signal import SIGINT
from typing import Any

from db.embedded import temporary_postgres
from loadgen.environment import environment
from loadgen.lab import distance
from loadgen.lab.database import LabDatabase, given_database
from loadgen.lab.distance_findings import crossing_text
from loadgen.lab.ending import Ending
from loadgen.lab.evidence import Crossing
from loadgen.lab.folders import made
from loadgen.lab.local_script import local_script
from loadgen.lab.own_app import Arrangement, NothingAnsweredError, OwnAppOptions, arranged, judge, prove, unanswered
from loadgen.lab.own_app_findings import refusal
from loadgen.lab.own_database import masking
from loadgen.lab.own_server import OwnApplication
from loadgen.lab.stack import (
    BackendWatch,
    Servers,
    cpu_of_tree,
    free_connections,
    measure_memory,
    query,
    service,
)
from loadgen.runner import Interrupted, Live, ScriptRun, run_script
from loadgen.script.model import Script
from loadgen.sizing.search import Goal, SizeEstimate, SizeLimits, SizeRun, estimates, next_sizes
from loadgen.sizing.sweep_findings import Curve, Sweep, limits_text, sweep_charts, sweep_page
from loadgen.watch.console import Console
from reports import names
from reports.answers import failed_share, good_answers
from reports.blocks import decimal
from reports.files import write_text
from reports.model import Period, Report
from reports.page.picture import picture
from reports.writers.output import write_summaries, written

WARM_S = 1
"""Seconds of load before each run."""

STRATEGIES = ("queue", "fair")
"""Strategies whose pool has a size."""

_OWN_SCRIPT = "pool10.yml"
_MOST_TABLES = 20
# Connections to measure memory with; the slope is taken from a fifth of them on.
_MEMORY_CONNECTIONS = 50


class SweepError(Exception):
    """The sweep cannot be made; the message is one line."""


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The sizes to sweep, and the arrangement. By default, this project's service under a published script."""

    sizes: Sequence[int]
    goals: Sequence[Goal]
    out: Path
    application: OwnApplication | None = None
    script: str | None = None
    strategy: str = "fair"
    servers: int = 4
    max_connections: int | None = None
    """Connections that the database allows; None: 100, or what a given database has."""
    memory_mb: float | None = None
    seconds: int = 5
    """Duration of each run."""
    max_seconds: float = 900.0
    """Duration of the whole sweep; a run that is under way by then is finished."""
    database_url: str | None = None
    """URL of the database to use; None: an embedded PostgreSQL of the sweep's own."""
    round_trip_ms: float | None = None
    confirm: Callable[[str], bool] = lambda _: False
    """Asks the user whether an application may write to a database of the user's own."""
    seed: int = 0
    """Seed of the order in which sizes take turns."""

    def settings(self) -> dict[str, Any]:
        """What is run, and how, without anything that may hold a password."""
        return {
            "application": self.application.name if self.application else None,
            "script": self.script,
            "strategy": self.strategy,
            "sizes": list(self.sizes),
            "goals": [asdict(goal) for goal in self.goals],
            "servers": self.servers,
            "max_connections": self.max_connections,
            "memory_mb": self.memory_mb,
            "seconds": self.seconds,
            "max_seconds": self.max_seconds,
            "database": "embedded" if self.database_url is None else "given",
            "round_trip_ms": self.round_trip_ms,
            "seed": self.seed,
        }


def run(options: SweepOptions, say: Callable[[str], None], live: Live, signals: list[int]) -> Sweep:
    """Runs the sweep and writes its files. The result is `partial` when it was interrupted.

    An error is raised when what was measured before it is written.

    `signals`: numbers of the signals received, which end the sweep even if the KeyboardInterrupt got lost; those that end
    a run are added.
    Raises SweepError, StackError, NothingAnsweredError, ScriptErrors, SectionFailed, EmbeddedPostgresError, psycopg2.Error,
    WriteError, and OSError for the script.
    """
    with made(options.out):
        sweeper, ending = _Sweeper(options, say, live, signals), Ending()
        with ending.kept(lambda: sweeper.is_measured):
            try:
                with ExitStack() as running:
                    sweeper.prepare(running)
                    sweeper.search()
            except Interrupted as interrupted:
                signals.append(interrupted.number)
            except KeyboardInterrupt:
                signals.append(SIGINT)
        error = ending.told(masking(*([options.database_url] if options.database_url is not None else [])))
        found = replace(sweeper.found(), partial=bool(signals or error), error=error)
        page = sweep_page(found)
        write_summaries(page, options.out, found.environment, options.settings())
        for style, suffix in (("json", "json"), ("markdown", "md"), ("html", "html")):
            write_text(options.out / f"sweep.{suffix}", written(page, style))
        if charts := sweep_charts(found):
            write_text(options.out / "sweep.svg", picture(charts))
        if ending.error is not None:
            say(f"What was measured until then is in {options.out}")
            raise ending.error
        return found


class _Sweeper:
    """A sweep in progress."""

    def __init__(self, options: SweepOptions, say: Callable[[str], None], live: Live, signals: list[int]) -> None:
        self._options, self._say, self._live, self._signals = options, say, live, signals
        self._began_s = time.monotonic()
        self._rng = Random(options.seed)
        self._limits = SizeLimits(options.servers, options.max_connections or 100)
        self._sizes: Sequence[int] = options.sizes
        self._curves: list[Curve] = []
        self._notes: list[str] = []
        self._warned: Counter[str] = Counter()
        self._logs = Path()
        self._url = ""
        self._own: tuple[OwnAppOptions, Arrangement] | None = None
        self._answered = False
        self._counted: Counter[str] = Counter()
        """The counters of all runs that were measured."""

    @property
    def is_measured(self) -> bool:
        """Whether any run has a result."""
        return any(curve.runs for curve in self._curves)

    def found(self) -> Sweep:
        """The result so far."""
        options = self._options
        warned = [f"The generator, in {times} of the runs: {text}" for text, times in self._warned.items()]
        if self._own is not None and (refused := refusal([Report(Period(0, self._counted))])):
            warned.append(refused)
        return Sweep(
            subject=f"{options.application.name if options.application else 'the service'} under {options.script or _OWN_SCRIPT}",
            strategy=options.strategy,
            limits=self._limits,
            sizes=options.sizes,
            seconds=options.seconds,
            curves=self._curves,
            environment=environment(),
            # Those of an arrangement are whole only now: rows that were written are counted at the end.
            notes=[*(self._own[1].notes if self._own else ()), *self._notes, *warned],
        )

    # Before the first run

    def prepare(self, running: ExitStack) -> None:
        """Starts the database, and finds the limits."""
        options = self._options
        # Read now, so that a mistake in the script is reported before anything is started.
        self._script("http://127.0.0.1:1", 1, 1)
        self._logs = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="poolbench-sweep-")))
        if options.application is not None:
            self._prepare_application(options.application, running)
        else:
            self._prepare_service(running)
        usable = self._usable_connections()
        with self._servers(min(options.sizes)):
            # An application that does not start, or does not use the database, is reported now.
            pass
        self._learn_limits(usable)
        self._sizes = self._limits.allowed(options.sizes)
        if not self._sizes:
            raise SweepError(
                f"no pool size from {min(options.sizes)} up keeps within the limits: {self._limits_text()}"
            )

    def _prepare_application(self, application: OwnApplication, running: ExitStack) -> None:
        options = self._options
        own = OwnAppOptions(
            application,
            options.script or "",
            options.out,
            servers=options.servers,
            database_url=options.database_url,
            round_trip_ms=options.round_trip_ms,
            confirm=options.confirm,
            max_connections=options.max_connections or 100,
        )
        self._own = own, running.enter_context(arranged(own, self._say))
        base = self._own[1].databases.base
        self._database = LabDatabase(base.monitor_url, base.monitor_url, base.postgres)
        self._crossed(self._own[1].crossing)

    def _prepare_service(self, running: ExitStack) -> None:
        options = self._options
        self._database = running.enter_context(self._service_database())
        self._url, crossing = running.enter_context(distance.at(self._database.url, options.round_trip_ms))
        self._crossed(crossing)
        self._database.seed(0)

    def _crossed(self, crossing: Crossing | None) -> None:
        if crossing is not None:
            self._notes.append(crossing_text(crossing))

    @contextmanager
    def _service_database(self) -> Iterator[LabDatabase]:
        """The database of the service: an embedded one, or a schema of its own in the one given."""
        url, options = self._options.database_url, self._options
        if url is None:
            with temporary_postgres(max_connections=options.max_connections or 100) as postgres:
                yield LabDatabase(postgres.url, postgres.admin_url, postgres)
        else:
            with given_database(url) as database:
                yield database

    def _learn_limits(self, usable: int | None) -> None:
        database, options = self._database, self._options
        shown = dict(
            query(
                database.monitor_url,
                "SELECT name, setting::int FROM pg_settings WHERE name IN"
                " ('max_connections', 'superuser_reserved_connections', 'reserved_connections')",
            )
        )
        most = shown.pop("max_connections")
        self._limits = SizeLimits(
            options.servers,
            min(most, options.max_connections or most),
            sum(shown.values()),
            options.memory_mb,
            usable=usable,
        )
        if database.postgres is None:
            return
        high = min(_MEMORY_CONNECTIONS, self._limits.max_connections - self._limits.reserved)
        low = max(1, high // 5)
        memory = measure_memory(database.postgres.pid, database.url, self._table_reads(), (low, high))
        self._limits = replace(
            self._limits, fixed_mb=memory.shared_mb + memory.base_mb, per_backend_mb=memory.per_backend_mb
        )
        self._notes.append(
            f"Memory: the slope of the summed proportional set size between {low} and {high} connections, each having read"
            " from every table, and 0.13 MB of kernel memory."
        )

    def _usable_connections(self) -> int | None:
        """Connections to a database of the user's own that all servers together may open; None: an embedded database."""
        if self._database.postgres is not None:
            return None
        if self._own is None:
            return free_connections(self._database.monitor_url)[0]
        # No process of the application may open more: a larger pool would be run as one of this size.
        return (self._own[1].databases.most or 0) * self._options.servers

    def _table_reads(self) -> tuple[str, ...]:
        """A statement for each table of the application, to warm a connection's caches."""
        rows = query(
            self._database.url,
            "SELECT format('SELECT * FROM %%I.%%I LIMIT 100', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname = ANY (current_schemas(false)) ORDER BY 1 LIMIT %s",
            (_MOST_TABLES,),
        )
        return ("SELECT 1", *(str(row[0]) for row in rows))

    # The search

    def search(self) -> None:
        """Searches for each rate, one after the other, each with an equal share of the time that is left."""
        goals = self._options.goals
        for number, goal in enumerate(goals):
            left_s = self._options.max_seconds - (time.monotonic() - self._began_s)
            by_chance = self._script("http://127.0.0.1:1", goal.rate, 1).phases[0].poisson
            self._curves.append(Curve(goal, by_chance=by_chance))
            self._search_one(goal, time.monotonic() + left_s / (len(goals) - number))

    def _search_one(self, goal: Goal, ends_s: float) -> None:
        runs: dict[int, list[SizeRun]] = {}
        while wanted := list(next_sizes(runs, self._sizes, goal)):
            self._rng.shuffle(wanted)
            for size in wanted:
                if runs and time.monotonic() > ends_s:
                    self._curves[-1] = replace(self._curves[-1], ended="its time was up (--max-seconds)")
                    return
                runs.setdefault(size, []).append(self._measure(size, goal.rate))
                ordered = {size: tuple(some) for size, some in sorted(runs.items())}
                self._curves[-1] = replace(self._curves[-1], runs=ordered)
                self._tell(runs[size][-1], len(runs[size]), estimates(runs)[size], goal)

    def _measure(self, size: int, rate: float) -> SizeRun:
        postgres = self._database.postgres
        with self._servers(size) as (servers, monitor_url, judged):
            self._load(servers, rate, WARM_S)
            before = servers.cpu_s(), cpu_of_tree(postgres.pid) if postgres else 0.0
            with BackendWatch(monitor_url) as watch:
                began_s = time.monotonic()
                done = self._load(servers, rate, self._options.seconds)
                wall_s = time.monotonic() - began_s
            servers_cpu = (servers.cpu_s() - before[0]) / wall_s
            database_cpu = (cpu_of_tree(postgres.pid) - before[1]) / wall_s if postgres else None
            total = done.report.aggregate
            self._answered = self._answered or bool(good_answers(total.counters))
            if self._own is not None and not self._answered:
                raise NothingAnsweredError(counters=total.counters)
            judged(total.counters)
        self._note_warnings(done)
        self._counted.update(total.counters)
        return SizeRun(
            size=size,
            good_per_s=good_answers(total.counters) / _lasted_s(total, self._options.seconds),
            failed_share=failed_share(total.counters),
            p99_ms=_p99(done, names.RESPONSE_TIME),
            wait_p99_ms=_p99(done, f"{names.SERVER}pool"),
            database_cpu=database_cpu,
            servers_cpu=servers_cpu,
            requests=total.counters.get(names.REQUESTS, 0),
            peak_backends=watch.peak,
        )

    @contextmanager
    def _servers(self, size: int) -> Iterator[tuple[Servers, str, Callable[[Mapping[str, int]], None]]]:
        """Servers with a pool of this size, the URL for watching their database, and what says after a load if it was used."""
        options = self._options
        pool = {"DB_POOL_SIZE": str(size), "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}
        log = self._logs / f"{size}.log"
        if self._own is None:
            settings = {"DATABASE_URL": self._url, "DB_POOL": options.strategy, **pool}
            with Servers(service(), options.servers, settings, log) as servers:
                yield servers, self._database.monitor_url, lambda _: None
            return
        own, arrangement = self._own
        log = own.out / "logs" / f"{size}.log"
        with arrangement.served(options.strategy, pool, log) as served:
            try:
                prove(served, own, self._live)
                yield served.servers, served.database.monitor_url, lambda counters: judge(served, own, counters)
            except NothingAnsweredError as error:
                named = f"{own.application.name} with {options.strategy}"
                has_setup = bool(own.application.setup)
                raise unanswered(named, log, arrangement.masked, error.counters, has_setup=has_setup) from None

    def _load(self, servers: Servers, rate: float, seconds: int) -> ScriptRun:
        if self._signals:
            raise Interrupted(self._signals[0])
        script = self._script(servers.url, rate, seconds)
        done = run_script(script, Console(lambda _: None), self._live)
        if done.signal is not None:
            raise Interrupted(done.signal)
        return done

    def _script(self, url: str, rate: float, seconds: int) -> Script:
        phase = {"duration": seconds, "arrivalRate": int(rate) if rate == int(rate) else rate}
        if self._options.script is not None:
            return local_script(self._options.script, url, Path.cwd(), phase)
        with as_file(files("loadgen.lab") / "scripts" / _OWN_SCRIPT) as path:
            return local_script(str(path), url, Path.cwd(), phase)

    # What is said

    def _note_warnings(self, done: ScriptRun) -> None:
        """Counts warnings; those that differ only in their figures count as one."""
        for text in done.report.extras.warnings if done.report.extras else ():
            alike = next((known for known in self._warned if _without_figures(known) == _without_figures(text)), text)
            self._warned[alike] += 1

    def _tell(self, run: SizeRun, number: int, estimate: SizeEstimate, goal: Goal) -> None:
        p99 = "-" if run.p99_ms is None else f"{decimal(run.p99_ms, 3)} ms"
        wait = "" if run.wait_p99_ms is None else f", wait for a connection p99 {decimal(run.wait_p99_ms, 3)} ms"
        cpu = "" if run.database_cpu is None else f", database {run.database_cpu:.0%}"
        known = f" (known to {estimate.half_width:.0%})" if number > 1 else ""
        self._say(
            f"[{time.monotonic() - self._began_s:.0f} s] {decimal(goal.rate)} users/s, pool of {run.size}, run {number}:"
            f" {decimal(run.good_per_s, 4)} good answers/s, p99 {p99}{wait}{cpu}{known}"
        )

    def _limits_text(self) -> str:
        return f"{limits_text(self._limits)} ({self._options.servers} servers)"


def _lasted_s(total: Period, planned_s: float) -> float:
    """Seconds from the first request to the last answer, and no less than arrivals were planned to take."""
    first_ms, last_ms = total.first_metric_ms, total.last_metric_ms
    return max(planned_s, (last_ms - first_ms) / 1000 if first_ms is not None and last_ms is not None else 0.0)


def _p99(done: ScriptRun, name: str) -> float | None:
    sketch = done.report.aggregate.sketches.get(name)
    return sketch.quantile(0.99) if sketch is not None and sketch.count else None


def _without_figures(text: str) -> str:
    return re.sub(r"[\d.]+", "", text)
