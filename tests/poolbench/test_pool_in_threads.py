"""FairPool where there are only threads: in processes that cannot import gevent, and in one that has it and is not patched."""

import subprocess
import sys

import pytest

from loadgen.lab.fairness import with_pool
from tests.poolbench.fair_pool_driver import run_script
from tests.support.paths import ROOT

REFUSE_GEVENT = """
import sys

class RefuseGevent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gevent", "psycogreen", "greenlet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, RefuseGevent())
"""

UNPATCHED_GEVENT = """
import gevent
gevent.sleep(0)  # the main thread has an event loop now, which does not run
"""

WITHOUT = pytest.mark.parametrize(
    "surroundings", [REFUSE_GEVENT, UNPATCHED_GEVENT], ids=["no gevent", "unpatched gevent"]
)

PRELUDE = """
import gc, threading, time
from poolbench import FairPool, QueueFull
from sqlalchemy import exc
from tests.poolbench.fair_pool_driver import ScriptedDriver

def eventually(condition, within_s=20):
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()

def threads(work, names):
    started = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in started:
        thread.start()
    return started
"""


@WITHOUT
def test_threads_are_served_in_the_order_in_which_they_began_to_wait(surroundings):
    code = """
driver, served = ScriptedDriver(), []
pool = FairPool(driver.connect, pool_size=1, max_overflow=0, timeout=10)
held = pool.connect()

def borrow(name):
    loan = pool.connect()
    served.append(name)
    loan.close()

started = []
for name in range(10):
    started += threads(borrow, [name])
    assert eventually(lambda: pool.waiting() == name + 1)
held.close()
for thread in started:
    thread.join(10)
print(served == list(range(10)), pool.checkedout(), pool.snapshot().handed_over, driver.most_open)
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["True", "0", "10", "1"]


@WITHOUT
def test_a_thread_times_out_on_time_and_leaves_the_queue(surroundings):
    code = """
pool = FairPool(ScriptedDriver().connect, pool_size=1, max_overflow=0, timeout=0.1)
held, waits = pool.connect(), []

def wait(_):
    began = time.monotonic()
    try:
        pool.connect()
    except exc.TimeoutError:
        waits.append(time.monotonic() - began)

for thread in threads(wait, range(3)):
    thread.join(10)
print(len(waits), min(waits) >= 0.1, max(waits) < 2, pool.waiting(), pool.snapshot().timeouts)
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["3", "True", "True", "0", "3"]


@WITHOUT
def test_many_threads_share_few_connections_and_lose_none(surroundings):
    code = """
import random
driver, done, wrong = ScriptedDriver(), [], []
pool = FairPool(driver.connect, pool_size=2, max_overflow=1, timeout=20, idle_timeout=60)

def work(seed):
    rng = random.Random(seed)
    for _ in range(40):
        try:
            loan = pool.connect()
            if rng.random() < 0.3:
                time.sleep(rng.random() / 1000)
            rng.choice([loan.close, loan.close, loan.close, loan.invalidate])()
            del loan
            done.append(seed)
        except Exception as error:
            wrong.append(repr(error))

for thread in threads(work, range(16)):
    thread.join(50)
limit = [pool.connect() for _ in range(3)]
print(len(done), wrong[:3], driver.most_open <= 3, pool.checkedout(), pool.waiting())
"""
    assert run_script(surroundings + PRELUDE + code).strip() == "640 [] True 3 0"


@WITHOUT
def test_housekeeping_runs_in_a_thread_of_its_own(surroundings):
    code = """
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=4, max_overflow=0, use_lifo=True, min_size=2, idle_timeout=0.05,
                maintenance_interval=0.01)
pool.connect().close()
print(eventually(lambda: driver.open == 2))
loans = [pool.connect() for _ in range(4)]
for loan in loans:
    loan.close()
del loan, loans
print(eventually(lambda: driver.open == 2), pool.snapshot().closed["idle"])

old = FairPool(driver.connect, max_lifetime=0.05, maintenance_interval=0.01)
old.connect().close()
print(eventually(lambda: old.snapshot().closed.get("lifetime") == 1))

keepers = lambda: [thread for thread in threading.enumerate() if thread.name == "poolbench-housekeeping"]
print(len(keepers()), all(thread.daemon for thread in keepers()))
pool.dispose()
del old
gc.collect()
print(eventually(lambda: keepers() == []))
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["True", "True", "2", "True", "2", "True", "True"]


@WITHOUT
def test_a_forked_child_starts_its_own_housekeeping(surroundings):
    code = """
import os
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=2, min_size=2, maintenance_interval=0.01)
pool.connect().close()
assert eventually(lambda: pool.checkedin() == 2)
pid = os.fork()
if pid == 0:
    time.sleep(0.05)
    before = pool.checkedin()
    pool.connect().close()
    print(before, eventually(lambda: pool.checkedin() == 2), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["0", "True"]


@WITHOUT
def test_housekeeping_goes_on_in_a_child_that_is_forked_in_the_midst_of_it(surroundings):
    code = """
import os
from sqlalchemy import event
pool = FairPool(ScriptedDriver().connect, pool_size=2, use_lifo=True, idle_timeout=0.02, maintenance_interval=0.01)
parent, closing, go_on = os.getpid(), threading.Event(), threading.Event()

@event.listens_for(pool, "close")
def close(*_):
    if os.getpid() == parent:
        closing.set()
        go_on.wait()

pool.connect().close()
closing.wait()
pid = os.fork()
if pid == 0:
    pool.connect().close()
    print(eventually(lambda: pool.snapshot().closed.get("idle") == 1), flush=True)
    os._exit(0)
go_on.set()
os.waitpid(pid, 0)
"""
    assert run_script(surroundings + PRELUDE + code).split() == ["True"]


def test_nothing_of_gevent_is_imported_by_the_library():
    code = """
import sys
import poolbench
from sqlalchemy import create_engine
engine = create_engine("sqlite://?plugin=poolbench&pool=fair&idle_timeout=5")
with engine.connect():
    pass
print([name for name in ("gevent", "psycopg2", "greenlet", "flask") if name in sys.modules])
"""
    assert run_script(code).strip() in ("[]", "['greenlet']")


@WITHOUT
@pytest.mark.parametrize("parameters", [{}, {"idle_timeout": 1, "min_size": 1}], ids=["plain", "with housekeeping"])
def test_threads_on_a_real_server(postgres, surroundings, parameters):
    url = with_pool(postgres.url, "fair", pool_size=3, max_overflow=0, pool_timeout=20, **parameters)
    code = f"""
from sqlalchemy import create_engine, text
engine, outcomes = create_engine({url!r}), []

def work(_):
    for _ in range(5):
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(0.005)"))
            outcomes.append("ok")
        except Exception as error:
            outcomes.append(repr(error))

for thread in threads(work, range(12)):
    thread.join(60)
print(set(outcomes), len(outcomes), engine.pool.checkedout())
"""
    assert run_script(surroundings + PRELUDE + code).strip() == "{'ok'} 60 0"


@WITHOUT
def test_a_waiting_thread_that_is_interrupted_leaves_the_queue_and_what_it_was_granted(surroundings):
    code = """
import os, signal
driver = ScriptedDriver()
pool = FairPool(driver.connect, pool_size=1, max_overflow=0, timeout=20)
over, interrupts = [], 0

def others(_):
    while not over:
        loan = pool.connect()
        time.sleep(0.0005)
        loan.close()

def interrupt(_):
    while not over:
        time.sleep(0.003)
        os.kill(os.getpid(), signal.SIGINT)

asking = []

def once(*_):
    if asking:
        asking.clear()
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, once)
busy = threads(others, range(3)) + threads(interrupt, [0])
until = time.monotonic() + 30
while interrupts <= 20 and time.monotonic() < until:
    try:
        asking.append(1)
        loan = pool.connect()
        loan.close()
        asking.clear()
    except KeyboardInterrupt:
        interrupts += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
over.append(1)
for thread in busy:
    thread.join(5)
loan = None
gc.collect()
print(interrupts > 20, pool.waiting(), pool.checkedout(), pool.checkedin() <= 1)
pool.connect().close()
"""
    assert run_script(surroundings + PRELUDE + code).strip() == "True 0 0 True"


def test_an_older_sqlalchemy_is_named_in_one_line(tmp_path):
    (tmp_path / "sqlalchemy.py").write_text("__version__ = '1.4.54'\n")
    for module in ("poolbench", "poolbench.plugin"):
        code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import {module}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        last = done.stderr.strip().splitlines()[-1]
        assert last == "ImportError: poolbench needs SQLAlchemy 2.0 or newer; SQLAlchemy 1.4.54 is installed here"
