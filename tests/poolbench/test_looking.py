"""What a borrower is seen to do, by its stack."""

import sys
import threading
import time
from pathlib import Path
from time import perf_counter_ns

import gevent
import pytest
from gevent import sleep as pause
from gevent.event import Event

from poolbench.looking import Looker, _is_asleep, _is_waiting, _python_place, waits_for_more_than_a_turn


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

    waiting, blocked = (threading.Thread(target=task) for task in (over.wait, locked))
    with lock:
        waiting.start()
        blocked.start()
        before_ns = perf_counter_ns()
        for _ in range(3):
            # Longer than a busy machine may make either wait.
            time.sleep(0.1)
            elapsed_ns, before_ns = perf_counter_ns() - before_ns, perf_counter_ns()
            ran_ns = looker._ran_ns(blocked.ident, elapsed_ns)
        assert _is_waiting(sys._current_frames()[waiting.ident])
    over.set()
    waiting.join()
    blocked.join()
    assert ran_ns == elapsed_ns


def test_a_thread_that_wants_to_run_asks_for_its_turn_again_and_again():
    assert not waits_for_more_than_a_turn(9, 50_000_000)
    assert not waits_for_more_than_a_turn(1, 4_000_000), "it may have begun to wait just now"
    assert waits_for_more_than_a_turn(1, 20_000_000)


def test_work_of_a_function_that_begins_just_now_is_at_the_line_that_calls_it():
    found = []

    def begins(look=None): found.append(_python_place(sys._getframe()))  # fmt: skip

    begins()  # the line that calls
    (place,) = found
    assert Path(__file__).read_text().splitlines()[place.number - 1].endswith("# the line that calls")
