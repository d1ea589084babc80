"""How often a duel calls two equal services different, and how often it finds one that is 10 % slower, beside a busy neighbour.

`python -m benchmarks.duel` prints the tables of docs/duel.md that are simulated; `--write` puts them there; `--quick` takes a
minute, `--only TEXT` makes the rows of some worlds. `--real N` makes N real duels of each kind instead, of `--seconds` each: two
servers on this machine that answer after times drawn from a known distribution, and a neighbour that keeps every core busy for
random lengths of time. With `--results FILE` they can be made in pieces.

Simulated: each side gets Poisson arrivals, dealt in pairs. A response takes a lognormal time (median 20 ms, log deviation
0.3), and a share of a single server's time before, so that responses of one side wait for each other. The neighbour makes
everything on both sides slower for random lengths of time; the level of the machine drifts besides. Two runs one after the
other are of the same world, each with a neighbour of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from math import exp, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np

from reports import names
from reports.compare.diff import Diff, compare, compare_paired
from reports.compare.statistics import Floats
from reports.model import PERIOD_MS, Period, Rate, Report, Second, Summary
from reports.sketch import Sketch

ROOT = Path(__file__).parents[1]
P99 = f"{names.RESPONSE_TIME}.p99"
BEGINS, ENDS = "<!-- benchmarks/duel.py writes from here -->", "<!-- to here -->"
REAL_BEGINS = "<!-- benchmarks/duel.py --real writes from here -->"
TICK_S = 0.1


@dataclass(frozen=True)
class World:
    """A machine with a service on it."""

    name: str
    seconds: int = 120
    rate: float = 100.0
    """Requests per second of each side."""
    burst_s: float = 3.0
    """Mean length of the neighbour's bursts, exponential; 0: there is no neighbour."""
    pause_s: float = 7.0
    """Mean time between them, exponential."""
    slower: tuple[float, float] = (1.5, 5.0)
    """By how much a burst makes everything slower, on both sides alike: from, to."""
    drift: float = 0.15
    """Standard deviation of the logarithm of the machine's own level, a first-order autoregression of 30 s."""
    load: float = 0.1
    """Share of a side's single server that is busy without a neighbour."""
    spread: float = 0.3
    """Standard deviation of the logarithm of the time that a response takes after it."""


WORLDS = (
    World("no neighbour", burst_s=0.0, drift=0.0, load=0.0),
    World("bursts of 3 s on average"),
    World("bursts of 0.5 s", burst_s=0.5, pause_s=1.5),
    World("bursts of 15 s", burst_s=15.0, pause_s=30.0),
    World("the single server busy 30 %: bursts overload it", load=0.3),
    World("the single server busy 50 %: most bursts overload it", load=0.5),
    World("nothing but the queue (M/M/1), 80 % load", burst_s=0.0, drift=0.0, load=0.8, spread=0.0),
    World("nothing but the queue (M/M/1), 95 % load", burst_s=0.0, drift=0.0, load=0.95, spread=0.0),
    World("nothing but the queue (M/M/1), 98 % load", burst_s=0.0, drift=0.0, load=0.98, spread=0.0),
    World("bursts of 3 s, duels of 1 minute", seconds=60),
    World("bursts of 3 s, duels of 30 s", seconds=30),
)


def levels(world: World, rng: np.random.Generator) -> Floats:
    """By how much the machine is slower than at rest, in each tick."""
    ticks = int((world.seconds + 60) / TICK_S)
    log_level = np.empty(ticks)
    kept, at = exp(-TICK_S / 30), rng.normal(0, world.drift)
    for i in range(ticks):
        log_level[i] = at
        at = kept * at + sqrt(1 - kept * kept) * rng.normal(0, world.drift)
    slower: Floats = np.exp(log_level)
    now_s = 0.0
    while world.burst_s and now_s < world.seconds:
        begins = now_s + rng.exponential(world.pause_s)
        now_s = begins + rng.exponential(world.burst_s)
        slower[int(begins / TICK_S) : int(now_s / TICK_S)] *= exp(rng.uniform(*np.log(world.slower)))
    return slower


def dealt(world: World, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Instants of arrivals of both sides in s: of any two in a row each side has one."""
    both = np.sort(rng.uniform(0, world.seconds, rng.poisson(world.rate * world.seconds) * 2)).reshape(-1, 2)
    coin = rng.integers(0, 2, len(both))
    rows = np.arange(len(both))
    return both[rows, coin], both[rows, 1 - coin]


def side(world: World, arrivals: Floats, slower: Floats, factor: float, rng: np.random.Generator) -> Report:
    """What a side reports whose responses take `factor` times as long."""
    level = factor * slower[(arrivals / TICK_S).astype(int)]
    times = level * np.exp(rng.normal(3, world.spread, len(arrivals))) if world.spread else np.zeros(len(arrivals))
    if world.load:
        mean_ms = 1000 * world.load / world.rate
        served = level * rng.exponential(mean_ms, len(arrivals))
        before = rng.exponential(mean_ms / (1 - world.load)) if rng.random() < world.load else 0.0
        steps = np.concatenate([[before], served[:-1] - 1000 * np.diff(arrivals)]).cumsum()
        times = times + served + steps - np.minimum(np.minimum.accumulate(steps), 0)
    return Report.of(_periods(arrivals, times))


def _periods(arrivals: Floats, times: Floats) -> Iterator[Period]:
    """Sent and answered in their own seconds, as the recorder files them."""
    answered_s = (arrivals + times / 1000).astype(int)
    sent = np.bincount(arrivals.astype(int))
    seconds = [
        Second(1000 * i, int(sent[i]) if i < len(sent) else 0, len(here), response_time=Sketch.of(here))
        for i in range(int(answered_s.max()) + 1)
        if len(here := times[answered_s == i]) or (i < len(sent) and sent[i])
    ]
    for start in range(0, seconds[-1].start_ms + 1, PERIOD_MS):
        inside = [second for second in seconds if start <= second.start_ms < start + PERIOD_MS]
        sketch = Sketch.merged(second.response_time for second in inside if second.response_time)
        count = sum(second.requests for second in inside)
        if not sketch.count:
            continue
        yield Period(
            start_ms=start,
            counters={names.REQUESTS: count},
            rates={names.REQUEST_RATE: Rate.of(count, start, start + PERIOD_MS)} if count else {},
            summaries={names.RESPONSE_TIME: Summary.of(sketch)},
            sketches={names.RESPONSE_TIME: sketch},
            seconds=inside,
        )


def duel(world: World, factor: float, rng: np.random.Generator) -> Diff:
    """A duel: B's responses take `factor` times as long as A's."""
    slower, (a, b) = levels(world, rng), dealt(world, rng)
    return compare_paired(side(world, a, slower, 1.0, rng), side(world, b, slower, factor, rng))


def one_after_the_other(world: World, factor: float, rng: np.random.Generator) -> Diff:
    """Two runs, each as long as a duel and with as many requests as one of its sides, compared as `loadgen diff` does."""
    a, b = (side(world, dealt(world, rng)[0], levels(world, rng), by, rng) for by in (1.0, factor))
    return compare(a, b)


def called(diff: Diff, name: str = "") -> bool:
    """Whether a figure (any, without a name) is called better or worse."""
    return any(row.verdict in ("better", "worse") for row in diff.rows if not name or row.name == name)


def worse(diff: Diff) -> bool:
    """Whether the p99 is called worse."""
    return any(row.name == P99 and row.verdict == "worse" for row in diff.rows)


def covers(diff: Diff, factor: float) -> bool:
    """Whether the interval of the p99's change holds the true one."""
    row = next(row for row in diff.rows if row.name == P99)
    return row.span is not None and row.span.low <= np.log(factor) <= row.span.high


HEADINGS = (
    *("world", "duels: false alarms", "p99 +10 % found", "interval of p99 holds the truth"),
    *("two runs: false alarms", "p99 +10 % found", "duels of each kind"),
)


def figures_of(world: World, repeats: int) -> tuple[str, ...]:
    """A row of the table, from random numbers of its own."""
    rng = np.random.default_rng(crc32(repr(world).encode()))
    duels = [[duel(world, factor, rng) for _ in range(repeats)] for factor in (1.0, 1.1)]
    runs = [[one_after_the_other(world, factor, rng) for _ in range(repeats)] for factor in (1.0, 1.1)]
    # Where responses wait for each other, by how much they become longer is not known.
    known = (1.0, 1.1) if world.load <= 0.1 else (1.0,)
    held = np.mean([covers(d, factor) for factor, some in zip(known, duels, strict=False) for d in some])
    found = [np.mean([called(d) for d in some[0]]) for some in (duels, runs)]
    power = [np.mean([worse(d) for d in some[1]]) for some in (duels, runs)]
    return world.name, *(f"{figure:.1%}" for figure in (found[0], power[0], held, found[1], power[1])), str(repeats)


def table(repeats: int, worlds: Sequence[World]) -> Iterator[str]:
    """Lines of Markdown; the rows are shared among as many processes as the machine has cores."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"| :-- {'| --: ' * (len(HEADINGS) - 1)}|"
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for row in processes.map(partial(figures_of, repeats=repeats), worlds):
            yield f"| {' | '.join(row)} |"


# Real duels

SERVER = """
from gevent import monkey
monkey.patch_all()
import random, sys
import gevent
from gevent.server import StreamServer
factor, draw = float(sys.argv[1]), random.Random()
def answer(connection, _):
    pending = b""
    while data := connection.recv(65536):
        pending += data
        while b"\\r\\n\\r\\n" in pending:
            pending = pending.partition(b"\\r\\n\\r\\n")[2]
            gevent.sleep(factor * draw.lognormvariate(3, 0.3) / 1000)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
server = StreamServer(("127.0.0.1", 0), answer)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""
"""A server that answers after a drawn time: lognormal, median 20 ms, log deviation 0.3, times its argument."""

NEIGHBOUR = """
import random, time
draw = random.Random()
while True:
    time.sleep(draw.expovariate(1 / 3))
    until = time.monotonic() + draw.expovariate(1 / 2)
    while time.monotonic() < until:
        pass
"""
"""Keeps a core busy for 2 s on average, then leaves it for 3 s."""


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` while inside."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def servers(factor: float) -> Iterator[list[str]]:
    """URLs of two servers, the second of which takes `factor` times as long."""
    with ExitStack() as running:
        started = [running.enter_context(child(SERVER, str(by))) for by in (1.0, factor)]
        yield [f"http://127.0.0.1:{process.stdout.readline().strip()}" for process in started if process.stdout]


@dataclass(frozen=True)
class RealRound:
    """What one real duel and two runs one after the other, of the same servers, called better or worse."""

    factor: float
    """By how much B's times are longer."""
    seconds: int
    duel_any: bool
    duel_p99: bool
    runs_any: bool
    runs_p99: bool


def real_round(factor: float, seconds: int) -> RealRound:
    """A real duel and two real runs one after the other, beside a neighbour on each of two cores."""
    with ExitStack() as opened:
        urls = opened.enter_context(servers(factor))
        folder = Path(opened.enter_context(TemporaryDirectory()))
        for _ in range(2):
            opened.enter_context(child(NEIGHBOUR))
        return RealRound(factor, seconds, *_real_verdicts(urls, folder, seconds))


def real_table(rounds: Sequence[RealRound]) -> Iterator[str]:
    """Lines of Markdown: a row for each factor and length."""
    yield "| B's times | duels | any figure called | p99 worse | two runs, any figure called | p99 worse |"
    yield "| :-- | :-- | --: | --: | --: | --: |"
    for factor, seconds in sorted({(each.factor, each.seconds) for each in rounds}):
        some = [each for each in rounds if (each.factor, each.seconds) == (factor, seconds)]
        columns = zip(*((r.duel_any, r.duel_p99, r.runs_any, r.runs_p99) for r in some), strict=True)
        counts = " | ".join(f"{sum(column)} of {len(some)}" for column in columns)
        times = "A's" if factor == 1 else f"{factor} times A's"
        yield f"| {times} | {len(some)} of {seconds} s | {counts} |"


def _real_verdicts(urls: list[str], folder: Path, seconds: int) -> tuple[bool, bool, bool, bool]:
    def script(rate: int) -> str:
        path = folder / f"{rate}.json"
        plan = {"target": urls[0], "phases": [{"duration": seconds, "arrivalRate": rate}]}
        path.write_text(json.dumps({"config": plan, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}), "utf-8")
        return str(path)

    found = json.loads(_loadgen("duel", *urls, script(200), "--format", "json"))
    reports = [str(folder / name) for name in ("a.json", "b.json")]
    for url, path in zip(urls, reports, strict=True):
        _loadgen("run", script(100), "--target", url, "--output", path, "--quiet")
    after = json.loads(_loadgen("diff", *reports, "--format", "json"))
    verdicts = [{row["name"]: row["verdict"] for row in some["metrics"]} for some in (found, after)]
    duelled, run = ((bool({"better", "worse"} & set(v.values())), v[P99] == "worse") for v in verdicts)
    return *duelled, *run


def _loadgen(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "loadgen", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    """Prints a table as Markdown, or writes it into docs/duel.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400, help="Simulated duels of each kind, per world.")
    parser.add_argument("--quick", action="store_true", help="Three worlds and 40 repeats.")
    parser.add_argument("--only", default="", metavar="TEXT", help="Simulated worlds whose names contain this.")
    parser.add_argument("--write", action="store_true", help="Put the rows into docs/duel.md, in place of older ones.")
    parser.add_argument("--real", type=int, metavar="N", help="N real duels of each kind instead; 0: only their table.")
    parser.add_argument("--seconds", type=int, default=60, help="Length of a real duel.")
    parser.add_argument("--factor", type=float, action="append", help="Real duels of this kind only: 1 or 1.1.")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="Add real duels to this file; the table has all in it."
    )
    options = parser.parse_args()
    if options.real is None:
        worlds = WORLDS[:3] if options.quick else [world for world in WORLDS if options.only in world.name]
        lines = _shown(table(40 if options.quick else options.repeats, worlds))
        marks = BEGINS, ENDS
    else:
        lines = _shown(
            real_table(_real_rounds(options.real, options.factor or [1.0, 1.1], options.seconds, options.results))
        )
        marks = REAL_BEGINS, ENDS
    if options.write:
        page = ROOT / "docs" / "duel.md"
        page.write_text(with_rows(page.read_text("utf-8"), lines, *marks), "utf-8")


def _real_rounds(count: int, factors: Sequence[float], seconds: int, kept: Path | None) -> list[RealRound]:
    """New rounds, and before them those that the file has from earlier ones; each is added to it as it ends."""
    lines = kept.read_text("utf-8").splitlines() if kept is not None and kept.exists() else []
    rounds = [RealRound(**json.loads(line)) for line in lines]
    for _ in range(count):
        for factor in factors:
            rounds.append(real_round(factor, seconds))
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(rounds[-1])) + "\n")
    return rounds


def _shown(lines: Iterator[str]) -> list[str]:
    """The lines, each printed as it comes."""
    found = []
    for line in lines:
        print(line, flush=True)
        found.append(line)
    return found


def with_rows(page: str, rows: Sequence[str], begins: str, ends: str) -> str:
    """The page with these rows between two marks; rows of other worlds stay where they are."""
    above, rest = page.split(begins)
    old, below = rest.split(ends, 1)
    new = {_world_of(row): row for row in rows}
    kept = [line for line in old.strip().splitlines() if line]
    if new.keys() <= {_world_of(line) for line in kept} and len(rows) < len(kept):
        rows = [new.get(_world_of(line), line) for line in kept]
    return "\n".join([above + begins, "", *rows, "", ends]) + below


def _world_of(row: str) -> str:
    return row.split("|")[1].strip()


if __name__ == "__main__":
    main()
