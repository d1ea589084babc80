"""An SQLAlchemy engine plugin: another pool, and telemetry, for anybody's engine by its URL alone.

    postgresql+psycopg2://me@host/db?plugin=poolbench&pool=fair&pool_size=10

`pool` is `fair` (the default), `queue` or `null`; the other parameters are in `PARAMETERS`. What stands in the URL wins over
what the application gives to `create_engine`, so nothing in it has to change; Flask-SQLAlchemy's engines are no exception.

This file and fair_pool.py are also installed as the package `poolbench`, a name that no application's own modules have: the
process that imports them has an `app` or a `db` of its own. Hence the one relative import.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, MutableMapping
from time import perf_counter_ns
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine, event, exc
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import NullPool, Pool, QueuePool

from .fair_pool import FairPool  # see above

_CLIENT_CHECK_MS = 100


class Costs(threading.local):
    """What the running greenlet (or thread) has spent on connections since `reset`, in ns."""

    wait_ns = 0
    """Asking for connections, less opening them."""
    connect_ns = 0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew; what is lent now no longer counts."""
        self.wait_ns = self.connect_ns = self.given_back_ns = 0
        self.lent_since_ns: dict[int, int] = {}

    @property
    def held_ns(self) -> int:
        """From having to giving back, or until now where that is still to come."""
        now_ns = perf_counter_ns()
        return self.given_back_ns + sum(now_ns - since_ns for since_ns in self.lent_since_ns.values())


costs = Costs()
"""Of the running greenlet, over all engines with this plugin."""


class _Timed(Pool):
    """A pool whose loans are charged to the greenlet that asks for them."""

    def connect(self) -> Any:
        began_ns, connect_before_ns = perf_counter_ns(), costs.connect_ns
        try:
            return super().connect()
        finally:
            costs.wait_ns += perf_counter_ns() - began_ns - (costs.connect_ns - connect_before_ns)


class _Fair(_Timed, FairPool):
    pass


class _Queue(_Timed, QueuePool):
    pass


class _Null(_Timed, NullPool):
    pass


_POOLS: dict[str, type[Pool]] = {"fair": _Fair, "queue": _Queue, "null": _Null}


def _switch(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
        raise ValueError(text)
    return text.lower() in ("1", "true", "yes", "on")


PARAMETERS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "pool_size": (int, ("fair", "queue")),
    "max_overflow": (int, ("fair", "queue")),
    "pool_timeout": (float, ("fair", "queue")),
    "pool_use_lifo": (_switch, ("fair", "queue")),
    "pool_recycle": (int, ("fair", "queue", "null")),
    "pool_pre_ping": (_switch, ("fair", "queue", "null")),
    "max_waiting": (int, ("fair",)),
    "min_size": (int, ("fair",)),
    "max_lifetime": (float, ("fair",)),
    "idle_timeout": (float, ("fair",)),
}
"""Parameters of the URL: how each is read, and the pools that know it. They mean what they mean to `create_engine`."""


class PoolbenchPlugin(CreateEnginePlugin):
    """The plugin `poolbench`. Raises sqlalchemy.exc.ArgumentError, naming the parameter, for one that cannot be."""

    names: ClassVar = ("pool", *PARAMETERS)

    def __init__(self, url: URL, kwargs: MutableMapping[str, Any]) -> None:
        super().__init__(url, kwargs)  # type: ignore[arg-type]
        kind = str(url.query.get("pool", "fair"))
        if kind not in _POOLS:
            raise exc.ArgumentError(f"pool={kind}: one of {', '.join(_POOLS)}")
        for name, (_, kinds) in PARAMETERS.items():
            if kind not in kinds:  # given for the pool that the application had in mind
                kwargs.pop(name, None)
        for name, (parse, kinds) in PARAMETERS.items():
            if name not in url.query:
                continue
            if kind not in kinds:
                raise exc.ArgumentError(f"{name}: pool={kind} has no such parameter")
            try:
                kwargs[name] = parse(str(url.query[name]))
            except ValueError:
                raise exc.ArgumentError(f"{name}={url.query[name]}: not a value that it can have") from None
        kwargs["poolclass"] = _POOLS[kind]

    def update_url(self, url: URL) -> URL:
        """SQLAlchemy: leave to the driver what is the driver's."""
        return url.difference_update_query(self.names)

    def engine_created(self, engine: Engine) -> None:
        """SQLAlchemy: listen to connections being opened, lent and given back."""
        loans: WeakKeyDictionary[Any, tuple[dict[int, int], int]] = WeakKeyDictionary()

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Any:
            began_ns = perf_counter_ns()
            try:
                return dialect.connect(*arguments, **parameters)
            finally:
                costs.connect_ns += perf_counter_ns() - began_ns

        @event.listens_for(engine, "checkout")
        def lent(_connection: Any, record: Any, _proxy: Any) -> None:
            since_ns, borrowers = perf_counter_ns(), costs.lent_since_ns
            borrowers[id(record)] = since_ns
            loans[record] = borrowers, since_ns

        @event.listens_for(engine, "checkin")
        def returned(_connection: Any, record: Any) -> None:
            loan = loans.pop(record, None)
            if loan is not None:
                borrowers, since_ns = loan
                borrowers.pop(id(record), None)
                costs.given_back_ns += perf_counter_ns() - since_ns

        if engine.dialect.name == "postgresql" and engine.dialect.driver == "psycopg2":
            event.listen(engine, "connect", _let_the_server_look)


def _let_the_server_look(connection: Any, _record: Any) -> None:
    """A greenlet killed in a statement closes its connection; the server is to notice, and end the statement."""
    cursor = connection.cursor()
    try:
        cursor.execute(f"SET client_connection_check_interval = {_CLIENT_CHECK_MS}")
        connection.commit()
    except Exception:  # noqa: BLE001 - a server before PostgreSQL 14, or one on a system that cannot
        connection.rollback()
    finally:
        cursor.close()


Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def server_timing(application: Application) -> Application:
    """The WSGI application with a Server-Timing header on each answer: pool, connect, db and total, in ms.

    `db` is how long connections were held until the answer begins; frameworks that give them back after it (Flask-SQLAlchemy's
    sessions) do so within microseconds, unless the answer is a stream.
    """

    def timed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        costs.reset()
        began_ns = perf_counter_ns()

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            total_ns = perf_counter_ns() - began_ns
            value = (
                f"pool;dur={costs.wait_ns / 1e6:.3f}, connect;dur={costs.connect_ns / 1e6:.3f}, "
                f"db;dur={costs.held_ns / 1e6:.3f}, total;dur={total_ns / 1e6:.3f}"
            )
            return start_response(status, [*headers, ("Server-Timing", value)], *rest)

        return application(environ, start)

    return timed
