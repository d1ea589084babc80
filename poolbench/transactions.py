"""Tells whether a connection is in a transaction, by what its driver knows: without a query, without a call of `rollback`.

If it is in none, `rollback` and `commit` do nothing, and a connection that is given back needs no reset.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool.base import _ConnDialect

if TYPE_CHECKING:
    from collections.abc import Callable

_STOCK_RESETS = {
    kind.__dict__[name] for kind in (DefaultDialect, _ConnDialect) for name in ("do_rollback", "do_commit")
}
"""SQLAlchemy's own methods that roll back and commit; a dialect with others may do more than these."""
_PSYCOPG_NEEDS = ("_tpc", "_pipeline", "_num_transactions")
"""Private attributes of psycopg's connections that `_psycopg_is_outside` reads."""


def outside_test(connection: Any, dialect: Any) -> Callable[[Any], bool] | None:
    """A function that tells of a connection of the same class whether it is outside any transaction.

    `connection` is the driver's (psycopg2 or psycopg), `dialect` SQLAlchemy's. None if the driver or the dialect is not known,
    so that a reset may do more than end a transaction.
    """
    resets = (dialect.do_rollback, dialect.do_commit)
    if any(getattr(reset, "__func__", None) not in _STOCK_RESETS for reset in resets):
        return None
    kind = type(connection)
    if kind is _class_of("psycopg2.extensions", "connection"):
        return _psycopg2_is_outside
    if kind is _class_of("psycopg", "Connection") and all(hasattr(connection, name) for name in _PSYCOPG_NEEDS):
        return _psycopg_is_outside
    return None


def _class_of(module: str, name: str) -> Any:
    """The class of that name in a module; None if the process has not imported the module."""
    return getattr(sys.modules.get(module), name, None)


def _psycopg2_is_outside(connection: Any) -> bool:
    # `status` is psycopg2's own: 1 (STATUS_READY) unless it has sent a BEGIN, or a transaction is prepared.
    return connection.status == 1 and not connection.closed


def _psycopg_is_outside(connection: Any) -> bool:
    # 0 is TransactionStatus.IDLE. The others are states in which psycopg's `rollback` raises, or sends something.
    return (
        connection.pgconn.transaction_status == 0
        and connection._tpc is None  # noqa: SLF001
        and connection._pipeline is None  # noqa: SLF001
        and not connection._num_transactions  # noqa: SLF001
    )
