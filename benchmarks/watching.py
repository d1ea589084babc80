"""What it costs to watch an application: of one loan, of one statement, and of the throughput under `loadgen doctor`.

Loans and statements are timed in short rounds, watched and not, one after the other in one process, so that both meet the same
machine; the figures are medians of CPU time. The thread that looks at lent connections works in both kinds of rounds, so its
CPU is told apart, as a share of a core. `--write` puts the table into docs/doctor.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time_ns
from typing import Any

from db.embedded import temporary_postgres

ROOT = Path(__file__).resolve().parents[1]
BORROWERS = ("thread", "greenlet")
POOLS = ("QueuePool", "FairPool")


def main() -> None:
    """Measure, print the table, and write it into the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="rounds of 200 loans of each kind (default 300)")
    parser.add_argument("--child", nargs=2, metavar=("URL", "BORROWER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measured(*options.child, options.rounds)))
        return
    rows = []
    with temporary_postgres() as postgres:
        for borrower in BORROWERS:
            for key, (plain, watched) in _in_a_process(postgres.url, borrower, options.rounds).items():
                rows.append(f"| {key}, in a {borrower} | {plain:.2f} | {watched:.2f} | {watched - plain:+.2f} |")
    print("\n".join(["| CPU in us | as it is | watched | difference |", "| --- | ---: | ---: | ---: |", *rows]))


def _in_a_process(url: str, borrower: str, rounds: int) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "benchmarks.watching", "--rounds", str(rounds), "--child", url, borrower]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _measured(url: str, borrower: str, rounds: int) -> dict[str, tuple[float, float]]:
    """CPU in us, as it is and watched, by what is done."""
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
        found[f"{name}: connect() and close()"] = _medians(engines, _loans, rounds)
    # Without a server in between, so that only Python's work is timed.
    engines = [sa.create_engine("sqlite://", poolclass=sa.QueuePool) for _ in range(2)]
    poolbench.watch(engines[1])
    found["a statement (of SQLite)"] = _medians(engines, _statements, rounds)
    return found


def _medians(engines: list[Any], work: Callable[[Any], float], rounds: int) -> tuple[float, float]:
    took: tuple[list[float], list[float]] = [], []
    gc.collect()
    for _ in range(rounds):
        for engine, into in zip(engines, took, strict=True):
            into.append(work(engine))
    return statistics.median(took[0]), statistics.median(took[1])


def _loans(engine: Any, count: int = 200) -> float:
    began_ns = process_time_ns()
    for _ in range(count):
        engine.connect().close()
    return (process_time_ns() - began_ns) / count / 1000


def _statements(engine: Any, count: int = 100) -> float:
    from sqlalchemy import text  # noqa: PLC0415

    statement = text("SELECT 1")
    with engine.connect() as connection:
        began_ns = process_time_ns()
        for _ in range(count):
            connection.execute(statement)
        return (process_time_ns() - began_ns) / count / 1000


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
