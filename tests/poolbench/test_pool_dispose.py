"""FairPool's promises on dispose(), invalidation and the limit."""

import time

import gevent
import pytest
from sqlalchemy import create_engine, event

from poolbench import FairPool
from tests.poolbench.fair_pool_driver import DriverError, ScriptedDriver, pool_of, queue_up


def test_dispose_keeps_the_limit_and_the_counters_and_serves_waiters_in_order():
    driver = ScriptedDriver(close=0.002, connect=0)
    pool, served = pool_of(driver, size=3), []
    held = [pool.connect() for _ in range(3)]
    old = [loan.dbapi_connection for loan in held]
    waiters = queue_up(pool, range(6), served, hold_s=0.1)
    pool.dispose()
    assert pool.checkedout() == 3 and pool.checkedin() == 0
    for loan in held:
        loan.close()
    gevent.joinall(waiters)
    assert served == list(range(6)) and driver.most_open == 3
    assert all(connection.closed for connection in old)
    assert pool.checkedout() == 0 and pool.snapshot().closed["disposed"] == 3


def test_a_connection_that_was_being_opened_during_dispose_is_closed_and_a_newer_one_lent():
    driver = ScriptedDriver(connect=0.01)
    pool = pool_of(driver, size=1)
    borrower = gevent.spawn(pool.connect)
    gevent.sleep(0.002)
    pool.dispose()
    loan = borrower.get(timeout=1)
    assert (loan.dbapi_connection.number, driver.most_open, driver.open) == (2, 1, 1)
    loan.close()
    assert pool.checkedout() == 0 and pool.snapshot().closed["disposed"] == 1


def test_a_round_of_housekeeping_that_begins_during_dispose_opens_nothing():
    driver = ScriptedDriver(connect=0)
    pool = pool_of(driver, size=2, min_size=1, maintenance_interval=60)
    pool.connect().close()
    housekeeping = pool._housekeeping
    its_round, stop = housekeeping._keeper._work, housekeeping.stop

    def stop_too_late():
        its_round()
        stop()

    housekeeping.stop = stop_too_late
    pool.dispose()
    gevent.sleep(0.02)
    assert driver.open == 0


def test_after_engine_dispose_the_old_pool_drains_and_the_new_one_keeps_every_parameter():
    driver = ScriptedDriver()
    connects = []
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=driver.connect,
        poolclass=FairPool,
        pool_size=2,
        max_overflow=1,
        pool_timeout=3,
        pool_use_lifo=True,
        pool_recycle=77,
        pool_pre_ping=True,
        pool_reset_on_return="commit",
        pool_events=[(lambda *_: connects.append(1), "connect")],
        max_waiting=4,
        min_size=1,
        max_lifetime=50,
        lifetime_jitter=0.2,
        idle_timeout=20,
        maintenance_interval=9,
        leak_threshold=8,
        detect_deadlock=True,
        max_wait=60,
        _initialize=False,
    )
    heard = []
    event.listen(engine.pool, "checkin", lambda *_: heard.append(1))
    old, served = engine.pool, []
    old._pre_ping = False  # the scripted driver cannot be pinged
    loans = [old.connect() for _ in range(3)]
    waiters = queue_up(old, "ab", served)
    old._pre_ping = True
    engine.dispose()
    new = engine.pool
    assert type(new) is FairPool and new is not old

    def parameters(pool):
        return pool._options, pool._reset_on_return, pool._dialect, pool._recycle

    assert parameters(new) == parameters(old) and new._pre_ping
    old._pre_ping = new._pre_ping = False
    for loan in loans:
        loan.close()
    gevent.joinall(waiters)
    assert served == ["a", "b"]
    assert driver.open == 0 and old.checkedin() == 0, "the old pool keeps nothing"
    new.connect().close()
    assert len(heard) == 6 and len(connects) == 6, "listeners moved along"


def test_invalidation_of_all_reconnects_silently_in_the_greenlets_that_ask():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3)
    loans = [pool.connect() for _ in range(3)]
    raw = [loan.dbapi_connection for loan in loans]
    for loan in loans[1:]:
        loan.close()
    time.sleep(0.002)
    pool._invalidate(loans[0], DriverError("server closed the connection unexpectedly"))
    assert pool.checkedin() == 3 and pool.checkedout() == 0
    fresh = [pool.connect() for _ in range(3)]
    assert not {loan.dbapi_connection for loan in fresh} & set(raw)
    assert driver.most_open == 3 and all(connection.closed for connection in raw)


def test_never_more_than_size_plus_overflow_and_overflow_is_closed_on_return():
    driver = ScriptedDriver(connect=0.001, close=0.001)
    pool = pool_of(driver, size=2, max_overflow=2)

    def work():
        for _ in range(5):
            with pool.connect():
                gevent.sleep(0.001)

    gevent.joinall([gevent.spawn(work) for _ in range(12)], raise_error=True)
    assert driver.most_open == 4 and pool.checkedin() == 2 and driver.open == 2


@pytest.mark.parametrize(("size", "max_overflow"), [(0, 10), (2, -1)])
def test_no_limit_means_no_wait(size, max_overflow):
    pool = pool_of(ScriptedDriver(), size=size, max_overflow=max_overflow, timeout=0)
    loans = [pool.connect() for _ in range(20)]
    assert pool.checkedout() == 20 and pool.snapshot().limit is None
    for loan in loans:
        loan.close()
    assert pool.checkedin() == (size or 20)
