"""Whether the predictions of `loadgen plan` come true. Takes about 5 minutes and prints Markdown.

    python -m benchmarks.planning

A service with the fair pool (one gunicorn worker under gevent, PostgreSQL through psycopg2) holds a connection during a
query that sleeps as long as the request says: one of 500 durations, 40 ms plus an exponential with a mean of 60 ms. One run
is measured, with ten connections at half their capacity. Its report alone gives the hold times and the length of a pass of
the event loop. Then each size and load is predicted, and run.

Both sides get the same chance, so that a difference is the model's fault. The arrivals are those of the generator's plan,
which its seed fixes beforehand, and each request gets, among the measured holds, the quantile that its duration has among
the 500. (With holds drawn anew, a perfect model would miss every fourth cell of runs this short.) Load is relative to
capacity, which is size / mean measured hold. Up to 90 % a request may wait 5 s; above that half a second, with at most
seven waiters per connection.

Waits are the sketches of the Server-Timing entry `pool`; a lost request is an answer of 503, for the timeout or the full
queue. `late` is how far the generator fell behind its plan, and `held` the mean hold in that very run. Where a busy machine
delays arrivals or lengthens holds, it differs from the measured run, and the prediction must miss.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.awake import cores_awake
from db.embedded import temporary_postgres
from loadgen.lab import fairness
from loadgen.lab.stack import Servers, query
from loadgen.runner import run_script
from loadgen.schedule import arrivals
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.sizing.measured import POOL, MeasuredWorkload, workload
from loadgen.sizing.simulate import SERVED, Arrangement, simulate
from loadgen.watch.console import Console
from reports import names
from reports.compare.quantiles import interpolated
from reports.formats import markdown
from reports.model import Report

MEASURED_SIZE, MEASURED_LOAD, MEASURED_S = 10, 0.5, 20.0
SIZES = (2, 5, 10, 20, 40)
CALM, OVERLOADED = (0.5, 0.7, 0.9), (1.3, 1.6)
CALM_PATIENCE_S, LITTLE_PATIENCE_S, WAITING_PER_CONNECTION = 5.0, 0.5, 7
QUANTILES = np.random.default_rng(1).permutation((np.arange(500) + 0.5) / 500)
"""The 500 durations, in the order in which requests ask for them."""
DURATIONS_S = 0.04 - 0.06 * np.log(1 - QUANTILES)
WITHIN, WITHIN_MS, LOST_WITHIN = 0.15, 2.0, 0.05

SERVICE = """
import os
from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError

engine = create_engine(os.environ["DATABASE_URL"], isolation_level="AUTOCOMMIT")

def application(environ, start_response):
    status = "200 OK"
    if environ["QUERY_STRING"]:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(%s)", (float(environ["QUERY_STRING"]),))
        except TimeoutError:
            status = "503 Service Unavailable"
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]
"""


@dataclass(frozen=True)
class Cell:
    """One pool size under one load."""

    size: int
    load: float
    rate_per_s: float
    seconds: float
    seed: int

    def script(self, url: str) -> Script:
        """The script: users at random instants, one request each."""
        config = {
            "target": url,
            "phases": [{"duration": self.seconds, "arrivalRate": self.rate_per_s}],
            "payload": {"path": "durations.csv", "fields": ["seconds"], "order": "sequence"},
        }
        flow = [{"get": {"url": "/?{{ seconds }}"}}]
        text = json.dumps({"config": config, "scenarios": [{"flow": flow}]})
        durations = "".join(f"{seconds:.6f}\n" for seconds in DURATIONS_S).encode()
        return parse_script([("planning.json", text)], RunOptions(poisson=True, env={}), lambda _path: durations)


@dataclass(frozen=True)
class Figures:
    """What was measured or predicted for a cell."""

    p50_ms: float
    p99_ms: float
    served_per_s: float
    lost: float
    """Share of the requests that were lost."""
    hold_ms: float = nan
    """Mean wait of the requests that were served."""
    lag_ms: float = nan
    """How much later than planned users arrived, at the 99th percentile."""


@contextmanager
def service(database_url: str, size: int, folder: Path, *, is_calm: bool) -> Iterator[str]:
    """Run a server inside the block whose connections are all open; yields its URL."""
    pool = {
        "pool_size": size,
        "max_overflow": 0,
        "min_size": size,
        "pool_timeout": CALM_PATIENCE_S if is_calm else LITTLE_PATIENCE_S,
        "max_waiting": WAITING_PER_CONNECTION * size,
    }
    program = replace(fairness.program(), application="service:application", folder=folder)
    settings = {"DATABASE_URL": fairness.with_pool(database_url, "fair", **pool)}
    with Servers(program, 1, settings, folder / "service.log") as servers:
        open_now = "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'"
        # Housekeeping opens them once the first has been asked for.
        while not servers.answers("/?0") or query(database_url, open_now) != [(size,)]:
            time.sleep(0.1)
        yield servers.url


def run(url: str, cell: Cell) -> Report:
    """End the program where an answer is missing, or is neither 200 nor 503."""
    done = run_script(cell.script(url), Console(lambda _: None), lambda _: None, cell.seed)
    if done.signal is not None:
        sys.exit(128 + done.signal)
    counters = done.report.aggregate.counters
    answered = counters.get("http.codes.200", 0) + counters.get("http.codes.503", 0)
    if answered != counters["vusers.created"] or answered != len(planned(cell)):
        sys.exit(f"{cell}: {len(planned(cell))} users planned, {counters['vusers.created']} made, {answered} answered")
    return done.report


def planned(cell: Cell) -> np.ndarray:
    """The instants at which the run's users begin, in s, as the runner draws them from the seed."""
    phases = cell.script("http://localhost").phases
    return np.array([at_ns for at_ns, _ in arrivals(phases, Random(Random(cell.seed).getrandbits(64)))]) / 1e9


def measured(report: Report, cell: Cell) -> Figures:
    """What the report says of a cell."""
    counters, sketches = report.aggregate.counters, report.aggregate.sketches
    served, lost = counters.get("http.codes.200", 0), counters.get("http.codes.503", 0)
    p50_ms, p99_ms = (sketches[POOL].quantile(q) for q in (0.5, 0.99))
    return Figures(
        p50_ms,
        p99_ms,
        served / cell.seconds,
        lost / (served + lost),
        hold_ms=workload(report).holds.mean,
        lag_ms=sketches[names.START_LAG].quantile(0.99),
    )


def predicted(base: MeasuredWorkload, cell: Cell) -> Figures:
    """What the measured workload and the plan of arrivals predict for a cell."""
    arrived_s = planned(cell)
    arrangement = Arrangement(
        size=cell.size,
        timeout_s=CALM_PATIENCE_S if cell.load < 1 else LITTLE_PATIENCE_S,
        max_waiting=WAITING_PER_CONNECTION * cell.size,
        wake_s=base.own_s,
    )
    holds_s = np.array([interpolated(base.holds, q) for q in QUANTILES]) / 1000
    outcome = simulate(arrangement, arrived_s, np.resize(holds_s, len(arrived_s)))
    p50_ms, p99_ms = np.quantile(outcome.granted_s - arrived_s, (0.5, 0.99), method="lower") * 1000
    served = outcome.share(SERVED)
    return Figures(p50_ms, p99_ms, served * len(arrived_s) / cell.seconds, 1 - served)


def is_near(seen: float, said: float, share: float, least: float = 0.0) -> bool:
    """Whether a prediction is within a share of what was measured, or within `least`."""
    return abs(said - seen) <= max(share * seen, least)


def calm_row(cell: Cell, seen: Figures, said: Figures) -> tuple[str, ...]:
    """The table of waits."""
    met = all(is_near(getattr(seen, name), getattr(said, name), WITHIN, WITHIN_MS) for name in ("p50_ms", "p99_ms"))
    return (
        *(str(cell.size), f"{cell.load:.0%}", f"{cell.rate_per_s:.1f}"),
        *(f"{seen.lag_ms:.1f}", f"{seen.hold_ms:.1f}"),
        *(f"{seen.p50_ms:.1f}", f"{said.p50_ms:.1f}", f"{seen.p99_ms:.1f}", f"{said.p99_ms:.1f}"),
        "met" if met else "missed",
    )


def overload_row(cell: Cell, seen: Figures, said: Figures) -> tuple[str, ...]:
    """The table of requests that were served and lost."""
    met = is_near(seen.served_per_s, said.served_per_s, LOST_WITHIN) and is_near(seen.lost, said.lost, LOST_WITHIN)
    return (
        *(str(cell.size), f"{cell.load:.0%}", f"{cell.rate_per_s:.1f}"),
        *(f"{seen.lag_ms:.1f}", f"{seen.hold_ms:.1f}"),
        *(f"{seen.served_per_s:.1f}", f"{said.served_per_s:.1f}", f"{seen.lost:.1%}", f"{said.lost:.1%}"),
        "met" if met else "missed",
    )


def tables(base: MeasuredWorkload, cells: list[tuple[Cell, Figures, Figures]]) -> str:
    """The whole result as Markdown."""
    hold, own_ms = base.holds, base.own_s * 1000
    premise = (
        f"Predicted from one run of {base.waits.count} loans at {base.rate_per_s:.1f}/s with {MEASURED_SIZE} connections: "
        f"held for {hold.mean:.1f} ms on average (p50 {hold.quantile(0.5):.1f}, p99 {hold.quantile(0.99):.1f} ms), a pass of "
        f"the event loop {own_ms:.2f} ms."
    )
    calm = [calm_row(*cell) for cell in cells if cell[0].load < 1]
    over = [overload_row(*cell) for cell in cells if cell[0].load > 1]
    first = ("size", "load", "requests/s", "late p99, ms", "held, ms")
    both = ("measured", "predicted")
    waits = markdown.table((*first, *(f"p{q} {side}, ms" for q in (50, 99) for side in both), ""), calm)
    losses = markdown.table((*first, *(f"{what} {side}" for what in ("served/s", "lost") for side in both), ""), over)
    return f"{premise}\n\n{waits}\n{losses}"


def main() -> None:
    """Measure once, then predict and run each cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=9.0, help="of each run (9)")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, temporary_postgres() as postgres:
        folder = Path(name)
        (folder / "service.py").write_text(SERVICE)
        first = Cell(
            MEASURED_SIZE, MEASURED_LOAD, MEASURED_LOAD * MEASURED_SIZE / DURATIONS_S.mean(), MEASURED_S, seed=1
        )
        with service(postgres.url, MEASURED_SIZE, folder, is_calm=True) as url:
            base = workload(run(url, first))
        for size in map(int, given.sizes.split(",")):
            for loads in (CALM, OVERLOADED):
                with service(postgres.url, size, folder, is_calm=loads == CALM) as url:
                    for load in loads:
                        rate_per_s = round(load * size / base.holds.mean * 1000, 1)
                        cell = Cell(size, load, rate_per_s, given.seconds, seed=100 * size + round(10 * load))
                        rows.append((cell, measured(run(url, cell), cell), predicted(base, cell)))
                        print(f"size {size}, load {load:.0%}: done", file=sys.stderr)
    print(tables(base, rows))


if __name__ == "__main__":
    with cores_awake():
        main()
