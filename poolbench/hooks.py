"""Hooks of a watched engine: its pool's connect(), what opens its connections, and how its dialect executes. See watching.py.

Every loan and every statement of the application passes through these, so the functions are short, and repeat code rather than
call one another.
"""

from __future__ import annotations

import sys
from functools import partial
from time import perf_counter_ns
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import base
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import Pool
from sqlalchemy.pool import base as pool_base
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord

from poolbench.loan_book import BOOK, OPENED, harmless, taken_ns
from poolbench.loans import Opened, WatchedEngine
from poolbench.looking import STATEMENT_CODES
from poolbench.observed import CLOSED, SampleKey
from poolbench.places import application_frame, at, place_of
from poolbench.tally import add_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType, ModuleType

_frame = sys._getframe  # noqa: SLF001
_OPENING_NS = 100_000
"""A connection to a server is not opened in less."""


def hook_pool(engine: Engine, about: WatchedEngine) -> None:
    """Note the loans of the engine's pool in the book from now on; `about` describes the engine there.

    Gives the pool methods connect() and recreate() of its own; a pool that follows it after engine.dispose() is watched, too.
    """
    event.listen(engine, "connect", _connected)
    # No listener to the engine itself: with one, SQLAlchemy looks for others at each step of each statement.
    event.listen(engine, "detach", lambda *_: _closed(about, _frame(1)))
    event.listen(engine, "invalidate", lambda *given: None if given[-1] else _closed(about, _frame(1)))
    _watch_loans(engine.pool, about)


def hooked(pool: Any) -> bool:
    """Whether the pool's loans are noted in the book."""
    return "_poolbench_engine" in vars(pool)


def _watch_loans(pool: Any, about: WatchedEngine) -> None:
    # Attributes of this one pool rather than a subclass: SQLAlchemy's own methods stay as fast as the interpreter can make them
    # for the pool's class.
    recreate = pool.recreate

    def recreated() -> Any:
        # For dispose().
        _closed(about, _frame(1))
        found: Any = recreate()
        _watch_loans(found, about)
        return found

    pool._poolbench_engine, pool._poolbench_lend = about, pool.connect  # noqa: SLF001
    # Whatever opens connections: the dialect, a listener to `do_connect`, or the application's own `creator`.
    pool._invoke_creator = _timed_opening(pool._invoke_creator)  # noqa: SLF001
    pool.connect = _noting_connect(pool, pool.connect, about)
    pool.recreate = recreated


def _noting_connect(pool: Any, lend: Callable[[], Any], about: WatchedEngine) -> Callable[[], Any]:
    """A function that calls `lend`, the pool's own connect(), and notes the loan. Results and errors are those of `lend`."""
    book, lend_drawing = BOOK, _drawing_lender(pool)

    def connect() -> Any:
        book.left -= 1
        if book.left < 0:
            return lend_drawing(_frame(1))
        try:
            fairy = lend()
        except BaseException as error:
            book.refused_lightly(about, _frame(1), error, _timeout_s(pool))
            raise
        try:
            borrower = book.current()
            values = borrower, *at(application_frame(_frame(1))), book.requests.get(borrower), perf_counter_ns()
            book.lent[fairy._connection_record] = values  # noqa: SLF001
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
    stock = kind.connect, kind.raw_connection
    known: tuple[Any, ...] = ()

    def look_again() -> Any:
        """Find out what the engine consists of now, and borrow through the pool's connect(), which notes this loan."""
        nonlocal known
        now = engine.pool, BOOK.current, BOOK.keeps_all
        if (kind.connect, kind.raw_connection) != stock:
            # An instrument has replaced a method since the last look.
            vars(engine).pop("connect", None)
        elif hooked(engine.pool) and known != now:
            known = now
            short = _drawing_connect if BOOK.keeps_all else _short_connect
            engine.connect = short(engine, engine.pool, look_again)
        return kind.connect(engine)

    engine.connect = look_again


_LENT, _SERVED = BOOK.lent, BOOK.requests


def _short_connect(engine: Any, pool: Any, look_again: Callable[[], Any]) -> Callable[[], Any]:
    """A connect() of an engine as long as it has this pool; `look_again` borrows when it is time for a look."""
    # Each variable of an outer function costs a little at each call; those of the module cost less.
    lend, current, connection_of = _lender(pool), BOOK.current, engine._connection_cls  # noqa: SLF001
    is_stock = _lends_as_stock(pool, lend)
    # The code object of the application that borrowed last.
    last: CodeType | None = None

    def connect() -> Any:
        nonlocal last
        left = BOOK.left
        if left < 1 or engine.pool is not pool:
            return look_again()
        BOOK.left = left - 1
        try:
            # The frame is looked at before the wait, and let go: it has the caller's variables in it.
            frame: Any = _frame(1)
            code = frame.f_code
            if code is last:
                instruction = frame.f_lasti
            else:
                borrows, (code, instruction) = code, at(application_frame(frame))
                if code is borrows and instruction > 0:
                    last = code
            frame = None
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            BOOK.fault = f"{type(error).__name__}: {error}"
            code, instruction = None, 0
        try:
            # All that `lend` does if nobody listens to loans, with one call less.
            if is_stock and not pool.dispatch.checkout:
                fairy = _ConnectionRecord.checkout(pool)
                fairy._counter += 1  # noqa: SLF001
            else:
                fairy = lend(pool)
        except BaseException as error:
            BOOK.refused_lightly(pool._poolbench_engine, _frame(1), error, _timeout_s(pool))  # noqa: SLF001
            _raise_as_sqlalchemy(engine, error)
            raise
        try:
            borrower = current()
            _LENT[fairy._connection_record] = (  # noqa: SLF001
                borrower,
                code,
                instruction,
                _SERVED.get(borrower) if _SERVED else None,
                perf_counter_ns(),
            )
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            BOOK.fault = f"{type(error).__name__}: {error}"
        return connection_of(engine, fairy)

    return connect


def _drawing_connect(engine: Any, pool: Any, look_again: Callable[[], Any]) -> Callable[[], Any]:
    """As `_short_connect`, under the command."""
    lend_drawing, connection_of, kind = _drawing_lender(pool), engine._connection_cls, type(engine)  # noqa: SLF001
    connect_of, raw_connection_of = kind.connect, kind.raw_connection

    def connect() -> Any:
        if engine.pool is not pool or kind.connect is not connect_of or kind.raw_connection is not raw_connection_of:
            return look_again()
        try:
            fairy = lend_drawing(_frame(1))
        except BaseException as error:
            _raise_as_sqlalchemy(engine, error)
            raise
        return connection_of(engine, fairy)

    return connect


def _lender(pool: Any) -> Callable[[Any], Any]:
    """A function that lends a connection of the pool it is given, in as few calls as its connect() allows."""
    lend: Any = pool._poolbench_lend  # noqa: SLF001
    # An instrument's object may look like a method of the pool, whose function is then the one that it stands before.
    if type(lend) is not MethodType or lend.__self__ is not pool:
        return lambda _pool: lend()
    method: Any = lend.__func__
    # All that SQLAlchemy's own method does, if no instrument has replaced that.
    is_stock = method is Pool.connect and _is_of(method, pool_base)
    return _ConnectionFairy._checkout if is_stock else method  # noqa: SLF001


def _lends_as_stock(pool: Any, lend: Any) -> bool:
    """Whether `lend`, of `_lender`, is SQLAlchemy's own and looks at no connection before it lends it."""
    return (
        lend == _ConnectionFairy._checkout  # noqa: SLF001
        and _is_of(getattr(lend, "__func__", None), pool_base)
        and not pool._pre_ping  # noqa: SLF001
    )


def _raise_as_sqlalchemy(engine: Any, error: BaseException) -> None:
    """Raise an error of the driver as one of SQLAlchemy's, as SQLAlchemy's connect() does; return if it is none."""
    if isinstance(error, engine.dialect.loaded_dbapi.Error):
        Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)  # noqa: SLF001


def _is_stock(kind: type[Engine]) -> bool:
    """Whether engines of this class borrow as SQLAlchemy's do. Instruments replace the methods in the class, at any time."""
    return _is_of(kind.connect, base) and _is_of(kind.raw_connection, base)


def _is_of(function: Any, module: ModuleType) -> bool:
    """Whether this is a function of SQLAlchemy's module, which no instrument has replaced."""
    return type(function) is FunctionType and function.__code__.co_filename == module.__file__


def _timeout_s(pool: Any) -> float:
    return float(getattr(pool, "_timeout", 0.0) or 0.0)


def _drawing_lender(pool: Any) -> Callable[[FrameType], Any]:
    """A function that lends a connection of a pool to the caller whose frame it is given, and notes the loan as drawn: in full,
    or its holder and its times.
    """
    lend = _lender(pool)
    is_stock = _lends_as_stock(pool, lend)
    # The code object of the application that borrowed last.
    last: CodeType | None = None

    def lend_drawing(frame: FrameType) -> Any:
        nonlocal last
        try:
            borrower = BOOK.current()
            request = _SERVED.get(borrower)
            weight = BOOK.draw(request) if request is None or request.weight is None else request.weight
            if not weight:
                code: CodeType | None = frame.f_code
                if code is last:
                    instruction = frame.f_lasti
                else:
                    code, instruction = at(application_frame(frame))
                    if code is frame.f_code and instruction > 0:
                        last = code
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            BOOK.fault = f"{type(error).__name__}: {error}"
            weight = 1
        if weight:
            return _lend_noting_all(pool, lend, frame, weight)
        asked_ns = perf_counter_ns()
        try:
            if is_stock and not pool.dispatch.checkout:
                fairy = _ConnectionRecord.checkout(pool)
                fairy._counter += 1  # noqa: SLF001
            else:
                fairy = lend(pool)
        except BaseException as error:
            BOOK.refused_lightly(pool._poolbench_engine, frame, error, _timeout_s(pool), asked_ns)  # noqa: SLF001
            raise
        try:
            lent_ns = perf_counter_ns()
            record: Any = fairy._connection_record  # noqa: SLF001
            _LENT[record] = values = borrower, code, instruction, request, lent_ns
            if BOOK.tally.has_room:
                wait_ns = lent_ns - asked_ns
                if wait_ns > _OPENING_NS:
                    opened = getattr(record, OPENED, None)
                    if opened is not None and opened.is_new and opened.at_ns >= asked_ns:
                        wait_ns -= taken_ns(record, opened, asked_ns)
                record.finalize_callback.append(
                    partial(_keep_ended, BOOK.tally.kept, record, values, pool._poolbench_engine.key, asked_ns, wait_ns)  # noqa: SLF001
                )
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            BOOK.fault = f"{type(error).__name__}: {error}"
        return fairy

    return lend_drawing


def _keep_ended(
    kept: list[Any], record: Any, values: tuple[Any, ...], engine: str, asked_ns: int, wait_ns: int, _connection: Any
) -> None:
    """Keep the times of a loan, of which `values` are noted, when its connection comes back.

    Not of one whose connection was detached, after which the record's next loan calls this.
    """
    try:
        latest = _LENT.get(record)
        if latest is None or latest is values:
            kept.append((engine, asked_ns, wait_ns, perf_counter_ns() - values[4], True))
    except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
        BOOK.fault = f"{type(error).__name__}: {error}"


def _lend_noting_all(pool: Any, lend: Callable[[Any], Any], caller: FrameType, weight: int) -> Any:
    """As `_drawing_lender`'s function, of a loan of which everything is noted, and which stands for `weight` loans."""
    loan = BOOK.asking(pool._poolbench_engine, caller, weight)  # noqa: SLF001
    try:
        fairy = lend(pool)
    except BaseException as error:
        if loan is not None:
            BOOK.refused(loan, error)
        raise
    if loan is not None:
        BOOK.lend(loan, fairy)
    return fairy


def hook_dialect(engine: Engine) -> None:
    """Note the statements of the engine in the book from now on. Several engines may share one pool; each has its own dialect.

    Wraps three methods of the dialect, once.
    """
    dialect: Any = engine.dialect
    if getattr(dialect, "_poolbench_watched", False):
        return
    dialect._poolbench_watched = True  # noqa: SLF001
    # Listeners to statements would slow down each connection, so the methods that they would be called by are wrapped.
    dialect.do_execute = _watched_execute(dialect.do_execute, many=False)
    dialect.do_executemany = _watched_execute(dialect.do_executemany, many=True)
    dialect.do_execute_no_params = _watched_execute_no_params(dialect.do_execute_no_params)


def _connected(_connection: Any, record: Any) -> None:
    _opened(record, _frame(1))


@harmless
def _opened(record: Any, frame: FrameType) -> None:
    """Note in a connection's record who opened the connection, where, when, and in how many ns."""
    now_ns = perf_counter_ns()
    took_ns = now_ns - BOOK.opening.pop(BOOK.current(), now_ns)
    setattr(record, OPENED, Opened(BOOK.pid, place_of(frame), now_ns, took_ns))


@harmless
def _closed(about: WatchedEngine, frame: FrameType) -> None:
    """Note where the application has connections closed that the pool could keep: not those that the pool or an error closes."""
    place = place_of(frame)
    if place is not None:
        add_sample(BOOK.tally.current.samples, SampleKey(about.key, "", str(place), CLOSED, False), 0, 0)


@harmless
def _opening() -> Any:
    """Note that the running borrower begins to open a connection. Returns the borrower."""
    borrower = BOOK.current()
    BOOK.opening[borrower] = perf_counter_ns()
    return borrower


def _timed_opening(create: Any) -> Any:
    """A function that opens a connection by `create`, as a pool does, and notes when it began. Raises what `create` raises."""

    def timed(record: Any) -> Any:
        borrower = _opening()
        try:
            return create(record)
        except BaseException:
            BOOK.opening.pop(borrower, None)
            raise

    return timed


def _watched_execute(execute: Any, *, many: bool) -> Any:
    """A function that calls `execute`, a dialect's method with parameters, and notes the statement, its rows and its time in ns.

    `many`: the method is do_executemany. Raises what `execute` raises.
    """
    book, noted, wrote, executing, executed = BOOK, BOOK.noted, BOOK.wrote, BOOK.executing, BOOK.executed
    is_stock = getattr(execute, "__func__", None) is DefaultDialect.do_execute

    def watched(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        is_looked_at = noted or (book.keeps_all and (wrote or statement not in book.reads))
        loan = executing(context, statement) if is_looked_at else None
        if loan is None:
            if is_stock:
                # All that SQLAlchemy's own method does, with one call less.
                cursor.execute(statement, parameters)
            else:
                execute(cursor, statement, parameters, context)
            return
        began_ns = perf_counter_ns()
        try:
            execute(cursor, statement, parameters, context)
        except BaseException as error:
            book.failed(loan, perf_counter_ns() - began_ns, error, _frame(1))
            raise
        executed(loan, perf_counter_ns() - began_ns, cursor, _frame(1), many)

    STATEMENT_CODES.add(watched.__code__)
    return watched


def _watched_execute_no_params(execute: Any) -> Any:
    """As `_watched_execute`, for the dialect's method without parameters."""
    book, noted, wrote, executing, executed = BOOK, BOOK.noted, BOOK.wrote, BOOK.executing, BOOK.executed

    def watched(cursor: Any, statement: str, context: Any = None) -> None:
        is_looked_at = noted or (book.keeps_all and (wrote or statement not in book.reads))
        loan = executing(context, statement) if is_looked_at else None
        if loan is None:
            execute(cursor, statement, context)
            return
        began_ns = perf_counter_ns()
        try:
            execute(cursor, statement, context)
        except BaseException as error:
            book.failed(loan, perf_counter_ns() - began_ns, error, _frame(1))
            raise
        executed(loan, perf_counter_ns() - began_ns, cursor, _frame(1), False)

    STATEMENT_CODES.add(watched.__code__)
    return watched
