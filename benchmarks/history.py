"""How often `loadgen history` finds a change that is not there, and how often one that is: simulated, with known truth.

`python -m benchmarks.history` prints the table of docs/history.md; `--write` puts it there. `--otava PYTHON` adds a column
for Apache Otava (0.8, its defaults), with a Python that has it installed; the series are the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports.compare.change_points import change_points, drift_p
from reports.compare.diff import LEAST_SPREAD
from reports.compare.statistics import LEVEL, Floats
from tests.support.paths import ROOT

BEGINS, ENDS = "<!-- benchmarks/history.py -->", "<!-- end -->"
COUNTS = (12, 30, 100)
SPREAD = 0.05
_OTAVA = """
import json, sys
from otava.analysis import compute_change_points
for line in sys.stdin:
    try:
        found, _ = compute_change_points(json.loads(line), window_len=50, max_pvalue=0.001, min_magnitude=0.0)
        print([int(point.index) for point in found])
    except ValueError:
        print("null")
"""


@dataclass(frozen=True, slots=True)
class World:
    """A kind of series: logarithms of a time in ms, given their number and a source of chance.

    `most`: the share of false alarms that is claimed at most; None where a change is to be found, or nothing is claimed.
    """

    name: str
    draw: Callable[[int, np.random.Generator], Floats]
    most: float | None = None


def normal(count: int, rng: np.random.Generator) -> Floats:
    """Independent noise."""
    return rng.normal(0, SPREAD, count)


def correlated(count: int, rng: np.random.Generator, correlation: float) -> Floats:
    """Noise in which each value resembles the one before it: a first-order autoregression."""
    found = rng.normal(0, SPREAD, count)
    for i in range(1, count):
        found[i] = correlation * found[i - 1] + (1 - correlation**2) ** 0.5 * found[i]
    return found


def outlier(count: int, rng: np.random.Generator, at: int) -> Floats:
    """Noise with one value that is 2.7 times as large."""
    found = normal(count, rng)
    found[at] += 1
    return found


def stepped(count: int, rng: np.random.Generator, by: float, first: int, last: int | None = None) -> Floats:
    """Noise that is higher by a share from one value on, until another."""
    found = normal(count, rng)
    found[first:last] += np.log1p(by)
    return found


WORLDS = (
    World("all the same", lambda n, _: np.full(n, 0.0), 0.0),
    World("rounded, hardly any noise", lambda n, rng: np.log(np.round(41 * np.exp(rng.normal(0, 0.002, n)), 1)), 0.05),
    World("noise of 5 %", normal, 0.05),
    World("noise of 5 %, heavy tails (t, 3 degrees)", lambda n, rng: 0.04 * rng.standard_t(3, n), 0.05),
    World("one report in 20 twice as slow", lambda n, rng: normal(n, rng) + 0.7 * (rng.random(n) < 0.05), 0.05),
    World("one outlier, in the middle", lambda n, rng: outlier(n, rng, n // 2), 0.05),
    World("one outlier, the last report", lambda n, rng: outlier(n, rng, -1), 0.05),
    World("one outlier, the first report", lambda n, rng: outlier(n, rng, 0), 0.05),
    World(
        "two machines in turns by chance, 15 % apart",
        lambda n, rng: 0.4 * normal(n, rng) + 0.15 * (rng.random(n) < 0.3),
        0.05,
    ),
    World("correlation 0.3 of neighbours", lambda n, rng: correlated(n, rng, 0.3), 0.1),
    World("correlation 0.6 of neighbours", lambda n, rng: correlated(n, rng, 0.6), 0.25),
    World("noise triples half way", lambda n, rng: normal(n, rng) * np.where(np.arange(n) < n // 2, 0.6, 1.8), 0.08),
    World("drift of 30 % over all reports", lambda n, rng: normal(n, rng) + np.linspace(0, np.log(1.3), n)),
    World("+10 % half way", lambda n, rng: stepped(n, rng, 0.1, n // 2)),
    World("+20 % half way", lambda n, rng: stepped(n, rng, 0.2, n // 2)),
    World("+10 % in the last 5", lambda n, rng: stepped(n, rng, 0.1, -5)),
    World("+20 % in the last 3", lambda n, rng: stepped(n, rng, 0.2, -3)),
    World("+20 % in the last 5", lambda n, rng: stepped(n, rng, 0.2, -5)),
    World("+30 % in the last 3", lambda n, rng: stepped(n, rng, 0.3, -3)),
    World("+30 % for 5 reports, then back", lambda n, rng: stepped(n, rng, 0.3, n // 2, n // 2 + 5)),
)
"""Kinds of series: first those without a change of level."""


def drawn(world: World, count: int, seed: int) -> Floats:
    """One series of a world."""
    return world.draw(count, np.random.default_rng([seed, count]))


def found_in(world: World, count: int, seed: int) -> Literal["change", "drift", ""]:
    """What is found in a series: a change between two reports, a gradual one, or none."""
    values = drawn(world, count, seed)
    points = change_points(values, LEAST_SPREAD)
    if drift_p(values, points, LEAST_SPREAD) <= LEVEL:
        return "drift"
    return "change" if points else ""


def otava(python: str, worlds: list[Floats]) -> list[bool]:
    """Whether Apache Otava finds a change in each series of logarithms."""
    told = "\n".join(json.dumps((41 * np.exp(values)).tolist()) for values in worlds)
    done = subprocess.run([python, "-c", _OTAVA], input=told, capture_output=True, text=True, check=True)
    return [bool(json.loads(line)) for line in done.stdout.splitlines()]


def table(repeats: int, python: str | None) -> Iterator[str]:
    """Lines of Markdown."""
    others = ("", ", Otava") if python else ("",)
    headings = ["series", *(f"{count} reports{other}" for count in COUNTS for other in others), "claimed"]
    yield f"| {' | '.join(headings)} |"
    yield f"| :-- |{' --: |' * (len(headings) - 1)}"
    for world in WORLDS:
        cells = []
        for count in COUNTS:
            answers = [found_in(world, count, seed) for seed in range(repeats)]
            changes, drifts = (answers.count(what) / repeats for what in ("change", "drift"))
            cells.append(f"{changes:.1%}{f' + {drifts:.1%}' if drifts else ''}")
            if python:
                found = otava(python, [drawn(world, count, seed) for seed in range(repeats)])
                cells.append(f"{sum(found) / repeats:.1%}")
        claimed = "" if world.most is None else f"at most {world.most:.0%}"
        yield f"| {' | '.join([world.name, *cells, claimed])} |"


def main() -> None:
    """Print the table as Markdown, or write it into docs/history.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400, help="Series of each kind and length.")
    parser.add_argument("--otava", metavar="PYTHON", help="A Python with apache-otava, to compare with.")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/history.md.")
    options = parser.parse_args()
    lines = []
    for line in table(options.repeats, options.otava):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        page = ROOT / "docs" / "history.md"
        above, rest = page.read_text("utf-8").split(BEGINS)
        page.write_text("\n".join([above + BEGINS, "", *lines, "", ENDS]) + rest.split(ENDS)[1], "utf-8")


if __name__ == "__main__":
    main()
