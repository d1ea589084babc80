"""An SQLAlchemy engine plugin: another pool, and telemetry, for anybody's engine by its URL alone.

    postgresql+psycopg2://me@host/db?plugin=poolbench&pool=fair&pool_size=10

`pool` is `fair` (the default), `queue`, `null`, or `own`, which keeps the application's pool and only measures it. The other
parameters are those of `settings.POOL_SETTINGS`, `client_connection_check_interval`, `otel` and `watch` (below). Settings in
the URL win over those that the application gives to `create_engine`, so the application does not have to change, not even
with Flask-SQLAlchemy. Under gevent, psycopg2 is made to wait cooperatively.
"""

from __future__ import annotations

import importlib.util
import reprlib
from collections.abc import Callable, MutableMapping
from typing import Any, ClassVar

from sqlalchemy import URL, Engine, event, exc
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.pool import NullPool, Pool, QueuePool

from poolbench.fair_pool import FairPool
from poolbench.settings import POOL_SETTINGS, PoolSetting, Switch, Whole, engine_arguments
from poolbench.timed import Timed, charge
from poolbench.watching import watch

_CHECK_INTERVAL = "client_connection_check_interval"


class _Fair(Timed, FairPool):
    pass


class _Queue(Timed, QueuePool):
    pass


class _Null(Timed, NullPool):
    pass


_POOLS: dict[str, type[Pool]] = {"fair": _Fair, "queue": _Queue, "null": _Null}
_OWN = "own"


class PoolbenchPlugin(CreateEnginePlugin):
    """The plugin `poolbench`. Raises sqlalchemy.exc.ArgumentError, naming the parameter, for an invalid value.

    client_connection_check_interval: ms; how often the server checks that the client is still connected, and ends the
    statement of one that is not (a greenlet killed in a statement closes its connection). Off unless it is given: it is a
    `SET` on each new connection, which behind a pooler such as PgBouncer may affect other clients.
    otel: `on` reports OpenTelemetry's metrics of the FairPool (see `otel.py`); the package opentelemetry-api must be installed.
    watch: `on` keeps what happened to connections in the last minute, and logs who holds them when a wait times out (see
    `watching.py`).
    """

    names: ClassVar = (
        "pool",
        _CHECK_INTERVAL,
        "otel",
        "watch",
        *(name for setting in POOL_SETTINGS for name in setting.parameters),
    )

    def __init__(self, url: URL, kwargs: MutableMapping[str, Any]) -> None:
        super().__init__(url, kwargs)  # type: ignore[arg-type]
        kind = str(url.query.get("pool", "fair"))
        if kind not in _POOLS and kind != _OWN:
            raise exc.ArgumentError(f"pool={kind}: one of {', '.join((*_POOLS, _OWN))}")
        values = {setting.argument: _value(setting, kind, url) for setting in POOL_SETTINGS}
        self._durations = {
            setting.argument: values[setting.argument]
            for setting in POOL_SETTINGS
            if setting.engine_argument in {"pool_timeout", "pool_recycle"} and kind in setting.pools
        }
        if kind != _OWN:
            for setting in POOL_SETTINGS:
                if kind not in setting.pools and not setting.any_engine:
                    # Given for the pool that the application had in mind.
                    kwargs.pop(setting.engine_argument, None)
            given = kwargs.pop("pool", None)
            if given is not None:
                # It opens connections in a way of its own, for which the URL may say nothing.
                kwargs.setdefault("creator", given._creator)  # noqa: SLF001
            kwargs.update(engine_arguments(kind, values))
            kwargs["poolclass"] = _POOLS[kind]
        self._reports_metrics = bool(_parsed("otel", Switch(), url))
        if self._reports_metrics and kind != "fair":
            raise exc.ArgumentError(f"otel: pool={kind} has no such parameter")
        if self._reports_metrics and importlib.util.find_spec("opentelemetry") is None:
            raise exc.ArgumentError("otel=on: the package opentelemetry-api is not installed")
        self._watches = bool(_parsed("watch", Switch(), url))
        self._check_interval_ms = _parsed(_CHECK_INTERVAL, Whole(0, 2_147_483_647), url) or 0

    def update_url(self, url: URL) -> URL:
        """Called by SQLAlchemy: take the plugin's parameters out of the URL, and leave the driver's in it."""
        return url.difference_update_query(self.names)

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: MutableMapping[str, Any]) -> None:  # noqa: ARG002 - the hook
        """Called by SQLAlchemy: durations as they are in the URL, as `engine_from_config`, which Flask-SQLAlchemy uses, makes
        whole numbers of them: a timeout of 0.5 s would become none at all.
        """
        pool_args.update({name: duration for name, duration in self._durations.items() if duration})

    def engine_created(self, engine: Engine) -> None:
        """Called by SQLAlchemy: listen to connections being opened, lent and given back."""
        charge(engine)
        if self._reports_metrics:
            from poolbench.otel import observe  # noqa: PLC0415 - it needs a package that few have installed

            observe(engine)
        if self._watches:
            # Last: it gives the pool a connect() of its own, before the one of its class.
            watch(engine)
        if self._check_interval_ms and engine.dialect.name == "postgresql":
            statement = f"SET {_CHECK_INTERVAL} = {self._check_interval_ms}"
            event.listen(engine, "connect", lambda connection, _record: _execute_if_known(connection, statement))


def _value(setting: PoolSetting, kind: str, url: URL) -> Any:
    """The setting's value in the URL; None if the URL does not have it."""
    for name in setting.parameters:
        if name in url.query:
            if kind not in setting.pools and not (setting.any_engine and kind != _OWN):
                raise exc.ArgumentError(f"{name}: pool={kind} has no such parameter")
            return _parsed(name, setting.kind, url)
    return None


def _parsed(name: str, parse: Callable[[str], Any], url: URL) -> Any:
    if name not in url.query:
        return None
    text = str(url.query[name])
    try:
        return parse(text)
    except ValueError as error:
        raise exc.ArgumentError(f"{name} must be {error}, not {reprlib.repr(text)}") from None


def _execute_if_known(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        connection.commit()
    except Exception:  # noqa: BLE001 - a server before PostgreSQL 14, or one on a system that cannot
        connection.rollback()
    finally:
        cursor.close()
