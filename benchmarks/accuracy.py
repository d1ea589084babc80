"""Checks whether the generators' figures are true. Takes about 90 s and prints Markdown.

    python -m benchmarks.accuracy [--only lag,busy,freeze,memory]

- lag: how late virtual users start, at 5,000 a second against nginx.
- busy: a server with known delays (5 to 15 ms evenly, every 33rd answer 40 ms) on its own core. What each tool reports
  about it while the generator's core is idle, and while another program keeps that core 85 % busy; and how far that is from
  what the server saw in the same run (`benchmarks/delaying.py`).
- freeze: nginx is stopped (SIGSTOP) for 2 s of a 10 s run. What the report shows of the stall.
- memory: 10,000 users at once, each with a connection. Bytes per user beyond what ten users need.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.awake import cores_awake
from benchmarks.generators import LOCUSTFILE
from benchmarks.target import (
    GENERATOR_CORE,
    PYTHON,
    SERVER_CORE,
    MissingTool,
    conditions,
    free_port,
    nginx,
    run_pinned,
    started,
    which,
    workers_of,
)
from reports.formats.artillery_json import from_json
from reports.model import Report

_USERS = 10
_BUSY_SECONDS = 6

_BURNING = """
import time
while True:
    end = time.perf_counter() + 0.0085
    while time.perf_counter() < end:
        pass
    time.sleep(0.0015)
"""


def run(url: str, phases: Sequence[Any], flow: Sequence[Any]) -> Report:
    """A report of `loadgen run` on the generators' core."""
    script = {"config": {"target": url, "phases": phases}, "scenarios": [{"flow": flow}]}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "script.json", Path(folder) / "out.json"
        source.write_text(json.dumps(script), "utf-8")
        ran = run_pinned([PYTHON, "-m", "loadgen", "run", str(source), "-q", "-o", str(out)])
        if not out.exists():
            raise MissingTool(ran.err)
        return from_json(out.read_text("utf-8"))


def lag() -> Iterator[str]:
    """Print the start lag at 5,000 users a second."""
    with nginx() as (url, _):
        report = run(url, [{"duration": 5, "arrivalRate": 5000}], [{"get": {"url": "/"}}])
    sketch = report.aggregate.sketches["loadgen.start_lag"]
    quantiles = ", ".join(f"p{100 * q:g} {sketch.quantile(q):.3f} ms" for q in (0.5, 0.9, 0.99, 0.999))
    extras = report.extras
    yield f"start lag of {sketch.count} users at 5,000/s: {quantiles}, max {sketch.max:.1f} ms (limit: p99 under 1 ms)"
    if extras is not None:
        generator = extras.generator
        yield f"CPU share {generator['cpu_share']}, stamped {generator['kernel_stamped']} of {generator['responses']}"


Percentiles = tuple[float, float]
"""p50 and p99 in ms."""


def ours_reports(url: str) -> Percentiles:
    """p50 and p99 of our `http.response_time`, in ms, to the microsecond."""
    flow = [{"loop": [{"get": {"url": "/"}}], "count": int(_BUSY_SECONDS * 95)}]
    report = run(url, [{"duration": 1, "arrivalCount": _USERS}], flow)
    sketch = report.aggregate.sketches["http.response_time"]
    return sketch.quantile(0.5), sketch.quantile(0.99)


def wrk_reports(url: str) -> Percentiles:
    """p50 and p99 as `wrk --latency` reports them, in ms."""
    ran = run_pinned([which("wrk"), "-t1", f"-c{_USERS}", f"-d{_BUSY_SECONDS}s", "--latency", f"{url}/"])
    found = {
        key: _ms(value, unit)
        for key, value, unit in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s)$", ran.out, re.MULTILINE)
    }
    return found["50"], found["99"]


def _ms(value: str, unit: str) -> float:
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def ab_reports(url: str) -> Percentiles:
    """p50 and p99 as `ab -k` reports them, in whole ms."""
    command = [which("ab"), "-q", "-k", "-t", str(_BUSY_SECONDS), "-n", "1000000", "-c", str(_USERS), f"{url}/"]
    found = dict(re.findall(r"^\s+(\d+)%\s+(\d+)", run_pinned(command).out, re.MULTILINE))
    return float(found["50"]), float(found["99"])


def hey_reports(url: str) -> Percentiles:
    """p50 and p99 as hey reports them, in ms."""
    ran = run_pinned([which("hey"), "-cpus", "1", "-c", str(_USERS), "-z", f"{_BUSY_SECONDS}s", f"{url}/"])
    found = {
        key: float(value) * 1000 for key, value in re.findall(r"^\s+(\d+)%+ in ([\d.]+) secs", ran.out, re.MULTILINE)
    }
    return found["50"], found["99"]


def artillery_reports(url: str) -> Percentiles:
    """p50 and p99 of Artillery's http.response_time, in whole ms."""
    script = {
        "config": {"target": url, "phases": [{"duration": 1, "arrivalCount": _USERS}]},
        "scenarios": [{"flow": [{"loop": [{"get": {"url": "/"}}], "count": int(_BUSY_SECONDS * 95)}]}],
    }
    program = os.environ.get("ARTILLERY") or which("artillery")
    path = os.environ.get("NODE_BIN", "") + os.pathsep + os.environ["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "script.yml", Path(folder) / "out.json"
        source.write_text(json.dumps(script), "utf-8")
        command = [program, "run", str(source), "-q", "-o", str(out)]
        ran = run_pinned(command, env={"ARTILLERY_DISABLE_TELEMETRY": "true", "PATH": path}, timeout_s=240)
        if not out.exists():
            raise MissingTool(ran.err.strip()[:200])
        summary = json.loads(out.read_text("utf-8"))["aggregate"]["summaries"]["http.response_time"]
    return float(summary["p50"]), float(summary["p99"])


def locust_reports(url: str) -> Percentiles:
    """p50 and p99 of Locust's FastHttpUser, in whole ms."""
    program = os.environ.get("LOCUST") or which("locust")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "locustfile.py"
        source.write_text(LOCUSTFILE, "utf-8")
        users = ["-u", str(_USERS), "-r", str(_USERS), "-t", f"{_BUSY_SECONDS}s"]
        command = [program, "-f", str(source), "--headless", *users, "-H", url, "--csv", f"{folder}/out"]
        ran = run_pinned([*command, "--skip-log-setup"])
        saved = Path(folder) / "out_stats.csv"
        if not saved.exists():
            raise MissingTool(ran.err.strip()[:200])
        row = list(csv.DictReader(saved.read_text("utf-8").splitlines()))[-1]
    return float(row["50%"]), float(row["99%"])


_TOOLS: dict[str, Callable[[str], Percentiles]] = {
    "poolbench": ours_reports,
    "wrk": wrk_reports,
    "ab -k": ab_reports,
    "hey": hey_reports,
    "Locust FastHttpUser": locust_reports,
    "Artillery": artillery_reports,
}


def busy() -> Iterator[str]:
    """Print what each tool reports about a server while the tool's core is idle and while it is busy, beside what the server saw.

    The server is compared with in the same run: on two cores that share their parts, a busy one slows the other, too.
    """
    yield "| tool | its core | p50: server | tool | off by | p99: server | tool | off by |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started([PYTHON, "-m", "benchmarks.delaying", str(port)], port):
        for name, tool in _TOOLS.items():
            for state, condition in (("idle", nullcontext()), ("85 % busy", _core_kept_busy())):
                try:
                    with condition:
                        _server_saw(url)
                        reported = tool(url)
                        seen = _server_saw(url)
                except (MissingTool, KeyError, OSError, subprocess.TimeoutExpired) as error:
                    yield f"| {name} | left out: {type(error).__name__} {str(error)[:80]} | | | | | | |"
                    break
                cells = [
                    f"{server:.3f} ms | {told:.3f} ms | {100 * (told / server - 1):+.1f} %"
                    for server, told in zip(seen, reported, strict=True)
                ]
                yield f"| {name} | {state} | {cells[0]} | {cells[1]} |"


def _server_saw(url: str) -> Percentiles:
    """p50 and p99 of the answers since this was last asked, in ms, as the server saw them."""
    with urlopen(f"{url}/figures", timeout=10) as answer:
        p50, p99 = json.load(answer)
    return p50, p99


@contextmanager
def _core_kept_busy() -> Iterator[None]:
    with subprocess.Popen(["taskset", "-c", str(GENERATOR_CORE), PYTHON, "-c", _BURNING]) as process:
        try:
            time.sleep(0.3)
            yield
        finally:
            process.kill()


def freeze() -> Iterator[str]:
    """Print what the report shows of a stall of 2 s while users keep arriving."""
    with nginx() as (url, process):
        (worker,) = workers_of(process)
        stop = threading.Timer(5.0, os.kill, (worker, signal.SIGSTOP))
        go = threading.Timer(7.0, os.kill, (worker, signal.SIGCONT))
        for timer in (stop, go):
            timer.start()
        report = run(url, [{"duration": 10, "arrivalRate": 200}], [{"get": {"url": "/"}}])
        for timer in (stop, go):
            timer.join()
    sketch = report.aggregate.sketches["http.response_time.intended"]
    quantiles = ", ".join(f"p{100 * q:g} {sketch.quantile(q):.0f} ms" for q in (0.5, 0.79, 0.9, 0.95, 0.99))
    yield f"nginx frozen for 2 s in 10 s, 200 users/s: {quantiles}, max {sketch.max:.0f} ms"
    yield "a fifth of all users should wait, evenly from 0 to 2 s: p90 1,000 ms, p95 1,500 ms, p99 1,900 ms"


def memory() -> Iterator[str]:
    """Print the memory of a virtual user that holds a connection and thinks."""
    with nginx() as (url, _):
        peaks = [_peak_bytes(url, users) for users in (10, 10_000)]
    yield f"10,000 users at once: {(peaks[1] - peaks[0]) / 9_990 / 1024:.1f} KB each (limit: 20 KB)"


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peak_bytes(url: str, users: int) -> int:
    flow = [{"get": {"url": "/"}}, {"think": "9s"}]
    phases = [{"duration": 6, "arrivalCount": users}]
    script = {"config": {"target": url, "phases": phases}, "scenarios": [{"flow": flow}]}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "script.json"
        source.write_text(json.dumps(script), "utf-8")
        ran = run_pinned([PYTHON, "-c", _PEAK, PYTHON, "-m", "loadgen", "run", str(source), "-q"])
    return int(ran.out.splitlines()[-1]) * 1024


def main() -> None:
    """Print the chosen measurements as Markdown."""
    parts = {"lag": lag, "busy": busy, "freeze": freeze, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=", ".join(parts))
    chosen = [part for part in parser.parse_args().only.split(",") if part] or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    for name in chosen:
        print(f"### {name}\n")
        for line in parts[name]():
            print(line, flush=True)
        print()
    print(f"generator on core {GENERATOR_CORE}, server on core {SERVER_CORE}; {conditions()}")


if __name__ == "__main__":
    with cores_awake():
        main()
