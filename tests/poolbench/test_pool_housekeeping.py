"""FairPool's housekeeping: idle connections, lifetimes, reserves, leaks."""

import gc
import time
import weakref

import gevent
import pytest

from poolbench import checkout_of, housekeeping
from tests.poolbench.fair_pool_driver import DriverError, ScriptedDriver, eventually, is_full_and_idle, pool_of


def test_min_size_is_filled_after_the_first_checkout_and_again_after_losses():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4, min_size=3, maintenance_interval=0.01)
    pool.connect().close()
    assert eventually(lambda: pool.checkedin() == 3)
    loan = pool.connect()
    loan.invalidate()
    assert eventually(lambda: driver.open == 3)
    pool.dispose()


def test_while_the_database_is_down_housekeeping_tries_once_per_interval():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4, min_size=3, maintenance_interval=0.02)
    pool.connect().close()
    driver.down, began = True, time.monotonic()
    assert eventually(lambda: driver.attempts > 4)
    intervals = (time.monotonic() - began) / 0.02
    assert driver.attempts - 1 <= intervals + 1 and pool.checkedout() == 0
    driver.down = False
    assert eventually(lambda: driver.open == 3)
    pool.dispose()


def test_connections_idle_too_long_are_closed_down_to_min_size_without_anyone_asking():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4, min_size=1, idle_timeout=0.03, maintenance_interval=0.01, use_lifo=True)
    loans = [pool.connect() for _ in range(4)]
    for loan in loans:
        loan.close()
    assert eventually(lambda: driver.open == 1)
    gevent.sleep(0.03)
    assert driver.open == 1 and pool.snapshot().closed["idle"] == 3
    pool.dispose()


def test_lifetimes_are_spread_by_the_jitter_and_end_without_anyone_asking():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=50, max_lifetime=100, lifetime_jitter=0.5)
    loans = [pool.connect() for _ in range(50)]
    lifetimes = [(loan._connection_record.expires_ns - time.monotonic_ns()) / 1e9 for loan in loans]
    assert 49 < min(lifetimes) < 60 and 90 < max(lifetimes) <= 100
    pool = pool_of(driver, size=2, max_lifetime=0.03, lifetime_jitter=0, maintenance_interval=0.01)
    loan = pool.connect()
    loan.close()
    assert eventually(lambda: pool.checkedin() == 0)
    assert pool.snapshot().closed["lifetime"] == 1


def test_a_connection_past_its_lifetime_is_replaced_for_who_asks():
    driver = ScriptedDriver()
    pool = pool_of(driver, max_lifetime=0.01, lifetime_jitter=0)
    pool.connect().close()
    time.sleep(0.015)
    loan = pool.connect()
    assert loan.dbapi_connection.number == 2 and driver.open == 1 and checkout_of(loan).connect_ns > 0
    pool.dispose()


def test_a_loan_longer_than_the_leak_threshold_is_logged_once_with_the_borrowers_stack(caplog):
    pool = pool_of(ScriptedDriver(), leak_threshold=0.02, maintenance_interval=0.01)
    loan = pool.connect()
    assert eventually(lambda: "has been lent for" in caplog.text)
    gevent.sleep(0.03)
    loan.close()
    [record] = [record for record in caplog.records if "has been lent for" in record.getMessage()]
    assert "test_a_loan_longer_than_the_leak_threshold" in record.getMessage()
    pool.dispose()


def test_housekeeping_does_not_keep_an_abandoned_pool_alive():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=2, min_size=2, maintenance_interval=0.01)
    pool.connect().close()
    assert eventually(lambda: driver.open == 2)
    reference = weakref.ref(pool)
    del pool
    assert eventually(lambda: gc.collect() >= 0 and reference() is None)
    assert driver.open == 0, "its connections went with it"


@pytest.mark.parametrize("option", ["idle_timeout", "max_lifetime", "leak_threshold"])
def test_connections_that_a_disconnect_made_stale_are_closed_without_anyone_asking(option):
    driver = ScriptedDriver()
    pool = pool_of(driver, size=8, maintenance_interval=0.01, **{option: 60})
    loans = [pool.connect() for _ in range(8)]
    for loan in loans[2:]:
        loan.close()
    time.sleep(0.002)
    pool._invalidate(loans[0], DriverError("server closed the connection unexpectedly"))
    loans[1].close()
    assert eventually(lambda: driver.open == 0)
    snapshot = pool.snapshot()
    assert (snapshot.closed["stale"], snapshot.closed["invalidated"], snapshot.in_use, snapshot.idle) == (7, 1, 0, 0)
    assert is_full_and_idle(pool)
    pool.dispose()


def test_without_housekeeping_whoever_asks_closes_the_stale_before_opening_a_new_one():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3)
    loans = [pool.connect() for _ in range(3)]
    for loan in loans[1:]:
        loan.close()
    time.sleep(0.002)
    pool._invalidate(loans[0], DriverError("server closed the connection unexpectedly"))
    assert driver.open == 2
    kept = [pool.connect() for _ in range(2)]
    assert driver.open == 2 and driver.attempts == 5
    for loan in kept:
        loan.close()


@pytest.mark.parametrize("options", [{"idle_timeout": 0.02, "use_lifo": True}, {"min_size": 1, "warm_up": True}])
def test_without_a_thread_for_housekeeping_connections_are_lent_all_the_same(monkeypatch, caplog, options):
    def none_to_be_had(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(housekeeping, "keeper_here", none_to_be_had)
        patched.setattr(housekeeping, "start_here", none_to_be_had)
        driver = ScriptedDriver()
        pool = pool_of(driver, size=3, maintenance_interval=0.01, **options)
        loans = [pool.connect() for _ in range(2)]
        assert "FairPool could not start its housekeeping" in caplog.text and "can't start new thread" in caplog.text
        assert ("FairPool could not open its first connections" in caplog.text) is ("warm_up" in options)
    loans.append(pool.connect())
    for loan in loans:
        loan.close() if "idle_timeout" in options else loan.invalidate()
    # It closes what is idle too long, and opens what is missing.
    assert eventually(lambda: driver.open == options.get("min_size", 0))
    assert pool.snapshot().closed.get("idle", 0) == (3 if "idle_timeout" in options else 0)
    pool.dispose()
    assert driver.open == 0


def test_a_close_that_fails_does_not_end_housekeeping():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3, idle_timeout=0.02, maintenance_interval=0.01, use_lifo=True)
    driver.hooks["close"] = lambda: 1 / 0
    loans = [pool.connect() for _ in range(3)]
    for loan in loans:
        loan.close()
    assert eventually(lambda: pool.snapshot().closed.get("idle") == 3)
    assert eventually(lambda: pool.checkedout() == 0 and is_full_and_idle(pool))
    pool.dispose()
