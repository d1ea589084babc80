"""Turns of several arrangements in random order, and their rounds compared. Pure.

Arrangements that run once each in a fixed order differ by whatever the machine did meanwhile. In rounds, each of which has
every arrangement once and in an order of its own, such differences show as spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Self, TypeVar

from reports.compare.diff import Change, compare_runs
from reports.model import Report

_Item = TypeVar("_Item")


def in_turns(items: Iterable[_Item], rounds: int, rng: Random) -> Iterator[_Item]:
    """Every item once a round, for each round in a random order. The same state of `rng` gives the same order."""
    every = list(items)
    for _ in range(rounds):
        rng.shuffle(every)
        yield from every


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several rounds: the lowest, the median and the highest."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of one value at least."""
        return cls(min(values), median(values), max(values))


def compared(old: Sequence[Report], new: Sequence[Report]) -> dict[str, Change]:
    """Figures of two arrangements by name, the verdicts by the variation between their rounds.

    Takes a report for each round, two rounds of each at least: the rounds of one are what a change is measured by.
    """
    if min(len(old), len(new)) < 2:
        raise ValueError("a comparison needs two rounds of each arrangement at least")
    return {change.name: change for change in compare_runs(old, new).rows}
