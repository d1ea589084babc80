"""Runs one experiment of a publication once; a program that `publication_run` starts.

    echo '{"kind": "clients", "url": "postgresql://...", "values": {"clients": 10, ...}}' | python -m loadgen.lab.publication_turn

`values` are the settings that `PublicationExperiment.settings` returns. The program prints one line of JSON: the figures by name,
which `publication.FIGURES` lists for each kind. Connections are in autocommit mode.
"""

# ruff: noqa: E402 - patching comes before all other imports

import json
import sys

SETTINGS = json.load(sys.stdin) if __name__ == "__main__" else {}
if SETTINGS.get("values", {}).get("mode") == "greenlets":
    from gevent import monkey

    monkey.patch_all()
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()

import asyncio
import contextlib
import os
import random
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

_NAME = f"poolbench-turn-{os.getpid()}"
"""The application name of all connections, by which PostgreSQL can count them."""


Values = Mapping[str, Any]


class Network:
    """Opens connections to the database at `url`, after a pause of `delay_s`, and runs the experiment's statement on them."""

    def __init__(self, url: str, values: Values) -> None:
        self.url = url
        self.delay_s = 0.0
        self._driver = values["driver"]
        self._statement = values["statement"] or f"SELECT pg_sleep({values['hold_ms'] / 1000})"

    def open(self, kind: Any = None) -> Any:
        """Open a connection. `kind` is the class that psycopg is to make, if psycopg_pool asks for one of its own."""
        time.sleep(self.delay_s)
        if self._driver == "psycopg2":
            made = psycopg2.connect(self.url, application_name=_NAME)
            made.autocommit = True
            return made
        from psycopg import Connection  # noqa: PLC0415 - may not be installed

        connect = Connection.connect.__func__  # type: ignore[attr-defined]
        return connect(kind or Connection, self.url, autocommit=True, application_name=_NAME)

    def run(self, connection: Any) -> int:
        """Run the statement and fetch its rows. Returns the number of rows. Raises the driver's errors."""
        with connection.cursor() as cursor:
            cursor.execute(self._statement)
            return len(cursor.fetchall()) if cursor.description else 0

    def count(self) -> int:
        """The number of this program's connections that are open at PostgreSQL."""
        with contextlib.closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (_NAME,))
            return int(cursor.fetchone()[0])


class _SQLAlchemyPool:
    """SQLAlchemy's QueuePool or NullPool, or FairPool, with `idle` connections opened beforehand."""

    def __init__(self, values: Values, network: Network) -> None:
        from sqlalchemy.pool import NullPool, QueuePool  # noqa: PLC0415 - must come after the patching

        from poolbench import FairPool  # noqa: PLC0415

        if values["pool"] == "null":
            self.pool: Any = NullPool(network.open)
        else:
            kind: Any = FairPool if values["pool"] == "fair" else QueuePool
            self.pool = kind(
                network.open, pool_size=values["size"], max_overflow=values["overflow"], timeout=values["timeout_s"]
            )
        with contextlib.ExitStack() as held:
            for _ in range(values.get("idle", 0)):
                held.callback(self.pool.connect().close)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Any]:
        """Lend a driver's connection for as long as the context lasts. Raises the pool's errors."""
        loan = self.pool.connect()
        try:
            yield loan.dbapi_connection
        finally:
            loan.close()


def _pool(values: Values, network: Network) -> Any:
    """The pool that the settings name, with its idle connections open."""
    if values["pool"] != "psycopg_pool":
        return _SQLAlchemyPool(values, network)
    from loadgen.lab.league_turn import PsycopgPool  # noqa: PLC0415 - needs psycopg

    league: Any = network
    return PsycopgPool(league, values["size"], values["idle"], values["timeout_s"])


def borrowers(url: str, values: Values) -> dict[str, float]:
    """The kind "borrowers": each takes a connection from a pool, runs the statement, and gives the connection back, in a loop.

    The loop lasts `seconds`, or `loans` loans for each borrower. Waits that are unfinished at the end count with their length so
    far. Returns the figures by name.
    """
    network, count, clock = Network(url, values), values["borrowers"], time.monotonic
    pool = _pool(values, network)
    network.delay_s = values["connect_delay_ms"] / 1000
    waits_s: list[float] = []
    runs_s: list[float] = []
    times_s: list[float] = []
    loans, since, failures = [0] * count, [0.0] * count, [0] * count
    think_s, rng = values["think_ms"] / 1000, random.Random(1)
    starts_s = [rng.random() * think_s for _ in range(count)]
    begin, is_over = threading.Event(), threading.Event()

    def once(number: int) -> None:
        since[number] = asked = clock()
        try:
            with contextlib.ExitStack() as held:
                for _ in range(values["nested"]):
                    connection = held.enter_context(pool.lend())
                lent = clock()
                since[number] = 0.0
                if is_over.is_set():
                    return
                network.run(connection)
                done = clock()
        except Exception:  # noqa: BLE001 - each pool and driver has its own
            failures[number] += not is_over.is_set()
            since[number] = 0.0
            return
        waits_s.append(lent - asked)
        runs_s.append(done - lent)
        times_s.append(done - asked)
        loans[number] += 1

    def borrow(number: int) -> None:
        begin.wait()
        if think_s:
            time.sleep(starts_s[number])
        turn = 0
        while not is_over.is_set() and (not values["loans"] or turn < values["loans"]):
            turn += 1
            once(number)
            if think_s:
                time.sleep(think_s)

    threads = [threading.Thread(target=borrow, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    began = clock()
    begin.set()
    if values["seconds"]:
        is_over.wait(values["seconds"])
    else:
        for thread in threads:
            thread.join(600)
    took_s = clock() - began
    is_over.set()
    unfinished = [clock() - each for each in since if each]
    done, failed = sum(loans), sum(failures)
    squares = sum(n * n for n in loans)
    return {
        "per_second": done / took_s,
        "wait_mean_ms": _mean_ms(waits_s + unfinished),
        "wait_p99_ms": _quantile_ms(waits_s + unfinished, 0.99),
        "wait_max_ms": max(waits_s + unfinished, default=0.0) * 1e3,
        "run_mean_ms": _mean_ms(runs_s),
        "time_mean_ms": _mean_ms(times_s),
        "time_p99_ms": _quantile_ms(times_s, 0.99),
        "total_ms": took_s * 1e3,
        "connections": network.count(),
        "failed": failed / max(1, done + failed),
        "unserved": loans.count(0),
        "evenness": done**2 / (count * squares) if squares else 0.0,
    }


def requests(url: str, values: Values) -> dict[str, float]:
    """The kind "requests": all requests arrive at once, for a fixed number of threads, and each runs the statement once.

    With `give_back: later`, a request's connection is given back by another task, which waits for a thread just as new requests
    do. Web frameworks that run the end of a request separately do the same. Returns the figures by name.
    """
    network, clock = Network(url, values), time.monotonic
    pool = _SQLAlchemyPool(values, network).pool
    count, is_later = values["requests"], values["give_back"] == "later"
    served_s: list[float] = []
    failed_s: list[float] = []
    left = threading.Semaphore(0)
    executor = ThreadPoolExecutor(values["threads"])

    def end(times_s: list[float]) -> None:
        times_s.append(clock() - began)
        left.release()

    def give_back(loan: Any) -> None:
        loan.close()
        end(served_s)

    def work() -> None:
        try:
            loan = pool.connect()
        except Exception:  # noqa: BLE001 - each pool has its own
            end(failed_s)
            return
        try:
            network.run(loan.dbapi_connection)
        except Exception:  # noqa: BLE001 - each driver has its own
            loan.close()
            end(failed_s)
            return
        if is_later:
            executor.submit(give_back, loan)
        else:
            give_back(loan)

    began = clock()
    for _ in range(count):
        executor.submit(work)
    for _ in range(count):
        left.acquire()
    took_s = clock() - began
    return {
        "per_second": len(served_s) / took_s,
        "served": len(served_s),
        "served_early": sum(each < values["timeout_s"] for each in served_s),
        "failed": len(failed_s) / count,
        "time_max_ms": max(served_s + failed_s) * 1e3,
        "total_ms": took_s * 1e3,
    }


def clients(url: str, values: Values) -> dict[str, float]:
    """The kind "clients": each client runs the statement in a loop, without a pool, on one connection or on a new one each time.

    Returns the figures by name.
    """
    if values["driver"] == "pgbench":
        return _pgbench(url, values)
    started = time.monotonic()
    if values["driver"] == "asyncpg":
        times_s, rows, failed = asyncio.run(_async_clients(url, values))
    else:
        times_s, rows, failed = _thread_clients(url, values)
    took_s = min(time.monotonic() - started, values["seconds"])
    return {
        "per_second": len(times_s) / took_s,
        "rows_per_second": rows / took_s,
        "time_mean_ms": _mean_ms(times_s),
        "failed": failed / max(1, len(times_s) + failed),
    }


def _thread_clients(url: str, values: Values) -> tuple[list[float], int, int]:
    """The times of all statements in s, the rows fetched, and the number of failures; clients are threads.

    Raises what a client's first connection raises, where all are to be open before the first statement.
    """
    network, clock, each_time = Network(url, values), time.monotonic, values["connect"] == "each time"
    times_s: list[float] = []
    rows, failures = [0] * values["clients"], [0] * values["clients"]
    all_connected = threading.Barrier(values["clients"])
    ends = [0.0]
    refused: list[Exception] = []

    def work(number: int) -> None:
        try:
            connection = None if each_time else network.open()
            if all_connected.wait() == 0:
                ends[0] = clock() + values["seconds"]
            all_connected.wait()
        except threading.BrokenBarrierError:
            # Another client has no connection.
            return
        except Exception as error:  # noqa: BLE001 - each driver has its own
            refused.append(error)
            all_connected.abort()
            return
        while (began := clock()) < ends[0]:
            try:
                if each_time:
                    with contextlib.closing(network.open()) as own:
                        rows[number] += network.run(own)
                else:
                    rows[number] += network.run(connection)
                times_s.append(clock() - began)
            except Exception:  # noqa: BLE001 - each driver has its own
                failures[number] += 1

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(values["clients"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(values["seconds"] + 60)
    if refused:
        raise refused[0]
    return times_s, sum(rows), sum(failures)


async def _async_clients(url: str, values: Values) -> tuple[list[float], int, int]:
    """As `_thread_clients`, with asyncpg; clients are tasks of one event loop."""
    import asyncpg  # noqa: PLC0415 - may not be installed

    clock, each_time, statement = time.monotonic, values["connect"] == "each time", values["statement"]
    times_s: list[float] = []
    rows, failures = [0], [0]

    async def work(connection: Any, end: float) -> None:
        while (began := clock()) < end:
            own = None
            try:
                own = await asyncpg.connect(url) if each_time else connection
                fetched = await own.fetch(statement)
                # In a statement of its own: nothing may be read before the wait and written after it.
                rows[0] += len(fetched)
                times_s.append(clock() - began)
            except Exception:  # noqa: BLE001 - network and server errors have no common class
                failures[0] += 1
            finally:
                if each_time and own is not None:
                    await own.close()

    opened = [] if each_time else [await asyncpg.connect(url) for _ in range(values["clients"])]
    end = clock() + values["seconds"]
    await asyncio.gather(*(work(opened[n] if opened else None, end) for n in range(values["clients"])))
    return times_s, rows[0], failures[0]


def _pgbench(url: str, values: Values) -> dict[str, float]:
    """The figures that PostgreSQL's own pgbench prints.

    Raises OSError if it cannot be started, CalledProcessError if it fails, ValueError if it printed no figures.
    """
    from db.binaries import find_binaries  # noqa: PLC0415

    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"{values['statement']};\n")
        script.flush()
        command = [str(find_binaries() / "pgbench"), "-n", "-c", str(values["clients"]), "-f", script.name,
                   "-j", str(min(values["clients"], os.cpu_count() or 1)), "-T", str(max(1, round(values["seconds"]))),
                   *(["-C"] if values["connect"] == "each time" else [])]  # fmt: skip
        address = parse_dsn(url)
        # Every user of the machine may read arguments.
        environment = {**os.environ, "PGPASSWORD": address.pop("password", os.environ.get("PGPASSWORD", ""))}
        command.append(make_dsn(**address))
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found = {}
    for name, pattern in (("per_second", r"tps = ([\d.]+)"), ("time_mean_ms", r"latency average = ([\d.]+)")):
        match = re.search(pattern, said)
        if match is None:
            raise ValueError("pgbench ran no transaction to its end")
        found[name] = float(match.group(1))
    failed = re.search(r"failed transactions: \d+ \(([\d.]+)%", said)
    return {**found, "failed": float(failed.group(1)) / 100 if failed else 0.0}


def _mean_ms(values_s: Sequence[float]) -> float:
    return sum(values_s) / len(values_s) * 1e3 if values_s else 0.0


def _quantile_ms(values_s: Sequence[float], q: float) -> float:
    ordered = sorted(values_s)
    return ordered[int(q * (len(ordered) - 1))] * 1e3 if ordered else 0.0


KINDS: dict[str, Callable[[str, Values], dict[str, float]]] = {
    "borrowers": borrowers,
    "requests": requests,
    "clients": clients,
}


def main() -> None:
    """Run the experiment, print its figures, and end the process without waiting for borrowers that are never served."""
    figures = KINDS[SETTINGS["kind"]](SETTINGS["url"], {"hold_ms": 0.0, **SETTINGS["values"]})
    print(json.dumps(figures), flush=True)  # noqa: T201 - its result, for the process that asked
    os._exit(0)


if __name__ == "__main__":
    main()
