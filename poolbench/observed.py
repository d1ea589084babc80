"""What was seen of an application's loans, statements and requests: sums that several processes can add up. Pure.

All durations are in ns. A place is `file:line` of the application, "" where none is known; an endpoint is `METHOD /path`,
"" for what happened outside a request. An engine's key is the place where it was made, its database and a number, with tabs
between.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

MANY_ROWS = 1000
"""A statement that returns or changes this many rows may take its time."""
SLOW_NS, QUICK_NS = 80_000_000, 40_000_000
"""A statement that takes this long without handling many rows is a slow one; one that takes less than the second is quick."""
REPEATS = 5
"""A statement that one loan runs this many times from one place is repeated."""
REPEATED_LOANS = 10
"""So is one that this many loans of one request run from one place, and one that changes a single row this many times."""
FEW_ROWS = 50
"""A repeated statement fetches one object, or its few parts, each time; a batch fetches more rows than this."""
OTHERS = "(others)"
"""Stands for the statements, endpoints and engines beyond those that are told apart."""


Life = tuple[int, int]
"""When a process began, and when it ended or was last heard of, in ns of a clock that all processes of a machine share."""


@dataclass(slots=True)
class RequestSum:
    """Requests of one endpoint."""

    count: int = 0
    duration_ns: int = 0


@dataclass(slots=True)
class LoanSum:
    """Loans from one place."""

    count: int = 0
    wait_ns: int = 0
    connect_ns: int = 0
    held_ns: int = 0
    timeouts: int = 0
    """Times that no connection came in time, or that the pool refused."""
    refused: int = 0
    """Times that the server had no connection to spare."""
    opened: int = 0
    """Loans for which a connection was opened."""
    waiting: int = 0
    """Those who still wait for a connection."""
    nested: int = 0
    """Loans asked for while the borrower held another of the same engine."""
    nested_ns: int = 0
    """Waiting and holding of those."""
    foreign: int = 0
    """Loans of a connection that another process had opened."""
    adopted: int = 0
    """Loans that a later request used."""
    by_maker: int = 0
    """Loans of an engine that the same request had made."""


@dataclass(slots=True)
class StatementSum:
    """Executions of one statement from one place. A group is what one loan executed of it."""

    count: int = 0
    duration_ns: int = 0
    rows: int = 0
    fastest_ns: int = 0
    slow: int = 0
    slow_ns: int = 0
    quick: int = 0
    groups: int = 0
    repeated: int = 0
    """Executions in groups that repeat a statement for a few rows each."""
    repeated_groups: int = 0
    repeated_ns: int = 0
    """What the loops that these groups are part of took for them. See repeats.py."""
    apart: int = 0
    """Executions by requests that repeat a statement, each time in another loan."""
    apart_requests: int = 0
    apart_ns: int = 0
    """How long those loans were held for it."""
    apart_changes: int = 0
    """Those of these executions that changed a row."""
    unknown: int = 0
    """Executions that say nothing of their rows, or were an executemany(). See repeats.py."""


@dataclass(slots=True)
class SampleSum:
    """Time that connections were seen in one state, and time that others waited for a connection meanwhile."""

    own_ns: int = 0
    blamed_ns: int = 0
    looks: int = 0


@dataclass(slots=True)
class EngineSum:
    """One engine, or all those made at one place. `size` and `overflow` are those of each; -1: no limit."""

    made: int = 0
    made_in_requests: int = 0
    making_ns: int = 0
    endpoint: str = ""
    pool: str = ""
    size: int = 0
    overflow: int = 0
    processes: int = 0
    """The most processes that had it at one time."""
    lives: list[Life] = field(default_factory=list)
    """Those of the processes that had it, where they are known."""


class LoanKey(NamedTuple):
    """Whose loans are added up."""

    engine: str
    endpoint: str
    place: str


class StatementKey(NamedTuple):
    """Whose executions are added up."""

    endpoint: str
    place: str
    text: str


class SampleKey(NamedTuple):
    """Whose time is added up. `doing` is one of the states below, `wrote` whether the open transaction has written."""

    engine: str
    endpoint: str
    place: str
    doing: str
    wrote: bool


STATEMENT = "statement"
"""A statement is being executed, or its rows fetched."""
LIBRARY = "library"
"""Code of SQLAlchemy or of the driver runs."""
WORK = "work"
"""The application waits for something else: another service, a program, a thread, a file."""
COMPUTING = "computing"
"""The application computes."""
STREAMING = "computing, for a stream"
"""The application computes a part of an answer that is being sent as a stream."""
SLEEP = "sleep"
"""The application sleeps."""
CLIENT = "client"
"""The answer is being sent."""
LEAKED = "leaked"
"""The request, or the thread, that borrowed the connection has ended."""
LEFT_OPEN = "leaked, in transaction"
"""The same, and the transaction is open."""
NESTED = "nested"
"""The borrower waits for another connection."""
CLOSED = "closed"
"""Connections were closed here: by dispose(), invalidate() or detach(), as often as there were looks."""
CPU = "cpu"
"""The borrower could run, and waits for its turn."""


def made_at(engine: str) -> str | None:
    """The place where engines with this key were made; None where it is unknown."""
    return engine.partition("\t")[0] or None


class Ask(NamedTuple):
    """One request for a connection: when, how long it waited, how long it held the connection so far; served or not."""

    process: int
    engine: str
    asked_ns: int
    wait_ns: int
    held_ns: int
    is_served: bool
    has_ended: bool = True
    """False for a loan that lasted when this was written down. Those are known of the whole run, the others of its beginning."""


_Row = TypeVar("_Row")
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True)
class Observed:
    """Everything seen in one span of time, by one process or several."""

    requests: dict[str, RequestSum] = field(default_factory=dict)
    loans: dict[LoanKey, LoanSum] = field(default_factory=dict)
    statements: dict[StatementKey, StatementSum] = field(default_factory=dict)
    samples: dict[SampleKey, SampleSum] = field(default_factory=dict)
    engines: dict[str, EngineSum] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    dropped: int = 0
    """Loans and requests that were not counted, because they came too fast to be looked at."""

    worker_cpu: float | None = None
    """CPU that the busiest process has used, in cores; None: unknown."""

    fault: str = ""
    """Why a look at the connections failed; "": none did."""

    span_ns: int = 0
    """From the first request for a connection until this was written down; 0: unknown."""

    lives: list[Life] = field(default_factory=list)
    """Those of the processes that have seen this, where they are known."""

    def add(self, other: Observed) -> None:
        """Add up what another process, or another span of time, has seen."""
        add_up(self.requests, other.requests)
        add_up(self.loans, other.loans)
        add_up(self.statements, other.statements)
        add_up(self.samples, other.samples)
        for key, engine in list(other.engines.items()):
            known = self.engines.setdefault(key, EngineSum())
            known.made += engine.made
            known.made_in_requests += engine.made_in_requests
            known.making_ns += engine.making_ns
            known.lives += engine.lives
            known.processes = at_one_time(known.lives) or known.processes + engine.processes
            known.endpoint, known.pool = engine.endpoint or known.endpoint, engine.pool
            known.size, known.overflow = engine.size, engine.overflow
        self.asks += other.asks
        known_cpu = [cpu for cpu in (self.worker_cpu, other.worker_cpu) if cpu is not None]
        self.worker_cpu = max(known_cpu, default=None)
        self.dropped += other.dropped
        self.fault = self.fault or other.fault
        self.span_ns = max(self.span_ns, other.span_ns)
        self.lives += other.lives

    def to_json(self) -> dict[str, Any]:
        """As values for JSON."""
        found: dict[str, Any] = {
            "asks": [list(ask) for ask in self.asks],
            "dropped": self.dropped,
            "worker_cpu": self.worker_cpu,
            "fault": self.fault,
            "span_ns": self.span_ns,
            "lives": [list(life) for life in self.lives],
        }
        for name in ("requests", "loans", "statements", "samples", "engines"):
            rows: Mapping[Any, Any] = getattr(self, name)
            found[name] = [[key if isinstance(key, str) else list(key), asdict(row)] for key, row in rows.items()]
        return found

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Observed:
        """The inverse of `to_json`."""
        return cls(
            {key: RequestSum(**row) for key, row in values["requests"]},
            {LoanKey(*key): LoanSum(**row) for key, row in values["loans"]},
            {StatementKey(*key): StatementSum(**row) for key, row in values["statements"]},
            {SampleKey(*key): SampleSum(**row) for key, row in values["samples"]},
            {key: EngineSum(**{**row, "lives": _lives(row["lives"])}) for key, row in values["engines"]},
            [Ask(*ask) for ask in values["asks"]],
            values["dropped"],
            values["worker_cpu"],
            values["fault"],
            values["span_ns"],
            _lives(values["lives"]),
        )


def _lives(values: Iterable[Iterable[int]]) -> list[Life]:
    return [(begin, end) for begin, end in values]


def at_one_time(lives: Iterable[Life]) -> int:
    """The most of these lives that there were at one time: a worker and the one that replaces it are one."""
    alive = most = 0
    for _, change in sorted(event for begin, end in lives for event in ((begin, 1), (end, -1))):
        alive += change
        most = max(most, alive)
    return most


def total(parts: Iterable[Observed]) -> Observed:
    """Everything that several processes have seen."""
    whole = Observed()
    for part in parts:
        whole.add(part)
    return whole


def add_up(into: dict[_Key, _Row], rows: Mapping[_Key, _Row]) -> None:
    """Add sums of one kind up, by key. Those of `rows` stay as they are."""
    # Of a list: the rows of a process that is being watched grow meanwhile.
    for key, row in list(rows.items()):
        known = into.get(key)
        if known is None:
            into[key] = replace(row)  # type: ignore[type-var]
            continue
        for each in fields(row):  # type: ignore[arg-type]
            if each.name == "fastest_ns":
                known.fastest_ns = min(known.fastest_ns, row.fastest_ns)  # type: ignore[attr-defined]
                continue
            setattr(known, each.name, getattr(known, each.name) + getattr(row, each.name))
