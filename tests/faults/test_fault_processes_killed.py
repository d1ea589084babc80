"""A worker, or gunicorn's master, is killed with SIGKILL in the middle of the work."""

import os
import signal
import sys
import time

import psutil

from tests.support.fault_evidence import Row, check_answers, check_writes, recovery_s, seen
from tests.support.fault_load import NOT_SENT
from tests.support.server_process import GUNICORN, wait_until

CLIENTS = 8
MIX = ("create", "follow", "read")


def test_a_killed_worker_costs_only_the_requests_it_had(service_on, database, load, record, workers):
    server, code = service_on(database.url)
    wait_until(lambda: len(workers(server)) == 2, "both workers are there")
    running = load(port=server.port, code=code, mix=MIX, clients=CLIENTS, think_s=0.01)
    wait_until(lambda: running.good_since(0) >= 100, "the load runs", 60)
    victim = min(workers(server))
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers(server) - {victim}) == 2, "the master starts another")
    replaced_s = time.monotonic() - killed_s
    wait_until(lambda: running.good_since(killed_s + replaced_s) >= 200, "the service works", 60)
    outcomes = running.stop()

    check_answers(outcomes, limit_s=10, unanswered=CLIENTS)
    assert all(o.good for o in outcomes if o.status)
    writes = check_writes(outcomes, database)
    took_s = recovery_s(outcomes, killed_s)
    assert took_s < 5 and replaced_s < 5
    record(
        Row(
            order=2,
            fault="1 of 2 workers killed (SIGKILL)",
            load=f"{CLIENTS} clients",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s; another worker after {replaced_s:.1f} s",
            **writes.columns(),
        )
    )


def test_workers_of_a_killed_master_finish_their_work_and_make_room_for_the_next(
    start_service, database, load, record, tmp_path
):
    supervised = [sys.executable, "-m", "tests.support.fault_supervisor", *GUNICORN]
    server = start_service(command=supervised, DATABASE_URL=database.url, WEB_CONCURRENCY=2, TMPDIR=tmp_path)
    code = server.new_link("https://example.com/followed")
    supervisor = psutil.Process(server.process.pid)
    running = load(port=server.port, code=code, mix=MIX, clients=CLIENTS, think_s=0.01)
    wait_until(lambda: running.good_since(0) >= 100, "the load runs", 60)
    (master,) = supervisor.children()
    orphans = master.children()
    killed_s = time.monotonic()
    master.kill()
    wait_until(lambda: any(c.pid != master.pid for c in supervisor.children()), "it is started again")
    wait_until(lambda: running.good_since(killed_s + 0.5) >= 200, "the service works again", 60)
    wait_until(lambda: not any(o.is_running() for o in orphans), "the old workers are gone")
    outcomes = running.stop()

    reached = [o for o in outcomes if o.error != NOT_SENT]
    check_answers(reached, limit_s=10)
    assert all(o.good for o in reached), seen(outcomes)
    writes = check_writes(outcomes, database)
    took_s = recovery_s(outcomes, killed_s)
    assert took_s < 10
    record(
        Row(
            order=3,
            fault="gunicorn's master killed (SIGKILL), its supervisor starts another",
            load=f"{CLIENTS} clients",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in reached),
            recovery=f"{took_s:.1f} s",
            **writes.columns(),
        )
    )
