"""The service through a PgBouncer in transaction mode, where each transaction may have another session."""

import contextlib
import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import psycopg2.extras
import pytest

from db import queries
from db.database import Database
from db.embedded import temporary_postgres
from db.errors import DatabaseDown, TooManyClients
from db.settings import DatabaseSettings, database_url
from db.visitor import Visitor
from loadgen.lab import pgbouncer
from loadgen.lab.pgbouncer import PgBouncer
from loadgen.lab.stack import connect, query
from tests.support.server_process import wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("pgbouncer", path="/usr/bin:/usr/sbin:/usr/local/sbin") is None, reason="PgBouncer is not installed"
)


@pytest.fixture(scope="module")
def logging_postgres():
    """Writes down every statement."""
    with temporary_postgres(settings={"log_statement": "all"}) as server:
        yield server


@pytest.fixture(scope="module")
def bouncer(logging_postgres):
    with PgBouncer(logging_postgres, pool_size=3) as running:
        yield running


def without(monkeypatch, *lines):
    """A PgBouncer whose configuration lacks these lines."""
    whole = pgbouncer.configuration

    def shorter(*arguments):
        text = whole(*arguments)
        for line in lines:
            assert line in text
            text = text.replace(line, "")
        return text

    monkeypatch.setattr(pgbouncer, "configuration", shorter)


@pytest.mark.parametrize("strategy", ["null", "fair"])
def test_every_request_works_and_no_click_is_lost(start_service, logging_postgres, bouncer, strategy):
    server = start_service(DATABASE_URL=bouncer.url, DB_POOL=strategy, DB_POOL_SIZE="10")
    assert server.get("/health").json["database"] == "up"
    code = server.new_link()
    assert {answer.status for answer in server.get_many(f"/{code}", 20)} == {301}
    assert server.get(f"/links/{code}").json["clicks"] == 20
    assert server.get(f"/links/{code}/analytics").json["totals"]["clicks"] == 20
    assert not server.failures()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poolbench'"
    assert query(logging_postgres.admin_url, sessions)[0][0] <= 3


def test_no_statement_of_the_service_leaves_anything_in_a_session(logging_postgres, bouncer):
    database = Database(DatabaseSettings(database_url(bouncer.url)))
    with database.connection() as connection:
        queries.ping(connection)
        code = queries.add_link(connection, "kept", "https://example.com").code
        queries.follow(connection, code, Visitor("Firefox", "Linux", None))
        queries.read_link(connection, code)
        queries.analytics(connection, code)
    database.close()
    written = (logging_postgres.data_dir / "server.log").read_text()
    statements = re.findall(r"(?:statement|execute [^:]*): (.+)", written.replace("\n\t", " "))
    assert any("INSERT INTO clicks" in statement for statement in statements)
    kept = re.compile(r"^\s*(SET (?!LOCAL)|PREPARE|LISTEN|DECLARE|CREATE TEMP|LOAD)|pg_advisory_lock\b", re.IGNORECASE)
    by_pgbouncer = re.compile(
        r"SET (statement_timeout|client_connection_check_interval|application_name|client_encoding)"
    )
    assert [s for s in statements if kept.search(s) and not by_pgbouncer.match(s)] == []


def test_those_who_start_together_bring_the_tables_up_to_date_once(bouncer, logging_postgres):
    query(logging_postgres.url, "DROP SCHEMA public CASCADE")
    query(logging_postgres.url, "CREATE SCHEMA public")
    databases = [Database(DatabaseSettings(database_url(bouncer.url))) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(Database.migrate, databases)) == [None, None, None]
    assert query(logging_postgres.url, "SELECT count(*) FROM alembic_version") == [(1,)]


def test_the_limits_are_left_out_where_the_pooler_refuses_them_and_their_lack_is_told(
    logging_postgres, monkeypatch, caplog
):
    without(monkeypatch, "ignore_startup_parameters = options", f" connect_query='{pgbouncer._SESSION}'")
    with PgBouncer(logging_postgres) as running, caplog.at_level(logging.WARNING, "poolbench.db"):
        with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
            query(f"{running.url}?options=-cstatement_timeout%3D1", "SELECT 1")
        database = Database(DatabaseSettings(database_url(running.url)))
        with database.connection() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        database.close()
    assert [record.message for record in caplog.records if "STATEMENT_TIMEOUT is not in force" in record.message]


def test_no_warning_where_the_limits_are_in_force(bouncer, caplog):
    with caplog.at_level(logging.WARNING, "poolbench.db"):
        database = Database(DatabaseSettings(database_url(bouncer.url)))
        database.migrate()
        database.close()
    assert not caplog.records


def test_its_limit_of_clients_is_told_apart_from_a_database_that_is_down(logging_postgres, monkeypatch):
    monkeypatch.setattr(pgbouncer, "MAX_CLIENTS", 1)
    with PgBouncer(logging_postgres) as running, contextlib.closing(connect(running.url)):
        database = Database(DatabaseSettings(database_url(running.url)))
        with pytest.raises(TooManyClients, match="SQLSTATE 53300"), database.connection():
            pass


def test_a_wait_for_a_session_ends_and_is_a_failure_that_clients_may_retry(logging_postgres, monkeypatch):
    whole = pgbouncer.configuration
    monkeypatch.setattr(pgbouncer, "configuration", lambda *given: whole(*given) + "query_wait_timeout = 1\n")
    with PgBouncer(logging_postgres, pool_size=1) as running, contextlib.closing(connect(running.url)) as holder:
        holder.cursor().execute("BEGIN")
        database = Database(DatabaseSettings(database_url(running.url)))
        with pytest.raises(DatabaseDown), database.connection():
            pass
        database.close()


def test_the_statement_of_a_client_that_is_gone_is_ended(logging_postgres, bouncer):
    def busy():
        return query(
            logging_postgres.admin_url,
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'",
        )[0][0]

    client = psycopg2.connect(bouncer.url, async_=1)
    psycopg2.extras.wait_select(client)
    client.cursor().execute("SELECT pg_sleep(60)")
    wait_until(busy, "the statement runs")
    client.close()
    wait_until(lambda: not busy(), "the server notices")


# What the service must not rely on: each of these works on a connection of one's own.


def test_what_a_client_sets_is_met_by_the_next_one(logging_postgres):
    with PgBouncer(logging_postgres, pool_size=1) as running, contextlib.ExitStack() as opened:
        one, other = (opened.enter_context(contextlib.closing(connect(running.url))).cursor() for _ in range(2))
        one.execute("SET search_path TO elsewhere")
        other.execute("SHOW search_path")
        assert other.fetchone() == ("elsewhere",)


def test_a_statement_prepared_in_one_session_is_unknown_to_the_next(logging_postgres):
    with PgBouncer(logging_postgres, pool_size=2) as running, contextlib.ExitStack() as opened:
        one, other = (opened.enter_context(contextlib.closing(connect(running.url))).cursor() for _ in range(2))
        one.execute("PREPARE one AS SELECT 1")
        one.execute("EXECUTE one")
        other.execute("BEGIN")  # takes the session
        other.execute("SELECT 1")
        with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
            one.execute("EXECUTE one")


def test_a_session_lock_outlives_the_client_that_took_it(logging_postgres):
    with PgBouncer(logging_postgres, pool_size=1) as running:
        with contextlib.closing(connect(running.url)) as connection:
            connection.cursor().execute("SELECT pg_advisory_lock(7)")
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"
        assert query(logging_postgres.admin_url, held) == [(1,)]
