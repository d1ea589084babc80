"""FairPool's `close` and `resize`, with greenlets and with threads."""

import time

import gevent
import pytest
from sqlalchemy import exc

from poolbench import PoolClosed
from tests.poolbench.fair_pool_driver import (
    DriverError,
    ScriptedDriver,
    is_full_and_idle,
    pool_of,
    queue_up,
    run_script,
)


def test_close_refuses_newcomers_wakes_waiters_and_waits_for_those_lent():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=2, min_size=1, maintenance_interval=0.01)
    held = [pool.connect(), pool.connect()]
    errors, left = [], []

    def wait():
        try:
            pool.connect()
        except PoolClosed as error:
            errors.append(error)

    waiters = [gevent.spawn(wait) for _ in range(3)]
    gevent.sleep(0)
    closer = gevent.spawn(lambda: left.append(pool.close(timeout=5)))
    gevent.joinall(waiters, timeout=1)
    assert len(errors) == 3 and pool.waiting() == 0
    with pytest.raises(PoolClosed):
        pool.connect()
    held[0].close()
    gevent.sleep(0.01)
    assert not closer.ready() and driver.open == 1
    held[1].close()
    closer.join(1)
    assert left == [0] and driver.open == 0 and pool.checkedout() == 0
    gevent.sleep(0.05)
    assert driver.open == 0, "housekeeping has ended"
    assert pool.snapshot().rejected == 4


def test_a_borrower_that_is_killed_while_it_connects_is_no_failure_of_the_server():
    driver = ScriptedDriver(connect=0.05)
    pool = pool_of(driver, size=1, recycle=0.2, maintenance_interval=100)
    pool.connect().close()
    gevent.sleep(0.25)
    borrower = gevent.spawn(pool.connect)  # which opens the connection anew itself, as it is too old
    gevent.sleep(0.01)
    assert driver.attempts == 2 and not borrower.ready()
    borrower.kill()
    assert pool.snapshot().connect_errors == 0
    pool.connect().close()
    assert pool.snapshot().connect_errors == 0 and pool.checkedout() == 0


def test_each_who_closes_waits_for_no_longer_than_its_own_timeout():
    pool = pool_of(ScriptedDriver(), size=2)
    held = pool.connect()
    patient = gevent.spawn(pool.close, timeout=None)
    gevent.sleep(0.01)
    began = time.monotonic()
    assert pool.close(timeout=0.05) == 1
    assert time.monotonic() - began < 10
    assert not patient.ready()
    held.close()
    patient.join(10)
    assert patient.value == 0


@pytest.mark.parametrize("end", ["close", "invalidate", "detach"])
def test_close_gives_up_at_its_timeout_and_what_is_lent_is_closed_on_return(end):
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3)
    pool.connect().close()
    held = pool.connect()
    began = time.monotonic()
    assert pool.close(timeout=0.05) == 1
    assert 0.05 <= time.monotonic() - began < 10
    getattr(held, end)()
    held.close()
    assert driver.open == 0 and pool.checkedout() == pool.checkedin() == 0
    assert pool.close(timeout=None) == 0, "closed already"


def test_close_sees_to_a_connection_that_is_just_being_opened_and_refuses_who_waits_for_it():
    driver = ScriptedDriver(connect=0.05)
    pool, refused = pool_of(driver, size=2), []

    def ask():
        with pytest.raises(PoolClosed):
            pool.connect()
        refused.append(1)

    borrower = gevent.spawn(ask)
    gevent.sleep(0.01)
    assert pool.close(timeout=2) == 0 and driver.open == 0 and driver.attempts == 1
    borrower.get(timeout=1)
    assert refused


def test_close_refuses_a_timeout_that_is_no_duration():
    pool = pool_of(ScriptedDriver())
    for wrong in (-1, float("nan"), 1e300, "5"):
        with pytest.raises(exc.ArgumentError, match="timeout must be a number of seconds"):
            pool.close(timeout=wrong)
    pool.connect().close()


def test_a_disposed_engines_new_pool_is_open():
    pool = pool_of(ScriptedDriver())
    pool.close()
    new = pool.recreate()
    new.connect().close()
    assert (new.checkedin(), pool.checkedin()) == (1, 0)


def test_resize_to_more_serves_waiters_at_once():
    driver = ScriptedDriver()
    pool, served = pool_of(driver, size=1, max_overflow=1), []
    held = [pool.connect(), pool.connect()]
    waiters = queue_up(pool, "abc", served, hold_s=0.05)
    pool.resize(3, max_overflow=1)
    gevent.sleep(0.01)
    assert served == ["a", "b"] and pool.waiting() == 1
    snapshot = pool.snapshot()
    assert (snapshot.size, snapshot.limit, snapshot.in_use) == (3, 4, 4)
    gevent.joinall(waiters)
    for loan in held:
        loan.close()
    assert driver.most_open == 4 and is_full_and_idle(pool)


def test_resize_to_less_closes_idle_ones_now_and_lent_ones_before_anybody_else_is_served():
    driver = ScriptedDriver()
    pool, served = pool_of(driver, size=4), []
    held = [pool.connect() for _ in range(4)]
    held.pop().close()
    pool.resize(1)
    assert driver.open == 3 and pool.snapshot().closed["resized"] == 1
    waiters = queue_up(pool, "ab", served)
    held.pop().close()
    held.pop().close()
    gevent.sleep(0.01)
    assert driver.open == 1 and served == []
    held.pop().close()
    gevent.joinall(waiters)
    assert served == ["a", "b"] and driver.open == 1
    snapshot = pool.snapshot()
    assert (snapshot.size, snapshot.limit, snapshot.in_use, snapshot.idle) == (1, 1, 0, 1)
    assert is_full_and_idle(pool) and driver.open == 1


def test_resize_up_again_before_the_shrinking_has_ended_keeps_what_is_lent():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4)
    held = [pool.connect() for _ in range(4)]
    pool.resize(1)
    pool.resize(3)
    for loan in held:
        loan.close()
    assert driver.open == 3 and pool.checkedin() == 3
    assert is_full_and_idle(pool) and driver.attempts == 4


def test_slots_that_end_otherwise_count_for_the_shrinking_too():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4)
    held = [pool.connect() for _ in range(3)]
    pool.resize(2)
    held.pop().detach()
    driver.down = True
    held.pop().invalidate()
    with pytest.raises(DriverError):
        pool.connect()
    driver.down = False
    held.pop().close()
    assert pool.snapshot().limit == 2 and is_full_and_idle(pool)


def test_a_smaller_pool_with_more_overflow_closes_idle_ones():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3)
    held = [pool.connect() for _ in range(3)]
    for loan in held:
        loan.close()
    pool.resize(1, 2)
    assert driver.open == 1 and is_full_and_idle(pool) and driver.open == 1
    assert (pool.recreate().size(), pool.recreate().snapshot().limit) == (1, 3)


def test_resize_refuses_what_the_constructor_refuses_and_changes_without_limit():
    pool = pool_of(ScriptedDriver(), size=3, min_size=2)
    for wrong in ({"pool_size": -1}, {"pool_size": 1}, {"pool_size": 0}, {"pool_size": 3, "max_overflow": -1},
                  {"pool_size": 10**9}, {"pool_size": 2.5}):  # fmt: skip
        with pytest.raises(exc.ArgumentError, match=r"FairPool\.resize: "):
            pool.resize(**wrong)
    assert pool.snapshot().limit == 3
    with pytest.raises(exc.ArgumentError, match="without a limit"):
        pool_of(ScriptedDriver(), max_overflow=-1).resize(5)


THREADS = """
import random, threading, time
from poolbench import FairPool, PoolClosed
from tests.poolbench.fair_pool_driver import ScriptedDriver
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=8, max_overflow=0, timeout=20)
over, refused, served = threading.Event(), [], []
def borrow():
    try:
        while not over.is_set():
            with pool.connect():
                time.sleep(0.001)
            served.append(1)
    except PoolClosed:
        refused.append(1)
threads = [threading.Thread(target=borrow) for _ in range(30)]
for thread in threads:
    thread.start()
for _ in range(100):
    pool.resize(random.randint(1, 8))
    time.sleep(0.003)
pool.resize(3)
until_s = time.monotonic() + 20
while (driver.open > 3 or len(served) <= 100) and time.monotonic() < until_s:
    time.sleep(0.01)
print(driver.most_open <= 8, driver.open <= 3, pool.snapshot().limit, len(pool._queue.free), len(pool._queue.surplus))
print(pool.close(timeout=5), driver.open, pool.checkedout())
for thread in threads:
    thread.join(5)
print(len(refused), not any(thread.is_alive() for thread in threads), len(served) > 100)
"""


def test_threads_are_resized_and_closed_in_full_swing():
    assert run_script(THREADS).splitlines() == ["True True 3 0 0", "0 0 0", "30 True True"]
