"""Over HTTP: the service beside a stock Flask application, pools beside each other, and reads by number of clicks.

Prints Markdown; needs `ab`.

    python -m benchmarks.service [--rounds 5] [--requests 6000] [--clicks 1000000] [--only health|pool|growth]

Each server has one worker and is loaded by `ab -k`. Compare the ratios: both sides are measured in turns on the same
machine.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from benchmarks.awake import cores_awake
from benchmarks.target import ab
from db import rollups, seeding
from db.database import Database
from db.embedded import EmbeddedPostgres, temporary_postgres
from db.settings import DatabaseSettings
from loadgen.lab import fairness
from loadgen.lab.stack import ServerProgram, Servers, cpu_of_tree, service

Start = Callable[..., Servers]

ROOT = Path(__file__).parents[1]
STOCK_CONF = """
import os
bind = "127.0.0.1:" + os.environ["PORT"]
workers = 1
worker_class = "gevent"
control_socket_disable = True
loglevel = "error"
"""


def in_turns(
    sides: dict[str, tuple[Servers, str]], rounds: int, requests: int, users: int
) -> dict[str, dict[str, float]]:
    """Load each side in turn; return each side's medians, with the CPU microseconds per request of its server processes."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for servers, path in sides.values():
        # Opens the connections and warms the caches.
        ab(servers.url + path, 500, users)
    for _ in range(rounds):
        for name, (servers, path) in sides.items():
            before = servers.cpu_s()
            found = ab(servers.url + path, requests, users)
            found["cpu_us"] = (servers.cpu_s() - before) / requests * 1e6
            seen[name].append(found)
    return {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in seen.items()}


def connect_us(url: str, connects: int = 200) -> float:
    """What opening and closing a connection with a SCRAM password costs, in us of the client's CPU."""
    began_s = time.process_time()
    for _ in range(connects):
        psycopg2.connect(url).close()
    return (time.process_time() - began_s) / connects * 1e6


def health_tables(start: Start, postgres: EmbeddedPostgres, folder: Path, rounds: int, requests: int) -> None:
    """The service, with either pool, beside a stock application."""
    (folder / "stock.py").write_text(STOCK_CONF)
    ours, queue = start("ours", service(), DB_POOL="fair"), start("queue", service(), DB_POOL="queue")
    stock = start("stock", ServerProgram(folder / "stock.py", "benchmarks.stock_app:app", ROOT))
    sides = {
        "stock: gunicorn gevent, QueuePool, defaults": (stock, "/health"),
        "this service, DB_POOL=queue": (queue, "/health"),
        "this service, DB_POOL=fair": (ours, "/health"),
    }
    found = in_turns(sides, rounds, requests, 100)
    base = found["stock: gunicorn gevent, QueuePool, defaults"]
    print("### `GET /health`, one worker, 100 users, 10 connections\n")
    print("| server | requests/s | against stock | CPU us/request | p50, ms | p99, ms | max, ms |")
    print("| :-- | --: | --: | --: | --: | --: | --: |")
    for name, f in found.items():
        print(
            f"| {name} | {f['rps']:.0f} | {f['rps'] / base['rps']:.2f} | {f['cpu_us']:.0f} | {f['p50']:.0f} | "
            f"{f['p99']:.0f} | {f['p100']:.0f} |"
        )
    live = in_turns({"stock": (stock, "/live"), "ours": (ours, "/live")}, rounds, requests, 100)
    print(
        f"\nA connection, opened and closed: {connect_us(postgres.url):.0f} us of the client's CPU. "
        f"Without a database (`/live`): {live['ours']['rps']:.0f} against {live['stock']['rps']:.0f} requests/s."
    )


def pool_table(start: Start, postgres: EmbeddedPostgres, rounds: int, requests: int) -> None:
    """The pools beside each other, in one application."""
    hold = {
        name: start(
            name,
            fairness.program(),
            DATABASE_URL=fairness.with_pool(postgres.url, name, pool_size=10, max_overflow=0),
        )
        for name in fairness.STRATEGIES
    }
    found = in_turns({name: (servers, "/") for name, servers in hold.items()}, rounds, requests, 100)
    print("\n### A query of 5 ms, one worker, 100 users, 10 connections\n")
    print("| pool | requests/s | p50, ms | p99, ms | max, ms | p99/p50 | max/p50 |")
    print("| :-- | --: | --: | --: | --: | --: | --: |")
    for name, f in found.items():
        print(
            f"| {name} | {f['rps']:.0f} | {f['p50']:.0f} | {f['p99']:.0f} | {f['p100']:.0f} | "
            f"{f['p99'] / f['p50']:.2f} | {f['p100'] / f['p50']:.2f} |"
        )
    print(
        f"\nfair against queue: {found['fair']['rps'] / found['queue']['rps']:.3f} x the requests/s. "
        f"Database CPU over the whole session: {cpu_of_tree(postgres.pid):.1f} s."
    )


READS = {"analytics": ("GET", "/links/{}/analytics"), "link": ("GET", "/links/{}"), "HEAD": ("HEAD", "/{}")}
"""Requests whose time must not depend on the number of clicks: method and path."""


def growth_table(servers: Servers, url: str, most: int, rounds: int) -> None:
    """Links of 100, 1,000, … `most` clicks beside each other in one database, and what reading each of them takes."""
    sizes = [10**power for power in range(2, 9) if 10**power <= most]
    database = Database(DatabaseSettings.from_mapping({"DATABASE_URL": url}))
    began_s = time.monotonic()
    with database.connection() as connection:
        seeding.seed_links(connection, len(sizes))
        for place, size in enumerate(sizes, 1):
            seeding.seed_clicks(connection, place, size, first=place)
        seeding.analyze(connection)
        seeded_s = time.monotonic() - began_s
        correct = rollups.check(connection).holds
    database.close()
    turns = [read_in_turn(servers.url, len(sizes)) for _ in range(40 * rounds)]
    took_ms = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
    print("\n### Reads of a link, by its clicks, one client, medians\n")
    print("| clicks | analytics, ms | of 1,000 | link, ms | of 1,000 | HEAD, ms | of 1,000 |")
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for size in sizes:
        cells = (f"{took_ms[size, read]:.2f} | {took_ms[size, read] / took_ms[1000, read]:.2f}" for read in READS)
        print(f"| {size:,} | {' | '.join(cells)} |")
    print(
        f"\nAll clicks in one database, added and folded in {seeded_s:.0f} s; "
        f"the roll-ups are {'equal to' if correct else 'NOT equal to'} the rows."
    )


def read_in_turn(url: str, links: int) -> dict[tuple[int, str], float]:
    """What each read of each link takes, in ms, by the number of its clicks and the name of the read."""
    connection = HTTPConnection(str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
    took_ms = {}
    for place in range(1, links + 1):
        for read, (method, path) in READS.items():
            began_s = time.perf_counter()
            connection.request(method, path.format(f"seed{place}"))
            answer = connection.getresponse()
            answer.read()
            took_ms[10 ** (place + 1), read] = (time.perf_counter() - began_s) * 1e3
            assert answer.status in {200, 301}, answer.status
    connection.close()
    return took_ms


def main() -> None:
    """Measure all sides and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument(
        "--clicks",
        type=int,
        choices=[10**power for power in range(3, 9)],
        default=1_000_000,
        help="clicks of the largest link (default: %(default)s)",
    )
    parser.add_argument("--only", choices=("health", "pool", "growth"), help="print only this table")
    given = parser.parse_args()
    if given.only != "growth" and not shutil.which("ab"):
        sys.exit("ab is not installed (apache2-utils)")
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        postgres = running.enter_context(temporary_postgres())

        def start(name: str, program: ServerProgram, **settings: str) -> Servers:
            # The same timeout as the stock pool's: QueuePool keeps some requests waiting for longer than this service's 5 s.
            settings = {"DATABASE_URL": postgres.url, "DB_POOL_SIZE": "10", "DB_POOL_TIMEOUT": "30", **settings}
            return running.enter_context(Servers(program, 1, settings, folder / f"{name}.log"))

        if given.only in {None, "health"}:
            health_tables(start, postgres, folder, given.rounds, given.requests)
        if given.only in {None, "pool"}:
            pool_table(start, postgres, given.rounds, given.requests)
        if given.only in {None, "growth"}:
            growth_table(start("growth", service()), postgres.url, given.clicks, given.rounds)


if __name__ == "__main__":
    with cores_awake():
        main()
