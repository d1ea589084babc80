"""The ways of lending connections, by name. Each is a few arguments for SQLAlchemy's `create_engine`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from db.checkout import connecting
from db.settings import PoolSettings
from poolbench.fair_pool import FairPool


class PerRequestPool(NullPool):
    """A pool for each loan: opens `min_size` connections at once, lends the first that succeeds, closes all on return.

    Extra connections may fail; only if all do is the loan an error (the first one's).
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
        except BaseException:  # killed while waiting: nobody else knows of these connections
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
    """One way of lending connections."""

    when: str
    """When one would choose it."""
    honours: frozenset[str]
    """The DB_POOL… settings that have an effect."""
    arguments: Callable[[PoolSettings], dict[str, Any]]
    """Arguments of `create_engine`."""


STRATEGIES: dict[str, Strategy] = {
    "null": Strategy(
        when="few requests, or a pooler such as PgBouncer close by: a connection per request, none kept",
        honours=frozenset(),
        arguments=lambda _: {"poolclass": NullPool},
    ),
    "per-request": Strategy(
        when="never on purpose: what creating the pool inside the request handler amounts to",
        honours=frozenset({"DB_POOL_MIN"}),
        arguments=lambda pool: {"poolclass": PerRequestPool, "min_size": pool.min_size},
    ),
    "queue": Strategy(
        when="the default of SQLAlchemy: kept connections, unfair to those who wait once all are lent",
        honours=frozenset(
            {
                *("DB_POOL_SIZE", "DB_POOL_MAX_OVERFLOW", "DB_POOL_TIMEOUT", "DB_POOL_RECYCLE", "DB_POOL_PRE_PING"),
                "DB_POOL_RESERVE",  # kept by `Database`, whatever the pool
            }
        ),
        arguments=lambda pool: {
            "poolclass": QueuePool,
            "pool_size": pool.size,
            "max_overflow": pool.max_overflow,
            "pool_timeout": pool.timeout_s,
            "pool_recycle": pool.recycle_s,
            "pool_pre_ping": pool.pre_ping,
        },
    ),
    "fair": Strategy(
        when="the default: kept connections, first come first served, a bounded queue in front of them",
        honours=frozenset(
            {
                *("DB_POOL_SIZE", "DB_POOL_MAX_OVERFLOW", "DB_POOL_TIMEOUT", "DB_POOL_RECYCLE", "DB_POOL_PRE_PING"),
                *("DB_POOL_MIN", "DB_POOL_IDLE", "DB_POOL_MAX_WAITING", "DB_POOL_RESERVE"),
            }
        ),
        arguments=lambda pool: {
            "poolclass": FairPool,
            "pool_size": pool.size,
            "max_overflow": pool.max_overflow,
            "pool_timeout": pool.timeout_s,
            "pool_use_lifo": True,  # so that connections that are not needed become idle, and close
            "pool_pre_ping": pool.pre_ping,
            "min_size": min(pool.min_size, pool.size or pool.min_size),
            "max_lifetime": pool.recycle_s,
            "idle_timeout": pool.idle_s,
            "max_waiting": pool.max_waiting,
        },
    ),
}


def unhonoured(settings: PoolSettings) -> tuple[str, ...]:
    """The settings that somebody set and that the strategy cannot honour, sorted."""
    return tuple(sorted(settings.given - STRATEGIES[settings.strategy].honours))
