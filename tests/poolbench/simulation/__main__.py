"""Run schedules of the simulation of the pool until one fails, or show one.

\b
    python -m tests.poolbench.simulation --schedules 1000000
    python -m tests.poolbench.simulation --seed 1234

The first prints the seed of the schedule that failed, if any, and exits 1; the second shows that schedule, step by step.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import click

from reports.cli import FiniteRange
from tests.poolbench.simulation.runs import first_failure, replay

POOL = Path(__file__).parents[3] / "poolbench"
BATCH = 5000
"""Schedules that a process runs one after another; before each batch it collects all garbage, which takes a while."""


@click.command(help=__doc__)
@click.option("--seed", type=click.IntRange(min=0), help="Show the schedule of this seed, and run no others.")
@click.option(
    "--schedules", type=click.IntRange(min=1), default=20_000, show_default=True, help="Number of schedules to run."
)
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first schedule.")
@click.option("--seconds", type=FiniteRange(min=0, min_open=True), default=86_400, help="Stop after this many seconds.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=os.cpu_count(), help="Processes (default: one per core)."
)
@click.option(
    "--package",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=POOL,
    help="Folder of the pool's package (default: this project's).",
)
def main(seed: int | None, schedules: int, first: int, seconds: float, processes: int, package: Path) -> None:
    """Run the schedules, or show one, and exit 1 if something did not hold."""
    if not (package / "fair_pool.py").is_file():
        raise click.BadParameter(f"there is no fair_pool.py in {package}", param_hint="--package")
    if seed is not None:
        failure = replay(package.resolve(), seed)
        sys.exit(failure or print("everything held"))
    began_s, end = time.monotonic(), first + schedules
    deadline_s = began_s + seconds
    batches = [(package.resolve(), at, min(at + BATCH, end), deadline_s) for at in range(first, end, BATCH)]
    done = 0
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for count, failed, failure in workers.imap(first_failure, batches):
            done += count
            if failure:
                workers.terminate()
                sys.exit(
                    f"seed {failed} failed: {failure}\nto see it: python -m tests.poolbench.simulation --seed {failed}"
                )
            if time.monotonic() > deadline_s:
                break
    print(f"{done} schedules in {time.monotonic() - began_s:.0f} s: everything held")


if __name__ == "__main__":
    main()
