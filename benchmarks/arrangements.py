"""An application, arrangements of workers to serve it, and runs of them, for `benchmarks/planning.py`.

The application computes for a while, holds a connection while it computes and while a statement sleeps, and computes again. CPU
time is constant. Statements take an exponential time in whole ms, as pg_sleep rounds up. All requests close their connection, as
keeping one costs the worker something else.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from loadgen.closed import Workload
from loadgen.http.route import Origin
from loadgen.lab.own_app import Arrangement as Arranged
from loadgen.lab.own_app import OwnAppOptions, arranged, prove
from loadgen.lab.own_server import OwnApplication
from loadgen.rows import rows_file
from loadgen.runner import run_ab, run_script
from loadgen.schedule import arrivals
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions, parse_script
from loadgen.sizing.simulate import Floats
from loadgen.watch.console import Console
from reports.formats.apachebench import AbReport
from reports.model import Report

PATIENCE_S = 60.0
SEED = 1
"""Of the instants at which requests are sent."""
WORKERS = "workers.csv"
"""The file in which the application notes the worker of each request."""
THREADS = 8
LOADED = np.random.default_rng(1).permutation(512)
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
    cpu_s, statement_s, number = f"{environ['QUERY_STRING']},,".split(",")[:3]
    status = "200 OK"
    if number:
        with open("workers.csv", "a") as file:
            file.write(f"{number},{os.getpid()}\\n")
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
    """One arrangement."""

    worker: str
    workers: int
    cpu_ms: float
    statement_ms: float
    size: int

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

    def rate_of(self, share: float) -> float:
        """Requests per second that are this share of the rate at which it is full."""
        return share * self.full_per_s

    def __str__(self) -> str:
        return f"{self.workers} {self.worker}, CPU {self.cpu_ms:g} ms, statement {self.statement_ms:g} ms, pool of {self.size}"


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
    # The application notes which worker answered the request of this number, where there are several.
    number = ",{{ $uuid }}" if arrangement.workers > 1 else ""
    url = f"/?{arrangement.cpu_ms / 1000},{{{{ seconds }}}}{number}"
    flow = [{"get": {"url": url, "headers": {"Connection": "close"}}}]
    return json.dumps({"config": config, "scenarios": [{"flow": flow}]})


def even(count: int) -> NDArray[np.int64]:
    """Ranks of `count` statements in an order in which any part of them is spread evenly over their distribution.

    Multiples of the golden ratio. A run that asks for each of them once has the mean and the tail of the distribution.
    """
    return np.argsort(np.argsort((np.arange(count) + 0.5) * (sqrt(5) - 1) / 2 % 1))


@dataclass(frozen=True, slots=True)
class Statements:
    """What requests ask for, one after the other: exponential times in whole ms, by their ranks."""

    mean_ms: float
    ranks: NDArray[np.int64]

    @property
    def times_ms(self) -> Floats:
        """The time of each statement."""
        return np.rint(-np.log(1 - (self.ranks + 0.5) / len(self.ranks)) * self.mean_ms)

    def rows(self) -> bytes:
        """The file that a script reads, in s."""
        return "".join(f"{time_ms / 1000:.3f}\n" for time_ms in self.times_ms).encode()

    def shares(self, asked_ms: Floats) -> Floats:
        """Share of statements that take less time than each of these; half of those that take as long count as less."""
        sorted_ms = np.sort(self.times_ms)
        places = np.searchsorted(sorted_ms, asked_ms, "left") + np.searchsorted(sorted_ms, asked_ms, "right")
        return places / 2 / len(sorted_ms)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an arrangement."""

    report: Report
    arrived_s: Floats
    """When each request was sent, from the first on."""
    took_ms: Floats
    """From its start to its end; infinite for a request that was not answered well."""
    shares: Floats
    """Share of statements that take less time than the one that each request asked for."""
    workers: tuple[int, ...] | None
    """The number of the worker that each request came to; None if there is only one worker."""


@contextmanager
def started(arrangement: PlannedArrangement, folder: Path) -> Iterator[Arranged]:
    """The application under the arrangement's workers, with a database."""
    (folder / "load.json").write_text(text_of(arrangement, 5, 1))
    (folder / "statements.csv").write_bytes(Statements(arrangement.statement_ms, LOADED).rows())
    with arranged(options(arrangement, folder), lambda _: None) as parts:
        yield parts


@contextmanager
def serving(parts: Arranged, arrangement: PlannedArrangement, size: int, folder: Path) -> Iterator[int]:
    """The port at which the application serves with a fair pool of this size, its connections open."""
    settings = {"DB_POOL_SIZE": str(size), "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}
    with parts.served("fair", settings, folder / "server.log") as served:
        prove(served, replace(parts.options, script=str(folder / "load.json")), lambda _: None)
        warm_up(served.servers.port, arrangement, folder)
        yield served.servers.port


def warm_up(port: int, arrangement: PlannedArrangement, folder: Path) -> None:
    """A second of load, in which connections are opened."""
    run(port, arrangement, Statements(arrangement.statement_ms, LOADED), arrangement.full_per_s / 2, 1, folder)


def script_of(port: int, arrangement: PlannedArrangement, rows: bytes, per_s: float, seconds: int) -> Script:
    """The script of a run."""
    given = RunOptions(target=f"http://127.0.0.1:{port}", poisson=True, env={})
    return parse_script([("planned.json", text_of(arrangement, per_s, seconds))], given, lambda _path: rows)


def evenly(arrangement: PlannedArrangement, per_s: float, seconds: int) -> Statements:
    """A statement for each request of a run, spread evenly over their distribution."""
    script = script_of(1, arrangement, b"0\n", per_s, seconds)
    sent = sum(1 for _ in arrivals(script.phases, Random(Random(SEED).getrandbits(64))))
    return Statements(arrangement.statement_ms, even(sent))


def run(port: int, arrangement: PlannedArrangement, asked: Statements, per_s: float, seconds: int, folder: Path) -> Run:
    """One run with the same arrivals each time. Raises KeyboardInterrupt if a signal ended it."""
    script = script_of(port, arrangement, asked.rows(), per_s, seconds)
    (folder / WORKERS).write_text("")
    with rows_file(str(folder / "rows.csv")) as rows, ahead():
        done = run_script(script, Console(lambda _: None), lambda _: None, SEED, rows=rows)
    if done.signal is not None:
        raise KeyboardInterrupt
    with (folder / "rows.csv").open(newline="") as file:
        sent = sorted((int(row["started_ns"]), row) for row in csv.DictReader(file) if row["started_ns"])
    started_ns = np.array([ns for ns, _ in sent])
    took_ms = np.array(
        [(int(row["end_ns"]) - ns) / 1e6 if row["status"] == "200" and row["end_ns"] else np.inf for ns, row in sent]
    )
    urls = [row["url"].split(",") for _, row in sent]
    shares = asked.shares(np.array([round(float(url[1]) * 1000) for url in urls]))
    workers = workers_of([url[2] for url in urls], folder) if arrangement.workers > 1 else None
    return Run(done.report, (started_ns - started_ns[0]) / 1e9, took_ms, shares, workers)


def workers_of(numbers: Sequence[str], folder: Path) -> tuple[int, ...]:
    """The worker of each request, from 0 on in the order of their first requests; 0 for a request that came to none."""
    pids = dict(line.split(",") for line in (folder / WORKERS).read_text().splitlines())
    order = {pid: worker for worker, pid in enumerate(dict.fromkeys(pids.values()))}
    return tuple(order[pids[number]] if number in pids else 0 for number in numbers)


def knee(port: int, arrangement: PlannedArrangement, seconds: float) -> float:
    """Answers per second to as many users as keep everything busy, each asking again when it has its answer."""
    users = arrangement.workers * (2 * arrangement.size + (arrangement.slots or 0) + 4)
    path = f"/?{arrangement.cpu_ms / 1000},{arrangement.statement_ms / 1000}"
    origin = Origin("http", "127.0.0.1", port)
    done = run_ab(Workload(origin, path, 10**9, users, seconds, keep_alive=False, timeout_s=PATIENCE_S), lambda _: None)
    if done.signal is not None:
        raise KeyboardInterrupt
    return AbReport.of(done.samples).requests_per_second or 0.0


@contextmanager
def ahead() -> Iterator[None]:
    """Let the generator go before the server and the database, with which it shares the cores, where this process may do so."""
    usual, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(2))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, usual, priority)


def before_others() -> None:
    """Let this process and those that it starts go before all other programs (real time), where it may."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
