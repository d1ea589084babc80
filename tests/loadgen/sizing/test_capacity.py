"""The search for a service's capacity, on simulated servers whose capacity is known."""

import heapq
from dataclasses import replace

import numpy as np
import pytest

from loadgen.sizing.capacity import (
    LEAST_STEP_S,
    LONGEST_STEP_S,
    SecondSeen,
    Step,
    Target,
    found,
    is_over,
    judge,
    next_rate,
)
from loadgen.sizing.capacity_findings import capacity_page
from reports.writers.output import written

TARGET = Target(p99_ms=200.0)


def served(rate, seconds, slots, service_s, rng, *, failing=0.0, pause_s=0.0):
    """The seconds of a step on a server with that many slots and one queue; service times vary by a fifth.

    The server stands still for `pause_s` each ten seconds."""
    begins = rng.uniform(0, 10)
    arrivals = np.arange(0, seconds, 1 / rate)
    free = [0.0] * slots
    ends = []
    for at in arrivals:
        start = max(at, heapq.heappop(free))
        start += max(0.0, pause_s - (start + begins) % 10)
        ends.append(start + service_s * rng.uniform(0.8, 1.2))
        heapq.heappush(free, ends[-1])
    ends = np.array(ends)
    waited_ms = (ends - arrivals) * 1000
    for second in range(seconds):
        inside = (ends >= second) & (ends < second + 1)
        requests = int(((arrivals >= second) & (arrivals < second + 1)).sum())
        in_flight = int(((arrivals < second + 1) & (ends >= second + 1)).sum())
        slow = int((waited_ms[inside] > TARGET.p99_ms).sum())
        yield SecondSeen(requests, int(inside.sum()), slow, rng.binomial(requests, failing), in_flight)


def step(rate, before, **server):
    """A step as it is carried out: it ends as soon as it is over."""
    seen = []
    for second in served(rate, LONGEST_STEP_S, **server):
        seen.append(second)
        if is_over(seen, TARGET, rate, before):
            break
    judgement = judge(seen, TARGET)
    answers, slow = sum(s.answers for s in seen), sum(s.slow for s in seen)
    p99_ms = TARGET.p99_ms * (0.5 if not slow else 2.0)
    errors = sum(s.errors for s in seen) / sum(s.requests for s in seen)
    return Step(rate, len(seen), answers, p99_ms, errors, judgement.met, judgement.decided, judgement.why)


def search(slots, service_s, seed, first=10.0, precision=0.03, **server):
    rng = np.random.default_rng(seed)
    steps, rate = [], first
    while rate is not None:
        steps.append(step(rate, steps, slots=slots, service_s=service_s, rng=rng, **server))
        rate = next_rate(steps, first, precision)
    return found(steps)


@pytest.mark.parametrize(("slots", "service_s"), [(1, 0.005), (4, 0.02), (10, 0.1)])
def test_the_capacity_of_a_known_server_is_found_within_5_percent_and_3_from_run_to_run(slots, service_s):
    known = slots / service_s
    answers = [search(slots, service_s, seed) for seed in range(10)]
    rates = np.array([answer.rate for answer in answers])
    assert np.abs(rates / known - 1).max() <= 0.05
    assert rates.std() / rates.mean() <= 0.03
    assert all(answer.low <= answer.rate <= answer.high for answer in answers)
    assert {answer.limit for answer in answers} <= {"service", "target"}
    assert all(sum(each.seconds + 1 for each in answer.steps) < 180 for answer in answers)


@pytest.mark.parametrize("first", [10.0, 1500.0])
def test_the_first_rate_may_be_far_from_the_capacity(first):
    assert search(4, 0.02, 1, first=first).rate == pytest.approx(200, rel=0.05)


@pytest.mark.parametrize("slow_s", [8, 15, 25])
def test_a_service_that_is_slow_at_its_start_is_not_judged_by_that(slow_s):
    slow = Step(20, 6, 100, 600.0, 0.0, met=False, decided=True, why="p99")
    rng, steps, rate, passed_s = np.random.default_rng(1), [], 20.0, 0
    while rate is not None:
        is_slow = passed_s < slow_s
        steps.append(replace(slow, rate=rate) if is_slow else step(rate, steps, slots=4, service_s=0.02, rng=rng))
        passed_s += steps[-1].seconds
        rate = next_rate(steps, 20.0, 0.03)
    assert found(steps).rate == pytest.approx(200, rel=0.05)


def test_a_pause_now_and_then_does_not_hide_the_capacity_and_one_beyond_the_target_is_seen():
    # With four fifths of the capacity used, 0.22 s in ten make 0.1 s of slow answers: 1 % of all.
    rates = [search(4, 0.02, seed, pause_s=0.22).rate for seed in range(3)]
    assert all(120 < rate < 200 for rate in rates), rates
    assert all((search(4, 0.02, seed, pause_s=1.0).rate or 0) < 20 for seed in range(3))


def test_a_target_of_seconds_has_a_warm_up_in_which_users_can_be_answered():
    growing = [SecondSeen(100, 0, 0, 0, 100 * n) for n in range(1, 9)]
    steady = [SecondSeen(100, 100, 0, 0, 800)] * 7
    assert judge(growing, Target(200)).why == "no answers"
    assert judge([*growing, *steady], Target(8000)).met
    assert not judge(growing, Target(8000)).decided


def test_a_step_that_the_time_cut_short_does_not_acquit_a_rate_that_missed_for_longer():
    missed = Step(20, 19, 380, 800.0, 0.0, False, False, "p99")
    steps = [missed, missed, Step(10, 19, 190, 800.0, 0.0, False, False, "p99"), Step(10, 6, 60, 5.0, 0.0, True, False)]
    assert found(steps, finished=False).rate is None


def test_nothing_answered_at_two_rates_ends_the_search():
    dead = [Step(rate, 6, 0, None, 1.0, False, True, "no answers") for rate in (100, 100, 50, 50)]
    assert next_rate(dead[:2], 100, 0.03) == 50
    assert next_rate(dead, 100, 0.03) is None


def test_a_search_that_the_time_ended_says_so():
    steps = [Step(20, 6, 100, 1.0, 0.0, True, True), *[Step(40, 6, 100, 1.0, 0.5, False, True, "errors")] * 2]
    text = written(capacity_page(found(steps, finished=False), TARGET, {}), "text")
    assert "no longer within the target: too many errors." in text
    assert "The search ended before the answer was as precise as asked." in text
    none = written(capacity_page(found([], finished=False), TARGET, {}), "text")
    assert "The search ended before its first step was over." in none and "No rate met" not in none
    never = found(steps[1:], finished=False)
    assert (never.rate, never.limit) == (None, "time")


def test_a_queue_that_grows_at_a_rate_hardly_above_is_the_service_s_limit():
    slow = Step(202, 8, 100, 300.0, 0.0, False, True, "p99")
    grown = Step(210, 8, 100, 300.0, 0.0, False, True, "the queue grows")
    assert found([Step(200, 20, 100, 1.0, 0.0, True, True), grown, grown, slow, slow]).limit == "service"


def test_a_service_that_stands_still_at_a_higher_rate_is_not_said_to_keep_up():
    held, still = Step(20, 20, 400, 1.0, 0.0, True, True), Step(20.5, 8, 0, None, 1.0, False, True, "no answers")
    answer = found([held, still, still])
    assert answer.limit == "service"
    assert "Beyond it the service stands still: nothing was answered." in written(
        capacity_page(answer, TARGET, {}), "text"
    )


def test_the_reason_that_is_told_is_not_that_of_a_step_whose_generator_was_late_or_that_showed_too_little():
    held, slow = Step(20, 20, 400, 1.0, 0.0, True, True), Step(20.5, 8, 150, 300.0, 0.0, False, True, "p99")
    late, little = (Step(20.5, 8, 150, 1.0, 0.0, False, False, why) for why in ("generator", ""))
    text = written(capacity_page(found([held, slow, slow, late, little]), TARGET, {}), "text")
    assert "no longer within the target: answers are too slow." in text
    assert found([held, little, little]).limit == "time"


def test_errors_above_the_limit_end_the_climb_and_are_named():
    answer = search(4, 0.02, 1, failing=0.2)
    assert answer.rate is None
    assert answer.steps[0].why == "errors"
    assert answer.limit == "target"


def test_a_service_that_answers_nothing_is_not_called_slow_nor_said_to_keep_up():
    dead = SecondSeen(100, 0, 0, 100, 0)
    judgement = judge([dead] * LEAST_STEP_S, TARGET)
    assert judgement.why == "no answers" and judgement.decided and not judgement.met
    step = Step(10.0, 6, 0, None, 1.0, met=False, decided=True, why=judgement.why)
    text = written(capacity_page(found([step, step]), TARGET, {}), "text")
    assert "Nothing was answered" in text and "misses it: nothing was answered" in text
    assert "keeps up" not in text and "too slow" not in text


def test_seconds_in_which_nobody_came_are_no_failure_to_answer():
    nobody, one = SecondSeen(0, 0, 0, 0, 0), SecondSeen(1, 1, 0, 0, 0)
    assert not judge([one, *[nobody] * 4], TARGET).decided
    assert judge([one, *[nobody] * 4], TARGET).why == ""
    assert judge([one, *[nobody] * 4, *[one, *[nobody] * 4] * 3], TARGET).met


def test_a_step_is_not_judged_by_its_warm_up():
    quick, slow = SecondSeen(100, 100, 0, 0, 1), SecondSeen(100, 100, 100, 0, 50)
    assert judge([slow, slow, *[quick] * 20], TARGET).met
    assert not judge([*[quick] * 3, *[slow] * 10], TARGET).met


def test_a_queue_that_never_drains_is_told_from_one_that_does():
    def seconds(*in_flight):
        return [SecondSeen(100, 95, 0, 0, n) for n in in_flight]

    assert judge(seconds(*range(0, 120, 10)), TARGET).why == "the queue grows"
    assert judge(seconds(*[0, 40, 80, 40, 0, 40, 80, 40, 0, 40, 80, 40]), TARGET).why == ""


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], 10.0),
        ([(10, "")], 20.0),
        ([(10, ""), (20, "p99")], 20),
        ([(10, ""), (20, "p99"), (20, "")], 40),
        ([(10, ""), (20, "p99"), (20, "p99")], pytest.approx(200**0.5)),
        ([(10, ""), (10.2, "p99"), (10.2, "errors")], 10),
        ([(10, ""), (10.2, "p99"), (10.2, "errors"), (10, "", 15)], None),
        ([(10, "p99"), (10, "p99")], 5.0),
        ([(10, "p99"), (10, "p99"), (5, "")], 10),
        ([(10, "p99"), (10, "p99"), (5, ""), (10, "p99")], pytest.approx(50**0.5)),
        ([(10, "p99"), (10, "p99"), (5, ""), (10, "")], 20),
        ([(10, ""), (20, "generator")], 20),
        ([(10, ""), (20, "generator"), (20, "")], 40),
        ([(10, ""), (20, "generator"), (20, "generator")], None),
    ],
)
def test_the_next_rate_doubles_then_halves_the_gap(steps, expected):
    known = [Step(rate, *(seconds or [8]), 100, 1.0, 0.0, not why, True, why) for rate, why, *seconds in steps]
    assert next_rate(known, 10.0, 0.03) == expected


def test_a_generator_that_was_late_twice_is_the_limit_and_no_upper_end_is_claimed():
    late = Step(20, 8, 200, 1.0, 0.0, False, True, "generator")
    answer = found([Step(10, 8, 100, 1.0, 0.0, True, True), late, late])
    assert (answer.rate, answer.limit, answer.high) == (10, "generator", None)
    text = written(capacity_page(found([late, late]), TARGET, {}), "text")
    assert "Nothing was learnt about the service: the generator was late even at 20 new users per second." in text
    assert "No rate met" not in text
