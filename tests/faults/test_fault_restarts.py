"""Restarts and stops that clients must not notice: SIGHUP replaces the workers, SIGTERM drains them."""

import signal
import time
from itertools import chain
from statistics import median

import pytest

from tests.support.fault_evidence import Row, check_writes, seen
from tests.support.fault_load import NOT_SENT
from tests.support.fault_proxy import Proxy
from tests.support.server_process import wait_until

RATES_PER_S = (500, 250, 125, 60, 30)
MIX = ("create", "read", "read", "read")


def at_rest(load, rate, **plan):
    """Three seconds at this rate while nothing else happens."""
    trial = load(rate_per_s=rate, name="trial", **plan)
    wait_until(lambda: len(trial.outcomes()) >= 3 * rate, "three seconds of load", 60)
    return trial.stop()


def held(outcomes):
    """Whether everything was answered well, and in the end as soon as in the beginning: nothing piles up."""
    last_s = max(o.intended_s for o in outcomes)
    at_last = [o.ended_s - o.intended_s for o in outcomes if o.intended_s > last_s - 1]
    return all(o.good for o in outcomes) and median(at_last) < 0.1


def test_a_rolling_restart_fails_no_request(service_on, database, load, record, workers):
    server, code = service_on(database.url)
    plan = {"port": server.port, "code": code, "mix": MIX}
    trials = []
    for rate in RATES_PER_S:
        trials.append(at_rest(load, rate, **plan))
        if held(trials[-1]):
            break
    else:
        pytest.fail("this machine holds none of the rates at rest")
    arrivals = load(rate_per_s=rate, **plan)
    kept = load(**plan, clients=8, keep_alive=True, think_s=0.05)
    wait_until(lambda: arrivals.good_since(0) >= rate, "the load runs", 60)
    restarts_s = []
    for _ in range(2):
        before, began_s = workers(server), time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(after := workers(server)) == 2 and not after & before, "all are replaced", 30)  # noqa: B023
        restarts_s.append(time.monotonic() - began_s)
        resumed_s = time.monotonic()
        wait_until(lambda: arrivals.good_since(resumed_s) >= rate, "the load runs on", 60)  # noqa: B023
    outcomes = [*arrivals.stop(), *kept.stop()]

    assert all(o.good for o in outcomes), seen(outcomes)
    assert max(restarts_s) < 10
    writes = check_writes([*outcomes, *chain(*trials)], database)
    record(
        Row(
            order=4,
            fault="rolling restart (SIGHUP), twice",
            load=f"{rate} requests/s on new connections, and 8 clients on kept ones",
            saw=seen(outcomes),
            longest_answer_s=max(o.took_s for o in outcomes),
            recovery=f"no failure; all workers replaced after {max(restarts_s):.1f} s",
            **writes.columns(),
        )
    )


@pytest.mark.parametrize("keep_alive", [False, True], ids=["new connections", "kept connections"])
def test_a_stop_answers_everything_that_was_asked_before_it(service_on, database, load, record, keep_alive):
    with Proxy(database) as network:
        server, code = service_on(network.url)
        network.order("delay", 0.05)  # so that at any instant requests are under way
        running = load(port=server.port, code=code, mix=MIX, clients=16, keep_alive=keep_alive, think_s=0.01)
        wait_until(lambda: running.good_since(0) >= 200, "the load runs", 60)
        stopped_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        drained_s = time.monotonic() - stopped_s
        outcomes = running.stop()

    reached = [o for o in outcomes if o.error != NOT_SENT]
    assert all(o.good for o in reached), seen(outcomes)
    assert drained_s < 10
    writes = check_writes(outcomes, database)
    record(
        Row(
            order=5 + keep_alive,
            fault=f"stop (SIGTERM) under load, {'kept' if keep_alive else 'new'} connections",
            load="16 clients, answers take 0.1 s and more",
            saw=seen(reached) + "; then connections are refused",
            longest_answer_s=max(o.took_s for o in reached),
            recovery=f"ended after {drained_s:.1f} s",
            **writes.columns(),
        )
    )
