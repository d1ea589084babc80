"""The network between service and database is slow, cut, or dead without a word."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from statistics import median

import psycopg2
import pytest

from db.green import LATE_MARGIN_S
from tests.support.fault_evidence import Row, check_answers, check_writes, recovery_s, seen
from tests.support.fault_proxy import Proxy
from tests.support.paths import ROOT
from tests.support.server_process import wait_until

CLIENTS = 8
STATEMENT_TIMEOUT_S = 1
WORK = ("create", "read", "follow")
MIX = (*WORK, "health")


@pytest.fixture
def network(database):
    with Proxy(database) as proxy:
        yield proxy


def round_trip_s(url):
    """The median of some, measured beside the service."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor, took_s = connection.cursor(), []
        for _ in range(5):
            began_s = time.perf_counter()
            cursor.execute("SELECT 1")
            took_s.append(time.perf_counter() - began_s)
    return median(took_s)


@pytest.mark.parametrize(("delay_ms", "settings"), [(5, {}), (50, {}), (500, {"DB_POOL_TIMEOUT": 20})])
def test_a_slow_network_costs_time_and_nothing_else(service_on, database, network, load, record, delay_ms, settings):
    # A connection takes four round trips to open, an engine's first one thirteen. Whoever waits for one waits at most
    # DB_POOL_TIMEOUT, 5 s by default.
    server, code = service_on(network.url, **settings)
    network.order("delay", delay_ms / 1e3)
    measured_s = round_trip_s(network.url)
    assert measured_s >= 2 * delay_ms / 1e3
    running = load(port=server.port, code=code, mix=WORK, clients=CLIENTS, think_s=0.01)
    wait_until(lambda: running.good_since(0) >= 50, "the load runs", 60)
    outcomes = running.stop()
    network.order("pass")

    assert all(o.good for o in outcomes), seen(outcomes)
    assert min(o.took_s for o in outcomes) >= 2 * delay_ms / 1e3
    writes = check_writes(outcomes, database)
    seconds = outcomes[-1].ended_s - outcomes[0].started_s
    record(
        Row(
            order=20 + delay_ms // 50,
            fault=f"{delay_ms} ms of delay each way (round trip measured: {measured_s * 1e3:.0f} ms)",
            load=", ".join(
                [
                    f"{CLIENTS} clients, {len(outcomes) / seconds:.0f} requests/s",
                    *(f"{name}={value}" for name, value in settings.items()),
                ]
            ),
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery="no failure",
            **writes.columns(),
        )
    )


@pytest.mark.parametrize("how", ["cut", "silence"])
def test_a_network_that_is_gone_is_told_in_time_and_found_again(service_on, database, network, load, record, how):
    server, code = service_on(network.url, DB_POOL_SIZE=4, STATEMENT_TIMEOUT=STATEMENT_TIMEOUT_S)
    running = load(port=server.port, code=code, mix=MIX, clients=CLIENTS, think_s=0.02)
    wait_until(lambda: running.good_since(0) >= 100, "the load runs", 60)
    gone_s = network.order(how)
    wait_until(lambda: len({o.kind for o in running.outcomes() if not o.good}) == len(MIX), "all kinds fail", 30)
    asked_s = time.monotonic()
    assert server.get("/live").status == 200
    assert time.monotonic() - asked_s < 1
    time.sleep(5.0)  # an outage that lasts
    repaired_s = network.order("pass")
    wait_until(lambda: running.good_since(repaired_s) >= 100, "the service works again", 60)
    outcomes = running.stop()

    # At worst a request waits for a connection (5 s) and then opens one (5 s): the limits of both are their own.
    check_answers(outcomes, limit_s=12)
    assert {o.problem for o in outcomes if not o.good} <= {
        "database-down",
        "pool-timeout",
        "queue-full",  # a wait that would be longer than the pool's timeout is refused
        "statement-timeout",
    }
    in_statement = [o for o in outcomes if o.started_s < gone_s - 0.1 and not o.good]
    assert all(o.ended_s - gone_s < STATEMENT_TIMEOUT_S + LATE_MARGIN_S + 2 for o in in_statement)
    assert max(o.took_s for o in outcomes if o.kind == "health") < 4
    writes = check_writes(outcomes, database)
    took_s = recovery_s(outcomes, repaired_s)
    assert took_s < 6
    what = "cut: connections reset, new ones refused" if how == "cut" else "half-open: nothing comes through or back"
    record(
        Row(
            order=31 + (how == "silence"),
            fault=f"network to the database {what}, for {repaired_s - gone_s:.0f} s",
            load=f"{CLIENTS} clients",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s",
            **writes.columns(),
        )
    )


DROP_EVERYTHING = """
import select, subprocess, threading, time
import psycopg2
from db.database import connect_arguments
from db.embedded import temporary_postgres
from db.settings import DatabaseSettings
def link(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)
def connect():
    settings = DatabaseSettings.from_mapping({"DATABASE_URL": postgres.url})
    return psycopg2.connect(**connect_arguments(settings) | {"connect_timeout": 5})
def wait_for_news():
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN | select.POLLERR)
    poll.poll(60_000)
    print("idle", time.monotonic() - began)
link("up")
with temporary_postgres(shared_buffers="16MB") as postgres:
    busy, idle = connect(), connect()
    link("down")
    began = time.monotonic()
    watcher = threading.Thread(target=wait_for_news)
    watcher.start()
    try:
        busy.cursor().execute("SELECT 1")
    except psycopg2.OperationalError:
        print("busy", time.monotonic() - began)
    watcher.join()
    time.sleep(max(0, began + 18 - time.monotonic()))
    link("up")
    admin = psycopg2.connect(postgres.admin_url).cursor()
    admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poolbench'")
    print("sessions", admin.fetchone()[0])
"""


def test_both_kernels_notice_a_peer_that_is_gone_without_a_word(record):
    """In a network of its own, whose only interface goes down: packets are dropped, as in a data centre, and not refused."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("a network of one's own needs root, ip and unshare, which are not all there")
    command = ["unshare", "--net", sys.executable, "-c", DROP_EVERYTHING]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert 8 < found["busy"] < 20 and 8 < found["idle"] < 20
    assert found["sessions"] == 0, "the server has noticed as well, and its slots are free"
    record(
        Row(
            order=33,
            fault="packets to and from the database dropped for 18 s",
            load="an idle connection, and one in a statement",
            saw=f"the kernel gives up the idle one after {found['idle']:.0f} s, the busy one after {found['busy']:.0f} s; "
            "the server has ended both sessions",
            longest_answer_s=found["busy"],
            recovery="at once",
        )
    )
