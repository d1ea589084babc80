"""One connection of a FairPool, its loans, and what becomes of both when something fails or the process forks."""

# ruff: noqa: SLF001 - the classes here and SQLAlchemy's pool know each other's insides

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import Connection
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord, _finalize_fairy, reset_commit

from poolbench.costs import LoanCost
from poolbench.fair_queue import NEVER_NS
from poolbench.telemetry import OldLoan

if TYPE_CHECKING:
    import traceback
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from poolbench.fair_pool import FairPool


_LIBRARIES = (*(f"{Path(file).parent}{os.sep}" for file in (__file__, sqlalchemy.__file__)), contextlib.__file__)


class Record(_ConnectionRecord):
    """SQLAlchemy's record of one connection, owning one slot, and the latest loan of it.

    since_ns: the instant it was last lent or returned. opening_since_ns: when the opening of its connection for the queue
    began; 0 once it was lent. expires_ns: not to be lent or kept from then on; 0 once the
    pool was disposed of. is_due: its return has begun, and has not reached the pool. holder and stack: who borrowed it,
    kept only where an option needs them. is_reported: the latest loan was logged as a leak. is_outside: tells of a
    connection whether it is in no transaction, so that there is nothing to reset; None where that cannot be told.
    """

    __slots__ = (
        "connect_ns",
        "expires_ns",
        "holder",
        "is_due",
        "is_outside",
        "is_reported",
        "lent",
        "opening_since_ns",
        "pool",
        "since_ns",
        "stack",
        "wait_ns",
    )

    def __init__(self, pool: FairPool) -> None:
        super().__init__(pool, connect=False)
        self.pool = pool
        self.lent = self.is_due = self.is_reported = False
        self.wait_ns = self.connect_ns = self.since_ns = self.opening_since_ns = 0
        self.expires_ns = NEVER_NS
        self.is_outside: Callable[[Any], bool] | None = None
        self.holder: Any = None
        self.stack: traceback.StackSummary | None = None

    def get_connection(self) -> DBAPIConnection:
        """The live connection; first closes what is stale and connects where needed (switches, may raise)."""
        connection = self.dbapi_connection
        if connection is not None and self.since_ns < self.expires_ns and not self.is_stale():
            return connection
        if connection is not None and self.since_ns >= self.expires_ns:
            self.pool._statistics.closed["lifetime" if self.expires_ns else "disposed"] += 1
            self.close()
        return self.pool._connecting(self, super().get_connection)

    def expire(self) -> None:
        """The pool was disposed of: the connection is not to be lent or kept from now on."""
        self.expires_ns = 0

    def is_stale(self) -> bool:
        """Whether SQLAlchemy will replace the connection at the next checkout."""
        started, pool = self.starttime, self.pool
        return (
            pool._invalidate_time > started
            or self._soft_invalidate_time > started
            or (pool._recycle > -1 and time.time() - started > pool._recycle)
        )

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """As SQLAlchemy's; if a "checkin" listener raises, the connection is closed and its slot freed."""
        pool = self.pool
        if self.fairy_ref is not None and not self.finalize_callback and not pool.dispatch.checkin:
            self.fairy_ref = None
            pool._do_return_conn(self)
            return
        if self.fairy_ref is None and _fairy_was_created:
            # Checked in twice: SQLAlchemy says so.
            super().checkin(_fairy_was_created)
            return
        self.is_due = True
        try:
            super().checkin(_fairy_was_created)
        except BaseException:
            if self.is_due:
                pool._return_failed(self)
            raise

    def forget(self) -> Any:
        """In a forked child: let go of the parent's connection without a word on its socket; return it.

        A loan that the child has inherited cannot be used, and raises an error that says so.
        """
        connection, self.dbapi_connection = self.dbapi_connection, None
        loan: Any = self.fairy_ref() if self.fairy_ref is not None else None
        if loan is not None:
            loan.dbapi_connection = None
            loan.__class__ = _LoanOfTheParent
        return connection


def borrowers_line(stack: traceback.StackSummary) -> str:
    """`file:line` of the innermost call in `stack` (innermost first) that is not this library's or SQLAlchemy's."""
    frame = next((frame for frame in stack if not frame.filename.startswith(_LIBRARIES)), stack[-1])
    return f"{frame.filename}:{frame.lineno}"


def oldest_loans(records: list[Record]) -> tuple[OldLoan, ...]:
    """The ten oldest loans among those whose borrower was remembered, oldest first."""
    now_ns = time.monotonic_ns()
    known = [(now_ns - record.since_ns, record.stack) for record in records if record.lent]
    loans = [OldLoan(age_ns, borrowers_line(stack)) for age_ns, stack in known if stack is not None]
    return tuple(sorted(loans, reverse=True)[:10])


def checkout_of(connection: Connection | PoolProxiedConnection | ConnectionPoolEntry) -> LoanCost | None:
    """The cost so far of the loan behind an engine's Connection, a pooled connection or a pool event's record.

    None if it does not come from a FairPool, was detached, or has gone back. In a "checkin" listener, given the
    record, `held_ns` is the whole hold. `cpu_ns` is 0: only sums over loans (`costs`) have it.
    """
    entry: Any = connection.connection if isinstance(connection, Connection) else connection
    record = entry if isinstance(entry, Record) else getattr(entry, "_connection_record", None)
    if not isinstance(record, Record):
        return None
    return LoanCost(record.wait_ns, record.connect_ns, time.monotonic_ns() - record.since_ns)


class _Finalizer(weakref.ref["Loan"]):
    """Brings back the connection of a forgotten loan, at a quarter of the cost of `weakref.finalize`."""

    __slots__ = ("record",)
    record: Record | None

    def detach(self) -> None:
        self.record = None

    def loan_is_gone(self) -> None:
        if self.record is not None and not sys.is_finalizing():
            _finalize_fairy(None, self.record, self.record.pool, False, is_gc_cleanup=True)


class Loan(_ConnectionFairy):
    """SQLAlchemy's proxy of a lent connection, made in a third of the time."""

    __slots__ = ()

    def __init__(self, pool: FairPool, connection: DBAPIConnection, record: Record, echo: bool) -> None:
        self._pool = pool
        self._counter = 0
        self.dbapi_connection = connection
        self._connection_record = record
        self._echo = echo
        finalizer = _Finalizer(self, _Finalizer.loan_is_gone)
        finalizer.record = record
        self._finalizer = record.fairy_ref = finalizer  # type: ignore[assignment]

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        """As SQLAlchemy's, without its reset of a connection that is in no transaction."""
        record: Any = self._connection_record
        connection: Any = self.dbapi_connection
        pool = self._pool
        if (
            connection is None
            or record is None
            or self._echo
            or pool.dispatch.reset
            or not (
                (transaction_was_reset and pool._reset_on_return is not reset_commit)
                or (record.is_outside is not None and record.is_outside(connection))
            )
        ):
            _finalize_fairy(connection, record, pool, self._echo, transaction_was_reset, self)
            return
        if record.fairy_ref is not None:
            record.checkin()
        self._finalizer.detach()
        self.dbapi_connection = self._connection_record = None  # type: ignore[assignment]


class _LoanOfTheParent(_ConnectionFairy):
    """What a loan becomes in a forked child: it can be closed, and nothing else."""

    __slots__ = ()

    def cursor(self, *_: Any, **__: Any) -> NoReturn:
        raise exc.InvalidRequestError(
            "this connection was lent before the process forked, and belongs to the parent process: borrow a new one"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.cursor


# `Loan` stands in for what SQLAlchemy does in its checkout only as long as that is what it was written for.
STOCK_CHECKOUT = _ConnectionRecord.__dict__["checkout"]
KNOWN_SQLALCHEMY = "_finalizer" in _ConnectionFairy.__slots__ and list(
    inspect.signature(_finalize_fairy).parameters
) == ["dbapi_connection", "connection_record", "pool", "echo", "transaction_was_reset", "fairy", "is_gc_cleanup"]
