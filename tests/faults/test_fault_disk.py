"""The disk that holds the database's tables, or its write-ahead log, is full: a small file system, filled up under load."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from db.binaries import server_user
from db.embedded import temporary_postgres
from tests.support.fault_evidence import Row, check_answers, check_writes, recovery_s, seen
from tests.support.server_process import wait_until

DISK_MB = 80


@pytest.fixture
def disk():
    """A file system of some MB, where the server's user can write."""
    folder = Path(tempfile.mkdtemp(prefix="poolbench-disk-", dir="/var/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0777", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting a file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def move_tables(database, folder):
    """Tables and indexes onto that disk; the write-ahead log stays where it is, as it should in production."""
    place = folder / "tables"
    place.mkdir(mode=0o700)
    user = server_user()
    os.chown(place, user.pw_uid, user.pw_gid)
    with closing(psycopg2.connect(database.admin_url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        cursor.execute("ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small")
        cursor.execute("ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small")


def fill(folder):
    """Leave no room on the disk, although others write to it meanwhile. Returns the file that fills it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_full_disk_fails_writes_alone_and_is_forgotten_when_there_is_room(service_on, database, disk, load, record):
    server, code = service_on(database.url)
    move_tables(database, disk)
    running = load(port=server.port, code=code, mix=("create", "follow", "read", "health"), clients=8, think_s=0.01)
    wait_until(lambda: running.good_since(0) >= 100, "the load runs", 60)
    ballast = fill(disk)
    full_s = time.monotonic()
    wait_until(
        lambda: {o.kind for o in running.outcomes() if o.problem == "disk-full"} == {"create", "follow"},
        "both kinds of writes find no room",
        60,
    )
    failing_s = time.monotonic()
    time.sleep(1.0)  # an outage that lasts
    ballast.unlink()
    repaired_s = time.monotonic()
    wait_until(lambda: running.good_since(repaired_s, "create") >= 50, "writes work again", 60)
    outcomes = running.stop()

    check_answers(outcomes, limit_s=10)
    failed = Counter((o.kind, o.status, o.problem) for o in outcomes if not o.good)
    assert failed.keys() == {("create", 507, "disk-full"), ("follow", 507, "disk-full")}
    reads = [o for o in outcomes if o.kind in {"read", "health"} and failing_s < o.started_s < repaired_s]
    assert reads, "there were reads while the disk was full"
    assert all("53100" in line["trace"] for line in server.failures())
    writes = check_writes(outcomes, database)
    took_s = recovery_s(outcomes, repaired_s)
    assert took_s < 2
    record(
        Row(
            order=40,
            fault=f"the tables' disk full for {repaired_s - full_s:.0f} s",
            load="8 clients, half of the requests are writes",
            saw=f"{seen(outcomes)}; reads and /health never failed",
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s after there is room",
            **writes.columns(),
        )
    )


@pytest.fixture
def logged_there(disk):
    """A server whose write-ahead log is on that disk."""
    small = {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    with temporary_postgres(max_connections=100, shared_buffers="32MB", settings=small) as server:
        server.stop()
        log = server.data_dir / "pgdata" / "pg_wal"
        shutil.copytree(log, disk / "wal")
        shutil.rmtree(log)
        log.symlink_to(disk / "wal")
        user = server_user()
        for each in (disk / "wal", *(disk / "wal").rglob("*")):
            os.chown(each, user.pw_uid, user.pw_gid)
        (disk / "wal").chmod(0o700)
        yield server.start()


def test_a_full_disk_under_the_log_panics_the_database_and_loses_nothing(service_on, logged_there, disk, load, record):
    server, code = service_on(logged_there.url)
    running = load(port=server.port, code=code, mix=("create", "follow", "read", "health"), clients=8, think_s=0.01)
    wait_until(lambda: running.good_since(0) >= 100, "the load runs", 60)
    ballast = fill(disk)
    full_s = time.monotonic()
    with contextlib.suppress(psycopg2.Error), closing(psycopg2.connect(logged_there.admin_url)) as admin:
        admin.autocommit = True
        for _ in range(4):  # the next segment, and with it the end of the room, would come by itself, but later
            admin.cursor().execute("SELECT pg_logical_emit_message(true, 'fault', 'x'), pg_switch_wal()")
    wait_until(lambda: any(o.problem == "database-down" for o in running.outcomes()), "the database is down", 30)
    time.sleep(1.0)  # an outage that lasts
    ballast.unlink()
    logged_there.start()
    repaired_s = time.monotonic()
    wait_until(lambda: running.good_since(repaired_s) >= 100, "the service works again", 60)
    outcomes = running.stop()

    check_answers(outcomes, limit_s=12)
    assert {o.problem for o in outcomes if not o.good} <= {"database-down", "disk-full"}
    assert "PANIC" in (logged_there.data_dir / "server.log").read_text()
    writes = check_writes(outcomes, logged_there)
    took_s = recovery_s(outcomes, repaired_s)
    assert took_s < 5
    record(
        Row(
            order=41,
            fault=f"the write-ahead log's disk full for {repaired_s - full_s:.0f} s: PostgreSQL panics, is started again",
            load="8 clients, half of the requests are writes",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s after the server is up",
            **writes.columns(),
        )
    )
