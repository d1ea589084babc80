"""The service listens soon whatever its database does, says what is wrong, and is well as soon as the database is."""

import socket
import time
from contextlib import closing

import psycopg2
import pytest

from db.embedded import temporary_postgres
from tests.support.fault_proxy import Proxy
from tests.support.server_process import GUNICORN, wait_until
from tests.wsgi.test_server import FLASK_RUN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.usefixtures("ahead_of_others")]

LISTENS_WITHIN_S = 8.0
"""START_S, and what loading the program takes on a busy machine."""
ANSWERS_WITHIN_S = 7.0
"""Opening a connection takes 5 s at most, waiting for a lock 2 s."""
COMMANDS = pytest.mark.parametrize("command", [FLASK_RUN, GUNICORN], ids=["flask", "gunicorn"])


@pytest.fixture(scope="module")
def own_postgres():
    with temporary_postgres(shared_buffers="32MB") as server:
        yield server


def check_told(server, began_s):
    assert time.monotonic() - began_s < LISTENS_WITHIN_S
    for path in ("/health", "/links/nosuch"):
        asked_s = time.monotonic()
        answer = server.get(path)
        assert (answer.status, answer.problem) == (503, "database-down") and answer.headers["retry-after"]
        assert time.monotonic() - asked_s < ANSWERS_WITHIN_S
    assert server.get("/live").status == 200


@COMMANDS
def test_with_the_table_of_versions_locked(start_service, own_postgres, command):
    first = start_service(DATABASE_URL=own_postgres.url)
    assert first.get("/health").status == 200
    with closing(psycopg2.connect(own_postgres.url)) as lock:
        lock.cursor().execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        began_s = time.monotonic()
        server = start_service(command=command, DATABASE_URL=own_postgres.url)
        check_told(server, began_s)
        lock.rollback()
        wait_until(lambda: server.get("/health").status == 200, "the service is well", 5)
        assert server.request("POST", "/links", {"url": "https://example.com/"}).status == 201


@COMMANDS
def test_with_a_database_that_accepts_and_is_silent_until_it_is_not(start_service, own_postgres, command):
    with Proxy(own_postgres) as network:
        network.order("silence")
        began_s = time.monotonic()
        server = start_service(command=command, DATABASE_URL=network.url)
        check_told(server, began_s)
        network.order("pass")
        wait_until(lambda: server.get("/health").status == 200, "the service is well", 8)


def test_with_a_port_that_accepts_and_never_says_a_word(start_service):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        began_s = time.monotonic()
        url = f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/x"
        check_told(start_service(DATABASE_URL=url), began_s)


def test_with_somebody_else_bringing_the_tables_up_to_date(start_service, own_postgres):
    from db.migrations import _LOCK

    with closing(psycopg2.connect(own_postgres.url)) as other:
        other.cursor().execute("CREATE SCHEMA IF NOT EXISTS started; SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        other.cursor().execute("SELECT 1")
        with closing(psycopg2.connect(own_postgres.url)) as admin:
            admin.autocommit = True
            admin.cursor().execute("CREATE SCHEMA fresh")
        began_s = time.monotonic()
        server = start_service(DATABASE_URL=f"{own_postgres.url}?options=-csearch_path%3Dfresh")
        check_told(server, began_s)
        other.rollback()
        wait_until(lambda: server.get("/health").status == 200, "the service is well", 5)
