"""Keeps the cores from falling asleep while something is measured, as the kernel's `idle=poll` would.

An idle core of a virtual machine is given back to the host, and is not always back at once when a packet or a timer wakes
it: "stolen" time that falls on whatever sleeps and wakes often, which is all that connection pools and load generators
do. Measured on two such cores, 100 users and a query of 5 ms: a quarter of the time stolen and 900 requests/s; kept
awake, under 2 % and 1,500. So each core runs a loop under SCHED_IDLE, which yields to anything else at once.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def cores_awake() -> Iterator[None]:
    """All cores this process may use stay awake inside; the loops end with it, however it ends. Linux only."""
    loops = [
        subprocess.Popen([sys.executable, "-c", _LOOP, str(core), str(os.getpid())]) for core in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
