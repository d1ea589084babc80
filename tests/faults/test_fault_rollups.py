"""Roll-ups stay right while clicks come in, and workers, folding backends and the database are killed."""

import os
import random
import signal
import time
from contextlib import closing, suppress

import psutil
import psycopg2

from db import rollups
from db.database import Database
from db.settings import DatabaseSettings
from tests.support.fault_evidence import Row, check_writes, seen
from tests.support.server_process import wait_until

FAULT_S = 20.0


def kill_a_folding_backend(database):
    """Kill, with SIGTERM, a backend that folds just now, or else take its row from those that come; True if one was killed."""
    with suppress(psycopg2.Error), closing(psycopg2.connect(database.admin_url)) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        for _ in range(300):
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE '%fold_clicks%' AND state = 'active' AND pid <> pg_backend_pid()"
            )
            if cursor.fetchall():
                return True
            time.sleep(0.005)
    return False


def test_roll_ups_equal_the_clicks_through_kills_and_restarts(service_on, database, load, record, workers):
    server, code = service_on(database.url)
    other = server.new_link("https://example.com/other")
    plan = {"port": server.port, "clients": 6, "think_s": 0.005}
    loads = [
        load(**plan, code=code, mix=("follow", "follow", "read")),
        load(**plan, code=other, mix=("follow", "analytics")),
    ]
    wait_until(lambda: all(each.good_since(0) >= 100 for each in loads), "the load runs", 60)
    chance, until_s = random.Random(1), time.monotonic() + FAULT_S
    workers_killed = backends_killed = databases_killed = 0
    while time.monotonic() < until_s:
        backends_killed += kill_a_folding_backend(database)
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(chance.choice(sorted(workers(server))), signal.SIGKILL)
            workers_killed += 1
        if chance.random() < 0.3:
            database.kill()
            database.start()
            databases_killed += 1
        time.sleep(0.5)
    repaired_s = time.monotonic()
    wait_until(lambda: all(each.good_since(repaired_s) >= 100 for each in loads), "the service works", 60)
    outcomes = [outcome for each in loads for outcome in each.stop()]
    writes = check_writes(outcomes, database)
    assert workers_killed > 5 and backends_killed > 3 and databases_killed > 0

    rows = Database(DatabaseSettings.from_mapping({"DATABASE_URL": database.url}))
    with rows.connection() as connection:
        assert rollups.check(connection).holds
        wait_until(lambda: rollups.check(connection).unfolded == 0, "the service folds what is left", 20)
        found = rollups.check(connection)
        count = connection.exec_driver_sql("SELECT count(*) FROM clicks").scalar_one()
    rows.close()
    assert found.holds and found.rolled_up == count >= writes.acknowledged
    shown = [server.get(f"/links/{each}").json["clicks"] for each in (code, other)]
    assert sum(shown) == count
    record(
        Row(
            order=19,
            fault=f"for {FAULT_S:.0f} s: {workers_killed} workers killed (SIGKILL), {backends_killed} backends that fold clicks, "
            f"the database {databases_killed} times",
            load="12 clients: clicks and analytics",
            saw=f"{seen(outcomes)}; afterwards {found.rolled_up} clicks in the roll-ups, {count} rows, no count differs",
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery="-",
            **writes.columns(),
        )
    )
