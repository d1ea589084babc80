"""Which requests are noted in full: few where there are many, all of a rare endpoint, and so that the sums are right."""

import math
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench.loan_book import LoanBook
from poolbench.loans import Loan, Request, WatchedEngine
from poolbench.observed import OTHERS
from poolbench.places import Place
from poolbench.shares import Shares, level
from poolbench.tally import Tally

PERIOD_NS = 500_000_000


def drawn(shares, per_period, cost, periods):
    """By endpoint, the weights that were drawn in that many periods; `per_period`: requests, `cost`: of each, by endpoint."""
    weights = {endpoint: [] for endpoint in per_period}
    for _ in range(periods):
        costs = Counter()
        for endpoint, count in per_period.items():
            for _ in range(count):
                weight = shares.draw(endpoint)
                weights[endpoint].append(weight)
                costs[endpoint] += weight * cost[endpoint]
        shares.spend(costs, per_period, PERIOD_NS)
    return weights


def seeded(budget_per_s, seed):
    shares = Shares(budget_per_s)
    shares._random = random.Random(seed).random
    return shares


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(1, 1e6))
def test_all_get_what_they_want_or_the_same_and_together_the_budget(wanted, budget):
    most = level(wanted, budget)
    assert sum(min(each, most) for each in wanted) == pytest.approx(min(budget, sum(wanted)))
    assert (most == math.inf) is (sum(wanted) <= budget) or sum(wanted) == pytest.approx(budget)


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 300), st.integers(4, 40)), min_size=1),
    st.integers(50, 5000), st.integers(0, 10**6),
)  # fmt: skip
def test_the_requests_that_are_noted_stand_for_all(endpoints, budget_per_s, seed):
    per_period = {name: count for name, (count, _) in endpoints.items()}
    cost = {name: cost for name, (_, cost) in endpoints.items()}
    shares = seeded(budget_per_s, seed)
    noted, variance, largest = Counter(), Counter(), 1
    for _ in range(6):
        for name, count in per_period.items():
            # A request is drawn with a chance of 1/k, and then counts as k: its variance is k - 1.
            every = shares._every.get(name, 1)
            variance[name] += count * (every - 1)
            largest = max(largest, every)
        for name, weights in drawn(shares, per_period, cost, 1).items():
            noted[name] += sum(weights)
    for name, count in per_period.items():
        # By Bernstein's inequality, chance goes beyond this once in a thousand million.
        assert abs(noted[name] - 6 * count) <= 7 * math.sqrt(variance[name]) + 14 * (largest - 1)


def test_fast_endpoints_keep_to_the_budget_and_rare_ones_are_noted_in_full():
    per_period, cost = {"fast": 3000, "heavy": 100, "rare": 1}, {"fast": 4, "heavy": 40, "rare": 30}
    weights = drawn(seeded(1000, 1), per_period, cost, 40)
    later = {name: each[20 * per_period[name] :] for name, each in weights.items()}
    spent = {name: cost[name] * sum(map(bool, each)) / 20 for name, each in later.items()}
    assert set(later["rare"]) == {1} and min(filter(None, later["fast"])) > 10
    # Half a period's second each, but for the rounding of k and for chance.
    assert 300 < sum(spent.values()) < 650 and spent["heavy"] == pytest.approx(spent["fast"], rel=0.6)


def test_any_number_of_endpoints_is_bounded_and_those_beyond_share_one_part():
    shares = seeded(1000, 2)
    noted = 0
    for period in range(20):
        costs = Counter()
        for number in range(2000):
            name = f"GET /pages/{period}-{number}"
            weight = shares.draw(name)
            costs[name] += 4 * weight
            noted += bool(weight) if period > 5 else 0
        shares.spend(costs, {"GET /pages": 2000}, PERIOD_NS)
    assert len(shares._every) <= 200
    assert 4 * noted / 14 < 800


def test_a_slow_application_is_noted_whole():
    weights = drawn(Shares(), {"GET /": 20, "POST /": 10}, {"GET /": 5, "POST /": 8}, 20)
    assert {each for found in weights.values() for each in found} == {1}


def test_a_burst_after_a_pause_is_not_noted_whole_and_what_has_become_rare_is():
    shares = seeded(100, 3)
    drawn(shares, {"fast": 2000}, {"fast": 4}, 8)
    before = shares._every["fast"]
    for _ in range(10):
        shares.spend({}, {}, PERIOD_NS)
    assert shares._every["fast"] == before > 50
    drawn(shares, {"fast": 1}, {"fast": 4}, 1)
    assert shares._every["fast"] == 1


def test_a_rare_endpoint_that_costs_more_than_the_budget_is_noted_each_time():
    weights = drawn(seeded(100, 4), {"fast": 2000, "report": 1}, {"fast": 4, "report": 5000}, 20)
    assert set(weights["report"]) == {1}


@pytest.mark.parametrize(
    ("noted", "adding_us", "expected"), [(0, 0, 600), (1000, 2, 600), (1000, 25, 100), (1000, 250, 30)]
)
def test_a_process_in_which_noting_takes_longer_notes_less(noted, adding_us, expected):
    shares = Shares(600)
    shares.count(noted, noted * adding_us * 1000, 0)
    assert shares.affordable_per_s() == pytest.approx(expected)


@pytest.mark.parametrize(("used", "expected"), [(0.0, 100), (0.5, 60), (1.0, 20), (3.0, 20)])
def test_a_process_without_cpu_to_spare_notes_less(used, expected):
    shares = Shares(600)
    shares.count(10_000, 10_000 * 25_000, 0)
    for _ in range(2):
        shares.count(0, 0, round(used * PERIOD_NS))
        shares.spend({"a": 1000}, {"a": 100}, PERIOD_NS)
    assert shares.affordable_per_s() == pytest.approx(max(30, expected))


def test_a_request_noted_in_full_counts_as_many_as_it_stands_for():
    tally = Tally(1, keeps_all=True)
    engine = WatchedEngine("shop.py:1\tpostgresql://here/shop\t0", None, "QueuePool", 5, 10)
    here = Place(test_fast_endpoints_keep_to_the_budget_and_rare_ones_are_noted_in_full.__code__, 0)
    request = Request({}, "GET /rows")
    request._environ, request.weight = None, 7
    for number in range(12):
        loan = Loan(engine, 1, here, request, request.weight)
        loan.asked_ns, loan.lent_ns, loan.ended_ns = 0, 100, 1100
        loan.outer = object() if number == 0 else None
        loan.groups = {("INSERT INTO t VALUES (1)", 0, 0): [here, 1, 600, 1, 0, 600, 0, 0, 600, 0, 0]}
        tally.ended(loan)
    request.end()
    tally.answered(request)
    tally.add_up()
    (loans,), (statement,) = tally.current.loans.values(), tally.current.statements.values()
    assert (loans.count, loans.wait_ns, loans.held_ns, loans.nested) == (84, 8400, 84_000, 7)
    assert (statement.count, statement.duration_ns, statement.rows, statement.groups) == (84, 50_400, 84, 84)
    assert (statement.apart, statement.apart_requests, statement.apart_ns) == (84, 7, 84_000)
    # Requests are all counted, and the times of loans are those of each.
    assert tally.current.requests["GET /rows"].count == 1 and len(tally.asks()) == 12
    assert tally.taken_costs() == ({"GET /rows": 7 * 12 * 4}, {"GET /rows": 1})
    assert tally.taken_costs() == ({}, {})
    # What it has cost itself, though.
    assert (tally.taken_noted(), tally.taken_noted()) == (12 * 4, 0)
    assert OTHERS not in tally.current.requests


def test_a_nested_loan_that_got_no_connection_counts_as_many_as_it_stands_for():
    tally = Tally(1, keeps_all=True)
    engine = WatchedEngine("shop.py:1\tpostgresql://here/shop\t0", None, "QueuePool", 5, 10)
    loan = Loan(engine, 1, None, None, 7)
    loan.outer, loan.refused, loan.ended_ns = object(), "timeout", loan.asked_ns + 1000
    tally.ended(loan)
    tally.add_up()
    (row,) = tally.current.loans.values()
    assert (row.nested, row.nested_ns, row.timeouts, row.wait_ns) == (7, 7000, 1, 1000)


def test_a_request_whose_route_is_found_after_its_first_loan_costs_under_the_name_it_was_drawn_by():
    book, shares = LoanBook(), seeded(10, 5)
    book.keep_all(shares)
    engine = WatchedEngine("shop.py:1\tpostgresql://here/shop\t0", None, "QueuePool", 5, 10)
    here = Place(test_fast_endpoints_keep_to_the_budget_and_rare_ones_are_noted_in_full.__code__, 0)
    for number in range(200):
        request = Request({"REQUEST_METHOD": "GET", "PATH_INFO": f"/books/{number}"})
        book.requests[book.current()] = request
        if weight := book.draw(request):
            loan = Loan(engine, book.current(), here, request, weight)
            loan.lent_ns = loan.ended_ns = loan.asked_ns
            book.tally.ended(loan)
        request.rule = SimpleNamespace(rule="/books/<int:id>")
        request.end()
        book.tally.answered(request)
    book.tally.add_up()
    assert book.tally.current.requests["GET /books/<int:id>"].count == 200
    book.keep_pace(PERIOD_NS)
    assert shares._every == {OTHERS: 1, "GET /books/…": 120}
