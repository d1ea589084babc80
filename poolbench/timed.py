"""An engine whose loans are charged, in `costs`, to the greenlets (or threads) that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from poolbench.connecting import connect_within_limit
from poolbench.cooperative import is_patched, make_cooperative
from poolbench.costs import CountedLoan, asking, connecting, costs


class Timed(Pool):
    """A pool whose loans are charged to the greenlet (or thread) that asks for them."""

    def connect(self) -> Any:
        """As SQLAlchemy's."""
        account = costs.account
        with asking(account.ended):
            fairy: Any = super().connect()
        # Noted here: a listener to loans makes SQLAlchemy take a longer way at each. Only the first counts of several that
        # share the connection, as a pool for each thread lends it.
        record = getattr(fairy, "_connection_record", None)
        if record is not None and getattr(fairy, "_counter", 0) == 1:
            if getattr(record, "_poolbench_loan", None) is not None:
                # StaticPool lends one connection to several at a time.
                record._poolbench_loan.end()  # noqa: SLF001
            record._poolbench_loan = CountedLoan(id(record), account)  # noqa: SLF001
        return fairy


_TIMED: dict[Any, type[Pool]] = {}
"""Kinds of pools of applications, and the same that charge their loans."""


def timed(kind: type[Pool]) -> type[Pool]:
    """The application's own kind of pool, with its loans charged to whoever asks for them."""
    if issubclass(kind, Timed):
        return kind
    if kind not in _TIMED:
        _TIMED[kind] = type(kind.__name__, (Timed, kind), {})
    return _TIMED[kind]


def cooperate(engine: Engine) -> None:
    """Let the engine's connections wait cooperatively under gevent, and be opened within `connect_timeout`; charge nothing."""
    _connect_by(engine, nullcontext)


def charge(engine: Engine) -> None:
    """Charge the engine's loans from now on, and bound its connecting by `connect_timeout` under gevent, too."""
    _connect_by(engine, connecting)
    engine.pool.__class__ = timed(type(engine.pool))

    # A connection that was detached does not come back.
    @event.listens_for(engine, "detach")
    @event.listens_for(engine, "checkin")
    def returned(_connection: Any, record: Any) -> None:
        loan = getattr(record, "_poolbench_loan", None)
        if loan is not None:
            record._poolbench_loan = None  # noqa: SLF001
            loan.end()


def _connect_by(engine: Engine, around: Callable[[], AbstractContextManager[Any]]) -> None:
    """Let the engine's dialect open connections cooperatively under gevent and within `connect_timeout`, inside `around()`.

    Once for each dialect. By a method rather than by a listener to `do_connect`: with one, SQLAlchemy looks for others at each
    statement, and those that the application adds later would not be called.
    """
    dialect: Any = engine.dialect
    was_patched = is_patched()
    make_cooperative(dialect.driver)
    if "connect" in vars(dialect):
        return
    inner = dialect.connect

    def connect(*arguments: Any, **parameters: Any) -> Any:
        nonlocal was_patched
        if not was_patched and is_patched():
            # Since the engine was made: a server may load the application before it forks the workers that are patched.
            was_patched = True
            make_cooperative(dialect.driver)
        with around():
            return connect_within_limit(dialect, inner, arguments, parameters)

    dialect.connect = connect
