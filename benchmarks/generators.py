"""Load generators side by side. Prints Markdown tables with the medians of the rounds.

    python -m benchmarks.generators [--rounds 5] [--seconds 3] [--only WORKLOAD,...] [--tools NAME,...]

Each generator has core 0 to itself; nginx, with one worker, has the last core. The generators take turns within a round, so
that all meet the same machine. CPU is what the kernel charged the generator's process, without the interpreter's start-up
where a run without requests, or of one request, shows how much that is (ours, K9-Load, Locust, Artillery).

A tool that is not installed is named and left out. LOCUST, ARTILLERY, AUTOCANNON and K9 may name its command; NODE_BIN names
the folder of Artillery's node.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.awake import cores_awake
from benchmarks.target import PYTHON, MissingTool, Ran, conditions, nginx, run_pinned, which

USERS = 50


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests that were answered, the seconds they took, and the generator's CPU seconds."""

    requests: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Requests per second, of the one core that the generator had to itself."""
        return self.requests / self.wall_s

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request."""
        return self.cpu_s * 1e6 / self.requests


Generator = Callable[[str, float], Measured]
"""A function of (base URL, seconds) that runs a tool and returns what was measured. Raises MissingTool."""


@dataclass(slots=True)
class WorkloadTable:
    """One table: its title and the tools in it, ours first."""

    title: str
    generators: dict[str, Generator]
    results: dict[str, list[Measured]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


# Ours and Artillery: the same scripts

GET = [{"get": {"url": "/"}}]
HEADERS = {"x-user": "{{ user }}", "x-trace": "trace-{{ $loopCount }}"}
REALISTIC = [
    {
        "post": {
            "url": "/json",
            "json": {"name": "{{ user }}", "tags": ["a", "b"]},
            "headers": HEADERS,
            "capture": {"json": "$.id", "as": "id"},
        }
    },
    {"get": {"url": "/items/{{ id }}", "headers": HEADERS}},
]


def looped(flow: list[Any], count: int) -> dict[str, Any]:
    """50 users who each repeat the flow `count` times over one connection."""
    phases = [{"duration": 1, "arrivalCount": USERS}]
    return _script(phases, [{"loop": flow, "count": count}])


def arriving(rate: float, seconds: float) -> dict[str, Any]:
    """A new user, and so a new connection, for each request."""
    return _script([{"duration": seconds, "arrivalRate": rate}], GET)


def _script(phases: list[Any], flow: list[Any]) -> dict[str, Any]:
    return {"config": {"phases": phases, "variables": {"user": "bob"}}, "scenarios": [{"flow": flow}]}


_DRIVER = """
import json, sys, time
from pathlib import Path
from loadgen.watch.console import Console
from loadgen.runner import read_script, run_script
from loadgen.script.parse import RunOptions
script = read_script([sys.argv[1]], RunOptions(target=sys.argv[2], env={}, directory="."))
cpu, wall = time.process_time(), time.monotonic()
report = run_script(script, Console(lambda text: None), lambda progress: None, 1).report
cpu, wall = time.process_time() - cpu, time.monotonic() - wall
print(json.dumps([report.aggregate.counters.get("http.responses", 0), wall, cpu, report.extras.generator["kernel_stamped"]]))
"""


def ours(script: Callable[[float], dict[str, Any]]) -> Generator:
    """Measure ours: one process, with full metrics and kernel timestamps."""

    def measure(url: str, seconds: float) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "script.json"
            path.write_text(json.dumps(script(seconds)), "utf-8")
            ran = run_pinned([PYTHON, "-c", _DRIVER, str(path), url])
        return Measured(*json.loads(_last_line(ran))[:3])

    return measure


def artillery(script: Callable[[float], dict[str, Any]]) -> Generator:
    """Measure Artillery. Its start-up, about 10 s of CPU, is measured with a script of one request and subtracted."""

    def measure(url: str, seconds: float) -> Measured:
        program = os.environ.get("ARTILLERY") or which("artillery")
        path = os.environ.get("NODE_BIN", "") + os.pathsep + os.environ["PATH"]
        env = {"ARTILLERY_DISABLE_TELEMETRY": "true", "PATH": path}
        runs = []
        for each in (script(seconds), looped(GET, 1)):
            with tempfile.TemporaryDirectory() as folder:
                source, out = Path(folder) / "script.yml", Path(folder) / "out.json"
                source.write_text(json.dumps(each), "utf-8")
                ran = run_pinned([program, "run", str(source), "-t", url, "-q", "-o", str(out)], env=env)
                if not out.exists():
                    raise MissingTool(f"artillery said: {ran.err.strip()[:200] or ran.out.strip()[:200]}")
                total = json.loads(out.read_text("utf-8"))["aggregate"]
            spent_s = (total["lastMetricAt"] - total["firstMetricAt"]) / 1000
            runs.append(Measured(total["counters"].get("http.responses", 0), max(spent_s, 0.001), ran.cpu_s))
        whole, start_up = runs
        return Measured(whole.requests, whole.wall_s, max(0.001, whole.cpu_s - start_up.cpu_s))

    return measure


# Peers with a closed workload


def bare(mode: str, requests_per_s: int) -> Generator:
    """Measure the floor, `bare`: a gevent loop that only measures."""

    def measure(url: str, seconds: float) -> Measured:
        requests = int(requests_per_s * seconds)
        address = url.removeprefix("http://")
        ran = run_pinned([PYTHON, "-m", "benchmarks.bare", mode, address, str(USERS), str(requests)])
        return Measured(*json.loads(_last_line(ran)))

    return measure


def wrk(url: str, seconds: float) -> Measured:
    """Measure wrk with one thread."""
    ran = run_pinned([which("wrk"), "-t1", f"-c{USERS}", f"-d{max(1, round(seconds))}s", f"{url}/"])
    found = re.search(r"(\d+) requests in ([\d.]+)s", ran.out)
    if found is None:
        raise MissingTool(f"wrk said: {ran.out[:200]}")
    return Measured(int(found[1]), float(found[2]), ran.cpu_s)


def ab(*options: str, program: Sequence[str] = ("ab",)) -> Generator:
    """Measure ApacheBench, or a program with its options and its report."""

    def measure(url: str, seconds: float) -> Measured:
        command = [which(program[0]), *program[1:], "-q", *options]
        busy = ["-t", str(max(1, round(seconds))), "-n", "10000000", "-c", str(USERS)]
        ran = run_pinned([*command, *busy, f"{url}/"])
        done = re.search(r"Complete requests:\s+(\d+)", ran.out)
        taken = re.search(r"Time taken for tests:\s+([\d.]+)", ran.out)
        if done is None or taken is None:
            raise MissingTool(f"ab said: {ran.err[:200]}")
        start_up = run_pinned([*command, f"{url}/"])
        return Measured(int(done[1]), float(taken[1]), ran.cpu_s - start_up.cpu_s)

    return measure


def k9(*options: str) -> Generator:
    """Measure K9-Load, whose engine is Rust, with a plan as data: no Python runs while it sends."""

    def measure(url: str, seconds: float) -> Measured:
        program = os.environ.get("K9") or which("k9")
        plan = {"flows": {"default": [{"request": {"url": f"{url}/"}}]}}
        runs = []
        for load in (["-u", str(USERS), "-d", f"{max(1, round(seconds))}s"], ["-u", "1", "-i", "1"]):
            with tempfile.TemporaryDirectory() as folder:
                source, out = Path(folder) / "plan.json", Path(folder) / "out.json"
                source.write_text(json.dumps(plan), "utf-8")
                ran = run_pinned([program, "run", str(source), *load, *options, "--summary-export", str(out)])
                if not out.exists():
                    raise MissingTool(f"k9 said: {ran.err.strip()[:200]}")
                sent = json.loads(out.read_text("utf-8"))["metrics"]["http_reqs"]
            runs.append(Measured(int(sent["count"]), sent["count"] / sent["rate"], ran.cpu_s))
        whole, start_up = runs
        return Measured(whole.requests, whole.wall_s, max(0.001, whole.cpu_s - start_up.cpu_s))

    return measure


def hey(url: str, seconds: float) -> Measured:
    """Measure hey on one core."""
    command = [which("hey"), "-cpus", "1", "-c", str(USERS), "-z", f"{max(1, round(seconds))}s", f"{url}/"]
    ran = run_pinned(command)
    counts = [int(n) for n in re.findall(r"^\s*\[\d+\]\s+(\d+) responses", ran.out, re.MULTILINE)]
    total = re.search(r"Total:\s+([\d.]+) secs", ran.out)
    if not counts or total is None:
        raise MissingTool(f"hey said: {ran.out[:200]}")
    return Measured(sum(counts), float(total[1]), ran.cpu_s)


def autocannon(url: str, seconds: float) -> Measured:
    """Measure autocannon with one worker."""
    program = os.environ.get("AUTOCANNON") or which("autocannon")
    command = [program, "-j", "-c", str(USERS), "-d", str(max(1, round(seconds))), f"{url}/"]
    ran = run_pinned(command, env={"PATH": os.environ.get("NODE_BIN", "") + os.pathsep + os.environ["PATH"]})
    found = json.loads(_last_line(ran))
    return Measured(found["requests"]["total"], found["duration"], ran.cpu_s)


LOCUSTFILE = """
from locust import FastHttpUser, constant, task
class User(FastHttpUser):
    wait_time = constant(0)
    @task
    def get(self):
        self.client.get("/")
"""
"""Locust's script: a user that sends requests as fast as it can."""


def locust(url: str, seconds: float) -> Measured:
    """Measure Locust's FastHttpUser. Its start-up is that of a run stopped after a second of one user."""
    program = os.environ.get("LOCUST") or which("locust")
    runs = []
    for users, length_s in ((USERS, max(2, round(seconds))), (1, 1)):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "locustfile.py"
            source.write_text(LOCUSTFILE, "utf-8")
            command = [
                program,
                "-f",
                str(source),
                "--headless",
                "-u",
                str(users),
                "-r",
                str(users),
                "-t",
                f"{length_s}s",
            ]
            ran = run_pinned([*command, "-H", url, "--json", "--skip-log-setup"])
        entries = json.loads(ran.out[ran.out.index("[") :])
        runs.append((sum(entry["num_requests"] for entry in entries), float(length_s), ran.cpu_s, ran.wall_s))
    (requests, length_s, cpu_s, _), (_, _, _, _) = runs
    # It was busy for the whole of that second.
    idle_cpu_s = max(0.0, runs[1][2] - 1.0)
    return Measured(requests, length_s, max(0.001, cpu_s - idle_cpu_s))


def _last_line(ran: Ran) -> str:
    lines = [line for line in ran.out.splitlines() if line.strip()]
    if not lines:
        raise MissingTool(f"it said: {ran.err.strip()[-300:]}")
    return lines[-1]


# Tables


def workloads() -> dict[str, WorkloadTable]:
    """The workloads by their short names."""
    return {
        "keepalive": WorkloadTable(
            f"{USERS} users looping one GET, keep-alive",
            {
                "poolbench": ours(lambda s: looped(GET, max(1, int(1200 * s)))),
                "bare gevent loop": bare("keepalive", 50_000),
                "poolbench ab -k": ab("-k", program=(PYTHON, "-m", "loadgen", "ab")),
                "wrk": wrk,
                "ab -k": ab("-k"),
                "K9-Load": k9(),
                "autocannon": autocannon,
                "hey": hey,
                "Locust FastHttpUser": locust,
                "Artillery": artillery(lambda s: looped(GET, max(1, int(60 * s)))),
            },
        ),
        "connections": WorkloadTable(
            "a new user and connection per request: ours is asked for 20,000 a second: more than it can, and said so",
            {
                "poolbench": ours(lambda s: arriving(20_000, s)),
                "bare gevent loop": bare("connections", 5_000),
                "poolbench ab": ab(program=(PYTHON, "-m", "loadgen", "ab")),
                "ab": ab(),
                "K9-Load": k9("--no-connection-reuse"),
                "Artillery": artillery(lambda s: arriving(1500, s)),
            },
        ),
        "realistic": WorkloadTable(
            "POST json, capture, templated GET, 2 templated headers, cookie (per request)",
            {
                "poolbench": ours(lambda s: looped(REALISTIC, max(1, int(200 * s)))),
                "Artillery": artillery(lambda s: looped(REALISTIC, max(1, int(25 * s)))),
            },
        ),
    }


def measure(workload: WorkloadTable, rounds: int, seconds: float) -> None:
    """Run all generators in turn, `rounds` times."""
    with nginx() as (url, _):
        for _ in range(rounds):
            for name, generator in workload.generators.items():
                if name in workload.missing:
                    continue
                try:
                    workload.results.setdefault(name, []).append(generator(url, seconds))
                except (MissingTool, OSError, ValueError) as error:
                    workload.missing[name] = str(error).splitlines()[0] if str(error) else type(error).__name__


def table(workload: WorkloadTable) -> Iterator[str]:
    """A Markdown table of medians, and of their ratios to ours."""
    yield f"### {workload.title}"
    yield ""
    yield "| generator | requests/s/core | CPU us per request | ours / theirs, by requests/s | ours by CPU |"
    yield "| --- | --- | --- | --- | --- |"
    medians = {
        name: (statistics.median(r.per_s for r in results), statistics.median(r.cpu_us for r in results))
        for name, results in workload.results.items()
        if results
    }
    own = medians.get("poolbench")
    for name, (per_s, cpu_us) in medians.items():
        ratios = f"{own[0] / per_s:.2f} | {cpu_us / own[1]:.2f}" if own else "- | -"
        yield f"| {name} | {per_s:,.0f} | {cpu_us:.1f} | {ratios} |"
    for name, reason in workload.missing.items():
        yield f"| {name} | left out: {reason} | | | |"
    yield ""


def main() -> None:
    """Print the tables of the chosen workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long each generator runs")
    parser.add_argument("--only", default="", help="keepalive, connections, realistic")
    parser.add_argument("--tools", default="", help="only these, as the tables name them, with commas between")
    options = parser.parse_args()
    chosen = workloads()
    only = [part for part in options.only.split(",") if part] or list(chosen)
    if unknown := set(only) - set(chosen):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(chosen)}")
    for name in only:
        if options.tools:
            tools = options.tools.split(",")
            chosen[name].generators = {tool: run for tool, run in chosen[name].generators.items() if tool in tools}
        measure(chosen[name], options.rounds, options.seconds)
        print("\n".join(table(chosen[name])), flush=True)
    print(f"{conditions()}; medians of {options.rounds}")


if __name__ == "__main__":
    with cores_awake():
        main()
