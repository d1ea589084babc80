"""Adds up what was noted of loans and requests, in slices of time. See watching.py."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from time import perf_counter_ns
from typing import TYPE_CHECKING

from poolbench.observed import (
    Ask,
    EngineSum,
    LoanKey,
    LoanSum,
    Observed,
    RequestSum,
    SampleKey,
    SampleSum,
    StatementKey,
    StatementSum,
)
from poolbench.repeats import Group, loop_times_ns

if TYPE_CHECKING:
    from poolbench.loans import Loan, Request, WatchedEngine

_SLICE_NS = 10_000_000_000
_SLICES = 6
_MOST_FINISHED = 100_000
_MOST_ASKS = 20_000
TEXT_LENGTH = 300
_WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|MERGE|LOCK|TRUNCATE|CREATE|ALTER|DROP)\b|\bFOR\s+(NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE
)


class Tally:
    """The sums of one process. `every`: of so many loans that got a connection, one is noted.

    Borrowers append what has ended to deques, each a single step in CPython; one thread alone adds up.
    """

    def __init__(self, process: int, every: int, slices: int | None = _SLICES) -> None:
        self._process, self.every = process, every
        self.slices: deque[Observed] = deque([Observed()], maxlen=slices)
        self._began_ns = perf_counter_ns()
        self._loans: deque[Loan] = deque()
        self._requests: deque[Request] = deque()

    def ended(self, loan: Loan) -> None:
        """A loan, or the wait for one, has ended."""
        if len(self._loans) < _MOST_FINISHED:
            self._loans.append(loan)
        else:
            self.slices[-1].dropped += 1

    def answered(self, request: Request) -> None:
        """A request has been answered."""
        if len(self._requests) < _MOST_FINISHED:
            self._requests.append(request)
        else:
            self.slices[-1].dropped += 1

    def add_up(self) -> None:
        """Add up what has ended since the last time."""
        now_ns = perf_counter_ns()
        if now_ns - self._began_ns >= _SLICE_NS and self.slices.maxlen != 1:
            self.slices.append(Observed())
            self._began_ns = now_ns
        into = self.slices[-1]
        for _ in range(len(self._loans)):
            self._add_loan(into, self._loans.popleft())
        for _ in range(len(self._requests)):
            request = self._requests.popleft()
            row = into.requests.setdefault(request.name, RequestSum())
            row.count += 1
            row.duration_ns += request.ended_ns - request.began_ns

    def _add_loan(self, into: Observed, loan: Loan) -> None:
        engine = loan.engine
        count_engine(into, engine)
        endpoint, place = loan.endpoint, str(loan.place or "")
        row = into.loans.setdefault(LoanKey(engine.key, endpoint, place), LoanSum())
        until_ns = loan.lent_ns or loan.ended_ns
        wait_ns = until_ns - loan.asked_ns - loan.connect_ns
        held_ns = loan.ended_ns - until_ns
        # Of those that got a connection, one in `every` is noted.
        weight = self.every if loan.lent_ns else 1
        row.count += weight * bool(loan.lent_ns)
        row.wait_ns += weight * wait_ns
        row.connect_ns += weight * loan.connect_ns
        row.held_ns += weight * held_ns
        row.timeouts += loan.refused == "timeout"
        row.refused += loan.refused == "refused"
        row.opened += weight * (loan.connect_ns > 0)
        if loan.outer is not None:
            row.nested += weight
            row.nested_ns += weight * (loan.ended_ns - loan.asked_ns)
        row.foreign += weight * loan.foreign
        row.adopted += weight * loan.adopted
        if self.every == 1 and len(into.asks) < _MOST_ASKS:
            into.asks.append(Ask(self._process, engine.key, loan.asked_ns, wait_ns, held_ns, bool(loan.lent_ns)))
        groups = loan.groups or {}
        loops_ns = loop_times_ns([Group.of(values, has_written=writes(key[0])) for key, values in groups.items()])
        for (key, values), loop_ns in zip(groups.items(), loops_ns, strict=True):
            each, count, duration_ns, rows, _first_ns, _last_ns, slow, slow_ns, fastest_ns = values
            name = StatementKey(endpoint, str(each or ""), _short(key[0]))
            statement = into.statements.setdefault(name, StatementSum())
            statement.fastest_ns = min(statement.fastest_ns, fastest_ns) if statement.count else fastest_ns
            statement.count += weight * count
            statement.duration_ns += weight * duration_ns
            statement.rows += weight * rows
            statement.slow += weight * slow
            statement.slow_ns += weight * slow_ns
            statement.groups += weight
            if loop_ns:
                statement.repeated += weight * count
                statement.repeated_groups += weight
                statement.repeated_ns += weight * round(loop_ns)


@lru_cache(maxsize=4096)
def _short(statement: str) -> str:
    return " ".join(statement.split())[:TEXT_LENGTH]


def count_engine(into: Observed, engine: WatchedEngine) -> None:
    """Note what is known of an engine."""
    row = into.engines.setdefault(engine.key, EngineSum())
    row.pool, row.size, row.overflow = engine.pool, engine.size, engine.overflow
    row.processes = max(row.processes, 1)
    if not engine.is_counted:
        engine.is_counted = True
        row.made += 1
        row.making_ns += engine.making_ns
        row.made_in_requests += bool(engine.endpoint)
        row.endpoint = engine.endpoint or row.endpoint


def add_sample(samples: dict[SampleKey, SampleSum], key: SampleKey, own_ns: int, blamed_ns: int) -> None:
    """Add the time of one look to what was seen in the same state."""
    row = samples.setdefault(key, SampleSum())
    row.own_ns += own_ns
    row.blamed_ns += blamed_ns
    row.looks += 1


_known_writes: dict[str, bool] = {}


def writes(statement: str) -> bool:
    """Whether a statement changes or locks rows."""
    known = _known_writes.get(statement)
    if known is None:
        if len(_known_writes) > 10_000:
            _known_writes.clear()
        known = _known_writes[statement] = _WRITES.search(statement) is not None
    return known
