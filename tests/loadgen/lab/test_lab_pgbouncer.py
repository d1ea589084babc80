"""A real PgBouncer between the service and PostgreSQL, in transaction mode."""

import contextlib
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg2
import pytest

from db.embedded import temporary_postgres
from loadgen.lab import pgbouncer
from loadgen.lab.pgbouncer import PgBouncer
from loadgen.lab.stack import StackError, connect, query
from tests.support.server_process import ends_with_its_starter

needs_pgbouncer = pytest.mark.skipif(
    shutil.which("pgbouncer", path="/usr/bin:/usr/sbin:/usr/local/sbin") is None, reason="PgBouncer is not installed"
)


@pytest.fixture(scope="module")
def own_postgres():
    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def bouncer(own_postgres):
    with PgBouncer(own_postgres, pool_size=2) as running:
        yield running


@needs_pgbouncer
def test_many_clients_share_few_server_connections(own_postgres, bouncer):
    def one(_):
        return query(bouncer.url, "SELECT pg_backend_pid(), pg_sleep(0.02)")[0][0]

    with ThreadPoolExecutor(8) as threads:
        backends = set(threads.map(one, range(24)))
    assert 1 <= len(backends) <= 2


@needs_pgbouncer
def test_a_session_is_lent_for_a_transaction_at_a_time(own_postgres):
    with PgBouncer(own_postgres, pool_size=1) as running, contextlib.ExitStack() as opened:
        one, other = (opened.enter_context(contextlib.closing(connect(running.url))) for _ in range(2))
        pids = []
        for connection in (one, other):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pids.append(cursor.fetchone()[0])
        assert pids[0] == pids[1]


@needs_pgbouncer
def test_passwords_are_checked_and_stand_in_no_file(own_postgres, bouncer):
    with pytest.raises(psycopg2.OperationalError, match=r"SASL authentication failed|password"):
        query(bouncer.url.replace("poolbench:", "poolbench:x", 1), "SELECT 1")
    password = own_postgres.url.split(":")[2].split("@")[0]
    files = [path for path in own_postgres.data_dir.glob("pgbouncer-*/*") if path.is_file()]
    assert files
    assert not any(password in path.read_text() for path in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.suffix in (".txt", ".ini"))


@needs_pgbouncer
def test_sessions_have_the_services_limits_though_clients_cannot_ask_for_them(bouncer):
    limits = "SELECT current_setting('statement_timeout'), current_setting('client_connection_check_interval')"
    assert query(f"{bouncer.url}?options=-cstatement_timeout%3D1", limits) == [("10s", "100ms")]


@needs_pgbouncer
def test_it_leaves_no_process_and_no_folder(own_postgres):
    with PgBouncer(own_postgres) as running:
        process = psutil.Process(running._child.pid)
        folder = running._folder
        assert folder.exists()
        assert process.is_running()
    assert not process.is_running()
    assert not folder.exists()


@pytest.mark.slow
@needs_pgbouncer
def test_it_dies_with_the_process_that_started_it():
    source = (
        "import sys\n"
        "from db.embedded import temporary_postgres\n"
        "from loadgen.lab.pgbouncer import PgBouncer\n"
        "with temporary_postgres() as own_postgres, PgBouncer(own_postgres) as running:\n"
        "    print(running._child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    ends_with_its_starter(source)


@needs_pgbouncer
def test_a_port_that_is_taken_is_one_clear_line(own_postgres):
    running = PgBouncer(own_postgres)
    with socket.create_server(("127.0.0.1", running.port)), pytest.raises(StackError, match="did not start") as raised:
        running.start()
    assert "in use" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not running._folder.exists()


def test_a_missing_pgbouncer_is_reported_with_what_to_install(monkeypatch):
    monkeypatch.setattr(pgbouncer.shutil, "which", lambda *_, **__: None)
    with pytest.raises(StackError, match="apt-get install pgbouncer"):
        pgbouncer.find()
