"""Runs schedules of the simulation until one fails, or replays one.

    python -m tests.poolbench.simulation --schedules 1000000
    python -m tests.poolbench.simulation --seed 1234

The first prints the seed of the schedule that failed, if any, and exits 1; the second shows that schedule, step by step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.poolbench.simulation.runs import first_failure, replay

POOL = Path(__file__).parents[3] / "poolbench"
BATCH = 2500
"""Schedules that a process runs one after another; before each batch it collects all garbage, which takes a while."""


def main() -> None:
    """Read the command line, run, and exit 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="show the schedule of this seed")
    parser.add_argument(
        "--schedules", type=int, default=20_000, help="number of schedules to run (default %(default)s)"
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first one (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=86_400, help="stop after so many seconds")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="processes at work (default: one per core)"
    )
    parser.add_argument(
        "--package", type=Path, default=POOL, help="folder of the pool's package (default: this project's)"
    )
    given = parser.parse_args()
    if given.seed is not None:
        failure = replay(given.package, given.seed)
        sys.exit(failure or print("everything held"))
    began_s, end = time.monotonic(), given.first + given.schedules
    deadline_s = began_s + given.seconds
    batches = [(given.package, at, min(at + BATCH, end), deadline_s) for at in range(given.first, end, BATCH)]
    done = 0
    with multiprocessing.get_context("spawn").Pool(given.processes) as workers:
        for count, seed, failure in workers.imap(first_failure, batches):
            done += count
            if failure:
                workers.terminate()
                sys.exit(
                    f"seed {seed} failed: {failure}\nto see it: python -m tests.poolbench.simulation --seed {seed}"
                )
            if time.monotonic() > deadline_s:
                break
    print(f"{done} schedules in {time.monotonic() - began_s:.0f} s: everything held")


if __name__ == "__main__":
    main()
