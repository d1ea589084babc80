"""Ten times more than the service can do, and statements that fill its pool."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from statistics import quantiles

import psycopg2
import pytest

from tests.support.fault_evidence import Row, check_answers, recovery_s, seen
from tests.support.fault_proxy import Proxy
from tests.support.server_process import wait_until

OVERLOAD_S = 30.0
HEALTH_LIMIT_S = 2.0  # as the fixture sets it
POOL_TIMEOUT_S = 5.0  # the default, and that of DB_POOL_MAX_WAIT


def goodput_per_s(outcomes, since_s, until_s):
    return sum(o.good and since_s <= o.ended_s < until_s for o in outcomes) / (until_s - since_s)


def test_ten_times_overload_is_shed_fast_and_forgotten_at_once(service_on, database, load, record):
    """The capacity is the pool's: 2 connections to a database 80 ms away serve 25 requests/s, whatever the machine."""
    with Proxy(database) as network:
        server, code = service_on(network.url, workers=1, DB_POOL_SIZE=2)
        network.order("delay", 0.04)
        plan = {"port": server.port, "code": code, "mix": ("read",)}
        saturating = load(**plan, clients=8)
        wait_until(lambda: saturating.good_since(0) >= 10, "connections are open", 30)
        began_s = time.monotonic()
        time.sleep(6.0)
        peak_per_s = goodput_per_s(saturating.stop(), began_s, began_s + 6.0)

        overload = load(**plan, rate_per_s=10 * peak_per_s)
        wait_until(lambda: len(overload.outcomes()) > 0, "the overload runs", 10)
        began_s = time.monotonic()
        time.sleep(OVERLOAD_S)
        ended_s = time.monotonic()
        after = load(**plan, rate_per_s=peak_per_s / 2)
        outcomes = overload.stop()
        wait_until(lambda: after.good_since(ended_s) >= 3 * peak_per_s, "six seconds of half the load", 60)
        calm = after.stop()

    offered_per_s = sum(began_s <= o.intended_s < ended_s for o in outcomes) / OVERLOAD_S
    goodput = goodput_per_s(outcomes, began_s, ended_s)
    shed_s = quantiles([o.took_s for o in outcomes if o.status == 503], n=100)
    took_s = recovery_s(calm, ended_s)
    assert offered_per_s > 9 * peak_per_s, "the generator kept up"
    check_answers(outcomes, limit_s=10)
    assert {o.problem for o in outcomes if not o.good} == {"queue-full"}
    assert goodput > 0.8 * peak_per_s
    assert shed_s[49] < 0.1 and shed_s[94] < 1
    assert took_s < 2
    record(
        Row(
            order=7,
            fault="overload: ten times the capacity for 30 s",
            load=f"{offered_per_s:.0f} requests/s arriving, capacity {peak_per_s:.0f} (2 connections, database 80 ms away)",
            saw=f"{seen(outcomes)}; goodput {goodput / peak_per_s:.0%} of peak; refused after {shed_s[49] * 1e3:.0f} ms "
            f"(median), {shed_s[98] * 1e3:.0f} ms (p99)",
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s",
        )
    )


def make_reads_take(database, seconds):
    """Let each read of a link wait in the database, in a statement that does nothing else for so long."""
    with closing(psycopg2.connect(database.url)) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION unfolded_clicks RENAME TO unfolded_clicks_at_once")
        cursor.execute(
            "CREATE FUNCTION unfolded_clicks(of_link bigint) RETURNS SETOF clicks LANGUAGE plpgsql AS $$"
            f"BEGIN PERFORM pg_sleep({seconds}); RETURN QUERY SELECT * FROM unfolded_clicks_at_once(of_link); END $$"
        )
        connection.commit()


@pytest.mark.parametrize("times", [3, 10])
@pytest.mark.parametrize("statement_s", [0.1, 1.0])
def test_overload_with_slow_statements_keeps_the_pool_busy(service_on, database, load, record, statement_s, times):
    """The capacity is the pool's, and known: each connection is busy for as long as a statement takes."""
    size = 2 if statement_s < 1 else 4
    server, code = service_on(database.url, workers=1, DB_POOL_SIZE=size)
    make_reads_take(database, statement_s)
    capacity_per_s = size / statement_s
    overload = load(port=server.port, code=code, mix=("read",), rate_per_s=times * capacity_per_s)
    wait_until(lambda: overload.good_since(0) >= 2 * size, "the pool is full", 20)
    began_s = time.monotonic()
    time.sleep(10 + 10 * statement_s)
    ended_s = time.monotonic()
    outcomes = overload.stop()

    offered_per_s = sum(began_s <= o.intended_s < ended_s for o in outcomes) / (ended_s - began_s)
    goodput = goodput_per_s(outcomes, began_s, ended_s)
    refused_s = quantiles([o.took_s for o in outcomes if o.problem == "queue-full"], n=100)
    assert offered_per_s > 0.9 * times * capacity_per_s, "the generator kept up"
    check_answers(outcomes, limit_s=POOL_TIMEOUT_S + statement_s + 2)
    assert goodput >= 0.9 * capacity_per_s
    assert refused_s[49] < 0.1
    late = sum(o.problem == "pool-timeout" for o in outcomes)
    record(
        Row(
            order=7 + statement_s / 10 + times / 1000,
            fault=f"overload: {times} times the capacity, statements of {statement_s * 1e3:.0f} ms",
            load=f"{offered_per_s:.0f} requests/s arriving, capacity {capacity_per_s:.0f} ({size} connections)",
            saw=f"{seen(outcomes)}; goodput {goodput / capacity_per_s:.0%} of capacity; refused after "
            f"{refused_s[49] * 1e3:.0f} ms (median), {refused_s[98] * 1e3:.0f} ms (p99); {late} waited in vain",
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery="-",
        )
    )


def test_slow_statements_that_fill_the_pool_leave_health_and_cheap_requests_answerable(
    service_on, database, load, record
):
    server, code = service_on(database.url, workers=1, DB_POOL_SIZE=4, STATEMENT_TIMEOUT=6)
    assert server.get("/health").status == 200
    with closing(psycopg2.connect(database.url)) as lock, ThreadPoolExecutor(4) as slow:
        lock.cursor().execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        began_s = time.monotonic()
        slow_answers = [slow.submit(server.get, f"/links/{code}/analytics") for _ in range(4)]
        wait_until(lambda: server.get("/pool").json["in_use"] == 4, "the pool is full")
        running = load(port=server.port, code=code, mix=("health", "live", "read"), clients=6, think_s=0.1)
        statuses = [each.result().status for each in slow_answers]
        held_s = time.monotonic() - began_s
        assert {server.get("/pool").status, server.get("/metrics").status} == {200}
    freed_s = time.monotonic()
    wait_until(lambda: running.good_since(freed_s, "read") >= 10, "reads are served again", 20)
    outcomes = running.stop()

    assert statuses == [504] * 4
    check_answers(outcomes, limit_s=8)
    health = [o for o in outcomes if o.kind == "health"]
    live = [o for o in outcomes if o.kind == "live"]
    assert all(o.good for o in live) and max(o.took_s for o in live) < 1
    assert any(o.problem == "pool-timeout" for o in health)
    assert max(o.took_s for o in health) < HEALTH_LIMIT_S + 1
    took_s = recovery_s(outcomes, freed_s)
    assert took_s < 2
    record(
        Row(
            order=8,
            fault=f"4 slow statements hold all 4 connections for {held_s:.0f} s",
            load="6 clients: /health, /live, reads",
            saw=f"{seen(outcomes)}; /health answers within {max(o.took_s for o in health):.1f} s, "
            f"/live within {max(o.took_s for o in live):.2f} s; the slow ones get 504",
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"{took_s:.1f} s",
        )
    )


def many_clicks(database, code, count):
    """Add so many clicks that their analytics take seconds."""
    with closing(psycopg2.connect(database.url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            "INSERT INTO clicks (link_id, browser, platform) SELECT id, 'Chrome', 'Linux' FROM links, generate_series(1, %s)"
            " WHERE code = %s",
            (count, code),
        )
        cursor.execute("ANALYZE clicks")


def test_slow_statements_leave_the_reserve_to_cheap_requests(service_on, database, load, record):
    server, code = service_on(database.url, workers=1, DB_POOL_SIZE=4, DB_POOL_RESERVE=2, STATEMENT_TIMEOUT=20)
    many_clicks(database, code, 200_000)
    cheap = server.new_link("https://example.com/cheap")
    slow = load(port=server.port, code=code, mix=("analytics",), clients=8, name="slow")
    wait_until(lambda: server.get("/pool").json["in_use"] >= 2, "the slow ones are at it")
    began_s = time.monotonic()
    quick = load(port=server.port, code=cheap, mix=("follow", "read", "health", "live"), clients=4, think_s=0.1)
    wait_until(lambda: slow.good_since(0) >= 6 and quick.good_since(0) >= 100, "both get on", 60)
    outcomes, slow_outcomes = quick.stop(), slow.stop()

    assert all(o.good for o in outcomes), seen(outcomes)
    slowest_s = max(o.took_s for o in outcomes)
    assert slowest_s < HEALTH_LIMIT_S
    slow_s = [o.took_s for o in slow_outcomes if o.good and o.ended_s > began_s]
    assert max(slow_s) > slowest_s
    check_answers(slow_outcomes, limit_s=20)
    record(
        Row(
            order=9,
            fault="8 clients want slow statements, DB_POOL_RESERVE=2 of 4",
            load="4 clients: clicks, reads, /health, /live",
            saw=f"{seen(outcomes)}; slow ones: {seen(slow_outcomes)}, up to {max(slow_s):.1f} s",
            longest_answer_s=slowest_s,
            recovery="no failure",
        )
    )
