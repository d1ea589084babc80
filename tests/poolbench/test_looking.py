"""What a borrower is seen to do, by its stack."""

import sys
from pathlib import Path

import gevent
import pytest
from gevent import sleep as pause
from gevent.event import Event

from poolbench.looking import _is_asleep, _python_place


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
