"""Adds up what was noted of loans and requests, in slices of time. See watching.py."""

from __future__ import annotations

import _thread
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from poolbench.native import native
from poolbench.observed import (
    OTHERS,
    REPEATS,
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
from poolbench.repeats import Executed, Executions, Group, Text, loop_times_ns
from poolbench.shares import LOAN_COST

if TYPE_CHECKING:
    from poolbench.loans import Loan, Request, WatchedEngine

_SLICE_NS = 10_000_000_000
_SLICES = 6
_MOST_FINISHED = 10_000
"""Loans and requests that wait to be added up; what comes faster is dropped, and the diagnosis says how many."""
_MOST_ASKS = 20_000
_MOST_ROWS = 2000
"""Rows of each kind in a slice; what else is seen is added up in one row for all others."""
_OTHER_LOANS, _OTHER_STATEMENTS = LoanKey(OTHERS, "", ""), StatementKey("", "", OTHERS)
_MOST_TEXTS = 4000
"""When the first texts of more statements by place than this are remembered, they are forgotten."""
_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


class Tally:
    """The sums of one process: of the last minute, or of all the time if it `keeps_all`, with each request for a connection.

    Borrowers append what has ended to deques, each a single step in CPython; one thread alone adds up.
    """

    def __init__(self, process: int, *, keeps_all: bool) -> None:
        self._process, self._keeps_all = process, keeps_all
        self._slices: deque[tuple[int, Observed]] = deque([(perf_counter_ns(), Observed())], maxlen=_SLICES)
        self._loans: deque[Loan] = deque()
        # While nothing is lent, nobody adds up: a service that watches itself then remembers the latest requests only.
        self._requests: deque[Request] = deque(maxlen=None if keeps_all else _MOST_FINISHED)
        self.counted: dict[str, list[int]] = {}
        """By endpoint: number and time of the requests of which nothing else is added up, and how much of both has been."""
        self._executed: dict[Request, Executed] = {}
        # By place and `Text.number`, the beginning of the first such text.
        self._texts: dict[tuple[str, int], str] = {}
        self.has_room = True
        """Whether the times of another loan are kept: those of the first 20,000 are."""
        # Plain tuples of numbers, which the garbage collector does not look at again and again.
        self.kept: list[tuple[str, int, int, int, bool]] = []
        """The times of loans: engine, when it was asked for, for how long it waited and was held, and that it was served."""
        self._costs: Counter[str] = Counter()
        self._noted = 0
        self._served: Counter[str] = Counter()
        self._turn = native(_thread, "allocate_lock")()

    def anew(self) -> Tally:
        """A tally of what comes next. It knows the engines of this one, none of which has been made since."""
        self.add_up()
        after = Tally(self._process, keeps_all=self._keeps_all)
        for part in self.parts():
            for key, row in part.engines.items():
                after.current.engines[key] = replace(row, made=0, made_in_requests=0, making_ns=0)
        return after

    def ended(self, loan: Loan) -> None:
        """A loan, or the wait for one, has ended."""
        if len(self._loans) < _MOST_FINISHED:
            self._loans.append(loan)
        else:
            self._slices[-1][1].dropped += loan.weight

    def answered(self, request: Request) -> None:
        """A request has been answered."""
        if not self._keeps_all or len(self._requests) < _MOST_FINISHED:
            self._requests.append(request)
        else:
            self._slices[-1][1].dropped += 1

    def row_of(self, endpoint: str) -> list[int]:
        """The row in `counted` of an endpoint that has none so far."""
        return self.counted.setdefault(endpoint if len(self.counted) < _MOST_ROWS else OTHERS, [0, 0, 0, 0])

    def asks(self) -> list[Ask]:
        """The requests for a connection whose times were kept."""
        return [Ask(self._process, *each) for each in list(self.kept)]

    def taken_costs(self) -> tuple[Counter[str], Counter[str]]:
        """By endpoint since the last call, what noting all of its requests would have cost, and their number; see
        `Shares.spend`.
        """
        taken = self._costs, self._served
        self._costs, self._served = Counter(), Counter()
        return taken

    def taken_noted(self) -> int:
        """What was noted in full and has been added up since the last call, in units of a statement."""
        noted, self._noted = self._noted, 0
        return noted

    @property
    def span_ns(self) -> int:
        """The time of which the sums are, at most."""
        return sys.maxsize if self._keeps_all else _SLICES * _SLICE_NS

    @property
    def current(self) -> Observed:
        """What is being added up now."""
        return self._slices[-1][1]

    def parts(self) -> list[Observed]:
        """What has been added up in the last minute."""
        since_ns = perf_counter_ns() - _SLICES * _SLICE_NS
        return [part for began_ns, part in list(self._slices) if self._keeps_all or began_ns >= since_ns]

    def add_up(self) -> int:
        """Add up what has ended since the last time. Returns how many loans and requests; 0 if another thread is at it."""
        if not self._turn.acquire(False):
            return 0
        try:
            return self._add_up()
        finally:
            self._turn.release()

    def _add_up(self) -> int:
        now_ns = perf_counter_ns()
        if not self._keeps_all and now_ns - self._slices[-1][0] >= _SLICE_NS:
            self._slices.append((now_ns, Observed()))
        self.has_room = len(self.kept) < _MOST_ASKS
        # In this order: a request is counted after all of its loans.
        into, requests, loans = self.current, len(self._requests), len(self._loans)
        if len(self._texts) >= _MOST_TEXTS:
            self._texts.clear()
        for _ in range(loans):
            self._add_loan(into, self._loans.popleft())
        for _ in range(requests):
            request = self._requests.popleft()
            if not self._keeps_all and now_ns - request.ended_ns > _SLICES * _SLICE_NS:
                continue
            name = request.name
            row = into.requests.get(name) or _row(into.requests, name, OTHERS, RequestSum)
            row.count += 1
            row.duration_ns += request.ended_ns - request.began_ns
            if self._keeps_all:
                self._served[_drawn_as(request)] += 1
            if request.weight != 0:
                request.is_counted = True
                executed = self._executed.pop(request, None)
                if executed is not None:
                    _add_repeated(into, request, executed)
        return loans + requests + self._add_counted(into)

    def _add_counted(self, into: Observed) -> int:
        counted = 0
        for name, row in list(self.counted.items()):
            count, duration_ns, count_before, duration_before_ns = row
            if count > count_before:
                found = _row(into.requests, name, OTHERS, RequestSum)
                found.count += count - count_before
                found.duration_ns += duration_ns - duration_before_ns
                self._served[name] += count - count_before
                counted += count - count_before
                row[2], row[3] = count, duration_ns
        return counted

    def _add_loan(self, into: Observed, loan: Loan) -> None:
        engine = loan.engine
        count_engine(into, engine)
        key = loan_key(loan)
        endpoint = key.endpoint
        row = into.loans.get(key) or _row(into.loans, key, _OTHER_LOANS, LoanSum)
        until_ns = loan.lent_ns or loan.ended_ns
        wait_ns = until_ns - loan.asked_ns - loan.connect_ns
        held_ns = loan.ended_ns - until_ns
        # All that got no connection are noted.
        weight = loan.weight if loan.lent_ns else 1
        if self._keeps_all:
            executions = 0 if loan.groups is None else sum([group[1] for group in loan.groups.values()])
            drawn_as = endpoint if loan.request is None else _drawn_as(loan.request)
            cost = LOAN_COST + executions
            self._noted += cost
            self._costs[drawn_as] += weight * cost
            if loan.request is None:
                self._served[endpoint] += weight
        row.wait_ns += weight * wait_ns
        row.held_ns += weight * held_ns
        if loan.lent_ns:
            row.count += weight
        else:
            row.timeouts += loan.refused == "timeout"
            row.refused += loan.refused == "refused"
        if loan.has_opened:
            row.connect_ns += weight * loan.connect_ns
            row.opened += weight
        if loan.outer is not None:
            # Known only of loans that were drawn, also where no connection came.
            row.nested += loan.weight
            row.nested_ns += loan.weight * (loan.ended_ns - loan.asked_ns)
        if loan.foreign:
            row.foreign += weight
        if loan.adopted:
            row.adopted += weight
        if loan.is_by_maker:
            row.by_maker += weight
        if self._keeps_all and self.has_room:
            self.kept.append((engine.key, loan.asked_ns, wait_ns, held_ns, bool(loan.lent_ns)))
        if loan.groups is not None:
            self._add_groups(into, endpoint, loan, loan.groups, held_ns)

    def _add_groups(
        self, into: Observed, endpoint: str, loan: Loan, noted: Mapping[Any, Sequence[Any]], held_ns: int
    ) -> None:
        """Add the statements of a loan, of which `noted` are the groups."""
        groups: dict[tuple[str, int], Group] = {}
        for (statement, _, _), values in noted.items():
            text = Text.of(statement)
            key = str(values[0] or ""), text.number
            group = Group._make((*values[1:], text.has_written, text.has_changed, text.fixed))
            known = groups.get(key)
            groups[key] = group if known is None else known.plus(group)
            if key not in self._texts:
                self._texts[key] = text.beginning
        executed = [((key[0], self._texts[key]), group) for key, group in groups.items()]
        loops_ns: Sequence[float] = [0.0] * len(groups)
        # A connection that many requests used has executed the statements of each of them: that is no loop.
        if not loan.adopted:
            if any(group.executions >= REPEATS for group in groups.values()):
                loops_ns = loop_times_ns(list(groups.values()))
            # Where not all loans are noted, a request's are not known.
            if loan.request is not None and self._keeps_all:
                self._add_apart(loan.request, executed, held_ns)
        _add_statements(into, endpoint, executed, loops_ns, loan.weight if loan.lent_ns else 1)

    def _add_apart(self, request: Request, executed: Executions, held_ns: int) -> None:
        # A loan that ends after its request, such as a leak, says nothing of it any more.
        if request.is_counted:
            return
        known = self._executed.get(request)
        if known is None:
            if len(self._executed) >= _MOST_FINISHED:
                # The oldest: requests that were dropped are never added up.
                del self._executed[next(iter(self._executed))]
            known = self._executed[request] = Executed()
        known.add(executed, held_ns)


def loan_key(loan: Loan) -> LoanKey:
    """The row in which a loan is added up."""
    return LoanKey(loan.engine.key, loan.endpoint, str(loan.place or ""))


def _drawn_as(request: Request) -> str:
    """The endpoint as which a request was drawn; its name where none was."""
    return request.name if request.drawn_as is None else request.drawn_as


def _add_repeated(into: Observed, request: Request, executed: Executed) -> None:
    """Add the statements that one request, which is noted in full, has repeated in loan after loan."""
    weight = request.weight or 1
    for (place, text), each in executed.repeated():
        row = _row(into.statements, StatementKey(request.name, place, text), _OTHER_STATEMENTS, StatementSum)
        row.apart += weight * each.executions
        row.apart_requests += weight
        row.apart_ns += weight * round(each.held_ns)
        row.apart_changes += weight * each.executions * each.has_changed


def _add_statements(
    into: Observed, endpoint: str, executed: Executions, loops_ns: Sequence[float], weight: int
) -> None:
    """Add what a loan has executed. `loops_ns`: as of `loop_times_ns`, of each group."""
    for (at, group), loop_ns in zip(executed, loops_ns, strict=True):
        statement = _row(into.statements, StatementKey(endpoint, *at), _OTHER_STATEMENTS, StatementSum)
        fastest_ns = group.fastest_ns
        statement.fastest_ns = min(statement.fastest_ns, fastest_ns) if statement.count else fastest_ns
        statement.count += weight * group.executions
        statement.duration_ns += weight * group.duration_ns
        statement.rows += weight * group.rows
        statement.slow += weight * group.slow
        statement.slow_ns += weight * group.slow_ns
        statement.quick += weight * group.quick
        statement.unknown += weight * group.unknown
        statement.groups += weight
        if loop_ns:
            statement.repeated += weight * group.executions
            statement.repeated_groups += weight
            statement.repeated_ns += weight * round(loop_ns)


def _row(rows: dict[_Key, _Row], key: _Key, rest: _Key, kind: type[_Row]) -> _Row:
    """The row of a key; of `rest` if there are too many rows already."""
    row = rows.get(key)
    if row is None:
        if len(rows) >= _MOST_ROWS:
            key = rest
            row = rows.get(rest)
        if row is None:
            row = rows[key] = kind()
    return row


def count_engine(into: Observed, engine: WatchedEngine) -> None:
    """Note what is known of an engine."""
    row = into.engines.get(engine.key)
    if row is None:
        row = _row(into.engines, engine.key, OTHERS, EngineSum)
        row.pool, row.size, row.overflow, row.processes = engine.pool, engine.size, engine.overflow, 1
    if not engine.is_counted:
        engine.is_counted = True
        row.made += 1
        row.making_ns += engine.making_ns
        row.made_in_requests += bool(engine.endpoint)
        row.endpoint = engine.endpoint or row.endpoint


def add_sample(samples: dict[SampleKey, SampleSum], key: SampleKey, own_ns: int, blamed_ns: int) -> None:
    """Add the time of one look to what was seen in the same state."""
    row = _row(samples, key, SampleKey(OTHERS, "", "", key.doing, False), SampleSum)
    row.own_ns += own_ns
    row.blamed_ns += blamed_ns
    row.looks += 1
