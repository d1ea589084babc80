"""What sharing a run over a Dask cluster costs. Prints two Markdown tables.

    python -m benchmarks.distributed [--rounds 3] [--seconds 10]

The first table runs one plan with `--workers 2` and with `--dask` on two Dask workers, in turns, against nginx: the
generators' CPU per request, and the CPU of everything else (coordinator, scheduler, workers, start-up). The second is what
one worker costs the process that started the run: streams recorded from a real generator are played back to a crew of 10,
100 and 1,000 workers through the code that receives Dask's messages, and as many messages are sent through a real
scheduler.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
from distributed import Client, get_worker

from benchmarks.target import PYTHON, conditions, nginx
from loadgen.clock import WallOffset, now_ns
from loadgen.crew.baggage import pack
from loadgen.crew.cluster import Member
from loadgen.crew.crew import Job
from loadgen.crew.distributed import RemoteCrew
from loadgen.crew.framing import JOB, READY, RENEW, START, message, parted
from loadgen.crew.relay import DATA, ENDED, STARTED
from loadgen.engine import Listener
from loadgen.lab.stack import free_port
from loadgen.runner import read_script
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions

CREWS = (10, 100, 1000)
RATE_PER_S = 200
ENDPOINTS = 5
RENEW_S = 2.0
_TOPIC = "poolbench-benchmark"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    print(f"{conditions()}\n")
    with nginx() as (url, _), tempfile.TemporaryDirectory(prefix="poolbench-distributed-") as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(json.dumps(plan_for(url, options.seconds)), "utf-8")
        with dask_processes(Path(folder), workers=2) as (address, pids):
            overhead(plan, address, pids, options.rounds)
            script = read_script([str(plan)], RunOptions(directory=folder), seed=1)
            streams(recorded(script), script, address, pids[0])


def plan_for(url: str, seconds: int) -> dict[str, Any]:
    """The script: five endpoints, one user after another for each."""
    flow = [{"get": {"url": f"/{number}"}} for number in range(ENDPOINTS)]
    phases = [{"duration": seconds, "arrivalRate": RATE_PER_S // ENDPOINTS}]
    return {"config": {"target": url, "phases": phases}, "scenarios": [{"flow": flow}]}


@contextmanager
def dask_processes(folder: Path, workers: int) -> Iterator[tuple[str, list[int]]]:
    """Run a cluster on loopback inside the block; yields its address and its process ids, the scheduler's first."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    common = ["--no-dashboard", "--host", "127.0.0.1"]
    commands = [["distributed.cli.dask_scheduler", "--port", str(port), *common]]
    worker = ["distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "2", "--local-directory", str(folder)]
    commands += [[*worker, *common]] * workers
    started = [subprocess.Popen([PYTHON, "-m", *command], stderr=subprocess.DEVNULL) for command in commands]
    try:
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address, [process.pid for process in started]
    finally:
        for process in started:
            process.terminate()
            process.wait()


# The first table: beside --workers


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run cost: CPU of the generators per request, CPU of everything else, seconds beyond the plan's."""

    generators_us: float
    rest_s: float
    beyond_s: float


def overhead(plan: Path, address: str, pids: Sequence[int], rounds: int) -> None:
    """Print the first table: two workers forked here against two in a cluster."""
    ways = {"`--workers 2`": ["--workers", "2"], "`--dask`, 2 workers": ["--dask", address]}
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, options in ways.items():
            costs[way].append(cost_of(plan, options, pids))
    print("| | generators, CPU us per request | everything else, CPU s | wall, s beyond the plan |")
    print("| --- | --- | --- | --- |")
    for way, found in costs.items():
        row = (statistics.median(getattr(c, name) for c in found) for name in ("generators_us", "rest_s", "beyond_s"))
        print(f"| {way} | " + " | ".join(f"{value:.3g}" for value in row) + " |")
    print()


def cost_of(plan: Path, options: Sequence[str], pids: Sequence[int]) -> Cost:
    """Carry out one run; return what it cost here and in the cluster's processes."""
    out = plan.with_suffix(".out.json")
    before, began = cpu_s(pids), time.monotonic()
    subprocess.run([PYTHON, "-m", "loadgen", "run", str(plan), "-q", "-o", str(out), *options], check=True, stdout=-3)
    wall_s, used_s = time.monotonic() - began, cpu_s(pids) - before
    found = json.loads(out.read_text("utf-8"))
    generator = found["poolbench"]["generator"]
    planned_s = json.loads(plan.read_text("utf-8"))["config"]["phases"][0]["duration"]
    per_request_us = generator["cpu_s"] * 1e6 / found["aggregate"]["counters"]["http.requests"]
    return Cost(per_request_us, used_s - generator["cpu_s"], wall_s - planned_s)


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds used so far by these processes, and by all ended children, theirs and ours."""
    mine = os.times()
    theirs = (psutil.Process(pid).cpu_times() for pid in pids)
    return mine.children_user + mine.children_system + sum(sum(times[:4]) for times in theirs)


# The second table: what a worker costs the process that started the run


def recorded(script: Script) -> list[list[bytes]]:
    """What a generator sends while it carries out the whole plan, by second, in the pieces in which it arrived."""
    command = [PYTHON, "-m", "loadgen.shard", str(os.getpid()), *"0101"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if child.stdin is None or child.stdout is None:
            raise BrokenPipeError

        def order(kind: bytes, content: bytes = b"") -> None:
            child.stdin.write(message(kind, content))
            child.stdin.flush()

        order(JOB, pack(Job(script, 1)))
        ready = bytearray(os.read(child.stdout.fileno(), 1 << 16))
        if [kind for kind, _ in parted(ready)] != [READY]:
            raise RuntimeError("the generator did not get ready")
        start_ns = now_ns() + 500_000_000
        start = {"started_ns": start_ns, "wall_ns": WallOffset().wall_ns, "ends_ns": start_ns + 3600 * 1_000_000_000}
        order(START, orjson.dumps(start))
        done = threading.Event()
        threading.Thread(target=lambda: [order(RENEW) for _ in iter(lambda: done.wait(RENEW_S), True)]).start()
        seconds: dict[int, list[bytes]] = {}
        while piece := os.read(child.stdout.fileno(), 1 << 18):
            seconds.setdefault((now_ns() - start_ns) // 1_000_000_000, []).append(piece)
        done.set()
    return [seconds[second] for second in sorted(seconds)]


class Replay(RemoteCrew):
    """A crew that receives the recorded pieces as if each of its workers had sent them, second by second, as fast as it can."""

    def __init__(self, count: int, job: Job, seconds: Sequence[Sequence[bytes]]) -> None:
        members = [Member(f"tcp://192.0.2.1:{number}", "recorded") for number in range(count)]
        super().__init__(Recorded(members), print, job, WallOffset(), lambda _: None)
        self._seconds = seconds

    def _launch(self) -> None:
        self._bell.start(self._sort)
        self._started_ns = now_ns()
        threading.Thread(target=self._play).start()

    def _play(self) -> None:
        indices = range(self.count)
        numbers = dict.fromkeys(indices, 0)

        def say(index: int, kind: int, content: Any) -> None:
            self._post([index, numbers[index], kind, content])
            numbers[index] += 1

        for index in indices:
            say(index, STARTED, "")
        for pieces in self._seconds:
            for piece in pieces:
                for index in indices:
                    say(index, DATA, piece)
        for index in indices:
            say(index, ENDED, 0)

    def _end_all(self) -> None:
        self._bell.close()


@dataclass(frozen=True, slots=True)
class Recorded:
    """Takes the place of a crew's cluster."""

    members: list[Member]


def streams(seconds: Sequence[Sequence[bytes]], script: Script, address: str, scheduler: int) -> None:
    """Print the second table: what each worker of a large crew costs."""
    pieces = sum(len(second) for second in seconds) / len(seconds)
    size = sum(len(piece) for second in seconds for piece in second) / len(seconds)
    rows = {count: replayed(count, script, seconds) for count in CREWS}
    here_us, there_us = delivered(address, scheduler, max((p for s in seconds for p in s), key=len))
    print(
        f"A worker that makes {RATE_PER_S} requests a second sends {size / 1000:.1f} KB in {pieces:.1f} messages a second.\n"
    )
    print("| workers | merging, CPU ms per worker and second | with delivery | share of a core | scheduler's |")
    print("| --- | --- | --- | --- | --- |")
    for count, merging_ms in rows.items():
        whole_ms = merging_ms + pieces * here_us / 1000
        share, scheduler_share = whole_ms * count / 1000, pieces * there_us * count / 1e6
        print(f"| {count:,} | {merging_ms:.3f} | {whole_ms:.3f} | {share:.1%} | {scheduler_share:.1%} |")


def replayed(count: int, script: Script, seconds: Sequence[Sequence[bytes]]) -> float:
    """CPU milliseconds per worker and second of the recording."""
    crew = Replay(count, Job(script, 1), seconds)
    began = time.process_time()
    crew.run((), Listener())
    used_s = time.process_time() - began
    if len(crew.results()) != count or crew.lost():
        raise RuntimeError("the recording was not taken whole")
    return used_s * 1000 / count / len(seconds)


def delivered(address: str, scheduler: int, piece: bytes, messages: int = 2000) -> tuple[float, float]:
    """CPU microseconds per message: (in this process, in the scheduler)."""
    arrived = threading.Semaphore(0)
    with Client(address, timeout=60, set_as_default=False) as client:
        client.subscribe_topic(_TOPIC, lambda _: arrived.release())
        before_s, mine_s = sum(psutil.Process(scheduler).cpu_times()[:2]), time.process_time()
        client.submit(_flood(), _TOPIC, piece, messages).result(timeout=120)
        for _ in range(messages):
            if not arrived.acquire(timeout=60):
                raise RuntimeError("messages were lost")
        mine_s = time.process_time() - mine_s
        there_s = sum(psutil.Process(scheduler).cpu_times()[:2]) - before_s
    return mine_s * 1e6 / messages, there_s * 1e6 / messages


def _flood() -> Callable[[str, bytes, int], None]:
    # A function defined inside a function is sent to the worker by value.
    def flood(topic: str, piece: bytes, messages: int) -> None:
        for number in range(messages):
            get_worker().log_event(topic, [0, number, 1, piece])

    return flood


if __name__ == "__main__":
    sys.exit(main())
