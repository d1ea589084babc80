"""Watches an application's loans, statements and requests, to say why its pool's limit was reached.

`watch(engine)`, or `&watch=1` in the URL with the plugin, keeps the last minute. A thread looks at all lent connections ten
times a second: what their borrowers are doing, and at which line of the application. When a wait for a connection times out,
one line of JSON in the log of `poolbench` names who holds each connection, since when and doing what, with the diagnosis of
the last minute. `diagnosis()` and `holders()` tell the same at any time.

Whatever is added up comes from finished loans in a queue, so that borrowers share no lock: appending to a deque, and setting
or taking a key of a dict, are single steps in CPython.
"""

from __future__ import annotations

import _thread  # noqa: F401 - found by its name below
import atexit
import json
import logging
import os
import sys
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import randrange
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event, exc
from sqlalchemy.pool import Pool

from poolbench import observed as seen
from poolbench.diagnosis import Diagnosis, diagnose
from poolbench.loans import STATEMENT_TEXT, Loan, Opened, Request, WatchedEngine, light_loan, native
from poolbench.looking import (
    IDLE,
    REQUEST_CODES,
    Looker,
    application_place,
    is_in_loop,
    is_running,
    loop_is_idle,
    transaction_status,
    wanted_cpu_s,
)
from poolbench.observed import Ask, LoanKey, LoanSum, Observed, SampleKey, total
from poolbench.places import APPLICATION, FILES, Place, application_frame, place_of
from poolbench.tally import TEXT_LENGTH, Tally, add_sample, count_engine, writes
from poolbench.waiters import current_function

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

_LOG = logging.getLogger("poolbench")
_INTERVAL_S = 0.1
_CLOSE_INTERVAL_S = 0.02
_STEPS = 4
_SLICES = 6
_EVERY = 64
"""Of so many loans, one is noted with all that it executes; of the others, only who holds them. The command notes all."""
_LOG_EVERY_NS = 10_000_000_000
_SHARE_OF_TIME = 30
"""A look is followed by a pause this many times as long, at least: looking takes some 3 % of a core at most."""
_OPENED = "poolbench.opened"
"""Which process opened a connection, and at which place of the application."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a connection at this moment: borrowed at, by which endpoint, for how long, doing what and where."""

    borrowed_at: str
    endpoint: str
    seconds: float
    doing: str
    where: str


class Watcher:
    """What one process sees of all its watched engines."""

    def __init__(self) -> None:
        self.interval_s = _INTERVAL_S
        self.report_folder: Path | None = None
        self.fault = ""
        self.logs = True
        self._signals = False
        self._drivers: dict[str, WatchedEngine] = {}
        self._numbers: Counter[str] = Counter()
        self._logged_ns = -_LOG_EVERY_NS
        self.inherited: dict[Any, Loan] = {}
        self._how: tuple[int, int | None] = (_EVERY, _SLICES)
        self._clear()

    def _clear(self) -> None:
        self.pid = os.getpid()
        self.loans: dict[Any, Any] = {}
        self.asks: dict[Loan, None] = {}
        self.opening: dict[Any, int] = {}
        self.requests: dict[Any, Request] = {}
        self.tally = Tally(self.pid, *self._how)
        self._permits = [None]
        self.looker = Looker()
        self.is_looking = False
        self._began = 0.0, 0.0
        self.left = 0
        self._has_noted_foreign = False
        self.current = current_function()

    def note_all(self) -> None:
        """Note every loan, and keep everything."""
        self._how = (1, 1)
        self.tally = Tally(self.pid, *self._how)

    def after_fork(self) -> None:
        """In a child: begin anew. Loans of the parent are remembered, to notice that the child uses them."""
        inherited = dict(self._all_loans())
        self._clear()
        self.inherited = inherited

    def next_number(self, place: str) -> int:
        """How many engines the place has made before."""
        self._numbers[place] += 1
        return self._numbers[place]

    # Loans

    def start(self) -> None:
        """Start the thread that looks, unless it runs."""
        try:
            self._permits.pop()
        except IndexError:
            return
        self.is_looking = True
        self._began = wanted_cpu_s(), time.perf_counter()
        self.current = current_function()
        if self.report_folder is not None:
            (self.report_folder / f"{self.pid}.watching").touch()
        if not self._signals and "flask" in sys.modules:
            self._signals = True
            _follow_flask(self)
        native("_thread", "start_new_thread")(self._run, ())

    def asking(self, engine: WatchedEngine, frame: FrameType) -> Loan:
        """Somebody asks for a connection, of whose loan everything will be noted."""
        if not self.is_looking:
            self.start()
        borrower = self.current()
        loan = Loan(engine, borrower, place_of(frame), self.requests.get(borrower))
        for _, other in self._all_loans():
            if other.borrower == borrower and other.request is loan.request and other.engine is engine:
                loan.outer = other
        self.asks[loan] = None
        return loan

    def lent(self, loan: Loan, fairy: Any) -> None:
        """The connection is there."""
        loan.lent_ns = perf_counter_ns()
        del self.asks[loan]
        record = fairy._connection_record  # noqa: SLF001
        loan.connection = fairy.dbapi_connection
        opened: Opened | None = record.info.get(_OPENED)
        if opened is not None:
            if opened.process != self.pid:
                loan.place = opened.place or loan.place
                self._note_foreign(loan)
            if opened.at_ns >= loan.asked_ns and opened.borrower == loan.borrower:
                loan.connect_ns = opened.duration_ns
        self.loans[record] = loan

    def failed(self, loan: Loan, error: BaseException) -> None:
        """No connection came."""
        loan.ended_ns = perf_counter_ns()
        self.asks.pop(loan, None)
        self.opening.pop(loan.borrower, None)
        loan.refused = _refusal(error)
        self.tally.ended(loan)
        if loan.refused == "timeout" and self.logs:
            self._log(loan)

    def returned(self, loan: Loan) -> None:
        """A connection comes back."""
        loan.ended_ns = perf_counter_ns()
        loan.connection = None
        self.tally.ended(loan)

    def _all_loans(self) -> list[tuple[Any, Loan]]:
        """Records and their loans at this moment; of those not noted in full only what is known."""
        return [
            (record, light_loan(record, loan) if loan.__class__ is list else loan)
            for record, loan in list(self.loans.items())
        ]

    def opened(self, connection: Any, place: Place, duration_ns: int) -> None:
        """The application has opened a connection without an engine: a loan until it is closed."""
        engine = self._drivers.get(str(place))
        if engine is None:
            engine = self._drivers[str(place)] = WatchedEngine.of_driver(place)
        if not self.is_looking:
            self.start()
        borrower = self.current()
        loan = Loan(engine, borrower, place, self.requests.get(borrower))
        loan.lent_ns, loan.connect_ns = loan.asked_ns, duration_ns
        loan.asked_ns -= duration_ns
        self.loans[weakref.ref(connection)] = loan

    def _end_closed(self) -> None:
        """End the loans of connections without an engine that were closed."""
        for reference in [key for key in self.loans if isinstance(key, weakref.ref)]:
            connection = reference()
            if connection is None or connection.closed:
                self.returned(self.loans.pop(reference))
            else:
                self.loans[reference].connection = reference

    # Statements

    def executing(self, record: Any, statement: str) -> Loan | None:
        """A statement begins. Returns its loan if all of it is to be noted."""
        loan = self.loans.get(record)
        if loan.__class__ is list:
            loan[STATEMENT_TEXT] = statement
            return None
        if loan is None:
            loan = self.inherited.get(record)
            if loan is None:
                return None
            self._note_foreign(loan)
        noted: Loan = loan
        if noted.request is not None and noted.request.ended_ns:
            noted.adopted = True
        noted.statement = statement
        if noted.wrote and transaction_status(noted.connection) == IDLE:
            noted.wrote = False
        if not noted.wrote and writes(statement):
            noted.wrote = True
        return noted

    def executed(self, loan: Loan, duration_ns: int, rows: int, frame: FrameType, *, many: bool) -> None:
        """A statement has been executed."""
        now_ns = perf_counter_ns()
        place = place_of(frame)
        if loan.place is None:
            loan.place = place
        key = (loan.statement, id(place.code), place.instruction) if place is not None else (loan.statement, 0, 0)
        groups = loan.groups
        if groups is None:
            groups = loan.groups = {}
        group = groups.get(key)
        if group is None:
            group = groups[key] = [place, 0, 0, 0, now_ns - duration_ns, 0, 0, 0, duration_ns]
        group[1] += 1
        group[2] += duration_ns
        group[3] += max(rows, 0)
        group[5] = now_ns
        group[8] = min(group[8], duration_ns)
        if duration_ns >= seen.SLOW_NS and not many and rows < seen.MANY_ROWS:
            group[6] += 1
            group[7] += duration_ns

    # Requests

    def begin(self, environ: dict[str, Any], name: str = "") -> Request:
        """A request begins in the running greenlet or thread."""
        request = self.requests[self.current()] = Request(environ, name)
        return request

    def answered(self, request: Request) -> None:
        """A request has been answered."""
        if request.ended_ns:
            return
        request.end()
        me = self.current()
        if self.requests.get(me) is request:
            del self.requests[me]
        self.tally.answered(request)

    # Looking

    def _run(self) -> None:
        sleep, pid = native("time", "sleep"), self.pid
        before_ns = perf_counter_ns()
        pause_s = self.interval_s
        while True:
            sleep(pause_s)
            if pid != os.getpid() or self.pid != pid:
                return
            began_ns = perf_counter_ns()
            try:
                self._look(began_ns - before_ns)
                self.tally.add_up()
                self._report()
            except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
                # Not logged here: the host's handlers may have locks of gevent's, which this thread cannot take.
                self.fault = f"{type(error).__name__}: {error}"
            before_ns = began_ns
            pause_s = max(self.interval_s, (perf_counter_ns() - began_ns) * _SHARE_OF_TIME / 1e9)

    def _look(self, elapsed_ns: int) -> None:
        self._end_closed()
        frames = sys._current_frames()  # noqa: SLF001
        asks = list(self.asks)
        waiting = Counter(
            {key: count * self.tally.every for key, count in Counter(ask.engine.key for ask in asks).items()}
        )
        askers = {ask.borrower: ask for ask in asks if ask.outer is not None}
        loans = [loan for _, loan in self._all_loans()]
        lent = Counter(loan.engine.key for loan in loans)
        busy = {loan.thread for loan in loans if is_in_loop(loan) and not loop_is_idle(frames.get(loan.thread))}
        running = {loan.thread: loan for loan in loans if is_running(loan)}
        samples = self.tally.slices[-1].samples
        for loan in loans:
            doing, place, ran_ns = self.looker.doing(loan, frames, askers, elapsed_ns)
            engine = loan.engine.key
            blamed_ns = elapsed_ns * waiting[engine] // lent[engine] if waiting[engine] else 0
            if loan.thread in busy and is_in_loop(loan):
                # While one greenlet runs, all others of its thread wait for it.
                if running.get(loan.thread) is loan:
                    blamed_ns = elapsed_ns * waiting[engine]
                else:
                    if loan.thread not in running:
                        add_sample(samples, SampleKey(engine, loan.endpoint, "", seen.CPU, False), 0, blamed_ns)
                    blamed_ns = 0
            key = SampleKey(engine, loan.endpoint, str(place or ""), doing, loan.wrote)
            add_sample(samples, key, ran_ns, blamed_ns * ran_ns // elapsed_ns)
            if ran_ns < elapsed_ns:
                spare = SampleKey(engine, loan.endpoint, "", seen.CPU, False)
                add_sample(samples, spare, elapsed_ns - ran_ns, blamed_ns * (elapsed_ns - ran_ns) // elapsed_ns)

    # Adding up

    def observed(self) -> Observed:
        """What was seen in the last minute (or all the time, for the command). Loans that have not ended count so far."""
        found = total(list(self.tally.slices))
        found.worker_cpu = self._cpu_share()
        found.fault = self.fault
        now_ns = perf_counter_ns()
        inherited = [loan for loan in self.inherited.values() if loan.foreign]
        for row_of_engine in found.engines.values():
            row_of_engine.processes = 1
        for loan in [*(loan for _, loan in self._all_loans()), *inherited]:
            count_engine(found, loan.engine)
            row = found.loans.setdefault(LoanKey(loan.engine.key, loan.endpoint, str(loan.place or "")), LoanSum())
            row.count += 1
            row.held_ns += now_ns - loan.lent_ns
            wait_ns = loan.lent_ns - loan.asked_ns - loan.connect_ns
            if self.tally.every == 1:
                found.asks.append(Ask(self.pid, loan.engine.key, loan.asked_ns, wait_ns, now_ns - loan.lent_ns, True))
            row.foreign += loan.foreign
            row.adopted += loan.adopted
        return found

    def _cpu_share(self) -> float | None:
        """CPU that the process has used, or was ready to use and had to wait for, since it began to look, in cores."""
        lasted_s = time.perf_counter() - self._began[1]
        return (wanted_cpu_s() - self._began[0]) / lasted_s if lasted_s > 1 else None

    # Telling

    def holders(self) -> tuple[Holder, ...]:
        """Who holds a connection at this moment, the longest first."""
        frames, now_ns = sys._current_frames(), perf_counter_ns()  # noqa: SLF001
        askers = {ask.borrower: ask for ask in list(self.asks) if ask.outer is not None}
        found = []
        for _, loan in self._all_loans():
            doing, place, _ = self.looker.doing(loan, frames, askers, 1)
            seconds = round((now_ns - loan.lent_ns) / 1e9, 3)
            text = f"{doing}: {' '.join(loan.statement.split())[:TEXT_LENGTH]}" if doing == seen.STATEMENT else doing
            found.append(Holder(str(loan.place or ""), loan.endpoint, seconds, text, str(place or "")))
        return tuple(sorted(found, key=lambda holder: -holder.seconds))

    def diagnosis(self) -> Diagnosis:
        """What held connections back in the last minute."""
        return diagnose(self.observed())

    def _log(self, loan: Loan) -> None:
        now_ns = perf_counter_ns()
        if now_ns - self._logged_ns < _LOG_EVERY_NS:
            return
        self._logged_ns = now_ns
        found = self.diagnosis()
        _LOG.warning(
            json.dumps(
                {
                    "event": "no connection in time",
                    "waited_ms": round((loan.ended_ns - loan.asked_ns) / 1e6),
                    "asked_at": str(loan.place or ""),
                    "endpoint": loan.endpoint,
                    "holders": [
                        {
                            "borrowed_at": each.borrowed_at,
                            "endpoint": each.endpoint,
                            "seconds": each.seconds,
                            "doing": each.doing,
                            "where": each.where,
                        }
                        for each in self.holders()
                    ],
                    "findings": [each.to_json() for each in found.findings],
                },
                ensure_ascii=False,
            )
        )

    def _report(self, *, at_once: bool = False) -> None:
        """Write down what was seen, if the command asks for it by a file, or the process ends."""
        folder = self.report_folder
        if folder is None or not (at_once or (folder / "report").exists()):
            return
        if not (folder / f"{self.pid}.observed").exists():
            self._write(folder, str(self.pid), self.observed())

    def end(self) -> None:
        """The process ends."""
        if self.is_looking:
            self.tally.add_up()
            self._report(at_once=True)

    def _note_foreign(self, loan: Loan) -> None:
        """Write down at once that a connection of another process is used: a child that was forked may end at any time."""
        loan.foreign = True
        if self.report_folder is None or self._has_noted_foreign:
            return
        self._has_noted_foreign = True
        found = Observed()
        count_engine(found, loan.engine)
        key = LoanKey(loan.engine.key, loan.endpoint, str(loan.place or ""))
        found.loans[key] = LoanSum(count=1, foreign=1)
        self._write(self.report_folder, f"{self.pid}-forked", found)

    def _write(self, folder: Path, name: str, found: Observed) -> None:
        written = folder / f"{name}.writing"
        written.write_text(json.dumps(found.to_json()))
        written.rename(folder / f"{name}.observed")


_watcher = Watcher()
os.register_at_fork(after_in_child=_watcher.after_fork)
atexit.register(_watcher.end)


class _Watched(Pool):
    """A pool whose loans are watched."""

    _poolbench_engine: WatchedEngine
    _poolbench_connect: Any
    _poolbench_return: Any
    """The methods of the pool's own class, without the price of super()."""

    def connect(self) -> Any:
        watcher = _watcher
        watcher.left -= 1
        if watcher.left < 0:
            watcher.left = randrange(2 * watcher.tally.every - 1)
            return self._connect_noting_all()
        try:
            fairy = self._poolbench_connect()
        except BaseException as error:
            loan = watcher.asking(self._poolbench_engine, sys._getframe(1))  # noqa: SLF001
            if isinstance(error, exc.TimeoutError):
                # When it began was not noted; it has waited as long as the pool lets it.
                loan.asked_ns -= round(1e9 * float(getattr(self, "_timeout", 0.0) or 0.0))
            watcher.failed(loan, error)
            raise
        frame: FrameType | None
        try:
            # engine.connect() of the application is four steps away; a session's or another way is found step by step.
            frame = sys._getframe(_STEPS)  # noqa: SLF001
        except ValueError:
            frame = None
        if frame is None or FILES.get(frame.f_code.co_filename) != APPLICATION:
            frame = application_frame(sys._getframe(1))  # noqa: SLF001
        code, instruction = (frame.f_code, frame.f_lasti) if frame is not None else (None, 0)
        borrower = watcher.current()
        request = watcher.requests.get(borrower) if watcher.requests else None
        light = [self._poolbench_engine, borrower, code, instruction, request, perf_counter_ns(), ""]
        watcher.loans[fairy._connection_record] = light  # noqa: SLF001
        return fairy

    def _connect_noting_all(self) -> Any:
        loan = _watcher.asking(self._poolbench_engine, sys._getframe(2))  # noqa: SLF001
        try:
            fairy = self._poolbench_connect()
        except BaseException as error:
            _watcher.failed(loan, error)
            raise
        _watcher.lent(loan, fairy)
        return fairy

    def _do_return_conn(self, record: Any) -> None:
        loan = _watcher.loans.pop(record, None)
        if loan.__class__ is Loan:
            _watcher.returned(loan)
        self._poolbench_return(record)


def watch(engine: Engine, *, making_ns: int = 0) -> Watcher:
    """Watch an engine from now on. Returns what the process sees of all its watched engines.

    making_ns: how long making the engine took.
    """
    pool: Any = engine.pool
    if isinstance(pool, _Watched):
        return _watcher
    request = _watcher.requests.get(_watcher.current())
    place = place_of(sys._getframe(1))  # noqa: SLF001
    number = 0 if request is not None else _watcher.next_number(str(place))
    found = WatchedEngine.of(engine, place, request, making_ns, number)
    kind: Any = type(pool)
    pool.__class__ = type(
        kind.__name__,
        (_Watched, kind),
        {
            "_poolbench_engine": found,
            "_poolbench_connect": kind.connect,
            "_poolbench_return": kind._do_return_conn,  # noqa: SLF001
        },
    )

    @event.listens_for(engine, "connect")
    def connected(_connection: Any, record: Any) -> None:
        now_ns, borrower = perf_counter_ns(), _watcher.current()
        took_ns = now_ns - _watcher.opening.pop(borrower, now_ns)
        place = place_of(sys._getframe(1))  # noqa: SLF001
        record.info[_OPENED] = Opened(_watcher.pid, borrower, place, now_ns, took_ns)

    # Listeners to statements would slow down each connection, so the methods that they would be called by are wrapped.
    dialect: Any = engine.dialect
    dialect.connect = _timed_connect(dialect.connect)
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, _watched_execution(getattr(dialect, name), many=name == "do_executemany"))
    return _watcher


def _timed_connect(connect: Any) -> Any:
    """A dialect's method that connects, and notes when it began."""

    def timed(*given: Any, **named: Any) -> Any:
        _watcher.opening[_watcher.current()] = perf_counter_ns()
        return connect(*given, **named)

    return timed


def _watched_execution(execute: Any, *, many: bool) -> Any:
    """A dialect's method that executes, and has its statements noted."""

    def watched(cursor: Any, statement: str, *rest: Any) -> Any:
        connection = getattr(rest[-1] if rest else None, "root_connection", None)
        fairy = getattr(connection, "_dbapi_connection", None)
        loan = _watcher.executing(getattr(fairy, "_connection_record", None), statement)
        if loan is None:
            return execute(cursor, statement, *rest)
        began_ns = perf_counter_ns()
        found = execute(cursor, statement, *rest)
        _watcher.executed(loan, perf_counter_ns() - began_ns, cursor.rowcount, sys._getframe(1), many=many)  # noqa: SLF001
        return found

    return watched


def record_all(folder: Path) -> None:
    """Look fifty times a second, keep everything, and write it into `folder` once a file `report` is there."""
    if _watcher.report_folder is None:
        _watcher.report_folder = folder
        _watcher.interval_s = _CLOSE_INTERVAL_S
        _watcher.note_all()
        _watcher.logs = False


def opened_by_driver(connection: Any, duration_ns: int) -> None:
    """Watch a connection that the application has opened itself, without an engine."""
    frame = sys._getframe(2)  # noqa: SLF001
    place, is_database = application_place(frame)
    if place is None or is_database:
        return
    _watcher.opened(connection, place, duration_ns)


def watched_requests(application: Any) -> Any:
    """A WSGI application whose requests are watched: which endpoint borrows, and what outlives the answer."""

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = _watcher.begin(environ)
        try:
            answer = application(environ, start_response)
        except BaseException:
            _watcher.answered(request)
            raise
        return _Answer(answer, request)

    REQUEST_CODES.add(serve.__code__)
    return serve


class _Answer:
    """An answer that says when it has been sent."""

    def __init__(self, answer: Iterable[bytes], request: Request) -> None:
        self._answer, self._request = answer, request
        self._parts = iter(answer)

    def __iter__(self) -> _Answer:
        return self

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        """Called by the server at the end."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            _watcher.answered(self._request)


REQUEST_CODES.add(_Answer.__next__.__code__)


def _follow_flask(watcher: Watcher) -> None:
    """Follow requests by Flask's signals where no WSGI wrapper does."""
    import flask  # noqa: PLC0415 - the application has imported it

    def started(_application: Any, **_: Any) -> None:
        known = watcher.requests.get(watcher.current())
        if known is None or known.ended_ns:
            known = watcher.begin(flask.request.environ)
            known.is_flasks = True
        known.rule = flask.request.url_rule

    def popped(_application: Any, **_: Any) -> None:
        known = watcher.requests.get(watcher.current())
        if known is not None and known.is_flasks:
            watcher.answered(known)

    flask.request_started.connect(started, weak=False)
    flask.appcontext_popped.connect(popped, weak=False)


def _refusal(error: BaseException) -> str:
    if isinstance(error, exc.TimeoutError):
        return "timeout"
    text = str(error)
    return "refused" if "too many" in text or "remaining connection slots" in text else "error"
