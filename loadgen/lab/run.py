"""Carries the experiments out, one after the other, and writes each report as soon as it is there."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from urllib.parse import quote

import psycopg2

from db import queries
from db.binaries import EmbeddedPostgresError
from db.database import Database
from db.embedded import EmbeddedPostgres, temporary_postgres
from db.settings import DatabaseSettings, PoolSettings, SettingError, database_url
from db.strategies import unhonoured
from loadgen.closed import Workload
from loadgen.console import Console
from loadgen.environment import environment
from loadgen.exchange import Origin
from loadgen.lab import fairness, summary
from loadgen.lab.evidence import Evidence, Outcome, Restart
from loadgen.lab.experiments import ARRIVAL_RATE, Experiment, Sizes, expected_s
from loadgen.lab.stack import BackendWatch, Servers, StackError, cpu_of_tree, measure_memory, query, service
from loadgen.runner import Interrupted, Live, Run, new_run_id, read_script, run_ab, run_script
from loadgen.script.parse import RunOptions
from reports import apachebench, artillery_json, artillery_text
from reports.apachebench import AbReport
from reports.files import check_writable, write_text
from reports.html_lab import lab_page

LINKS = 200
"""How many links the scripts speak of."""

_EXHAUSTING = ("null", "per-request")


class LabError(Exception):
    """The lab cannot be run; the message is one line."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, and on what."""

    experiments: Sequence[Experiment]
    sizes: Sizes
    out: Path
    clicks: int = 300
    """Clicks of each link before the nested object is read."""
    database_url: str | None = None
    """None: an embedded PostgreSQL of the lab's own."""
    fairness_rounds: int = 0
    """Of C.fairness; 0 leaves it out."""
    confirm: Callable[[str], bool] = lambda _: True
    """Asked before an experiment that may use up a given database's connections."""


class Lab:
    """One session. `run` gives the evidence, also of a session that was interrupted."""

    def __init__(self, options: Options, say: Callable[[str], None], live: Live) -> None:
        self._options = options
        self._say = say
        self._live = live
        self._evidence = Evidence(environment=environment(), notes=_notes(options))
        self._url = ""
        self._monitor_url = ""
        self._postgres: EmbeddedPostgres | None = None
        self._seeded = False
        self._folder = Path()

    def run(self) -> Evidence:
        """Everything asked for. Raises LabError for what cannot be started at all."""
        try:
            self._options.out.mkdir(parents=True, exist_ok=True)
            check_writable(self._options.out / "summary.json")
        except OSError as error:
            raise LabError(f"cannot write into {self._options.out}: {error.strerror or error}") from error
        try:
            with tempfile.TemporaryDirectory(prefix="poolbench-lab-") as folder, self._database():
                self._folder = Path(folder)
                self._know_database()
                self._all()
        except (Interrupted, KeyboardInterrupt):
            self._evidence = replace(self._evidence, partial=True)
        except (EmbeddedPostgresError, StackError, SettingError, psycopg2.Error) as error:
            raise LabError(" ".join(str(error).split())) from error
        finally:
            self._write()
        return self._evidence

    def _all(self) -> None:
        began = time.monotonic()
        left_s = [expected_s(experiment, self._options.sizes) for experiment in self._options.experiments]
        for number, experiment in enumerate(self._options.experiments, 1):
            if not self._allowed(experiment):
                continue
            self._say(
                f"[{number}/{len(left_s)}] {experiment.id}: {experiment.title}"
                f" ({time.monotonic() - began:.0f} s so far, about {sum(left_s[number - 1 :]):.0f} s left)"
            )
            outcome = self._one(experiment)
            self._evidence = replace(self._evidence, outcomes={**self._evidence.outcomes, experiment.id: outcome})
            if outcome.partial:
                raise Interrupted
            if experiment.id == "A.pool10" and self._postgres is not None:
                self._say("restarting the database and every server")
                self._evidence = replace(self._evidence, restart=self._restart(experiment))
        if self._options.fairness_rounds:
            self._say(f"{fairness.ID}: 10 connections, a query of 5 ms, more users than connections")
            for cell in fairness.run(self._url, self._folder, self._options.fairness_rounds, self._live):
                self._evidence = replace(self._evidence, fairness=(*self._evidence.fairness, cell))
                name = f"{fairness.ID}.{cell.strategy}.c{cell.users}"
                write_text(self._options.out / f"{name}.json", artillery_json.to_json(cell.report) + "\n")
                write_text(self._options.out / f"{name}.txt", artillery_text.summary_text(cell.report))
        if self._postgres is not None and any(e.script for e in self._options.experiments):
            self._say("measuring memory per connection")
            self._evidence = replace(
                self._evidence, memory=measure_memory(self._postgres.pid, self._url, self._typical_statements())
            )

    # The database

    @contextlib.contextmanager
    def _database(self) -> Iterator[None]:
        if self._options.database_url is None:
            with temporary_postgres(max_connections=100, shared_buffers="128MB") as self._postgres:
                self._url, self._monitor_url = self._postgres.url, self._postgres.admin_url
                yield
            return
        url = database_url(self._options.database_url).set(drivername="postgresql")
        self._monitor_url = url.render_as_string(hide_password=False)
        schema = f"poolbench_lab_{datetime.now(UTC):%Y%m%d_%H%M%S}"
        query(self._monitor_url, f"CREATE SCHEMA {schema}")
        separator = "&" if "?" in self._monitor_url else "?"
        self._url = f"{self._monitor_url}{separator}options={quote(f'-csearch_path={schema}', safe='')}"
        try:
            yield
        finally:
            query(self._monitor_url, f"DROP SCHEMA {schema} CASCADE")

    def _know_database(self) -> None:
        shown = dict(query(self._monitor_url, "SELECT name, setting FROM pg_settings WHERE name IN"
                           " ('server_version', 'max_connections', 'shared_buffers')"))  # fmt: skip
        buffers_mb = int(shown["shared_buffers"]) * 8 // 1024
        text = (
            f"PostgreSQL {shown['server_version']}, max_connections {shown['max_connections']}, "
            f"shared_buffers {buffers_mb} MB"
            + (", over TCP on loopback with SCRAM passwords" if self._postgres else ", given by its URL")
        )
        self._evidence = replace(self._evidence, environment={**self._evidence.environment, "postgres": text})

    def _allowed(self, experiment: Experiment) -> bool:
        if self._postgres is not None or experiment.strategy not in _EXHAUSTING:
            return True
        if self._options.confirm(f"{experiment.id} may use up the connections of the given database. Run it?"):
            return True
        self._note(f"{experiment.id} was skipped: it may use up the database's connections (--yes runs it)")
        return False

    # One experiment

    def _servers(self, experiment: Experiment, log: Path) -> Servers:
        settings = {"DATABASE_URL": self._url, "DB_POOL": experiment.strategy, **experiment.settings}
        return Servers(service(), experiment.servers, settings, log)

    def _one(self, experiment: Experiment) -> Outcome:
        log = self._folder / f"{experiment.id}.log"
        with self._servers(experiment, log) as servers:
            if experiment.script is not None:
                self._seed(experiment)
            clicks = self._clicks() if experiment.script else None
            postgres_pid = self._postgres.pid if self._postgres else None
            cpu = servers.cpu_s(), cpu_of_tree(postgres_pid) if postgres_pid else None
            with BackendWatch(self._monitor_url) as watch:
                started = time.monotonic()
                run, text = self._load(experiment, servers)
                wall_s = time.monotonic() - started
            servers_cpu_s = servers.cpu_s() - cpu[0]
            database_cpu_s = None if postgres_pid is None else cpu_of_tree(postgres_pid) - (cpu[1] or 0.0)
            recorded = None if clicks is None else self._clicks() - clicks
            failures = servers.failures()
        self._write_report(experiment, run, text)
        return Outcome(
            experiment=experiment,
            report=run.report,
            ab=AbReport.of(run.samples) if run.samples is not None else None,
            wall_s=wall_s,
            peak_backends=watch.peak,
            servers_cpu_s=servers_cpu_s,
            database_cpu_s=database_cpu_s,
            failures=failures,
            clicks_recorded=recorded,
            unhonoured=unhonoured(PoolSettings.from_mapping({"DB_POOL": experiment.strategy, **experiment.settings})),
            partial=run.signal is not None,
        )

    def _load(self, experiment: Experiment, servers: Servers) -> tuple[Run, str]:
        """The run, and its report as text: Artillery's console, or for an ab-like test Artillery's summary."""
        sizes = self._options.sizes
        parts: list[str] = []
        console = Console(parts.append)
        if experiment.script is None:
            origin = Origin("http", "127.0.0.1", servers.port)
            workload = Workload(origin, "/health", sizes.requests, experiment.users, sizes.ab_s, timeout_s=120.0)
            run = run_ab(workload, self._live)
        else:
            phase = {
                "name": f"{ARRIVAL_RATE} new users a second",
                "duration": sizes.phase_s,
                "arrivalRate": ARRIVAL_RATE,
            }
            options = RunOptions(target=servers.url, overrides=json.dumps({"config": {"phases": [phase]}}))
            console.run_id(new_run_id())
            with as_file(files("loadgen.lab") / "scripts" / experiment.script) as path:
                run = run_script(read_script([str(path)], options), console, self._live)
        console.summary(run.report)
        return run, "".join(parts)

    def _seed(self, experiment: Experiment) -> None:
        """The links of the scripts, and once the clicks that the nested object is made of."""
        clicks = 0 if self._seeded or experiment.script != "analytics.yml" else self._options.clicks
        self._seeded = self._seeded or clicks > 0
        database = Database(DatabaseSettings(database_url(self._url)))
        with database.connection() as connection:
            queries.seed_links(connection, LINKS)
            queries.seed_clicks(connection, LINKS, clicks)
            queries.analyze(connection)
        database.close()

    def _clicks(self) -> int:
        return int(query(self._url, "SELECT count(*) FROM clicks")[0][0])

    def _rows(self) -> tuple[int, int]:
        return int(query(self._url, "SELECT count(*) FROM links")[0][0]), self._clicks()

    def _restart(self, experiment: Experiment) -> Restart:
        """Both had been used; servers started for each experiment are gone by now, so they start anew here."""
        assert self._postgres is not None  # noqa: S101 - the caller looked
        before = self._rows()
        self._postgres.restart()
        log = self._folder / "restart.log"
        with self._servers(experiment, log) as servers:
            if not servers.answers("/health"):
                raise StackError("the servers do not answer after the restart of the database")
        return Restart(before, self._rows())

    def _typical_statements(self) -> tuple[str, ...]:
        """What a warm connection has done: a key look-up, and an aggregate over one link's clicks."""
        return (
            "SELECT url FROM links WHERE code = 'seed1'",
            "SELECT jsonb_agg(c) FROM clicks c JOIN links l ON l.id = c.link_id WHERE l.code = 'seed1'",
        )

    # What is written

    def _write_report(self, experiment: Experiment, run: Run, text: str) -> None:
        out = self._options.out
        write_text(out / f"{experiment.id}.json", artillery_json.to_json(run.report) + "\n")
        write_text(out / f"{experiment.id}.txt", text)
        if run.samples is not None:
            write_text(out / f"{experiment.id}.ab.txt", apachebench.to_text(AbReport.of(run.samples)))

    def _write(self) -> None:
        out, evidence = self._options.out, self._evidence
        write_text(out / "environment.json", json.dumps(dict(evidence.environment), indent=2) + "\n")
        write_text(out / "summary.json", json.dumps(summary.to_document(evidence), indent=2) + "\n")
        write_text(out / "summary.md", summary.to_markdown(evidence))
        reports = {key: outcome.report for key, outcome in evidence.outcomes.items()}
        write_text(out / "index.html", lab_page(summary.to_document(evidence), reports, evidence.environment))

    def _note(self, text: str) -> None:
        self._evidence = replace(self._evidence, notes=(*self._evidence.notes, text))


def _notes(options: Options) -> tuple[str, ...]:
    if not options.experiments:
        return ()
    sizes = options.sizes
    if sizes.ab_s is None:
        size = f"The sources' sizes: {sizes.requests} requests a test, phases of {sizes.phase_s} s."
    else:
        size = (
            f"Briefer than the sources: tests of source B end after {sizes.ab_s:g} s or {sizes.requests} requests, phases of "
            f"source A last {sizes.phase_s} s at the sources' rate (--full runs the sources' sizes)."
        )
    return (size, f"Each link had {options.clicks} clicks before the nested object was read.")
