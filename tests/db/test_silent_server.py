"""A server that is there and says nothing: stopped in its tracks, as seen from here no different from a dead network."""

import subprocess
import sys

import psycopg2
import pytest

from db.database import connect_arguments
from db.green import LATE_MARGIN_S
from db.settings import DatabaseSettings
from tests.support.paths import ROOT

GREEN = """
from gevent import monkey
monkey.patch_all()
from db.green import wait_with_gevent
wait_with_gevent()
import os, signal, sys, time, gevent
from db import errors, queries
from db.database import Database
from db.settings import DatabaseSettings
def make(**settings):
    return Database(DatabaseSettings.from_mapping({"DATABASE_URL": sys.argv[1]} | {k: str(v) for k, v in settings.items()}))
def backend(database):
    with database.connection() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
def failure(block):
    began = time.monotonic()
    try:
        block()
    except errors.DatabaseFailure as failed:
        print(type(failed).__name__, failed.sqlstate, time.monotonic() - began)
"""


def run_green(postgres, code):
    """Run it in a process whose greenlets wait for the database; what it prints, in words."""
    done = subprocess.run(
        [sys.executable, "-c", GREEN + code, postgres.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_statement_on_a_silent_server_ends_and_the_next_has_another_connection(postgres):
    ((kind, sqlstate, seconds), (renewed,)) = run_green(
        postgres,
        """
database = make(STATEMENT_TIMEOUT=0.2, DB_POOL_SIZE=1)
pid = backend(database)
def ask():
    with database.connection() as connection:
        queries.ping(connection)
os.kill(pid, signal.SIGSTOP)
failure(ask)
print(backend(database) != pid)
os.kill(pid, signal.SIGCONT)
""",
    )
    assert (kind, sqlstate, renewed) == ("DatabaseDown", "08006", "True")
    assert 0.2 + LATE_MARGIN_S <= float(seconds) < 0.2 + LATE_MARGIN_S + 3


def test_a_limited_loan_says_whether_the_pool_or_the_database_was_late(postgres):
    waited, asked = run_green(
        postgres,
        """
database = make(DB_POOL_SIZE=1)
pid = backend(database)
def ask():
    with database.connection_within(0.2) as connection:
        queries.ping(connection)
with database.connection():
    failure(ask)
status = database.status()
assert (status.timeouts, status.failures, status.waiting) == (1, 1, 0)
os.kill(pid, signal.SIGSTOP)
failure(ask)
os.kill(pid, signal.SIGCONT)
ask()
assert database.status().in_use == 0
""",
    )
    assert (waited[0], asked[0]) == ("PoolTimeout", "DatabaseDown")
    assert all(0.15 < float(line[2]) < 4 for line in (waited, asked))


@pytest.mark.slow
def test_a_migration_may_be_silent_for_longer_than_a_statement(postgres):
    assert run_green(
        postgres,
        """
from unittest import mock
import sqlalchemy
from db import migrations
database = make(STATEMENT_TIMEOUT=0.2)
with database._make_engine().begin() as connection:
    connection.exec_driver_sql("CREATE SCHEMA slow")
sys.argv[1] += "?options=-csearch_path%3Dslow"
database = make(STATEMENT_TIMEOUT=0.2)
upgrade, slept = migrations.upgrade, []
def slow(connection):
    if not slept:
        slept.append(connection.exec_driver_sql("SELECT pg_sleep(2.5)"))
    upgrade(connection)
with mock.patch("db.migrations.upgrade", slow):
    failure(database.migrate)
with database.connection() as connection:
    print(len(slept), connection.exec_driver_sql("SELECT count(*) FROM slow.links").scalar())
""",
    ) == [["1", "0"]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_USER_TIMEOUT is Linux's")
def test_both_kernels_are_told_to_notice_a_dead_peer(postgres):
    import os
    import socket

    arguments = connect_arguments(DatabaseSettings.from_mapping({"DATABASE_URL": postgres.url}))
    connection = psycopg2.connect(**arguments | {"connect_timeout": 5})
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as ours:
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        cursor = connection.cursor()
        cursor.execute("SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_user_timeout')")
        assert cursor.fetchone() == ("10", "10000")
    finally:
        connection.close()


def test_the_url_has_the_last_word_on_the_network():
    settings = DatabaseSettings.from_mapping({"DATABASE_URL": "postgresql://x/y?keepalives_idle=60&tcp_user_timeout=0"})
    arguments = connect_arguments(settings)
    assert (arguments["keepalives_idle"], arguments["tcp_user_timeout"]) == ("60", "0")
