"""Time limits that share one timer: told in order, once, and not to those who are over."""

import gevent
import pytest

from loadgen.clock import now_ns
from loadgen.http.deadlines import Deadlines


class Waiter:
    def __init__(self, name, told):
        self.name, self.told, self.over = name, told, False

    def time_is_up(self):
        self.told.append((self.name, now_ns()))


@pytest.fixture
def deadlines():
    made = Deadlines()
    yield made
    made.close()


def names(told):
    return [name for name, _ in told]


def test_the_earliest_is_told_first_whatever_the_order_of_asking(deadlines):
    told, began_ns = [], now_ns()
    for name, ahead_ns in (("late", 30_000_000), ("early", 10_000_000), ("middle", 20_000_000)):
        deadlines.watch(Waiter(name, told), began_ns + ahead_ns)
    gevent.sleep(0.2)
    assert names(told) == ["early", "middle", "late"]
    assert all(at_ns - began_ns >= ahead for (_, at_ns), ahead in zip(told, (10**7, 2 * 10**7, 3 * 10**7), strict=True))


def test_a_finished_wait_gets_no_timeout_and_is_not_kept(deadlines):
    told, gone = [], Waiter("gone", [])
    deadlines.watch(gone, now_ns() + 5_000_000)
    gone.over = True
    deadlines.watch(Waiter("left", told), now_ns() + 10_000_000)
    assert len(deadlines._heap) == 1
    gevent.sleep(0.1)
    assert (gone.told, names(told)) == ([], ["left"])


def test_an_instant_that_has_passed_is_told_at_once_and_only_once(deadlines):
    told = []
    deadlines.watch(Waiter("past", told), now_ns() - 1)
    gevent.sleep(0.05)
    gevent.sleep(0.05)
    assert names(told) == ["past"]


def test_one_that_asks_again_when_told_is_told_again(deadlines):
    told = []

    class Again(Waiter):
        def time_is_up(self):
            super().time_is_up()
            if len(told) < 3:
                deadlines.watch(self, now_ns() + 2_000_000)

    deadlines.watch(Again("again", told), now_ns() + 2_000_000)
    with gevent.Timeout(20):
        while len(told) < 3:
            gevent.sleep(0.005)
    gevent.sleep(0.02)
    assert names(told) == ["again"] * 3


def test_nothing_is_told_after_the_end():
    told, ended = [], Deadlines()
    ended.watch(Waiter("never", told), now_ns() + 5_000_000)
    ended.close()
    gevent.sleep(0.05)
    assert told == []
