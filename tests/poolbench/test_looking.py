"""What a borrower is seen to do, by its stack."""

import collections
import hashlib
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter_ns
from time import sleep as nap
from types import SimpleNamespace

import gevent
import pytest
from gevent import sleep as pause
from gevent.event import Event

from poolbench.endpoints import watched_requests
from poolbench.loans import Loan, Request, WatchedEngine
from poolbench.looking import (
    Looker,
    _has_gone_to_sleep,
    _is_asleep,
    _is_streaming,
    _is_waiting,
    _python_place,
    _system_call,
    waits_for_more_than_a_turn,
)
from poolbench.observed import CLIENT, COMPUTING, LEFT_OPEN, SLEEP


def computed_ns(looker, thread, elapsed_ns):
    """As a look finds it, for a thread that has a borrower to itself."""
    return looker._computed_ns(thread.native_id, _system_call(thread.native_id)[0], elapsed_ns)


def rests():
    pause(5)


def waits():
    Event().wait(5)


@pytest.mark.parametrize(("task", "asleep"), [(rests, True), (waits, False)])
def test_a_greenlet_sleeps_under_whatever_name_it_calls_that(task, asleep):
    greenlet = gevent.spawn(task)
    gevent.idle()
    try:
        assert _is_asleep(greenlet.gr_frame) is asleep
    finally:
        greenlet.kill()


@pytest.mark.parametrize(
    ("call", "sleeps"),
    [
        ("230 0x1 0x1 0x7ffc 0x0 0x0 0x0 0x7ffc 0x7f0a", True),
        ("23 0x0 0x0 0x0 0x0 0x7ffc 0x0 0x7ffc 0x7f0a", True),
        # A socket is waited for.
        ("23 0x8 0x7ffc 0x0 0x0 0x7ffc 0x0 0x7ffc 0x7f0a", False),
        ("7 0x7ffc 0x1 0x64 0x0 0x0 0x0 0x7ffc 0x7f0a", False),
        ("202 0x55d0 0x189 0x0 0x0 0x0 0xffffffff 0x7ffc 0x7f0a", False),
        ("running", False),
        ("", False),
    ],
)
def test_a_thread_has_gone_to_sleep_by_its_system_call(call, sleeps):
    assert _has_gone_to_sleep(call.split()) is sleeps


OVER = threading.Event()


def naps():
    nap(9)


def waits_for_nobody():
    threading.Event().wait(9)


def works():
    while not OVER.is_set():
        pass


@pytest.mark.parametrize(("task", "doing"), [(naps, SLEEP), (waits_for_nobody, SLEEP), (works, COMPUTING)])
def test_a_thread_sleeps_under_whatever_name_it_calls_that(task, doing):
    OVER.clear()
    thread = threading.Thread(target=task, daemon=True)
    thread.start()
    time.sleep(0.2)
    loan = Loan(WatchedEngine("shop.py:1", None, "QueuePool"), thread.ident, None, None)
    looker = Looker()
    found, place, _ = looker.doing(loan, sys._current_frames(), {}, 100_000_000)
    OVER.set()
    first = task.__code__.co_firstlineno
    assert found == doing and first < place.number <= first + 3


@pytest.mark.parametrize(
    ("status", "within", "doing"),
    [(2, None, LEFT_OPEN), (3, None, LEFT_OPEN), (0, None, CLIENT), (2, Request({}, "GET /"), CLIENT)],
)
def test_a_task_that_has_returned_has_left_its_transaction_open(status, within, doing):
    with ThreadPoolExecutor(1) as executor:
        thread = executor.submit(threading.get_ident).result()
        loan = Loan(WatchedEngine("shop.py:1", None, "QueuePool"), thread, None, within)
        loan.connection = SimpleNamespace(info=SimpleNamespace(transaction_status=status))
        assert Looker().doing(loan, sys._current_frames(), {}, 100_000_000)[0] == doing


def test_work_of_a_template_is_at_the_line_of_the_program_that_renders_it():
    found = []
    template = compile("look()", "/somewhere/templates/page.html", "exec")
    exec(template, {"look": lambda: found.append(_python_place(sys._getframe(1)))})  # the line that renders
    (place,) = found
    assert str(place).startswith("tests/poolbench/test_looking.py:")
    line = Path(__file__).read_text().splitlines()[place.number - 1]
    assert line.endswith("# the line that renders")


def test_a_thread_that_waits_for_another_or_for_a_lock_does_something_all_the_time():
    looker, lock, over = Looker(), threading.Lock(), threading.Event()

    def locked():
        with lock:
            pass

    looks = []
    waiting, blocked = (threading.Thread(target=task) for task in (over.wait, locked))
    with lock:
        waiting.start()
        blocked.start()
        before_ns = perf_counter_ns()
        for _ in range(6):
            # Longer than a busy machine may make either wait.
            time.sleep(0.1)
            elapsed_ns, before_ns = perf_counter_ns() - before_ns, perf_counter_ns()
            looks.append(computed_ns(looker, blocked, elapsed_ns))
        assert _is_waiting(sys._current_frames()[waiting.ident])
    over.set()
    waiting.join()
    blocked.join()
    assert looks[0] == 0, "one look does not tell a lock from a turn"
    # A look that comes late, on a busy machine, tells nothing.
    assert None in looks[1:]


def test_figures_of_a_thread_that_has_ended_are_not_those_of_another_with_its_number():
    looker, lock = Looker(), threading.Lock()
    with lock:
        blocked = threading.Thread(target=lock.acquire)
        blocked.start()
        time.sleep(0.05)
        looker._cpu[blocked.native_id] = 10**15, 10**15, 10**6, 0
        assert computed_ns(looker, blocked, 100_000_000) == 0
        assert computed_ns(looker, blocked, 100_000_000) in {None, 0}
    blocked.join()


def test_a_thread_that_wants_to_run_asks_for_its_turn_again_and_again():
    assert not waits_for_more_than_a_turn(9, 50_000_000)
    assert not waits_for_more_than_a_turn(1, 4_000_000), "it may have begun to wait just now"
    assert not waits_for_more_than_a_turn(0, 4_000_000), "of two looks in quick succession, the second tells nothing"
    assert waits_for_more_than_a_turn(1, 20_000_000) and waits_for_more_than_a_turn(0, 20_000_000)


def test_work_of_a_function_that_begins_just_now_is_at_the_line_that_calls_it():
    found = []

    def begins(look=None): found.append(_python_place(sys._getframe()))  # fmt: skip

    begins()  # the line that calls
    (place,) = found
    assert Path(__file__).read_text().splitlines()[place.number - 1].endswith("# the line that calls")


def test_a_thread_that_computes_is_told_from_one_that_waits():
    looker, over = Looker(), threading.Event()

    def computes():
        while not over.is_set():
            hashlib.pbkdf2_hmac("sha256", b"name", b"salt", 100_000)

    near, far = socket.socketpair()
    threads = [threading.Thread(target=task) for task in (computes, lambda: near.recv(1))]
    for each in threads:
        each.start()
    try:
        looks = [[], []]
        for _ in range(10):
            time.sleep(0.02)
            for found, each in zip(looks, threads, strict=True):
                found.append(computed_ns(looker, each, 20_000_000))
    finally:
        over.set()
        far.send(b"x")
        for each in threads:
            each.join()
        near.close()
        far.close()
    assert any(looks[0]), "it has had the CPU for a part of the time"
    assert looks[1] == [None] * 10


_FUTEX = "202"
"""The number of the system call of a thread that waits for the interpreter."""


def test_a_thread_that_seldom_computes_is_seen_computing_in_full_when_it_does():
    """It waits for its turn while it is looked at, and what it has done since an earlier look is little."""
    looker, over = Looker(), threading.Event()

    def computes():
        while not over.is_set():
            pass

    thread = threading.Thread(target=computes)
    thread.start()
    looks = []
    for _ in range(20):
        time.sleep(0.01)
        looker._cpu[thread.native_id] = 0, 0, 0, perf_counter_ns() - 10**10
        looks.append(looker._computed_ns(thread.native_id, _FUTEX, 40_000_000))
    over.set()
    thread.join()
    assert set(looks) <= {0, 40_000_000} and sum(looks) > 0


def test_what_makes_a_part_of_an_answer_is_told_from_what_makes_the_answer():
    found = []

    def look():
        found.append(_is_streaming(sys._getframe()))

    def lines():
        look()
        yield b"line"

    def application(_environ, _start_response):
        look()
        return map(bytes.upper, lines())

    for serve in (application, watched_requests(application)):
        found.clear()
        answer = serve({"PATH_INFO": "/"}, None)
        # As a server does, which is no part of the application.
        assert collections.deque(answer, 1).pop() == b"LINE"
        if serve is not application:
            answer.close()
            assert found == [False, True]
