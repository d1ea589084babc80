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
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import gevent.event
import gevent.os
import gevent.pool

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
        command = [sys.executable, __file__, json.dumps(asdict(plan)), str(ledger)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
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
    """Sends requests, on one connection or on one each, and files what became of them."""

    def __init__(self, plan: Plan, file: Any) -> None:
        self._plan, self._file = plan, file
        self._connection: HTTPConnection | None = None

    def request(self, kind: str, key: str, intended_s: float) -> None:
        started_s = time.monotonic()
        status, problem, retry_after, error = 0, "", "", ""
        connection = self._connection or HTTPConnection("127.0.0.1", self._plan.port, timeout=self._plan.timeout_s)
        try:
            connection.request(*self._message(kind, key))
            answer = connection.getresponse()
            body = answer.read()
            status, retry_after = answer.status, answer.headers.get("Retry-After", "")
            if answer.headers.get("Content-Type") == "application/problem+json":
                problem = json.loads(body)["type"].rpartition(":")[2]
        except (OSError, HTTPException) as failed:
            error = _why(failed)
        ended_s = time.monotonic()
        self._connection = connection if self._plan.keep_alive and status and connection.sock is not None else None
        if self._connection is None:
            connection.close()
        line = Outcome(kind, key, intended_s, started_s, ended_s, status, error, problem, retry_after)
        self._file.write(json.dumps(line) + "\n")

    def _message(self, kind: str, key: str) -> tuple[str, str, bytes | None, dict[str, str]]:
        headers = {} if self._plan.keep_alive else {"Connection": "close"}
        code = self._plan.code
        if kind == "create":
            body = json.dumps({"url": f"https://example.com/{key}"}).encode()
            return "POST", "/links", body, headers | {"Content-Type": "application/json"}
        if kind == "follow":
            return "GET", f"/{code}", None, headers | {"Referer": f"https://{key}/"}
        path = {"read": f"/links/{code}", "analytics": f"/links/{code}/analytics"}.get(kind, f"/{kind}")
        return "GET", path, None, headers


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
