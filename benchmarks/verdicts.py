"""How often a comparison raises a false alarm, and how often it finds a change that is there: simulated, with known truth.

`python -m benchmarks.verdicts` prints the tables of docs/statistics.md; `--write` puts them there; `--quick` takes a minute;
`--only TEXT` makes the rows of some worlds. The rows are shared among as many processes as the machine has cores.
Both sides of a comparison come from one world, the new one's times multiplied by 1 or by 1.2, and are compared as `loadgen
diff` does. A verdict of better or worse on any figure where nothing changed is a false alarm.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from pathlib import Path
from zlib import crc32

import numpy as np

from reports import names
from reports.compare.diff import Diff, compare_runs
from reports.compare.statistics import Floats
from reports.model import Period, Rate, Report, Summary
from reports.sketch import Sketch

ROOT = Path(__file__).parents[1]
MEDIAN, P99 = f"{names.RESPONSE_TIME}.median", f"{names.RESPONSE_TIME}.p99"
BEGINS, ENDS = "<!-- benchmarks/verdicts.py writes from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class World:
    """A world that reports are drawn from, with known truth."""

    name: str
    runs: int = 1
    """Runs of each side."""
    periods: int = 30
    period_s: int = 10
    rate: int = 50
    """Requests per second, in Poisson arrivals."""
    load: float = 0.0
    """Share of an M/M/1 queue's time that it is busy; 0: times are lognormal (log deviation 0.5) instead."""
    period_deviation: float = 0.05
    """Standard deviation of the logarithm of a period's level."""
    correlation: float = 0.0
    """Correlation of one period's level with the next one's: a first-order autoregression."""
    run_deviation: float = 0.0
    """Standard deviation of the logarithm of a run's level."""
    drift: float = 0.0
    """By how much the level's logarithm rises over a run."""
    warm_up: float = 0.0
    """By how much the level's logarithm is higher at the start of a run; it falls off over two periods."""
    sketches: bool = True
    """Whether the report has our key; else percentiles by period, as Artillery writes them."""
    level: float | None = 0.05
    """The claimed share of false alarms; None if nothing is claimed."""
    factor: float = 1.0
    """The factor by which all times are multiplied."""

    @property
    def requests(self) -> int:
        """Requests of a run, on average."""
        return self.periods * self.period_s * self.rate


def report(world: World, rng: np.random.Generator) -> Report:
    """A run in that world. Its first and last periods are cut short; errors come in bursts."""
    count = rng.poisson(world.requests)
    seconds = world.periods * world.period_s
    arrivals = np.sort(rng.uniform(0, seconds, count)) + rng.uniform(0, 0.9) * world.period_s
    times = np.exp(_levels(world, rng))[(arrivals // world.period_s).astype(int)]
    times *= world.factor * np.exp(rng.normal(0, world.run_deviation))
    times *= _queue(world, arrivals, rng) if world.load else np.exp(rng.normal(3, 0.5, count))
    found = Report.of(_periods(world, arrivals, times, rng))
    return found if world.sketches else _without_sketches(found)


def _levels(world: World, rng: np.random.Generator) -> Floats:
    """Logarithm of the level of each period, one more than planned, as a run seldom begins where a period does."""
    levels = rng.normal(0, 0 if world.load else world.period_deviation, world.periods + 1)
    for i in range(1, len(levels)):
        levels[i] = world.correlation * levels[i - 1] + sqrt(1 - world.correlation**2) * levels[i]
    at = np.arange(len(levels))
    result: Floats = levels + world.drift * at / world.periods + world.warm_up * np.exp(-at / 2)
    return result


def _queue(world: World, arrivals: Floats, rng: np.random.Generator) -> Floats:
    """Milliseconds from arrival to end of service in an M/M/1 queue that has been running for long."""
    mean_ms = 1000 * world.load / world.rate
    served = rng.exponential(mean_ms, len(arrivals))
    before = rng.exponential(mean_ms / (1 - world.load)) if rng.random() < world.load else 0.0
    steps = np.concatenate([[before], served[:-1] - 1000 * np.diff(arrivals)]).cumsum()
    waits: Floats = steps - np.minimum(np.minimum.accumulate(steps), 0)
    return waits + served


def _periods(world: World, arrivals: Floats, times: Floats, rng: np.random.Generator) -> Iterator[Period]:
    of = (arrivals // world.period_s).astype(int)
    pool = np.where(rng.random(len(times)) < 0.1, times * 0.01, 0.0)
    for i in range(of[0], of[-1] + 1):
        here = of == i
        count = int(here.sum())
        if not count:
            continue
        samples = {
            names.RESPONSE_TIME: times[here],
            names.SESSION_LENGTH: times[here] * 1.5 + 2,
            f"{names.SERVER}pool": pool[here],
            # the same in all runs, as a figure of the network may be
            f"{names.SERVER}connect": np.full(count, 5.0),
        }
        sketches = {name: Sketch.of(values) for name, values in samples.items()}
        first, last = (int(1000 * at) for at in arrivals[here][[0, -1]])
        yield Period(
            start_ms=1000 * i * world.period_s,
            counters={names.REQUESTS: count, "errors.ETIMEDOUT": int(rng.binomial(count, rng.beta(0.5, 100)))},
            rates={names.REQUEST_RATE: Rate.of(count, first, last)},
            # where there are sketches, nothing is judged by a period's own summary
            summaries={} if world.sketches else {n: Summary.of(sketch) for n, sketch in sketches.items()},
            sketches=sketches,
            first_counter_ms=first,
            last_counter_ms=last,
        )


def _without_sketches(found: Report) -> Report:
    """The report as Artillery itself writes it: neither sketches nor counts and instants of rates, nor our own metrics."""

    def bare(period: Period) -> Period:
        summaries = {n: s for n, s in period.summaries.items() if not names.beyond_artillery(n)}
        rates = {n: Rate(rate.per_second) for n, rate in period.rates.items()}
        return replace(period, sketches={}, summaries=summaries, rates=rates)

    return Report(bare(found.aggregate), tuple(map(bare, found.periods)))


def comparisons(world: World, factor: float, repeats: int, seed: int = 1) -> Iterator[Diff]:
    """Pairs of sides, the new one's times multiplied by `factor`."""
    rng = np.random.default_rng(seed)
    changed = replace(world, factor=factor)
    for _ in range(repeats):
        old = [report(world, rng) for _ in range(world.runs)]
        yield compare_runs(old, [report(changed, rng) for _ in range(world.runs)])


def called(diff: Diff, name: str = "") -> bool:
    """Whether a figure (any, without a name) is called better or worse."""
    return any(row.verdict in ("better", "worse") for row in diff.rows if not name or row.name == name)


def share(answers: Sequence[bool]) -> float:
    """How many of the answers are yes."""
    return sum(answers) / len(answers)


def row_of(diff: Diff, name: str) -> str:
    """The verdict on a figure."""
    return next((row.verdict for row in diff.rows if row.name == name), "not comparable")


ONE_RUN = (
    World("lognormal, 12 periods", periods=12),
    World("lognormal, 12 periods, without our key", periods=12, sketches=False),
    World("lognormal, 30 periods"),
    World("runs differ by 2 %", run_deviation=0.02),
    World("runs differ by 5 %", run_deviation=0.05, level=0.1),
    World("runs differ by 5 %, without our key", run_deviation=0.05, level=0.1, sketches=False),
    World("runs differ by 5 %, 11 periods", periods=11, run_deviation=0.05, level=0.1),
    World("runs differ by 5 %, 3 periods", periods=3, run_deviation=0.05, level=0.1),
    World("runs differ by 10 %", run_deviation=0.10, level=None),
    World("AR(1), correlation 0.6", correlation=0.6),
    World("AR(1), correlation 0.8, periods vary by 10 %", period_deviation=0.1, correlation=0.8),
    World("AR(1), correlation 0.8, 10 %, without our key", period_deviation=0.1, correlation=0.8, sketches=False),
    World("120 periods of 1 s", periods=120, period_s=1),
    World("120 periods of 1 s, AR(1), correlation 0.9", periods=120, period_s=1, correlation=0.9),
    World("drift of 30 % over the run", drift=0.3),
    World("warm-up, at first twice as slow", warm_up=0.7),
    World("M/M/1, 80 % load", load=0.8),
    World("M/M/1, 90 % load", load=0.9),
    World("M/M/1, 95 % load", load=0.95),
    World("M/M/1, 95 % load, 12 periods", load=0.95, periods=12),
    World("M/M/1, 95 % load, 500 requests/s", load=0.95, rate=500),
    World("M/M/1, 95 % load, 120 periods of 1 s", load=0.95, periods=120, period_s=1),
    World("M/M/1, 80 % load, without our key", load=0.8, sketches=False),
    World("M/M/1, 95 % load, without our key", load=0.95, sketches=False),
    World("M/M/1, 80 % load, 3 periods", load=0.8, periods=3, level=None),
    World("M/M/1, 95 % load, 3 periods", load=0.95, periods=3, level=None),
)
"""Worlds in which one run is compared with one."""

_MINUTE = World("runs do not differ", periods=1, period_s=60, rate=100, period_deviation=0.0)
_SIX = World("", periods=6, run_deviation=0.02, period_deviation=0.0)
_OF_RUNS = (
    (_MINUTE, (2, 3, 5, 8)),
    (replace(_MINUTE, name="runs differ by 2 %", run_deviation=0.02), (2, 3, 4, 5, 6, 8)),
    (replace(_MINUTE, name="runs differ by 5 %", run_deviation=0.05), (2, 3, 5, 8)),
    (replace(_MINUTE, name="runs differ by 10 %", run_deviation=0.1), (2, 3, 5, 8)),
    (replace(_MINUTE, name="M/M/1, 80 % load", load=0.8), (2, 5)),
    (replace(_MINUTE, name="M/M/1, 95 % load", load=0.95), (2, 3, 5, 8)),
    (replace(_MINUTE, name="runs differ by 2 %, without our key", run_deviation=0.02, sketches=False), (2, 5)),
    (replace(_SIX, name="warm-up, at first twice as slow", warm_up=0.7), (5,)),
    (replace(_SIX, name="drift of 30 % over the run", drift=0.3), (5,)),
    (
        replace(
            _SIX,
            name="periods of 1 s, AR(1), correlation 0.6",
            periods=60,
            period_s=1,
            period_deviation=0.05,
            correlation=0.6,
        ),
        (5,),
    ),
)
SEVERAL_RUNS = tuple(replace(world, runs=runs) for world, counts in _OF_RUNS for runs in counts)
"""Worlds in which several runs are compared with as many."""

QUICK = tuple(
    replace(world, rate=world.rate if world.load else 20)
    for world in (*ONE_RUN, *SEVERAL_RUNS)
    if (world.runs in (1, 5) and world.level) and (world.periods <= 30)
)
"""Worlds that the test suite looks at, with fewer requests."""

HEADINGS = (
    *("world", "runs a side", "periods", "requests a run", "claimed", "false alarms"),
    *("p99 cannot be judged", "median +20 % found", "p99 +20 % found", "any time +20 % found", "comparisons"),
)


def about(world: World) -> tuple[str, ...]:
    """The first cells of a row: what its world is, and the level that is claimed."""
    level = "none" if world.level is None else f"{world.level:.0%}"
    return world.name, str(world.runs), f"{world.periods} x {world.period_s} s", f"{world.requests:,}", level


def figures_of(world: World, repeats: int) -> tuple[str, ...]:
    """A row of the table, from random numbers of its own: rows that share them would raise their false alarms together."""
    seed = crc32(repr(world).encode())
    null = list(comparisons(world, 1.0, repeats, seed))
    changed = list(comparisons(world, 1.2, max(1, repeats // 2), seed + 1))
    cannot = share([row_of(diff, P99) == "cannot be judged" for diff in changed])
    found = [share([called(diff, name) for diff in changed]) for name in (MEDIAN, P99, "")]
    shares = (share([called(diff) for diff in null]), cannot, *found)
    return (*about(world), *(f"{part:.1%}" for part in shares), str(repeats))


def tables(repeats: int, worlds: Sequence[Sequence[World]]) -> Iterator[str]:
    """Lines of Markdown: a table for each list of worlds."""
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        found = processes.map(partial(figures_of, repeats=repeats), [world for some in worlds for world in some])
        for some in worlds:
            yield f"| {' | '.join(HEADINGS)} |"
            yield f"| :-- {'| --: ' * (len(HEADINGS) - 1)}|"
            for _ in some:
                yield f"| {' | '.join(next(found))} |"
            yield ""


def main() -> None:
    """Prints the tables as Markdown, or writes them into docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400, help="Comparisons without a change, half as many with one.")
    parser.add_argument("--quick", action="store_true", help="A few worlds, with few requests and 20 repeats.")
    parser.add_argument(
        "--write", action="store_true", help="Put the rows into docs/statistics.md, in place of older ones."
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="Worlds whose rows begin like this: 'M/M/1, 80', 'runs do not differ | 3'.",
    )
    options = parser.parse_args()
    known = [QUICK] if options.quick else [ONE_RUN, SEVERAL_RUNS]
    worlds = [[world for world in some if " | ".join(about(world)).startswith(options.only)] for some in known]
    rows = []
    for line in tables(20 if options.quick else options.repeats, [some for some in worlds if some]):
        print(line, flush=True)
        rows.append(line)
    if options.write:
        page = ROOT / "docs" / "statistics.md"
        page.write_text(with_rows(page.read_text("utf-8"), rows), "utf-8")


def with_rows(page: str, rows: Sequence[str]) -> str:
    """The page with these rows in place of those about the same worlds. Raises ValueError for a row that is not there."""
    new = {_key(row): row for row in rows if row.count("|") > 2}
    lines = page.splitlines()
    missing = new.keys() - {_key(line) for line in lines}
    if missing:
        raise ValueError(f"docs/statistics.md has no row about {', '.join(map(str, missing))}")
    return "\n".join(new.get(_key(line), line) for line in lines) + "\n"


def _key(row: str) -> tuple[str, ...]:
    """What a row is about: all but its results."""
    return tuple(cell.strip() for cell in row.split("|")[1:6])


if __name__ == "__main__":
    main()
