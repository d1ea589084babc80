"""D.rtt: how much pooling gains, by the distance between service and database.

The distance is a `delay.py` process, whose round-trip time can be changed while connections are open. So every arrangement
is started once, and all distances and arrangements take turns in random order: other work of the machine affects all of
them alike.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Self
from urllib.parse import urlsplit

from db.child import Child
from db.embedded import EmbeddedPostgres
from loadgen.closed import Workload
from loadgen.environment import python_command
from loadgen.http.route import Origin
from loadgen.lab.evidence import Crossing, Distance
from loadgen.lab.pgbouncer import PgBouncer
from loadgen.lab.stack import PartError, Servers, StackError, connect, cpu_of_tree, service
from loadgen.lab.turns import in_turns
from loadgen.runner import ClosedResult, Interrupted, Live, run_ab
from reports import names
from reports.answers import failed_share
from reports.formats.apachebench import AbReport
from reports.merge import merge

ID = "D.rtt"
ROUND_TRIPS_MS = (0.0, 0.5, 1.0, 5.0)
STRATEGIES = ("null", "queue", "fair")
NEAR_APP, NEAR_DATABASE = "null, PgBouncer near the app", "null, PgBouncer near the database"
USERS = (1, 20)
CONNECTIONS = 10
_ROUND_S = 1.5
# A calibration makes this many rounds over all ways, with this many statements a round.
_TRIALS, _TRIPS = 10, 30


class Delay:
    """A running `delay.py` in front of `address`, its round trip 0 at first. Ends on leaving, or with this process.

    Entering raises StackError if it does not start.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._child: Child | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._child = Child(
            python_command("loadgen.lab.delay", *map(str, self._address)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, which cuts the connections that it carries."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def set(self, round_trip_ms: float) -> None:
        """Sets the round trip, in ms; it is in force on return. Raises StackError."""
        if self._child is not None:
            # If the process has ended, the missing answer shows it.
            with suppress(OSError):
                self._child.stdin.write(f"{round_trip_ms / 1000}\n")
                self._child.stdin.flush()
        self._answer()

    def through(self, url: str) -> str:
        """The database's URL, changed to lead through this process. The host's name is kept, for TLS to check."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        query = "&".join(filter(None, (parts.query, "hostaddr=127.0.0.1")))
        return parts._replace(netloc=f"{user}{at}{host}:{self.port}", query=query).geturl()

    def cpu_s(self) -> float:
        """CPU seconds that the process has used so far."""
        return cpu_of_tree(self._child.pid) if self._child is not None else 0.0

    def _answer(self) -> str:
        answer = self._child.stdout.readline().strip() if self._child is not None else ""
        if not answer:
            self.__exit__()
            raise PartError("the process that stands for the distance to the database has ended")
        return answer


@contextmanager
def at(url: str, round_trip_ms: float | None) -> Iterator[tuple[str, Crossing | None]]:
    """Puts a distance before a database while inside: gives the URL at a distance, and the cost of a round trip.

    Without `round_trip_ms` it gives the URL as it is, and None. Raises StackError, psycopg2.Error.
    """
    if round_trip_ms is None:
        yield url, None
        return
    with Delay(address_of(url)) as delay:
        crossing = calibrate(url, delay, (round_trip_ms,))
        delay.set(round_trip_ms)
        yield delay.through(url), crossing


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a database's URL. Raises StackError unless the URL names one of each: a distance needs TCP."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 5432
    except ValueError:
        host, port = None, 0
    if not host or "," in host or "%2F" in host.upper() or "hostaddr=" in url:
        raise StackError("a distance needs a database with one host name in its URL, reached by TCP")
    return host, port


def calibrate(url: str, delay: Delay, round_trips_ms: Sequence[float]) -> Crossing:
    """Measures a round trip without the delay process and through it, with each delay asked for and with none.

    Times are medians of `select 1` on open connections, from before the statement is given to libpq until its row has
    arrived, by CLOCK_MONOTONIC; all ways take turns. Leaves the delay at 0. Raises StackError, psycopg2.Error.
    """
    asked = (None, *sorted({0.0, *round_trips_ms}))
    took: dict[float | None, list[float]] = {way: [] for way in asked}
    with closing(connect(url)) as direct, closing(connect(delay.through(url))) as through:
        for trial in range(_TRIALS + 1):
            for way in asked:
                if way is not None:
                    delay.set(way)
                times = _round_trips_ms(direct if way is None else through)
                # The first trial only warms the connections.
                if trial:
                    took[way] += times
    delay.set(0.0)
    direct_ms = median(took.pop(None))
    return Crossing(direct_ms, {way: median(times) for way, times in took.items() if way is not None})


def _round_trips_ms(connection: Any) -> list[float]:
    times = []
    with connection.cursor() as cursor:
        for _ in range(_TRIPS):
            began_ns = time.monotonic_ns()
            cursor.execute("select 1")
            cursor.fetchone()
            times.append((time.monotonic_ns() - began_ns) / 1e6)
    return times


def expected_s(rounds: int) -> float:
    """About how long D.rtt takes, in seconds; shown to the user."""
    return 15.0 + rounds * len(USERS) * len(ROUND_TRIPS_MS) * (len(STRATEGIES) + 2) * _ROUND_S


class Session:
    """All arrangements of D.rtt while they run: a server each, in front of a database at a distance that can be changed.

    `crossing` holds the measured distances, `skipped` says what could not be arranged and why. Entering raises StackError,
    EmbeddedPostgresError, psycopg2.Error.
    """

    def __init__(self, url: str, postgres: EmbeddedPostgres | None, folder: Path) -> None:
        self._url, self._postgres, self._folder = url, postgres, folder
        self._running = ExitStack()
        self._delays: list[Delay] = []
        self._servers: dict[str, Servers] = {}
        self.crossing = Crossing(0.0, {})
        self.skipped: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            near = self._delay(running, address_of(self._url))
            self.crossing = calibrate(self._url, near, ROUND_TRIPS_MS)
            urls = dict.fromkeys(STRATEGIES, near.through(self._url)) | self._pooled_urls(running, near)
            for number, (name, url) in enumerate(urls.items()):
                log = self._folder / f"{ID}.{number}.log"
                settings = {"DATABASE_URL": url, "DB_POOL": name.split(",")[0], "DB_POOL_SIZE": str(CONNECTIONS)}
                servers = running.enter_context(Servers(service(), 1, settings, log))
                # The first request also brings the tables up to date.
                if not servers.answers("/health"):
                    raise PartError(f"{ID}: the service does not reach the database ({name}): {log.read_text()[-300:]}")
                self._servers[name] = servers
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def run(self, rounds: int, live: Live, rng: Random) -> Iterator[Distance]:
        """Yields each cell when all its rounds are over. When interrupted, yields what was measured, then raises Interrupted.

        In each round, all cells take turns in an order that `rng` gives.
        """
        cells = [(users, far, name) for users in USERS for far in ROUND_TRIPS_MS for name in self._servers]
        runs: dict[tuple[int, float, str], list[ClosedResult]] = {cell: [] for cell in cells}
        interrupted: Interrupted | None = None
        try:
            for users, far, name in in_turns(cells, rounds, rng):
                for delay in self._delays:
                    delay.set(far)
                runs[users, far, name].append(_one(self._servers[name], users, live))
        except Interrupted as error:
            interrupted = error
        except KeyboardInterrupt:
            interrupted = Interrupted()
        for cell, done in runs.items():
            if done:
                yield _cell(*cell, done)
        if interrupted is not None:
            raise interrupted

    def _delay(self, running: ExitStack, address: tuple[str, int]) -> Delay:
        self._delays.append(running.enter_context(Delay(address)))
        return self._delays[-1]

    def _pooled_urls(self, running: ExitStack, near: Delay) -> dict[str, str]:
        """Starts PgBouncer on either side of the distance; returns the URL through each by the name of its arrangement."""
        if self._postgres is None:
            self.skipped = (f"{ID}: no PgBouncer, which is set up beside the lab's own database only.",)
            return {}
        try:
            here = running.enter_context(PgBouncer(self._postgres, pool_size=CONNECTIONS, server_port=near.port))
            there = running.enter_context(PgBouncer(self._postgres, pool_size=CONNECTIONS))
        except StackError as error:
            self.skipped = (f"{ID}: no PgBouncer: {error}",)
            return {}
        far = self._delay(running, ("127.0.0.1", there.port))
        return {NEAR_APP: here.url, NEAR_DATABASE: far.through(there.url)}


def _one(servers: Servers, users: int, live: Live) -> ClosedResult:
    origin = Origin("http", "127.0.0.1", servers.port)
    done = run_ab(Workload(origin, "/health", 10**9, users, _ROUND_S, keep_alive=True, timeout_s=60.0), live)
    if done.signal is not None:
        raise Interrupted(done.signal)
    return done


def _cell(users: int, round_trip_ms: float, arrangement: str, runs: Sequence[ClosedResult]) -> Distance:
    merged = merge([run.report for run in runs])
    rates = [AbReport.of(run.samples).requests_per_second or 0.0 for run in runs]
    good = [1 - failed_share(run.report.aggregate.counters) for run in runs]
    return Distance(
        arrangement,
        users,
        round_trip_ms,
        merged,
        sum(rates) / len(rates),
        merged.aggregate.sketches[names.INTENDED],
        tuple(rate * share for rate, share in zip(rates, good, strict=True)),
    )
