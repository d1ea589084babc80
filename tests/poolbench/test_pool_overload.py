"""FairPool with more requests than it can serve, in simulated time, where no other program disturbs."""

import random

import pytest
from sqlalchemy import exc

from tests.poolbench.simulation.schedule import packages_in, simulated_process
from tests.poolbench.simulation.server import Server
from tests.poolbench.simulation.world import MS, Thread, World
from tests.support.paths import ROOT

SIZE, HOLDS = 10, 40


def overloaded(factor, hold_s, change=1.0):
    """Requests at `factor` times the capacity, for the time of 40 holds; half way holds become `change` times as long.

    Each may wait for eight of the longest holds and wants its answer within nine and a half. Returns the goodput, the share of
    answers that came too late, and the times in s to a refusal.
    """
    longest_s, seconds = hold_s * max(1.0, change), HOLDS * hold_s * max(1.0, change)
    pool_package = packages_in(ROOT / "poolbench").with_gevent
    with simulated_process():
        world = World(1, most_steps=10**9)
        world.is_patched, rng = True, random.Random(2)
        hub = Thread(world, lambda: None, hub=True).hub
        server = Server(world, SIZE)
        server.connect_ns, server.switching_share = (2 * MS,), 0.0
        pool = pool_package.fair_pool.FairPool(
            server.connect, pool_size=SIZE, max_overflow=0, timeout=8 * longest_s, max_wait=8 * longest_s
        )
        began_ns = world.now_ns
        answers_s, refusals_s, ended_s = [], [], [0.0]

        def now_s():
            return (world.now_ns - began_ns) / 1e9

        def hold_now_s():
            return hold_s if now_s() < seconds / 2 else hold_s * change

        def visit():
            asked_s = now_s()
            try:
                loan = pool.connect()
            except exc.TimeoutError:
                refusals_s.append(now_s() - asked_s)
                return
            held_s = hold_now_s() * rng.uniform(0.8, 1.2)
            world.pause(round(held_s * 1e9))
            loan.close()
            answers_s.append((now_s() - asked_s, held_s))
            ended_s[0] = now_s()

        def arrivals():
            while now_s() < seconds:
                world.pause(round(rng.expovariate(factor * SIZE / hold_now_s()) * 1e9))
                world.spawn(visit, hub)

        world.spawn(arrivals, hub)
        world.run(lambda: False, lambda: None, lambda: None, 2 * seconds)
        world.end()
    good_s = sum(held_s for answer_s, held_s in answers_s if answer_s <= 9.5 * longest_s)
    late = sum(answer_s > 9.5 * longest_s for answer_s, _ in answers_s) / len(answers_s)
    return good_s / (SIZE * ended_s[0]), late, sorted(refusals_s)


@pytest.mark.parametrize(
    ("factor", "hold_s", "change"),
    [(1.5, 0.1, 1.0), (3.0, 0.005, 1.0), (10.0, 1.0, 1.0), (3.0, 0.1, 10.0), (3.0, 0.1, 0.1)],
)
def test_what_can_be_served_is_served_in_time_and_the_rest_refused_at_once(factor, hold_s, change):
    goodput, late, refusals_s = overloaded(factor, hold_s, change)
    assert goodput >= 0.95
    assert late <= 0.01
    assert refusals_s[len(refusals_s) // 2] < 0.005
