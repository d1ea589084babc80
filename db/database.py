"""The only place that builds an engine and opens connections."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from inspect import signature
from time import perf_counter_ns
from typing import Any

import gevent
import psycopg2
import sqlalchemy.exc
from gevent.lock import Semaphore
from psycopg2 import errorcodes
from psycopg2.extensions import get_wait_callback
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.engine.default import DefaultDialect

from db.errors import (
    UNDEFINED,
    DatabaseDown,
    DatabaseFailure,
    PoolQueueFull,
    PoolTimeout,
    StatementTimeout,
    classify,
)
from db.green import LATE_MARGIN_S, GreenConnection, time_limit
from db.settings import DatabaseSettings, PoolSettings
from db.strategies import engine_arguments, unhonoured
from poolbench import LoanCost, watch
from poolbench.connecting import connect_each_host, connect_limit_s
from poolbench.costs import Quantiles, RecentCosts, asking, connecting

CONNECT_TIMEOUT_S = 5.0
"""Longest time to open a connection; `?connect_timeout=` in the URL wins."""

_CLIENT_CHECK_MS = 100
# Longest wait for a lock while the tables are brought up to date, for clicks queue up behind a lock that is asked for.
_LOCK_TIMEOUT_MS = 2000
# A peer that vanishes is noticed after some 15 s, by either side's kernel: on an idle connection by probes, on a busy one by
# data that nobody acknowledges. The defaults are two hours and a quarter of an hour.
_IDLE_S, _PROBE_S, _PROBES, _UNACKNOWLEDGED_MS = 10, 2, 3, 10_000
# In autocommit mode a connection that comes back has nothing to roll back. SQLAlchemy before 2.0.43 rolls back all the same.
_NOTHING_TO_ROLL_BACK = (
    {"skip_autocommit_rollback": True} if "skip_autocommit_rollback" in signature(DefaultDialect).parameters else {}
)

_OF_THE_DATABASE = (sqlalchemy.exc.SQLAlchemyError, psycopg2.Error)

log = logging.getLogger("poolbench.db")


@dataclass(frozen=True)
class PoolStatus:
    """One look at the connections of this process. Counters count from the start of the process."""

    strategy: str
    size: int
    """Connections that are kept open; 0 if the strategy keeps none, or without a limit."""
    in_use: int
    idle: int
    waiting: int
    """Requests for a connection that have none yet and are not opening one."""
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
    and ROLLBACK around it. Many greenlets may share it, and so may threads. `locate` is for a database that is started when
    it is first needed: called once, before the first connection, it says where the database is.
    """

    def __init__(self, settings: DatabaseSettings, locate: Callable[[], URL] | None = None) -> None:
        self.settings = settings
        self._locate = locate
        self._behind_pooler = False
        self._engine = self._make_engine(
            isolation_level="AUTOCOMMIT",
            **_NOTHING_TO_ROLL_BACK,
            **engine_arguments(settings.pool),
        )
        self._watcher = watch(self._engine) if settings.watch else None
        self._slow = _turns_of_the_slow(settings.pool)
        self._migrated = False
        self._migrating = threading.Lock()
        self._asking = self._connecting = self._lent = 0
        self._loans = self._timeouts = self._failures = 0
        self._recent = RecentCosts()
        if ignored := unhonoured(settings.pool):
            log.warning("DB_POOL=%s cannot honour %s", settings.pool.strategy, ", ".join(ignored))

    def connection(self, cost: LoanCost | None = None, *, slow: bool = False) -> AbstractContextManager[Connection]:
        """Lend a connection for the duration of the block, and add to `cost` what it cost.

        `slow` is for statements that may take long: they leave DB_POOL_RESERVE connections to the others, and wait for each
        other. Raises DatabaseFailure, also in place of what a statement in the block raises, where that is one of its kinds.
        """
        return _Loan(self, cost or LoanCost(), self._slow if slow else None)

    @contextmanager
    def connection_within(self, limit_s: float, cost: LoanCost | None = None) -> Iterator[Connection]:
        """Lend a connection, as `connection` does, for at most this many seconds in all: waiting for it, opening it, using it.

        For callers who need to know soon that something is wrong. Raises PoolTimeout when none came free in that time,
        DatabaseDown when the database took too long. The limit needs gevent's event loop, and begins after a migration.
        """
        cost = cost or LoanCost()
        limit = gevent.Timeout(limit_s)
        lent = False
        try:
            if not self._migrated:
                self.migrate()
            with limit, self.connection(cost) as connection:
                lent = True
                yield connection
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            # A pool opens connections for whoever waits: if none is lent, those that are being opened are what was waited for.
            if lent or cost.connect_ns or (self._connecting and not self._lent):
                text = f"the database did not answer within {limit_s:g} s"
                raise DatabaseDown(text, errorcodes.CONNECTION_FAILURE) from None
            self._failures += 1
            self._timeouts += 1
            raise PoolTimeout(f"no connection came free within {limit_s:g} s") from None

    def migrate(self, limit_s: float | None = None) -> None:
        """Bring the tables up to date, once. Raises DatabaseFailure, and is tried again by the next loan.

        While one greenlet is at it, the others fail at once instead of queueing up behind a server that may be down. With
        `limit_s`, which needs gevent's event loop, gives up after so many seconds; those of starting a server do not count.
        """
        if not self._migrating.acquire(blocking=False):
            raise DatabaseDown("the tables are being brought up to date")
        engine = self._make_engine(poolclass=NullPool)
        limit = gevent.Timeout(limit_s)
        try:
            if self._locate is not None:
                self.settings, self._locate = replace(self.settings, url=self._locate()), None
            with limit, engine.connect() as connection:
                while not self._upgraded(connection):
                    pass
            self._migrated = True
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            raise DatabaseDown(f"the tables were not brought up to date within {limit_s:g} s") from None
        except _OF_THE_DATABASE as error:
            failure = classify(error)
            if isinstance(failure, StatementTimeout):
                raise DatabaseDown(f"the tables could not be brought up to date: {failure}") from error
            if failure is not None:
                raise failure from error
            # Such as a role that may not make tables (42501): no request can be answered before somebody sees to it.
            original = getattr(error, "orig", None) or error
            raise DatabaseDown(str(original), getattr(original, "pgcode", None) or UNDEFINED) from error
        finally:
            self._migrating.release()
            engine.dispose()

    def _upgraded(self, connection: Connection) -> bool:
        """Whether the tables are up to date and ready for clicks; if not, they are brought one version further."""
        from db import migrations, rollups  # noqa: PLC0415 (Alembic takes 0.2 s to import; a worker needs it only here)

        with connection.begin():
            self._look_for_timeout(connection)
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
            newest = migrations.is_newest(connection)
            if newest and rollups.is_prepared(connection):
                return True
        with connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
            if newest:
                rollups.prepare(connection)
            else:
                # What needs its time gets it. In all other cases, a database that falls silent is given up.
                with time_limit(connection, 0) as setting:
                    connection.exec_driver_sql(setting)
                    migrations.upgrade(connection)
        return False

    def _look_for_timeout(self, connection: Connection) -> None:
        """Warn if the statement timeout is not in force, since a pooler may drop it silently, or set one of its own."""
        setting = "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"
        in_force_ms = connection.exec_driver_sql(setting).scalar_one()
        if in_force_ms != _in_whole_ms(self.settings.statement_timeout_s):
            log.warning(
                "STATEMENT_TIMEOUT is not in force, the server's limit is %s: a pooler is in between, which must set it"
                " (PgBouncer: connect_query), or the role (ALTER ROLE ... SET statement_timeout)",
                f"{in_force_ms} ms" if in_force_ms else "none",
            )

    def forget(self) -> None:
        """In a forked child: drop the parent's connections without sending the server anything, and start with none."""
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
            waiting=max(0, self._asking - self._connecting),
            connecting=self._connecting,
            overflow=max(0, pool.overflow()) if kept else 0,
            loans=self._loans,
            timeouts=self._timeouts,
            failures=self._failures,
            wait_ms=self._recent.wait_ms(),
            hold_ms=self._recent.hold_ms(),
        )

    def watched(self) -> dict[str, Any]:
        """Who holds connections at this moment, and what held them back in the last minute; empty unless `watch` is set."""
        if self._watcher is None:
            return {}
        return {
            "holders": [asdict(holder) for holder in self._watcher.holders()],
            "findings": [finding.to_json() for finding in self._watcher.diagnosis().findings],
        }

    def lend(self, cost: LoanCost, turns: Semaphore | None) -> Connection:
        """Return a connection, which the caller closes, and add to `cost` what it cost.

        With `turns`, one of them is taken, which the caller releases. Raises DatabaseFailure, and what SQLAlchemy and the driver
        raise.
        """
        if not self._migrated:
            self.migrate()
        waited_before_ns = cost.wait_ns
        self._asking += 1
        try:
            with asking(cost):
                connection = self._engine.connect() if turns is None else self._connect_in_turn(turns)
        except Exception as error:
            self._failures += 1
            self._timeouts += isinstance(classify(error) or error, PoolTimeout)
            raise
        finally:
            self._asking -= 1
            self._recent.add_wait(cost.wait_ns - waited_before_ns)
        self._loans += 1
        self._lent += 1
        return connection

    def take_back(self, held_ns: int) -> None:
        """Count the end of a loan that lasted for `held_ns`."""
        self._lent -= 1
        self._recent.add_hold(held_ns)

    def _connect_in_turn(self, turns: Semaphore) -> Connection:
        pool = self.settings.pool
        if turns.locked() and pool.max_waiting is not None and self._asking - self._connecting > pool.max_waiting:
            raise PoolQueueFull(f"{pool.max_waiting} wait already, and no more are allowed")
        if not turns.acquire(timeout=pool.timeout_s):
            raise PoolTimeout(f"no connection for a slow statement came free within {pool.timeout_s:g} s")
        try:
            return self._engine.connect()
        except BaseException:
            turns.release()
            raise

    def _make_engine(self, **arguments: Any) -> Engine:
        return create_engine(
            "postgresql+psycopg2://",
            creator=self._open,
            # Spares each new connection a look-up of types that we do not use.
            use_native_hstore=False,
            **arguments,
        )

    def _open(self) -> GreenConnection:
        self._connecting += 1
        try:
            with connecting():
                connection = self._connect()
        finally:
            self._connecting -= 1
        if self.settings.statement_timeout_s:
            connection.patience_s = self.settings.statement_timeout_s + LATE_MARGIN_S
        return connection

    def _connect(self) -> GreenConnection:
        """Open a connection; without limits of the session if a pooler (whose sessions are shared) refuses them."""
        if not self._behind_pooler:
            try:
                return _connect(connect_arguments(self.settings))
            except psycopg2.OperationalError as error:
                if "unsupported startup parameter" not in str(error):
                    raise
                self._behind_pooler = True
        return _connect(connect_arguments(self.settings, limited=False))


class _Loan:
    """The block of `Database.connection`. A class, since a generator costs each request several microseconds more."""

    __slots__ = ("_connection", "_cost", "_database", "_lent_at_ns", "_turns")

    def __init__(self, database: Database, cost: LoanCost, turns: Semaphore | None) -> None:
        self._database, self._cost, self._turns = database, cost, turns

    def __enter__(self) -> Connection:
        try:
            self._connection = self._database.lend(self._cost, self._turns)
        except _OF_THE_DATABASE as error:
            _raise_as_failure(error)
            raise
        self._lent_at_ns = perf_counter_ns()
        return self._connection

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        held_ns = perf_counter_ns() - self._lent_at_ns
        self._cost.held_ns += held_ns
        self._database.take_back(held_ns)
        failure = classify(error) if isinstance(error, _OF_THE_DATABASE) else None
        try:
            if isinstance(failure, DatabaseDown) and failure.demoted:
                self._connection.invalidate()
            self._connection.close()
        except _OF_THE_DATABASE as another:
            _raise_as_failure(another)
            raise
        finally:
            if self._turns is not None:
                self._turns.release()
        if failure is not None:
            raise failure from error


def _raise_as_failure(error: BaseException) -> None:
    """Raise the DatabaseFailure behind an error, if it is one of its kinds."""
    failure = classify(error)
    if failure is not None:
        raise failure from error


def _in_whole_ms(limit_s: float) -> int:
    """A time limit as the server takes it, for which 0 is no limit: a very short one is not to become that."""
    return max(1, round(limit_s * 1000)) if limit_s else 0


def _turns_of_the_slow(pool: PoolSettings) -> Semaphore | None:
    """A semaphore of as many connections as slow statements may have at a time; None: no limit of their own."""
    if not pool.reserve or not pool.size or pool.max_overflow < 0:
        return None
    return Semaphore(pool.size + pool.max_overflow - pool.reserve) if pool.strategy in {"queue", "fair"} else None


def connect_arguments(settings: DatabaseSettings, *, limited: bool = True) -> dict[str, Any]:
    """Arguments of `psycopg2.connect`: the URL's parts, the session's limits, and a name that shows in pg_stat_activity."""
    given: dict[str, Any] = settings.url.translate_connect_args(database="dbname", username="user") | settings.url.query
    # A greenlet that is killed or timed out in a statement closes its connection, which the server would notice only when it
    # next writes. Let the server check, so that no statement runs on for nobody. If the network is dead, this check finds
    # nothing, and the session, one of `max_connections`, would stay for hours: hence the same limits as on our side.
    limits = {
        "statement_timeout": _in_whole_ms(settings.statement_timeout_s),
        "client_connection_check_interval": _CLIENT_CHECK_MS,
        "tcp_keepalives_idle": _IDLE_S,
        "tcp_keepalives_interval": _PROBE_S,
        "tcp_keepalives_count": _PROBES,
        "tcp_user_timeout": _UNACKNOWLEDGED_MS,
    }
    asked = [f"-c {name}={value}" for name, value in limits.items()] if limited else []
    # The URL's options come last, and win.
    options = " ".join((*asked, given.get("options", ""))).strip()
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "poolbench",
        "keepalives_idle": _IDLE_S,
        "keepalives_interval": _PROBE_S,
        "keepalives_count": _PROBES,
        "tcp_user_timeout": _UNACKNOWLEDGED_MS,
        **given,
        **({"options": options} if options else {}),
    }


def _connect(arguments: dict[str, Any]) -> GreenConnection:
    """Open a connection, to each host within `connect_timeout`, also where a wait callback keeps libpq from enforcing it."""
    limit_s = connect_limit_s(arguments, psycopg2.OperationalError)
    # libpq's own least is 2 s, it takes whole seconds only, and 0 is no limit for it, too.
    limit_of_libpq_s = max(2, round(limit_s)) if limit_s > 0 else 0
    arguments = arguments | {"connect_timeout": limit_of_libpq_s, "connection_factory": GreenConnection}

    def connect(**each: Any) -> GreenConnection:
        opened: GreenConnection = psycopg2.connect(**each)
        return opened

    if not get_wait_callback() or limit_s <= 0:
        return connect(**arguments)
    return connect_each_host(connect, arguments, limit_s, psycopg2.OperationalError)


__all__ = [
    "CONNECT_TIMEOUT_S",
    "Database",
    "DatabaseFailure",
    "PoolStatus",
    "connect_arguments",
]
