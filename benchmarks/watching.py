"""What it costs to watch an application: of one loan, of one statement, and of the throughput under `loadgen doctor`.

Loans are timed in short rounds, watched and not, in random order in one process, so that both meet the same machine; the
figures are CPU time of the borrowing thread in the best tenth of the rounds. The thread that looks at lent connections is not in
them. What the command's watching costs a service is measured in one process, too, by turns: two processes of one program may
differ by a tenth for as long as they run. `--write` puts the table into docs/doctor.md.
"""

from __future__ import annotations

import _thread
import argparse
import gc
import importlib
import json
import math
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

from db.child import Child
from db.embedded import temporary_postgres
from loadgen.lab.own_app import OwnAppOptions, Served, arranged
from loadgen.lab.own_server import OwnApplication, own_environment
from loadgen.lab.stack import cpu_of_tree, free_port

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ROOT / "tests" / "doctor" / "applications"
PAGE = ROOT / "docs" / "doctor.md"
BEGINS, ENDS = "<!-- benchmarks/watching.py writes from here -->", "<!-- to here, what watching costs -->"
BORROWERS = ("thread", "greenlet")
POOLS = ("QueuePool", "FairPool")
TURNS, ANSWERS, NOT_COUNTED = 200, 150, 50
"""Turns of each way in one process, answers of a turn, and those before them."""
SERVED = ("as it is", "as it is, waiting cooperatively", "under `loadgen lab --app`", "under `loadgen doctor`")
COOPERATIVE = """
from psycopg2 import extensions
from poolbench.cooperative import _wait
extensions.set_wait_callback(_wait)
"""
"""Run at the start of a server's processes: psycopg2 waits for the database in one greenlet, as under the commands."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="rounds of each kind of loan (default 300)")
    parser.add_argument("--starts", type=int, default=8, help="times that each service is started (default 8)")
    parser.add_argument("--only", choices=("loans", "service", "alone"), help="measure one of the three only")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/doctor.md")
    parser.add_argument("--child", nargs=2, metavar=("URL", "BORROWER"), help=argparse.SUPPRESS)
    parser.add_argument("--both", nargs=3, metavar=("URL", "PORT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write takes all of the measurements, so not --only")
    if options.both:
        _serve_both(*options.both)
        return
    if options.child:
        print(json.dumps(_measured(*options.child, options.rounds)))
        return
    overhead(options.rounds, options.starts, options.only, write=options.write)


def overhead(rounds: int = 300, starts: int = 8, only: str | None = None, *, write: bool = False) -> None:
    """Measure, print the tables, and write them into the page if told to."""
    lines = []
    if only in (None, "loans"):
        lines += [*_loan_table(rounds), ""]
    if only in (None, "service"):
        lines += [*_service_table(starts), ""]
    if only in (None, "alone"):
        rate, cpu = _alone(starts)
        how = "in one process that answers watched and not, by turns"
        lines += [f"Watching alone, {how}: answers per second {rate}, CPU of an answer {cpu}.", ""]
    print("\n".join(lines))
    if write:
        above, rest = PAGE.read_text("utf-8").split(BEGINS)
        PAGE.write_text("\n".join([above + BEGINS, "", *lines]) + ENDS + rest.split(ENDS)[1], "utf-8")


def _loan_table(rounds: int) -> Iterator[str]:
    yield "| CPU in us | as it is | difference when watched |"
    yield "| :-- | --: | --: |"
    with temporary_postgres() as postgres:
        for borrower in BORROWERS:
            for key, (plain, more) in _in_a_process(postgres.url, borrower, rounds).items():
                yield f"| {key}, in a {borrower} | {plain:.2f} | {more:+.2f} |"


def _service_table(starts: int) -> Iterator[str]:
    rates, cpu_ms = _service(starts)
    plain = {"rate": statistics.median(rates["as it is"]), "cpu": statistics.median(cpu_ms["as it is"])}
    yield "| the service | answers per second | | CPU of an answer, ms | |"
    yield "| :-- | --: | --: | --: | --: |"
    for name in rates:
        rate, cpu = statistics.median(rates[name]), statistics.median(cpu_ms[name])
        changes = (
            ("", "") if name == "as it is" else (f"{rate / plain['rate'] - 1:+.1%}", f"{cpu / plain['cpu'] - 1:+.1%}")
        )
        yield f"| {name} | {rate:.0f} | {changes[0]} | {cpu:.3f} | {changes[1]} |"


def _change(changes: list[float]) -> str:
    """The median of the changes that each start has shown, with an interval that has the true median in it with 95 %."""
    # The number of changes below the true median is binomial. Normal approximation, one rank further out.
    changes = sorted(changes)
    rank = max(0, math.floor((len(changes) - 1.96 * math.sqrt(len(changes))) / 2) - 1)
    return f"{statistics.median(changes):+.1%} ({changes[rank]:+.1%} to {changes[-1 - rank]:+.1%})"


def _service(starts: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Answers per second of a healthy application to 8 users at a time, and CPU of its server for each, start by start: as it
    is, with psycopg2 made cooperative, as `lab --app` measures it, and as `doctor` watches it.

    Each is started anew many times: one process of a program can be faster than the next, all the time that it runs.
    """
    rates: dict[str, list[float]] = {name: [] for name in SERVED}
    cpu_ms: dict[str, list[float]] = {name: [] for name in rates}
    os.chdir(APPLICATIONS)
    application = OwnApplication(
        "healthy.two_engines:app", APPLICATIONS, Path(sys.executable), None, (f"{sys.executable} setup.py",)
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        options = OwnAppOptions(application, str(APPLICATIONS / "load.yml"), Path(folder), servers=1)
        arrangement = stack.enter_context(arranged(options, lambda _: None))
        libraries = [Path(folder) / name for name in ("empty", "cooperative")]
        for library in libraries:
            library.mkdir()
        (libraries[1] / "sitecustomize.py").write_text(COOPERATIVE)
        for _ in range(starts):
            with ExitStack() as started:
                served = [
                    started.enter_context(arrangement.served("own", {}, Path(folder) / f"{watch}.log", watch=watch))
                    for watch in (False, True)
                ]
                bare = [started.enter_context(_bare(application, served[0], library)) for library in libraries]
                targets = (
                    *((url, partial(cpu_of_tree, process)) for url, process in bare),
                    *((each.servers.url, each.servers.cpu_s) for each in served),
                )
                for name, (rate, cpu) in zip(rates, _turns(targets), strict=True):
                    rates[name].append(rate)
                    cpu_ms[name].append(cpu)
    return rates, cpu_ms


def _alone(starts: int) -> tuple[str, str]:
    """What watching as the command does changes in answers per second, and in CPU of an answer, from process to process."""
    changes: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder, temporary_postgres() as postgres:
        environment = {**os.environ, "DATABASE_URL": postgres.url}
        subprocess.run([sys.executable, "setup.py"], cwd=APPLICATIONS, env=environment, check=True)
        for start in range(starts):
            port, evidence = free_port(), Path(folder, str(start))
            evidence.mkdir()
            command = [sys.executable, "-m", "benchmarks.watching", "--both", postgres.url, str(port), str(evidence)]
            with Child(command, death_signal=signal.SIGTERM, cwd=ROOT) as child:
                _await(port)
                cpu_s = partial(cpu_of_tree, child.pid)
                urls = [f"http://127.0.0.1:{port}/{way}" for way in ("plain", "watched")]
                plain, watched = _each_turn([(url, cpu_s) for url in urls], TURNS, ANSWERS, NOT_COUNTED)
                for into, place in zip(changes, (0, 1), strict=True):
                    pairs = zip(watched, plain, strict=True)
                    into.append(statistics.median(this[place] / other[place] - 1 for this, other in pairs))
    rate, cpu = map(_change, changes)
    return rate, cpu


def _serve_both(url: str, port: str, folder: str) -> None:
    """Serve one healthy application in this process: below /plain as it is, below /watched as the command watches it.

    The hooks in its engines are taken out and put back where one follows the other. Meanwhile the thread looks at nothing, and
    the time does not count for the shares of requests that are noted.
    """
    import gevent.monkey  # noqa: PLC0415

    gevent.monkey.patch_all()
    from gevent.pywsgi import WSGIServer  # noqa: PLC0415

    from poolbench import watching  # noqa: PLC0415
    from poolbench.cooperative import make_cooperative  # noqa: PLC0415
    from poolbench.loan_book import BOOK  # noqa: PLC0415
    from poolbench.native import native  # noqa: PLC0415
    from poolbench.shares import Shares  # noqa: PLC0415

    make_cooperative("psycopg2")
    os.environ["DATABASE_URL"] = url
    sys.path.insert(0, str(APPLICATIONS))
    healthy = importlib.import_module("healthy.two_engines")
    engines = (healthy.engine, healthy.archive)
    hooked = [thing for engine in engines for thing in (engine, engine.pool, engine.dialect)]
    before = [dict(vars(thing)) for thing in hooked]
    Path(folder, "load").write_text(str(time.perf_counter_ns()))
    watching.record_all(Path(folder))
    for engine in engines:
        watcher = watching.watch(engine)
    hooks = [
        {name: value for name, value in vars(thing).items() if name not in old or old[name] is not value}
        for thing, old in zip(hooked, before, strict=True)
    ]
    ways = {"plain": healthy.app, "watched": watching.watched_requests(healthy.app)}
    latest, plain_since_ns, plain_ns = "watched", 0, 0
    # The thread that looks holds this while it does, and so do plain turns. It is no lock of gevent's.
    turn = native(_thread, "allocate_lock")()

    def change_to(way: str) -> None:
        nonlocal latest, plain_since_ns, plain_ns
        latest, now_ns = way, time.perf_counter_ns()
        if way == "plain":
            turn.acquire()
            plain_since_ns = now_ns
        else:
            plain_ns += now_ns - plain_since_ns
            turn.release()
        for thing, old, new in zip(hooked, before, hooks, strict=True):
            for name in new:
                if way == "watched":
                    setattr(thing, name, new[name])
                elif name in old:
                    setattr(thing, name, old[name])
                else:
                    delattr(thing, name)

    class WatchedShares(Shares):
        def spend(self, costs: Any, requests: Any, elapsed_ns: int) -> None:
            nonlocal plain_ns
            super().spend(costs, requests, max(0, elapsed_ns - plain_ns))
            plain_ns = 0

    BOOK.shares = WatchedShares()
    look: Any = watcher.sampler.look

    def look_if_watched(elapsed_ns: int) -> bool:
        with turn:
            found: bool = look(elapsed_ns)
        return found

    watcher.sampler.look = look_if_watched

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        _, way, rest = environ["PATH_INFO"].split("/", 2)
        environ["PATH_INFO"] = f"/{rest}"
        if way != latest:
            change_to(way)
        return ways[way](environ, start_response)

    gc.collect()
    gc.freeze()
    listener = socket.create_server(("127.0.0.1", int(port)))
    # As gunicorn does. Without it, an answer waits for the client's delayed acknowledgement, and the CPU is idle.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    WSGIServer(listener, serve, log=None).serve_forever()


def _turns(targets: Sequence[tuple[str, Callable[[], float]]]) -> list[Any]:
    """Medians of what `_each_turn` returns, of each target, over eight turns of 300 answers."""
    for url, _ in targets:
        _rate(f"{url}/posts/7", 600)
    return [tuple(map(statistics.median, zip(*each, strict=True))) for each in _each_turn(targets, 8, 300)]


def _each_turn(
    targets: Sequence[tuple[str, Callable[[], float]]], turns: int, answers: int, not_counted: int = 0
) -> list[list[tuple[float, float]]]:
    """Answers per second and CPU in ms of an answer, of each target (its URL, and its CPU so far in s), turn by turn.

    Turns are short and in random order, since the machine may be twice as fast in one minute as in the next. Each begins with
    answers that are `not_counted`.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in targets]
    for _ in range(turns):
        for place in random.sample(range(len(targets)), len(targets)):
            url, cpu_s = targets[place]
            if not_counted:
                _rate(f"{url}/posts/7", not_counted)
            before_s = cpu_s()
            rate = _rate(f"{url}/posts/7", answers)
            found[place].append((rate, (cpu_s() - before_s) * 1000 / answers))
    return found


@contextmanager
def _bare(application: OwnApplication, served: Served, library: Path) -> Iterator[tuple[str, int]]:
    """The same server without anything of ours in it but what lies in the folder `library`. Yields its URL and its process."""
    port = free_port()
    environment = {**own_environment(application, library), "DATABASE_URL": served.database.app_url}
    command = served.program.command(("127.0.0.1", port), 1)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with Child(command, death_signal=signal.SIGTERM, cwd=application.folder, env=environment, **quiet) as child:
        _await(port)
        yield f"http://127.0.0.1:{port}", child.pid


def _await(port: int, patience_s: float = 30) -> None:
    until_s = time.monotonic() + patience_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return


def _rate(url: str, answers: int) -> float:
    command = ["ab", "-q", "-k", "-c", "8", "-n", str(answers), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests per second: +([0-9.]+)", done.stdout)
    assert found is not None
    assert "Non-2xx" not in done.stdout, done.stdout
    return float(found[1])


def _in_a_process(url: str, borrower: str, rounds: int) -> dict[str, tuple[float, ...]]:
    command = [sys.executable, "-m", "benchmarks.watching", "--rounds", str(rounds), "--child", url, borrower]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, tuple[float, ...]] = json.loads(done.stdout)
    return found


def _measured(url: str, borrower: str, rounds: int) -> dict[str, tuple[float, ...]]:
    """What `_differences` returns, by what is done."""
    if borrower == "greenlet":
        import gevent.monkey  # noqa: PLC0415

        gevent.monkey.patch_all()
    import sqlalchemy as sa  # noqa: PLC0415

    import poolbench  # noqa: PLC0415

    pools: dict[str, Any] = {"QueuePool": sa.QueuePool, "FairPool": poolbench.FairPool}
    found = {}
    for name in POOLS:
        engines = [sa.create_engine(url, poolclass=pools[name]) for _ in range(2)]
        poolbench.watch(engines[1])
        found[f"{name}: connect() and close()"] = _differences(engines, _loan_of(0), 60, rounds)
    # Without a server in between, so that only Python's work is timed.
    engines = [sa.create_engine("sqlite://", poolclass=sa.QueuePool) for _ in range(2)]
    watcher = poolbench.watch(engines[1])
    for text in ("", ", noted in full"):
        for statements, count in ((1, 30), (5, 10)):
            name = f"a loan with {statements} statement{'s' * (statements > 1)} of SQLite{text}"
            found[name] = _differences(engines, _loan_of(statements), count, rounds)
        watcher.note_all()
    return found


def _differences(engines: list[Any], loan: Callable[[Any], None], count: int, rounds: int) -> tuple[float, float]:
    """CPU in us of a loan of the first engine, and how much more one of the second takes, both in the best tenth of the rounds.

    Each round has `count` loans of both, in random order. What other programs do can only make a round slower, and by more than
    the difference, so the best rounds tell most.
    """
    took: dict[Any, list[float]] = {engine: [] for engine in engines}
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for engine in random.sample(engines, 2):
            began_ns = thread_time_ns()
            for _ in range(count):
                loan(engine)
            took[engine].append((thread_time_ns() - began_ns) / count / 1000)
    plain, watched = (sorted(took[engine])[rounds // 10] for engine in engines)
    return plain, watched - plain


def _loan_of(statements: int) -> Callable[[Any], None]:
    """A function that borrows a connection from an engine and executes `statements` statements."""
    from sqlalchemy import text  # noqa: PLC0415

    statement = text("SELECT 1")

    def loan(engine: Any) -> None:
        with engine.connect() as connection:
            for _ in range(statements):
                connection.execute(statement)

    return loan


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
