"""Hooks of a watched engine: its pool's connect(), and the methods of its dialect that connect and execute. See watching.py.

Every loan and every statement of the application passes through these, so the functions are short, and repeat code rather than
call one another.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from poolbench.loan_book import BOOK, OPENED, harmless
from poolbench.loans import Opened, WatchedEngine
from poolbench.looking import STATEMENT_CODES
from poolbench.places import application_frame, place_of

if TYPE_CHECKING:
    from types import CodeType, FrameType

_STEPS = 3
"""From the pool's connect() to engine.connect(), which the application calls, if that is how it borrows."""
_ENGINE_CONNECT = Engine.connect.__code__

_CONNECTING: dict[int, CodeType] = {}
"""Code objects of the application that were found to call engine.connect() themselves, by id()."""
_MOST_CODES = 1000
"""When `_CONNECTING` has this many code objects, it is emptied."""

_frame = sys._getframe  # noqa: SLF001


class WatchedPool(Pool):
    """A pool whose loans are noted in the book. `hook` gives an engine's pool a class made of this one and its own."""

    _poolbench_engine: WatchedEngine
    _poolbench_connect: Any
    """The method connect() of the pool's own class; calling it costs less than super()."""
    _poolbench_code: CodeType | None = None
    """The code object of the application that borrowed last by calling engine.connect() itself."""

    def connect(self) -> Any:
        """Lend a connection and note the loan. Results and errors are those of the pool's own class."""
        book = BOOK
        book.left -= 1
        if book.left < 0:
            return self._connect_noting_all()
        try:
            fairy = self._poolbench_connect()
        except BaseException as error:
            timeout_s = float(getattr(self, "_timeout", 0.0) or 0.0)
            book.refused_lightly(self._poolbench_engine, _frame(1), error, timeout_s)
            raise
        try:
            try:
                called = _frame(_STEPS)
                frame = called.f_back if called.f_code is _ENGINE_CONNECT else None
            except ValueError:
                frame = None
            code = None if frame is None else frame.f_code
            if code is None or (code is not self._poolbench_code and _CONNECTING.get(id(code)) is not code):
                frame = self._borrowing_frame(frame)
                code = None if frame is None else frame.f_code
            borrower = book.current()
            book.lent[fairy._connection_record] = (  # noqa: SLF001
                borrower,
                code,
                0 if frame is None else frame.f_lasti,
                book.requests.get(borrower) if book.requests else None,
                perf_counter_ns(),
            )
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            book.fault = f"{type(error).__name__}: {error}"
        return fairy

    def _borrowing_frame(self, guess: FrameType | None) -> FrameType | None:
        """The application's frame that borrows, found by walking up the stack; None if no frame is the application's.

        If it is `guess`, its code is remembered, so that the next loan from it needs no walk.
        """
        found = application_frame(_frame(2))
        if found is not None and found is guess:
            if len(_CONNECTING) >= _MOST_CODES:
                _CONNECTING.clear()
            self._poolbench_code = _CONNECTING[id(found.f_code)] = found.f_code
        return found

    def _connect_noting_all(self) -> Any:
        """As connect(), for a loan of which everything is noted."""
        loan = BOOK.asking(self._poolbench_engine, _frame(2))
        try:
            fairy = self._poolbench_connect()
        except BaseException as error:
            if loan is not None:
                BOOK.refused(loan, error)
            raise
        if loan is not None:
            BOOK.lend(loan, fairy)
        return fairy

    def recreate(self) -> Any:
        """Return the pool that follows this one after engine.dispose(), watched as well."""
        found: Any = super().recreate()
        found._poolbench_engine = self._poolbench_engine  # noqa: SLF001
        return found


_KINDS: dict[Any, type[Pool]] = {}
"""By class of a pool: the subclass of it that is watched."""


def hook_pool(engine: Engine, about: WatchedEngine) -> None:
    """Note the loans of the engine's pool in the book from now on; `about` describes the engine there.

    Changes the class of the pool, in place.
    """
    pool: Any = engine.pool
    kind: Any = type(pool)
    if kind not in _KINDS:
        _KINDS[kind] = type(kind.__name__, (WatchedPool, kind), {"_poolbench_connect": kind.connect})
    pool._poolbench_engine = about  # noqa: SLF001
    pool.__class__ = _KINDS[kind]
    event.listen(engine, "connect", _connected)


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
    record.info[OPENED] = Opened(BOOK.pid, borrower, place_of(frame), now_ns, took_ns)


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
    noted = BOOK.noted

    def watched(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        loan = BOOK.executing(context, statement) if noted else None
        if loan is None:
            execute(cursor, statement, parameters, context)
            return
        began_ns = perf_counter_ns()
        execute(cursor, statement, parameters, context)
        BOOK.executed(loan, perf_counter_ns() - began_ns, cursor.rowcount, _frame(1), many)

    STATEMENT_CODES.add(watched.__code__)
    return watched


def _watched_execute_no_params(execute: Any) -> Any:
    """As `_watched_execute`, for the dialect's method without parameters."""
    noted = BOOK.noted

    def watched(cursor: Any, statement: str, context: Any = None) -> None:
        loan = BOOK.executing(context, statement) if noted else None
        if loan is None:
            execute(cursor, statement, context)
            return
        began_ns = perf_counter_ns()
        execute(cursor, statement, context)
        BOOK.executed(loan, perf_counter_ns() - began_ns, cursor.rowcount, _frame(1), many=False)

    STATEMENT_CODES.add(watched.__code__)
    return watched


def hooked(pool: Any) -> bool:
    """Whether the pool's loans are noted in the book."""
    return isinstance(pool, WatchedPool)
