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
import json
import logging
import os
import re
import sys
import time
import weakref
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event, exc
from sqlalchemy.pool import Pool

from poolbench import observed as seen
from poolbench.costs import costs
from poolbench.diagnosis import Diagnosis, diagnose
from poolbench.loans import Loan, Request, WatchedEngine, native
from poolbench.looking import (
    REQUEST_CODES,
    Looker,
    application_place,
    is_in_loop,
    is_running,
    loop_is_idle,
    wanted_cpu_s,
)
from poolbench.observed import Ask, EngineSum, LoanKey, LoanSum, Observed, RequestSum, SampleKey, SampleSum, total
from poolbench.places import Place, place_of
from poolbench.timed import charge
from poolbench.waiters import current

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

_LOG = logging.getLogger("poolbench")
_INTERVAL_S = 0.1
_CLOSE_INTERVAL_S = 0.01
_SLICE_NS = 10_000_000_000
_SLICES = 6
_MOST_FINISHED = 100_000
_MOST_ASKS = 20_000
_LOG_EVERY_NS = 10_000_000_000
_SHARE_OF_TIME = 30
"""A look is followed by a pause this many times as long, at least: looking takes some 3 % of a core at most."""
_TEXT_LENGTH = 300
_OPENED = "poolbench.opened"
"""Which process opened a connection, and at which place of the application."""
_WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|MERGE|LOCK|TRUNCATE|CREATE|ALTER|DROP)\b|\bFOR\s+(NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE
)


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
        self.slices: deque[Observed] = deque([Observed()], maxlen=_SLICES)
        self.report_folder: Path | None = None
        self.fault = ""
        self.logs = True
        self._signals = False
        self._drivers: dict[str, WatchedEngine] = {}
        self._logged_ns = -_LOG_EVERY_NS
        self.inherited: dict[Any, Loan] = {}
        self._clear()

    def _clear(self) -> None:
        self.pid = os.getpid()
        self.loans: dict[Any, Loan] = {}
        self.asks: dict[Loan, None] = {}
        self.holding: dict[Any, Loan] = {}
        self.requests: dict[Any, Request] = {}
        self.finished: deque[Loan] = deque()
        self.answered: deque[Request] = deque()
        self._permits = [None]
        self._slice_began_ns = perf_counter_ns()
        self.looker = Looker()
        self.is_looking = False
        self._began = wanted_cpu_s(), time.perf_counter()

    def after_fork(self) -> None:
        """In a child: begin anew. Loans of the parent are remembered, to notice that the child uses them."""
        inherited = dict(self.loans)
        self.slices = deque([Observed()], maxlen=self.slices.maxlen)
        self._clear()
        self.inherited = inherited

    # Loans

    def start(self) -> None:
        """Start the thread that looks, unless it runs."""
        try:
            self._permits.pop()
        except IndexError:
            return
        self.is_looking = True
        self._began = wanted_cpu_s(), time.perf_counter()
        if self.report_folder is not None:
            (self.report_folder / f"{self.pid}.watching").touch()
        if not self._signals and "flask" in sys.modules:
            self._signals = True
            _follow_flask(self)
        native("_thread", "start_new_thread")(self._run, ())

    def asking(self, engine: WatchedEngine, frame: FrameType) -> Loan:
        """Somebody asks for a connection."""
        if not self.is_looking:
            self.start()
        borrower = current()
        loan = Loan(engine, borrower, place_of(frame), self.requests.get(borrower))
        outer = self.holding.get(borrower)
        if outer is not None and outer.request is loan.request:
            loan.outer = outer
        self.asks[loan] = None
        return loan

    def lent(self, loan: Loan, fairy: Any, connect_ns: int) -> None:
        """The connection is there."""
        loan.lent_ns = perf_counter_ns()
        loan.connect_ns = connect_ns
        del self.asks[loan]
        record = fairy._connection_record  # noqa: SLF001
        loan.connection = fairy.dbapi_connection
        opened = record.info.get(_OPENED)
        if opened is not None and opened[0] != self.pid:
            loan.foreign = True
            loan.place = opened[1] or loan.place
        self.loans[record] = self.holding[loan.borrower] = loan

    def failed(self, loan: Loan, error: BaseException) -> None:
        """No connection came."""
        loan.ended_ns = perf_counter_ns()
        self.asks.pop(loan, None)
        loan.refused = _refusal(error)
        self._finish(loan)
        if loan.refused == "timeout" and self.logs:
            self._log(loan)

    def returned(self, record: Any) -> None:
        """A connection comes back."""
        loan = self.loans.pop(record, None)
        if loan is None:
            return
        loan.ended_ns = perf_counter_ns()
        loan.connection = None
        if self.holding.get(loan.borrower) is loan:
            outer = loan.outer
            if outer is not None and not outer.ended_ns:
                self.holding[loan.borrower] = outer
            else:
                self.holding.pop(loan.borrower, None)
        self._finish(loan)

    def opened(self, connection: Any, place: Place, duration_ns: int) -> None:
        """The application has opened a connection without an engine: a loan until it is closed."""
        engine = self._drivers.get(str(place))
        if engine is None:
            engine = self._drivers[str(place)] = WatchedEngine.of_driver(place)
        if not self.is_looking:
            self.start()
        borrower = current()
        loan = Loan(engine, borrower, place, self.requests.get(borrower))
        loan.lent_ns, loan.connect_ns = loan.asked_ns, duration_ns
        loan.asked_ns -= duration_ns
        self.loans[weakref.ref(connection)] = loan

    def _end_closed(self) -> None:
        """End the loans of connections without an engine that were closed."""
        for reference in [key for key in self.loans if isinstance(key, weakref.ref)]:
            connection = reference()
            if connection is None or connection.closed:
                self.returned(reference)
            else:
                self.loans[reference].connection = reference

    def _finish(self, loan: Loan) -> None:
        if len(self.finished) < _MOST_FINISHED:
            self.finished.append(loan)
        else:
            self.slices[-1].dropped += 1

    # Statements

    def executing(self, connection: Any, statement: str) -> None:
        """A statement begins."""
        record = _record(connection)
        loan = self.loans.get(record)
        if loan is None:
            loan = self.inherited.get(record)
            if loan is None:
                return
            loan.foreign = True
        if loan.request is not None and loan.request.ended_ns:
            loan.adopted = True
        loan.statement = statement
        if not loan.wrote and _writes(statement):
            loan.wrote = True
        loan.statement_ns = perf_counter_ns()

    def executed(self, connection: Any, rows: int, frame: FrameType, *, many: bool) -> None:
        """A statement has been executed."""
        record = _record(connection)
        loan = self.loans.get(record)
        if loan is None:
            loan = self.inherited.get(record)
            if loan is None:
                return
            loan.place = loan.place or place_of(frame)
        now_ns = perf_counter_ns()
        duration_ns = now_ns - loan.statement_ns
        place = place_of(frame)
        key = (loan.statement, id(place.code), place.instruction) if place is not None else (loan.statement, 0, 0)
        groups = loan.groups
        if groups is None:
            groups = loan.groups = {}
        group = groups.get(key)
        if group is None:
            group = groups[key] = [place, 0, 0, 0, loan.statement_ns, 0, 0, 0, duration_ns]
        group[1] += 1
        group[2] += duration_ns
        group[3] += max(rows, 0)
        group[5] = now_ns
        group[8] = min(group[8], duration_ns)
        if duration_ns >= seen.SLOW_NS and not many and rows < seen.MANY_ROWS:
            group[6] += 1
            group[7] += duration_ns

    def ended_transaction(self, connection: Any) -> None:
        """A transaction was committed or rolled back."""
        loan = self.loans.get(_record(connection))
        if loan is not None:
            loan.wrote = False

    # Requests

    def begin(self, environ: dict[str, Any], name: str = "") -> Request:
        """A request begins in the running greenlet or thread."""
        request = self.requests[current()] = Request(environ, name)
        return request

    def end(self, request: Request) -> None:
        """A request has been answered."""
        if request.ended_ns:
            return
        request.end()
        me = current()
        if self.requests.get(me) is request:
            del self.requests[me]
        if len(self.answered) < _MOST_FINISHED:
            self.answered.append(request)
        else:
            self.slices[-1].dropped += 1

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
                self._fold()
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
        waiting = Counter(ask.engine.key for ask in asks)
        askers = {id(ask.borrower): ask for ask in asks if ask.outer is not None}
        loans = list(self.loans.values())
        lent = Counter(loan.engine.key for loan in loans)
        busy = {loan.thread for loan in loans if is_in_loop(loan) and not loop_is_idle(frames.get(loan.thread))}
        running = {loan.thread: loan for loan in loans if is_running(loan)}
        samples = self.slices[-1].samples
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
                        _add(samples, SampleKey(engine, loan.endpoint, "", seen.CPU, False), 0, blamed_ns)
                    blamed_ns = 0
            key = SampleKey(engine, loan.endpoint, str(place or ""), doing, loan.wrote)
            _add(samples, key, ran_ns, blamed_ns * ran_ns // elapsed_ns)
            if ran_ns < elapsed_ns:
                spare = SampleKey(engine, loan.endpoint, "", seen.CPU, False)
                _add(samples, spare, elapsed_ns - ran_ns, blamed_ns * (elapsed_ns - ran_ns) // elapsed_ns)

    # Adding up

    def _fold(self) -> None:
        now_ns = perf_counter_ns()
        if now_ns - self._slice_began_ns >= _SLICE_NS and self.slices.maxlen != 1:
            self.slices.append(Observed())
            self._slice_began_ns = now_ns
        into = self.slices[-1]
        for _ in range(len(self.finished)):
            self._add_loan(into, self.finished.popleft())
        for _ in range(len(self.answered)):
            request = self.answered.popleft()
            row = into.requests.setdefault(request.name, RequestSum())
            row.count += 1
            row.duration_ns += request.ended_ns - request.began_ns

    def _add_loan(self, into: Observed, loan: Loan) -> None:
        engine = loan.engine
        self._count_engine(into, engine)
        endpoint, place = loan.endpoint, str(loan.place or "")
        row = into.loans.setdefault(LoanKey(engine.key, endpoint, place), LoanSum())
        until_ns = loan.lent_ns or loan.ended_ns
        wait_ns = until_ns - loan.asked_ns - loan.connect_ns
        held_ns = loan.ended_ns - until_ns
        row.count += bool(loan.lent_ns)
        row.wait_ns += wait_ns
        row.connect_ns += loan.connect_ns
        row.held_ns += held_ns
        row.timeouts += loan.refused == "timeout"
        row.refused += loan.refused == "refused"
        row.opened += loan.connect_ns > 0
        if loan.outer is not None and loan.outer.engine.key == engine.key:
            row.nested += 1
            row.nested_ns += loan.ended_ns - loan.asked_ns
        row.foreign += loan.foreign
        row.adopted += loan.adopted
        if len(into.asks) < _MOST_ASKS:
            into.asks.append(Ask(self.pid, engine.key, loan.asked_ns, wait_ns, held_ns, bool(loan.lent_ns)))
        for key, (each, count, duration_ns, rows, first_ns, last_ns, slow, slow_ns, fastest_ns) in (
            loan.groups or {}
        ).items():
            name = seen.StatementKey(endpoint, str(each or ""), " ".join(key[0].split())[:_TEXT_LENGTH])
            statement = into.statements.setdefault(name, seen.StatementSum())
            statement.fastest_ns = min(statement.fastest_ns, fastest_ns) if statement.count else fastest_ns
            statement.count += count
            statement.duration_ns += duration_ns
            statement.rows += rows
            statement.slow += slow
            statement.slow_ns += slow_ns
            statement.groups += 1
            if count >= seen.REPEATS and rows < seen.FEW_ROWS * count and not _writes(key[0]):
                statement.repeated += count
                statement.repeated_groups += 1
                statement.repeated_ns += last_ns - first_ns

    def _count_engine(self, into: Observed, engine: WatchedEngine) -> None:
        row = into.engines.setdefault(engine.key, EngineSum())
        row.pool, row.size, row.overflow = engine.pool, engine.size, engine.overflow
        row.processes = max(row.processes, 1)
        if not engine.is_counted:
            engine.is_counted = True
            row.made += 1
            row.making_ns += engine.making_ns
            row.made_in_requests += bool(engine.endpoint)
            row.endpoint = engine.endpoint or row.endpoint

    def observed(self) -> Observed:
        """What was seen in the last minute (or all the time, for the command). Loans that have not ended count so far."""
        found = total(list(self.slices))
        found.worker_cpu = self._cpu_share()
        found.fault = self.fault
        now_ns = perf_counter_ns()
        inherited = [loan for loan in self.inherited.values() if loan.foreign]
        for loan in [*self.loans.values(), *inherited]:
            self._count_engine(found, loan.engine)
            row = found.loans.setdefault(LoanKey(loan.engine.key, loan.endpoint, str(loan.place or "")), LoanSum())
            row.count += 1
            row.held_ns += now_ns - loan.lent_ns
            wait_ns = loan.lent_ns - loan.asked_ns - loan.connect_ns
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
        askers = {id(ask.borrower): ask for ask in list(self.asks) if ask.outer is not None}
        found = []
        for loan in list(self.loans.values()):
            doing, place, _ = self.looker.doing(loan, frames, askers, 1)
            seconds = round((now_ns - loan.lent_ns) / 1e9, 3)
            text = f"{doing}: {' '.join(loan.statement.split())[:_TEXT_LENGTH]}" if doing == seen.STATEMENT else doing
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

    def _report(self) -> None:
        """Write down what was seen, if the command asks for it by a file."""
        folder = self.report_folder
        if folder is None or not (folder / "report").exists() or (folder / f"{self.pid}.observed").exists():
            return
        written = folder / f"{self.pid}.writing"
        written.write_text(json.dumps(self.observed().to_json()))
        written.rename(folder / f"{self.pid}.observed")


_watcher = Watcher()
os.register_at_fork(after_in_child=_watcher.after_fork)


class _Watched(Pool):
    """A pool whose loans are watched."""

    _poolbench_engine: WatchedEngine

    def connect(self) -> Any:
        loan = _watcher.asking(self._poolbench_engine, sys._getframe(1))  # noqa: SLF001
        spent = costs._ended  # noqa: SLF001 - it costs less than asking for a copy
        before_ns = spent.connect_ns
        try:
            fairy = super().connect()
        except BaseException as error:
            _watcher.failed(loan, error)
            raise
        _watcher.lent(loan, fairy, spent.connect_ns - before_ns)
        return fairy

    def _do_return_conn(self, record: Any) -> None:
        _watcher.returned(record)
        super()._do_return_conn(record)


def watch(engine: Engine, *, making_ns: int = 0) -> Watcher:
    """Watch an engine from now on. Returns what the process sees of all its watched engines.

    making_ns: how long making the engine took.
    """
    charge(engine)
    pool: Any = engine.pool
    if isinstance(pool, _Watched):
        return _watcher
    request = _watcher.requests.get(current())
    found = WatchedEngine.of(engine, place_of(sys._getframe(1)), request, making_ns)  # noqa: SLF001
    pool.__class__ = type(type(pool).__name__, (_Watched, type(pool)), {"_poolbench_engine": found})

    @event.listens_for(engine, "connect")
    def connected(_connection: Any, record: Any) -> None:
        record.info[_OPENED] = os.getpid(), place_of(sys._getframe(1))  # noqa: SLF001

    @event.listens_for(engine, "before_cursor_execute")
    def executing(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        _watcher.executing(connection, statement)

    @event.listens_for(engine, "after_cursor_execute")
    def executed(connection: Any, cursor: Any, _text: str, _values: Any, _context: Any, many: bool) -> None:
        _watcher.executed(connection, cursor.rowcount, sys._getframe(1), many=many)  # noqa: SLF001

    event.listen(engine, "commit", _watcher.ended_transaction)
    event.listen(engine, "rollback", _watcher.ended_transaction)
    return _watcher


def record_all(folder: Path) -> None:
    """Look a hundred times a second, keep everything, and write it into `folder` once a file `report` is there."""
    if _watcher.report_folder is None:
        _watcher.report_folder = folder
        _watcher.interval_s = _CLOSE_INTERVAL_S
        _watcher.slices = deque(_watcher.slices, maxlen=1)
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
            _watcher.end(request)
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
            _watcher.end(self._request)


REQUEST_CODES.add(_Answer.__next__.__code__)


def _follow_flask(watcher: Watcher) -> None:
    """Follow requests by Flask's signals where no WSGI wrapper does."""
    import flask  # noqa: PLC0415 - the application has imported it

    def started(_application: Any, **_: Any) -> None:
        known = watcher.requests.get(current())
        if known is None or known.ended_ns:
            watcher.begin(flask.request.environ).is_flasks = True

    def popped(_application: Any, **_: Any) -> None:
        known = watcher.requests.get(current())
        if known is not None and known.is_flasks:
            watcher.end(known)

    flask.request_started.connect(started, weak=False)
    flask.appcontext_popped.connect(popped, weak=False)


def _add(samples: dict[SampleKey, SampleSum], key: SampleKey, own_ns: int, blamed_ns: int) -> None:
    row = samples.setdefault(key, SampleSum())
    row.own_ns += own_ns
    row.blamed_ns += blamed_ns
    row.looks += 1


def _refusal(error: BaseException) -> str:
    if isinstance(error, exc.TimeoutError):
        return "timeout"
    text = str(error)
    return "refused" if "too many" in text or "remaining connection slots" in text else "error"


def _record(connection: Any) -> Any:
    return getattr(connection._dbapi_connection, "_connection_record", None)  # noqa: SLF001


_known_writes: dict[str, bool] = {}


def _writes(statement: str) -> bool:
    known = _known_writes.get(statement)
    if known is None:
        if len(_known_writes) > 10_000:
            _known_writes.clear()
        known = _known_writes[statement] = _WRITES.search(statement) is not None
    return known
