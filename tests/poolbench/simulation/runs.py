"""Many schedules, or one again."""

from __future__ import annotations

import time
from pathlib import Path

from tests.poolbench.simulation.schedule import Schedule, packages_in, simulated_process


def first_failure(batch: tuple[Path, int, int, float]) -> tuple[int, int, str | None]:
    """Run the seeds from the first up to the last, until one fails or the time (monotonic, in s) is over.

    Returns the number of schedules run, the last seed run, and what did not hold.
    """
    folder, first, last, deadline_s = batch
    packages = packages_in(folder)
    with simulated_process():
        for seed in range(first, last):
            if failure := Schedule.of(packages, seed).run():
                return seed - first + 1, seed, failure
            if time.monotonic() > deadline_s:
                return seed - first + 1, seed, None
    return last - first, last - 1, None


def replay(folder: Path, seed: int) -> str | None:
    """Run one schedule and print its steps. Returns what did not hold."""
    with simulated_process():
        schedule = Schedule.of(packages_in(folder), seed, trace=True)
        print(f"{schedule.flavour}: {schedule.options}")
        failure = schedule.run()
        print(*schedule.world.trace or (), sep="\n")
    return failure
