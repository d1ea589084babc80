"""FairPool's promises under overload, and its figures."""

import time
from statistics import median

import gevent
import pytest
from sqlalchemy import create_engine, event, exc
from sqlalchemy.pool import PoolProxiedConnection

from poolbench import FairPool, PoolDeadlock, QueueFull, checkout_of
from poolbench.telemetry import BOUNDS_NS
from tests.poolbench.fair_pool_driver import ScriptedDriver, is_full_and_idle, pool_of, queue_up


def test_max_waiting_refuses_the_next_at_once_and_a_dead_waiter_frees_its_place():
    pool = pool_of(ScriptedDriver(), max_waiting=2)
    held, served = pool.connect(), []
    waiters = queue_up(pool, "ab", served)
    with pytest.raises(QueueFull) as caught:
        pool.connect()
    assert isinstance(caught.value, exc.TimeoutError)
    waiters[0].kill()
    waiters += queue_up(pool, "c", served)
    held.close()
    gevent.joinall(waiters)
    assert served == ["b", "c"] and pool.snapshot().rejected == 1


def test_max_waiting_zero_never_waits():
    pool = pool_of(ScriptedDriver(), max_waiting=0)
    held = pool.connect()
    with pytest.raises(QueueFull):
        pool.connect()
    held.close()
    pool.connect().close()


def test_each_checkout_knows_its_own_wait_connect_and_hold():
    driver = ScriptedDriver(connect=0.02)
    engine = create_engine("sqlite://", creator=driver.connect, poolclass=FairPool, pool_size=1, max_overflow=0,
                           _initialize=False)  # fmt: skip
    costs = []

    def request():
        with engine.connect() as connection:
            gevent.sleep(0.01)
            costs.append(checkout_of(connection))

    gevent.joinall([gevent.spawn(request) for _ in range(3)], raise_error=True)
    connects = [cost.connect_ns / 1e6 for cost in costs]
    waits = [cost.wait_ns / 1e6 for cost in costs]
    assert connects[0] >= 19 and connects[1:] == [0, 0]
    assert waits[0] == 0 and 29 <= waits[1] <= waits[2] - 9 < 500
    assert all(9 <= cost.held_ns / 1e6 < 500 for cost in costs)


def test_two_checkouts_of_one_request_are_told_apart():
    pool = pool_of(ScriptedDriver(connect=0.01), size=2)
    pool.connect().close()
    first, second = pool.connect(), pool.connect()
    assert checkout_of(first).connect_ns == 0 and checkout_of(second).connect_ns >= 9_000_000
    assert isinstance(first, PoolProxiedConnection) and not first.info and not first.record_info
    second.close()
    assert checkout_of(second) is None


def test_a_checkin_listener_sees_the_whole_hold():
    pool, holds = pool_of(ScriptedDriver()), []
    event.listen(pool, "checkin", lambda _, record: holds.append(checkout_of(record).held_ns))
    with pool.connect():
        gevent.sleep(0.01)
    assert 9_000_000 <= holds[0] < 20_000_000_000


def test_a_snapshot_counts_what_happened():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=1, max_overflow=1, timeout=0.01)
    held = [pool.connect(), pool.connect()]
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    waiters = queue_up(pool, "a", [])
    busy = pool.snapshot()
    assert (busy.size, busy.limit, busy.in_use, busy.idle, busy.waiting) == (1, 2, 2, 0, 1)
    held[0].invalidate()
    gevent.joinall(waiters)
    held[1].close()
    calm = pool.snapshot()
    assert (calm.in_use, calm.idle, calm.waiting, calm.connecting) == (0, 1, 0, 0)
    assert (calm.checkouts, calm.handed_over, calm.timeouts, calm.created) == (3, 1, 1, 3)
    assert dict(calm.closed) == {"overflow": 1, "invalidated": 1}
    assert calm.hold.count == calm.connect.count == 3
    assert calm.wait.count == 4 and sum(calm.wait.counts[1:]) == 2, "two did not wait, and one waited in vain"


def test_the_histogram_of_waits_has_those_that_timed_out_were_killed_or_were_refused():
    pool = pool_of(ScriptedDriver(), timeout=0.05, max_waiting=2)
    held = pool.connect()
    killed, timed_out = queue_up(pool, "ab", [])
    with pytest.raises(QueueFull):
        pool.connect()
    gevent.sleep(0.02)
    killed.kill()
    gevent.joinall([timed_out])
    held.close()
    snapshot = pool.snapshot()
    assert (snapshot.cancelled, snapshot.timeouts, snapshot.rejected) == (1, 1, 1)
    assert snapshot.wait.count == 4 and snapshot.wait.counts[0] == 2, "the first loan, and the one refused"
    assert snapshot.wait.quantile_ns(0.75) >= 20_000_000 and snapshot.wait.quantile_ns(1) >= 50_000_000


def test_a_deadlock_counts_as_a_wait_of_zero():
    pool = pool_of(ScriptedDriver(), detect_deadlock=True)
    held = pool.connect()
    with pytest.raises(PoolDeadlock):
        pool.connect()
    held.close()
    assert pool.snapshot().wait.counts[0] == 2 and pool.snapshot().wait.count == 2


def test_a_histograms_quantile_is_within_a_fifth_and_its_mean_exact():
    pool = pool_of(ScriptedDriver())
    for duration_ns in range(1000, 2_000_000, 1000):
        pool._statistics.hold.add(duration_ns)
    hold = pool.snapshot().hold
    assert hold.mean_ns == pytest.approx(1_000_000)
    for q in (0.1, 0.5, 0.9, 0.99):
        assert q * 2_000_000 * 0.99 <= hold.quantile_ns(q) <= q * 2_000_000 * 1.2
    assert BOUNDS_NS[-1] > 120e9


def test_the_estimated_wait_of_a_newcomer_is_queue_times_hold_over_limit():
    pool = pool_of(ScriptedDriver(), size=2)
    for _ in range(4):
        with pool.connect():
            gevent.sleep(0.01)
    assert pool.estimated_wait_ns() == 0
    held = [pool.connect(), pool.connect()]
    waiters = queue_up(pool, "abc", [])
    assert pool.estimated_wait_ns() == pytest.approx(4 * pool.snapshot().hold.mean_ns / 2, rel=0.1)
    for loan in held:
        loan.close()
    gevent.joinall(waiters)


def test_a_deadlock_of_holders_who_wait_is_reported_at_once():
    pool = pool_of(ScriptedDriver(), size=2, timeout=5, detect_deadlock=True)
    outcomes = []

    def take_two():
        first = pool.connect()
        gevent.sleep(0)
        try:
            pool.connect().close()
            outcomes.append("served")
        except PoolDeadlock:
            outcomes.append("deadlock")
        first.close()

    began = time.monotonic()
    gevent.joinall([gevent.spawn(take_two) for _ in range(2)], raise_error=True)
    assert outcomes == ["deadlock", "served"] and time.monotonic() - began < 1
    assert is_full_and_idle(pool)


def test_max_wait_refuses_at_once_who_would_wait_longer_and_serves_the_others():
    pool = pool_of(ScriptedDriver(), size=2, max_wait=0.1)
    for _ in range(30):
        with pool.connect():
            gevent.sleep(0.02)
    outcomes, texts = [], []
    # Ten, if nothing makes the loans longer than what they sleep.
    expected = 2 * 100_000_000 / pool.snapshot().hold.mean_ns

    def ask():
        began = time.monotonic()
        try:
            with pool.connect():
                waited = time.monotonic() - began
                gevent.sleep(0.02)
        except QueueFull as error:
            texts.append(str(error))
            outcomes.append(("refused", time.monotonic() - began))
        else:
            outcomes.append(("served", waited))

    gevent.joinall([gevent.spawn(ask) for _ in range(40)], raise_error=True)
    served = [waited for what, waited in outcomes if what == "served"]
    refused = [waited for what, waited in outcomes if what == "refused"]
    assert 0.7 * expected <= len(served) <= 1.4 * expected + 1 and len(served) + len(refused) == 40
    assert max(served) < 3 and median(refused) < 0.02
    assert all("the wait would take" in text and "at most 0.1 s is allowed" in text for text in texts)
    assert pool.snapshot().rejected == len(refused)


def test_the_estimate_follows_holds_that_change_tenfold_within_a_few_tens_of_loans():
    pool, holds_ms = pool_of(ScriptedDriver(), size=1), []

    def lend(times, hold_ms):
        for _ in range(times):
            with pool.connect() as loan:
                gevent.sleep(hold_ms / 1000)
                holds_ms.append(checkout_of(loan).held_ns / 1e6)

    def estimate_ms():
        with pool.connect():
            return pool.estimated_wait_ns() / 1e6

    for hold_ms in (2, 20, 2):
        lend(50, hold_ms)
        lately_ms = sum(holds_ms[-30:]) / 30
        assert 0.5 * lately_ms <= estimate_ms() <= 2 * lately_ms


def test_the_estimate_counts_loans_that_have_not_ended_yet():
    pool = pool_of(ScriptedDriver(), size=2)
    for _ in range(10):
        pool.connect().close()
    held = [pool.connect(), pool.connect()]
    gevent.sleep(0.05)
    assert pool.estimated_wait_ns() >= 0.5 * 45_000_000
    for loan in held:
        loan.close()


def test_one_loan_that_never_ends_does_not_spoil_the_estimate():
    pool = pool_of(ScriptedDriver(), size=5)
    leaked = pool.connect()
    gevent.sleep(0.2)
    held = [pool.connect() for _ in range(4)]
    assert pool.estimated_wait_ns() < 20_000_000
    for loan in [leaked, *held]:
        loan.close()
