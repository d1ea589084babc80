"""Measurements of the experiments, as values that claims are judged by and results are written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loadgen.lab.experiments import Experiment
from loadgen.lab.publication import Publication
from loadgen.lab.turns import Spread
from reports import names
from reports.answers import failed_share, good_answers
from reports.formats.apachebench import AbReport, AbSamples
from reports.model import Report
from reports.sketch import Sketch


@dataclass(frozen=True, slots=True)
class Failures:
    """What the servers logged: how many failed requests, by SQLSTATE or kind, and one of the lines as an example."""

    by_kind: Mapping[str, int] = field(default_factory=dict)
    example: str | None = None

    @property
    def too_many_clients(self) -> int:
        """Requests refused with SQLSTATE 53300."""
        return self.by_kind.get("53300", 0)

    def since(self, earlier: Failures) -> Failures:
        """Those that are not among the earlier ones of the same log."""
        kinds = dict(Counter(self.by_kind) - Counter(earlier.by_kind))
        return Failures(kinds, self.example if kinds else None)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """How a database with limited memory fared under one load."""

    limit_mb: float | None
    """Limit that was in force, in MB; None where no limit could be set."""
    peak_mb: float | None
    """Most memory in use at once by the kernel's count, page cache included; None where the kernel does not tell."""
    limit_hits: int | None
    """Allocations that met the limit, so that cache had to be given up first."""
    oom_kills: int | None
    """Processes killed because there was nothing to give up."""
    connections: int
    """Connections of the servers at the end of the load."""
    pss_mb: float
    """Proportional set size in MB, summed over all processes of the database with those connections open."""
    answers_afterwards: bool
    """Whether the database answered within 30 s of the end of the load."""


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """One experiment that was carried out."""

    experiment: Experiment
    report: Report
    ab: AbReport | None
    """ApacheBench's figures; None for an experiment with an Artillery script."""
    wall_s: float
    peak_backends: int
    """Most client backends seen in pg_stat_activity at once."""
    servers_cpu_s: float
    database_cpu_s: float | None
    """CPU seconds of the database; None where its processes are not on this machine."""
    failures: Failures
    clicks_recorded: int | None = None
    """Rows that were added to the clicks table."""
    unhonoured: tuple[str, ...] = ()
    """Settings that the strategy has no use for."""
    pgbouncer_cpu_s: float | None = None
    """CPU seconds of PgBouncer; None where there was none."""
    samples: AbSamples | None = None
    """Samples from which `ab` was computed."""
    memory_use: MemoryUse | None = None
    """Memory of a database with a limit; None for other databases."""
    others_share: float | None = None
    """Share of the machine's CPU that other programs used; None where the database's own CPU is not known."""
    partial: bool = False

    @property
    def title(self) -> str:
        """The experiment in words."""
        return self.experiment.title

    @property
    def requests(self) -> int:
        """Number of requests sent."""
        return self.report.aggregate.counters.get(names.REQUESTS, 0)

    @property
    def responses(self) -> int:
        """Number of answers of any status."""
        return self.report.aggregate.counters.get(names.RESPONSES, 0)

    def answers(self, status: int) -> int:
        """Number of answers of that status."""
        return self.report.aggregate.counters.get(f"http.codes.{status}", 0)

    @property
    def failed_share(self) -> float:
        """Share of the requests sent that got no good answer."""
        return failed_share(self.report.aggregate.counters)

    @property
    def good_per_second(self) -> float:
        """Good answers for each second of the test."""
        return good_answers(self.report.aggregate.counters) / self.wall_s if self.wall_s else 0.0

    @property
    def requests_per_second(self) -> float:
        """Requests a second as ab counts them, failed ones included; answers a second where a script made the load."""
        if self.ab is not None:
            return self.ab.requests_per_second or 0.0
        return self.responses / self.wall_s if self.wall_s else 0.0

    def cores(self, cpu_s: float | None) -> float | None:
        """CPU seconds of the test as cores kept busy; None where they are not known."""
        return cpu_s / self.wall_s if cpu_s is not None and self.wall_s else None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that connections cost the database, in MB.

    The proportional set size (PSS) shares each page among the processes that use it; its slope is the cost of one more.
    """

    per_backend_mb: float
    shared_mb: float
    """All shared memory, as SHOW shared_memory_size says."""
    base_mb: float
    """Private memory of the postmaster and its helper processes."""
    counts: tuple[int, int]
    """Numbers of connections between which the slope was taken."""

    def needed_mb(self, connections: int) -> float:
        """Memory needed for a number of warm connections: shared + base + connections x cost of one."""
        return self.shared_mb + self.base_mb + connections * self.per_backend_mb


@dataclass(frozen=True, slots=True)
class Connecting:
    """What opening a connection to the database takes, before there is any load."""

    ms: float
    """Median time to open one, in ms."""
    authentication: str | None
    """Method in force, such as "scram-sha-256" or "trust"; None where the database cannot tell (before PostgreSQL 16)."""
    max_connections: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Rows of links and clicks before and after the database and every server were restarted."""

    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fairness:
    """One strategy of C.fairness under one number of users, all rounds together. Times in ms; the server reports waits."""

    strategy: str
    users: int
    report: Report
    requests_per_second: float
    """Mean over the rounds of all requests a second."""
    total_ms: Sketch
    """Time from the start of a request to its last byte."""
    wait_ms: Sketch
    """Time a request waited for a connection, as the server's Server-Timing says."""
    served: tuple[int, ...]
    """Number of answers to each user of each round, within the round's time."""
    rounds: tuple[Report, ...] = ()
    """The report of each round."""

    @property
    def jain(self) -> float:
        """Jain's index of the users' answers: 1 if all n users got the same number, 1/n if one got everything."""
        squares = sum(n * n for n in self.served)
        return sum(self.served) ** 2 / (len(self.served) * squares) if squares else 0.0

    @property
    def unserved(self) -> int:
        """Number of users who got no answer in their round."""
        return sum(not n for n in self.served)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Time of a round trip to the database in ms, medians of `select 1`; measured by `distance.calibrate`."""

    direct_ms: float
    through_ms: Mapping[float, float]
    """Time through the delay process, by the delay asked for in ms; 0 is among them."""

    @property
    def added_ms(self) -> float:
        """Time that the delay process adds by itself."""
        return self.through_ms[0.0] - self.direct_ms


@dataclass(frozen=True, slots=True)
class Distance:
    """One arrangement of D.rtt with one number of users and one distance to the database, all rounds together."""

    arrangement: str
    users: int
    round_trip_ms: float
    """Round trip to the database as asked for, in ms."""
    report: Report
    requests_per_second: float
    """Mean over the rounds of all requests a second, failed ones included."""
    total_ms: Sketch
    """Time from the start of a request to its last byte."""
    rounds: tuple[float, ...] = ()
    """Good answers a second of each round."""

    @property
    def failed_share(self) -> float:
        """Share of the requests sent that got no good answer."""
        return failed_share(self.report.aggregate.counters)

    @property
    def good_per_second(self) -> float:
        """Good answers a second."""
        return self.requests_per_second * (1 - self.failed_share)

    @property
    def spread(self) -> Spread | None:
        """Good answers a second over the rounds; None where there was only one."""
        return Spread.of(self.rounds) if len(self.rounds) > 1 else None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One experiment of a publication that is data: its figures by name, medians where it was run in rounds."""

    title: str
    figures: Mapping[str, float]
    others_share: float | None = None
    """Share of the machine's CPU that other programs used; None where the database's own CPU is not known."""
    partial: bool = False
    """Whether it failed, or was interrupted, in one of its rounds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a session measured; what was not measured is absent."""

    outcomes: Mapping[str, ExperimentResult] = field(default_factory=dict)
    """Each experiment by its id, all its rounds together."""
    memory: Memory | None = None
    restart: Restart | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences a reader must know to compare: sizes cut short, settings without effect, what was skipped and why."""
    fairness: tuple[Fairness, ...] = ()
    """Cells of C.fairness; empty where it was not run."""
    league: Mapping[tuple[str, str, str], Mapping[str, float]] = field(default_factory=dict)
    """Figures of C.league by mode, turn and pool (see league.py); empty where it was not run."""
    distance: tuple[Distance, ...] = ()
    """Cells of D.rtt; empty where it was not run."""
    crossing: Crossing | None = None
    """Cost of a round trip; None where no distance was put in."""
    connecting: Connecting | None = None
    partial: bool = False
    rounds: Mapping[str, tuple[ExperimentResult, ...]] = field(default_factory=dict)
    """Each round of the experiments that were run more than once, by their ids."""
    publications: tuple[Publication, ...] = ()
    """Publications that are data, of which an experiment was run."""
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    """Their experiments by publication and name (`hikaricp-spike.fair`), all rounds together."""
    measurement_rounds: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)
    """Each round of them."""

    @property
    def is_measured(self) -> bool:
        """Whether there is anything to judge or to show."""
        return bool(self.outcomes or self.fairness or self.league or self.distance or self.measurements)

    def about(self, publication: Publication) -> Evidence:
        """What belongs to one publication that is data."""
        name = publication.name
        only = f"{name}."
        return Evidence(
            environment=self.environment,
            notes=tuple(note for note in self.notes if note.startswith((f"{name}:", f"{name},", f"{name} was "))),
            connecting=self.connecting,
            partial=self.partial,
            publications=(publication,),
            measurements={place: found for place, found in self.measurements.items() if place.startswith(only)},
            measurement_rounds={
                place: found for place, found in self.measurement_rounds.items() if place.startswith(only)
            },
        )

    def run_of(self, experiment: str) -> ExperimentResult | Measurement | None:
        """What is known of an experiment, of whichever kind; None where it was not run."""
        return self.outcomes.get(experiment) or self.measurements.get(experiment)

    def of_each_round(self, experiments: Collection[str]) -> list[Evidence]:
        """The same evidence with these experiments as they were in each round; empty where they had fewer than two each."""
        if any(key in self.measurements for key in experiments):
            return self._measured_rounds(experiments)
        known = [key for key in experiments if key in self.outcomes]
        count = min((len(self.rounds.get(key, ())) for key in known), default=0)
        if count < 2:
            return []
        return [
            replace(self, outcomes={**self.outcomes, **{key: self.rounds[key][i] for key in known}}, rounds={})
            for i in range(count)
        ]

    def _measured_rounds(self, experiments: Collection[str]) -> list[Evidence]:
        """As `of_each_round`, for experiments of publications that are data."""
        count = min(len(self.measurement_rounds.get(key, ())) for key in experiments)
        if count < 2:
            return []
        every = self.measurement_rounds
        return [
            replace(self, measurements={**self.measurements, **{key: every[key][i] for key in experiments}})
            for i in range(count)
        ]

    def spread(self, experiment: str, figure: Callable[[ExperimentResult], float | None]) -> Spread | None:
        """A figure of an experiment over its rounds; None where a round does not have it."""
        values = [figure(run) for run in self.rounds.get(experiment) or (self.outcomes[experiment],)]
        known = [value for value in values if value is not None]
        return Spread.of(known) if len(known) == len(values) else None
