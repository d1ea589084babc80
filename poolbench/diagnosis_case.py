"""What all findings of a diagnosis follow from: sums over what was seen, and shares of all requests' time. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf

from poolbench import observed as seen
from poolbench.loans import DRIVER
from poolbench.observed import EngineSum, LoanSum, Observed, SampleSum, StatementKey, StatementSum, add_up
from poolbench.repeats import TEXT_LENGTH
from poolbench.surroundings import Server, statement_key, without_values

LEAST_SHARE = 0.03
"""What costs less than this is no finding, unless it is wrong in itself."""
MOST_PER_CORE = 8
"""A database with more active connections than this for each core only has them take turns."""
_MADE_AGAIN, _LOANS_BY_MAKER = 3, 0.1
"""Engines that requests made are made again and again if there are this many for each process, and if this part of their loans
or more is the very request's that made the engine: not where each process, or each tenant, has one that it keeps."""
_WITHOUT_POOL = {"NullPool", "Null", DRIVER, ""}
LEAST_LOANS = 10
"""Of fewer loans, nothing is said that could be chance."""
LEAST_LOOKS = 3
"""What fewer looks have seen may be chance."""
LEAST_NS = 5_000_000
"""Work or sleep of less than this per loan is ordinary."""
_ACTIVE_OF_MANY, _MANY = 6, 40
"""So does one with this many for each core, where pools may open this many."""

_CUT = re.compile(r",?(?:%\(?\w*\)?|:+\w*|'[^']*)?$")
"""A value or a type at the end of a text that is incomplete."""


def alike(statements: Mapping[StatementKey, StatementSum]) -> dict[StatementKey, StatementSum]:
    """The sums of statements, where those of one endpoint and place that differ only in the values in their texts are one.

    It has the first text: another process, or another time, has seen another one first.
    """
    at_place = Counter(key[:2] for key in statements)
    first: dict[tuple[str, str, str], StatementKey] = {}
    found: dict[StatementKey, StatementSum] = {}
    for key, row in statements.items():
        known = key
        if at_place[key[:2]] > 1:
            rest = without_values(key.text)
            rest = _CUT.sub("", rest) if len(key.text) >= TEXT_LENGTH else rest
            known = first.setdefault((key.endpoint, key.place, rest), key)
        add_up(found, {known: row})
    return found


def _is_among(known: Sequence[str], key: str) -> bool:
    """Whether a sorted sequence has this key."""
    at = bisect_left(known, key)
    return at < len(known) and known[at] == key


class Case:
    """The figures from which all findings follow."""

    def __init__(self, observed: Observed, server: Server) -> None:
        self.observed, self.server = observed, server
        loans = observed.loans.values()
        self.wait_ns = sum(row.wait_ns for row in loans)
        requests_ns = sum(row.duration_ns for row in observed.requests.values())
        asked_ns = sum(row.wait_ns + row.connect_ns + row.held_ns for row in loans)
        self.total_ns = max(requests_ns or asked_ns, 1)
        self.statements = alike(observed.statements)
        self.loans = sum(row.count for row in loans)
        self.held_ns = max(1, sum(row.held_ns for row in loans))
        self.of_engines = self._of_engines()
        """The sums of loans by engine."""
        blamed = sum(row.blamed_ns for row in observed.samples.values())
        # Looks are few where waits are short: what was blamed is a share of the waiting that was measured.
        self.blame = self.wait_ns / blamed if blamed else 0.0
        self._known = sorted({*(server.statements or ()), *server.active_s})
        self._keys: dict[str, str] = {}
        self.explained_ns = 0.0
        self.has_lock_queue = self.has_idle_locks = self.is_unfair = False
        self.told_apart = set[str]()
        """The endpoints of which a finding tells that they repeat a statement, each time in another loan."""
        self._loans_in: Counter[tuple[str, str]] = Counter()
        self._places_in: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.held_in: Counter[str] = Counter()
        """By endpoint, for how long its loans were held."""
        self.waited_in: Counter[str] = Counter()
        """By endpoint, for how long its loans were waited for, their connections' opening included."""
        for (engine, endpoint, place), row in self.each_loan():
            self._loans_in[engine, endpoint] += row.count
            self._places_in[engine, endpoint].add(place)
            self.held_in[endpoint] += row.held_ns
            self.waited_in[endpoint] += row.wait_ns + row.connect_ns
        self.executed_at: Counter[tuple[str, str]] = Counter()
        """By endpoint and place, for how long statements were executed."""
        for key, statement in self.statements.items():
            self.executed_at[key.endpoint, key.place] += statement.duration_ns
        self.blamed_at: Counter[tuple[str, str]] = Counter()
        """By endpoint and place, the waiting that executing statements is to blame for."""
        self.blamed_in: Counter[str] = Counter()
        """By endpoint, the waiting for which its loans are to blame that did nothing but use the database."""
        for sample, looks in observed.samples.items():
            if sample.doing == seen.STATEMENT:
                self.blamed_at[sample.endpoint, sample.place] += looks.blamed_ns
            if sample.doing in {seen.STATEMENT, seen.LIBRARY, seen.CPU}:
                self.blamed_in[sample.endpoint] += looks.blamed_ns
        self.crowding = self._crowding()
        """How many times as long a statement takes because so many take turns at the database's cores."""
        self.refusals = self._refusals()

    def _crowding(self) -> float:
        cores, active = self.server.cores or 0, self.server.mean_active
        if not self.server.is_full or not cores:
            return 1.0
        allowed = sum(map(self.may_have, self.observed.engines))
        is_crowd = active >= max(24, MOST_PER_CORE * cores)
        is_crowd = is_crowd or (active >= _ACTIVE_OF_MANY * cores and allowed >= _MANY * cores)
        return active / cores if is_crowd else 1.0

    def share(self, cost_ns: float) -> float:
        """A share of all requests' time."""
        return min(1.0, cost_ns / self.total_ns)

    def in_requests(self, endpoint: str, own_ns: float) -> float:
        """The part of some time that requests took: none of a background thread's, who may take its time."""
        return own_ns if endpoint or not self.observed.requests else 0.0

    def key_of(self, text: str) -> str:
        """The `statement_key` under which the database has a statement, of whose text only the beginning may be known."""
        known = self._keys.get(text)
        if known is None:
            known = self._keys[text] = self._found_key(text)
        return known

    def _found_key(self, text: str) -> str:
        key, known = statement_key(text), self._known
        if len(text) < TEXT_LENGTH or _is_among(known, key):
            return key
        beginning = _CUT.sub("", key)
        at = bisect_left(known, beginning)
        found = [each for each in known[at : at + 2] if each.startswith(beginning)]
        return found[0] if len(found) == 1 else key

    def share_in_database(self) -> float:
        """The share of the time that connections were lent in which the database executed their statements, less its waiting for
        the CPU; 0: unknown.
        """
        counted = self.server.statements or {}
        known = {self.key_of(key.text) for key in self.statements}
        executed_ns = 1e6 * sum(each.total_ms for key, each in counted.items() if key in known)
        return max(0.0, executed_ns - 1e9 * self.server.database_queued_s) / self.held_ns

    def each_loan(self) -> Iterator[tuple[tuple[str, str, str], LoanSum]]:
        """The sums of loans, each with its engine, endpoint and place."""
        yield from ((tuple(key), row) for key, row in self.observed.loans.items())  # type: ignore[misc]

    def _of_engines(self) -> dict[str, LoanSum]:
        found: dict[str, LoanSum] = {}
        for (engine, _, _), row in self.each_loan():
            add_up(found, {engine: row})
        return found

    def is_made_again(self, engine: str) -> bool:
        """Whether requests make this engine again and again."""
        about, loans = self.observed.engines.get(engine, EngineSum()), self.of_engines.get(engine, LoanSum())
        is_often = about.made_in_requests >= _MADE_AGAIN * max(1, about.processes)
        return is_often and loans.by_maker >= _LOANS_BY_MAKER * loans.count

    def keeps_nothing(self, engine: str) -> bool:
        """Whether this is an engine without a pool, or a place that opens connections without an engine."""
        return self.observed.engines.get(engine, EngineSum()).pool in _WITHOUT_POOL

    def opens_for_each(self, engine: str) -> bool:
        """Whether an engine without a pool opens a connection for most of its loans, the refused ones among them."""
        loans = self.of_engines.get(engine, LoanSum())
        asked, tried = loans.count + loans.refused, loans.opened + loans.refused
        return self.keeps_nothing(engine) and asked >= LEAST_LOANS and tried >= 0.5 * asked

    def _refusals(self) -> dict[str, int]:
        """How many connections the database refused, by the engine to blame for it.

        Where connections are opened for each loan, or engines made again and again, nothing limits how many there are: they have
        left too few to the others, unless these alone may have more than the database allows.
        """
        found = {engine: row.refused for engine, row in self.of_engines.items() if row.refused}
        unlimited = {key for key in self.of_engines if self.opens_for_each(key) or self.is_made_again(key)}
        others = [key for key in self.observed.engines if key not in unlimited and not self.keeps_nothing(key)]
        allowed = sum(self.may_have(key) for key in others)
        if unlimited and allowed < inf and allowed <= (self.server.max_connections or inf):
            worst = max(unlimited, key=lambda key: self.of_engines[key].refused + self.of_engines[key].opened)
            rest = sum(found.pop(key, 0) for key in others)
            if rest:
                found[worst] = found.get(worst, 0) + rest
        return found

    def refused_share(self, engine: str) -> float:
        """The part of all connections asked for that the database refused because of an engine."""
        refused = self.refusals.get(engine, 0)
        return refused / max(1, refused + self.loans)

    def may_have(self, engine: str) -> float:
        """How many connections the engine's pools may have in all processes; infinity where nothing limits them."""
        limit, about = self.limit(engine), self.observed.engines.get(engine, EngineSum())
        return inf if limit is None else limit * max(1, about.processes)

    def borrowed_at(self, engine: str, endpoint: str, place: str) -> str:
        """Where an endpoint borrows the engine's connections, in words, if that is one line other than `place`; else ""."""
        places = self._places_in[engine, endpoint] - {place}
        return f" borrowed at {places.pop()}" if len(places) == 1 and "" not in places else ""

    def loans_of(self, engine: str, endpoint: str) -> int:
        """How many loans of an engine an endpoint had."""
        return self._loans_in[engine, endpoint]

    def by_place(self, *doing: str) -> dict[tuple[str, str, str], SampleSum]:
        """What was seen of the states `doing`, by engine, endpoint and place."""
        found: dict[tuple[str, str, str], SampleSum] = {}
        for key, row in self.observed.samples.items():
            if key.doing in doing:
                known = found.setdefault((key.engine, key.endpoint, key.place), SampleSum())
                known.own_ns += row.own_ns
                known.blamed_ns += row.blamed_ns
                known.looks += row.looks
        return found

    def limit(self, engine: str) -> int | None:
        """How many connections the engine's pool may have in each process; None where nothing limits them."""
        about = self.observed.engines.get(engine)
        return about.size + about.overflow if about is not None and about.size > 0 and about.overflow >= 0 else None
