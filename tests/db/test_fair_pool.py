"""FairPool's promises, each by name, on a scripted driver: order of service, safety at every switch, shedding."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import gevent
import pytest
from gevent.hub import LoopExit
from sqlalchemy import create_engine, event, exc
from sqlalchemy.pool import PoolProxiedConnection

from poolbench import fair_pool
from poolbench.fair_pool import BOUNDS_NS, CannotWait, FairPool, PoolDeadlock, QueueFull, checkout_of
from tests.db.fair_pool_driver import DriverError, ScriptedDriver
from tests.support.paths import ROOT


def pool_of(driver, size=1, max_overflow=0, timeout=5, **kw):
    return FairPool(driver.connect, pool_size=size, max_overflow=max_overflow, timeout=timeout, **kw)


def queue_up(pool, names, served, hold_s=0.0):
    """Start one greenlet for each name, in this order; each notes its name in `served` when it is."""

    def borrow(name):
        connection = pool.connect()
        served.append(name)
        if hold_s:
            gevent.sleep(hold_s)
        connection.close()

    greenlets = [gevent.spawn(borrow, name) for name in names]
    gevent.sleep(0)
    return greenlets


def eventually(condition, within_s=3.0):
    """Whether the condition comes true while the event loop turns."""
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        gevent.sleep(0.002)
    return condition()


def is_full_and_idle(pool):
    """Whether every slot can be had at once, and nobody holds or waits for one."""
    limit = pool.snapshot().limit
    held = [pool.connect() for _ in range(limit)]
    for connection in held:
        connection.close()
    return pool.checkedout() == 0 and pool.waiting() == 0


def run_script(code):
    """Run Python in a process of its own; its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    assert 0.1 <= waited < 0.6 and code == "3o7r"
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
    assert len(waits) == 4 and min(waits) >= 0.08 and max(waits) < 0.5
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
    assert gevent.wait(timeout=5) and time.monotonic() - began < 1


# -- death at any switch


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
    assert errors == [DriverError] * 10 and time.monotonic() - began < 1
    driver.down = False
    assert is_full_and_idle(pool)


def test_a_slow_connect_delays_no_return_and_no_other_checkout():
    driver = ScriptedDriver()
    pool, served = pool_of(driver, size=2), []
    held = pool.connect()
    driver.delays["connect"] = 0.2
    slow = queue_up(pool, ["slow"], served)
    began = time.monotonic()
    held.close()
    pool.connect().close()
    assert time.monotonic() - began < 0.05 and served == []
    gevent.joinall(slow)
    assert served == ["slow"]


def test_a_close_that_raises_or_is_killed_frees_the_slot():
    driver = ScriptedDriver(close=0.02)
    pool, served = pool_of(driver, size=1, max_overflow=1), []
    first, second = pool.connect(), pool.connect()
    first.close()
    closing = gevent.spawn(second.close)  # overflow: closed on return
    gevent.sleep(0.001)
    assert pool.checkedout() == 1, "a slot is taken to the end of close"
    closing.kill()
    assert pool.checkedout() == 0
    driver.hooks["close"] = lambda: 1 / 0
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


# -- returns from the garbage collector, from threads, across a fork


def test_a_forgotten_connection_goes_to_the_first_waiter():
    pool, served = pool_of(ScriptedDriver(rollback=0.005)), []
    forgotten = [pool.connect()]
    waiters = queue_up(pool, "ab", served)
    cycle = [forgotten.pop()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    gevent.joinall(waiters, timeout=1)
    assert served == ["a", "b"] and is_full_and_idle(pool)


def test_collections_that_switch_greenlets_inside_the_pools_own_code_lose_nothing():
    """A profile hook collects garbage, with a rollback that switches, at calls all over the pool."""
    driver = ScriptedDriver(rollback=0.0)
    pool, served, calls = pool_of(driver, size=2), [], [0]

    def forget_one():
        try:
            with gevent.Timeout(0.05):
                loan = pool.connect()
        except gevent.Timeout:
            return
        cycle = [loan]
        cycle.append(cycle)

    def borrow(name):
        for _ in range(5):
            loan = pool.connect()
            gevent.sleep(0)
            loan.close()
        served.append(name)

    def collect(frame, what, _):
        if frame.f_code.co_filename.endswith("fair_pool.py"):
            calls[0] += 1
            if calls[0] % 7 == 0:
                gc.collect()

    def hooked(work, *args):
        sys.setprofile(collect)
        try:
            work(*args)
        finally:
            sys.setprofile(None)

    def collect_now_and_then():
        while True:
            gevent.sleep(0.01)
            gc.collect()

    gc.collect()
    gc.freeze()  # or each collection walks through all that pytest has imported
    try:
        collector = gevent.spawn(collect_now_and_then)
        greenlets = [gevent.spawn(hooked, borrow, name) for name in range(8)]
        greenlets += [gevent.spawn(hooked, forget_one) for _ in range(8)]
        gevent.joinall(greenlets, timeout=10, raise_error=True)
        collector.kill()
    finally:
        gc.unfreeze()
    gc.collect()
    assert sorted(served) == list(range(8)) and driver.most_open <= 2
    gevent.sleep(0.06)
    assert is_full_and_idle(pool)


def test_a_return_in_a_native_thread_wakes_the_waiter_in_its_event_loop():
    pool = pool_of(ScriptedDriver(), timeout=5)
    held, served = pool.connect(), []
    waiters = queue_up(pool, "a", served)
    returner = threading.Thread(target=lambda: (time.sleep(0.05), held.close()))
    returner.start()
    began = time.monotonic()
    gevent.joinall(waiters, timeout=4)  # nothing else wakes this loop up
    assert served == ["a"] and time.monotonic() - began < 1
    returner.join()


def test_waiting_in_a_second_native_thread_is_refused_with_a_clear_error():
    pool = pool_of(ScriptedDriver(), timeout=5)
    held, errors = pool.connect(), []
    waiters = queue_up(pool, "a", [])

    def wait():
        try:
            pool.connect()
        except CannotWait as error:
            errors.append(str(error))

    began = time.monotonic()
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(5)
    assert len(errors) == 1 and "another native thread" in errors[0] and time.monotonic() - began < 1
    assert pool.waiting() == 1
    held.close()
    gevent.joinall(waiters)
    assert is_full_and_idle(pool)


def test_plain_threads_may_wait_where_no_event_loop_does():
    out = run_script(
        """
import threading, time
from gevent._hub_local import get_hub_if_exists
from poolbench import FairPool
from tests.db.fair_pool_driver import ScriptedDriver
pool, driver = None, ScriptedDriver()
pool = FairPool(driver.connect, pool_size=1, max_overflow=0, timeout=5)
held, served = pool.connect(), []
def wait(name):
    loan = pool.connect()
    served.append(name)
    loan.close()
    assert get_hub_if_exists() is None
threads = []
for name in range(4):
    threads.append(threading.Thread(target=wait, args=(name,)))
    threads[-1].start()
    while pool.waiting() <= name: time.sleep(0.001)
held.close()
for thread in threads: thread.join(5)
print(served, pool.checkedout(), get_hub_if_exists())
"""
    )
    assert out.split("\n")[0] == "[0, 1, 2, 3] 0 None"


def test_a_plain_script_borrows_and_even_times_out_without_an_event_loop():
    out = run_script(
        """
from gevent._hub_local import get_hub_if_exists
from sqlalchemy import create_engine, text, exc
from poolbench import FairPool
engine = create_engine("sqlite://", poolclass=FairPool, pool_size=1, max_overflow=0, pool_timeout=0.05)
with engine.connect() as connection:
    print(connection.scalar(text("select 42")))
    try: engine.connect()
    except exc.TimeoutError as error: print(error.code)
print(get_hub_if_exists(), engine.pool.checkedout())
"""
    )
    assert out.split() == ["42", "3o7r", "None", "0"]


def test_a_forked_child_forgets_the_parents_connections_and_starts_empty():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=2, timeout=0.2)
    idle, lent = pool.connect(), pool.connect()
    raw = [idle.dbapi_connection, lent.dbapi_connection]
    idle.close()
    rollbacks = [connection.rollbacks for connection in raw]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        checks = [pool.checkedin() == pool.checkedout() == pool.waiting() == 0]
        lent.close()
        gc.collect()
        mine = [pool.connect(), pool.connect()]
        checks.append(not {loan.dbapi_connection for loan in mine} & set(raw))
        checks.append(not any(connection.closed for connection in raw))
        checks.append([connection.rollbacks for connection in raw] == rollbacks)
        checks.append(pool.checkedout() == 2)
        os.write(write, repr(checks).encode())
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1000) == b"[True, True, True, True, True]"
    os.close(read)
    lent.close()
    assert {pool.connect().dbapi_connection, pool.connect().dbapi_connection} <= set(raw)


def test_a_preloaded_pool_leaves_no_greenlet_and_no_connection_in_the_forked_worker():
    out = run_script(
        """
import os, gevent, gevent.monkey
gevent.monkey.patch_all()
from poolbench import FairPool
from tests.db.fair_pool_driver import ScriptedDriver
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=3, min_size=2, idle_timeout=9, maintenance_interval=0.02)
pool.connect().close()
gevent.sleep(0.05)
assert pool.checkedin() == 2
pid = os.fork()
if pid == 0:
    before = driver.attempts
    gevent.sleep(0.1)
    print(pool.checkedin(), driver.attempts - before, flush=True)
    pool.connect().close()
    gevent.sleep(0.1)
    print(pool.checkedin(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(pool.checkedin())
"""
    )
    assert out.split() == ["0", "0", "2", "2"]


@pytest.mark.skipif(not fair_pool._KNOWN_SQLALCHEMY, reason="with this SQLAlchemy the loan has SQLAlchemy's finalizer")
def test_a_loan_that_outlives_the_interpreter_makes_no_noise():
    code = """
import psycopg2.extensions
from poolbench import FairPool
from tests.db.fair_pool_driver import ScriptedDriver
driver = ScriptedDriver(rollback=0.01)
pool = FairPool(driver.connect)
kept = pool.connect()
cycle = [pool.connect()]
cycle.append(cycle)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- dispose and invalidation


def test_dispose_keeps_the_limit_and_the_counters_and_serves_waiters_in_order():
    driver = ScriptedDriver(close=0.002, connect=0.002)
    pool, served = pool_of(driver, size=3), []
    held = [pool.connect() for _ in range(3)]
    old = [loan.dbapi_connection for loan in held]
    waiters = queue_up(pool, range(6), served, hold_s=0.005)
    pool.dispose()
    assert pool.checkedout() == 3 and pool.checkedin() == 0
    for loan in held:
        loan.close()
    gevent.joinall(waiters)
    assert served == list(range(6)) and driver.most_open == 3
    assert all(connection.closed for connection in old)
    assert pool.checkedout() == 0 and pool.snapshot().closed["disposed"] == 3


def test_a_connection_that_was_being_opened_during_dispose_is_closed_on_return():
    driver = ScriptedDriver(connect=0.01)
    pool = pool_of(driver, size=1)
    loans = []
    greenlet = gevent.spawn(lambda: loans.append(pool._do_get()))
    gevent.sleep(0)
    pool.dispose()
    greenlet.join()
    pool._do_return_conn(loans[0])
    assert driver.open == 0 and pool.checkedout() == 0


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
        names = ("size", "max_overflow", "timeout", "use_lifo", "max_waiting", "min_size", "max_lifetime")
        names += ("lifetime_jitter", "idle_timeout", "maintenance_interval", "leak_threshold", "detect_deadlock")
        return [getattr(pool, f"_{name}") for name in (*names, "recycle", "reset_on_return", "dialect")]

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


# -- load shedding, numbers


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
    assert 9_000_000 <= holds[0] < 500_000_000


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
    assert calm.wait.count == calm.hold.count == 3 and calm.connect.count == 3
    assert sum(calm.wait.counts[1:]) == 1, "two did not wait"


def test_a_histograms_quantile_is_within_a_fifth_and_its_mean_exact():
    pool = pool_of(ScriptedDriver())
    for duration_ns in range(1000, 2_000_000, 1000):
        pool._stats.hold.add(duration_ns)
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
    assert pool.estimated_wait_ns() == pytest.approx(4 * pool.snapshot().hold.mean_ns / 2, rel=0.01)
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


# -- housekeeping


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
    driver.down = True
    gevent.sleep(0.11)
    assert 1 <= driver.attempts - 1 <= 6 and pool.checkedout() == 0
    driver.down = False
    assert eventually(lambda: driver.open == 3)
    pool.dispose()


def test_connections_idle_too_long_are_closed_down_to_min_size_without_anyone_asking():
    driver = ScriptedDriver()
    pool = pool_of(driver, size=4, min_size=1, idle_timeout=0.03, maintenance_interval=0.01, use_lifo=True)
    loans = [pool.connect() for _ in range(4)]
    for loan in loans:
        loan.close()
    assert driver.open == 4
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
    gevent.sleep(0.06)
    loan.close()
    [record] = [record for record in caplog.records if "is lent for" in record.getMessage()]
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


# -- drop-in


def test_every_parameter_is_positional_or_keyword_since_create_engine_refuses_others():
    import inspect

    kinds = {p.kind for p in inspect.signature(FairPool.__init__).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_KEYWORD}


def test_a_min_size_above_the_pool_size_is_refused():
    with pytest.raises(exc.ArgumentError, match="min_size"):
        pool_of(ScriptedDriver(), size=2, min_size=3)


def test_status_and_gauges_count_connections_being_opened():
    driver = ScriptedDriver(connect=0.01)
    pool = pool_of(driver, size=2, max_overflow=1)
    assert (pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow(), pool.timeout()) == (2, 0, 0, -2, 5)
    opening = queue_up(pool, "a", [])
    assert pool.checkedout() == 1 and pool.snapshot().connecting == 1
    gevent.joinall(opening)
    assert pool.status() == (
        "Pool size: 2  Connections in pool: 1 Current Overflow: -1 Current Checked out connections: 0 Waiting: 0"
    )


def test_a_callback_of_the_event_loop_cannot_wait_but_may_borrow_what_is_free():
    pool, outcomes = pool_of(ScriptedDriver()), []

    def callback():
        try:
            outcomes.append(pool.connect())
        except CannotWait as error:
            outcomes.append(error)

    gevent.get_hub().loop.run_callback(callback)
    gevent.get_hub().loop.run_callback(callback)
    gevent.sleep(0.01)
    loan, error = outcomes
    assert "callback of the event loop" in str(error)
    loan.close()
    assert is_full_and_idle(pool)
