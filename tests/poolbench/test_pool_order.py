"""FairPool's promises on order and time: who is served, when, and when a wait ends."""

import time

import gevent
import pytest
from sqlalchemy import exc

from tests.poolbench.fair_pool_driver import ScriptedDriver, is_full_and_idle, pool_of, queue_up

# -- order of service


def test_waiters_are_served_in_the_order_in_which_they_began_to_wait():
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()
    greenlets = queue_up(pool, range(20), served)
    held.close()
    gevent.joinall(greenlets, raise_error=True)
    assert served == list(range(20))


def test_the_returner_cannot_take_back_what_it_returned_while_somebody_waits():
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()
    waiters = queue_up(pool, ["waiter"], served)
    held.close()
    pool.connect().close()
    served.append("returner")
    gevent.joinall(waiters)
    assert served == ["waiter", "returner"]


def test_a_newcomer_queues_behind_a_waiter_who_was_granted_but_has_not_run_yet():
    pool, served = pool_of(ScriptedDriver(), size=2), []
    first, second = pool.connect(), pool.connect()
    waiters = queue_up(pool, ["a", "b"], served, hold_s=0.01)
    first.close()
    newcomer = queue_up(pool, ["newcomer"], served)
    second.close()
    gevent.joinall(waiters + newcomer)
    assert served == ["a", "b", "newcomer"]


def test_one_return_resumes_one_greenlet():
    pool, served = pool_of(ScriptedDriver()), []
    held = pool.connect()
    waiters = queue_up(pool, range(5), served, hold_s=10)
    held.close()
    gevent.sleep(0.01)
    assert served == [0] and pool.waiting() == 4
    gevent.killall(waiters)


def test_a_slot_freed_without_a_connection_goes_to_the_first_waiter_too():
    driver = ScriptedDriver()
    pool, served = pool_of(driver), []
    held = pool.connect()
    waiters = queue_up(pool, "ab", served)
    held.detach()
    gevent.joinall(waiters)
    assert served == ["a", "b"] and driver.attempts == 2
    held.close()


def test_live_connections_are_lent_before_records_that_must_reconnect():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=3)
    dead, soft, live = (pool.connect() for _ in range(3))
    kept = live.dbapi_connection
    live.close()
    dead.invalidate()
    soft.invalidate(soft=True)
    soft.close()
    assert pool.connect().dbapi_connection is kept and driver.attempts == 3


@pytest.mark.parametrize(("use_lifo", "expected"), [(True, [2, 2]), (False, [0, 1])])
def test_idle_connections_are_reused_first_or_last_in_first_out(use_lifo, expected):
    pool = pool_of(ScriptedDriver(), size=3, use_lifo=use_lifo)
    loans = [pool.connect() for _ in range(3)]
    raw = [loan.dbapi_connection for loan in loans]
    for loan in loans:
        loan.close()
    reused = []
    for _ in range(2):
        loan = pool.connect()
        reused.append(raw.index(loan.dbapi_connection))
        loan.close()
    assert reused == expected


# -- timeouts


def test_a_wait_ends_at_the_timeout_and_never_before_even_after_burning_cpu():
    pool = pool_of(ScriptedDriver(), timeout=0.1)
    held = pool.connect()

    def burn_then_wait():
        gevent.sleep(0)
        busy_until = time.monotonic() + 0.08
        while time.monotonic() < busy_until:
            pass
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        return time.monotonic() - began, caught.value.code

    waited, code = gevent.spawn(burn_then_wait).get()
    assert 0.1 <= waited < 10 and code == "3o7r"
    held.close()


def test_each_waiter_times_out_by_its_own_clock():
    pool = pool_of(ScriptedDriver(), timeout=0.08)
    held, waits = pool.connect(), []

    def wait():
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        waits.append(time.monotonic() - began)

    greenlets = []
    for _ in range(4):
        greenlets.append(gevent.spawn(wait))
        gevent.sleep(0.02)
    gevent.joinall(greenlets, raise_error=True)
    assert len(waits) == 4 and min(waits) >= 0.08 and max(waits) < 10
    assert pool.snapshot().timeouts == 4
    held.close()
    assert is_full_and_idle(pool)


def test_a_grant_and_a_timeout_in_the_same_pass_of_the_loop_lose_nothing():
    for delay_ms in range(8, 13):
        pool = pool_of(ScriptedDriver(), timeout=0.01)
        held = pool.connect()
        waiters = queue_up(pool, "abc", [])
        gevent.spawn_later(delay_ms / 1000, held.close)
        gevent.joinall(waiters)
        gevent.sleep(0.005)
        snapshot = pool.snapshot()
        assert snapshot.timeouts + snapshot.handed_over == 3
        assert is_full_and_idle(pool)


def test_timeout_zero_fails_at_once_and_timeout_none_waits_for_ever():
    pool = pool_of(ScriptedDriver(), timeout=0)
    held = pool.connect()
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    held.close()
    pool = pool_of(ScriptedDriver(), timeout=None)
    held, served = pool.connect(), []
    waiters = queue_up(pool, "a", served)
    gevent.sleep(0.02)
    held.close()
    gevent.joinall(waiters)
    assert served == ["a"]


def test_the_timer_does_not_keep_the_event_loop_alive_once_nobody_waits():
    pool = pool_of(ScriptedDriver(), timeout=30)
    held = pool.connect()
    waiters = queue_up(pool, "a", [])
    held.close()
    gevent.joinall(waiters)
    began = time.monotonic()
    assert gevent.wait(timeout=5) and time.monotonic() - began < 4
