"""Connections that rested for long are tested before they are lent; leaks name the line that borrowed."""

import logging
import time

import gevent
import pytest
from sqlalchemy import create_engine, exc, text

from poolbench import fair_pool
from tests.poolbench.fair_pool_driver import ScriptedDriver, eventually, is_full_and_idle, pool_of

HERE = __file__


class Dialect:
    """Tests connections as a dialect of SQLAlchemy does; `answers` are what the next tests find."""

    def __init__(self):
        self.answers, self.tested = [], []

    def _do_ping_w_event(self, connection):
        self.tested.append(connection.number)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __getattr__(self, name):
        return lambda connection: getattr(connection, name.removeprefix("do_").replace("terminate", "close"))()


def pinging(driver, **options):
    dialect = Dialect()
    return pool_of(driver, dialect=dialect, ping_idle=30, **options), dialect


@pytest.fixture
def rest(monkeypatch):
    """rest(seconds): so much later by the pool's clock."""
    rested_s = []
    monkeypatch.setattr(fair_pool, "_clock_ns", lambda: time.monotonic_ns() + round(sum(rested_s) * 1e9))
    return rested_s.append


def test_only_a_connection_that_rested_for_longer_is_tested(rest):
    pool, dialect = pinging(ScriptedDriver())
    pool.connect().close()
    pool.connect().close()
    assert dialect.tested == []
    rest(31)
    pool.connect().close()
    pool.connect().close()
    assert dialect.tested == [1]


def test_a_dead_one_is_replaced_for_the_same_borrower(rest):
    driver = ScriptedDriver()
    pool, dialect = pinging(driver)
    pool.connect().close()
    rest(31)
    dialect.answers = [False]
    loan = pool.connect()
    assert loan.dbapi_connection.number == 2 and driver.open == 1
    loan.close()
    assert pool.snapshot().closed["invalidated"] == 1 and is_full_and_idle(pool)


@pytest.mark.parametrize("error", [RuntimeError("no"), gevent.GreenletExit()], ids=["error", "kill"])
def test_a_test_that_fails_loses_no_slot(rest, error):
    driver = ScriptedDriver()
    pool, dialect = pinging(driver)
    pool.connect().close()
    rest(31)
    dialect.answers = [error]
    with pytest.raises(type(error)):
        pool.connect()
    assert driver.open == 0 and is_full_and_idle(pool)


def test_a_backend_that_was_killed_while_idle_is_noticed_before_a_statement(postgres):
    url = (
        postgres.url.replace("postgresql://", "postgresql+psycopg2://") + "?plugin=poolbench&pool_size=2&ping_idle=0.05"
    )
    engine, admin = create_engine(url), create_engine(url)
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    with admin.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    gevent.sleep(0.2)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() != pid
    gevent.sleep(0.1)
    with engine.connect() as connection:
        assert not connection.connection.dbapi_connection.info.transaction_status, "the test has left no transaction"
    engine.dispose()
    admin.dispose()


def test_a_leak_names_the_borrowers_line_in_the_log_and_in_the_snapshot(caplog):
    pool = pool_of(ScriptedDriver(), size=3, leak_threshold=0.02, maintenance_interval=0.01)
    with caplog.at_level(logging.WARNING, "sqlalchemy.pool"):
        first = pool.connect()
        gevent.sleep(0.005)
        second = pool.connect()
        assert eventually(lambda: len(caplog.records) >= 2)
        gevent.sleep(0.05)
    assert len(caplog.records) == 2, "each is logged once"
    assert f"borrowed at {HERE}:" in caplog.text
    loans = pool.snapshot().oldest_loans
    assert [loan.borrowed_at.rpartition(":")[0] for loan in loans] == [HERE, HERE]
    assert loans[0].age_ns > loans[1].age_ns >= 20_000_000
    lines = [int(loan.borrowed_at.rpartition(":")[2]) for loan in loans]
    assert lines[1] - lines[0] == 2
    first.close()
    assert len(pool.snapshot().oldest_loans) == 1
    second.close()
    assert pool.snapshot().oldest_loans == ()


def test_the_borrowers_line_is_not_sqlalchemys():
    engine = create_engine("sqlite://?plugin=poolbench&leak_threshold=5")
    with engine.connect():
        assert engine.pool.snapshot().oldest_loans[0].borrowed_at.startswith(f"{HERE}:")


def test_without_a_threshold_no_loans_are_listed():
    pool = pool_of(ScriptedDriver())
    with pool.connect():
        assert pool.snapshot().oldest_loans == ()


def test_a_pool_without_an_engine_cannot_test_and_says_so(rest):
    pool = pool_of(ScriptedDriver(), ping_idle=30)
    pool.connect().close()
    rest(31)
    with pytest.raises(NotImplementedError, match="dialect"):
        pool.connect()
    assert is_full_and_idle(pool)
    with pytest.raises(exc.ArgumentError, match="ping_idle"):
        pool_of(ScriptedDriver(), ping_idle=-1)
