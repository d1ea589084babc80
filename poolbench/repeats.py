"""Which statements of a loan are a loop's, and how long the loop took for each of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.observed import FEW_ROWS, REPEATS


@dataclass(frozen=True, slots=True)
class Group:
    """What one loan executed of one statement from one place: instants of the first and the last, and sums, in ns."""

    count: int
    duration_ns: int
    rows: int
    first_ns: int
    last_ns: int
    has_written: bool = False

    @classmethod
    def of(cls, values: Sequence[Any], *, has_written: bool) -> Group:
        """From what a loan notes of it: its place, and these in order."""
        count, duration_ns, rows, first_ns, last_ns = values[1:6]
        return cls(count, duration_ns, rows, first_ns, last_ns, has_written)

    @property
    def is_repeated(self) -> bool:
        """Whether it fetches one object, or its few parts, again and again."""
        return self.count >= REPEATS and self.rows < FEW_ROWS * self.count and not self.has_written


def loop_times_ns(groups: Sequence[Group]) -> list[float]:
    """How much of the loan's time each group took as part of a loop; 0 for those that are not repeated.

    A loop lasts from its first statement to the end of its last one. Statements that run in it once or twice are not its own.
    Groups whose time overlaps are of one loop: each has its part of it, by the time of its statements.
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
    """Groups of one loop, by their numbers: those that overlap in time."""
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
