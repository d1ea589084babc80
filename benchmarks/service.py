"""The service beside a stock Flask application, and the fair pool beside QueuePool, over HTTP. Prints Markdown; needs `ab`.

    python -m benchmarks.service [--rounds 5] [--requests 6000]

Each server has one worker and is loaded by `ab -k`. Compare the ratios: both sides are measured in turns on the same
machine.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg2

from benchmarks.awake import cores_awake
from benchmarks.target import ab
from db.embedded import temporary_postgres
from loadgen.lab import fairness
from loadgen.lab.stack import ServerProgram, Servers, cpu_of_tree, service

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
    for name, (servers, path) in sides.items():
        ab(servers.url + path, 500, users)  # connections opened, caches warm
        assert name
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


def main() -> None:
    """Measure all sides and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000)
    given = parser.parse_args()
    if not shutil.which("ab"):
        sys.exit("ab is not installed (apache2-utils)")
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        postgres = running.enter_context(temporary_postgres())
        (folder / "stock.py").write_text(STOCK_CONF)

        def start(name: str, program: ServerProgram, **settings: str) -> Servers:
            # As patient as the stock pool is: QueuePool keeps some waiting for longer than this service's 5 s.
            settings = {"DATABASE_URL": postgres.url, "DB_POOL_SIZE": "10", "DB_POOL_TIMEOUT": "30", **settings}
            return running.enter_context(Servers(program, 1, settings, folder / f"{name}.log"))

        ours = start("ours", service(), DB_POOL="fair")
        queue = start("queue", service(), DB_POOL="queue")
        stock = start("stock", ServerProgram(folder / "stock.py", "benchmarks.stock_app:app", ROOT))
        sides = {
            "stock: gunicorn gevent, QueuePool, defaults": (stock, "/health"),
            "this service, DB_POOL=queue": (queue, "/health"),
            "this service, DB_POOL=fair": (ours, "/health"),
        }
        found = in_turns(sides, given.rounds, given.requests, 100)
        base = found["stock: gunicorn gevent, QueuePool, defaults"]
        print("### `GET /health`, one worker, 100 users, 10 connections\n")
        print("| server | requests/s | against stock | CPU us/request | p50, ms | p99, ms | max, ms |")
        print("| :-- | --: | --: | --: | --: | --: | --: |")
        for name, f in found.items():
            print(f"| {name} | {f['rps']:.0f} | {f['rps'] / base['rps']:.2f} | {f['cpu_us']:.0f} | {f['p50']:.0f} | "
                  f"{f['p99']:.0f} | {f['p100']:.0f} |")  # fmt: skip
        live = in_turns({"stock": (stock, "/live"), "ours": (ours, "/live")}, given.rounds, given.requests, 100)
        print(
            f"\nA connection, opened and closed: {connect_us(postgres.url):.0f} us of the client's CPU. "
            f"Without a database (`/live`): {live['ours']['rps']:.0f} against {live['stock']['rps']:.0f} requests/s."
        )

        hold = {
            name: start(name, fairness.program(), DATABASE_URL=fairness.with_pool(postgres.url, name, pool_size=10,
                                                                                  max_overflow=0))
            for name in fairness.STRATEGIES
        }  # fmt: skip
        found = in_turns({name: (servers, "/") for name, servers in hold.items()}, given.rounds, given.requests, 100)
        print("\n### A query of 5 ms, one worker, 100 users, 10 connections\n")
        print("| pool | requests/s | p50, ms | p99, ms | max, ms | p99/p50 | max/p50 |")
        print("| :-- | --: | --: | --: | --: | --: | --: |")
        for name, f in found.items():
            print(f"| {name} | {f['rps']:.0f} | {f['p50']:.0f} | {f['p99']:.0f} | {f['p100']:.0f} | "
                  f"{f['p99'] / f['p50']:.2f} | {f['p100'] / f['p50']:.2f} |")  # fmt: skip
        print(f"\nfair against queue: {found['fair']['rps'] / found['queue']['rps']:.3f} x the requests/s. "
              f"Database CPU over the whole session: {cpu_of_tree(postgres.pid):.1f} s.")  # fmt: skip


if __name__ == "__main__":
    with cores_awake():
        main()
