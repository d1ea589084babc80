"""How often a comparison is wrong, and how often it finds what is there: the table of docs/statistics.md.

`python benchmarks/verdicts.py [--repeats N]` simulates pairs of runs and compares them as `loadgen diff` does. A run has
periods of requests whose times are lognormal (log deviation 0.5); each period has its own level, a first-order
autoregression in the logarithm, as a server has good and bad stretches; the first and last are cut short. Errors come in
bursts: a period's share is drawn anew. Runs may also differ among each other.
"""

# ruff: noqa: E402 - the path must be set before the rooms are imported

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log, sqrt
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).parents[1])  # as in reports.py

from reports.compare.diff import Diff, compare_runs
from reports.model import PERIOD_MS, Period, Rate, Report, Summary
from reports.sketch import Sketch


@dataclass(frozen=True)
class World:
    """Where reports come from."""

    periods: int
    requests: int = 1000
    """Per whole period."""
    correlation: float = 0.0
    """Of one period's level with the next one's."""
    period_deviation: float = 0.05
    run_deviation: float = 0.0
    sketches: bool = True
    factor: float = 1.0
    """What all times are multiplied by."""
    runs: int = 1
    """A side."""


def report(world: World, rng: np.random.Generator) -> Report:
    """A run in that world."""
    level = rng.normal(0, world.period_deviation)
    run = rng.normal(0, world.run_deviation) + log(world.factor)
    periods = []
    for i in range(world.periods):
        part = rng.uniform(0.1, 1.0) if i in (0, world.periods - 1) else 1.0
        periods.append(_period(world, rng, i, part, run + level))
        fresh = rng.normal(0, world.period_deviation)
        level = world.correlation * level + sqrt(1 - world.correlation**2) * fresh
    found = Report.of(periods)
    return found if world.sketches else _without_sketches(found)


def _period(world: World, rng: np.random.Generator, index: int, part: float, level: float) -> Period:
    count = max(2, int(rng.poisson(world.requests * part)))
    times = np.exp(rng.normal(3 + level, 0.5, count))
    sketches = {"http.response_time": Sketch.of(times), "vusers.session_length": Sketch.of(times * 1.5 + 2)}
    start = index * PERIOD_MS
    first = start + (round((1 - part) * PERIOD_MS) if index == 0 else 0)
    last = start + PERIOD_MS - 1 if index == 0 else start + round(part * PERIOD_MS) - 1
    return Period(
        start_ms=start,
        counters={"http.requests": count, "errors.ETIMEDOUT": int(rng.binomial(count, rng.beta(0.5, 100)))},
        rates={"http.request_rate": Rate.of(count, first, last)},
        summaries={name: Summary.of(sketch) for name, sketch in sketches.items()},
        sketches=sketches,
        first_counter_ms=first,
        last_counter_ms=last,
    )


def _without_sketches(found: Report) -> Report:
    """As Artillery itself writes it."""
    total = replace(found.aggregate, sketches={})
    return Report(total, tuple(replace(period, sketches={}) for period in found.periods))


def comparisons(world: World, factor: float, repeats: int, seed: int = 1) -> Iterator[Diff]:
    """Pairs of sides, the new one's times multiplied by `factor`."""
    rng = np.random.default_rng(seed)
    changed = replace(world, factor=factor)
    for _ in range(repeats):
        old = [report(world, rng) for _ in range(world.runs)]
        yield compare_runs(old, [report(changed, rng) for _ in range(world.runs)])


def share_of_verdicts(diffs: Iterator[Diff], name: str = "") -> float:
    """How many comparisons call a figure (any, without a name) better or worse."""
    called = [
        any(row.verdict in ("better", "worse") for row in diff.rows if not name or row.name == name) for diff in diffs
    ]
    return sum(called) / len(called)


WORLDS = (
    World(12, period_deviation=0.0),
    World(12, correlation=0.3),
    World(30, period_deviation=0.0),
    World(30),
    World(30, correlation=0.3),
    World(30, correlation=0.6),
    World(60, correlation=0.3),
    World(60, correlation=0.6),
    World(60, correlation=0.3, requests=200),
    World(30, correlation=0.3, sketches=False),
    World(30, correlation=0.3, run_deviation=0.05),
    World(3, run_deviation=0.05),
    World(3, run_deviation=0.05, runs=2),
    World(3, run_deviation=0.05, runs=3),
    World(3, run_deviation=0.05, runs=4),
    World(3, run_deviation=0.05, runs=6),
    World(12, run_deviation=0.05, correlation=0.3, runs=8),
)


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    print(
        "| runs a side | periods | requests a period | period deviation, correlation | run deviation | sketches ",
        end="",
    )
    print("| any false verdict | false verdict on p99 | p99 +10 % found | p99 +20 % found |")
    print("| --: | --: | --: | :-- | --: | :-- | --: | --: | --: | --: |")
    for world in WORLDS:
        p99 = "http.response_time.p99"
        null = list(comparisons(world, 1.0, repeats))
        shares = [share_of_verdicts(iter(null)), share_of_verdicts(iter(null), p99)]
        shares += [share_of_verdicts(comparisons(world, factor, repeats), p99) for factor in (1.1, 1.2)]
        about = (
            f"{world.runs} | {world.periods} | {world.requests} | {world.period_deviation:.0%}, {world.correlation:g} "
            f"| {world.run_deviation:.0%} | {'yes' if world.sketches else 'no'}"
        )
        print(f"| {about} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
