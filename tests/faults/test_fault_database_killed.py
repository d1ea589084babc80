"""PostgreSQL is killed with SIGKILL in the middle of the work, and started again."""

import time

from tests.support.fault_evidence import Row, check_answers, check_writes, recovery_s, seen
from tests.support.server_process import wait_until

CLIENTS = 8


def test_a_killed_database_loses_no_acknowledged_write_and_is_found_again(service_on, database, load, record):
    server, code = service_on(database.url)
    running = load(
        port=server.port, code=code, mix=("create", "follow", "read", "follow"), clients=CLIENTS, think_s=0.02
    )
    wait_until(lambda: running.good_since(0) >= 200, "the load runs", 60)
    killed_s = time.monotonic()
    database.kill()
    wait_until(lambda: any(o.problem == "database-down" for o in running.outcomes()), "clients are told", 10)
    time.sleep(1.0)  # an outage that lasts
    database.start()
    repaired_s = time.monotonic()
    wait_until(lambda: running.good_since(repaired_s) >= 200, "the service works again", 60)
    outcomes = running.stop()

    check_answers(outcomes, limit_s=10)
    writes = check_writes(outcomes, database)
    refused = [o for o in outcomes if o.status >= 500]
    assert {o.problem for o in refused} == {"database-down"}
    assert len(server.failures()) == len(refused), "one line in the log for each failed request"
    took_s = recovery_s(outcomes, repaired_s)
    assert took_s < 5
    rate = sum(o.good for o in outcomes if o.started_s < killed_s) / (killed_s - outcomes[0].started_s)
    record(
        Row(
            order=1,
            fault="PostgreSQL killed (SIGKILL), started again",
            load=f"{CLIENTS} clients, {rate:.0f} requests/s",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s after the server is up",
            **writes.columns(),
        )
    )
