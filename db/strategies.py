"""The ways of lending connections, by name. Each is a few arguments for SQLAlchemy's `create_engine`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, QueuePool

from db.settings import PoolSettings
from poolbench import FairPool, settings
from poolbench.costs import connecting


class PerRequestPool(NullPool):
    """A pool for each loan: opens `min_size` connections at once, lends the first that succeeds, closes all on return.

    Some of them may fail to open; only if all do does the loan raise an error, that of the first.
    """

    def __init__(self, creator: Any, min_size: int = 5, **options: Any) -> None:
        super().__init__(creator, **options)
        self._min_size = min_size
        self._extras: dict[ConnectionPoolEntry, list[gevent.Greenlet]] = {}

    def recreate(self) -> "PerRequestPool":
        """A new pool of the same kind."""
        return type(self)(
            self._creator,
            self._min_size,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def _do_get(self) -> ConnectionPoolEntry:
        openings = [gevent.Greenlet(self._try_open) for _ in range(max(1, self._min_size))]
        for each in openings:
            each.start()
        try:
            with connecting():
                for each in gevent.iwait(openings):
                    if isinstance(each.value, ConnectionPoolEntry):
                        openings.remove(each)
                        self._extras[each.value] = openings
                        return each.value
        # Killed while waiting: nobody else knows of these connections.
        except BaseException:
            gevent.spawn(self._close, openings)
            raise
        raise next(each.value for each in openings if isinstance(each.value, Exception))

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        record.close()
        self._close(self._extras.pop(record, []))

    def _try_open(self) -> ConnectionPoolEntry | Exception:
        try:
            return self._create_connection()
        except Exception as error:  # noqa: BLE001 (handed to the one who asked, who decides)
            return error

    @staticmethod
    def _close(openings: list[gevent.Greenlet]) -> None:
        for each in gevent.iwait(openings):
            if isinstance(each.value, ConnectionPoolEntry):
                each.value.close()


@dataclass(frozen=True)
class Strategy:
    """One way of lending connections. `poolbench.settings.POOL_SETTINGS` lists the settings that it honours."""

    when: str
    """When to choose it."""
    pool: type[Pool]
    own_arguments: Callable[[PoolSettings], dict[str, Any]] = lambda _: {}
    """Arguments of `create_engine` that differ from the settings."""


STRATEGIES: dict[str, Strategy] = {
    "null": Strategy(
        "few requests, or a pooler such as PgBouncer close by: a connection per request, none kept", NullPool
    ),
    "per-request": Strategy(
        "never on purpose: what creating the pool inside the request handler amounts to", PerRequestPool
    ),
    "queue": Strategy(
        "the default of SQLAlchemy: kept connections, unfair to those who wait once all are lent", QueuePool
    ),
    "fair": Strategy(
        "the default: kept connections, first come first served, a bounded queue in front of them",
        FairPool,
        lambda pool: {
            # Connections that are not needed become idle, and close, only if the most recent is lent first.
            "pool_use_lifo": True if pool.use_lifo is None else pool.use_lifo,
            "min_size": min(pool.min_size, pool.size or pool.min_size),
            # No need to look at the clock in each loan where the lifetime ends sooner anyway.
            "pool_recycle": -1 if 0 < pool.max_lifetime_s <= pool.recycle_s else pool.recycle_s,
        },
    ),
}


def engine_arguments(pool: PoolSettings) -> dict[str, Any]:
    """The arguments of `create_engine` for the strategy and the settings in force."""
    strategy = STRATEGIES[pool.strategy]
    values = {setting.argument: getattr(pool, setting.field) for setting in settings.POOL_SETTINGS}
    given = settings.engine_arguments(pool.strategy, values)
    return {"poolclass": strategy.pool, **given, **strategy.own_arguments(pool)}


def unhonoured(pool: PoolSettings) -> tuple[str, ...]:
    """Names of the settings that somebody gave and that the strategy cannot honour, sorted."""
    # `Database` watches any pool, and keeps DB_POOL_RESERVE in front of those that keep connections.
    own = {"DB_POOL_WATCH", "DB_POOL_RESERVE"} if pool.strategy in {"queue", "fair"} else {"DB_POOL_WATCH"}
    honoured = settings.honoured(pool.strategy) | own
    return tuple(sorted(pool.given - honoured))
