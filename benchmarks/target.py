"""What the generators' benchmarks have in common: nginx with one worker on the last core, and processes pinned to a core."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadgen.lab.stack import free_port

GENERATOR_CORE = 0
SERVER_CORE = (os.cpu_count() or 1) - 1
PYTHON = sys.executable

_CONFIG = """
worker_processes 1; daemon off; pid {folder}/pid; error_log /dev/null crit; worker_rlimit_nofile 40000;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    location / {{ default_type text/plain; return 200 "hello, world!"; }}
    location /json {{
      default_type application/json; add_header Set-Cookie "session=abc123; Path=/"; return 200 '{{"id":"x12","n":[1,2,3]}}';
    }}
  }}
}}
"""


class MissingTool(Exception):
    """A program that this benchmark needs is not installed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished process: what it wrote, and the CPU seconds that it and its children used."""

    out: str
    err: str
    cpu_s: float
    wall_s: float


def which(name: str) -> str:
    """The path of a program. Raises MissingTool."""
    found = shutil.which(name)
    if found is None:
        raise MissingTool(f"{name} is not installed")
    return found


def run_pinned(
    command: Sequence[str], timeout_s: float = 120, env: Mapping[str, str] | None = None, core: int = GENERATOR_CORE
) -> Ran:
    """Run a program to its end on one core."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        ["taskset", "-c", str(core), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(done.stdout, done.stderr, cpu_s, time.monotonic() - started)


@contextmanager
def started(command: Sequence[str], port: int, core: int = SERVER_CORE) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on one core inside the block, which begins when it accepts connections."""
    pinned = ["taskset", "-c", str(core), *command]
    with subprocess.Popen(pinned, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MissingTool(f"{command[0]} did not start")
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()


@contextmanager
def nginx() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run nginx inside the block; yields its base URL and its master process. Raises MissingTool."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="poolbench-nginx-") as folder:
        # nginx's worker may run as another user.
        Path(folder).chmod(0o755)
        config = Path(folder) / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, port=port), "ascii")
        with started([which("nginx"), "-c", str(config), "-p", folder], port) as process:
            yield f"http://127.0.0.1:{port}", process


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of a process's children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text("ascii").split()]


def ab(url: str, requests: int, users: int) -> dict[str, float]:
    """Load a URL with `ab -k`; return requests per second as `rps`, and p50, p99 and p100 (the longest) in ms."""
    command = ["ab", "-q", "-k", "-n", str(requests), "-c", str(users), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = int(re.search(r"Failed requests: +(\d+)", text)[1])
    if failed or "Non-2xx" in text:
        sys.exit(f"{url}: {failed} failed\n{text}")
    found = {"rps": float(re.search(r"Requests per second: +([\d.]+)", text)[1])}
    for percent in (50, 99, 100):
        found[f"p{percent}"] = float(re.search(rf"{percent}% +(\d+)", text)[1])
    return found


def conditions() -> str:
    """A sentence on the machine: its cores and its load."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, load average {load}, Python {sys.version.split()[0]}, Linux {os.uname().release}"
