"""Keeps the cores from going idle while something is measured, as the kernel's `idle=poll` would.

A virtual machine gives an idle core back to its host, and does not always get it back at once when a packet or a timer
wakes the core. This "stolen" time hits programs that sleep and wake often, and connection pools and load generators do
little else. So each core runs a loop under SCHED_IDLE, which gives way to anything else at once.

    python -m benchmarks.awake

shows what this changes here: 100 clients of a service with ten connections, whose query takes 5 ms, with the loops and
without.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
try:
    # Where the kernel shares the CPU among sessions first (autogroup), SCHED_IDLE counts within a session only.
    os.setsid()
    with open("/proc/self/autogroup", "w") as file:
        file.write("19")
except OSError:
    pass
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def cores_awake() -> Iterator[None]:
    """Keep this process's cores awake inside the block; the loops end with the process, however it ends. Linux only."""
    loops = [
        subprocess.Popen([sys.executable, "-c", _LOOP, str(core), str(os.getpid())]) for core in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    """Measure with and without the loops, in turns, and print a row for each."""
    from benchmarks.target import ab  # noqa: PLC0415
    from db.embedded import temporary_postgres  # noqa: PLC0415
    from loadgen.lab import fairness  # noqa: PLC0415
    from loadgen.lab.stack import Servers  # noqa: PLC0415

    print("| cores | stolen | requests/s | p50, ms | p99, ms | max, ms |\n| :-- | --: | --: | --: | --: | --: |")
    with temporary_postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        url = fairness.with_pool(postgres.url, "fair", pool_size=10, max_overflow=0)
        with Servers(fairness.program(), 1, {"DATABASE_URL": url}, Path(folder) / "log") as servers:
            ab(servers.url + "/", 500, 100)
            for _ in range(3):
                for name, state in (("left alone", nullcontext), ("awake", cores_awake)):
                    with state():
                        before = _cpu_ticks()
                        found = ab(servers.url + "/", 6000, 100)
                        spent = [after - then for then, after in zip(before, _cpu_ticks(), strict=True)]
                    print(
                        f"| {name} | {spent[7] / sum(spent):.0%} | {found['rps']:.0f} | {found['p50']:.0f} | "
                        f"{found['p99']:.0f} | {found['p100']:.0f} |"
                    )


def _cpu_ticks() -> list[int]:
    """CPU ticks of all cores since boot: user, nice, system, idle, iowait, irq, softirq, steal (proc(5))."""
    return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


if __name__ == "__main__":
    main()
