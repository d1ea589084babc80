"""Checks whether the predictions of `loadgen plan` come true, for 30 arrangements. Takes about 20 minutes.

    python -m benchmarks.planning [--only 3,7] [--seconds 8] [--into FILE] [--write]

An application computes for a while, holds a connection while it computes and while a statement sleeps, and computes again. An
arrangement is a kind of worker (gevent, threads, sync) and their number, the CPU time, the statement's time, the pool's
size, and a load as a share of the rate at which the arrangement is full. Each is measured calmly once, with many connections
and two fifths of that rate. From that report alone `plan` predicts two more runs: one below the knee, of which the mean wait
for a connection (within 10 % or 0.5 ms) and the p99 of the response time (within 15 % or 2 ms) must come true, and one with
as many users as keep everything busy, each asking again when it has its answer, whose rate, the knee's, must (within 10 %).

CPU time is constant. Statements take an exponential time. A mean wait of eight seconds varies by chance more than 10 %: twice
as many requests in one second, or two long statements at once. So the simulation gets the instants at which the requests
of the run were sent, and the rank of each one's statement; how long connections are held and what requests cost comes from
the calm run. `chance` is what this saves: half of the 95 % interval of the mean wait of such a run, from 20 simulated ones
with arrivals of their own. `late` is the p99 of how far the generator fell behind its plan: where it is not small, the
machine was busy with something else, and the run counts for nothing.

`--into` keeps what was measured so far in a file, so that the arrangements can be measured in several parts: those in it are
not measured again, unless they were late. `--write` puts the table of all of them into docs/planning.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp
from pathlib import Path

import numpy as np

from benchmarks.awake import cores_awake
from loadgen.closed import Workload
from loadgen.http.route import Origin
from loadgen.lab.own_app import Arrangement as Arranged
from loadgen.lab.own_app import OwnAppOptions, arranged, prove
from loadgen.lab.own_server import OwnApplication
from loadgen.rows import rows_file
from loadgen.runner import run_ab, run_script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.sizing.grounds import grounds
from loadgen.sizing.measured import POOL, MeasuredWorkload, workload
from loadgen.sizing.predict import Question, knee_per_s, predict, remedy, requests
from loadgen.sizing.simulate import Arrangement, Floats
from loadgen.watch.console import Console
from reports import names
from reports.formats import markdown
from reports.formats.apachebench import AbReport
from reports.model import Report, ReportError

CALM, BEYOND = 0.4, 1.5
CALM_REQUESTS = 250
PATIENCE_S = 60.0
MANY = 20
THREADS = 8
COUNT = 512
EVEN = np.array([int(f"{i:09b}"[::-1], 2) for i in range(COUNT)])
"""0 to 511 in an order in which any part of them is spread evenly."""
ORDERS = {"calm": EVEN, "loaded": np.random.default_rng(1).permutation(COUNT)}
"""Ranks of the statements that requests ask for, one after the other: even for the calm run, so that its mean is that of the
law, and by chance for the other, as even ones would wait less."""
WAIT_WITHIN, WAIT_MS, TAIL_WITHIN, TAIL_MS, KNEE_WITHIN = 0.10, 0.5, 0.15, 2.0, 0.10
LATE_MS = 2.0
"""On a quiet machine it is less than 1."""
SEEDS = 20
GUIDE = Path(__file__).parents[1] / "docs" / "planning.md"
BEGINS, ENDS = "<!-- benchmarks/planning.py writes from here -->", "<!-- to here -->"

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


def other(text: str) -> PlannedArrangement:
    """The arrangement of a text: kind of worker, workers, CPU ms, statement ms, size, load."""
    worker, workers, cpu_ms, statement_ms, size, load = text.split(",")
    return PlannedArrangement(worker, int(workers), float(cpu_ms), float(statement_ms), int(size), float(load))


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


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an arrangement."""

    report: Report
    arrived_s: Floats
    """When each request was sent, from the first on."""
    shares: Floats
    """Share of statements that take less time than the one that each request asked for."""
    knee_per_s: float
    """Answers per second with everything busy; 0 if that was not measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of an arrangement."""

    calm: Report
    below: Run


def measure(arrangement: PlannedArrangement, seconds: int, folder: Path) -> Measured:
    """Run an arrangement calmly, below the knee, and with everything busy. Raises KeyboardInterrupt if a signal ended it."""
    (folder / "load.json").write_text(text_of(arrangement, 5, 1))
    calm_per_s = CALM * arrangement.full_per_s
    calm_s = max(seconds // 2, ceil(CALM_REQUESTS / calm_per_s))
    with arranged(options(arrangement, folder), lambda _: None) as parts:
        many = MANY if arrangement.slots != 1 else 1
        calm = run(parts, arrangement, many, calm_per_s, calm_s, folder, "calm")
        per_s = arrangement.load * arrangement.full_per_s
        return Measured(calm.report, run(parts, arrangement, arrangement.size, per_s, seconds, folder, "loaded"))


def run(
    parts: Arranged,
    arrangement: PlannedArrangement,
    size: int,
    rate_per_s: float,
    seconds: int,
    folder: Path,
    kind: str,
) -> Run:
    """One run with connections and workers warm; after a `loaded` one, the knee's rate is measured.

    Raises KeyboardInterrupt if a signal ended it.
    """
    mean_s = arrangement.statement_ms / 1000
    times_s = -np.log(1 - (ORDERS[kind] + 0.5) / COUNT) * mean_s
    statements = "".join(f"{value:.6f}\n" for value in times_s).encode()
    settings = {"DB_POOL_SIZE": str(size), "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}
    (folder / "statements.csv").write_bytes(statements)
    with parts.served("fair", settings, folder / "server.log") as served:
        proving = replace(parts.options, script=str(folder / "load.json"))
        prove(served, proving, lambda _: None)
        for phase_rate, phase_s in ((min(rate_per_s, arrangement.full_per_s / 2), 1), (rate_per_s, seconds)):
            text = text_of(arrangement, phase_rate, phase_s)
            given = RunOptions(target=served.servers.url, poisson=True, env={})
            script = parse_script([("planned.json", text)], given, lambda _path: statements)
            with rows_file(str(folder / "rows.csv")) as rows:
                done = run_script(script, Console(lambda _: None), lambda _: None, 1, rows=rows)
            if done.signal is not None:
                raise KeyboardInterrupt
        with (folder / "rows.csv").open(newline="") as file:
            sent = sorted(
                (int(row["started_ns"]), float(row["url"].rpartition(",")[2])) for row in csv.DictReader(file)
            )
        arrived_s = (np.array([ns for ns, _ in sent]) - sent[0][0]) / 1e9
        shares = np.array([1 - exp(-asked_s / mean_s) for _, asked_s in sent])
        knee = _knee(arrangement, served.servers.port, seconds / 2) if kind == "loaded" else 0.0
        return Run(done.report, arrived_s, shares, knee)


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
        cores=os.cpu_count() or 1,
    )
    return Question(base, worker, (arrangement.size,), rate_per_s, arrival_variation=1.0, requests=10_000)


def is_near(seen: float, said: float, share: float, least: float = 0.0) -> bool:
    """Whether a prediction is within a share of what was measured, or within `least`."""
    return abs(said - seen) <= max(share * seen, least)


def chance(asked: Question, rows: int, mean_ms: float) -> float:
    """Half of the 95 % interval of the mean wait of a run of so many requests, as a share of it."""
    means = []
    for seed in range(SEEDS):
        other = replace(asked, seed=seed + 1, requests=rows)
        drawn = replace(requests(other), counts_all=True)
        means.append(next(predict(other, drawn)).wait_mean_ms)
    return 1.96 * float(np.std(means, ddof=1)) / mean_ms if mean_ms else 0.0


def late_ms(measured: Measured) -> float:
    """The p99 of how late the requests of both runs were sent."""
    return max(
        report.aggregate.sketches[names.START_LAG].quantile(0.99) for report in (measured.calm, measured.below.report)
    )


def row(number: int, arrangement: PlannedArrangement, measured: Measured) -> tuple[str, ...]:
    """Predict an arrangement from its calm run, and compare: a row of the table."""
    base, below = workload(measured.calm), measured.below
    try:
        grounds(measured.calm, base, arrangement.workers)
    except ReportError as error:
        return (str(number), str(arrangement), *[""] * 9, f"not counted: {error}", "")
    per_s = arrangement.load * arrangement.full_per_s
    asked = question(arrangement, base, per_s)
    (said,) = predict(asked, requests(asked, below.arrived_s, below.shares))
    # The users of the knee's run all ask for the same statement.
    alike = requests(asked)
    alike = replace(alike, holds_s=np.full(len(alike.holds_s), alike.holds_s.mean()))
    said_knee_per_s = knee_per_s(asked, asked.of_size(arrangement.size), alike)
    sketches = below.report.aggregate.sketches
    wait_ms, tail_ms = sketches[POOL].mean, sketches[names.RESPONSE_TIME].quantile(0.99)
    met = (
        is_near(wait_ms, said.wait_mean_ms, WAIT_WITHIN, WAIT_MS),
        is_near(tail_ms, said.response_p99_ms, TAIL_WITHIN, TAIL_MS),
        is_near(below.knee_per_s, said_knee_per_s, KNEE_WITHIN),
    )
    verdict = "late" if late_ms(measured) > LATE_MS else "met" if all(met) else "missed"
    beyond = question(arrangement, base, BEYOND * arrangement.full_per_s)
    return (
        *(str(number), str(arrangement), f"{per_s:.0f}", f"{late_ms(measured):.1f}"),
        *(f"{wait_ms:.2f}", f"{said.wait_mean_ms:.2f}", f"{chance(asked, len(below.arrived_s), wait_ms):.0%}"),
        *(f"{tail_ms:.1f}", f"{said.response_p99_ms:.1f}", f"{below.knee_per_s:.1f}", f"{said_knee_per_s:.1f}"),
        *(verdict, remedy(beyond, list(predict(beyond)))[0]),
    )


def table(rows: Iterable[Sequence[str]]) -> str:
    """The Markdown of all rows, and how many were met."""
    rows = list(rows)
    headings = (
        *("number", "arrangement", "requests/s", "late p99, ms", "mean wait, ms, measured", "predicted", "chance"),
        *("p99, ms, measured", "predicted", "knee/s measured", "predicted", "", "to change first beyond it"),
    )
    counted = [each for each in rows if each[-2] in {"met", "missed"}]
    met = sum(each[-2] == "met" for each in counted)
    return f"{markdown.table(headings, rows)}\n\n{met} of {len(counted)} met; {len(rows) - len(counted)} not counted."


def main() -> None:
    """Go through the arrangements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=8, help="of each run below the knee (8)")
    parser.add_argument("--only", default="", help="numbers of arrangements, separated by commas (all)")
    parser.add_argument(
        "--other", action="append", default=[], metavar="gevent,1,2,10,3,0.7", help="one of your own, instead"
    )
    parser.add_argument("--into", type=Path, help="file that keeps what was measured")
    parser.add_argument("--write", action="store_true", help="put the table into docs/planning.md")
    given = parser.parse_args()
    found: dict[int, Measured] = {}
    if given.into is not None and given.into.exists():
        found = pickle.loads(given.into.read_bytes())
    arrangements = [other(text) for text in given.other] or ARRANGEMENTS
    chosen = [int(each) for each in given.only.split(",") if each] or range(1, len(arrangements) + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "planned.py").write_text(APPLICATION)
        for number in chosen:
            if number in found and late_ms(found[number]) <= LATE_MS:
                continue
            found[number] = measure(arrangements[number - 1], given.seconds, folder)
            print(number, arrangements[number - 1], file=sys.stderr, flush=True)
            if given.into is not None:
                given.into.write_bytes(pickle.dumps(found))
    text = table(row(number, arrangements[number - 1], found[number]) for number in sorted(found))
    print(text)
    if given.write:
        before, mark, after = GUIDE.read_text().partition(BEGINS)
        GUIDE.write_text(f"{before}{mark}\n{text}\n{ENDS}{after.partition(ENDS)[2]}")


if __name__ == "__main__":
    with cores_awake():
        main()
