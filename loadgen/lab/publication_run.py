"""Runs the experiments of a publication in rounds, in a random order within each round, and each time in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from random import Random
from statistics import mean, median
from typing import Any

import psutil

from loadgen.lab.evidence import Measurement
from loadgen.lab.publication import Publication, PublicationExperiment
from loadgen.lab.stack import query
from loadgen.lab.turn_process import figures_of
from loadgen.lab.turns import in_turns

_MODULES = {"asyncpg": "asyncpg", "psycopg": "psycopg"}
"""The module that a driver needs; psycopg2 and pgbench come with the tool."""


def missing_module(experiment: PublicationExperiment) -> str | None:
    """The module that an experiment needs and that is not installed; None if it can be run."""
    needed = [_MODULES.get(experiment.values["driver"], "psycopg2")]
    if experiment.values.get("pool") == "psycopg_pool":
        needed.append("psycopg_pool")
    return next((name for name in needed if find_spec(name) is None), None)


def run(
    publication: Publication,
    url: str,
    *,
    full: bool,
    others_cpu_s: Callable[[], float] | None,
    say: Callable[[str], None],
    rng: Random,
) -> Iterator[tuple[str, Measurement]]:
    """Run the setup, and then all experiments whose modules are installed. Yields (experiment's name, measurement).

    `url` is the database. `others_cpu_s` returns the CPU seconds that other programs have used so far; None if that is not known.
    `say` gets a line about an experiment that failed; its measurement is then partial and has no figures. Raises psycopg2.Error
    if a setup statement fails.
    """
    for statement in publication.setup:
        query(url, statement)
    possible = [experiment for experiment in publication.experiments if missing_module(experiment) is None]
    for number, experiment in enumerate(in_turns(possible, publication.rounds, rng)):
        values = experiment.settings(full=full)
        before_s, began = (others_cpu_s() if others_cpu_s else 0.0), time.monotonic()
        settings = {"kind": experiment.kind, "url": url, "values": values}
        figures = figures_of("loadgen.lab.publication_turn", settings, _longest_s(values))
        took_s = time.monotonic() - began
        share = (others_cpu_s() - before_s) / (took_s * (psutil.cpu_count() or 1)) if others_cpu_s else None
        if isinstance(figures, str):
            say(f"{publication.name}, {experiment.title}, round {number // len(possible) + 1}: {figures}")
        yield (
            experiment.name,
            Measurement(
                experiment.title,
                {} if isinstance(figures, str) else figures,
                # The kernel counts CPU in ticks of 10 ms, so that a short turn may come out beyond either end.
                None if share is None else min(1.0, max(0.0, share)),
                partial=isinstance(figures, str),
            ),
        )


def together(title: str, rounds: Sequence[Measurement]) -> Measurement:
    """One measurement for all rounds of an experiment: medians of the figures in every round, and other programs' mean share."""
    names = [name for name in rounds[0].figures if all(name in each.figures for each in rounds)]
    shares = [each.others_share for each in rounds if each.others_share is not None]
    return Measurement(
        title,
        {name: median(each.figures[name] for each in rounds) for name in names},
        mean(shares) if shares else None,
        partial=any(each.partial for each in rounds),
    )


def _longest_s(values: Mapping[str, Any]) -> float:
    """Longest time, in s, that an experiment with these settings may take once."""
    return 60 + float(values.get("seconds", 0.0)) * 2 + 6 * float(values.get("timeout_s", 0.0))
