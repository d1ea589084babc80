"""What the borrowers of connections are doing at this moment: seen on their stacks and in their connections' state.

See watching.py.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import re
import threading
import time
import weakref
from collections.abc import Sequence
from inspect import CO_GENERATOR
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from poolbench import observed as seen
from poolbench.native import native
from poolbench.places import APPLICATION, DATABASE, OURS, Place, kind_of, place_of

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from poolbench.loans import Loan

IDLE, _ACTIVE = 0, 1
_OPEN = {2, 3}
"""In a transaction, also one that has failed."""
_SLEEPS = re.compile(r"\bsleep\(|\bEvent\(\)\.wait\(")
"""A line of the application that sleeps; so does one that waits for an event which nobody else knows."""
_SLEEPING_CALLS = {"230", "35", "115", "101"}
"""The numbers of clock_nanosleep() and nanosleep(), on x86-64 and on 64-bit ARM."""
_SELECTING_CALLS = {"23", "270", "72"}
"""Those of select() and pselect6(), of which the first argument is 0 where nothing but the time is waited for."""
_FUTEX = {"202", "98"}
"""The system call's number on x86-64 and on 64-bit ARM: a thread that waits for a lock, or for its turn to run."""
_RUNNING = "running"
"""Stands where the number of the system call would, for a thread that is in none, or is in the queue for the CPU."""
_WAITS = {"wait", "join", "_wait_for_tstate_lock"}
"""Functions of the module threading in which a thread waits for another."""

_A_MOMENT_S = 0.0005
"""How long a look waits for a thread to go on that it may have interrupted."""
_sleep = native(time, "sleep")

_MOST_THREADS = 1000
"""Threads whose CPU time is remembered from one look to the next."""

REQUEST_CODES: set[Any] = set()
"""Code of the WSGI wrappers, where a request's own stack begins."""

STATEMENT_CODES: set[Any] = set()
"""Code of the functions that execute, which have the statement in their variable `statement`."""


class Looker:
    """Looks at loans; remembers the CPU time that threads had used at the look before."""

    def __init__(self) -> None:
        self._cpu: dict[int | None, tuple[int, int, int, int]] = {}

    def doing(
        self, loan: Loan, frames: dict[int, FrameType], askers: dict[Any, Loan], elapsed_ns: int
    ) -> tuple[str, Place | None, int]:
        """What a borrower is doing, where, and for how much of the time since the last look."""
        request = loan.request
        if request is not None and request.ended_ns:
            if loan.ended_ns or getattr(loan.record, "fairy_ref", loan) is None:
                # Given back since this look began.
                return seen.CPU, None, elapsed_ns
            is_open = transaction_status(loan.connection) in _OPEN
            since_ns = min(elapsed_ns, perf_counter_ns() - request.ended_ns)
            return seen.LEFT_OPEN if is_open else seen.LEAKED, loan.place, since_ns
        asker = askers.get(loan.borrower)
        if asker is not None and asker.outer is loan.record:
            return seen.NESTED, asker.place, elapsed_ns
        frame, thread = _frame_of(loan, frames)
        if frame is None:
            return seen.LEAKED, loan.place, elapsed_ns
        place, is_database = application_place(frame)
        status = transaction_status(loan.connection)
        if status == IDLE:
            # Also after a change: the connection commits each statement by itself.
            loan.wrote = False
        if status == _ACTIVE:
            return seen.STATEMENT, place or loan.place, elapsed_ns
        if is_database:
            return seen.LIBRARY, place or loan.place, elapsed_ns
        if place is None:
            # A thread of an executor, whose task has returned without ending its transaction.
            is_left = request is None and status in _OPEN
            return seen.LEFT_OPEN if is_left else seen.CLIENT, loan.place, elapsed_ns
        if _SLEEPS.search(linecache.getline(place.code.co_filename, place.number)) or _is_asleep(frame):
            return seen.SLEEP, place, elapsed_ns
        native = _native_id(loan, thread)
        call = [] if native is None else _system_call(native)
        if kind_of(frame.f_code) == APPLICATION and _has_gone_to_sleep(call):
            return seen.SLEEP, place, elapsed_ns
        place = _python_place(frame) or place
        if native is None or not call or _is_waiting(frame):
            return seen.WORK, place, elapsed_ns
        computed_ns = self._computed_ns(native, call[0], elapsed_ns, has_loop=thread is None)
        if computed_ns is None:
            return seen.WORK, place, elapsed_ns
        return seen.STREAMING if _is_streaming(frame) else seen.COMPUTING, place, min(elapsed_ns, computed_ns)

    def statement(self, loan: Loan, frames: dict[int, FrameType]) -> str:
        """The statement that the borrower is executing; "" if it is none of an engine that is watched."""
        frame, _ = _frame_of(loan, frames)
        while frame is not None:
            if frame.f_code in STATEMENT_CODES:
                return str(frame.f_locals["statement"])
            frame = frame.f_back
        return ""

    def _computed_ns(self, native: int, call: str, elapsed_ns: int, *, has_loop: bool = False) -> int | None:
        """For how long a thread computed, rather than wait for its turn; None if it waits for something else, or nobody knows.

        native: the system's number of the thread. call: that of the system call it is in. has_loop: an event loop runs in it, so
        that it has no others to wait for but the one that looks. 0 where it may wait for its turn or for a lock, and neither a
        look just before nor a moment after this one tells which.
        """
        if call != _RUNNING and call not in _FUTEX:
            return None
        figures = _scheduled(native)
        if figures is None:
            return None
        used_ns, queued_ns, turns = figures
        now_ns = perf_counter_ns()
        if len(self._cpu) > _MOST_THREADS:
            self._cpu.clear()
        before = self._cpu.get(native)
        self._cpu[native] = after = used_ns, queued_ns, turns, now_ns
        if before is not None and any(now < then for now, then in zip(after, before, strict=True)):
            # The system has given the number of a thread that ended to another.
            before = None
        wants_cpu = call == _RUNNING or has_loop
        if not wants_cpu and (before is None or now_ns - before[3] >= 1.5 * elapsed_ns):
            # What it has done since an earlier look says little about now. If it computes, this look has taken the interpreter
            # from it, and it goes on as soon as it may.
            _sleep(_A_MOMENT_S)
            return elapsed_ns if _scheduled(native) != figures else 0
        if before is None:
            return elapsed_ns
        used_ns, queued_ns, turns, lasted_ns = (now - then for now, then in zip(after, before, strict=True))
        is_close = lasted_ns < 1.5 * elapsed_ns
        if call in _FUTEX and is_close and waits_for_more_than_a_turn(turns, lasted_ns - used_ns - queued_ns):
            return None
        # Who wants the CPU has it, or is in the machine's queue for it; who may wait for the interpreter is in neither.
        wanted_ns = used_ns + queued_ns if wants_cpu else lasted_ns
        return elapsed_ns * used_ns // wanted_ns if wanted_ns else elapsed_ns


def _scheduled(native: int) -> tuple[int, int, int] | None:
    """The ns that a thread has had the CPU, and has been in the machine's queue for it, and its turns; None if unknown.

    native: the system's number of the thread.
    """
    try:
        with open(f"/proc/self/task/{native}/schedstat") as file:  # noqa: PTH123 - as cheap as can be
            used_ns, queued_ns, turns = map(int, file.read().split())
    except (OSError, ValueError):
        return None
    return used_ns, queued_ns, turns


def waits_for_more_than_a_turn(turns: int, waited_ns: int) -> bool:
    """Whether a thread that had the CPU `turns` times and waited for `waited_ns` in between waited for a lock of somebody.

    Who waits for its turn to run Python code asks for it every 5 ms, as long as sys.setswitchinterval() was not called.
    """
    return max(1, turns) * 10_000_000 < waited_ns


def transaction_status(connection: Any) -> int:
    """As libpq's PQtransactionStatus; -1 where it cannot be known."""
    try:
        if isinstance(connection, weakref.ref):
            connection = connection()
        return int(connection.info.transaction_status)
    except Exception:  # noqa: BLE001 - a driver without it, or a connection that was closed meanwhile
        return -1


def _frame_of(loan: Loan, frames: dict[int, FrameType]) -> tuple[FrameType | None, int | None]:
    """The innermost frame of a borrower, and the number of its thread if it is one; no frame for one that has ended."""
    borrower = loan.borrower
    if isinstance(borrower, int):
        return frames.get(borrower), borrower
    if borrower.dead:
        return None, None
    # A greenlet that has no frame of its own is running.
    return borrower.gr_frame or frames.get(loan.thread), loan.thread if borrower.parent is None else None


def _native_id(loan: Loan, thread: int | None) -> int | None:
    """The system's number of the thread that a borrower runs in, by Python's number of it where the borrower has a thread to
    itself; None for a greenlet that is not running, and where it is unknown.
    """
    if thread is None and not is_running(loan):
        return None
    # Python gives the number of a thread that has ended to the next one; the system's own is not used again so soon.
    known = threading._active.get(loan.thread if thread is None else thread)  # type: ignore[attr-defined]  # noqa: SLF001
    # Where gevent has patched threads, their numbers are those of greenlets; event loops run in the main thread, as a rule. Of
    # that, a fork changes the system's number, which is the process's.
    if known is threading.main_thread() or (known is None and thread is None):
        return os.getpid()
    return getattr(known, "native_id", None)


def is_in_loop(loan: Loan) -> bool:
    """Whether the borrower is a greenlet of an event loop, and so one of many in its thread."""
    return not isinstance(loan.borrower, int) and loan.borrower.parent is not None


def is_running(loan: Loan) -> bool:
    """Whether the borrower, a greenlet of an event loop, is the one that runs."""
    return is_in_loop(loan) and not loan.borrower.dead and loan.borrower.gr_frame is None


def loop_is_idle(frame: FrameType | None) -> bool:
    """Whether a thread, by its innermost frame, is in gevent's event loop itself rather than in a greenlet."""
    if frame is None:
        return True
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name == "run" and frame.f_code.co_filename.endswith("gevent/hub.py")


def application_place(frame: FrameType) -> tuple[Place | None, bool]:
    """The innermost place of the application within the request, and whether a database's library runs inside it."""
    is_database = False
    each: FrameType | None = frame
    while each is not None:
        kind = kind_of(each.f_code)
        if kind == APPLICATION:
            return place_of(each), is_database
        if kind == OURS and each.f_code in REQUEST_CODES:
            return None, is_database
        is_database = is_database or kind == DATABASE
        each = each.f_back
    return None, is_database


def is_in_database(frame: FrameType) -> bool:
    """Whether a database's library runs anywhere within the request, also if it has called the application in turn."""
    each: FrameType | None = frame
    while each is not None and each.f_code not in REQUEST_CODES:
        if kind_of(each.f_code) == DATABASE:
            return True
        each = each.f_back
    return False


def _system_call(native: int) -> list[str]:
    """The number and the arguments of the system call that a thread is in, as the system writes them; empty if unknown.

    native: the system's number of the thread.
    """
    try:
        with open(f"/proc/self/task/{native}/syscall") as file:  # noqa: PTH123 - as cheap as can be
            return file.read().split()
    except OSError:
        return []


def _has_gone_to_sleep(call: Sequence[str]) -> bool:
    """Whether a system call does nothing but let time pass, as Python's time.sleep() does."""
    return bool(call) and (call[0] in _SLEEPING_CALLS or (call[0] in _SELECTING_CALLS and call[1:2] == ["0x0"]))


def _is_asleep(frame: FrameType) -> bool:
    """Whether a library's function named `sleep` runs, under whatever name the application has called it."""
    each: FrameType | None = frame
    while each is not None and kind_of(each.f_code) != APPLICATION:
        if each.f_code.co_name == "sleep":
            return True
        each = each.f_back
    return False


def _is_waiting(frame: FrameType) -> bool:
    """Whether a thread waits for another one: for an event, a result, an item of a queue or its end."""
    code = frame.f_code
    return code.co_name in _WAITS and code.co_filename == threading.__file__


def _is_streaming(frame: FrameType) -> bool:
    """Whether the code that runs makes a part of an answer that is being sent: the server asks an iterator for it."""
    code: CodeType | None = None
    each: FrameType | None = frame
    while each is not None:
        if each.f_code in REQUEST_CODES:
            return each.f_code.co_name == "__next__"
        if kind_of(each.f_code) == APPLICATION:
            code = each.f_code
        each = each.f_back
    # Without a wrapper around the application: its outermost code that runs is a generator.
    return code is not None and bool(code.co_flags & CO_GENERATOR)


def _python_place(frame: FrameType) -> Place | None:
    """The innermost place of the application that is no line of a template: a template's work is begun, and moved, there."""
    each: FrameType | None = frame
    while each is not None:
        if kind_of(each.f_code) == APPLICATION and each.f_code.co_filename.endswith(".py"):
            place = place_of(each)
            if place is not None and not _is_called_just_now(each, place.number):
                return place
        each = each.f_back
    return None


def _is_called_just_now(frame: FrameType, line: int) -> bool:
    """Whether `line` is the first one of a function, where threads change turns, and another one of the application called it."""
    code, caller = frame.f_code, frame.f_back
    return (
        line == code.co_firstlineno
        and not code.co_name.startswith("<")
        and caller is not None
        and kind_of(caller.f_code) == APPLICATION
    )


def wanted_cpu_s() -> float:
    """CPU seconds that this process has used, and on Linux those for which its threads stood in the machine's queue."""
    waited_ns = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            waited_ns += int(path.read_text().split()[1])
    return time.process_time() + waited_ns / 1e9
