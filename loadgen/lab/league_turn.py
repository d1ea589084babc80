"""One turn of the league: one measurement of one pool, in greenlets or in threads, in a process of its own.

    echo '{"pool": "fair", "mode": "threads", "measure": "fairness", "url": "postgresql://..."}' |
        python -m loadgen.lab.league_turn

Prints one line of JSON: the figures by name. All pools open connections with psycopg 3, in autocommit mode.
"""

# ruff: noqa: E402 - patching comes before all other imports

import json
import sys

SETTINGS = json.load(sys.stdin) if __name__ == "__main__" else {}
if SETTINGS.get("mode") == "greenlets":
    from gevent import monkey

    monkey.patch_all()

import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from psycopg import Connection, OperationalError

SIZE, BORROWERS, HOLD_S = 10, 100, 0.01


class Network:
    """What opening a connection takes beside the server itself: a delay, or a refusal while the server is away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.delay_s = 0.0
        self.is_down = False
        self.attempts: list[float] = []
        self.opened = 0

    def open(self, kind: Any = Connection) -> Any:
        """Open a connection of this class. Raises OperationalError while the server is away."""
        self.attempts.append(time.monotonic())
        time.sleep(self.delay_s)
        if self.is_down:
            raise OperationalError("connection refused")
        made = Connection.connect.__func__(kind, self.url, autocommit=True)  # type: ignore[attr-defined]
        self.opened += 1
        return made

    def query(self, connection: Any, duration_s: float) -> None:
        """Hold a connection for a query of this duration, in s."""
        if self.is_down:
            raise OperationalError("server closed the connection unexpectedly")
        connection.execute("select pg_sleep(%s)", (duration_s,))


class SQLAlchemyPool:
    """QueuePool or FairPool."""

    def __init__(self, name: str, network: Network, size: int, idle: int, timeout_s: float) -> None:
        from sqlalchemy.pool import QueuePool  # noqa: PLC0415

        from poolbench import FairPool  # noqa: PLC0415

        more: dict[str, Any] = {"max_wait": timeout_s} if name == "fair" else {}
        kind: Any = FairPool if name == "fair" else QueuePool
        self._pool = kind(network.open, pool_size=size, max_overflow=0, timeout=timeout_s, **more)
        with contextlib.ExitStack() as held:
            for _ in range(idle):
                held.callback(self._pool.connect().close)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Any]:
        """Lend a connection; one that the server has broken is given up."""
        loan = self._pool.connect()
        try:
            yield loan.dbapi_connection
        except OperationalError:
            loan.invalidate()
            raise
        finally:
            loan.close()

    def close(self) -> None:
        """Close what is idle."""
        self._pool.dispose()


class PsycopgPool:
    """psycopg_pool's ConnectionPool."""

    def __init__(self, network: Network, size: int, idle: int, timeout_s: float) -> None:
        import logging  # noqa: PLC0415

        from psycopg_pool import ConnectionPool  # noqa: PLC0415

        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)

        class Opened(Connection):
            @classmethod
            def connect(cls, *_: Any, **__: Any) -> Any:
                return network.open(cls)

        self._pool: Any = ConnectionPool(
            network.url, connection_class=Opened, min_size=idle, max_size=size, timeout=timeout_s, open=True
        )
        self._pool.wait()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Any]:
        """As above."""
        connection = self._pool.getconn()
        try:
            yield connection
        except OperationalError:
            connection.close()
            raise
        finally:
            self._pool.putconn(connection)

    def close(self) -> None:
        """Close all."""
        self._pool.close()


def make(name: str, network: Network, size: int = SIZE, idle: int = SIZE, timeout_s: float = 30.0) -> Any:
    """A pool of at most `size` connections, `idle` of which are open.

    Then collects garbage: else the first full collection, of what was imported, falls into some of the measurements and lasts
    as long as a spike.
    """
    if name == "psycopg_pool":
        pool: Any = PsycopgPool(network, size, idle, timeout_s)
    else:
        pool = SQLAlchemyPool(name, network, size, idle, timeout_s)
    gc.collect()
    return pool


def all_at_once(count: int, task: Callable[[int], None]) -> list[threading.Thread]:
    """Start that many threads (greenlets in a patched process)."""
    threads = [threading.Thread(target=task, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def fairness(name: str, network: Network, seconds: float) -> dict[str, float]:
    """Borrowers who ask again at once. Unfinished waits count with what they have lasted."""
    pool = make(name, network)
    waits_s: list[float] = []
    loans, since = [0] * BORROWERS, [0.0] * BORROWERS
    is_over = threading.Event()
    clock = time.monotonic

    def borrow(number: int) -> None:
        while not is_over.is_set():
            since[number] = asked = clock()
            with contextlib.suppress(Exception), pool.lend() as connection:
                if is_over.is_set():
                    return
                since[number] = 0.0
                waits_s.append(clock() - asked)
                network.query(connection, HOLD_S)
                loans[number] += 1

    cpu_s = time.process_time()
    threads = all_at_once(BORROWERS, borrow)
    time.sleep(seconds)
    is_over.set()
    cpu_s, now = time.process_time() - cpu_s, clock()
    waits_s += [now - each for each in since if each]
    for thread in threads:
        thread.join(5)
    pool.close()
    waits_s.sort()
    p50, p99 = (waits_s[int(q * (len(waits_s) - 1))] for q in (0.5, 0.99))
    squares = sum(n * n for n in loans)
    return {
        "jain": sum(loans) ** 2 / (BORROWERS * squares) if squares else 0.0,
        "p50_ms": p50 * 1e3,
        "p99_ms": p99 * 1e3,
        "max_ms": waits_s[-1] * 1e3,
        "spread": p99 / max(p50, 1e-6),
        "unserved": loans.count(0),
        "cpu_us": cpu_s / max(1, sum(loans)) * 1e6,
        "loans_per_s": sum(loans) / seconds,
    }


def free(name: str, network: Network, loans: int = 2000) -> dict[str, float]:
    """Lend and return, with nobody else there: the quickest of nine batches."""
    pool = make(name, network, 5, 5)
    if name == "psycopg_pool":
        get, put = pool._pool.getconn, pool._pool.putconn  # noqa: SLF001
    else:
        get, put = pool._pool.connect, lambda loan: loan.close()  # noqa: SLF001
    for _ in range(200):
        put(get())
    batches_s = []
    for _ in range(9):
        cpu_s = time.process_time()
        for _ in range(loans):
            put(get())
        batches_s.append(time.process_time() - cpu_s)
    pool.close()
    return {"free_us": min(batches_s) / loans * 1e6}


def spike(name: str, network: Network, hold_s: float) -> dict[str, float]:
    """50 borrowers at once, 5 idle connections of 50, and opening one takes 150 ms more."""
    pool = make(name, network, 50, 5)
    network.delay_s, before = 0.15, network.opened

    def borrow(_: int) -> None:
        with pool.lend() as connection:
            network.query(connection, hold_s)

    began = time.monotonic()
    for thread in all_at_once(50, borrow):
        thread.join(60)
    took_s, opened = time.monotonic() - began, network.opened - before
    pool.close()
    return {"spike_ms": took_s * 1e3, "opened": opened}


def overload(name: str, network: Network, factor: float, hold_s: float, seconds: float) -> dict[str, float]:
    """Arrivals at `factor` times the capacity, each with a patience of nine holds and a half, of which the pool may use eight."""
    # A load that one process can generate.
    size = SIZE if hold_s >= 0.1 else 1
    capacity, patience_s = size / hold_s, 9.5 * hold_s
    pool = make(name, network, size, size, 8 * hold_s)
    for thread in all_at_once(4 * size, lambda _: _lend_quietly(pool, hold_s)):
        thread.join(60)
    answers_s: list[float] = []
    refusals_s: list[float] = []

    def visit(_: int) -> None:
        asked = time.monotonic()
        try:
            with pool.lend():
                time.sleep(hold_s)
            answers_s.append(time.monotonic() - asked)
        except Exception:  # noqa: BLE001 - each pool has its own
            refusals_s.append(time.monotonic() - asked)

    rng, threads = random.Random(1), []
    at = began = time.monotonic()
    while (at := at + rng.expovariate(factor * capacity)) < began + seconds:
        if (delay_s := at - time.monotonic()) > 0:
            time.sleep(delay_s)
        threads += all_at_once(1, visit)
    for thread in threads:
        thread.join(60)
    took_s = time.monotonic() - began
    pool.close()
    good = sum(each <= patience_s for each in answers_s)
    refusals_s.sort()
    return {
        "goodput": good / (capacity * took_s),
        "late": 1 - good / max(1, len(answers_s)),
        "refusal_ms": refusals_s[len(refusals_s) // 2] * 1e3 if refusals_s else 0.0,
    }


def _lend_quietly(pool: Any, hold_s: float) -> None:
    with contextlib.suppress(Exception), pool.lend():
        time.sleep(hold_s)


def outage(name: str, network: Network, down_s: float = 2.0) -> dict[str, float]:
    """The server refuses for a while, with 100 borrowers on 10 connections who ask again 10 ms after a failure."""
    pool = make(name, network, timeout_s=30.0)
    done: list[float] = []
    is_over = threading.Event()

    def borrow(_: int) -> None:
        while not is_over.is_set():
            try:
                with pool.lend() as connection:
                    network.query(connection, HOLD_S)
                done.append(time.monotonic())
            except Exception:  # noqa: BLE001 - each pool has its own
                time.sleep(0.01)

    all_at_once(BORROWERS, borrow)
    time.sleep(0.5)
    network.is_down = True
    down = time.monotonic()
    time.sleep(down_s)
    tried = sum(down <= at for at in network.attempts)
    network.is_down = False
    back = time.monotonic()
    time.sleep(3.0)
    is_over.set()
    after = [at - back for at in done if at > back]
    return {"attempts_per_s": tried / down_s, "recovery_s": after[2 * SIZE - 1] if len(after) >= 2 * SIZE else 3.0}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "fairness": fairness,
    "free": free,
    "spike": spike,
    "overload": overload,
    "outage": outage,
}


def main() -> None:
    """Measure, print, and leave without waiting for borrowers who are never served."""
    pool, measure, url = SETTINGS["pool"], SETTINGS["measure"], SETTINGS["url"]
    figures = MEASURES[measure](pool, Network(url), *SETTINGS.get("arguments", []))
    print(json.dumps(figures), flush=True)  # noqa: T201 - its result, for the process that asked
    os._exit(0)


if __name__ == "__main__":
    main()
