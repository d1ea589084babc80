"""A session of the lab: runs the experiments one after the other, and writes each report as soon as it is there."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg2

from db.binaries import EmbeddedPostgresError
from db.settings import PoolSettings, SettingError
from db.strategies import unhonoured
from loadgen.closed import Workload
from loadgen.environment import environment
from loadgen.http.route import Origin
from loadgen.lab import distance, fairness, league, pgbouncer, publication_run
from loadgen.lab.answer import answer_charts
from loadgen.lab.database import LabDatabase, given_database, limited_database, own_database
from loadgen.lab.distance_findings import crossing_text, distance_charts
from loadgen.lab.evidence import Evidence, ExperimentResult, Measurement, Restart
from loadgen.lab.experiments import ARRIVAL_RATE, Experiment, Sizes, expected_s
from loadgen.lab.findings import lab_page
from loadgen.lab.folders import made
from loadgen.lab.local_script import local_script
from loadgen.lab.own_database import DatabaseError
from loadgen.lab.pgbouncer import PgBouncer
from loadgen.lab.publication import Publication
from loadgen.lab.rounds import together, turns
from loadgen.lab.stack import (
    BackendWatch,
    PartError,
    Servers,
    StackError,
    cpu_of_tree,
    machine_cpu_s,
    measure_connecting,
    measure_memory,
    query,
    service,
)
from loadgen.runner import ClosedResult, Interrupted, Live, ScriptRun, new_run_id, run_ab, run_script
from loadgen.watch.console import Console
from reports.blocks import decimal
from reports.files import WriteError, check_writable, write_text
from reports.formats import apachebench, artillery_json, artillery_text
from reports.formats.apachebench import AbReport
from reports.page.page import to_html
from reports.page.picture import picture
from reports.writers.output import write_summaries, written

_EXHAUSTING = ("null", "per-request")

# Connections that a database must allow beside those of an experiment: the lab's own, and the reserved ones.
_SPARE_CONNECTIONS = 10

_TYPICAL_STATEMENTS = (
    "SELECT url FROM links WHERE code = 'seed1'",
    "SELECT jsonb_agg(c) FROM clicks c JOIN links l ON l.id = c.link_id WHERE l.code = 'seed1'",
)
"""Statements that a warm connection has run: a look-up by key, and an aggregate over one link's clicks."""


class LabError(Exception):
    """The lab cannot be run; the message is one line."""


class LabFailed(LabError):
    """What the lab itself brings along did not start, or ended."""


@dataclass(frozen=True, slots=True)
class LabOptions:
    """The experiments to run, and the database to run them on."""

    experiments: Sequence[Experiment]
    sizes: Sizes
    out: Path
    clicks: int = 300
    """Clicks that each link has before the nested object is read."""
    database_url: str | None = None
    """URL of the database to use; None: an embedded PostgreSQL of the lab's own."""
    fairness_rounds: int = 0
    """Rounds of C.fairness; 0 leaves it out."""
    league_rounds: int = 0
    """Rounds of C.league; 0 leaves it out."""
    distance_rounds: int = 0
    """Rounds of D.rtt; 0 leaves it out."""
    publications: Sequence[Publication] = ()
    """Publications that are data, and whose experiments are to be run."""
    full: bool = False
    """Whether those have their published sizes."""
    round_trip_ms: float | None = None
    """Round trip to put between the servers and the database, in ms, for all experiments but D.rtt, which has its own."""
    seed: int = 0
    """Seed of the order of the turns."""
    confirm: Callable[[str], bool] = lambda _: True
    """Asks whether to run an experiment that may use up a given database's connections; called with the question."""

    def settings(self) -> dict[str, Any]:
        """What is run, and how, without the database's URL."""
        return {
            "experiments": {
                each.id: {"strategy": each.strategy, "servers": each.servers, **each.settings}
                for each in self.experiments
            },
            "publications": [each.name for each in self.publications],
            **asdict(self.sizes),
            "clicks": self.clicks,
            "full": self.full,
            "database": "embedded" if self.database_url is None else "given",
            "round_trip_ms": self.round_trip_ms,
            "seed": self.seed,
        }


class Lab:
    """One session of the lab."""

    def __init__(self, options: LabOptions, say: Callable[[str], None], live: Live) -> None:
        self._options = options
        self._say = say
        self._live = live
        self._evidence = Evidence(environment=environment(), notes=_notes(options))
        self._rng = Random(options.seed)
        self._database: LabDatabase
        self._folder = Path()
        self.ended_by: int = signal.SIGINT
        """Number of the signal that ended the session, where its evidence is partial."""

    def run(self) -> Evidence:
        """Runs everything asked for; gives the evidence, also of an interrupted session. Raises LabError.

        A session that ends before anything was measured leaves no folder that was not there before.
        """
        self._check()
        try:
            with made(self._options.out):
                check_writable(self._options.out / "summary.json")
                return self._session()
        except WriteError as error:
            raise LabError(str(error)) from error

    def _session(self) -> Evidence:
        try:
            given = self._options.database_url
            with (
                tempfile.TemporaryDirectory(prefix="poolbench-lab-") as folder,
                own_database() if given is None else given_database(given) as self._database,
                self._at_a_distance(),
            ):
                self._folder = Path(folder)
                self._know_database()
                self._all()
        except (Interrupted, KeyboardInterrupt) as error:
            self.ended_by = error.number if isinstance(error, Interrupted) else signal.SIGINT
            self._evidence = replace(self._evidence, partial=True)
        except SystemExit:
            # SIGTERM, while no load is running.
            self._evidence = replace(self._evidence, partial=True)
            raise
        except (EmbeddedPostgresError, PartError, DatabaseError, StackError, SettingError, psycopg2.Error) as error:
            said = " ".join(str(error).split())
            self._note(f"An error ended the session: {said}")
            self._evidence = replace(self._evidence, partial=True)
            is_ours = isinstance(error, psycopg2.Error) and self._options.database_url is None
            kind = LabFailed if is_ours or isinstance(error, EmbeddedPostgresError | PartError) else LabError
            raise kind(said) from error
        finally:
            if self._evidence.is_measured:
                self._write()
        return self._evidence

    def _all(self) -> None:
        began = time.monotonic()
        order = turns(self._options.experiments, self._options.sizes, self._rng)
        left_s = [expected_s(turn, self._options.sizes) for turn in order]
        for number, turn in enumerate(order, 1):
            allowed = [experiment for experiment in turn if self._allowed(experiment)]
            if not allowed:
                continue
            self._say(
                f"[{number}/{len(order)}] {', '.join(e.id for e in allowed)}: {allowed[0].title}"
                f" ({time.monotonic() - began:.0f} s so far, about {sum(left_s[number - 1 :]):.0f} s left)"
            )
            self._turn(allowed)
        if "A.pool10" in self._evidence.outcomes and self._database.postgres is not None:
            self._say("restarting the database and every server")
            restart = self._restart(self._evidence.outcomes["A.pool10"].experiment)
            self._evidence = replace(self._evidence, restart=restart)
        if self._options.fairness_rounds:
            self._say(f"{fairness.ID}: 10 connections, a query of 5 ms, more users than connections")
            rounds = self._options.fairness_rounds
            self._note(f"{fairness.ID}: {rounds} rounds, each in a random order (seed {self._options.seed}).")
            for cell in fairness.run(self._database.url, self._folder, rounds, self._live, self._rng):
                self._evidence = replace(self._evidence, fairness=(*self._evidence.fairness, cell))
                name = f"{fairness.ID}.{cell.strategy}.c{cell.users}"
                write_text(self._options.out / f"{name}.json", artillery_json.to_json(cell.report) + "\n")
                write_text(self._options.out / f"{name}.txt", artillery_text.summary_text(cell.report))
        if self._options.league_rounds:
            self._league(self._options.league_rounds)
        if self._options.distance_rounds:
            self._distances(self._options.distance_rounds)
        for publication in self._options.publications:
            self._publication(publication)
        postgres = self._database.postgres
        if postgres is not None and any(e.script and not e.memory_mb for e in self._options.experiments):
            self._say("measuring memory per connection")
            memory = measure_memory(postgres.pid, self._database.url, _TYPICAL_STATEMENTS)
            self._evidence = replace(self._evidence, memory=memory)

    def _league(self, rounds: int) -> None:
        """Runs C.league."""
        if not league.pools():
            self._note(f"{league.ID} was skipped: psycopg 3, with which it measures all pools, is not installed.")
            return
        turns = league.TURNS if self._options.sizes.ab_s is None else league.BRIEF_TURNS
        self._say(f"{league.ID}: three pools side by side (about {league.expected_s(rounds, turns):.0f} s)")
        figures = league.run(self._database.url, rounds, self._say, turns)
        self._evidence = replace(self._evidence, league=figures)

    def _distances(self, rounds: int) -> None:
        """Runs D.rtt."""
        if self._database.postgres is None and not self._options.confirm(
            f"{distance.ID} may use up the connections of the given database. Run it?"
        ):
            self._note(f"{distance.ID} was skipped: it may use up the database's connections (--yes runs it)")
            return
        self._say(f"{distance.ID}: what pooling gains, by the distance (about {distance.expected_s(rounds):.0f} s)")
        with distance.Session(self._database.url, self._database.postgres, self._folder) as session:
            self._evidence = replace(self._evidence, crossing=session.crossing)
            for reason in session.skipped:
                self._note(reason)
            for cell in session.run(rounds, self._live, self._rng):
                self._evidence = replace(self._evidence, distance=(*self._evidence.distance, cell))
                name = (
                    f"{distance.ID}.{decimal(cell.round_trip_ms)}ms.{cell.arrangement.replace(' ', '-')}.c{cell.users}"
                )
                write_text(self._options.out / f"{name}.json", artillery_json.to_json(cell.report) + "\n")
                write_text(self._options.out / f"{name}.txt", artillery_text.summary_text(cell.report))

    def _publication(self, publication: Publication) -> None:
        """Runs the experiments of a publication that is data."""
        full, title = self._options.full, publication.name
        for experiment in publication.experiments:
            if (module := publication_run.missing_module(experiment)) is not None:
                self._note(f"{title}: {experiment.title} was skipped, because {module} is not installed.")
        self._say(f"{title}: {publication.title} (about {publication.expected_s(full=full):.0f} s)")
        self._note(f"{title}: {publication.rounds} rounds, each in a random order (seed {self._options.seed}).")
        with self._database_for(publication) as database:
            if database is None:
                return
            others = _others_cpu_s if database.postgres else None
            turns = publication_run.run(
                publication, database.url, full=full, others_cpu_s=others, say=self._note_and_say, rng=self._rng
            )
            for name, found in turns:
                self._add(publication, name, found)

    def _add(self, publication: Publication, experiment: str, found: Measurement) -> None:
        """Adds one turn of an experiment of a publication to the evidence."""
        evidence, place = self._evidence, f"{publication.name}.{experiment}"
        rounds = (*evidence.measurement_rounds.get(place, ()), found)
        others = [each for each in evidence.publications if each.name != publication.name]
        self._evidence = replace(
            evidence,
            publications=(*others, publication),
            measurements={**evidence.measurements, place: publication_run.together(found.title, rounds)},
            measurement_rounds={**evidence.measurement_rounds, place: rounds},
        )

    @contextlib.contextmanager
    def _database_for(self, publication: Publication) -> Iterator[LabDatabase | None]:
        """The database of the session, or one of the publication's own that allows enough connections. None: not to be run."""
        needed = publication.connections(full=self._options.full) + _SPARE_CONNECTIONS
        connecting = self._evidence.connecting
        limit = connecting.max_connections if connecting is not None else 0
        if self._database.postgres is not None and needed > limit:
            with (
                own_database(needed) as database,
                distance.at(database.url, self._options.round_trip_ms) as (database.url, _),
            ):
                yield database
        elif needed > limit:
            self._note(
                f"{publication.name} was skipped: it needs {needed} connections, and the database allows {limit}."
            )
            yield None
        elif self._database.postgres is None and not self._options.confirm(
            f"{publication.name} opens up to {needed} connections to the given database. Run it?"
        ):
            self._note(f"{publication.name} was skipped: it opens {needed} connections (--yes runs it)")
            yield None
        else:
            yield self._database

    # What is needed, and what is there

    def _check(self) -> None:
        """Checks that the options fit together, before anything is started or written. Raises LabError."""
        experiments, given = self._options.experiments, self._options.database_url
        own = [e.id for e in experiments if e.pgbouncer or e.memory_mb]
        if own and given is not None:
            raise LabError(f"{own[0]} needs the lab's own database: --database-url cannot be given")
        if self._options.round_trip_ms is not None and (own or self._options.distance_rounds):
            raise LabError(
                f"--db-rtt has no effect on {own[0] if own else distance.ID}"
                f"{'' if own else ', which runs all its distances'}: leave one of them out"
            )
        sizes = sorted({e.pgbouncer for e in experiments} - {0})
        if sizes:
            try:
                name = pgbouncer.version()
            except StackError as error:
                raise LabError(str(error)) from error
            self._note(
                f"{name} on the same machine, in transaction mode with SCRAM on both sides: {_or(sizes)} server connections."
            )

    @contextlib.contextmanager
    def _at_a_distance(self) -> Iterator[None]:
        """While inside, the servers reach the database through a delay, where one was asked for."""
        with distance.at(self._database.url, self._options.round_trip_ms) as (self._database.url, crossing):
            if crossing is not None:
                self._evidence = replace(self._evidence, crossing=crossing)
                self._note(crossing_text(crossing))
            yield

    def _know_database(self) -> None:
        database = self._database
        shown = dict(query(database.monitor_url, "SELECT name, setting FROM pg_settings WHERE name IN"
                           " ('server_version', 'max_connections', 'shared_buffers')"))  # fmt: skip
        buffers_mb = int(shown["shared_buffers"]) * 8 // 1024
        text = (
            f"PostgreSQL {shown['server_version']}, max_connections {shown['max_connections']}, "
            f"shared_buffers {buffers_mb} MB"
            + (", over TCP on loopback" if database.postgres else ", given by its URL")
        )
        connecting = measure_connecting(database.url)
        if connecting.authentication is not None:
            text += f", {connecting.authentication} authentication"
        self._evidence = replace(
            self._evidence, connecting=connecting, environment={**self._evidence.environment, "postgres": text}
        )
        if database.postgres is None:
            self._note("The CPU of the given database, and so that of other programs, was not measured.")

    def _allowed(self, experiment: Experiment) -> bool:
        if self._database.postgres is not None or experiment.strategy not in _EXHAUSTING:
            return True
        if self._options.confirm(f"{experiment.id} may use up the connections of the given database. Run it?"):
            return True
        self._note(f"{experiment.id} was skipped: it may use up the database's connections (--yes runs it)")
        return False

    # One experiment

    @contextlib.contextmanager
    def _database_of(self, experiment: Experiment) -> Iterator[LabDatabase]:
        """The database of the session, or one of the experiment's own where its memory is limited."""
        if not experiment.memory_mb:
            yield self._database
            return
        connections = experiment.servers * int(experiment.settings["DB_POOL_SIZE"])
        with limited_database(experiment.memory_mb, connections, self._note) as database:
            yield database

    def _servers(self, experiment: Experiment, url: str, log: Path) -> Servers:
        settings = {"DATABASE_URL": url, "DB_POOL": experiment.strategy, **experiment.settings}
        return Servers(service(), experiment.servers, settings, log)

    def _turn(self, turn: Sequence[Experiment]) -> None:
        """Runs experiments of one arrangement, one after the other, on the same servers. Raises Interrupted."""
        first = turn[0]
        with contextlib.ExitStack() as entered:
            database = entered.enter_context(self._database_of(first))
            postgres, bouncer = database.postgres, None
            if first.pgbouncer and postgres is not None:
                bouncer = entered.enter_context(PgBouncer(postgres, pool_size=first.pgbouncer))
            url = bouncer.url if bouncer else database.url
            servers = entered.enter_context(self._servers(first, url, self._folder / f"{first.id}.log"))
            if any(e.script is not None or e.path != "/health" for e in turn):
                nested = any("analytics" in (e.script or e.path) for e in self._options.experiments)
                database.seed(self._options.clicks if nested else 0)
            for experiment in turn:
                self._one(experiment, database, bouncer, servers)

    def _one(self, experiment: Experiment, database: LabDatabase, bouncer: PgBouncer | None, servers: Servers) -> None:
        """Runs one experiment once, adds it to the evidence, and writes its report. Raises Interrupted."""
        outcome, text, ended_by = self._under_load(experiment, database, bouncer, servers)
        rounds = dict(self._evidence.rounds)
        if outcome.report.periods:
            rounds[experiment.id] = (*rounds.get(experiment.id, ()), outcome)
        if earlier := self._evidence.outcomes.get(experiment.id):
            outcome = together(earlier, outcome)
            text = artillery_text.summary_text(outcome.report)
        outcomes = {**self._evidence.outcomes, experiment.id: outcome}
        self._evidence = replace(self._evidence, outcomes=self._sorted(outcomes), rounds=rounds)
        self._write_report(outcome, text)
        if ended_by is not None:
            raise Interrupted(ended_by)

    def _sorted(self, outcomes: dict[str, ExperimentResult]) -> dict[str, ExperimentResult]:
        """The outcomes in the order of the sources, in whichever order they were run."""
        return {e.id: outcomes[e.id] for e in self._options.experiments if e.id in outcomes}

    def _under_load(
        self, experiment: Experiment, database: LabDatabase, bouncer: PgBouncer | None, servers: Servers
    ) -> tuple[ExperimentResult, str, int | None]:
        """Loads the servers. Returns the result, the report as text, and the number of the signal that ended the load."""

        def cpu_s() -> tuple[float, float | None, float | None]:
            postgres = database.postgres
            return (
                servers.cpu_s(),
                cpu_of_tree(postgres.pid) if postgres else None,
                bouncer.cpu_s() if bouncer else None,
            )

        # A database with too little memory may not answer.
        counted = experiment.script is not None and not experiment.memory_mb
        clicks = database.clicks() if counted else None
        database.watch_memory()
        logged = servers.failures()
        before, others_before_s, watched_from = cpu_s(), _others_cpu_s(), time.monotonic()
        with BackendWatch(database.monitor_url) as watch:
            started = time.monotonic()
            run, text = self._load(experiment, servers)
            wall_s = time.monotonic() - started
        after, others_s, watched_s = cpu_s(), _others_cpu_s() - others_before_s, time.monotonic() - watched_from
        # The kernel counts CPU in ticks of 10 ms, so that a short experiment may come out beyond either end.
        others_share = min(1.0, max(0.0, others_s / (watched_s * (psutil.cpu_count() or 1))))
        samples = run.samples if isinstance(run, ClosedResult) else None
        outcome = ExperimentResult(
            experiment=experiment,
            report=run.report,
            ab=None if samples is None else AbReport.of(samples),
            samples=samples,
            wall_s=wall_s,
            peak_backends=watch.peak,
            servers_cpu_s=after[0] - before[0],
            database_cpu_s=_grown(before[1], after[1]),
            pgbouncer_cpu_s=_grown(before[2], after[2]),
            others_share=others_share if database.postgres else None,
            failures=servers.failures().since(logged),
            clicks_recorded=None if clicks is None else database.clicks() - clicks,
            unhonoured=unhonoured(PoolSettings.from_mapping({"DB_POOL": experiment.strategy, **experiment.settings})),
            memory_use=database.memory_use() if experiment.memory_mb else None,
            partial=run.signal is not None,
        )
        return outcome, text, run.signal

    def _load(self, experiment: Experiment, servers: Servers) -> tuple[ScriptRun | ClosedResult, str]:
        """Runs the load. Returns the run, and its report as text: Artillery's console, or its summary for an ab-like test."""
        sizes = self._options.sizes
        parts: list[str] = []
        console = Console(parts.append)
        if experiment.script is None:
            origin = Origin("http", "127.0.0.1", servers.port)
            workload = Workload(origin, experiment.path, sizes.requests, experiment.users, sizes.ab_s, timeout_s=120.0)
            run: ScriptRun | ClosedResult = run_ab(workload, self._live)
        else:
            phase = {
                "name": f"{ARRIVAL_RATE} new users a second",
                "duration": sizes.phase_s,
                "arrivalRate": ARRIVAL_RATE,
            }
            console.run_id(new_run_id())
            with as_file(files("loadgen.lab") / "scripts" / experiment.script) as path:
                run = run_script(local_script(str(path), servers.url, Path.cwd(), phase), console, self._live)
        console.summary(run.report)
        return run, "".join(parts)

    def _restart(self, experiment: Experiment) -> Restart:
        """Restarts the database, starts servers anew, and counts rows before and after."""
        database = self._database
        assert database.postgres is not None  # noqa: S101 - the caller looked
        before = database.rows()
        database.postgres.restart()
        with self._servers(experiment, database.url, self._folder / "restart.log") as servers:
            if not servers.answers("/health"):
                raise PartError("the servers do not answer after the restart of the database")
        return Restart(before, database.rows())

    # What is written

    def _write_report(self, outcome: ExperimentResult, text: str) -> None:
        out, name = self._options.out, outcome.experiment.id
        write_text(out / f"{name}.json", artillery_json.to_json(outcome.report) + "\n")
        write_text(out / f"{name}.txt", text)
        label = f"{name}: {outcome.experiment.title}"
        write_text(out / f"{name}.html", to_html([(label, outcome.report)], title=label))
        if outcome.ab is not None:
            write_text(out / f"{name}.ab.txt", apachebench.to_text(outcome.ab))

    def _write(self) -> None:
        out, evidence = self._options.out, self._evidence
        write_summaries(lab_page(evidence, in_folder=True), out, evidence.environment, self._options.settings())
        if drawn := answer_charts(evidence):
            write_text(out / "answer.svg", picture(drawn))
        if drawn := league.charts(evidence.league):
            write_text(out / "league.svg", picture(drawn))
        if charts := distance_charts(evidence.distance):
            write_text(out / "distance.svg", picture(charts))
        for publication in evidence.publications:
            write_text(out / f"{publication.name}.html", written(lab_page(evidence.about(publication)), "html"))

    def _note_and_say(self, text: str) -> None:
        self._note(text)
        self._say(text)

    def _note(self, text: str) -> None:
        if text not in self._evidence.notes:
            self._evidence = replace(self._evidence, notes=(*self._evidence.notes, text))


def _others_cpu_s() -> float:
    """CPU seconds that programs other than the lab, its servers and its own database have used so far."""
    return machine_cpu_s() - cpu_of_tree(os.getpid())


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in numbers)


def _notes(options: LabOptions) -> tuple[str, ...]:
    if not options.experiments:
        return ()
    sizes = options.sizes
    if sizes.ab_s is None:
        size = f"The published sizes: {sizes.requests} requests a test of ab, {sizes.phase_s} s of Artillery's load."
    else:
        size = (
            f"Briefer than published: a test of ab's ends after {decimal(sizes.ab_s)} s or {sizes.requests} requests, Artillery's"
            f" load lasts {sizes.phase_s} s at the published rate (--full runs the published sizes). Only what does not depend on"
            " the size is compared: rates, times and shares."
        )
    if sizes.rounds > 1:
        order = (
            f"The published experiments were run in {sizes.rounds} rounds, each in a random order (seed {options.seed}). Figures"
            " are of all rounds together; the lowest and highest round stand beside the median."
        )
    else:
        order = "Each experiment was run once, one after the other: what the machine did meanwhile is in its figures."
    return (size, order, f"Each link had {options.clicks} clicks before the nested object was read.")
