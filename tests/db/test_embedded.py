"""The life of an embedded server: started, shared, killed, recovered, stopped."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from db.binaries import EmbeddedPostgresError, find_binaries
from db.embedded import EmbeddedPostgres, _last_complaint, temporary_postgres
from tests.support.server_process import descendants, free_port, lives, wait_until


@pytest.fixture
def server_folder():
    """A folder that the server's user can reach, also where that is not the one who runs the tests."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        data = Path(path) / "data"
        yield data
        # A shared server outlives its owner, and a failed test may have killed that one.
        with suppress(OSError, psutil.Error):
            server = psutil.Process(int((data / "pgdata" / "postmaster.pid").read_text().split()[0]))
            if str(data) in " ".join(server.cmdline()):
                server.kill()


def query(url, statement):
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


@pytest.fixture
def start_elsewhere(start_process):
    """start_elsewhere(code) -> another process that has started a server with `code` and waits, and that server's pid."""

    def start(code):
        code = f"from pathlib import Path\nfrom db.embedded import *\n{code}\nprint(s.pid, flush=True)\ninput()"
        process = start_process([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=None)
        return process, int(process.stdout.readline())

    return start


def end(process):
    process.kill()
    process.wait()


def test_the_application_is_no_superuser_and_pays_for_scram(postgres):
    assert query(postgres.url, "SELECT current_setting('is_superuser'), current_setting('password_encryption')") == [
        ("off", "scram-sha-256")
    ]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.url, password="wrong")
    assert query(postgres.admin_url, "SELECT current_setting('is_superuser')") == [("on",)]


def test_settings_reach_the_server():
    with temporary_postgres(max_connections=7, shared_buffers="4MB", settings={"work_mem": "1MB"}) as server:
        names = "SELECT current_setting(n) FROM unnest(ARRAY['max_connections', 'shared_buffers', 'work_mem']) n"
        assert query(server.url, names) == [("7",), ("4MB",), ("1MB",)]
        server_folder = server.data_dir
        assert (server_folder / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert not server_folder.exists()


@pytest.mark.slow
def test_data_survive_restart_and_kill(server_folder):
    with EmbeddedPostgres(server_folder, shared_buffers="4MB") as server:
        url = server.url
        query(url, "CREATE TABLE t AS SELECT 42 AS x")
        server.restart()
        assert server.url == url and query(url, "SELECT x FROM t") == [(42,)]
        busy = psycopg2.connect(url)
        server.kill()
        busy.close()
        assert server.start().url == url
        assert query(url, "SELECT x FROM t") == [(42,)]
        pid = server.pid
    assert not lives(pid)


def test_a_folder_in_use_is_refused(server_folder):
    with (
        EmbeddedPostgres(server_folder, shared_buffers="4MB"),
        pytest.raises(EmbeddedPostgresError, match="in use by another process"),
    ):
        EmbeddedPostgres(server_folder).start()


def test_a_shared_server_is_reused_and_stopped_by_its_owner_only(server_folder):
    with EmbeddedPostgres(server_folder, shared_buffers="4MB", shared=True) as owner:
        guest = EmbeddedPostgres(server_folder, shared=True).start()
        assert (guest.pid, guest.url, guest.owned, owner.owned) == (owner.pid, owner.url, False, True)
        guest.stop()
        assert query(owner.url, "SELECT 1") == [(1,)]
    assert not lives(guest.pid)


def test_a_shared_server_whose_owner_was_killed_is_adopted(server_folder, start_elsewhere):
    process, pid = start_elsewhere(f"s = EmbeddedPostgres(Path({str(server_folder)!r}), shared=True).start()")
    end(process)
    assert lives(pid)
    with EmbeddedPostgres(server_folder, shared=True) as heir:
        assert (heir.pid, heir.owned) == (pid, True) and query(heir.url, "SELECT 1") == [(1,)]
    assert not lives(pid)


@pytest.mark.slow
def test_after_owner_and_server_were_killed_the_next_start_recovers(server_folder, start_elsewhere):
    process, pid = start_elsewhere(f"s = EmbeddedPostgres(Path({str(server_folder)!r}), shared=True).start()")
    end(process)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not lives(pid), "the server is dead")
    assert (server_folder / "pgdata" / "postmaster.pid").exists()
    with EmbeddedPostgres(server_folder, shared=True) as server:
        assert server.pid != pid and query(server.url, "SELECT 1") == [(1,)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_private_server_dies_with_its_killed_starter(server_folder, start_elsewhere):
    process, pid = start_elsewhere(f"s = EmbeddedPostgres(Path({str(server_folder)!r})).start()")
    end(process)
    wait_until(lambda: not lives(pid), "the server ends")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_start_waits_for_an_old_server_that_is_on_its_way_out(server_folder, start_elsewhere):
    process, pid = start_elsewhere(f"s = EmbeddedPostgres(Path({str(server_folder)!r}), shared_buffers='4MB').start()")
    (checkpointer,) = descendants(pid, "checkpointer")
    checkpointer.suspend()  # its last checkpoint is what a server that stops waits for
    end(process)
    lines = (server_folder / "pgdata" / "postmaster.pid").read_text
    wait_until(lambda: lines().splitlines()[7].strip() == "stopping", "the old server is on its way out")
    new = EmbeddedPostgres(server_folder, shared_buffers="4MB")
    with ThreadPoolExecutor(1) as thread:
        started = thread.submit(new.start)
        wait_until(
            lambda: 'lock file "postmaster.pid"' in (server_folder / "server.log").read_text(),
            "the new one was refused",
        )
        checkpointer.resume()
        assert started.result().pid != pid
    with new:
        assert query(new.url, "SELECT 1") == [(1,)]


def test_a_server_is_not_blamed_for_what_an_old_one_wrote_meanwhile():
    log = (
        "[7] FATAL:  terminating connection\n[8] FATAL:  lock file exists\n[8] HINT:  Is another postmaster running?\n"
    )
    assert _last_complaint(log, 8) == "FATAL:  lock file exists"
    assert (
        _last_complaint("postgres: could not access the directory\n", 8) == "postgres: could not access the directory"
    )


def test_processes_that_start_together_share_one_server(server_folder, start_process):
    code = f"s = EmbeddedPostgres(Path({str(server_folder)!r}), shared=True).start()"
    script = f"from pathlib import Path\nfrom db.embedded import *\n{code}\nprint(s.pid, flush=True)\ninput()\ns.stop()"
    processes = [start_process([sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=None) for _ in range(3)]
    pids = {process.stdout.readline() for process in processes}
    for process in processes:
        process.communicate("\n")
    assert len(pids) == 1 and not lives(int(pids.pop()))


def test_a_half_made_cluster_is_made_anew(server_folder):
    server_folder.mkdir()
    (server_folder / "owner.lock").touch()
    (server_folder / "pgdata.new").mkdir()
    (server_folder / "pgdata.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(server_folder, shared_buffers="4MB") as server:
        assert query(server.url, "SELECT 1") == [(1,)]


def test_a_folder_of_something_else_is_left_alone(server_folder):
    server_folder.mkdir()
    (server_folder / "thesis.txt").touch()
    with pytest.raises(EmbeddedPostgresError, match="something other than an embedded server"):
        EmbeddedPostgres(server_folder).start()


def test_trouble_is_told_in_one_line(server_folder, monkeypatch):
    server_folder.write_text("a file")
    with pytest.raises(EmbeddedPostgresError) as error:
        EmbeddedPostgres(server_folder).start()
    assert str(server_folder) in str(error.value) and "\n" not in str(error.value)
    monkeypatch.setenv("PG_BIN_DIR", "/nowhere")
    with pytest.raises(EmbeddedPostgresError, match="PG_BIN_DIR: no postgres in /nowhere"):
        find_binaries()


def test_a_given_port_that_is_taken_is_told_in_one_line(server_folder, postgres):
    with pytest.raises(EmbeddedPostgresError, match="Address already in use") as error:
        EmbeddedPostgres(server_folder, port=postgres.port).start()
    assert "\n" not in str(error.value)
    with EmbeddedPostgres(server_folder, port=free_port(), shared_buffers="4MB") as server:
        assert query(server.url, "SELECT 1") == [(1,)]


@pytest.mark.slow
def test_the_next_temporary_server_removes_what_a_killed_process_left_behind(postgres, start_elsewhere):
    process, pid = start_elsewhere("c = temporary_postgres()\ns = c.__enter__()")
    left = Path(f"/proc/{pid}/cwd").resolve().parent
    end(process)
    wait_until(lambda: not lives(pid), "the server dies with its starter")
    assert left.exists()
    with temporary_postgres() as server:
        assert not left.exists()
        assert server.data_dir.exists()
    assert query(postgres.url, "SELECT 1") == [(1,)]
