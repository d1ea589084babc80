"""Checks whether the predictions of `loadgen plan` come true, for 30 arrangements. Takes about 25 minutes, prints Markdown.

    python -m benchmarks.planning [--only 3,7] [--seconds 12]

An application computes for a while, holds a connection while it computes and while a statement sleeps, and computes again. An
arrangement is a kind of worker (gevent, threads, sync) and their number, the CPU time, the statement's time, the pool's
size, and a load as a share of the rate at which the arrangement is full. Each is measured calmly once, with many connections
and a fifth of that rate. From that report alone `plan` predicts two more runs: one below the knee, of which the mean wait
for a connection (within 10 % or 0.5 ms) and the p99 of the response time (within 15 % or 2 ms) must come true, and one with
as many users as keep everything busy, each asking again when it has its answer, whose rate, the knee's, must (within 10 %).

Statements take an exponential time, one of 500, the same ones in every run; CPU time is constant. `late` is the p99 of how far
the generator fell behind its plan: where it is not small, the machine was busy with something else, and the run counts for
nothing. The model gets the plan's rate and draws its own arrivals, so a mean wait of a short run may differ by chance.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from benchmarks.awake import cores_awake
from loadgen.closed import Workload
from loadgen.http.route import Origin
from loadgen.lab.own_app import OwnAppOptions, arranged, prove
from loadgen.lab.own_server import OwnApplication
from loadgen.runner import run_ab, run_script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.sizing.grounds import grounds
from loadgen.sizing.measured import POOL, MeasuredWorkload, workload
from loadgen.sizing.predict import Question, predict, remedy
from loadgen.sizing.simulate import Arrangement
from loadgen.watch.console import Console
from reports import names
from reports.formats import markdown
from reports.formats.apachebench import AbReport
from reports.model import Report, ReportError

CALM, BEYOND = 0.2, 1.5
PATIENCE_S = 60.0
MANY = 20
THREADS = 8
STATEMENTS = -np.log(1 - np.random.default_rng(1).permutation((np.arange(500) + 0.5) / 500))
"""500 values of an exponential law with a mean of 1, in the order in which requests ask for them."""
WAIT_WITHIN, WAIT_MS, TAIL_WITHIN, TAIL_MS, KNEE_WITHIN = 0.10, 0.5, 0.15, 2.0, 0.10
LATE_MS = 10.0

APPLICATION = """
import os, time
from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError

engine = create_engine(os.environ["DATABASE_URL"], isolation_level="AUTOCOMMIT")

def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def app(environ, start_response):
    cpu_s, _, statement_s = environ["QUERY_STRING"].partition(",")
    status = "200 OK"
    if cpu_s:
        compute(float(cpu_s) / 4)
        try:
            with engine.connect() as connection:
                compute(float(cpu_s) / 2)
                connection.exec_driver_sql("SELECT pg_sleep(%s)", (float(statement_s),))
        except TimeoutError:
            status = "503 Service Unavailable"
        compute(float(cpu_s) / 4)
    start_response(status, [("Content-Length", "2"), ("Content-Type", "text/plain")])
    return [b"ok"]
"""


@dataclass(frozen=True)
class PlannedArrangement:
    """One arrangement and its load."""

    worker: str
    workers: int
    cpu_ms: float
    statement_ms: float
    size: int
    load: float
    """Share of the rate at which the arrangement is full, as estimated from its figures."""

    @property
    def slots(self) -> int | None:
        """Requests that each worker works on at a time."""
        return {"gevent": None, "gthread": THREADS, "sync": 1}[self.worker]

    @property
    def full_per_s(self) -> float:
        """Requests per second at which the CPU, the connections or the slots are all busy: the least of the three."""
        cpu_s, statement_s = (self.cpu_ms + 1) / 1000, self.statement_ms / 1000
        held_s = cpu_s / 2 + statement_s
        most = [1 / cpu_s, self.size / held_s]
        if self.slots is not None:
            most.append(self.slots / (cpu_s + statement_s))
        return self.workers * min(most)

    def __str__(self) -> str:
        return f"{self.workers} {self.worker}, CPU {self.cpu_ms:g} ms, statement {self.statement_ms:g} ms, pool of {self.size}"


def of(worker: str, *rows: tuple[int, float, float, int, float]) -> Iterator[PlannedArrangement]:
    """Arrangements of one kind of worker, from rows of workers, CPU ms, statement ms, size and load."""
    return (PlannedArrangement(worker, *row) for row in rows)


ARRANGEMENTS = (
    *of(
        "gevent",
        (1, 1, 5, 2, 0.7),
        (1, 1, 20, 4, 0.8),
        (1, 1, 40, 10, 0.7),
        (1, 3, 5, 2, 0.6),
        (1, 3, 10, 10, 0.7),
        (1, 3, 40, 10, 0.8),
        (1, 8, 5, 2, 0.6),
        (1, 8, 20, 10, 0.7),
        (1, 8, 40, 3, 0.7),
        (1, 15, 10, 5, 0.6),
        (2, 1, 40, 3, 0.8),
        (2, 3, 20, 2, 0.7),
    ),
    *of(
        "gthread",
        (1, 1, 20, 2, 0.7),
        (1, 1, 40, 4, 0.8),
        (1, 1, 40, 8, 0.7),
        (1, 3, 10, 4, 0.6),
        (1, 3, 40, 4, 0.7),
        (1, 3, 40, 8, 0.7),
        (1, 8, 10, 2, 0.6),
        (1, 8, 40, 4, 0.7),
        (1, 15, 20, 8, 0.6),
        (2, 3, 40, 3, 0.7),
    ),
    *of(
        "sync",
        (1, 1, 10, 1, 0.6),
        (2, 1, 20, 1, 0.6),
        (2, 3, 10, 1, 0.7),
        (2, 8, 10, 1, 0.6),
        (3, 3, 20, 1, 0.7),
        (4, 1, 40, 1, 0.7),
        (4, 3, 40, 1, 0.6),
        (4, 8, 40, 1, 0.5),
    ),
)


def options(arrangement: PlannedArrangement, folder: Path) -> OwnAppOptions:
    """The application under the arrangement's workers."""
    kind = {"gevent": "gevent", "gthread": f"gthread --threads {THREADS}", "sync": "sync"}[arrangement.worker]
    server = f"gunicorn -k {kind} -w {arrangement.workers} --backlog 4096 -b {{host}}:{{port}} planned:app"
    own = OwnApplication("planned:app", folder, Path(sys.executable), server)
    return OwnAppOptions(own, "", folder / "out", servers=arrangement.workers)


def text_of(arrangement: PlannedArrangement, rate_per_s: float, seconds: float) -> str:
    """A script of users at random instants, one request each."""
    config = {
        "target": "http://127.0.0.1:1",
        "phases": [{"duration": seconds, "arrivalRate": round(rate_per_s, 2)}],
        "payload": {"path": "statements.csv", "fields": ["seconds"], "order": "sequence"},
    }
    flow = [{"get": {"url": f"/?{arrangement.cpu_ms / 1000},{{{{ seconds }}}}"}}]
    return json.dumps({"config": config, "scenarios": [{"flow": flow}]})


def run(
    arrangement: PlannedArrangement, size: int, rate_per_s: float, seconds: int, folder: Path, *, closed: bool = False
) -> tuple[Report, float]:
    """One run with connections and workers warm, and after it, if `closed`, the knee's rate.

    Raises KeyboardInterrupt if a signal ended it.
    """
    statements = "".join(f"{value * arrangement.statement_ms / 1000:.6f}\n" for value in STATEMENTS).encode()
    chosen = options(arrangement, folder)
    settings = {"DB_POOL_SIZE": str(size), "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}
    (folder / "load.json").write_text(text_of(arrangement, 5, 1))
    (folder / "statements.csv").write_bytes(statements)
    with arranged(chosen, lambda _: None) as parts, parts.served("fair", settings, folder / "server.log") as served:
        prove(served, OwnAppOptions(chosen.application, str(folder / "load.json"), chosen.out), lambda _: None)
        for phase_rate, phase_s in ((min(rate_per_s, arrangement.full_per_s / 2), 2), (rate_per_s, seconds)):
            text = text_of(arrangement, phase_rate, phase_s)
            given = RunOptions(target=served.servers.url, poisson=True, env={})
            script = parse_script([("planned.json", text)], given, lambda _path: statements)
            done = run_script(script, Console(lambda _: None), lambda _: None, 1)
            if done.signal is not None:
                raise KeyboardInterrupt
        return done.report, _knee(arrangement, served.servers.port, seconds) if closed else 0.0


def _knee(arrangement: PlannedArrangement, port: int, seconds: float) -> float:
    """Answers per second to as many users as keep everything busy, each asking again when it has its answer."""
    users = arrangement.workers * (2 * arrangement.size + (arrangement.slots or 0) + 4)
    path = f"/?{arrangement.cpu_ms / 1000},{arrangement.statement_ms / 1000}"
    origin = Origin("http", "127.0.0.1", port)
    done = run_ab(Workload(origin, path, 10**9, users, seconds, keep_alive=False, timeout_s=PATIENCE_S), lambda _: None)
    if done.signal is not None:
        raise KeyboardInterrupt
    return AbReport.of(done.samples).requests_per_second or 0.0


def question(arrangement: PlannedArrangement, base: MeasuredWorkload, rate_per_s: float) -> Question:
    """What `plan` is asked."""
    worker = Arrangement(
        servers=arrangement.workers,
        size=arrangement.size,
        timeout_s=5.0,
        slots=arrangement.slots,
        turn_s=0.005 if arrangement.worker == "gthread" else float("inf"),
    )
    return Question(base, worker, (arrangement.size,), rate_per_s, arrival_variation=1.0, requests=40_000)


def is_near(seen: float, said: float, share: float, least: float = 0.0) -> bool:
    """Whether a prediction is within a share of what was measured, or within `least`."""
    return abs(said - seen) <= max(share * seen, least)


def row(number: int, arrangement: PlannedArrangement, seconds: int, folder: Path) -> tuple[str, ...]:
    """Measure, predict and compare one arrangement: a row of the table."""
    calm_per_s = CALM * arrangement.full_per_s
    calm_s = max(seconds, ceil(300 / calm_per_s))
    calm, _ = run(arrangement, MANY if arrangement.slots != 1 else 1, calm_per_s, calm_s, folder)
    base = workload(calm)
    try:
        grounds(calm, base, arrangement.workers)
    except ReportError as error:
        return (str(number), str(arrangement), *[""] * 8, f"not counted: {error}", "")
    per_s = arrangement.load * arrangement.full_per_s
    below, knee_per_s = run(arrangement, arrangement.size, per_s, seconds, folder, closed=True)
    (said,) = predict(question(arrangement, base, per_s))
    sketches = below.aggregate.sketches
    wait_ms, tail_ms = sketches[POOL].mean, sketches[names.RESPONSE_TIME].quantile(0.99)
    late_ms = sketches[names.START_LAG].quantile(0.99)
    met = (
        is_near(wait_ms, said.wait_mean_ms, WAIT_WITHIN, WAIT_MS),
        is_near(tail_ms, said.response_p99_ms, TAIL_WITHIN, TAIL_MS),
        is_near(knee_per_s, said.knee_per_s, KNEE_WITHIN),
    )
    verdict = "late" if late_ms > LATE_MS else "met" if all(met) else "missed"
    beyond = question(arrangement, base, BEYOND * arrangement.full_per_s)
    return (
        *(str(number), str(arrangement), f"{per_s:.0f}", f"{late_ms:.1f}"),
        *(f"{wait_ms:.2f}", f"{said.wait_mean_ms:.2f}", f"{tail_ms:.1f}", f"{said.response_p99_ms:.1f}"),
        *(f"{knee_per_s:.1f}", f"{said.knee_per_s:.1f}", verdict, remedy(beyond, list(predict(beyond)))[0]),
    )


def main() -> None:
    """Go through the arrangements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=12, help="of each run (12)")
    parser.add_argument("--only", default="", help="numbers of arrangements, separated by commas (all)")
    given = parser.parse_args()
    chosen = [int(each) for each in given.only.split(",") if each] or range(1, len(ARRANGEMENTS) + 1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "planned.py").write_text(APPLICATION)
        for number in chosen:
            rows.append(row(number, ARRANGEMENTS[number - 1], given.seconds, folder))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    both = ("measured", "predicted")
    headings = (
        *("number", "arrangement", "requests/s", "late p99, ms"),
        *(f"{what} {side}" for what in ("mean wait, ms,", "p99, ms,", "knee/s") for side in both),
        *("", "to change first beyond it"),
    )
    print(markdown.table(headings, rows))
    counted = [each for each in rows if each[-2] in {"met", "missed"}]
    print(
        f"{sum(each[-2] == 'met' for each in counted)} of {len(counted)} met; {len(rows) - len(counted)} not counted."
    )


if __name__ == "__main__":
    with cores_awake():
        main()
