"""Load that keeps a ledger: a process of its own that sends requests and writes down what became of each one.

Every write has a key of its own (in the link's URL, or in the click's referrer), so that the database can be asked
afterwards for each single one. Instants are seconds of CLOCK_MONOTONIC, which all processes of a machine share. A request
that could not be sent on its connection, or whose answer did not come, is never repeated.
"""

from __future__ import annotations

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import gevent.event
import gevent.os
import gevent.pool

from tests.support.paths import ROOT

WRITES = {"create": 201, "follow": 301}
GOOD = WRITES | {"read": 200, "analytics": 200, "health": 200, "live": 200}
"""Kinds of request, and the status that means success (and, of a write, that it was acknowledged)."""

NOT_SENT = "refused"


class Outcome(NamedTuple):
    """What became of one request. `status` is 0 where no answer came, and then `error` says why."""

    kind: str
    key: str
    intended_s: float
    started_s: float
    ended_s: float
    status: int
    error: str
    problem: str
    retry_after: str

    @property
    def good(self) -> bool:
        return self.status == GOOD[self.kind]

    @property
    def took_s(self) -> float:
        return self.ended_s - self.started_s


@dataclass(frozen=True)
class Plan:
    """Open (`rate_per_s`: arrivals on time, whatever becomes of them) or closed (`clients`, each waiting for its answer)."""

    port: int
    mix: tuple[str, ...]
    code: str = ""
    clients: int = 0
    rate_per_s: float = 0.0
    keep_alive: bool = False
    think_s: float = 0.0
    timeout_s: float = 20.0
    name: str = "w"


class Load:
    """The process, seen from the test."""

    def __init__(self, plan: Plan, ledger: Path) -> None:
        self._ledger = ledger
        ledger.touch()
        command = [sys.executable, "-m", __name__, json.dumps(asdict(plan)), str(ledger)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
        self._read_to = 0
        self._outcomes: list[Outcome] = []

    def outcomes(self) -> list[Outcome]:
        """All so far."""
        with self._ledger.open() as ledger:
            ledger.seek(self._read_to)
            text = ledger.read()
        whole = text[: text.rfind("\n") + 1]
        self._read_to += len(whole)
        self._outcomes += [Outcome(*json.loads(line)) for line in whole.splitlines()]
        return self._outcomes

    def good_since(self, instant_s: float, kind: str | None = None) -> int:
        """How many requests that began after the instant have succeeded."""
        return sum(o.good and o.started_s > instant_s and kind in {None, o.kind} for o in self.outcomes())

    def stop(self) -> list[Outcome]:
        """Begin no more requests, wait for those under way, and hand over the ledger."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        assert self._process.wait(60) == 0
        return self.outcomes()

    def abandon(self) -> None:
        """At the end of a test, however it went."""
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


# The process itself


class Client:
    """Sends requests, on one connection or on one each, and files what became of them. On bare sockets, because the load
    shares the machine with what it loads: http.client takes half as much CPU again."""

    def __init__(self, plan: Plan, file: Any) -> None:
        self._plan, self._file = plan, file
        self._connection: socket.socket | None = None

    def request(self, kind: str, key: str, intended_s: float) -> None:
        started_s = time.monotonic()
        status, problem, retry_after, error = 0, "", "", ""
        connection, self._connection = self._connection, None
        try:
            connection = connection or self._connect()
            connection.sendall(self._message(kind, key))
            status, headers, body = _answer(connection)
            retry_after = headers.get("retry-after", "")
            if headers.get("content-type") == "application/problem+json":
                problem = json.loads(body)["type"].rpartition(":")[2]
            if self._plan.keep_alive and headers.get("connection", "").lower() != "close":
                self._connection = connection
        except (OSError, ValueError) as failed:
            error = _why(failed)
        ended_s = time.monotonic()
        if connection is not None and self._connection is None:
            connection.close()
        line = Outcome(kind, key, intended_s, started_s, ended_s, status, error, problem, retry_after)
        self._file.write(json.dumps(line) + "\n")

    def _connect(self) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(self._plan.timeout_s)
        try:
            connection.connect(("127.0.0.1", self._plan.port))
        except OSError:
            connection.close()
            raise
        return connection

    def _message(self, kind: str, key: str) -> bytes:
        code, head, body = self._plan.code, "Host: 127.0.0.1\r\n", ""
        if not self._plan.keep_alive:
            head += "Connection: close\r\n"
        line = f"GET /{kind}"
        if kind == "create":
            line, body = "POST /links", json.dumps({"url": f"https://example.com/{key}"})
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        elif kind == "follow":
            line, head = f"GET /{code}", f"{head}Referer: https://{key}/\r\n"
        elif kind in {"read", "analytics"}:
            line = f"GET /links/{code}" + ("/analytics" if kind == "analytics" else "")
        return f"{line} HTTP/1.1\r\n{head}\r\n{body}".encode()


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and body of an answer with a length. Raises OSError; ValueError if not HTTP."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += _more(connection)
    head, _, body = read.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += _more(connection)
    return int(status.split()[1]), headers, body


def _more(connection: socket.socket) -> bytes:
    if not (read := connection.recv(65536)):
        raise ConnectionResetError
    return read


def _why(failed: Exception) -> str:
    if isinstance(failed, ConnectionRefusedError):
        return NOT_SENT
    return "timeout" if isinstance(failed, TimeoutError) else "reset"


def _closed(plan: Plan, file: Any, stop: gevent.event.Event, numbers: Any, mix: Any) -> None:
    client = Client(plan, file)
    while not stop.is_set():
        client.request(next(mix), f"{plan.name}-{next(numbers)}", time.monotonic())
        if plan.think_s:
            stop.wait(plan.think_s)


def _open(plan: Plan, file: Any, stop: gevent.event.Event, numbers: Any, mix: Any) -> None:
    began_s = time.monotonic()
    under_way = gevent.pool.Group()
    for n in count():
        intended_s = began_s + n / plan.rate_per_s
        if stop.wait(max(0.0, intended_s - time.monotonic())):
            break
        under_way.spawn(Client(plan, file).request, next(mix), f"{plan.name}-{next(numbers)}", intended_s)
    under_way.join()


def main(plan: Plan, ledger: Path) -> None:
    """Send until stdin ends."""
    stop, numbers, mix = gevent.event.Event(), count(), cycle(plan.mix)
    with ledger.open("a") as file:

        def flush() -> None:
            while True:
                gevent.sleep(0.05)
                file.flush()

        flusher = gevent.spawn(flush)
        walks = [gevent.spawn(_closed, plan, file, stop, numbers, mix) for _ in range(plan.clients)]
        if plan.rate_per_s:
            walks.append(gevent.spawn(_open, plan, file, stop, numbers, mix))
        gevent.os.tp_read(0, 1)
        stop.set()
        gevent.joinall(walks, raise_error=True)
        flusher.kill()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    main(Plan(**given | {"mix": tuple(given["mix"])}), Path(sys.argv[2]))
