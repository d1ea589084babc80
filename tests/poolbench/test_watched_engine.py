"""The hooks in a watched engine: what they leave as it is, what they notice, and which engines they are for."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

import poolbench
from poolbench import FairPool
from poolbench.loan_book import BOOK
from poolbench.observed import CLOSED
from poolbench.timed import cooperate


@pytest.mark.parametrize("kind", [QueuePool, FairPool])
def test_listeners_to_loans_are_called_also_if_they_come_after_the_first_loan(monkeypatch, kind):
    engine, told = create_engine("sqlite://", poolclass=kind), []
    poolbench.watch(engine)
    monkeypatch.setattr(BOOK, "left", 1_000_000)
    engine.connect().close()
    assert "connect" in vars(engine)
    event.listen(engine, "checkout", lambda _connection, record, _proxy: told.append(record))
    for _ in range(3):
        monkeypatch.setattr(BOOK, "left", 1_000_000)
        with engine.connect() as connection:
            record = connection._dbapi_connection._connection_record
            assert told[-1] is record and BOOK.lent[record][4] > 0
            assert connection._dbapi_connection._counter == 1
    assert len(told) == 3 and engine.pool.checkedout() == 0


def test_a_connection_is_looked_at_before_each_loan_where_the_application_wants_it(monkeypatch):
    engine, pinged = create_engine("sqlite://", poolclass=QueuePool, pool_pre_ping=True), []
    monkeypatch.setattr(engine.dialect, "do_ping", lambda _connection: pinged.append(1) or True)
    poolbench.watch(engine)
    for _ in range(4):
        monkeypatch.setattr(BOOK, "left", 1_000_000)
        engine.connect().close()
    # Not the connection that has just been opened.
    assert len(pinged) == 3


@pytest.mark.parametrize("kind", [QueuePool, FairPool])
def test_where_the_application_has_connections_closed_is_noted_but_not_where_an_error_closes_them(kind):
    engine = create_engine("sqlite://", poolclass=kind)
    poolbench.watch(engine)
    with engine.connect() as connection:
        connection.invalidate()
    with engine.connect() as connection:
        connection.detach()
    with engine.connect() as connection:
        connection.connection.invalidate(ValueError("the server is gone"))
    for _ in range(2):
        engine.dispose()
    key = engine.pool._poolbench_engine.key
    seen = {
        each: row.looks
        for each, row in BOOK.tally.current.samples.items()
        if each.doing == CLOSED and each.engine == key
    }
    places = {line.strip(): number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)}
    marks = {"connection.invalidate()": 1, "connection.detach()": 1, "engine.dispose()": 2}
    assert {int(each.place.rpartition(":")[2]): count for each, count in seen.items()} == {
        places[mark]: count for mark, count in marks.items()
    }


def test_no_listener_makes_statements_slower():
    """SQLAlchemy looks for listeners at each step of each statement where an engine or its dialect has any."""
    engine = create_engine("sqlite://")
    cooperate(engine)
    poolbench.watch(engine)
    assert (engine._has_events, engine.dialect._has_events) == (False, False)


def test_watching_what_is_no_synchronous_engine_is_refused_in_one_line():
    asynchronous = create_async_engine("postgresql+asyncpg://nobody@localhost/nothing")
    for engine in (asynchronous, asynchronous.sync_engine, "postgresql://nobody@localhost/nothing"):
        with pytest.raises(
            exc.ArgumentError, match=r"^watch\(\) is for SQLAlchemy's synchronous engines, not for [^\n]+$"
        ):
            poolbench.watch(engine)
    with (
        create_engine("sqlite://").connect() as connection,
        pytest.raises(exc.ArgumentError, match=r"not for a Connection$"),
    ):
        poolbench.watch(connection)
    with pytest.raises(exc.ArgumentError, match=r"^watch\(\)"):
        create_async_engine("postgresql+asyncpg://nobody@localhost/nothing?plugin=poolbench&pool=own&watch=1")
