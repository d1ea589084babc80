"""Several hosts in DATABASE_URL: a silent one is passed over, the right kind of server is chosen, a standby takes over."""

import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

import psycopg2
import pytest

from tests.support.fault_evidence import Row, check_answers, check_writes, recovery_s, seen
from tests.support.server_process import wait_until
from tests.support.standby import Standby

CLIENTS, SIZE, WORKERS = 8, 5, 2


def url_of(*ports, postgres, **query):
    """The URL of one database at several ports of 127.0.0.1."""
    parts = urlsplit(postgres.url)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return f"postgresql://{parts.username}:{parts.password}@{hosts}{parts.path}?{asked}"


@pytest.fixture
def silent_port():
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


def test_a_silent_first_host_is_passed_over(service_on, database, load, record, silent_port):
    url = url_of(silent_port, database.port, postgres=database, connect_timeout=1)
    began_s = time.monotonic()
    server, code = service_on(url, workers=1, DB_POOL_SIZE=SIZE)
    started_s = time.monotonic() - began_s
    running = load(port=server.port, code=code, mix=("create", "follow", "read"), clients=CLIENTS, think_s=0.02)
    wait_until(lambda: running.good_since(0) >= 200, "the load runs", 60)
    outcomes = running.stop()

    assert all(o.good for o in outcomes), seen(outcomes)
    longest_s = max(o.took_s for o in outcomes)
    assert longest_s < 3
    record(
        Row(
            order=14.1,
            fault="the first of two hosts in DATABASE_URL accepts connections and is silent (connect_timeout=1)",
            load=f"{CLIENTS} clients",
            saw=f"{seen(outcomes)}; the first link was made {started_s:.1f} s after the start",
            longest_answer_s=longest_s,
            recovery="no failure",
            **check_writes(outcomes, database).columns(),
        )
    )


def address_of(server, database, standby):
    """The ports of the servers that hold sessions of the service."""
    found = []
    for postgres in (database, standby):
        with closing(psycopg2.connect(postgres.admin_url)) as admin, admin.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poolbench'")
            found += [postgres.port] if cursor.fetchone()[0] else []
    assert server.get("/health").status == 200
    return found


def test_the_kind_of_server_that_is_asked_for_is_chosen(service_on, start_service, database):
    with Standby(database) as standby:
        ports = (standby.port, database.port)
        server, code = service_on(url_of(*ports, postgres=database, target_session_attrs="read-write"), workers=1)
        assert server.get(f"/{code}").status == 301
        assert address_of(server, database, standby) == [database.port]
        server.stop()
        wait_until(lambda: address_of_nobody(database), "the sessions have ended")
        reader = start_service(DATABASE_URL=url_of(*ports, postgres=database, target_session_attrs="standby"))
        wait_until(lambda: reader.get(f"/links/{code}").status == 200, "the standby has the link", 20)
        assert reader.get(f"/links/{code}").json["clicks"] == 1
        assert address_of(reader, database, standby) == [standby.port]


def address_of_nobody(database):
    with closing(psycopg2.connect(database.admin_url)) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poolbench'")
        return cursor.fetchone()[0] == 0


def test_a_promoted_standby_takes_over_without_losing_an_acknowledged_write(service_on, database, load, record):
    """Replication is synchronous: what only the lost server knew was never acknowledged."""
    with Standby(database) as standby:
        url = url_of(
            database.port, standby.port, postgres=database, target_session_attrs="read-write", connect_timeout=1
        )
        server, code = service_on(url, workers=WORKERS, DB_POOL_SIZE=SIZE)
        running = load(port=server.port, code=code, mix=("create", "follow", "read"), clients=CLIENTS, think_s=0.02)
        wait_until(lambda: running.good_since(0) >= 200, "the load runs", 60)
        killed_s = time.monotonic()
        database.kill()
        standby.promote()
        answered_s = time.monotonic()
        wait_until(lambda: running.good_since(answered_s) >= 200, "the service works again", 60)
        outcomes = running.stop()

        check_answers(outcomes, limit_s=5)
        writes = check_writes(outcomes, standby)
        late = [o for o in outcomes if not o.good and o.started_s > answered_s]
        took_s = recovery_s(outcomes, answered_s)
        assert len(late) <= 2 * SIZE * WORKERS and took_s < 1
        assert server.get(f"/links/{code}").json["clicks"] >= sum(o.good for o in outcomes if o.kind == "follow")
        record(
            Row(
                order=14.2,
                fault=f"the primary killed (SIGKILL), its synchronous standby promoted within {answered_s - killed_s:.1f} s",
                load=f"{CLIENTS} clients, {WORKERS} workers with {SIZE} connections each",
                saw=f"{seen(outcomes)}; {len(late)} failures began after the standby took writes",
                longest_answer_s=max(o.took_s for o in outcomes),
                recovery=f"{took_s:.1f} s after the standby takes writes",
                **writes.columns(),
            )
        )
