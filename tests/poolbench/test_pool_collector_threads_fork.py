"""FairPool's promises when connections come back from the garbage collector or another thread, and after a fork."""

import gc
import os
import subprocess
import sys
import threading
import time

import gevent
import pytest
from sqlalchemy import exc

from poolbench.records import KNOWN_SQLALCHEMY
from tests.poolbench.fair_pool_driver import (
    ScriptedDriver,
    eventually,
    is_full_and_idle,
    pool_of,
    queue_up,
    run_script,
)
from tests.support.paths import ROOT


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
        if frame.f_code.co_filename.endswith(
            ("fair_pool.py", "fair_queue.py", "greenlets.py", "waiters.py", "records.py")
        ):
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
    collector = gevent.spawn(collect_now_and_then)
    greenlets = [gevent.spawn(hooked, borrow, name) for name in range(8)]
    greenlets += [gevent.spawn(hooked, forget_one) for _ in range(8)]
    try:
        gevent.joinall(greenlets, timeout=10, raise_error=True)
    finally:
        collector.kill()
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
    assert served == ["a"] and time.monotonic() - began < 3.5
    returner.join()


def test_greenlets_and_native_threads_wait_in_one_queue():
    """A greenlet, a thread without and a thread with an event loop: in the order of asking."""
    pool, served = pool_of(ScriptedDriver(), timeout=5), []
    held = pool.connect()
    greenlets = queue_up(pool, ["greenlet"], served)

    def borrow(name):
        loan = pool.connect()
        served.append(name)
        loan.close()

    plain = threading.Thread(target=borrow, args=("thread",))
    looping = threading.Thread(target=lambda: gevent.spawn(borrow, "another loop").get())
    for waiting, thread in ((2, plain), (3, looping)):
        thread.start()
        assert eventually(lambda waiting=waiting: pool.waiting() == waiting)
    greenlets += queue_up(pool, ["last"], served)
    held.close()
    gevent.joinall(greenlets, timeout=3)
    for thread in (plain, looping):
        thread.join(3)
    assert served == ["greenlet", "thread", "another loop", "last"] and is_full_and_idle(pool)


def test_each_kind_of_waiter_times_out_by_itself():
    pool, waits = pool_of(ScriptedDriver(), timeout=0.1), []
    held = pool.connect()

    def wait():
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=wait), threading.Thread(target=lambda: gevent.spawn(wait).get())]
    for thread in threads:
        thread.start()
    gevent.joinall([gevent.spawn(wait) for _ in range(2)], timeout=3)
    for thread in threads:
        thread.join(3)
    assert len(waits) == 4 and min(waits) >= 0.1 and max(waits) < 3
    assert pool.snapshot().timeouts == 4 and pool.waiting() == 0
    held.close()


def test_a_greenlet_that_waits_for_ever_is_served_by_a_thread_although_nothing_else_keeps_its_loop_alive():
    pool, served = pool_of(ScriptedDriver(), timeout=None), []
    held = pool.connect()
    returner = threading.Thread(target=lambda: (time.sleep(0.1), held.close()))
    returner.start()
    queue_up(pool, ["a"], served)
    pool.connect().close()
    returner.join()
    assert served == ["a"]


def test_plain_threads_may_wait_where_no_event_loop_does():
    out = run_script(
        """
import threading, time
from gevent._hub_local import get_hub_if_exists
from poolbench import FairPool
from tests.poolbench.fair_pool_driver import ScriptedDriver
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
        with pytest.raises(exc.InvalidRequestError, match="belongs to the parent process"):
            lent.cursor()
        with pytest.raises(exc.InvalidRequestError, match="belongs to the parent process"):
            lent.commit()
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
from tests.poolbench.fair_pool_driver import ScriptedDriver, eventually
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=3, min_size=2, idle_timeout=60, maintenance_interval=0.02)
pool.connect().close()
assert eventually(lambda: pool.checkedin() == 2)
pid = os.fork()
if pid == 0:
    before = driver.attempts
    gevent.sleep(0.1)
    print(pool.checkedin(), driver.attempts - before, flush=True)
    pool.connect().close()
    print(2 if eventually(lambda: pool.checkedin() == 2) else pool.checkedin(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(pool.checkedin())
"""
    )
    assert out.split() == ["0", "0", "2", "2"]


@pytest.mark.skipif(not KNOWN_SQLALCHEMY, reason="with this SQLAlchemy the loan has SQLAlchemy's finalizer")
def test_a_loan_that_outlives_the_interpreter_makes_no_noise():
    code = """
import psycopg2.extensions
from poolbench import FairPool
from tests.poolbench.fair_pool_driver import ScriptedDriver
driver = ScriptedDriver(rollback=0.01)
pool = FairPool(driver.connect)
kept = pool.connect()
cycle = [pool.connect()]
cycle.append(cycle)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
