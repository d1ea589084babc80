"""The simulation: small cases by hand, closed formulas within statistical error, and laws that hold always."""

import heapq
import time
from dataclasses import replace
from math import exp, factorial, inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.sizing import queueing
from loadgen.sizing.course import SERVED, SHED, TIMED_OUT, Arrangement
from loadgen.sizing.simulate import CpuTimes, arrivals, busy_rate_per_s, quantile, simulate
from loadgen.sizing.workers import WorkersCourse

REPLICATIONS = 10


def run(arrangement, arrived, holds, connects=0.0):
    return simulate(arrangement, np.array(arrived, float), np.array(holds, float), connects)


def replicated(*figures, rate, holds, count=12_000, **arrangement):
    """For each figure its mean over independent simulations, and the standard error of that."""
    found = []
    for seed in range(REPLICATIONS):
        rng = np.random.default_rng([seed, 7])
        outcome = simulate(Arrangement(**arrangement), arrivals(rate, count, rng), holds(rng, count), seed=seed)
        found.append([figure(outcome) for figure in figures])
    return list(zip(np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / sqrt(REPLICATIONS), strict=True))


def mean_wait(outcome):
    return outcome.waits_s.mean()


def exponential(mean_s):
    return lambda rng, count: rng.exponential(mean_s, count)


def constant(hold_s):
    return lambda _rng, count: np.full(count, hold_s)


def agrees(found, exact, *, within=0.05):
    """Within four standard errors, which must themselves be small."""
    mean, error = found
    assert error < within * exact, f"{error} is too wide to tell anything of {exact}"
    assert abs(mean - exact) < 4 * error, f"{mean} +- {error}, and not {exact}"


# Against closed formulas


@pytest.mark.parametrize("load", [0.5, 0.7, 0.8])
def test_one_exponential_server_waits_as_m_m_1(load):
    (wait,) = replicated(mean_wait, rate=load, holds=exponential(1), size=1)
    agrees(wait, load / (1 - load), within=0.1)


@pytest.mark.parametrize(("size", "load"), [(2, 0.7), (5, 0.8), (20, 0.85)])
def test_exponential_holds_wait_as_m_m_c(size, load):
    mean, waiting, p99 = replicated(
        mean_wait,
        lambda o: np.mean(o.waits_s > 0),
        lambda o: quantile(o.waits_s, 0.99),
        rate=load * size,
        holds=exponential(1),
        size=size,
    )
    agrees(mean, queueing.mmc_mean_wait_s(load * size, 1, size), within=0.1)
    agrees(waiting, queueing.erlang_c(load * size, size))
    agrees(p99, queueing.mmc_wait_quantile_s(0.99, load * size, 1, size), within=0.1)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_constant_server_waits_as_m_d_1(load):
    """The mean by Pollaczek and Khinchine, the distribution by Erlang's sum."""
    up_to = 2.5
    terms = ((load * (k - up_to)) ** k / factorial(k) * exp(load * (up_to - k)) for k in range(int(up_to) + 1))
    mean, share = replicated(mean_wait, lambda o: np.mean(o.waits_s <= up_to), rate=load, holds=constant(1.0), size=1)
    agrees(mean, queueing.mgc_mean_wait_s(load, 1, 1, variation=0))
    agrees(share, (1 - load) * sum(terms))


def test_constant_holds_at_several_connections_wait_near_lee_and_longton():
    """An approximation: within 10 % for the mean at a high load."""
    ((mean, _),) = replicated(mean_wait, rate=4.5, holds=constant(1.0), size=5)
    assert mean == pytest.approx(queueing.mgc_mean_wait_s(4.5, 1, 5, variation=0), rel=0.1)


@pytest.mark.parametrize("load", [0.8, 1.0, 1.5])
def test_timeouts_are_barrers(load):
    (share,) = replicated(lambda o: o.share(TIMED_OUT), rate=5 * load, holds=exponential(1), size=5, timeout_s=1.0)
    agrees(share, queueing.mmc_timeout_share(5 * load, 1, 5, 1.0))


@pytest.mark.parametrize("load", [0.8, 1.5])
def test_a_full_queue_sheds_as_m_m_c_k(load):
    (share,) = replicated(lambda o: o.share(SHED), rate=5 * load, holds=exponential(1), size=5, max_waiting=4)
    agrees(share, queueing.mmc_shed_share(5 * load, 1, 5, 4))


@pytest.mark.parametrize("holds", [exponential(1), constant(1.0)])
def test_a_core_shared_by_all_takes_hold_over_idle_whatever_the_law(holds):
    """M/G/1 with processor sharing: the mean from having to giving back is hold / (1 - load)."""
    (held,) = replicated(lambda o: o.held_s.mean(), rate=0.6, holds=holds, size=100, db_cores=1)
    agrees(held, 1 / 0.4)


def test_servers_chosen_at_random_are_as_many_queues_of_their_own():
    (wait,) = replicated(mean_wait, rate=4 * 0.7, holds=exponential(1), size=1, servers=4, count=25_000)
    agrees(wait, 0.7 / 0.3)


def test_littles_law_ties_utilisation_to_rate_and_hold():
    (used,) = replicated(lambda o: o.utilisation, rate=7, holds=exponential(1), size=10, count=5000)
    agrees(used, 0.7)


# By hand


def test_the_first_who_waits_is_the_first_served():
    outcome = run(Arrangement(size=1), [0, 1, 2], [5, 1, 1])
    assert outcome.granted_s.tolist() == [0, 5, 6]
    assert outcome.ended_s.tolist() == [5, 6, 7]
    assert outcome.waits_s.tolist() == [0, 4, 4]
    assert quantile(outcome.waits_s, 0.5) == 4
    assert outcome.held_s.tolist() == [5, 1, 1]
    assert outcome.responses_s.tolist() == [5, 5, 5]


def test_a_waiter_runs_a_pass_of_the_event_loop_after_the_return():
    assert run(Arrangement(size=1, wake_s=0.5), [0, 1], [5, 1]).granted_s.tolist() == [0, 5.5]


def test_in_a_barging_pool_whoever_asks_before_the_waiter_runs_is_served_first():
    arrived, holds = [0, 1, 5.25, 5.3], [5, 1, 1, 1]
    barging = run(Arrangement(size=1, wake_s=0.5, hand_over="barging"), arrived, holds)
    assert barging.granted_s.tolist() == [0, 8.25, 5.25, 6.75]  # overtaken, the second went behind the fourth
    assert run(Arrangement(size=1, wake_s=0.5), arrived, holds).granted_s.tolist() == [0, 5.5, 7, 8.5]


def test_a_barging_waiter_whose_time_is_up_when_it_was_overtaken_gives_up():
    outcome = run(Arrangement(size=1, wake_s=0.5, hand_over="barging", timeout_s=4.2), [0, 1, 5.1], [5, 1, 1])
    assert outcome.fates.tolist() == [SERVED, TIMED_OUT, SERVED]
    assert outcome.granted_s[1] == pytest.approx(5.2)


def test_who_has_waited_for_the_timeout_leaves_and_frees_its_place_in_the_queue():
    outcome = run(Arrangement(size=1, timeout_s=1, max_waiting=1), [0, 0.5, 1, 2, 2.6], [9, 1, 1, 1, 1])
    assert outcome.fates.tolist() == [SERVED, TIMED_OUT, SHED, TIMED_OUT, SHED]
    assert outcome.ended_s.tolist() == [9, 1.5, 1, 3, 2.6]


def test_two_holds_on_one_core_go_on_at_half_their_speed():
    outcome = run(Arrangement(size=2, db_cores=1), [0, 0.5], [1, 1])
    assert outcome.ended_s.tolist() == [1.5, 2.0]


def test_holds_that_need_a_core_for_half_of_their_time_share_it_without_loss():
    assert run(Arrangement(size=2, db_cores=1, db_share=0.5), [0, 0], [1, 1]).ended_s.tolist() == [1, 1]


def test_a_cold_pool_pays_for_its_connections_once_and_a_storm_slows_itself_down():
    alone = run(Arrangement(size=2, cold=True), [0, 0, 10], [1, 1, 1], 0.5)
    assert alone.ended_s.tolist() == [1.5, 1.5, 11]
    storm = run(Arrangement(size=2, cold=True, db_cores=1), [0, 0, 10], [1, 1, 1], 0.5)
    assert storm.ended_s.tolist() == [3, 3, 11]


def test_connections_beyond_the_size_are_closed_on_return_and_opened_again():
    outcome = run(Arrangement(size=1, max_overflow=1), [0, 0, 5, 5], [1, 1, 1, 1], 0.5)
    assert outcome.ended_s.tolist() == [1, 1.5, 6, 6.5]


def test_a_pool_of_no_size_opens_a_connection_for_every_loan():
    outcome = run(Arrangement(size=0, max_overflow=-1), [0, 0, 5], [1, 1, 1], 0.5)
    assert outcome.ended_s.tolist() == [1.5, 1.5, 6.5]
    assert outcome.utilisation == 0


def test_figures_are_of_those_who_arrived_since_an_instant():
    whole = run(Arrangement(size=1), [1, 2, 6, 10], [3, 1, 1, 1])
    later = replace(whole, since_s=2)
    assert whole.waits_s.tolist() == [0, 2, 0, 0]
    assert later.waits_s.tolist() == [2, 0, 0]
    assert (whole.throughput_per_s, later.throughput_per_s) == (3 / 10, 3 / 8)
    assert (whole.utilisation, later.utilisation) == (5 / 10, 4 / 8)


# Always


@st.composite
def cases(draw):
    count = draw(st.integers(1, 25))
    few = st.floats(0, 3).map(lambda x: round(x, 2))
    gaps, holds = (draw(st.lists(few, min_size=count, max_size=count)) for _ in range(2))
    size, overflow = draw(st.tuples(st.integers(0, 3), st.integers(-1, 2)).filter(any))
    arrangement = Arrangement(
        servers=draw(st.integers(1, 3)),
        size=size,
        max_overflow=overflow,
        timeout_s=draw(st.sampled_from([0, 0.5, 2, inf])),
        max_waiting=draw(st.sampled_from([None, 0, 1, 3])),
        hand_over=draw(st.sampled_from(["fifo", "barging"])),
        wake_s=draw(st.sampled_from([0, 0.1, 1])),
        db_cores=draw(st.sampled_from([0.5, 2, inf])),
        db_share=draw(st.sampled_from([0.3, 1])),
        cold=draw(st.booleans()),
    )
    return arrangement, np.cumsum(gaps), np.array(holds)


@given(cases(), st.floats(0, 100))
def test_at_any_instant_those_who_arrived_are_served_timed_out_shed_or_in_flight(case, at_s):
    outcome = simulate(*case, 0.2, seed=3)
    for counts in (outcome.counts(at_s), outcome.counts()):
        assert counts.arrived == counts.served + counts.timed_out + counts.shed + counts.in_flight
    assert outcome.counts().in_flight == 0
    assert outcome.counts().arrived == len(case[1])


@given(cases())
def test_waits_and_holds_keep_their_limits(case):
    arrangement, arrived_s, holds_s = case
    outcome = simulate(arrangement, arrived_s, holds_s, 0.2, seed=3)
    waits_s, held_s = outcome.granted_s - arrived_s, outcome.ended_s - outcome.granted_s
    served = outcome.fates == SERVED
    assert waits_s.min() >= 0
    slack_s = 1e-9
    assert waits_s.max() <= arrangement.timeout_s + arrangement.wake_s + slack_s
    assert (held_s[served] >= holds_s[served] - slack_s).all()
    assert (held_s[~served] == 0).all()
    assert np.allclose(waits_s[outcome.fates == TIMED_OUT], arrangement.timeout_s)
    assert (waits_s[outcome.fates == SHED] == 0).all()


@given(cases())
def test_never_are_more_lent_than_may_be_open(case):
    arrangement, arrived_s, holds_s = case
    outcome = simulate(arrangement, arrived_s, holds_s, 0.2, seed=3)
    taken = [(at, 1) for at in outcome.granted_s[outcome.fates == SERVED]]
    left = [(at, -1) for at in outcome.ended_s[outcome.fates == SERVED]]
    lent = np.cumsum([change for _, change in sorted(taken + left)])
    assert lent.max(initial=0) <= arrangement.servers * arrangement.limit


def ideal_fifo(arrived_s, holds_s, size, timeout_s):
    """Kiefer and Wolfowitz: each takes the connection that is free first, if it can wait for so long."""
    free_at, granted = [0.0] * size, []
    for at, hold in zip(arrived_s, holds_s, strict=True):
        begins = max(at, free_at[0])
        if begins - at >= timeout_s and begins > at:
            granted.append(at + timeout_s)
        else:
            heapq.heapreplace(free_at, begins + hold)
            granted.append(begins)
    return granted


@given(st.lists(st.tuples(st.floats(0.01, 2), st.floats(0.01, 3)), min_size=1, max_size=50), st.integers(1, 4))
@pytest.mark.parametrize("timeout_s", [1.0, inf])
def test_fifo_is_the_recursion_of_kiefer_and_wolfowitz(timeout_s, pairs, size):
    gaps, holds = np.array(pairs).T
    arrived_s = np.cumsum(gaps)
    outcome = simulate(Arrangement(size=size, timeout_s=timeout_s), arrived_s, holds)
    assert np.allclose(outcome.granted_s, ideal_fifo(arrived_s, holds, size, timeout_s))


def test_barging_shortens_the_median_and_lengthens_the_tail():
    rng = np.random.default_rng(5)
    arrived_s, holds_s = arrivals(930, 40_000, rng), rng.exponential(0.01, 40_000)
    fifo, barging = (
        simulate(Arrangement(size=10, hand_over=law, wake_s=0.0003), arrived_s, holds_s) for law in ("fifo", "barging")
    )
    assert quantile(barging.waits_s, 0.5) < 0.8 * quantile(fifo.waits_s, 0.5)
    assert quantile(barging.waits_s, 0.999) > 1.5 * quantile(fifo.waits_s, 0.999)


def test_the_same_seed_gives_the_same_outcome_and_another_one_another():
    def waits(seed):
        rng = np.random.default_rng(seed)
        return simulate(
            Arrangement(servers=3, size=2), arrivals(5, 2000, rng), rng.exponential(1, 2000), seed=seed
        ).waits_s

    assert np.array_equal(waits(1), waits(1))
    assert not np.array_equal(waits(1), waits(2))


@pytest.mark.parametrize("variation", [0.0, 0.3, 1.0, 4.0])
def test_arrivals_have_the_rate_and_the_variation_asked_for(variation):
    gaps = np.diff(arrivals(50, 100_000, np.random.default_rng(1), variation), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(variation, rel=0.05, abs=1e-9)


def test_a_million_requests_would_take_less_than_ten_seconds():
    """A fifth of them, in CPU time, which other programs do not stretch: four servers at 90 % with everything in play."""
    rng, count = np.random.default_rng(2), 200_000
    arrived_s, holds_s = arrivals(3600, count, rng), rng.exponential(0.01, count)
    arrangement = Arrangement(
        servers=4, size=9, max_overflow=1, timeout_s=0.2, max_waiting=90, hand_over="barging", wake_s=3e-4, db_cores=36
    )
    began = time.process_time()
    simulate(arrangement, arrived_s, holds_s, 0.004)
    assert time.process_time() - began < 10 * count / 1_000_000


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"size": 0}, "serve nobody"),
        ({"servers": 0}, "serve nobody"),
        ({"timeout_s": -1}, "must not be negative"),
        ({"db_cores": 0}, "cores more than 0"),
        ({"db_share": 2}, "between 0 and 1"),
        ({"statements": 0}, "serve nobody"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Arrangement(**wrong)


@pytest.mark.parametrize(("arrived", "holds"), [([], []), ([1, 2], [1]), ([2, 1], [1, 1]), ([1], [-1])])
def test_times_that_make_no_sense_are_refused(arrived, holds):
    with pytest.raises(ValueError, match=r"holds|order"):
        run(Arrangement(), arrived, holds)


# Workers with a CPU


def worked(arrangement, arrived, holds, inside, outside, seed=0, servers=None):
    cpu = CpuTimes(np.array(inside, float), np.array(outside, float))
    return simulate(arrangement, np.array(arrived, float), np.array(holds, float), seed=seed, cpu=cpu, servers=servers)


def test_a_request_computes_before_in_and_after_its_loan():
    found = worked(Arrangement(size=1), [0.0], [10.0], [4.0], [2.0])
    assert found.asked_s.tolist() == [1.0]
    assert found.granted_s.tolist() == [1.0]
    assert found.ended_s.tolist() == [15.0]
    assert found.done_s.tolist() == [16.0]


def test_two_requests_compute_one_after_the_other_and_wait_for_the_database_together():
    found = worked(Arrangement(size=2), [0.0, 0.0], [10.0, 10.0], [2.0, 2.0], [0.0, 0.0])
    # The second computes from 1 to 2, so its hold at the database ends a second later.
    assert found.done_s.tolist() == [12.0, 13.0]


def test_a_waiter_has_its_connection_when_the_returner_is_done_computing():
    found = worked(Arrangement(size=1), [0.0, 0.0], [10.0, 10.0], [0.0, 0.0], [2.0, 2.0])
    # The first returns at 12, computes until 13, and only then the second runs.
    assert found.ended_s[0] == 11.0
    assert found.granted_s[1] == 12.0


def test_a_sync_worker_finishes_one_request_before_the_next():
    found = worked(Arrangement(size=5, slots=1), [0.0, 0.0], [10.0, 10.0], [0.0, 0.0], [2.0, 2.0])
    assert found.done_s.tolist() == [12.0, 24.0]
    two = worked(Arrangement(servers=2, size=5, slots=1), [0.0] * 3, [10.0] * 3, [0.0] * 3, [2.0] * 3)
    # All workers share one line.
    assert sorted(two.done_s.tolist()) == [12.0, 12.0, 24.0]


def test_threads_take_turns_at_long_work():
    long = worked(Arrangement(size=2, slots=2, turn_s=1.0), [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [10.0, 2.0])
    alone = worked(Arrangement(size=2, slots=2), [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [10.0, 2.0])
    # The second is accepted from 1 to 1.5, and computes from 2.5 to 3 and, behind the rest of the first one's start, from 3.5 on.
    assert long.done_s[1] == pytest.approx(4.5)
    assert alone.done_s[1] > 5.0


def test_a_thread_that_asks_for_the_cpu_waits_a_whole_turn_for_it():
    # The first is accepted from 0 to 4. The second comes in the middle of a turn, interrupts it at 3.5, is accepted until 3.75,
    # and computes from 4.25, when the first has been accepted, to 4.5.
    found = worked(Arrangement(size=2, slots=2, turn_s=2.0), [0.0, 1.5], [10.0, 10.0], [0.0, 0.0], [16.0, 1.0])
    assert found.asked_s.tolist() == [8.5, 4.5]


def served(slots, server_share, arrived, holds, outside, turn_s=inf):
    times = np.array(arrived), np.array(holds)
    cpu = CpuTimes(np.zeros(len(arrived)), np.array(outside), server_share)
    return simulate(Arrangement(size=1, slots=slots, turn_s=turn_s), *times, cpu=cpu)


def test_an_answer_is_on_its_way_before_the_server_program_is_done_with_it():
    # Of 8 s, 2 are the application's before its loan and 2 after it; the server program's are 2 at the start and 2 at the end.
    found = served(1, 0.5, [0.0, 0.0], [10.0, 10.0], [8.0, 8.0])
    assert found.asked_s.tolist() == [4.0, 22.0]
    assert found.done_s.tolist() == [16.0, 34.0]


def test_a_thread_that_sends_its_answer_lets_the_waiter_of_its_connection_go_first():
    # It returns the connection at 14, when the second asks for it, and sends its answer at 16.
    threads = served(2, 0.5, [0.0, 3.0], [10.0, 10.0], [8.0, 8.0], turn_s=100.0)
    assert (threads.ended_s[0], threads.done_s[0], threads.granted_s[1]) == (14.0, 16.0, 16.0)
    loop = served(None, 0.5, [0.0, 3.0], [10.0, 10.0], [8.0, 8.0])
    assert (loop.ended_s[0], loop.done_s[0], loop.granted_s[1]) == (14.0, 16.0, 18.0)


def test_a_request_computes_between_the_statements_of_its_loan():
    # Its 6 s of work in the loan come in three parts; the other request has the CPU in between.
    alone = worked(Arrangement(size=2, statements=2), [0.0], [10.0], [6.0], [0.0])
    assert (alone.granted_s[0], alone.ended_s[0]) == (0.0, 16.0)
    both = worked(Arrangement(size=2, statements=2), [0.0, 6.5], [10.0, 10.0], [6.0, 0.0], [0.0, 4.0])
    # Its first statement ends at 7, when the second request computes until 8.5.
    assert both.ended_s[0] == 17.5


def test_a_kernel_that_prefers_a_worker_gives_it_each_request_that_finds_it_idle():
    case = [0.0, 3.0, 6.0], [10.0] * 3, [0.0] * 3, [2.0] * 3
    waits = [
        worked(Arrangement(servers=2, size=1, prefers_first=first), *case, seed=1).waits_s.max()
        for first in (True, False)
    ]
    assert waits[0] > 10.0
    assert waits[1] < 10.0


def test_of_idle_workers_each_is_as_likely_to_get_the_next_request():
    count = 3000
    arrived = np.arange(1.0, count + 1)
    nothing = np.zeros(count)
    found = worked(Arrangement(servers=3, size=1), arrived, np.full(count, 1.5), nothing, nothing, seed=2)
    # Somebody waits where two requests in a row come to one worker: one in three.
    assert np.mean(found.waits_s > 0) == pytest.approx(1 / 3, abs=0.05)


def test_threaded_workers_accept_requests_that_wait_for_a_thread():
    def last_done_s(seed):
        arrangement = Arrangement(servers=2, size=2, slots=2)
        arrived, holds, nothing = (np.array(each) for each in ([0.0, 1.0, 2.0, 3.0], [100.0] * 4, [0.0] * 4))
        return simulate(arrangement, arrived, holds, seed=seed, cpu=CpuTimes(nothing, nothing)).done_s.max()

    # If three or four come to one server, they wait for a thread until 100 or 101, although the other server has one for them.
    assert {round(last_done_s(seed)) for seed in range(10)} == {103, 200, 201}


def test_an_event_loop_runs_a_waiter_before_a_request_that_came_while_it_computed():
    def granted(slots):
        case = [0.0, 0.0, 14.0], [10.0] * 3, [4.0] * 3, [2.0] * 3
        return worked(Arrangement(size=1, slots=slots), *case).granted_s[1]

    # The first computes until 1, from 1 to 3 and, with its answer from the database, from 13 to 16; the third comes at 14.
    assert granted(None) == 16.0
    assert granted(8) == 17.0


def test_an_event_loop_deals_with_the_latest_event_first():
    # Statements end at 1.5, 2 and 2.5, while the loop computes for the fourth request until 4.
    case = [0.0, 0.0, 0.0, 1.0], [1.5, 2.0, 2.5, 10.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 6.0]
    for slots, order in ((None, [2, 1, 0]), (9, [0, 1, 2])):
        done_s = worked(Arrangement(size=9, slots=slots), case[0], case[1], [0.2, 0.2, 0.2, 0.0], case[3]).done_s
        assert [int(request) for request in done_s[:3].argsort()] == order


def test_several_event_loops_accept_from_one_line_as_they_ask_for_events():
    # They compute until 4 and 5. The first of them accepts the third request at 4 and the fourth at 4.5, and that one waits until
    # the first request, which came back from the database at 4.1, has computed for 4 s.
    arrived, outside = [0.0, 0.0, 1.0, 1.0], [8.0, 10.0, 1.0, 1.0]
    outcome = worked(Arrangement(servers=2, size=9, slots=None), arrived, [0.1] * 4, [0.0] * 4, outside)
    assert outcome.asked_s.tolist() == [4.0, 5.0, 4.5, 9.0]


@pytest.mark.parametrize(
    ("slots", "split", "done_s"),
    [
        # Both compute before and after their loans, one after the other.
        (1, (0, 0), [12.0, 24.0]),
        (2, (0, 0), [12.5, 13.5]),
        (None, (0, 0), [12.0, 13.0]),
        *((slots, (0, 1), [12.0, 12.0]) for slots in (1, 2, None)),
    ],
)
def test_a_request_that_comes_with_its_server_goes_there_although_another_one_is_idle(slots, split, done_s):
    case = [0.0, 0.0], [10.0, 10.0], [0.0, 0.0], [2.0, 2.0]
    assert worked(Arrangement(servers=2, size=5, slots=slots), *case, servers=split).done_s.tolist() == done_s


def test_servers_that_compute_share_the_cores_of_their_machine():
    case = [0.0, 0.0], [10.0] * 2, [0.0] * 2, [2.0] * 2
    assert worked(Arrangement(servers=2, size=1, cores=1), *case).done_s.tolist() == [14.0, 14.0]
    assert worked(Arrangement(servers=2, size=1, cores=2), *case).done_s.tolist() == [12.0, 12.0]


def test_a_worker_without_a_database_is_between_first_come_and_processor_sharing():
    load, count = 0.7, 60_000
    rng = np.random.default_rng(3)
    arrived = arrivals(load, count, rng)
    found = worked(Arrangement(size=50), arrived, np.zeros(count), np.zeros(count), np.ones(count), seed=3)
    # Each request visits the CPU twice for half of its work: M/D/1 if it were once, M/G/1-PS if it were very often.
    assert load / (2 * (1 - load)) < found.responses_s.mean() - 1 < load / (1 - load)


def test_beyond_a_cpu_all_workers_serve_no_more_than_it_can():
    count = 20_000
    arrived = arrivals(150, count, np.random.default_rng(1))
    cpu = np.full(count, 0.01)
    found = worked(Arrangement(servers=1, size=20, timeout_s=1.0, max_waiting=100), arrived, cpu, cpu / 2, cpu / 2)
    assert found.throughput_per_s < 101


def busy(arrangement, hold, inside, outside, users, count=4000):
    cpu = CpuTimes(np.full(count, inside), np.full(count, outside))
    return busy_rate_per_s(arrangement, np.full(count, hold), cpu, users)


def test_the_most_that_servers_can_do_is_that_of_their_scarcest_part():
    # Sync workers: 4 at a time, each busy for 1 + 8 + 1 s.
    assert busy(Arrangement(servers=4, size=1, slots=1), 8.0, 1.0, 1.0, 12) == pytest.approx(0.4, rel=0.01)
    # One CPU: 1 + 1 s of work for each.
    assert busy(Arrangement(size=100), 8.0, 1.0, 1.0, 60) == pytest.approx(0.5, rel=0.01)
    # Two connections, held for 8 s, and hardly any work.
    assert busy(Arrangement(size=2), 8.0, 0.001, 0.001, 12) == pytest.approx(0.25, rel=0.01)
    # Three servers that share a core.
    assert busy(Arrangement(servers=3, size=100, cores=1), 8.0, 1.0, 1.0, 60) == pytest.approx(0.5, rel=0.01)


def test_the_most_that_servers_can_do_is_known_with_fewer_requests_than_users():
    cpu = CpuTimes(np.full(100, 0.0005), np.full(100, 0.0005))
    arrangement = Arrangement(servers=4, size=20)
    assert busy_rate_per_s(arrangement, np.full(100, 0.010), cpu, 200) == pytest.approx(4000, rel=0.05)


def test_where_cpu_and_connections_are_both_short_the_most_is_less_than_either_allows():
    both = busy(Arrangement(size=2), 2.0, 0.5, 0.5, 12)
    assert 0.5 < both < min(2 / 2.5, 1 / 1.0)


@given(
    slots=st.sampled_from([None, 1, 4]),
    size=st.integers(1, 4),
    servers=st.integers(1, 3),
    timeout_s=st.sampled_from([inf, 2.0]),
    max_waiting=st.sampled_from([None, 3]),
    hand_over=st.sampled_from(["fifo", "barging"]),
    seed=st.integers(0, 10_000),
)
def test_with_workers_every_request_ends_and_its_instants_are_in_order(
    slots, size, servers, timeout_s, max_waiting, hand_over, seed
):
    rng = np.random.default_rng(seed)
    count = 60
    arrangement = Arrangement(
        servers, size, timeout_s=timeout_s, max_waiting=max_waiting, hand_over=hand_over, slots=slots, turn_s=0.1
    )
    arrived = arrivals(5, count, rng)
    found = worked(arrangement, arrived, *rng.exponential(0.3, (3, count)), seed=seed)
    served = found.fates == SERVED
    assert np.all(found.asked_s >= arrived)
    assert np.all(found.granted_s >= found.asked_s)
    assert np.all(found.ended_s >= found.granted_s)
    assert np.all(found.done_s[served] >= found.ended_s[served])


class OneByOne(WorkersCourse):
    """Simulates each turn of several requests, whether anything else happens or not."""

    def _whole_turns(self, _worker, _work_s):
        return 0


def in_turns(kind, cpu_s, *, load=0.8, cores=inf, count=100):
    """A simulation of two servers of eight threads whose requests need so much of the CPU on average."""
    rng = np.random.default_rng(11)
    arrived = arrivals(2 * load / cpu_s, count, rng).tolist()
    hold, inside, outside = (rng.exponential(mean_s, count).tolist() for mean_s in (0.05, cpu_s / 2, cpu_s / 2))
    arrangement = Arrangement(2, 5, timeout_s=5.0, slots=8, turn_s=0.005, statements=2, cores=cores)
    course = kind(arrangement, arrived, hold, [0.01] * count, inside, outside, 0.3)
    course.run(rng.integers(2, size=count).tolist())
    return course


@pytest.mark.parametrize("load", [0.7, 2.0])
@pytest.mark.parametrize("cpu_s", [0.004, 0.03, 0.25])
def test_turns_that_count_as_one_end_as_if_each_was_simulated(cpu_s, load):
    together, each = (in_turns(kind, cpu_s, load=load) for kind in (WorkersCourse, OneByOne))
    for name in ("asked_s", "granted_s", "ended_s", "done_s"):
        assert getattr(together, name) == pytest.approx(getattr(each, name), abs=1e-6)
    assert together.fates == each.fates


@pytest.mark.parametrize("load", [0.7, 2.0, 100.0])
@pytest.mark.parametrize("cores", [inf, 1])
def test_turns_are_as_few_for_requests_that_compute_for_long(load, cores):
    of_long = in_turns(WorkersCourse, 2.5, load=load, cores=cores).turns
    assert of_long < 25 * 100 < in_turns(OneByOne, 2.5, load=load, cores=cores).turns
    assert of_long < 1.5 * in_turns(WorkersCourse, 0.25, load=load, cores=cores).turns
