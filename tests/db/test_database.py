"""Lending, its cost, its failures, and the statements, on a real server."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from db import errors, queries
from db.database import Database
from db.schema import metadata
from db.settings import STRATEGY_NAMES, DatabaseSettings, PoolSettings, SettingError, database_url
from db.strategies import STRATEGIES, unhonoured
from db.visitor import visitor
from poolbench import LoanCost
from tests.support.paths import ROOT
from tests.support.server_process import wait_until


@pytest.fixture
def make(postgres):
    """A Database with these settings; closed at the end."""
    made = []

    def build(**settings):
        mapping = {"DATABASE_URL": postgres.url} | {name: str(value) for name, value in settings.items()}
        made.append(Database(DatabaseSettings.from_mapping(mapping)))
        return made[-1]

    yield build
    for database in made:
        database.close()


def backends(postgres):
    connection = psycopg2.connect(postgres.admin_url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'poolbench'")
        return cursor.fetchone()[0]
    finally:
        connection.close()


def test_there_is_a_recipe_for_every_name():
    assert tuple(STRATEGIES) == STRATEGY_NAMES
    assert all(strategy.when for strategy in STRATEGIES.values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_lends_and_writes_down_the_cost(make, name):
    database = make(DB_POOL=name)
    checkout = LoanCost()
    with database.connection(checkout) as connection:
        queries.ping(connection)
        time.sleep(0.01)
        assert database.status().in_use == 1
    assert checkout.connect_ns > 0 and checkout.wait_ns >= 0 and checkout.held_ns >= 10_000_000
    status = database.status()
    assert (status.in_use, status.waiting, status.loans, status.failures) == (0, 0, 1, 0)
    assert status.hold_ms.max >= 10


def test_a_kept_connection_costs_no_connecting(make):
    database = make()
    with database.connection():
        pass
    checkout = LoanCost()
    with database.connection(checkout):
        pass
    assert checkout.connect_ns == 0


def test_a_statement_is_a_transaction_of_its_own(make):
    with make().connection() as connection:
        first, second = (connection.exec_driver_sql("SELECT txid_current()").scalar() for _ in range(2))
    assert first != second


def test_a_pool_per_request_opens_its_minimum_and_keeps_nothing(make, postgres):
    database = make(DB_POOL="per-request", DB_POOL_MIN=4)
    database.migrate()
    before = backends(postgres)
    with database.connection() as connection:
        queries.ping(connection)
        assert backends(postgres) == before + 4
    wait_until(lambda: backends(postgres) == before, "all four are closed")


def test_a_pool_per_request_tolerates_refused_extras(make, postgres):
    admin = psycopg2.connect(postgres.admin_url)
    admin.autocommit = True
    database = make(DB_POOL="per-request", DB_POOL_MIN=5)
    database.migrate()
    wait_until(lambda: backends(postgres) == 0, "nobody else is connected")
    try:
        admin.cursor().execute("ALTER ROLE poolbench CONNECTION LIMIT 2")
        with database.connection() as connection:
            queries.ping(connection)
        wait_until(lambda: backends(postgres) == 0, "all are closed")
        admin.cursor().execute("ALTER ROLE poolbench CONNECTION LIMIT 0")
        with pytest.raises(errors.TooManyClients, match="53300"), database.connection():
            pass
    finally:
        admin.cursor().execute("ALTER ROLE poolbench CONNECTION LIMIT -1")
        admin.close()


def test_an_exhausted_pool_is_a_pool_timeout(make):
    database = make(DB_POOL_SIZE=1, DB_POOL_TIMEOUT=0.05)
    checkout = LoanCost()
    with database.connection(), pytest.raises(errors.PoolTimeout, match="timeout"), database.connection(checkout):
        pass
    assert checkout.wait_ns >= 50_000_000
    assert (database.status().timeouts, database.status().failures) == (1, 1)


@pytest.mark.parametrize("strategy", ["queue", "fair"])
def test_slow_statements_leave_the_reserve_to_the_others(make, strategy):
    database = make(DB_POOL=strategy, DB_POOL_SIZE=2, DB_POOL_RESERVE=1, DB_POOL_TIMEOUT=0.1)
    checkout = LoanCost()
    with database.connection(slow=True):
        with pytest.raises(errors.PoolTimeout, match="slow"), database.connection(checkout, slow=True):
            pass
        with database.connection() as connection:
            queries.ping(connection)
    assert checkout.wait_ns >= 90_000_000 and database.status().timeouts == 1
    with database.connection(slow=True) as connection:
        queries.ping(connection)


def test_slow_statements_that_fail_give_their_turn_back(make):
    database = make(DB_POOL_SIZE=2, DB_POOL_RESERVE=1, DB_POOL_MAX_WAITING=0, STATEMENT_TIMEOUT=0.05)
    for _ in range(3):
        with pytest.raises(errors.StatementTimeout), database.connection(slow=True) as connection:
            connection.exec_driver_sql("SELECT pg_sleep(5)")
    with database.connection(slow=True), pytest.raises(errors.PoolQueueFull), database.connection(slow=True):
        pass


def test_a_slow_statement_is_a_statement_timeout_and_the_connection_stays(make):
    database = make(STATEMENT_TIMEOUT=0.05, DB_POOL_SIZE=1)
    with database.connection() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with pytest.raises(errors.StatementTimeout, match="57014"), database.connection() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(5)")
    with database.connection() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == pid


def test_a_broken_connection_is_a_database_that_is_down_and_then_replaced(make, postgres):
    database = make(DB_POOL_SIZE=1)
    with database.connection() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    admin = psycopg2.connect(postgres.admin_url)
    admin.cursor().execute("SELECT pg_terminate_backend(%s, 1000)", (pid,))
    admin.close()
    with pytest.raises(errors.DatabaseDown, match=r"SQLSTATE (57P01|08006)"), database.connection() as connection:
        queries.ping(connection)
    with database.connection() as connection:
        queries.ping(connection)


def test_a_server_that_takes_no_writes_is_down_and_its_connections_are_dropped(make):
    """As after a failover in which it was not restarted: a new connection may lead to another server."""
    database = make(DB_POOL_SIZE=1)
    with database.connection() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        connection.exec_driver_sql("SET default_transaction_read_only = on")
    with pytest.raises(errors.DatabaseDown, match="SQLSTATE 25006"), database.connection() as connection:
        queries.add_link(connection, "demoted", "https://example.com/")
    with database.connection() as connection:
        assert queries.add_link(connection, "demoted", "https://example.com/")
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != pid


def test_a_bug_stays_a_bug(make):
    with pytest.raises(Exception, match="syntax error") as error, make().connection() as connection:
        connection.exec_driver_sql("SELEC 1")
    assert not isinstance(error.value, errors.DatabaseFailure)


@pytest.mark.parametrize(("text", "kind", "sqlstate"), [
    ("connection to server failed: FATAL:  sorry, too many clients already", errors.TooManyClients, "53300"),
    ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", errors.TooManyClients, "53300"),
    ('FATAL:  too many connections for role "poolbench"', errors.TooManyClients, "53300"),
    ("FATAL:  the database system is starting up", errors.DatabaseDown, "57P03"),
    ("connection refused\n\tIs the server running?", errors.DatabaseDown, "08001"),
    ("server closed the connection unexpectedly\n", errors.DatabaseDown, "08006"),
    ('FATAL:  password authentication failed for user "x"', errors.DatabaseDown, "28P01"),
])  # fmt: skip
def test_refusals_are_told_apart_by_their_text(text, kind, sqlstate):
    failure = errors.classify(psycopg2.OperationalError(text))
    assert type(failure) is kind and failure.sqlstate == sqlstate
    assert str(failure).startswith(f"SQLSTATE {sqlstate}: ") and "\n" not in str(failure)


def test_migrations_make_the_tables_of_the_schema(make, postgres):
    make().migrate()
    engine = create_engine(database_url(postgres.url))
    with engine.connect() as connection:
        partitions = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relispartition").scalars().all()
        options = {"include_name": lambda name, _kind, _parents: name not in partitions}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_migrations_go_where_the_search_path_points_and_nowhere_else(make, postgres):
    admin = psycopg2.connect(postgres.url)
    admin.autocommit = True
    cursor = admin.cursor()
    cursor.execute("CREATE SCHEMA apart")
    try:
        database = make(DATABASE_URL=f"{postgres.url}?options=-csearch_path%3Dapart")
        with database.connection() as connection:
            queries.add_link(connection, "only-here", "https://example.com/")
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'apart' ORDER BY 1")
        assert {"alembic_version", "clicks", "links"} <= {name for (name,) in cursor.fetchall()}
        with make().connection() as connection:
            assert queries.read_link(connection, "only-here") is None
    finally:
        cursor.execute("DROP SCHEMA apart CASCADE")
        admin.close()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("GRANT USAGE ON SCHEMA foreign_place TO poolbench", "SQLSTATE 42501: permission denied for schema"),
        ("GRANT ALL ON SCHEMA foreign_place TO poolbench; SET ROLE poolbench; {later}", "'9999'"),
    ],
    ids=["no right to make tables", "tables of a later version"],
)
def test_tables_that_cannot_be_made_are_told_in_one_line(postgres, made, told):
    admin = psycopg2.connect(postgres.admin_url)
    admin.autocommit = True
    try:
        later = "CREATE TABLE foreign_place.alembic_version AS SELECT '9999' AS version_num"
        admin.cursor().execute(f"CREATE SCHEMA foreign_place; {made.format(later=later)}")
        url = f"{postgres.url}?options=-csearch_path%3Dforeign_place"
        command = [sys.executable, "-m", "db.migrations"]
        environment = os.environ | {"DATABASE_URL": url}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    finally:
        admin.cursor().execute("RESET ROLE; DROP SCHEMA foreign_place CASCADE")
        admin.close()
    assert (done.returncode, done.stderr.count("\n"), told in done.stderr) == (1, 1, True), done.stderr


def test_processes_that_migrate_together_take_turns(make, postgres):
    admin = psycopg2.connect(postgres.url)
    admin.autocommit = True
    admin.cursor().execute("CREATE SCHEMA busy")
    url = f"{postgres.url}?options=-csearch_path%3Dbusy"
    try:
        databases = [make(DATABASE_URL=url) for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(upgrade_alone, databases))
    finally:
        admin.cursor().execute("DROP SCHEMA busy CASCADE")
        admin.close()


def upgrade_alone(database):
    """In a process of its own: Alembic keeps its context in module globals, so one process does one upgrade at a time."""
    import subprocess
    import sys

    from tests.support.paths import ROOT

    code = (
        "import sys; from db.database import Database; from db.settings import DatabaseSettings;"
        "Database(DatabaseSettings.from_mapping({'DATABASE_URL': sys.argv[1]})).migrate()"
    )
    url = database.settings.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=True, timeout=60)


def test_a_click_is_counted_for_its_link_only(make):
    with make().connection() as connection:
        for code in ("one-click", "no-click"):
            queries.add_link(connection, code, "https://example.com/")
        assert queries.follow(connection, "one-click", visitor("curl/8", "")) == "https://example.com/"
        assert queries.follow(connection, "never-made", visitor("curl/8", "")) is None
        assert queries.read_link(connection, "one-click").clicks == 1
        assert queries.read_link(connection, "no-click").clicks == 0


def test_a_server_that_does_not_answer_is_given_up():
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        started = time.monotonic()
        with pytest.raises(errors.DatabaseDown, match="timeout"):
            Database(DatabaseSettings.from_mapping({"DATABASE_URL": url})).migrate()
        assert time.monotonic() - started < 9


def test_what_a_strategy_cannot_honour_is_named(caplog):
    settings = PoolSettings.from_mapping(
        {"DB_POOL": "queue", "DB_POOL_MIN": "5", "DB_POOL_IDLE": "60", "DB_POOL_SIZE": "20"}
    )
    assert unhonoured(settings) == ("DB_POOL_IDLE", "DB_POOL_MIN")
    assert unhonoured(PoolSettings()) == ()
    assert unhonoured(PoolSettings.from_mapping({"DB_POOL": "null", "DB_POOL_WATCH": "on"})) == ()
    Database(DatabaseSettings(database_url("postgresql://x/y"), settings))
    assert "DB_POOL=queue cannot honour DB_POOL_IDLE, DB_POOL_MIN" in caplog.text


def test_a_missing_url_is_a_setting_error():
    with pytest.raises(SettingError, match="DATABASE_URL"):
        DatabaseSettings.from_mapping({})


def test_a_statement_whose_greenlet_was_killed_ends_in_the_server(postgres):
    code = """
from gevent import monkey
monkey.patch_all()
from psycogreen.gevent import patch_psycopg
patch_psycopg()
import sys, time, gevent
from db.database import Database
from db.settings import DatabaseSettings
database = Database(DatabaseSettings.from_mapping({"DATABASE_URL": sys.argv[1], "DB_POOL": "fair", "DB_POOL_SIZE": "1"}))
def sleeping():
    with watcher.connection() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'").scalar()
watcher = Database(DatabaseSettings.from_mapping({"DATABASE_URL": sys.argv[1]}))
def query():
    with database.connection() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(30)")
victim = gevent.spawn(query)
while not sleeping():
    gevent.sleep(0.01)
victim.kill()
began = time.monotonic()
while sleeping():
    gevent.sleep(0.01)
with database.connection() as connection:
    connection.exec_driver_sql("SELECT 1")
status = database.status()
print(time.monotonic() - began, status.in_use, status.waiting)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, postgres.url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, in_use, waiting = done.stdout.split()
    assert float(seconds) < 5
    assert (in_use, waiting) == ("0", "0")
