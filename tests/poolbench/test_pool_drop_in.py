"""FairPool in QueuePool's place: arguments, gauges, and where it cannot wait."""

import inspect
import sys

import gevent
import pytest
from sqlalchemy import exc

from poolbench import CannotWait, FairPool
from tests.poolbench.fair_pool_driver import ScriptedDriver, is_full_and_idle, pool_of, queue_up


def test_every_parameter_is_positional_or_keyword_since_create_engine_refuses_others():

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


def test_an_interpreter_without_its_global_lock_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(RuntimeError, match=r"^FairPool needs CPython's global interpreter lock") as error:
        pool_of(ScriptedDriver())
    assert "\n" not in str(error.value)


def test_there_is_one_fair_pool():
    """Under whatever name it is imported, and whichever way an engine gets it."""
    import poolbench.fair_pool
    import poolbench.plugin

    classes = {poolbench.FairPool, poolbench.fair_pool.FairPool, poolbench.plugin.FairPool}
    assert classes == {FairPool} and issubclass(poolbench.plugin._Fair, FairPool)
