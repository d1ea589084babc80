"""Hooks of a watched engine: its pool's connect(), and the methods of its dialect that connect and execute. See watching.py.

Every loan and every statement of the application passes through these, so the functions are short, and repeat code rather than
call one another.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import base
from sqlalchemy.engine.default import DefaultDialect

from poolbench.loan_book import BOOK, OPENED, harmless
from poolbench.loans import Opened, WatchedEngine
from poolbench.looking import STATEMENT_CODES
from poolbench.places import APPLICATION, application_frame, kind_of, place_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_frame = sys._getframe  # noqa: SLF001


def hook_pool(engine: Engine, about: WatchedEngine) -> None:
    """Note the loans of the engine's pool in the book from now on; `about` describes the engine there.

    Gives the pool methods connect() and recreate() of its own; a pool that follows it after engine.dispose() is watched, too.
    """
    event.listen(engine, "connect", _connected)
    _watch_loans(engine.pool, about)


def hooked(pool: Any) -> bool:
    """Whether the pool's loans are noted in the book."""
    return "_poolbench_engine" in vars(pool)


def _watch_loans(pool: Any, about: WatchedEngine) -> None:
    # Attributes of this one pool rather than a subclass: SQLAlchemy's own methods stay as fast as the interpreter can make them
    # for the pool's class.
    recreate = pool.recreate

    def recreated() -> Any:
        found: Any = recreate()
        _watch_loans(found, about)
        return found

    pool._poolbench_engine, pool._poolbench_lend = about, pool.connect  # noqa: SLF001
    pool.connect = _noting_connect(pool, pool.connect, about)
    pool.recreate = recreated


def _noting_connect(pool: Any, lend: Callable[[], Any], about: WatchedEngine) -> Callable[[], Any]:
    """A function that calls `lend`, the pool's own connect(), and notes the loan. Results and errors are those of `lend`."""
    book = BOOK

    def connect() -> Any:
        book.left -= 1
        if book.left < 0:
            return _connect_noting_all(lend, about, _frame(1))
        try:
            fairy = lend()
        except BaseException as error:
            book.refused_lightly(about, _frame(1), error, _timeout_s(pool))
            raise
        try:
            _note(fairy, application_frame(_frame(1)))
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            book.fault = f"{type(error).__name__}: {error}"
        return fairy

    return connect


def hook_connect(engine: Any) -> None:
    """Give the engine a method connect() that borrows from its watched pool in fewer steps than through the pool's connect().

    Most applications borrow this way, by themselves or by a session. From the pool, it cannot be seen without looking at two
    frames of the stack more.
    """
    kind = type(engine)
    if not _is_stock(kind) or "connect" in vars(engine):
        return
    book, lent, served = BOOK, BOOK.lent, BOOK.requests
    # The pool and its function that lends, in one: another thread may look between two assignments.
    known: tuple[Any, Any] = None, None
    # The code object of the application that borrowed last.
    last: CodeType | None = None

    def connect() -> Any:
        nonlocal known, last
        pool = engine.pool
        watched, lend = known
        if book.left < 1 or pool is not watched:
            if book.notes_all:
                # Each loan comes by here.
                return kind.connect(engine)
            if not _is_stock(kind):
                # An instrument has replaced the method since the last loan that was noted in full.
                vars(engine).pop("connect", None)
            elif hooked(pool):
                known = pool, pool._poolbench_lend  # noqa: SLF001
            # The pool's connect() notes this loan.
            return kind.connect(engine)
        book.left -= 1
        try:
            fairy = lend()
        except BaseException as error:
            book.refused_lightly(pool._poolbench_engine, _frame(1), error, _timeout_s(pool))  # noqa: SLF001
            if isinstance(error, engine.dialect.loaded_dbapi.Error):
                # As SQLAlchemy's connect() does: raises the driver's error as one of SQLAlchemy's.
                Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)  # noqa: SLF001
            raise
        try:
            frame: Any = _frame(1)
            code = frame.f_code
            if code is not last:
                if kind_of(code) == APPLICATION:
                    last = code
                else:
                    frame = application_frame(frame)
                    code = None if frame is None else frame.f_code
            borrower = book.current()
            lent[fairy._connection_record] = (  # noqa: SLF001
                borrower,
                code,
                0 if frame is None else frame.f_lasti,
                served.get(borrower) if served else None,
                perf_counter_ns(),
            )
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            book.fault = f"{type(error).__name__}: {error}"
        return engine._connection_cls(engine, fairy)  # noqa: SLF001

    engine.connect = connect


def _is_stock(kind: type[Engine]) -> bool:
    """Whether engines of this class borrow as SQLAlchemy's do. Instruments replace the methods in the class, at any time."""
    return all(
        type(method) is FunctionType and method.__code__.co_filename == base.__file__
        for method in (kind.connect, kind.raw_connection)
    )


def _note(fairy: Any, frame: FrameType | None) -> None:
    """Note in the book who has borrowed, in which frame of the application."""
    borrower = BOOK.current()
    code, instruction = (None, 0) if frame is None else (frame.f_code, frame.f_lasti)
    request = BOOK.requests.get(borrower)
    BOOK.lent[fairy._connection_record] = borrower, code, instruction, request, perf_counter_ns()  # noqa: SLF001


def _timeout_s(pool: Any) -> float:
    return float(getattr(pool, "_timeout", 0.0) or 0.0)


def _connect_noting_all(lend: Callable[[], Any], about: WatchedEngine, caller: FrameType) -> Any:
    """As connect(), for a loan of which everything is noted."""
    loan = BOOK.asking(about, caller)
    try:
        fairy = lend()
    except BaseException as error:
        if loan is not None:
            BOOK.refused(loan, error)
        raise
    if loan is not None:
        BOOK.lend(loan, fairy)
    return fairy


def hook_dialect(engine: Engine) -> None:
    """Note the statements of the engine in the book from now on. Several engines may share one pool; each has its own dialect.

    Wraps four methods of the dialect, once.
    """
    dialect: Any = engine.dialect
    if getattr(dialect, "_poolbench_watched", False):
        return
    dialect._poolbench_watched = True  # noqa: SLF001
    # Listeners to statements would slow down each connection, so the methods that they would be called by are wrapped.
    dialect.connect = _timed_connect(dialect.connect)
    dialect.do_execute = _watched_execute(dialect.do_execute, many=False)
    dialect.do_executemany = _watched_execute(dialect.do_executemany, many=True)
    dialect.do_execute_no_params = _watched_execute_no_params(dialect.do_execute_no_params)


def _connected(_connection: Any, record: Any) -> None:
    _opened(record, _frame(1))


@harmless
def _opened(record: Any, frame: FrameType) -> None:
    """Note in a connection's record who opened the connection, where, when, and in how many ns."""
    now_ns, borrower = perf_counter_ns(), BOOK.current()
    took_ns = now_ns - BOOK.opening.pop(borrower, now_ns)
    setattr(record, OPENED, Opened(BOOK.pid, borrower, place_of(frame), now_ns, took_ns))


@harmless
def _opening() -> Any:
    """Note that the running borrower begins to open a connection. Returns the borrower."""
    borrower = BOOK.current()
    BOOK.opening[borrower] = perf_counter_ns()
    return borrower


def _timed_connect(connect: Any) -> Any:
    """A function that calls `connect`, a dialect's method, and notes when it began. Raises what `connect` raises."""

    def timed(*given: Any, **named: Any) -> Any:
        borrower = _opening()
        try:
            return connect(*given, **named)
        except BaseException:
            BOOK.opening.pop(borrower, None)
            raise

    return timed


def _watched_execute(execute: Any, *, many: bool) -> Any:
    """A function that calls `execute`, a dialect's method with parameters, and notes the statement, its rows and its time in ns.

    `many`: the method is do_executemany. Raises what `execute` raises; such a statement is not noted.
    """
    noted, executing, executed = BOOK.noted, BOOK.executing, BOOK.executed
    is_stock = getattr(execute, "__func__", None) is DefaultDialect.do_execute

    def watched(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        loan = executing(context, statement) if noted else None
        if loan is None:
            if is_stock:
                # All that SQLAlchemy's own method does, with one call less.
                cursor.execute(statement, parameters)
            else:
                execute(cursor, statement, parameters, context)
            return
        began_ns = perf_counter_ns()
        execute(cursor, statement, parameters, context)
        executed(loan, perf_counter_ns() - began_ns, cursor, _frame(1), many)

    STATEMENT_CODES.add(watched.__code__)
    return watched


def _watched_execute_no_params(execute: Any) -> Any:
    """As `_watched_execute`, for the dialect's method without parameters."""
    noted, executing, executed = BOOK.noted, BOOK.executing, BOOK.executed

    def watched(cursor: Any, statement: str, context: Any = None) -> None:
        loan = executing(context, statement) if noted else None
        if loan is None:
            execute(cursor, statement, context)
            return
        began_ns = perf_counter_ns()
        execute(cursor, statement, context)
        executed(loan, perf_counter_ns() - began_ns, cursor, _frame(1), False)

    STATEMENT_CODES.add(watched.__code__)
    return watched
