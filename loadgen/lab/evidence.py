"""What the experiments gave, as values: what claims are judged by and summaries written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.lab.experiments import Experiment
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


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a limited database came to under one load."""

    limit_mb: float | None
    """None where no limit could be set."""
    peak_mb: float | None
    """Most at once by the kernel's count, page cache included; None where it does not tell."""
    limit_hits: int | None
    """Allocations that met the limit, so that cache had to be given up first."""
    oom_kills: int | None
    """Processes killed because there was nothing to give up."""
    connections: int
    """Of the servers, at the end of the load."""
    pss_mb: float
    """Summed over all processes of the database, with those connections open."""
    answers_afterwards: bool
    """Whether the database answered within 30 s of the end of the load."""


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """One experiment, done."""

    experiment: Experiment
    report: Report
    ab: AbReport | None
    """Of an ab-like test."""
    wall_s: float
    peak_backends: int
    """Most client backends seen in pg_stat_activity at once."""
    servers_cpu_s: float
    database_cpu_s: float | None
    """None where the database's processes are not on this machine."""
    failures: Failures
    clicks_recorded: int | None = None
    """Rows that were added to the clicks table."""
    unhonoured: tuple[str, ...] = ()
    """Settings that the strategy has no use for."""
    pgbouncer_cpu_s: float | None = None
    """None where no PgBouncer was in between."""
    samples: AbSamples | None = None
    """What `ab` is made of."""
    memory_use: MemoryUse | None = None
    """Of a database with a limit."""
    partial: bool = False

    @property
    def requests(self) -> int:
        """Requests sent."""
        return self.report.aggregate.counters.get("http.requests", 0)

    @property
    def responses(self) -> int:
        """Answers of any status."""
        return self.report.aggregate.counters.get("http.responses", 0)

    def answers(self, status: int) -> int:
        """Answers of that status."""
        return self.report.aggregate.counters.get(f"http.codes.{status}", 0)

    @property
    def failed_share(self) -> float:
        """Share of the requests sent that got no good answer."""
        return failed_share(self.report.aggregate.counters)

    @property
    def good_per_second(self) -> float:
        """Good answers for each second of the test."""
        return good_answers(self.report.aggregate.counters) / self.wall_s if self.wall_s else 0.0

    def cores(self, cpu_s: float | None) -> float | None:
        """CPU seconds of the test as cores kept busy; None where they are not known."""
        return cpu_s / self.wall_s if cpu_s is not None and self.wall_s else None


@dataclass(frozen=True, slots=True)
class Memory:
    """What connections cost the database, in MB. PSS shares each page among its users; its slope is the cost of one more."""

    per_backend_mb: float
    shared_mb: float
    """SHOW shared_memory_size: buffers and all."""
    base_mb: float
    """Private memory of the postmaster and its helpers."""
    counts: tuple[int, int]
    """Numbers of connections between which the slope was taken."""

    def needed_mb(self, connections: int) -> float:
        """For so many warm connections: shared + base + connections x cost of one."""
        return self.shared_mb + self.base_mb + connections * self.per_backend_mb


@dataclass(frozen=True, slots=True)
class Restart:
    """Rows of links and clicks before and after the database and every server were restarted."""

    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fairness:
    """One strategy of C.fairness under so many users, all rounds together. Times in ms; waits are the server's own."""

    strategy: str
    users: int
    report: Report
    requests_per_second: float
    """Mean over the rounds."""
    total_ms: Sketch
    """Started to last byte."""
    wait_ms: Sketch
    """Waiting for a connection, as the server's Server-Timing says."""
    served: tuple[int, ...]
    """Answers to each user of each round, within the round's time."""

    @property
    def jain(self) -> float:
        """Jain's index of the users' answers: 1 if all got the same number, 1/n if one got everything."""
        squares = sum(n * n for n in self.served)
        return sum(self.served) ** 2 / (len(self.served) * squares) if squares else 0.0

    @property
    def unserved(self) -> int:
        """Users without a single answer in their round."""
        return sum(not n for n in self.served)


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a round trip to the database costs, in ms, medians of `select 1`: see `distance.calibrate`."""

    direct_ms: float
    through_ms: Mapping[float, float]
    """Through the delay process, by the delay asked for in ms; 0 is among them."""

    @property
    def added_ms(self) -> float:
        """What the process adds of its own."""
        return self.through_ms[0.0] - self.direct_ms


@dataclass(frozen=True, slots=True)
class Distance:
    """One arrangement of D.rtt under so many users with the database so far away, all rounds together."""

    arrangement: str
    users: int
    round_trip_ms: float
    """As asked for."""
    report: Report
    requests_per_second: float
    """Mean over the rounds, failed requests included."""
    total_ms: Sketch
    """Started to last byte."""

    @property
    def failed_share(self) -> float:
        """Share of the requests sent that got no good answer."""
        return failed_share(self.report.aggregate.counters)

    @property
    def good_per_second(self) -> float:
        """Good answers a second."""
        return self.requests_per_second * (1 - self.failed_share)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything measured. What was not is absent."""

    outcomes: Mapping[str, ExperimentResult] = field(default_factory=dict)
    memory: Memory | None = None
    restart: Restart | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader must know to compare: sizes cut short, settings without effect, what was skipped and why."""
    fairness: tuple[Fairness, ...] = ()
    """Cells of C.fairness, where it was run."""
    distance: tuple[Distance, ...] = ()
    """Cells of D.rtt, where it was run."""
    crossing: Crossing | None = None
    """What a round trip costs, where a distance was put in."""
    partial: bool = False
