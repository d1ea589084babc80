"""The service as a process of its own, for tests that reach it over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

import psutil

from db.child import Child
from loadgen.lab.stack import free_port
from tests.support.paths import BIN, ROOT

GUNICORN = [str(BIN / "gunicorn"), "-c", "wsgi/gunicorn_conf.py", "wsgi:create_app()"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The kind of problem that the answer tells of."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status and self.json["title"]
        return self.json["type"].rpartition(":")[2]


@dataclass
class ServerProcess:
    """The service as a process of its own, reached over HTTP; its stderr is kept in a file."""

    child: Child
    port: int
    log_file: Path

    @property
    def process(self) -> subprocess.Popen:
        return self.child.process

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = dict(headers or {})
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
                given.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def get_many(self, path: str, count: int) -> list[Answer]:
        """That many requests at once."""
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(self.get, [path] * count))

    def new_link(self, url: str = "https://example.com/some/where") -> str:
        answer = self.request("POST", "/links", {"url": url})
        assert answer.status == 201, answer
        return answer.json["code"]

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log, those of gunicorn included."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def failures(self) -> list[dict[str, Any]]:
        """The lines that failed requests wrote."""
        return [line for line in self.log_lines() if "trace" in line]

    def serves(self, path: str) -> bool:
        """Whether it answers; fails, showing its log, if the process ended."""
        assert self.process.poll() is None, self.log_file.read_text()
        try:
            self.get(path)
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the server's main process alone, as a supervisor would: its workers are for themselves."""
        self.process.send_signal(how)
        return self.process.wait(60)


def start_server(log_file: Path, *, command: list[str] | None = None, **settings: object) -> ServerProcess:
    """A gunicorn process (or another command, in which PORT stands for the port) with exactly these settings."""
    port = free_port()
    plain = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    environment = plain | {"WEB_CONCURRENCY": "1", "PORT": str(port)} | {k: str(v) for k, v in settings.items()}
    command = [part.replace("PORT", str(port)) for part in command or GUNICORN]
    log_file.unlink(missing_ok=True)
    child = Child(command, log=log_file, death_signal=signal.SIGTERM, cwd=ROOT, env=environment)
    return ServerProcess(child, port, log_file)


@contextmanager
def serving(log_file: Path, **settings: object) -> Iterator[ServerProcess]:
    """A server process with exactly these settings, which answers while inside and has ended afterwards."""
    server = start_server(log_file, **settings)
    try:
        wait_until(lambda: server.serves("/live"), "the server serves")
        yield server
    finally:
        server.child.stop()


def wait_until(condition: Any, what: str = "it came true", limit_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.01)


def read_until(stream: IO[str], text: str) -> str:
    """Read lines up to the first one that contains `text`, and return it; fail, with what was read, where the stream ends."""
    seen = []
    for line in iter(stream.readline, ""):
        if text in line:
            return line
        seen.append(line)
    raise AssertionError(f"the process ended before it said {text!r}: {''.join(seen)}")


def descendants(pid: int, word: str = "", *, recursive: bool = True) -> list[psutil.Process]:
    """Processes that the process has started (and theirs, if recursive) with this word in their command line.

    Those that vanish while they are looked at are left out.
    """
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=recursive):
            # A zombie is a NoSuchProcess, too: it has no command line any more.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if word in " ".join(process.cmdline()):
                    found.append(process)
    return found


def lives(pid: int) -> bool:
    """Whether the process has not ended, be it waited for or not."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def ends_with_its_starter(source: str) -> None:
    """Run Python code that starts a process, prints its pid and waits for input; kill it; that process must end as well."""
    starter = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with starter:
        try:
            pid = int(starter.stdout.readline())
        finally:
            starter.kill()
    wait_until(lambda: not lives(pid), "the process has ended with its starter")
