"""The only place that builds an engine and opens connections."""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import gevent
import psycopg2
import sqlalchemy.exc
from psycopg2.extensions import connection as DriverConnection  # noqa: N812
from psycopg2.extensions import get_wait_callback
from sqlalchemy import Connection, Engine, NullPool, create_engine

from db.checkout import Checkout, asking, connecting
from db.errors import DatabaseDown, DatabaseFailure, PoolTimeout, classify
from db.settings import DatabaseSettings
from db.strategies import STRATEGIES, unhonoured

CONNECT_TIMEOUT_S = 5.0
"""Longest time to open a connection; `?connect_timeout=` in the URL wins."""

_CLIENT_CHECK_MS = 100
_RECENT = 1024  # loans that the quantiles of a snapshot are taken from

log = logging.getLogger("poolbench.db")


@dataclass(frozen=True)
class Quantiles:
    """Of the most recent loans, in ms."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class PoolStatus:
    """One look at the connections of this process. Counters count from the start of the process."""

    strategy: str
    size: int
    """Connections that are kept; 0 where none are, or where there is no limit."""
    in_use: int
    idle: int
    waiting: int
    """Those who asked, have none yet, and are not opening one."""
    connecting: int
    overflow: int
    loans: int
    timeouts: int
    failures: int
    """Loans that could not be made, timeouts included."""
    wait_ms: Quantiles
    hold_ms: Quantiles


class Database:
    """Lends connections by the strategy in force.

    Its engine is in autocommit mode: a statement is a transaction of its own, and a round trip of its own, without BEGIN
    and ROLLBACK around it. Many greenlets may share it, and so may threads.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self._engine = self._make_engine(
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,  # there is never anything to roll back
            **STRATEGIES[settings.pool.strategy].arguments(settings.pool),
        )
        self._migrated = False
        self._migrating = threading.Lock()
        self._asking = self._connecting = self._lent = 0
        self._loans = self._timeouts = self._failures = 0
        self._waits: deque[int] = deque(maxlen=_RECENT)
        self._holds: deque[int] = deque(maxlen=_RECENT)
        if ignored := unhonoured(settings.pool):
            log.warning("DB_POOL=%s cannot honour %s", settings.pool.strategy, ", ".join(ignored))

    @contextmanager
    def connection(self, checkout: Checkout | None = None) -> Iterator[Connection]:
        """Lend a connection for the duration of the block, and write down in `checkout` what it cost.

        Raises DatabaseFailure, also in place of what a statement in the block raises, where that is one of its kinds.
        """
        checkout = checkout or Checkout()
        try:
            if not self._migrated:
                self.migrate()
            with self._borrow(checkout) as connection:
                lent = perf_counter_ns()
                self._lent += 1
                try:
                    yield connection
                finally:
                    self._lent -= 1
                    checkout.held_ns += perf_counter_ns() - lent
                    self._holds.append(checkout.held_ns)
        except (sqlalchemy.exc.SQLAlchemyError, psycopg2.Error) as error:
            raise classify(error) or error from error

    def migrate(self) -> None:
        """Bring the tables up to date, once. Raises DatabaseFailure, and is tried again by the next loan.

        While one greenlet is at it, the others fail at once instead of queueing up behind a server that may be down.
        """
        from db.migrations import upgrade  # noqa: PLC0415 (Alembic takes 0.2 s to import; a worker needs it only here)

        if not self._migrating.acquire(blocking=False):
            raise DatabaseDown("the tables are being brought up to date")
        engine = self._make_engine(poolclass=NullPool)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                upgrade(connection)
            self._migrated = True
        except (sqlalchemy.exc.SQLAlchemyError, psycopg2.Error) as error:
            raise classify(error) or error from error
        finally:
            self._migrating.release()
            engine.dispose()

    def forget(self) -> None:
        """In a forked child: drop the parent's connections without a word to the server, and start with none."""
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Close the idle connections; those on loan are closed on return."""
        self._engine.dispose()

    def status(self) -> PoolStatus:
        """A snapshot of the pool; free of side effects and of I/O."""
        pool: Any = self._engine.pool
        kept = hasattr(pool, "checkedin")
        return PoolStatus(
            strategy=self.settings.pool.strategy,
            size=pool.size() if kept else 0,
            in_use=self._lent,
            idle=pool.checkedin() if kept else 0,
            waiting=self._asking - self._connecting,
            connecting=self._connecting,
            overflow=max(0, pool.overflow()) if kept else 0,
            loans=self._loans,
            timeouts=self._timeouts,
            failures=self._failures,
            wait_ms=_quantiles(self._waits),
            hold_ms=_quantiles(self._holds),
        )

    @contextmanager
    def _borrow(self, checkout: Checkout) -> Iterator[Connection]:
        started = perf_counter_ns()
        connected_before = checkout.connect_ns
        asking.checkout = checkout
        self._asking += 1
        try:
            connection = self._engine.connect()
        except Exception as error:
            self._failures += 1
            self._timeouts += isinstance(classify(error), PoolTimeout)
            raise
        finally:
            self._asking -= 1
            asking.checkout = None
            wait_ns = perf_counter_ns() - started - (checkout.connect_ns - connected_before)
            checkout.wait_ns += wait_ns
            self._waits.append(wait_ns)
        self._loans += 1
        with connection:
            yield connection

    def _make_engine(self, **arguments: Any) -> Engine:
        return create_engine(
            "postgresql+psycopg2://",
            creator=self._open,
            use_native_hstore=False,  # spares each new connection a look-up of types that we do not use
            **arguments,
        )

    def _open(self) -> DriverConnection:
        arguments = connect_arguments(self.settings)
        self._connecting += 1
        try:
            with connecting():
                return _connect(arguments)
        finally:
            self._connecting -= 1


def connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """What `psycopg2.connect` is given: the URL's parts, the limits, and a name that shows in pg_stat_activity."""
    given: dict[str, Any] = settings.url.translate_connect_args(database="dbname", username="user") | settings.url.query
    timeout_ms = round(settings.statement_timeout_s * 1000)
    # A greenlet that is killed or timed out in a statement closes its connection, which the server would notice only
    # when it next writes: let it look, so that nobody's statement runs on.
    limits = f"-c statement_timeout={timeout_ms} -c client_connection_check_interval={_CLIENT_CHECK_MS}"
    options = f"{limits} {given.get('options', '')}".strip()  # the URL's come last, and win
    return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "poolbench", **given, "options": options}


def _connect(arguments: dict[str, Any]) -> DriverConnection:
    """Open a connection within `connect_timeout`, which libpq does not enforce while a wait callback does the waiting."""
    limit_s = float(arguments["connect_timeout"])
    arguments = arguments | {"connect_timeout": max(2, round(limit_s))}  # libpq's own least is 2 s
    if get_wait_callback() is None or limit_s <= 0:
        return psycopg2.connect(**arguments)
    timeout = gevent.Timeout(limit_s)
    with timeout:
        try:
            return psycopg2.connect(**arguments)
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise psycopg2.OperationalError(f"no connection within {limit_s:g} s: timeout expired") from None


def _quantiles(sample_ns: Sequence[int]) -> Quantiles:
    """By the nearest rank; zeros for an empty sample."""
    ordered = sorted(sample_ns) or [0]
    last = len(ordered) - 1
    p50, p90, p99 = (ordered[round(q * last)] / 1e6 for q in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, ordered[-1] / 1e6)


__all__ = ["CONNECT_TIMEOUT_S", "Database", "DatabaseFailure", "PoolStatus", "Quantiles", "connect_arguments"]
