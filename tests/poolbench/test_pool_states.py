"""FairPool under random schedules: borrow, return, kill, time out, fail to connect, invalidate, detach, dispose, forget.

After each step: never more connections than size + overflow, and nobody waits beside something that he could be given.
At the end: served in the order of asking, nobody waited past the timeout, and no slot is lost.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from typing import Any

import gevent
import psycopg2
import psycopg2.extensions
import pytest
from gevent.event import Event
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycogreen.gevent import gevent_wait_callback
from sqlalchemy import create_engine, exc, make_url, text

from poolbench import FairPool
from tests.poolbench.fair_pool_driver import DriverError, ScriptedDriver, eventually

TIMEOUT_S = 0.012

# Python swallows, with this warning, a kill aimed at a greenlet that a collector's callback borrowed for a rollback.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Death(BaseException):
    """A kill that is no GreenletExit."""


class ObservedPool(FairPool):
    """Notes who began to wait and who was given something, in order."""

    def _start_empty(self):
        super()._start_empty()
        self.began, self.granted, self.waits = [], [], []

    def _wait(self):
        me = gevent.getcurrent()
        self.began.append(me)
        began = time.monotonic()
        try:
            record = super()._wait()
        finally:
            self.waits.append(time.monotonic() - began)
        self.granted.append(me)
        return record


class Borrower:
    """A greenlet that borrows one connection and keeps it until told what to do with it."""

    def __init__(self, machine: PoolUnderRandomSchedules) -> None:
        self.machine = machine
        self.told = Event()
        self.ending = "close"
        self.loan: Any = None
        self.greenlet = gevent.spawn(self.run)

    def run(self) -> None:
        try:
            with contextlib.suppress(Death, gevent.Timeout, gevent.GreenletExit, psycopg2.Error):
                self.borrow_and_end()
        finally:
            self.loan = None  # who is killed forgets what it held; so does the traceback, which ends here

    def borrow_and_end(self) -> None:
        try:
            self.loan = self.machine.pool.connect()
        except (exc.TimeoutError, DriverError, psycopg2.Error):
            return
        self.machine.use(self.loan)
        self.told.wait()
        if self.ending == "forget":
            cycle = [self.loan]
            cycle.append(cycle)
        elif self.ending == "detach":
            self.machine.detached += 1  # outside the pool from here on, and so outside its limit
            try:
                self.loan.detach()
                self.loan.close()
            finally:
                self.machine.detached -= 1
        elif self.ending == "soft":
            self.loan.invalidate(soft=True)
            self.loan.close()
        else:
            getattr(self.loan, self.ending)()


class PoolUnderRandomSchedules(RuleBasedStateMachine):
    size, max_overflow = 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.driver = self.make_driver()
        self.pool = ObservedPool(
            self.driver.connect, pool_size=self.size, max_overflow=self.max_overflow, timeout=TIMEOUT_S
        )
        self.borrowers: list[Borrower] = []
        self.detached = 0

    def make_driver(self) -> Any:
        return ScriptedDriver(connect=0, close=0, rollback=0)

    def use(self, loan: Any) -> None:
        """What a borrower does at first."""

    def alive(self) -> list[Borrower]:
        self.borrowers = [borrower for borrower in self.borrowers if not borrower.greenlet.dead]
        return self.borrowers

    def picked(self, pick: int) -> list[Borrower]:
        """One of the living, or none: what is drawn must not depend on timing."""
        alive = self.alive()
        return [alive[pick % len(alive)]] if alive else []

    @rule(how_many=st.integers(1, 4))
    def borrow(self, how_many: int) -> None:
        self.borrowers += [Borrower(self) for _ in range(how_many)]

    @rule(
        pick=st.integers(0, 9),
        ending=st.sampled_from(["close", "close", "close", "invalidate", "soft", "detach", "forget"]),
    )
    def give_back(self, pick: int, ending: str) -> None:
        for borrower in self.picked(pick):
            borrower.ending = ending
            borrower.told.set()

    @rule(pick=st.integers(0, 9), death=st.sampled_from([gevent.GreenletExit, gevent.Timeout, Death]))
    def kill(self, pick: int, death: type[BaseException]) -> None:
        for borrower in self.picked(pick):
            borrower.greenlet.kill(death, block=False)

    @rule()
    def fail_the_next_connect(self) -> None:
        self.driver.failures.append(DriverError("scripted"))

    @rule()
    def invalidate_all(self) -> None:
        holders = [borrower.loan for borrower in self.alive() if borrower.loan is not None and borrower.loan.is_valid]
        if holders:
            self.pool._invalidate(holders[0], DriverError("restart"), _checkin=False)

    @rule()
    def dispose(self) -> None:
        self.pool.dispose()

    @rule(passes=st.integers(1, 5))
    def let_the_loop_turn(self, passes: int) -> None:
        for _ in range(passes):
            gevent.sleep(0)

    @rule()
    def collect_garbage(self) -> None:
        gc.collect()

    @rule()
    def let_timeouts_pass(self) -> None:
        gevent.sleep(TIMEOUT_S + 0.002)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert self.driver.open <= self.size + self.max_overflow + self.detached
        assert 0 <= self.pool.checkedin() <= self.size
        assert 0 <= self.pool.checkedout() <= self.size + self.max_overflow

    @invariant()
    def nobody_waits_beside_a_resource(self) -> None:
        if self.pool.waiting():
            openers = self.pool._openers
            assert not self.pool._idle, "an idle connection"
            assert not self.pool._queue.is_room() or openers.attempts or openers.appointments, "nobody opens one"

    def borrow_patiently(self) -> Any:
        """Ask until a connection can be opened within the timeout; one that comes too late is kept for the next time."""
        while True:
            with contextlib.suppress(exc.TimeoutError):
                return self.pool.connect()

    def teardown(self) -> None:
        self.driver.failures.clear()
        for borrower in self.borrowers:
            borrower.told.set()
        gevent.joinall([borrower.greenlet for borrower in self.borrowers], timeout=5)
        assert not self.alive(), "nobody hangs"
        self.borrowers.clear()
        gc.collect()
        gevent.sleep(0.001)
        assert eventually(lambda: not self.pool._openers.attempts), "each attempt ends"
        order = {greenlet: place for place, greenlet in enumerate(self.pool.began)}
        places = [order[greenlet] for greenlet in self.pool.granted]
        assert places == sorted(places), "first come, first served"
        assert max(self.pool.waits, default=0) < TIMEOUT_S + 4, "nobody waits past the timeout"
        assert (self.pool.checkedout(), self.pool.waiting()) == (0, 0)
        loans = [self.borrow_patiently() for _ in range(self.size + self.max_overflow)]
        assert self.pool.checkedout() == len(loans), "no slot is lost"
        for loan in loans:
            loan.close()
        self.pool.dispose()
        gc.collect()  # a detached connection whose borrower was killed while closing it is nobody's but the collector's
        assert self.driver.open == 0


class CountedConnection(psycopg2.extensions.connection):
    driver: Any = None

    def close(self) -> None:
        super().close()
        if self.driver is not None:
            self.driver.open -= 1
            self.driver = None

    def __del__(self) -> None:
        self.close()


class PostgresDriver:
    """psycopg2 on a real server, with the failures and the counting of the scripted driver."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.failures: list[BaseException] = []
        self.open = 0

    def answer(self) -> CountedConnection:
        if self.failures:
            raise self.failures.pop()
        return psycopg2.connect(self.dsn, connection_factory=CountedConnection)

    def connect(self) -> CountedConnection:
        self.open += 1
        try:
            connection = self.answer()
        except BaseException:
            self.open -= 1
            raise
        connection.driver = self
        return connection


@pytest.fixture
def no_log():
    """Keep the log's records, which pytest collects, from keeping connections alive by their tracebacks."""
    logging.disable()
    gc.collect()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def green_psycopg2():
    psycopg2.extensions.set_wait_callback(gevent_wait_callback)
    yield
    psycopg2.extensions.set_wait_callback(None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_log")
def test_no_schedule_breaks_the_promises_on_a_scripted_driver():
    run_state_machine_as_test(
        PoolUnderRandomSchedules,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_log", "green_psycopg2")
def test_no_schedule_breaks_the_promises_on_postgresql(postgres):
    class OnPostgres(PoolUnderRandomSchedules):
        def make_driver(self) -> Any:
            return PostgresDriver(postgres.url)

        def use(self, loan: Any) -> None:
            with contextlib.suppress(psycopg2.Error):
                loan.cursor().execute("select pg_sleep(0.001)")

    run_state_machine_as_test(
        OnPostgres,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.usefixtures("green_psycopg2")
def test_after_every_backend_was_terminated_one_request_fails_and_the_rest_reconnect(postgres):
    url = make_url(postgres.url).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, poolclass=FairPool, pool_size=3, max_overflow=0, pool_timeout=5)
    killer = create_engine(url, poolclass=FairPool, pool_size=1)
    outcomes: list[Any] = []

    def request() -> None:
        try:
            with engine.connect() as connection:
                outcomes.append(connection.scalar(text("select 1")))
        except exc.DBAPIError as error:
            outcomes.append(error.connection_invalidated)

    for _ in range(2):
        loans = [engine.connect() for _ in range(3)]
        pids = [loan.scalar(text("select pg_backend_pid()")) for loan in loans]
        for loan in loans:
            loan.close()
        with killer.connect() as admin:
            for pid in pids:
                admin.execute(text("select pg_terminate_backend(:pid, 1000)"), {"pid": pid})
        outcomes.clear()
        request()
        gevent.joinall([gevent.spawn(request) for _ in range(9)], raise_error=True)
        assert outcomes == [True] + [1] * 9
        # A connection that was being opened for a waiter may still be on its way when another one has served them all.
        assert eventually(lambda: engine.pool.checkedout() == 0)
    engine.dispose()
    killer.dispose()
