"""The book of a process's loans: it notes present loans, and hands those that have ended to the tally. See watching.py.

Borrowers share no lock: setting or taking a key of a dict, and appending to a deque, are single steps in CPython. Of most
loans, only the holder is noted, as a tuple. Of some, chosen at random, everything is noted, as a `Loan`, whose weight is the
number of loans that it stands for. The higher the rate of loans, the smaller the chosen part, so that noting costs little at any
rate. In a service that watches itself, loans are chosen; under the command, whole requests (see shares.py), and the times of all
loans are kept. All instants are perf_counter_ns().
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import exc

from poolbench import observed as seen
from poolbench.loans import Loan, Opened, Request, WatchedEngine, light_loan
from poolbench.looking import IDLE, transaction_status
from poolbench.places import Place, application_frame, place_of
from poolbench.repeats import MOST_CACHED, writes
from poolbench.shares import Shares
from poolbench.tally import Tally
from poolbench.waiters import current_function

if TYPE_CHECKING:
    from types import FrameType

OPENED = "_poolbench_opened"
"""The attribute of a record that says how its connection was opened.

It is no key of the record's `info`: an object whose `info` was asked for has a dict, and each loan of it takes longer.
"""
_NOTED_PER_S = 10
"""Loans of which everything is noted, per second, in a service that watches itself."""
_BURST = 4
"""Each time that this number was noted between two looks, half as many loans are noted from then on."""
_MOST_GROUPS = 200
"""Statements by place that one loan notes separately; all further ones count as one."""
_TRY_AGAIN = "40"
"""How an error's SQLSTATE begins if the transaction may succeed when it is tried again."""
_MOST_READS = 1000
"""Statements that are known not to write; further ones are forgotten, and found out again."""
_MOST_KEPT = 10_000
"""Places of engines, and of connections without an engine, that are remembered."""
_GIVEN = ParamSpec("_GIVEN")
_Found = TypeVar("_Found")


def harmless(method: Callable[_GIVEN, _Found]) -> Callable[_GIVEN, _Found | None]:
    """Wrap a function that notes something so that it raises no Exception: it returns None, and `BOOK.fault` says what failed.

    So a fault of watching never reaches the application, and the diagnosis reports it.
    """

    @wraps(method)
    def guarded(*given: _GIVEN.args, **named: _GIVEN.kwargs) -> _Found | None:
        try:
            return method(*given, **named)
        except Exception as error:  # noqa: BLE001 - see above
            BOOK.fault = f"{type(error).__name__}: {error}"
            return None

    return guarded


class LoanBook:
    """The loans of one process.

    lent: by connection record of SQLAlchemy (for a connection without an engine, by a weak reference to it), its latest loan,
    as a Loan or as the values of `light_loan`. The record shows whether that loan has ended; `sweep` drops those that have.
    noted: by record, the Loans that have not ended.
    asks: the Loans whose borrowers wait for a connection, as the keys of a dict.
    opening: by borrower, when it began to open a connection, in ns.
    requests: by borrower, the request that it serves.
    every: one loan in `every` is noted in full. left: loans to pass over before the next is noted in full; below 0, it is the
    next one. keeps_all: the command watches, so that `shares` chooses, or without them all loans are noted in full.
    wrote: by record, its latest loan not noted in full whose transaction has written, as in `lent`. reads: statements that are
    known not to write.
    fault: what failed in watching, as text; empty if nothing did.
    """

    __slots__ = (
        "_drawn",
        "_drawn_before",
        "_drivers",
        "_noted",
        "_numbers",
        "_random",
        "asks",
        "began_ns",
        "current",
        "every",
        "fault",
        "keeps_all",
        "left",
        "lent",
        "noted",
        "on_foreign",
        "on_start",
        "on_timeout",
        "opening",
        "pid",
        "reads",
        "requests",
        "shares",
        "tally",
        "wrote",
    )

    def __init__(self) -> None:
        self._drivers: dict[str, WatchedEngine] = {}
        self._numbers: Counter[str] = Counter()
        self.fault = ""
        self.keeps_all = False
        self.shares: Shares | None = None
        self.noted: dict[Any, Loan] = {}
        self.lent: dict[Any, Any] = {}
        self.asks: dict[Loan, None] = {}
        self.wrote: dict[Any, Any] = {}
        self.reads: set[str] = set()
        self.opening: dict[Any, int] = {}
        self.requests: dict[Any, Request] = {}
        self.on_start: Callable[[], None] | None = None
        self.on_timeout: Callable[[Loan], None] = _ignored
        self.on_foreign: Callable[[Loan], None] = _ignored
        self.begin()

    def begin(self) -> None:
        """Begin anew, in a process that has noted nothing; the dicts stay the same."""
        self.pid, self.began_ns = os.getpid(), perf_counter_ns()
        for each in (self.noted, self.lent, self.wrote, self.asks, self.opening, self.requests):
            each.clear()
        self.tally = Tally(self.pid, keeps_all=self.keeps_all)
        self.shares = None if self.shares is None else Shares(self.shares.budget_per_s)
        self.current = current_function()
        # Not the application's generator, whose numbers would change.
        self._random = Random()
        self.every, self.left = 1, 0
        self._drawn = self._drawn_before = self._noted = 0

    def begin_in_child(self) -> None:
        """Begin anew after a fork. Loans of the parent are kept, so that it is noticed if the child uses their connections."""
        inherited = dict(self.all_loans())
        self.begin()
        for record, loan in inherited.items():
            loan.inherited = True
            self.noted[record] = loan

    def count_from(self, at_ns: int) -> None:
        """Forget what has ended. What lasts, such as a connection that is not given back, counts from the instant `at_ns` on."""
        self.began_ns, self.tally = at_ns, self.tally.anew()
        for request in list(self.requests.values()):
            request.began_ns = max(request.began_ns, at_ns)
        for loan in (*list(self.noted.values()), *list(self.asks)):
            loan.count_from(at_ns)

    def keep_all(self, shares: Shares | None) -> None:
        """From now on, note each loan, and keep everything; only the requests that `shares` draw in full, if there are any."""
        self.keeps_all, self.shares = True, shares
        self.every, self.left = 1, 0
        self.tally = Tally(self.pid, keeps_all=True)

    def next_number(self, place: str) -> int:
        """The number of a new engine among those made at `place` (file:line), from 1 to 99; later ones are 99, too.

        0 for a new place when too many are remembered.
        """
        if len(self._numbers) < _MOST_KEPT or place in self._numbers:
            self._numbers[place] += 1
        return min(99, self._numbers[place])

    # Which loans are noted in full

    def draw(self, request: Request | None) -> int:
        """The number of loans that the one now beginning stands for, where `left` is below 0; 0 if it is not noted in full.

        `request`: the one that is served, of which, where whole requests are drawn, all loans stand for as many; outside
        requests, loans are drawn.
        """
        if self.keeps_all:
            if self.shares is None:
                return 1
            if request is None:
                return self.shares.draw("")
            if request.weight is None:
                request.drawn_as = name = request.name
                request.weight = self.shares.draw(name)
            return request.weight
        weight = self.every
        self._noted += 1
        if self._noted % _BURST == 0:
            self.every *= 2
        self.left = self._random.randrange(2 * self.every - 1)
        self._drawn += self.left + 1
        return weight

    def keep_pace(self, elapsed_ns: int, adding_ns: int = 0, used_ns: int = 0) -> None:
        """Set the share of loans that are noted in full, from what there was in the `elapsed_ns` since the last call.

        adding_ns: CPU that it took to add that up. used_ns: CPU of the whole process.
        """
        if self.keeps_all:
            if self.shares is not None:
                self.shares.count(self.tally.taken_noted(), adding_ns, used_ns)
                self.shares.spend(*self.tally.taken_costs(), elapsed_ns)
            return
        begun = self._drawn - max(0, self.left)
        loans, self._drawn_before, self._noted = begun - self._drawn_before, begun, 0
        # After a pause, loans may come as fast as before it: the share grows by steps, so that not every burst is noted anew.
        self.every = max(1, self.every // 2, round(loans * 1e9 / max(1, elapsed_ns) / _NOTED_PER_S))
        spare = self.left - self._random.randrange(2 * self.every - 1)
        if spare > 0:
            self.left -= spare
            self._drawn -= spare

    # Loans

    @harmless
    def asking(self, engine: WatchedEngine, frame: FrameType, weight: int) -> Loan:
        """Note that a borrower asks for a connection, in a loan of which everything is noted; `frame` is the borrower's.

        Returns the loan; None where that fails. If the borrower already holds a connection of the same engine, the loan's
        `outer` is the record of that.
        """
        if self.on_start is not None:
            self.on_start()
        borrower = self.current()
        loan = Loan(engine, borrower, place_of(frame), self.requests.get(borrower), weight)
        if loan.request is not None:
            loan.request.look_for_rule()
        loan.outer = self._outer_of(loan)
        self.asks[loan] = None
        return loan

    def _outer_of(self, loan: Loan) -> Any:
        """The record of another connection of the same engine that the loan's borrower holds for the same request, or None."""
        request, borrower, engine, outer = loan.request, loan.borrower, loan.engine, None
        others = list(self.lent.items())
        if request is not None and request.weight:
            # Of a request that was drawn, all loans are noted.
            others = [(each.record, each) for each in request.loans if self.lent.get(each.record) is each]
        for record, other in others:
            if other.__class__ is tuple:
                is_outer = other[0] == borrower and other[3] is request and _engine_of(record) is engine
            else:
                is_outer = other.borrower == borrower and other.request is request and other.engine is engine
            if is_outer and _is_lent(record):
                outer = record
        return outer

    @harmless
    def lend(self, loan: Loan, fairy: Any) -> None:
        """Note that the borrower has got its connection; `fairy` is SQLAlchemy's proxy of it."""
        loan.lent_ns = perf_counter_ns()
        self.asks.pop(loan, None)
        loan.record = record = fairy._connection_record  # noqa: SLF001
        loan.connection = fairy.dbapi_connection
        opened: Opened | None = getattr(record, OPENED, None)
        if opened is not None:
            if opened.process != self.pid:
                loan.place = opened.place or loan.place
                self._note_foreign(loan)
            if opened.is_new and opened.at_ns >= loan.asked_ns:
                loan.has_opened = True
                loan.connect_ns = taken_ns(record, opened, loan.asked_ns)
        self.lent[record] = loan
        self.noted[record] = loan
        if loan.request is not None:
            # Here and in `_end`, by the thread that serves the request alone: others may give its connections back.
            lent = [each for each in loan.request.loans if self.lent.get(each.record) is each]
            loan.request.loans = (*lent, loan)
        record.finalize_callback.append(partial(self._given_back, loan))

    @harmless
    def refused(self, loan: Loan, error: BaseException) -> None:
        """Note that the borrower got no connection, because of `error`."""
        loan.ended_ns = perf_counter_ns()
        self.asks.pop(loan, None)
        loan.refused = _refusal(error)
        self.tally.ended(loan)
        if loan.refused == "timeout":
            self.on_timeout(loan)

    @harmless
    def refused_lightly(
        self,
        engine: WatchedEngine,
        frame: FrameType,
        error: BaseException,
        timeout_s: float,
        asked_ns: int | None = None,
    ) -> None:
        """Note that a borrower got no connection, in a loan of which nothing was noted before.

        Where it is not known when the borrower asked (`asked_ns`), the wait was `timeout_s` if it timed out, otherwise none.
        """
        borrower = self.current()
        loan = Loan(engine, borrower, place_of(frame), self.requests.get(borrower))
        if asked_ns is not None:
            loan.asked_ns = asked_ns
        elif type(error) is exc.TimeoutError:
            loan.asked_ns -= round(1e9 * timeout_s)
        self.refused(loan, error)

    @harmless
    def _given_back(self, loan: Loan, _connection: Any) -> None:
        """End a loan that was noted in full; its record calls this when the connection comes back."""
        record = loan.record
        if self.lent.get(record) is loan:
            self.lent.pop(record, None)
        if self.noted.get(record) is loan and self.noted.pop(record, None) is loan:
            self._end(loan)

    def _end(self, loan: Loan) -> None:
        loan.ended_ns = perf_counter_ns()
        loan.connection = None
        self.tally.ended(loan)
        if loan.request is not None and loan.borrower == self.current():
            loan.request.loans = tuple(each for each in loan.request.loans if each is not loan)

    def sweep(self) -> None:
        """Drop the loans that have ended, and end those whose connection was closed, detached or lent again unnoticed."""
        for record in list(self.lent):
            if _is_lent(record):
                continue
            loan = self.lent.pop(record, None)
            if loan is not None and _is_lent(record):
                # Lent again just now.
                self.lent.setdefault(record, loan)
            elif isinstance(record, weakref.ref):
                self._end(loan)
        for record, loan in list(self.noted.items()):
            if self.lent.get(record) is not loan and not loan.inherited and self.noted.pop(record, None) is loan:
                self._end(loan)
        for record, values in list(self.wrote.items()):
            if self.lent.get(record) is not values:
                self.wrote.pop(record, None)

    def all_loans(self) -> list[tuple[Any, Loan]]:
        """Pairs of record and loan for all connections lent at this moment; loans not noted in full have only what is known."""
        return [
            (record, self._light_loan(record, loan) if loan.__class__ is tuple else loan)
            for record, loan in list(self.lent.items())
            if _is_lent(record)
        ]

    def _light_loan(self, record: Any, values: Any) -> Loan:
        loan = light_loan(record, _engine_of(record), values)
        loan.wrote = self.wrote.get(record) is values
        return loan

    def _note_foreign(self, loan: Loan) -> None:
        loan.foreign = True
        self.on_foreign(loan)

    # Connections without an engine

    @harmless
    def opened_by_driver(self, connection: Any, place: Place, duration_ns: int) -> None:
        """Note that the application opened a connection without an engine, in `duration_ns`: a loan until it is closed."""
        engine = self._drivers.get(str(place))
        if engine is None:
            if len(self._drivers) >= _MOST_KEPT:
                self._drivers.clear()
            engine = self._drivers[str(place)] = WatchedEngine.of_driver(place)
        if self.on_start is not None:
            self.on_start()
        borrower = self.current()
        loan = Loan(engine, borrower, place, self.requests.get(borrower))
        loan.lent_ns, loan.connect_ns, loan.has_opened = loan.asked_ns, duration_ns, True
        loan.asked_ns -= duration_ns
        loan.record = loan.connection = weakref.ref(connection)
        self.lent[loan.record] = loan

    # Statements

    # Many a statement takes less than 100 us: these two guard themselves, which costs less than `harmless`.

    def executing(self, context: Any, statement: str) -> Loan | None:
        """Note that a statement begins; `context` is SQLAlchemy's execution context. Returns the loan if it is noted in full."""
        try:
            record = context.root_connection._dbapi_connection._connection_record  # noqa: SLF001
        except AttributeError:
            # Executed without a connection of an engine.
            return None
        try:
            loan = self.noted.get(record)
            if loan is None:
                if self.keeps_all:
                    self._executing_lightly(record, statement)
                return None
            if loan.inherited:
                self._note_foreign(loan)
            if loan.request is not None and loan.request.ended_ns:
                loan.adopted = True
            loan.statement = statement
            if loan.wrote and transaction_status(loan.connection) == IDLE:
                loan.wrote = False
            if not loan.wrote and writes(statement):
                loan.wrote = True
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            self.fault = f"{type(error).__name__}: {error}"
            return None
        return loan

    def _executing_lightly(self, record: Any, statement: str) -> None:
        """Note whether the transaction has written, in a loan that is not noted in full."""
        loan = self.lent.get(record)
        if loan is None:
            # A detached connection has no record any more.
            return
        if self.wrote and record in self.wrote and transaction_status(record.dbapi_connection) == IDLE:
            self.wrote.pop(record, None)
        if writes(statement):
            self.wrote[record] = loan
        elif len(statement) <= MOST_CACHED:
            if len(self.reads) >= _MOST_READS:
                self.reads.clear()
            self.reads.add(statement)

    def executed(self, loan: Loan, duration_ns: int, cursor: Any, frame: FrameType, many: bool) -> None:
        """Note that the loan's statement has been executed on `cursor`, in `duration_ns`.

        `frame` is of the caller, inside SQLAlchemy; `many`: it was an executemany().
        """
        try:
            self._add_statement(loan, duration_ns, cursor.rowcount, application_frame(frame), many)
        except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
            self.fault = f"{type(error).__name__}: {error}"

    @harmless
    def failed(self, loan: Loan, duration_ns: int, error: BaseException, frame: FrameType) -> None:
        """Note that the loan's statement has failed with `error` after `duration_ns`; `frame` as in `executed`.

        It counts as slow only if the database gave it up: not if the connection was lost, or the transaction may be tried again.
        """
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
        is_given_up = bool(state) and not state.startswith(_TRY_AGAIN)
        self._add_statement(loan, duration_ns, -1, application_frame(frame), not is_given_up)

    def _add_statement(self, loan: Loan, duration_ns: int, rows: int, found: FrameType | None, many: bool) -> None:
        """Add a statement of `rows` rows (negative: not known), executed in the application's frame `found`, to its group."""
        now_ns = perf_counter_ns()
        key = (loan.statement, 0, 0) if found is None else (loan.statement, id(found.f_code), found.f_lasti)
        groups = loan.groups
        if groups is None:
            groups = loan.groups = {}
        group = groups.get(key)
        if group is None:
            place = place_of(found)
            if loan.place is None:
                loan.place = place
            if len(groups) >= _MOST_GROUPS:
                # All others of this loan are one.
                key, place = (seen.OTHERS, 0, 0), None
            group = groups.setdefault(key, [place, 0, 0, 0, now_ns - duration_ns, 0, 0, 0, duration_ns, 0, 0])
        group[1] += 1
        group[2] += duration_ns
        if rows > 0:
            group[3] += rows
        if many or rows < 0:
            group[9] += 1
        group[5] = now_ns
        group[8] = min(group[8], duration_ns)
        if duration_ns < seen.QUICK_NS:
            group[10] += 1
        elif duration_ns >= seen.SLOW_NS and not many and rows < seen.MANY_ROWS:
            group[6] += 1
            group[7] += duration_ns


def _is_lent(record: Any) -> bool:
    """Whether a connection is lent, by its record; one without an engine, by a weak reference to it, until it is closed."""
    if isinstance(record, weakref.ref):
        connection: Any = record()
        return connection is not None and not connection.closed
    return record.fairy_ref is not None


def taken_ns(record: Any, opened: Opened, asked_ns: int) -> int:
    """How much of a loan's wait, from `asked_ns` on, was for its connection to be opened, whoever did that. Later loans of the
    record have waited for its return.
    """
    setattr(record, OPENED, opened._replace(is_new=False))
    return min(opened.duration_ns, opened.at_ns - asked_ns)


def _engine_of(record: Any) -> WatchedEngine:
    """The engine, as the book knows it, to whose pool a connection's record belongs."""
    engine: WatchedEngine = record._ConnectionRecord__pool._poolbench_engine  # noqa: SLF001
    return engine


def _ignored(_loan: Loan) -> None:
    pass


def _refusal(error: BaseException) -> str:
    """Why a borrower got no connection: "timeout", "refused" (the database's limit was reached) or "error"."""
    if isinstance(error, exc.TimeoutError):
        return "timeout"
    text = str(error)
    return "refused" if "too many" in text or "remaining connection slots" in text else "error"


BOOK = LoanBook()
"""The book of this process."""
