"""The thread of watching: it samples several times a second what the holders of connections do, and adds up ended loans.

It runs only while connections are lent: it ends when none was lent for `idle_s`, and the next loan starts it. See watching.py.
"""

from __future__ import annotations

import _thread
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from poolbench import observed as seen
from poolbench.looking import Looker, is_in_loop, is_running, loop_is_idle, wanted_cpu_s
from poolbench.native import native
from poolbench.observed import SampleKey
from poolbench.tally import add_sample
from poolbench.waiters import current_function

if TYPE_CHECKING:
    from poolbench.loan_book import LoanBook

_INTERVAL_S = 0.1
_MOST_CPU = 0.005
"""The largest share of a core that looking uses. If a look takes long, there are fewer looks."""
_IDLE_S = 5.0
_LEFT_OVER_LOOKS, _LEFT_OVER_NS = 2, 200_000_000
"""A loan has outlived its request when it was seen so this often before, for so long."""
_MARK_EVERY_S, _MARKS = 10.0, 6
_MOST_REQUESTS = 10_000
"""When more requests than this are open, those of dead greenlets are dropped."""


class Sampler:
    """Samples the loans of a book every `interval_s`, in a thread of its own.

    The borrower that starts the thread calls `before_start` first; the thread calls `after_look` after each look.
    """

    def __init__(self, book: LoanBook, before_start: Callable[[], None], after_look: Callable[[], None]) -> None:
        self.book = book
        self.interval_s, self.most_cpu, self.idle_s = _INTERVAL_S, _MOST_CPU, _IDLE_S
        self.stays = False
        """Whether the thread keeps running when nothing is lent."""
        self._before_start, self._after_look = before_start, after_look
        self.begin()

    def begin(self) -> None:
        """Begin anew, in a process without such a thread."""
        self.looker = Looker()
        # The loans that outlived their request, or their borrower, at the last look. By record: when it was lent, the number of
        # looks that have seen it so, and the time that they stand for.
        self._left_over: dict[Any, tuple[int, int, int]] = {}
        self.is_running = False
        self._permits = [None]
        # CPU used so far, and when: at the start of the thread, and every ten seconds of the last minute unless it `stays`.
        self._cpu: deque[tuple[float, float]] = deque(maxlen=_MARKS)
        self.book.on_start = self.start

    def start(self) -> None:
        """Start the thread, unless it runs. Raises RuntimeError if there cannot be one, and what `before_start` raises; the next
        loan tries again.
        """
        try:
            self._permits.pop()
        except IndexError:
            return
        try:
            self._before_start()
            self.book.current = current_function()
            self._mark_cpu()
            native(_thread, "start_new_thread")(self._run, (self._permits,))
        except BaseException:
            self._permits.append(None)
            raise
        self.is_running = True
        self.book.on_start = None

    def cpu_share(self) -> float | None:
        """CPU, in cores, that the process has used or was ready to use and waited for: in the last minute, or since the thread
        was first started, or `count_cpu_from_now` was called, if that `stays`.

        None before, and in the first second.
        """
        now_s = time.perf_counter()
        marks = [mark for mark in list(self._cpu) if self.stays or now_s - mark[1] <= _MARKS * _MARK_EVERY_S]
        if not marks or now_s - marks[0][1] <= 1:
            return None
        used_s, at_s = marks[0]
        return (wanted_cpu_s() - used_s) / (now_s - at_s)

    def count_cpu_from_now(self) -> None:
        """Let `cpu_share` be of the time from now on."""
        self._cpu.clear()
        self._mark_cpu()

    def _mark_cpu(self) -> None:
        """Note how much CPU the process has used so far, at intervals; once where all the time is looked at."""
        now_s = time.perf_counter()
        if not self._cpu or (not self.stays and now_s - self._cpu[-1][1] >= _MARK_EVERY_S):
            self._cpu.append((wanted_cpu_s(), now_s))

    def _run(self, permits: list[None]) -> None:
        sleep, book = native(time, "sleep"), self.book
        before_ns = active_ns = perf_counter_ns()
        used_ns = process_time_ns()
        pause_s = self.interval_s
        while True:
            sleep(pause_s)
            if permits is not self._permits:
                # Somebody else's turn: the process has begun anew.
                return
            began_ns, cpu_ns, look_ns = perf_counter_ns(), thread_time_ns(), 0
            try:
                try:
                    is_used = self.look(began_ns - before_ns)
                finally:
                    # Adding up is not in it: the longer the pause, the more would have ended, and the pauses would grow and grow.
                    look_ns = thread_time_ns() - cpu_ns
                cpu_ns = thread_time_ns()
                ended = book.tally.add_up()
                before_used_ns, used_ns = used_ns, process_time_ns()
                book.keep_pace(began_ns - before_ns, thread_time_ns() - cpu_ns, used_ns - before_used_ns)
                self._mark_cpu()
                self._after_look()
                if is_used or ended:
                    active_ns = began_ns
            except Exception as error:  # noqa: BLE001 - the application must not suffer; the diagnosis says it
                # Not logged here: the host's handlers may have locks of gevent's, which this thread cannot take.
                book.fault = f"{type(error).__name__}: {error}"
            if not self.stays and began_ns - active_ns > self.idle_s * 1e9 and self._ended(permits):
                return
            before_ns = began_ns
            pause_s = max(self.interval_s, look_ns / 1e9 / self.most_cpu)

    def _ended(self, permits: list[None]) -> bool:
        """Let the next loan start the thread again. Returns whether this thread is to end; not if a loan began meanwhile."""
        book = self.book
        self.is_running = False
        permits.append(None)
        book.on_start = self.start
        # So that the next is noted in full: only such a one starts the thread.
        book.left = 0
        if not book.lent and not book.asks:
            return True
        try:
            permits.pop()
        except IndexError:
            # Another thread has been started already.
            return True
        self.is_running = True
        book.on_start = None
        return False

    def look(self, elapsed_ns: int) -> bool:
        """Sample every lent connection, `elapsed_ns` after the last look. Returns whether anything was lent or asked for.

        Each sample has the time since the last look, by what the holder does, and the waiting that it is blamed for: the
        waiting for connections of an engine is divided among those that are lent.
        """
        book = self.book
        book.sweep()
        self._forget_requests()
        if not book.lent and not book.asks:
            self._left_over = {}
            return False
        frames = sys._current_frames()  # noqa: SLF001
        asks = list(book.asks)
        waiting: Counter[str] = Counter()
        for ask in asks:
            waiting[ask.engine.key] += ask.weight
        askers = {ask.borrower: ask for ask in asks if ask.outer is not None}
        lent_now = book.all_loans()
        loans = [loan for _, loan in lent_now]
        left_over, self._left_over = self._left_over, {}
        lent = Counter(loan.engine.key for loan in loans)
        busy = {loan.thread for loan in loans if is_in_loop(loan) and not loop_is_idle(frames.get(loan.thread))}
        running = {loan.thread: loan for loan in loans if is_running(loan)}
        samples = book.tally.current.samples
        for record, loan in lent_now:
            doing, place, ran_ns = self.looker.doing(loan, frames, askers, elapsed_ns)
            if doing in {seen.LEAKED, seen.LEFT_OPEN}:
                # Others run meanwhile: what is being given back, or was lent anew, looks the same for some looks.
                lent_ns, looks, lasted_ns = left_over.get(record, (0, 0, 0))
                if lent_ns != loan.lent_ns:
                    looks = lasted_ns = 0
                self._left_over[record] = loan.lent_ns, looks + 1, lasted_ns + elapsed_ns
                if looks < _LEFT_OVER_LOOKS or lasted_ns < _LEFT_OVER_NS:
                    continue
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
        return True

    def _forget_requests(self) -> None:
        """If there are too many open requests, drop those whose greenlet is dead: their server did not close the answer."""
        requests = self.book.requests
        if len(requests) > _MOST_REQUESTS:
            for borrower in list(requests):
                if getattr(borrower, "dead", False):
                    requests.pop(borrower, None)
