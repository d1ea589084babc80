"""FairPool opens connections for its queue: whatever comes first, as many as demand and returns ask for, with a back-off."""

import time

import gevent
import pytest
from sqlalchemy import create_engine, exc

from loadgen.lab.fairness import with_pool
from poolbench import FairPool, QueueFull, checkout_of
from poolbench.growth import Growth
from tests.poolbench.fair_pool_driver import (
    DriverError,
    ScriptedDriver,
    eventually,
    is_full_and_idle,
    pool_of,
    queue_up,
    run_script,
)
from tests.poolbench.test_pool_in_threads import PRELUDE, WITHOUT

MS = 1_000_000


def with_idle(driver, size, idle, **kw):
    """A pool of `size` with that many idle connections."""
    pool = pool_of(driver, size=size, **kw)
    for loan in [pool.connect() for _ in range(idle)]:
        loan.close()
    return pool


# -- whatever comes first


def test_a_spike_is_served_by_the_few_open_connections_where_they_come_back_soon():
    driver = ScriptedDriver()
    pool, served = with_idle(driver, 50, 5), []
    driver.delays["connect"] = 0.15
    pool._openers.growth.connect_ns = 150 * MS  # as it has seen before
    gevent.joinall(queue_up(pool, range(50), served, hold_s=0.002))
    assert served == list(range(50))
    assert driver.attempts - 5 <= 5


def test_where_nothing_comes_back_each_waiter_gets_a_connection_of_its_own():
    driver = ScriptedDriver()
    pool, served = with_idle(driver, 50, 5), []
    driver.delays["connect"] = 0.15
    gevent.joinall(queue_up(pool, range(50), served, hold_s=1))
    assert len(served) == driver.attempts == driver.most_open == 50


def test_a_cold_pool_opens_a_connection_for_each_waiter_at_once():
    driver = ScriptedDriver(connect=0.1)
    pool, served = pool_of(driver, size=20), []
    gevent.joinall(queue_up(pool, range(20), served, hold_s=0.001))
    assert sorted(served) == list(range(20)) and driver.most_open == 20


def test_no_more_are_opened_at_a_time_than_openers_allows():
    driver = ScriptedDriver(connect=0.02)
    pool, opening = pool_of(driver, size=10, openers=2), []
    driver.hooks["connect"] = lambda: opening.append(pool.snapshot().connecting)
    gevent.joinall(queue_up(pool, range(10), [], hold_s=1.0))
    assert max(opening) == 2 and driver.attempts == 10


def test_a_connection_opened_too_late_is_kept_and_those_beyond_the_size_are_closed():
    driver = ScriptedDriver(connect=0.05)
    pool = pool_of(driver, timeout=0.02)
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    assert eventually(lambda: pool.checkedin() == 1)
    assert checkout_of(pool.connect()).connect_ns == 0

    pool = pool_of(driver, size=1, max_overflow=2, timeout=0.02)
    for greenlet in [gevent.spawn(pytest.raises, exc.TimeoutError, pool.connect) for _ in range(3)]:
        greenlet.get()
    assert eventually(lambda: pool.snapshot().created == 3 and pool.checkedout() == 0)
    assert pool.checkedin() == 1 and pool.snapshot().closed["overflow"] == 2


def test_killing_whoever_asked_does_not_throw_its_connection_away():
    driver = ScriptedDriver(connect=0.02)
    pool = pool_of(driver)
    asker = gevent.spawn(pool.connect)
    gevent.sleep(0.005)
    asker.kill()
    assert eventually(lambda: pool.checkedin() == 1) and driver.attempts == 1


def test_max_waiting_does_not_count_those_for_whom_connections_are_opened():
    driver = ScriptedDriver(connect=0.02)
    pool, outcomes = pool_of(driver, size=2, max_waiting=0, max_wait=0.001), []

    def ask():
        try:
            with pool.connect():
                gevent.sleep(0.05)
            outcomes.append("served")
        except QueueFull:
            outcomes.append("refused")

    gevent.joinall([gevent.spawn(ask) for _ in range(3)], raise_error=True)
    assert outcomes == ["refused", "served", "served"]


def test_a_borrower_that_may_not_wait_opens_its_connection_itself():
    pool = pool_of(ScriptedDriver(connect=0.01), timeout=0)
    loan = pool.connect()
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    loan.close()


@WITHOUT
def test_threads_share_what_comes_back_and_open_what_does_not(surroundings):
    code = """
for hold_s, most_opened, within_s in ((0.002, 5, 5), (0.6, 45, 5)):
    driver = ScriptedDriver()
    pool = FairPool(driver.connect, pool_size=50, max_overflow=0, timeout=10)
    for loan in [pool.connect() for _ in range(5)]:
        loan.close()
    driver.hooks["connect"] = lambda: time.sleep(0.15)
    pool._openers.growth.connect_ns = 150_000_000  # as it has seen before

    def borrow(_):
        with pool.connect():
            time.sleep(hold_s)

    began = time.monotonic()
    for thread in threads(borrow, range(50)):
        thread.join(10)
    took_s = time.monotonic() - began
    print(took_s < within_s, driver.attempts - 5 <= most_opened, pool.waiting(), eventually(lambda: not pool.checkedout()))
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["True", "True", "0", "True"] * 2


@WITHOUT
def test_one_thread_alone_opens_its_connections_itself(surroundings):
    code = """
opened_by = []
driver = ScriptedDriver()
driver.hooks["connect"] = lambda: opened_by.append(threading.get_ident())
pool = FairPool(driver.connect, pool_size=3, idle_timeout=60)
loans = [pool.connect() for _ in range(3)]
driver.down = True
try:
    pool.connect()
except Exception as error:
    print(type(error).__name__)
print(set(opened_by) == {threading.get_ident()})
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["DriverError", "True"]


def test_connections_of_sqlite_belong_to_the_thread_that_borrows():
    code = """
from sqlalchemy import create_engine, text
engine = create_engine("sqlite://", poolclass=FairPool)
threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
with engine.connect() as connection:
    print(connection.execute(text("select 1")).scalar())
"""
    assert run_script(PRELUDE + code).split() == ["1"]


# -- failures


def test_the_head_of_the_queue_is_told_of_a_failure_and_the_next_is_served():
    driver = ScriptedDriver(connect=0.01)
    pool, outcomes = pool_of(driver), []
    driver.failures.append(DriverError("refused"))

    def ask(name):
        try:
            pool.connect().close()
            outcomes.append(name)
        except DriverError as error:
            outcomes.append(f"{name}: {error}")

    gevent.joinall([gevent.spawn(ask, name) for name in "abc"], raise_error=True)
    assert outcomes == ["a: refused", "b", "c"]


class OutOfTimeError(BaseException):
    """As a driver's or a listener's own limit may raise: no Exception, and no kill of the borrower either."""


@pytest.mark.parametrize("was_used", [False, True], ids=["a new slot", "a slot used before"])
def test_whatever_a_connect_raises_is_told_at_once_and_tried_once(was_used):
    driver = ScriptedDriver(connect=0.001)
    pool = pool_of(driver, size=1, timeout=30)
    if was_used:
        loan = pool.connect()
        loan.invalidate()
        loan.close()
    before = driver.attempts
    driver.failures.append(OutOfTimeError("too late"))
    began = time.monotonic()
    with pytest.raises(OutOfTimeError):
        pool.connect()
    assert time.monotonic() - began < 20
    assert driver.attempts == before + 1
    assert pool.snapshot().connect_errors == 1
    pool.connect().close()
    assert is_full_and_idle(pool)


def test_a_borrower_that_is_killed_while_it_connects_is_no_failure_of_the_server():
    driver = ScriptedDriver(connect=30)
    pool = pool_of(driver, size=1, timeout=0)
    borrower = gevent.spawn(pool.connect)
    gevent.sleep(0.01)
    assert driver.attempts == 1
    borrower.kill()
    assert pool.snapshot().connect_errors == 0
    driver.delays.clear()
    pool.connect().close()
    assert is_full_and_idle(pool)


def test_a_failure_is_nobodys_while_connections_are_lent_and_comes_with_the_timeout():
    driver = ScriptedDriver()
    pool, served = pool_of(driver, size=2, timeout=0.2), []
    held = pool.connect()
    driver.down = True
    with pytest.raises(exc.TimeoutError) as caught:
        pool.connect()
    assert str(caught.value.__cause__) == "the database is down"
    asker = queue_up(pool, "a", served)
    gevent.sleep(0.01)
    held.close()
    gevent.joinall(asker)
    assert served == ["a"]


def test_an_outage_is_no_storm_and_its_end_is_seen_soon():
    driver = ScriptedDriver()
    pool, errors, after = with_idle(driver, 10, 0, timeout=30), [], []
    driver.down, is_over = True, []

    def ask():
        while not is_over:
            asked = time.monotonic()
            try:
                with pool.connect():
                    gevent.sleep(0.001)
                after.append(time.monotonic())
            except DriverError:
                errors.append(time.monotonic() - asked)
                gevent.sleep(0.01)

    greenlets = [gevent.spawn(ask) for _ in range(50)]
    gevent.sleep(1)
    attempts, driver.down, back = driver.attempts, False, time.monotonic()
    assert eventually(lambda: len(after) >= 20)
    is_over.append(1)
    gevent.joinall(greenlets)
    # Ten of the first moment, then about ten a second.
    assert attempts <= 25 and len(errors) > 100 and max(errors) < 2
    assert after[0] - back < 1.5
    assert is_full_and_idle(pool)


def test_pauses_between_attempts_grow_with_the_outage_and_have_a_bound():
    growth, now_ns, pauses_ms = Growth(None, chance=lambda: 0.5), 0, []
    for _ in range(200):
        growth.failed(now_ns, DriverError(), 0)
        assert growth.wanted(now_ns, 5, 0, 0) == 0
        next_ns = growth.look_again_ns(now_ns)
        assert growth.wanted(next_ns, 5, 0, 0) == 1
        pauses_ms.append((next_ns - now_ns) / MS)
        now_ns = next_ns
    assert pauses_ms[:3] == [50, 100, 100] and pauses_ms == sorted(pauses_ms) and pauses_ms[-1] == 2000
    growth.succeeded(1 * MS)
    assert growth.wanted(now_ns, 5, 1, 0) == 5, "all at once"


def test_the_jitter_is_a_quarter_either_way_and_pauses_fit_into_the_pools_timeout():
    for chance, expected_ms in ((0, 37.5), (1, 62.5)):
        growth = Growth(None, chance=lambda chance=chance: chance)
        growth.failed(0, DriverError(), 0)
        assert growth.look_again_ns(0) == expected_ms * MS
    driver = ScriptedDriver()
    driver.down = True
    pool, began = pool_of(driver, timeout=0.04), time.monotonic()
    for _ in range(3):
        with pytest.raises(DriverError):
            pool.connect()
    assert time.monotonic() - began < 1.5


# -- warm-up


def test_min_size_is_opened_in_parallel_without_a_loan():
    driver, opening = ScriptedDriver(connect=0.1), []
    driver.hooks["connect"] = lambda: opening.append(pool.snapshot().connecting)
    pool = pool_of(driver, size=8, min_size=5, warm_up=True)
    assert eventually(lambda: pool.checkedin() == 5)
    assert len(opening) == max(opening) == 5
    pool.dispose()
    new = pool.recreate()
    assert not eventually(new.checkedin, 0.2), "whoever disposes of an engine may be leaving"
    new.connect().close()
    assert eventually(lambda: new.checkedin() == 5), "the first request begins"
    new.dispose()


@pytest.mark.parametrize("is_disposed", [False, True])
def test_as_many_spare_connections_are_opened_as_are_missing_though_each_is_open_at_once(monkeypatch, is_disposed):
    begun = []

    def at_once(work):
        begun.append(work)
        assert len(begun) < 100
        work()

    driver = ScriptedDriver()
    pool = pool_of(driver, size=8, min_size=3)
    generation = pool._generation
    if is_disposed:
        driver.hooks["connect"] = pool.dispose
    monkeypatch.setattr("poolbench.openers.start_here", at_once)
    pool._openers.fill(3, generation)
    assert len(begun) == driver.attempts == (1 if is_disposed else 3)
    assert pool.checkedin() == (0 if is_disposed else 3)


@WITHOUT
def test_threads_too_find_a_warm_pool_whose_connections_had_all_listeners(postgres, surroundings):
    url = with_pool(postgres.url, "fair", pool_size=6, max_overflow=0, min_size=4, warm_up="on")
    code = f"""
from sqlalchemy import create_engine, text
engine = create_engine({url!r})
print(eventually(lambda: engine.pool.checkedin() == 4), engine.dialect.server_version_info[0] > 9)
with engine.connect() as connection:
    print(connection.execute(text("select 1")).scalar())
engine.dispose()
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["True", "True", "1"]


def test_openers_and_warm_up_are_arguments_of_the_engine_and_of_the_url():
    assert FairPool(ScriptedDriver().connect, openers=3).recreate()._options["openers"] == 3
    engine = create_engine("postgresql+psycopg2://h/x?plugin=poolbench&pool=fair&openers=2&warm_up=off")
    assert engine.pool._options["openers"] == 2 and engine.pool._options["warm_up"] is False
    for wrong in (0, -1, 1.5, "2"):
        with pytest.raises(exc.ArgumentError, match="openers must be a whole number from 1"):
            FairPool(ScriptedDriver().connect, openers=wrong)
