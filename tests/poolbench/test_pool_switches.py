"""FairPool's promises when something dies or fails at a switch: no slot is lost, the next is served."""

import gc
import time

import gevent
import pytest
from gevent.hub import LoopExit
from sqlalchemy import event

from tests.poolbench.fair_pool_driver import (
    DriverError,
    ScriptedDriver,
    eventually,
    is_full_and_idle,
    pool_of,
    queue_up,
)


def test_a_waiter_killed_before_a_grant_leaves_the_queue():
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()
    waiters = queue_up(pool, "abc", served)
    waiters[1].kill()
    assert pool.waiting() == 2
    held.close()
    gevent.joinall(waiters)
    assert served == ["a", "c"] and pool.snapshot().cancelled == 1


def test_a_killed_waiter_gives_its_grant_to_the_next():
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()
    waiters = queue_up(pool, "abc", served)
    waiters[0].kill(block=False)
    held.close()  # "a" is granted, and dies before it runs
    waiters[0].kill(block=False)
    gevent.joinall(waiters)
    assert served == ["b", "c"] and is_full_and_idle(pool)


@pytest.mark.parametrize("death", [gevent.GreenletExit, KeyboardInterrupt, LoopExit, gevent.Timeout])
def test_whatever_kills_a_granted_waiter_nothing_is_lost(death):
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()

    def doomed():
        with pytest.raises(death):
            pool.connect()

    first = gevent.spawn(doomed)
    gevent.sleep(0)
    rest = queue_up(pool, "b", served)
    first.kill(death, block=False)
    held.close()
    gevent.joinall([first, *rest], raise_error=True)
    assert served == ["b"] and is_full_and_idle(pool)


def test_a_dead_waiter_is_not_woken_up_in_what_it_does_next():
    pool = pool_of(ScriptedDriver())
    held = pool.connect()

    def give_up_and_sleep():
        with pytest.raises(InterruptedError):
            pool.connect()
        began = time.monotonic()
        gevent.sleep(0.05)
        return time.monotonic() - began

    sleeper = gevent.spawn(give_up_and_sleep)
    gevent.sleep(0)
    sleeper.kill(InterruptedError, block=False)
    held.close()  # grants to the sleeper, whose wake-up then comes after its death
    assert sleeper.get() >= 0.049
    assert is_full_and_idle(pool)


def test_a_failed_connect_raises_where_it_was_tried_and_frees_the_slot_for_the_next():
    driver = ScriptedDriver(connect=0.01)
    pool, served = pool_of(driver), []
    driver.failures.append(DriverError("refused"))

    def first():
        with pytest.raises(DriverError, match="refused"):
            pool.connect()

    failing = gevent.spawn(first)
    gevent.sleep(0)
    rest = queue_up(pool, "ab", served)
    gevent.joinall([failing, *rest], raise_error=True)
    assert served == ["a", "b"] and pool.snapshot().connect_errors == 1


def test_a_connect_that_is_killed_frees_the_slot_for_the_next():
    driver = ScriptedDriver(connect=0.02)
    pool, served = pool_of(driver), []
    connecting = queue_up(pool, ["killed"], served)
    rest = queue_up(pool, "a", served)
    connecting[0].kill()
    gevent.joinall(rest, timeout=1)
    assert served == ["a"] and driver.most_open == 1


def test_with_the_database_down_waiters_fail_one_after_the_other_with_the_real_error():
    driver = ScriptedDriver(connect=0.005)
    driver.down = True
    pool, errors = pool_of(driver, timeout=5), []

    def ask():
        try:
            pool.connect()
        except Exception as error:
            errors.append(type(error))

    began = time.monotonic()
    gevent.joinall([gevent.spawn(ask) for _ in range(10)])
    assert errors == [DriverError] * 10 and time.monotonic() - began < 4
    driver.down = False
    assert is_full_and_idle(pool)


def test_a_slow_connect_delays_nobody_who_can_have_a_returned_connection():
    driver = ScriptedDriver()
    pool, served = pool_of(driver, size=2), []
    held = pool.connect()
    driver.delays["connect"] = 0.8
    asker = queue_up(pool, ["asker"], served)
    held.close()
    pool.connect().close()
    gevent.joinall(asker)
    assert pool.snapshot().connecting == 1 and served == ["asker"]
    assert eventually(lambda: pool.checkedin() == 2), "what was opened for the asker is kept"


def test_a_close_that_raises_or_is_killed_frees_the_slot():
    driver = ScriptedDriver(close=1)
    pool, served = pool_of(driver, size=1, max_overflow=1), []
    first, second = pool.connect(), pool.connect()
    first.close()
    closing = gevent.spawn(second.close)  # overflow: closed on return
    gevent.sleep(0.001)
    assert pool.checkedout() == 1, "a slot is taken to the end of close"
    closing.kill()
    assert pool.checkedout() == 0
    driver.delays["close"], driver.hooks["close"] = 0.02, lambda: 1 / 0
    loans = [pool.connect(), pool.connect()]
    waiters = queue_up(pool, "a", served)
    for loan in loans:
        loan.invalidate()
    gevent.joinall(waiters)
    assert served == ["a"] and is_full_and_idle(pool)


def test_a_kill_in_the_rollback_of_a_return_hands_the_slot_on():
    driver = ScriptedDriver(rollback=0.02)
    pool, served = pool_of(driver), []
    held = pool.connect()
    waiters = queue_up(pool, "a", served)
    returning = gevent.spawn(held.close)
    gevent.sleep(0.005)
    returning.kill()
    driver.delays.clear()
    gevent.joinall(waiters, timeout=1)
    assert served == ["a"] and driver.most_open == 1


@pytest.mark.parametrize("name", ["connect", "checkout"])
def test_a_failing_listener_gives_the_slot_to_the_next(name):
    driver = ScriptedDriver()
    pool, served, calls = pool_of(driver), [], []

    @event.listens_for(pool, name)
    def fail_once(*_):
        calls.append(name)
        if len(calls) == 1:
            gevent.sleep(0.01)
            raise ValueError("listener")

    def first():
        with pytest.raises(ValueError, match="listener"):
            pool.connect()

    failing = gevent.spawn(first)
    gevent.sleep(0)
    rest = queue_up(pool, "ab", served)
    gevent.joinall([failing, *rest], raise_error=True)
    assert served == ["a", "b"] and is_full_and_idle(pool)


@pytest.mark.parametrize("error", [ValueError, gevent.GreenletExit])
def test_a_checkin_listener_that_raises_closes_the_connection_and_gives_the_slot_to_the_next(error):
    driver, served, raised = ScriptedDriver(), [], []
    pool = pool_of(driver)

    @event.listens_for(pool, "checkin")
    def fail_once(*_):
        if not raised:
            raised.append(1)
            raise error("listener")

    loan = pool.connect()
    waiters = queue_up(pool, "ab", served)
    with pytest.raises(error, match="listener"):
        loan.close()
    gevent.joinall(waiters, timeout=1)
    assert served == ["a", "b"] and driver.attempts == 2 and driver.open == 1
    loan.close()
    assert is_full_and_idle(pool) and driver.open == 1, "closing the failed loan again touches nobody else's"


def test_a_checkin_listener_that_raises_after_a_failed_reset_loses_no_slot():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=2)
    driver.hooks["rollback"] = lambda: 1 / 0
    event.listen(pool, "checkin", lambda *_: 1 / 0, once=True)
    loan = pool.connect()
    with pytest.raises(ZeroDivisionError):
        loan.close()
    driver.hooks.clear()
    assert is_full_and_idle(pool)


EVENTS = (
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "detach", "close",
)  # fmt: skip


@pytest.mark.parametrize("error", [ValueError, gevent.GreenletExit])
@pytest.mark.parametrize("name", EVENTS)
def test_a_listener_that_raises_once_loses_no_slot_whatever_it_listens_to(name, error):
    pool = pool_of(ScriptedDriver(), timeout=0.5)

    def raise_once(*_):
        event.remove(pool, name, raise_once)
        raise error

    event.listen(pool, name, raise_once)
    ends = {
        "close": lambda loan: loan.close(),
        "invalidate": lambda loan: loan.invalidate(),
        "soft": lambda loan: (loan.invalidate(soft=True), loan.close()),
        "detach": lambda loan: loan.detach(),
        "dispose": lambda loan: (pool.dispose(), loan.close()),
    }
    for end in ends.values():
        try:
            loan = pool.connect()
            try:
                end(loan)
            finally:
                loan.close()
        except error:
            pass
        loan = None
        gc.collect()
    assert pool.checkedout() == 0, pool.status()
    pool.connect().close()
    assert pool.checkedin() == 1
