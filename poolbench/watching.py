"""Watches an application's loans, statements and requests, to say why its pool's limit was reached.

`watch(engine)`, or `&watch=1` in the URL with the plugin, keeps what was seen in the last minute. A thread looks at all lent
connections up to ten times a second: what their borrowers are doing, and at which line of the application. When a wait for a
connection times out, the logger `poolbench` writes one line of JSON, which names who holds each connection, for how long and
doing what, with the diagnosis of the last minute. `diagnosis()` and `holders()` return the same at any time.

The parts: `hooks.py` has the hooks in an engine, `loan_book.py` what is noted of each loan, `endpoints.py` the request that it
belongs to, `shares.py` which requests the command notes in full, `sampler.py` the thread, `tally.py` the sums, and
`watch_log.py` the output.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from sqlalchemy import Engine, exc

from poolbench.diagnosis import diagnose
from poolbench.endpoints import follow_flask, watched_requests
from poolbench.findings import Diagnosis
from poolbench.hooks import hook_connect, hook_dialect, hook_pool, hooked
from poolbench.loan_book import BOOK
from poolbench.loans import Loan, WatchedEngine
from poolbench.looking import application_place, is_in_database
from poolbench.observed import Ask, LoanSum, Observed, RequestSum, total
from poolbench.places import place_of
from poolbench.sampler import Sampler
from poolbench.shares import Shares
from poolbench.tally import count_engine, loan_key
from poolbench.watch_log import EvidenceFiles, Holder, TimeoutLog, holders

__all__ = ["Holder", "Watcher", "opened_by_driver", "record_all", "watch", "watched_requests"]

_CLOSE_INTERVAL_S = 0.04
_CLOSE_CPU = 0.0025


class Watcher:
    """Watches all engines of one process that are given to it, and answers who holds their connections and why."""

    def __init__(self) -> None:
        self.sampler = Sampler(BOOK, self._before_start, self._report)
        self._files: EvidenceFiles | None = None
        BOOK.on_timeout = TimeoutLog(self.holders, self.diagnosis).log

    def note_all(self) -> None:
        """Note every loan in full, and keep everything."""
        BOOK.keep_all(None)

    def record_all(self, folder: Path) -> None:
        """Note loans as the command does, look 25 times a second, and write what was seen of the load into `folder`, as
        `EvidenceFiles` says.
        """
        if self._files is not None:
            return
        files = self._files = EvidenceFiles(folder)
        self.sampler.interval_s, self.sampler.most_cpu, self.sampler.stays = _CLOSE_INTERVAL_S, _CLOSE_CPU, True
        BOOK.keep_all(Shares())
        BOOK.on_timeout = lambda _loan: None
        BOOK.on_foreign = lambda loan: files.note_foreign(BOOK.pid, loan)

    def follow_requests(self) -> None:
        """Follow requests from the first one on, where a service watches itself; the command does so by other means."""
        if self._files is None:
            follow_flask()

    def _before_start(self) -> None:
        follow_flask()
        if self._files is not None:
            self._files.announce(BOOK.pid)
            self._begin_with_load(self._files)

    def _begin_with_load(self, files: EvidenceFiles) -> None:
        """When the load begins, forget what was before, such as the command's first users."""
        began_ns = files.load_began_ns()
        if began_ns > BOOK.began_ns:
            BOOK.count_from(began_ns)
            self.sampler.count_cpu_from_now()
            files.has_begun(BOOK.pid)

    def begin_in_child(self) -> None:
        """In a forked child: begin anew, without the parent's thread."""
        BOOK.begin_in_child()
        self.sampler.begin()

    def holders(self) -> tuple[Holder, ...]:
        """Who holds a connection at this moment, the longest first."""
        return holders(BOOK, self.sampler.looker)

    def diagnosis(self) -> Diagnosis:
        """What held connections back in the last minute."""
        return diagnose(self.observed())

    def observed(self) -> Observed:
        """What was seen in the last minute (or all the time, for the command). Loans that have not ended count so far, and so do
        waits for one, and the requests of both.
        """
        BOOK.tally.add_up()
        asks = list(BOOK.asks)
        inherited = [loan for loan in list(BOOK.noted.values()) if loan.inherited and loan.foreign]
        unended = [*(loan for _, loan in BOOK.all_loans()), *inherited]
        # One that was given its connection meanwhile is a loan already.
        asks = [ask for ask in asks if not ask.lent_ns and not ask.ended_ns]
        for loan in (*asks, *unended):
            count_engine(BOOK.tally.current, loan.engine)
        found = total(BOOK.tally.parts())
        found.worker_cpu = self.sampler.cpu_share()
        found.asks = BOOK.tally.asks()
        found.fault = BOOK.fault
        now_ns = perf_counter_ns()
        found.lives = [(BOOK.began_ns, now_ns)]
        for of_engine in found.engines.values():
            of_engine.processes, of_engine.lives = 1, list(found.lives)
        for loan in (*asks, *unended):
            _add_unended(found, loan, now_ns)
        # Of requests that wait, those that are noted stand for others; those that hold a connection are all known.
        requests = {each.request: each.weight for each in asks} | {each.request: 1 for each in unended}
        requests[BOOK.requests.get(BOOK.current())] = 1
        for request, weight in requests.items():
            if request is not None and not request.ended_ns:
                row = found.requests.setdefault(request.name, RequestSum())
                row.count += weight
                row.duration_ns += weight * min(now_ns - request.began_ns, BOOK.tally.span_ns)
        # Without the times of all loans, from the beginning on.
        began_ns = BOOK.began_ns if not BOOK.keeps_all else min((ask.asked_ns for ask in found.asks), default=now_ns)
        found.span_ns = min(now_ns - began_ns, BOOK.tally.span_ns)
        return found

    def _report(self) -> None:
        """Do what the command asks for: begin with the load, or write down what was seen."""
        if self._files is None:
            return
        self._begin_with_load(self._files)
        if self._files.is_asked_for():
            self._files.write_once(BOOK.pid, self.observed)

    def end(self) -> None:
        """The process ends."""
        if self._files is not None and self.sampler.is_running:
            self._begin_with_load(self._files)
            self._files.write_once(BOOK.pid, self.observed)


def _add_unended(found: Observed, loan: Loan, now_ns: int) -> None:
    """Add a loan that has not ended, or the wait for one, as far as it has come."""
    # A loan that is not noted in full still has its first instant.
    loan.count_from(BOOK.began_ns)
    row, weight = found.loans.setdefault(loan_key(loan), LoanSum()), loan.weight
    until_ns = loan.lent_ns or now_ns
    wait_ns, held_ns = until_ns - loan.asked_ns - loan.connect_ns, now_ns - until_ns
    row.wait_ns += weight * wait_ns
    if loan.lent_ns:
        # All that are lent are known.
        row.count += 1
        row.held_ns += held_ns
    else:
        row.waiting += weight
    if loan.outer is not None:
        row.nested += weight
        row.nested_ns += weight * (now_ns - loan.asked_ns)
    row.foreign += loan.foreign
    row.adopted += loan.adopted
    row.by_maker += bool(loan.lent_ns) and loan.is_by_maker
    if BOOK.keeps_all:
        is_lent = bool(loan.lent_ns)
        found.asks.append(Ask(BOOK.pid, loan.engine.key, loan.asked_ns, wait_ns, held_ns, is_lent, has_ended=False))


_watcher = Watcher()
os.register_at_fork(after_in_child=_watcher.begin_in_child)
atexit.register(_watcher.end)


def watch(engine: Engine, *, making_ns: int = 0) -> Watcher:
    """Watch an engine from now on. Returns what the process sees of all its watched engines.

    making_ns: how long making the engine took.

    Raises sqlalchemy.exc.ArgumentError if this is no Engine, or an asynchronous one.
    """
    is_async = getattr(getattr(engine, "dialect", None), "is_async", False)
    if is_async or not isinstance(engine, Engine):
        kind = "asynchronous ones" if is_async else f"a {type(engine).__name__}"
        raise exc.ArgumentError(f"watch() is for SQLAlchemy's synchronous engines, not for {kind}")
    _watcher.follow_requests()
    hook_connect(engine)
    hook_dialect(engine)
    if hooked(engine.pool):
        return _watcher
    request = BOOK.requests.get(BOOK.current())
    place = place_of(sys._getframe(1))  # noqa: SLF001
    number = 0 if request is not None else BOOK.next_number(str(place))
    hook_pool(engine, WatchedEngine.of(engine, place, request, making_ns, number))
    return _watcher


def record_all(folder: Path) -> None:
    """Watch as the command does, and write what was seen of the load into `folder`."""
    _watcher.record_all(folder)


def opened_by_driver(connection: Any, duration_ns: int) -> None:
    """Watch a connection that the application has opened itself, without an engine.

    One that a function of the application opens for a library, such as an engine's `creator`, is the library's.
    """
    frame = sys._getframe(2)  # noqa: SLF001
    place, _ = application_place(frame)
    if place is None or is_in_database(frame):
        return
    BOOK.opened_by_driver(connection, place, duration_ns)
