"""Finds the statements that a loan, or a request, executed again and again, and how much time that took. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from poolbench.observed import FEW_ROWS, OTHERS, REPEATED_LOANS, REPEATS
from poolbench.surroundings import without_values

TEXT_LENGTH = 300
"""So many characters of a statement are kept in the sums."""
MOST_CACHED = 10_000
"""A longer statement than this many characters is looked at each time, rather than kept."""
_GAP = r"(?:\s|--[^\n]*\n|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*"
_CHANGES = re.compile(
    rf"{_GAP}(?:(?:INSERT|UPDATE|DELETE|MERGE|LOCK|TRUNCATE|CREATE|ALTER|DROP|CALL)\b"
    r"|COPY\s+[^()]+(?:\([^()]*\)\s*)?\bFROM\b"
    rf"|WITH\b.*[()]{_GAP}(?:INSERT|UPDATE|DELETE|MERGE)\b)",
    re.IGNORECASE | re.DOTALL,
)
_LOCKS = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b|\bpg_advisory_xact_lock", re.IGNORECASE)


_VALUE = re.compile(r"(?<!%)%(?:\(|s)|\$\d")


class Text(NamedTuple):
    """What the text of a statement says of it."""

    number: int
    """The same for texts that differ only in their values; it takes less memory than what is left of them."""
    beginning: str
    has_written: bool
    has_changed: bool
    fixed: str
    """As of `Group`, as the two before."""

    @classmethod
    def of(cls, statement: str) -> Text:
        """Of a statement, or of `OTHERS`; kept for the next time, except for long ones."""
        return _text(statement) if len(statement) <= MOST_CACHED else _text.__wrapped__(statement)


@lru_cache(maxsize=1024)
def _text(statement: str) -> Text:
    cut = statement[:MOST_CACHED]
    return Text(
        hash(without_values(cut)),
        " ".join(cut.split())[:TEXT_LENGTH],
        statement == OTHERS or _finds_writing(statement),
        changes(statement),
        "" if _VALUE.search(statement) else statement,
    )


class Group(NamedTuple):
    """All executions of one statement from one place in one loan. Instants are perf_counter_ns()."""

    executions: int
    duration_ns: int
    """Sum of their durations."""
    rows: int
    """Sum of the rows that they fetched."""
    first_ns: int
    """When the first one began."""
    last_ns: int
    """When the last one ended."""
    slow: int = 0
    """Those that took `SLOW_NS` or more."""
    slow_ns: int = 0
    fastest_ns: int = 0
    unknown: int = 0
    """Those that say nothing of their rows, as of a server-side cursor, or were an executemany()."""
    quick: int = 0
    """Those that took less than `QUICK_NS`."""
    has_written: bool = False
    """Whether the statement changes or locks rows."""
    has_changed: bool = False
    """Whether it changes rows."""
    fixed: str = ""
    """Its text, if it is executed without values; "" if values may differ from one execution to the next."""

    def plus(self, other: Group) -> Group:
        """Both together, as groups of statements that differ only in the values written into them."""
        return self._replace(
            executions=self.executions + other.executions,
            duration_ns=self.duration_ns + other.duration_ns,
            rows=self.rows + other.rows,
            first_ns=min(self.first_ns, other.first_ns),
            last_ns=max(self.last_ns, other.last_ns),
            slow=self.slow + other.slow,
            slow_ns=self.slow_ns + other.slow_ns,
            fastest_ns=min(self.fastest_ns, other.fastest_ns),
            unknown=self.unknown + other.unknown,
            quick=self.quick + other.quick,
            fixed=self.fixed if self.fixed == other.fixed else "",
        )

    @property
    def is_repeated(self) -> bool:
        """Whether the statement fetches one object, or its few parts, again and again; or changes one row at a time."""
        if self.unknown:
            return False
        if self.has_changed:
            return self.executions >= REPEATED_LOANS and self.rows == self.executions
        return self.executions >= REPEATS and self.rows < FEW_ROWS * self.executions and not self.has_written


def loop_times_ns(groups: Sequence[Group]) -> list[float]:
    """The time in ns that each group took as part of a loop, in the order of `groups`; 0 for a group that is not repeated.

    A loop lasts from the beginning of its first statement to the end of its last one. Statements that run in it but are not
    repeated do not belong to it, and their time is left out. Groups that overlap in time belong to one loop, and divide its
    time in proportion to the durations of their statements.
    """
    times_ns = [0.0] * len(groups)
    others = [group for group in groups if not group.is_repeated]
    for loop in _loops(group for group in enumerate(groups) if group[1].is_repeated):
        first_ns = min(group.first_ns for _, group in loop)
        last_ns = max(group.last_ns for _, group in loop)
        foreign_ns = sum(
            other.duration_ns for other in others if first_ns <= other.first_ns and other.last_ns <= last_ns
        )
        statements_ns = max(1, sum(group.duration_ns for _, group in loop))
        for index, group in loop:
            times_ns[index] = max(0, last_ns - first_ns - foreign_ns) * group.duration_ns / statements_ns
    return times_ns


def _loops(groups: Iterable[tuple[int, Group]]) -> Iterator[list[tuple[int, Group]]]:
    """The loops: lists of the numbered groups that overlap in time."""
    loop: list[tuple[int, Group]] = []
    until_ns = 0
    for index, group in sorted(groups, key=lambda each: each[1].first_ns):
        if loop and group.first_ns > until_ns:
            yield loop
            loop, until_ns = [], 0
        loop.append((index, group))
        until_ns = max(until_ns, group.last_ns)
    if loop:
        yield loop


@dataclass(slots=True)
class Apart:
    """What the loans of one request executed of one statement from one place."""

    loans: int = 0
    executions: int = 0
    rows: int = 0
    unknown: int = 0
    """As `Group.unknown`."""
    held_ns: float = 0.0
    """How long these loans were held for it: of each, the part that its duration is of all statements' durations."""
    has_changed: bool = False
    """Whether the statement changes rows."""
    fixed: str | None = None
    """As `Group.fixed`; None before the first loan."""
    has_locked: bool = False
    """Whether it only locks them."""


PlacedText = tuple[str, str]
"""The place and the beginning of the text of a statement."""
Executions = Sequence[tuple[PlacedText, Group]]
"""What one loan has executed."""
_MOST_APART = 200
"""Statements that are told apart in one request."""


class Executed:
    """What the loans of one request have executed. They are added up only once they are enough to have repeated a statement."""

    __slots__ = ("_added_up", "_loans")

    def __init__(self) -> None:
        self._added_up: dict[PlacedText, Apart] = {}
        self._loans: list[tuple[Executions, int]] = []

    def add(self, executed: Executions, held_ns: int) -> None:
        """Add what one loan, held for `held_ns`, has executed."""
        self._loans.append((executed, held_ns))
        if len(self._loans) >= REPEATED_LOANS:
            self._add_up()

    def repeated(self) -> Iterator[tuple[PlacedText, Apart]]:
        """The statements that the request repeats in loan after loan: that fetch one object or its few parts, or change one row.

        A statement that one loan executes several times is not counted here: it is found as a loop, or is a batch. Nor is one
        that locks a row: whoever takes one job after another needs a transaction for each. Nor one that reads without values: it
        asks the same again, so that no other statement could answer all at once.
        """
        # Without any added up, the loans are fewer than a repetition needs.
        if self._added_up:
            self._add_up()
        for key, each in self._added_up.items():
            is_one_by_one = each.executions == each.loans >= REPEATED_LOANS and not each.has_locked and not each.unknown
            if is_one_by_one and (
                each.rows == each.executions
                if each.has_changed
                else each.rows < FEW_ROWS * each.executions and not each.fixed
            ):
                yield key, each

    def _add_up(self) -> None:
        for executed, held_ns in self._loans:
            seen_before = set[PlacedText]()
            statements_ns = max(1, sum(group.duration_ns for _, group in executed))
            for key, group in executed:
                if key not in self._added_up and len(self._added_up) >= _MOST_APART:
                    continue
                known = self._added_up.setdefault(key, Apart())
                known.loans += key not in seen_before
                seen_before.add(key)
                known.has_changed |= group.has_changed
                known.has_locked |= group.has_written and not group.has_changed
                known.fixed = group.fixed if known.fixed in {None, group.fixed} else ""
                known.executions += group.executions
                known.rows += group.rows
                known.unknown += group.unknown
                known.held_ns += held_ns * group.duration_ns / statements_ns
        self._loans.clear()


def writes(statement: str) -> bool:
    """Whether a statement changes or locks rows."""
    return _writes(statement) if len(statement) <= MOST_CACHED else _finds_writing(statement)


def changes(statement: str) -> bool:
    """Whether a statement changes rows, or tables."""
    return bool(_CHANGES.match(statement))


def _finds_writing(statement: str) -> bool:
    return bool(_CHANGES.match(statement) or _LOCKS.search(statement))


_writes = lru_cache(maxsize=1024)(_finds_writing)
