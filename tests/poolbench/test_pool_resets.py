"""A returned connection is reset where there is something to reset, and only there, with both drivers of PostgreSQL."""

import pytest
from sqlalchemy import create_engine, event, exc, text

from poolbench import FairPool


@pytest.fixture(params=["psycopg2", "psycopg"])
def url(postgres, request):
    pytest.importorskip(request.param)
    return postgres.url.replace("postgresql://", f"postgresql+{request.param}://")


@pytest.fixture
def engine(url, request):
    """An engine with one connection; `pool_reset_on_return` and other options by an indirect parameter."""
    engine = create_engine(url, poolclass=FairPool, pool_size=1, max_overflow=0, **getattr(request, "param", {}))
    yield engine
    engine.dispose()


def is_idle(engine):
    """Whether the only connection rests outside a transaction, by libpq."""
    [record] = engine.pool._idle
    return record.dbapi_connection.info.transaction_status == 0


def resets_of(engine):
    """Counts the calls of the dialect's `do_rollback`, as somebody who traces it would."""
    calls = []
    engine.raw_connection().close()
    for record in [*engine.pool._idle, *engine.pool._vacant]:
        record.close()
    rollback = engine.dialect.do_rollback
    engine.dialect.do_rollback = lambda connection: (calls.append(connection), rollback(connection))
    return calls


def begin(engine, statement="SELECT pg_current_xact_id()"):
    loan = engine.raw_connection()
    loan.cursor().execute(statement)
    return loan


def test_an_open_transaction_is_rolled_back(engine):
    begin(engine, "CREATE TABLE half_done (id int)").close()
    assert is_idle(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('half_done')")) is None


@pytest.mark.parametrize("engine", [{"pool_reset_on_return": "commit"}], indirect=True)
def test_an_open_transaction_is_committed_where_that_is_wanted(engine):
    begin(engine, "CREATE TABLE done (id int)").close()
    assert is_idle(engine)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT to_regclass('done')")) == "done"
        connection.execute(text("DROP TABLE done"))


@pytest.mark.parametrize("engine", [{"pool_reset_on_return": None}], indirect=True)
def test_nothing_is_reset_where_that_is_wanted(engine):
    begin(engine).close()
    assert not is_idle(engine)


def test_a_failed_transaction_is_rolled_back(engine):
    loan = engine.raw_connection()
    with pytest.raises(engine.dialect.loaded_dbapi.ProgrammingError):
        loan.cursor().execute("SELECT * FROM nowhere")
    loan.close()
    assert is_idle(engine)


def test_a_transaction_that_was_ended_in_sql_leaves_the_driver_right(engine):
    loan = begin(engine)
    loan.cursor().execute("COMMIT")
    loan.close()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_current_xact_id()"))
        assert not connection.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NULL"))
    assert is_idle(engine)


def test_a_transaction_begun_in_sql_on_an_autocommitting_connection_is_reset_as_by_the_driver(engine):
    loan = engine.raw_connection()
    loan.dbapi_connection.autocommit = True
    loan.cursor().execute("BEGIN")
    loan.close()
    # psycopg2's own rollback() does nothing here, with QueuePool as with FairPool.
    assert is_idle(engine) or engine.dialect.driver == "psycopg2"


def test_a_prepared_transaction_is_not_taken_for_none(engine):
    loan = engine.raw_connection()
    connection = loan.dbapi_connection
    connection.tpc_begin(connection.xid(1, "order 1", "shop"))
    loan.cursor().execute("SELECT 1")
    loan.close()
    # The drivers refuse to roll it back so: the connection is closed.
    assert [record.dbapi_connection for record in engine.pool._idle] == []


def test_a_connection_that_the_server_closed_is_not_lent_again(engine, postgres):
    loan = begin(engine, "SELECT 1")
    with pytest.raises(engine.dialect.loaded_dbapi.Error):
        loan.cursor().execute("SELECT pg_terminate_backend(pg_backend_pid())")
    loan.close()
    assert not engine.pool._idle
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_an_invalidated_loan_is_returned(engine):
    loan = begin(engine)
    loan.invalidate()
    loan.close()
    assert engine.pool.checkedout() == 0


def test_whoever_listens_to_resets_or_replaces_them_is_called(engine):
    calls, states = resets_of(engine), []
    engine.raw_connection().close()
    assert len(calls) == 1
    event.listen(engine, "reset", lambda _connection, _record, state: states.append(state))
    engine.raw_connection().close()
    assert len(calls) == 2
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert [state.transaction_was_reset for state in states] == [False, True]


def test_a_connection_of_another_class_is_reset_by_its_own_rollback(url, postgres):
    driver = create_engine(url).dialect.import_dbapi()
    kind = driver.extensions.connection if driver.__name__ == "psycopg2" else driver.Connection
    calls = []

    class Traced(kind):
        def rollback(self):
            calls.append(self)
            super().rollback()

    if driver.__name__ == "psycopg2":
        pool = FairPool(lambda: driver.connect(postgres.url, connection_factory=Traced))
    else:
        pool = FairPool(lambda: Traced.connect(postgres.url))
    pool.connect().close()
    pool.dispose()
    assert len(calls) == 1


def test_a_connection_that_broke_while_it_was_outside_any_transaction_is_found_at_its_next_use(engine):
    """As with QueuePool: no reset notices it, since `rollback` would send nothing; `ping_idle` and `pre_ping` do."""
    with engine.connect() as connection:
        [pid] = connection.execute(text("SELECT pg_backend_pid()")).one()
    other = create_engine(engine.url, poolclass=FairPool)
    with other.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 1000)"), {"pid": pid})
    other.dispose()
    with pytest.raises(exc.DBAPIError), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
