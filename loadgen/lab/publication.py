"""The data of a publication: what was published, the experiments that repeat it, and the criteria that judge its claims.

`publication_file` reads a publication from a YAML or JSON file; docs/publications.md describes the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_POOL_FIGURES = {
    "per_second": "loans a second",
    "wait_mean_ms": "mean wait for a connection, ms",
    "wait_p99_ms": "p99 of waits for a connection, ms",
    "wait_max_ms": "longest wait for a connection, ms",
    "run_mean_ms": "mean time of the statement, ms",
    "time_mean_ms": "mean time of wait and statement, ms",
    "time_p99_ms": "p99 of wait and statement, ms",
    "total_ms": "time until all were done, ms",
    "connections": "connections open at the end",
    "failed": "share of loans that failed",
    "unserved": "borrowers without a connection",
    "evenness": "evenness (Jain's index of loans)",
}
_REQUEST_FIGURES = {
    "per_second": "requests served a second",
    "served": "requests served",
    "served_early": "requests served before the pool's timeout",
    "failed": "share of requests that failed",
    "time_max_ms": "longest request, ms",
    "total_ms": "time until all were done, ms",
}
_CLIENT_FIGURES = {
    "per_second": "statements a second",
    "rows_per_second": "rows a second",
    "time_mean_ms": "mean time of a statement, ms",
    "failed": "share of statements that failed",
}
SHARES = frozenset({"failed"})
"""Figures that are shares, 0 to 1; they are shown in per cent."""
FIGURES: Mapping[str, Mapping[str, str]] = {
    "borrowers": _POOL_FIGURES,
    "requests": _REQUEST_FIGURES,
    "clients": _CLIENT_FIGURES,
}
"""By kind of experiment: the figures that it measures, by name, each in words for tables and charts."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a publication appeared: who wrote it, its title, its year, and its address on the web."""

    author: str
    title: str
    year: int
    address: str


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """A figure as it was published, in a few words; `address` where it was not the main source's."""

    figure: str
    words: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class PublicationExperiment:
    """One experiment of a publication: its kind and the values of its settings, defaults included."""

    name: str
    title: str
    kind: str
    values: Mapping[str, Any]
    full: Mapping[str, Any] = field(default_factory=dict)
    """Settings that --full changes, with their values."""

    def settings(self, *, full: bool) -> dict[str, Any]:
        """The settings in force, with or without --full. Numbers that depend on the cores are those for this machine."""
        chosen = {**self.values, **(self.full if full else {})}
        cores = os.cpu_count() or 1
        found = {name: value.on(cores) if isinstance(value, PerCore) else value for name, value in chosen.items()}
        if "idle" in found and found["idle"] is None:
            found["idle"] = 0 if found["pool"] == "null" else found["size"]
        return found

    def connections(self, *, full: bool) -> int:
        """Largest number of connections that the experiment has open at one time."""
        values = self.settings(full=full)
        if self.kind == "clients":
            return int(values["clients"])
        if values["pool"] == "null":
            return int(values["borrowers"]) * int(values["nested"])
        return int(values["size"]) + int(values["overflow"])

    @property
    def figures(self) -> Mapping[str, str]:
        """The figures that the experiment measures, by name, each in words."""
        known = FIGURES[self.kind]
        if self.values.get("driver") == "pgbench":
            return {name: words for name, words in known.items() if name != "rows_per_second"}
        return known


@dataclass(frozen=True, slots=True)
class PerCore:
    """A number that depends on the machine's cores."""

    per_core: float
    plus: int

    def on(self, cores: int) -> int:
        """The number on a machine with this number of cores, at least 1."""
        return max(1, round(self.per_core * cores) + self.plus)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure of an experiment, or its ratio to the same figure of another one."""

    figure: str
    of: str
    against: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A quantity, and the ranges (both ends included) in which the claim is reproduced, and partly reproduced."""

    quantity: Quantity
    reproduced: tuple[float, float]
    partly: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Condition:
    """A quantity, and the range in which it must lie (both ends included); otherwise the claim is not judged."""

    quantity: Quantity
    between: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PublishedClaim:
    """One claim: its text, the published figure in words, and the checks that decide on it, of which the worst counts."""

    id: str
    text: str
    published: str
    checks: tuple[Check, ...]
    judged_if: tuple[Condition, ...] = ()
    about_load: bool = True
    """Whether the outcome depends on the machine's load, so that it is not judged if other programs used the CPU."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication, as its file describes it."""

    name: str
    title: str
    source: Source
    published: tuple[PublishedFigure, ...]
    scale: str
    """How the sizes here differ from the published ones, in a sentence."""
    experiments: tuple[PublicationExperiment, ...]
    claims: tuple[PublishedClaim, ...]
    rounds: int = 3
    setup: tuple[str, ...] = ()
    """SQL statements to run once before the experiments."""

    def connections(self, *, full: bool) -> int:
        """Largest number of connections that any of its experiments has open at one time."""
        return max(experiment.connections(full=full) for experiment in self.experiments)

    def expected_s(self, *, full: bool) -> float:
        """About how long all its rounds take, in s; shown to the user."""
        return self.rounds * sum(_expected_s(e.settings(full=full)) for e in self.experiments)


# Starting a process, opening its connections and closing them.
_AROUND_S = 1.0


def _expected_s(values: Mapping[str, Any]) -> float:
    if values.get("seconds"):
        return float(values["seconds"]) + _AROUND_S
    waits = 2 * float(values["timeout_s"]) if "requests" in values else 1.0
    return waits + _AROUND_S
