"""Why FairPool exists: the same events happen to QueuePool and to FairPool under gevent, side by side.

Each scene runs with both pools in one monkey-patched process of its own (this file, run as a script), since pytest's is
not patched. The tests then say what QueuePool does today, so that they also tell when SQLAlchemy has cured it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 0.5
SERVED_SOON_S = 0.45


def scenes(pool_class):
    """Play every scene with this class; scene -> what was seen."""
    import os
    import time

    import gevent

    from tests.poolbench.fair_pool_driver import DriverError, ScriptedDriver

    def make(driver, size=1):
        return pool_class(driver.connect, pool_size=size, max_overflow=0, timeout=TIMEOUT_S)

    def waiter(pool):
        """A greenlet that borrows and returns; its value is how long it waited, or the name of its error."""

        def wait():
            began = time.monotonic()
            try:
                pool.connect().close()
            except Exception as error:
                return f"{type(error).__name__} after {time.monotonic() - began:.2f} s"
            return round(time.monotonic() - began, 3)

        greenlet = gevent.spawn(wait)
        gevent.sleep(0)
        return greenlet

    def killed_in_the_tick_of_the_return():
        pool = make(ScriptedDriver())
        held = pool.connect()
        b, c = waiter(pool), waiter(pool)
        b.kill(block=False)
        held.close()
        return c.get()

    def timeout_and_return_in_one_pass():
        pool = make(ScriptedDriver())
        held = pool.connect()

        def impatient():
            with gevent.Timeout(0.02, False):
                pool.connect().close()

        gevent.spawn(impatient)
        gevent.sleep(0)
        c = waiter(pool)
        gevent.spawn_later(0.019, held.close)
        gevent.sleep(0)
        busy_until = time.monotonic() + 0.05
        while time.monotonic() < busy_until:
            pass
        return c.get()

    def connect_fails():
        driver = ScriptedDriver(connect=0.02)
        driver.failures.append(DriverError("refused"))
        pool = make(driver)
        waiter(pool)
        return waiter(pool).get()

    def killed_while_connecting():
        driver = ScriptedDriver(connect=0.02)
        pool = make(driver)
        connecting = waiter(pool)
        b = waiter(pool)
        connecting.kill(block=False)
        return b.get()

    def dispose_with_three_of_three_out():
        driver = ScriptedDriver()
        pool = make(driver, size=3)
        loans = [pool.connect() for _ in range(3)]
        pool.dispose()
        more = [gevent.spawn(pool.connect) for _ in range(3)]
        gevent.sleep(0.01)
        for loan in loans:
            loan.close()
        gevent.joinall(more, raise_error=True)
        for greenlet in more:
            greenlet.value.close()
        return {"most_open": driver.most_open, "checkedout": pool.checkedout()}

    def fork_with_an_idle_connection():
        pool = make(ScriptedDriver())
        loan = pool.connect()
        parents = loan.dbapi_connection
        loan.close()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"parent's" if pool.connect().dbapi_connection is parents else b"its own")
            os._exit(0)
        os.waitpid(child, 0)
        return os.read(read, 100).decode()

    def the_returner_asks_again_at_once():
        pool = make(ScriptedDriver())
        held = pool.connect()
        b = waiter(pool)
        for _ in range(20):
            held.close()
            held = pool.connect()
            if b.ready():
                break
            gevent.sleep(0.01)
        overtaken = not b.ready()
        held.close()
        return overtaken

    played = (
        killed_in_the_tick_of_the_return,
        timeout_and_return_in_one_pass,
        connect_fails,
        killed_while_connecting,
        dispose_with_three_of_three_out,
        fork_with_an_idle_connection,
        the_returner_asks_again_at_once,
    )
    return {scene.__name__: scene() for scene in played}


@pytest.fixture(scope="module")
def seen():
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "tests.poolbench.test_pool_beside_queue_pool"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "scene",
    [
        "killed_in_the_tick_of_the_return",
        "timeout_and_return_in_one_pass",
        "connect_fails",
        "killed_while_connecting",
    ],
)
def test_a_wake_up_that_queue_pool_loses_reaches_the_next_waiter_in_fair_pool(seen, scene):
    assert str(seen["QueuePool"][scene]).startswith("TimeoutError") or seen["QueuePool"][scene] >= TIMEOUT_S
    assert seen["FairPool"][scene] < SERVED_SOON_S


def test_dispose_resets_queue_pools_counters_and_keeps_fair_pools_limit(seen):
    scene = "dispose_with_three_of_three_out"
    assert seen["QueuePool"][scene] == {"most_open": 6, "checkedout": -3}
    assert seen["FairPool"][scene] == {"most_open": 3, "checkedout": 0}


def test_a_forked_child_lends_its_parents_session_in_queue_pool_and_its_own_in_fair_pool(seen):
    scene = "fork_with_an_idle_connection"
    assert (seen["QueuePool"][scene], seen["FairPool"][scene]) == ("parent's", "its own")


def test_the_returner_overtakes_the_waiter_in_queue_pool_and_not_in_fair_pool(seen):
    scene = "the_returner_asks_again_at_once"
    assert (seen["QueuePool"][scene], seen["FairPool"][scene]) == (True, False)


if __name__ == "__main__":
    import gevent.monkey

    gevent.monkey.patch_all()

    from sqlalchemy.pool import QueuePool

    from poolbench import FairPool

    sys.stdout.write(json.dumps({cls.__name__: scenes(cls) for cls in (QueuePool, FairPool)}))
