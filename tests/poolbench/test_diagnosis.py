"""From what was seen of an application to what holds it back: each disease by figures alone, and nothing where all is well."""

from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolbench.asks import demanded, overtaken, used
from poolbench.diagnosis import diagnose
from poolbench.diagnosis_case import Case
from poolbench.findings import KINDS, Finding, merged
from poolbench.observed import (
    COMPUTING,
    CPU,
    LEAKED,
    LEFT_OPEN,
    SLEEP,
    STATEMENT,
    STREAMING,
    WORK,
    Ask,
    EngineSum,
    LoanKey,
    LoanSum,
    Observed,
    RequestSum,
    SampleKey,
    SampleSum,
    StatementKey,
    StatementSum,
    total,
)
from poolbench.surroundings import DatabaseStatement, Server, statement_key
from tests.support.observations import DISEASES, ENDPOINT, ENGINE, MADE_AT, MS, PLACE, first, loans, sample, seen, waits


def test_nothing_is_found_where_all_is_well():
    found = diagnose(seen())
    assert not found.findings and found.checked == KINDS


@pytest.mark.parametrize("name", DISEASES)
def test_each_disease_is_found_with_its_place(name):
    observed, expected = DISEASES[name]
    assert first(observed) == expected


@pytest.mark.parametrize("name", DISEASES)
def test_what_was_seen_survives_json_and_adding_up(name):
    observed, expected = DISEASES[name]
    assert first(total([Observed.from_json(observed.to_json()), Observed()])) == expected


def test_waiting_in_order_is_a_pool_too_small():
    assert first(waits(range(200))) == ("pool-too-small", MADE_AT)


@pytest.mark.parametrize(
    ("database_ms", "queued_s", "is_found"), [(1600, 0, True), (1600, 1.0, False), (300, 0, False)]
)
def test_waiting_on_a_machine_without_cpu_is_the_pools_fault_if_the_database_works_for_half_of_each_loan(
    database_ms, queued_s, is_found
):
    observed = waits(range(200))
    key = StatementKey(ENDPOINT, PLACE, "SELECT 1")
    observed.statements = {key: StatementSum(200, database_ms * MS, 200, MS, groups=200)}
    counted = {statement_key("SELECT 1"): DatabaseStatement("select 1", 200, database_ms, 200)}
    busy = Server(machine_cpu=1.0, statements=counted, database_queued_s=queued_s)
    assert first(observed, busy) == (("pool-too-small", MADE_AT) if is_found else None)
    (found,) = diagnose(observed, Server(machine_cpu=0.5, statements=counted)).findings
    assert found.kind == "pool-too-small" and "at this load about 2 in each process" in found.advice


def test_a_pool_is_not_judged_where_other_programs_took_the_cpu_from_the_workers():
    for order in (range(200), [0, *range(20, 200), *range(1, 20)]):
        found = diagnose(waits(order), Server(worker_cpu=1.2, worker_used=0.2))
        assert not found.findings and found.notes[0].startswith("Other programs kept the machine busy")
    assert first(waits(order), Server(worker_cpu=1.2, worker_used=1.1)) == ("starvation", MADE_AT)


@pytest.mark.parametrize(("requests_ms", "kinds"), [(1000, ["work", "nested"]), (2000, ["nested", "work"])])
def test_a_mistake_that_costs_little_comes_before_what_costs_less_than_half_of_the_time(requests_ms, kinds):
    observed = seen(loans=loans(nested=3, nested_ns=5 * MS), samples=sample(WORK, 600))
    observed.requests[ENDPOINT].duration_ns = requests_ms * MS
    assert [each.kind.partition("-")[0] for each in diagnose(observed).findings] == kinds


def test_borrowers_that_waited_for_each_other_in_vain_come_before_what_costs_more():
    observed = seen(loans=loans(nested=3, nested_ns=5 * MS, timeouts=1), samples=sample(WORK, 600))
    observed.requests[ENDPOINT].duration_ns = 1000 * MS
    assert [each.kind for each in diagnose(observed).findings] == ["nested-checkout", "work-while-holding"]


@pytest.mark.parametrize(("lives", "is_found"), [(24, False), (1, True)])
def test_connections_of_replaced_processes_are_not_opened_for_each_loan(lives, is_found):
    about = EngineSum(
        1, 0, 0, "", "QueuePool", 8, 0, 1, [(number * 10 * MS, (number * 10 + 9) * MS) for number in range(lives)]
    )
    given = loans(count=1000, opened=160, connect_ns=400 * MS)
    found = diagnose(seen(loans=given, engines={ENGINE: about})).findings
    assert any(each.kind == "connection-per-request" for each in found) == is_found


def test_pools_made_at_one_line_are_too_large_together():
    keys = [f"{MADE_AT}\tpostgresql://h:5432/d\t{number}" for number in range(1, 5)]
    engines = {key: EngineSum(made=2, pool="QueuePool", size=5, overflow=10, processes=2) for key in keys}
    (found,) = diagnose(seen(engines=engines), Server(max_connections=100)).findings
    assert found.evidence == "These 4 pools may open 120 connections in 2 processes together; the database allows 100."
    assert "summed over the 4 pools, times the 2 processes, less than max_connections, which is 100" in found.advice


def test_where_the_connection_was_borrowed_is_told_of_work_while_it_is_held():
    (found,) = diagnose(seen(samples=sample(WORK, 600))).findings
    assert f"holds a connection borrowed at {PLACE}." in found.evidence
    (found,) = diagnose(seen(samples=sample(WORK, 600, place=PLACE))).findings
    assert "holds a connection." in found.evidence


OTHER = "app.py:7\tpostgresql://h:5432/d\t1"
OF_OTHER = {LoanKey(OTHER, ENDPOINT, "app.py:30"): LoanSum(count=100, held_ns=100 * MS, refused=30)}


@pytest.mark.parametrize(
    ("kind", "about", "figures"),
    [
        ("connection-per-request", EngineSum(made=1, pool="NullPool", processes=2), {"refused": 20}),
        ("connection-per-request", EngineSum(made=1, pool="NullPool", processes=2), {"count": 0, "refused": 20}),
        (
            "pool-per-request",
            EngineSum(100, 100, MS, ENDPOINT, "QueuePool", 5, 10, 2),
            {"refused": 20, "by_maker": 100},
        ),
        ("pool-per-request", EngineSum(100, 100, MS, ENDPOINT, "QueuePool", 5, 10, 2), {"by_maker": 100}),
    ],
)
def test_connections_refused_because_nothing_limits_how_many_are_opened_are_no_pool_too_large(kind, about, figures):
    opened = loans(**{"opened": figures.get("count", 100), "connect_ns": 10 * MS, **figures})
    other = EngineSum(made=1, pool="QueuePool", size=5, overflow=10, processes=2)
    observed = seen(loans=opened | OF_OTHER, engines={ENGINE: about, OTHER: other})
    (found,) = diagnose(observed, Server(max_connections=100)).findings
    refused = 30 + figures.get("refused", 0)
    asked = refused + 100 + figures.get("count", 100)
    assert (found.kind, found.where) == (kind, MADE_AT) and found.weight > 1
    assert f"The database refused {refused} connections" in found.evidence
    assert found.share == pytest.approx(refused / asked)
    # Where the pools beside it may open more than the database allows, that is the pools' fault.
    both = diagnose(observed, Server(max_connections=20)).findings
    assert ("pool-too-large", "app.py:7") in {(each.kind, each.where) for each in both}


@pytest.mark.parametrize(("replaced", "expected"), [(True, None), (False, "pool-too-large")])
def test_workers_that_are_replaced_are_no_more_than_there_were_at_one_time(replaced, expected):
    parts = []
    for number in range(20):
        begin = number // 2 * 100 if replaced else number
        life = (begin, begin + 95)
        engine = EngineSum(made=1, pool="QueuePool", size=5, overflow=5, processes=1, lives=[life])
        parts.append(Observed.from_json(Observed(engines={ENGINE: engine}, lives=[life]).to_json()))
    # That one of them uses a connection of its parent's is written down at once, beside what it says at its end.
    parts.append(Observed(engines={ENGINE: EngineSum(made=1, pool="QueuePool", size=5, overflow=5)}))
    whole = total(parts)
    assert whole.engines[ENGINE].processes == (2 if replaced else 20)
    found = diagnose(whole, Server(max_connections=100)).findings
    assert [each.kind for each in found] == ([expected] if expected else [])


def test_a_pool_without_a_limit_that_is_refused_connections_is_said_to_have_none():
    engines = {ENGINE: EngineSum(made=1, pool="QueuePool", size=5, overflow=-1, processes=2)}
    (found,) = diagnose(seen(engines=engines, loans=loans(refused=20))).findings
    assert (
        found.kind == "pool-too-large" and "Nothing limits how many connections this pool may open." in found.evidence
    )


def test_a_pool_too_small_is_found_without_the_times_of_each_loan_but_not_where_workers_have_no_cpu():
    observed = waits(range(200))
    observed.asks = []
    (found,) = diagnose(observed).findings
    assert (found.kind, found.where) == ("pool-too-small", MADE_AT)
    (row,) = observed.loans.values()
    assert f"waited {row.wait_ns / row.count / MS:.0f} ms on average" in found.evidence
    assert "out of order was not seen" in found.evidence
    assert "out of order" not in diagnose(waits(range(200))).findings[0].evidence
    observed.worker_cpu = 0.97
    assert first(observed) is None
    observed.worker_cpu = None
    row.count, row.held_ns, observed.requests[ENDPOINT].duration_ns = 1_000_000, row.wait_ns, 2 * row.wait_ns
    assert first(observed) is None, "each loan begins with a look at its connection"
    row.timeouts = 3
    assert first(observed) == ("pool-too-small", MADE_AT)


@pytest.mark.parametrize(
    ("made", "processes", "by_maker"),
    [(8, 8, 8), (8, 2, 8), (40, 4, 5)],
    ids=["one in each process", "several threads at the same time", "one for each tenant"],
)
def test_an_engine_made_in_a_request_that_later_ones_use_is_one_like_any_other(made, processes, by_maker):
    observed = waits(range(200))
    observed.engines = {ENGINE: EngineSum(made, made, MS, ENDPOINT, "QueuePool", 1, 0, processes)}
    (row,) = observed.loans.values()
    row.by_maker = by_maker
    assert first(observed) == ("pool-too-small", MADE_AT)
    row.by_maker = row.count
    assert (first(observed)[0] == "pool-per-request") is (made >= 3 * processes)


def test_waiting_while_others_overtake_is_starvation():
    order = [0, *range(20, 200), *range(1, 20)]
    assert first(waits(order))[0] == "starvation"
    assert first(waits(order, pool="FairPool"))[0] == "pool-too-small"


def test_the_first_requests_of_a_long_run_stand_for_the_others():
    observed = waits([0, *range(20, 200), *range(1, 20)])
    (row,) = observed.loans.values()
    for number in (row, *observed.requests.values()):
        number.count *= 10
    row.wait_ns, observed.requests[ENDPOINT].duration_ns = (
        10 * row.wait_ns,
        10 * observed.requests[ENDPOINT].duration_ns,
    )
    long = diagnose(observed).findings[0]
    short = diagnose(waits([0, *range(20, 200), *range(1, 20)])).findings[0]
    assert (long.kind, long.share) == (short.kind, pytest.approx(short.share, rel=0.01))


def test_an_unfair_pool_whose_connections_are_all_in_use_is_too_small_as_well():
    order = [0, *range(20, 200), *range(1, 20)]
    assert "The connections were in use 92 % of the time" in diagnose(waits(order)).findings[0].evidence
    idle = waits(order)
    idle.asks = [ask._replace(held_ns=ask.held_ns * 3 // 4) for ask in idle.asks]
    assert "in use" not in diagnose(idle).findings[0].evidence


def test_an_unfair_pool_that_is_asked_for_more_than_it_can_do_is_too_small_first():
    crowded = waits([0, *range(20, 200), *range(1, 20)])
    crowded.asks = [ask._replace(asked_ns=ask.asked_ns * 2 // 3) for ask in crowded.asks]
    found = diagnose(crowded).findings[0]
    assert found.kind == "pool-too-small"
    assert "asked for 1.7 times what these can do" in found.evidence


def test_starvation_is_told_of_busy_workers_too_if_most_of_the_time_is_due_to_it():
    order = [0, *range(20, 200), *range(1, 20)]
    observed = waits(order)
    assert first(observed, Server(worker_cpu=0.97))[0] == "starvation"
    observed.requests = {ENDPOINT: RequestSum(200, 8 * observed.requests[ENDPOINT].duration_ns)}
    assert first(observed, Server(worker_cpu=0.97)) is None


def test_waiting_for_cpu_is_no_fault_of_the_pool():
    assert first(waits(range(200)), Server(worker_cpu=0.97)) is None
    busy = waits(range(200))
    busy.statements = {StatementKey(ENDPOINT, PLACE, "SELECT 1"): StatementSum(200, 1900 * MS, 200, 9 * MS, groups=200)}
    counted = {statement_key("SELECT 1"): DatabaseStatement("select $1", 200, 1500.0, 200)}
    assert first(busy, Server(worker_cpu=0.97)) is None
    assert first(busy, Server(worker_cpu=0.97, statements=counted)) == ("pool-too-small", MADE_AT)
    busy.samples = {SampleKey(ENGINE, ENDPOINT, "", CPU, False): SampleSum(0, 1000 * MS, 90)}
    assert first(busy) is None


def test_a_computation_over_many_lines_is_found_at_the_line_that_takes_most():
    lines = (
        sample(WORK, 40, place="route.py:7")
        | sample(WORK, 60, place="route.py:9")
        | sample(WORK, 50, place="route.py:10")
    )
    elsewhere = sample(WORK, 600, place="route.py:30") | sample(WORK, 20, place="view.py:30")
    (alone,) = diagnose(seen(samples=lines, loans=loans(count=25))).findings
    assert (alone.kind, alone.where) == ("work-while-holding", "route.py:9")
    assert alone.share == pytest.approx(0.15)
    (beside,) = diagnose(seen(samples=lines | elsewhere)).findings
    assert (beside.where, beside.share) == ("route.py:30", pytest.approx(0.75))


@pytest.mark.parametrize(
    ("doing", "own_ms", "blamed_ms", "is_found"),
    [
        (COMPUTING, 600, 0, False),
        (COMPUTING, 600, 500, True),
        (COMPUTING, 2500, 0, True),
        (STREAMING, 2500, 0, False),
        (STREAMING, 2500, 500, True),
        (WORK, 600, 0, True),
    ],
)
def test_to_compute_for_little_or_for_a_stream_costs_what_others_wait_for_it(doing, own_ms, blamed_ms, is_found):
    observed = seen(samples=sample(doing, own_ms, blamed_ms), loans=loans(wait_ns=blamed_ms * MS))
    observed.requests[ENDPOINT].duration_ns = 4000 * MS
    found = diagnose(observed).findings
    assert [each.kind for each in found] == (["work-while-holding"] if is_found else [])
    if blamed_ms:
        assert found[0].share == pytest.approx(0.125 if doing == STREAMING or own_ms < 2000 else 0.75)


def test_one_line_in_several_endpoints_fails_requests_if_it_does_in_one():
    found = [
        Finding("nested-checkout", "app.py:7", "GET /a", "It waits.", "", 0.4),
        Finding("nested-checkout", "app.py:7", "GET /b", "It waits in vain.", "", 0.2, fails_requests=True),
    ]
    (one,) = merged(found)
    assert one.fails_requests and one.weight > 1


def test_what_other_programs_hide_was_not_checked():
    slow, _ = DISEASES["a slow statement"]
    assert {"starvation", "pool-too-small"} <= set(diagnose(slow, Server()).checked)
    crowded_out = Server(worker_cpu=1.0, worker_used=0.1)
    assert crowded_out.is_crowded_out
    assert not {"starvation", "pool-too-small"} & set(diagnose(slow, crowded_out).checked)


def test_an_engine_without_a_pool_has_none_that_is_too_large():
    observed = seen(loans=loans(opened=100), engines={ENGINE: EngineSum(made=1, pool="NullPool")})
    kinds = {each.kind for each in diagnose(observed, Server(cores=2, mean_active=40.0, database_cpu=0.9)).findings}
    assert "pool-too-large" not in kinds


def test_many_that_take_turns_at_a_busy_database_are_a_pool_too_large():
    slow, _ = DISEASES["a slow statement"]
    crowded = {"cores": 2, "mean_active": 40.0}
    assert first(slow, Server(database_cpu=0.9, **crowded)) == ("pool-too-large", MADE_AT)
    assert first(slow, Server(database_cpu=0.6, machine_cpu=0.97, **crowded)) == ("pool-too-large", MADE_AT)
    assert first(slow, Server(database_cpu=0.6, machine_cpu=0.7, **crowded))[0] == "slow-statement"
    assert first(slow, Server(database_cpu=0.9, cores=2, mean_active=6.0))[0] == "slow-statement"
    # Fewer are enough where the pools may open many.
    some = Server(database_cpu=0.9, cores=2, mean_active=15.0)
    assert first(slow, some)[0] == "slow-statement"
    slow.engines[ENGINE].size = 80
    assert first(slow, some) == ("pool-too-large", MADE_AT)
    slow.engines[ENGINE].size = 5


def test_work_for_which_others_wait_at_its_locks_is_an_open_transaction():
    observed = seen(samples=sample(WORK, 600, wrote=True))
    assert first(observed) == ("work-while-holding", "app.py:12")
    assert first(observed, Server(waits_for_idle_s=2)) == ("idle-in-transaction", "app.py:12")
    assert first(seen(samples=sample(WORK, 600)), Server(waits_for_idle_s=2))[0] == "work-while-holding"


def test_waiting_for_connections_whose_borrowers_wait_for_a_lock_is_charged_to_who_has_the_lock():
    observed = waits(range(200))
    observed.statements = {StatementKey(ENDPOINT, PLACE, "UPDATE"): StatementSum(200, 900 * MS, 200, MS, groups=200)}
    observed.samples = {**sample(STATEMENT, 900, 900, place=PLACE), **sample(SLEEP, 1200, 20, wrote=True)}
    asked = Server(lock_waits={"update": 0.95}, active_s={"update": 0.9}, waits_for_idle_s=0.8)
    assert first(observed)[0] == "pool-too-small"
    assert first(observed, asked) == ("idle-in-transaction", "app.py:12")


def test_the_time_of_a_background_thread_is_nobodys_but_what_it_keeps_others_waiting_is_told():
    place = "app.py:90"
    held = {LoanKey(ENGINE, "", place): LoanSum(count=1, held_ns=5000 * MS)}
    idle = {SampleKey(ENGINE, "", place, SLEEP, True): SampleSum(4900 * MS, 0, 90)}
    slow = {StatementKey("", place, "DELETE"): StatementSum(10, 900 * MS, 10, 85 * MS, slow=10, slow_ns=900 * MS)}
    assert first(seen(loans=held, samples=idle, statements=slow)) is None
    assert first(seen(loans=held, samples=idle), Server(waits_for_idle_s=0.8)) == ("idle-in-transaction", place)


def test_one_place_in_several_endpoints_is_one_finding_with_the_share_of_all():
    other = {SampleKey(ENGINE, "GET /other", "app.py:12", WORK, False): SampleSum(100 * MS, 0, 90)}
    other_loans = {LoanKey(ENGINE, "GET /other", PLACE): LoanSum(count=10, held_ns=100 * MS)}
    (found,) = diagnose(seen(samples={**sample(WORK, 600), **other}, loans=other_loans)).findings
    assert (found.endpoint, round(found.share, 2)) == (ENDPOINT, 0.7)
    assert found.evidence.endswith("The same in GET /other.")


def test_a_line_for_which_others_wait_is_not_gathered_into_one_that_takes_longer():
    lines = {
        SampleKey(ENGINE, ENDPOINT, "route.py:7", WORK, False): SampleSum(20 * MS, 500 * MS, 90),
        SampleKey(ENGINE, ENDPOINT, "route.py:9", WORK, False): SampleSum(60 * MS, 0, 90),
    }
    found = diagnose(seen(samples=lines, loans=loans(count=2, wait_ns=500 * MS))).findings
    assert {"route.py:7", "route.py:9"} <= {each.where for each in found}


def test_no_more_timeouts_of_nested_loans_are_told_than_were_asked_for():
    (found,) = diagnose(seen(loans=loans(nested=10, nested_ns=50 * MS, timeouts=100))).findings
    assert "asked for here 10 times" in found.evidence and "(10 of these requests for it timed out)" in found.evidence


def test_a_pool_without_a_limit_may_crowd_the_database():
    engines = {ENGINE: EngineSum(made=1, pool="QueuePool", size=5, overflow=-1, processes=1)}
    server = Server(cores=4, mean_active=26.0, database_cpu=1.0, machine_cpu=1.0)
    assert Case(seen(engines=engines), server).crowding > 1 == Case(seen(), server).crowding


@pytest.mark.parametrize(
    ("line", "doing", "places"), [(23, COMPUTING, [20]), (40, COMPUTING, [20, 40]), (23, WORK, [20, 23])]
)
def test_what_is_computed_in_the_lines_of_one_loop_is_one_finding(line, doing, places):
    observed = seen(
        samples={**sample(COMPUTING, 2500, place="app.py:20"), **sample(doing, 2200, place=f"app.py:{line}")}
    )
    found = diagnose(observed).findings
    assert [each.where for each in found] == [f"app.py:{place}" for place in places]


@pytest.mark.parametrize(("waited_ms", "is_said"), [(30, False), (200, True)])
def test_a_wait_that_would_be_shown_as_nothing_is_not_mentioned(waited_ms, is_said):
    observed = seen(loans=loans(wait_ns=waited_ms * MS), samples=sample(WORK, 600, waited_ms))
    (found,) = diagnose(observed).findings
    assert ("Others waited" in found.evidence) is is_said


def test_a_leaks_share_is_that_of_the_pools_of_all_processes():
    engines = {ENGINE: EngineSum(made=1, pool="QueuePool", size=5, overflow=5, processes=2)}
    (found,) = diagnose(seen(samples=sample(LEAKED, 5000), engines=engines)).findings
    assert found.share == 0.25


def test_a_session_that_a_thread_keeps_after_its_task_is_a_leak_where_it_is_known_when_requests_end():
    kept = {SampleKey(ENGINE, "", PLACE, LEFT_OPEN, True): SampleSum(900 * MS, 0, 90)}
    (found,) = diagnose(seen(samples=kept)).findings
    assert (found.kind, found.where, found.endpoint) == (
        "leak",
        PLACE,
        None,
    ) and "the code that borrowed them" in found.evidence
    unknown = seen(samples=kept)
    unknown.requests.clear()
    assert not diagnose(unknown).findings


def test_waiting_is_charged_to_what_the_connections_were_doing():
    observed = waits(range(200))
    observed.samples = {**sample(LEAKED, 0, 0), **sample(WORK, 2000, 1000, place="app.py:20")}
    found = diagnose(observed).findings
    assert [(each.kind, each.where) for each in found] == [("work-while-holding", "app.py:20")]
    assert found[0].share > 0.9


def test_overtaken_are_those_who_wait_while_a_later_one_is_served():
    waits = Ask(1, ENGINE, 0, 100 * MS, MS, True)
    later = [Ask(1, ENGINE, (i + 1) * 10 * MS, 0, 5 * MS, True) for i in range(8)]
    (found,) = overtaken([waits, *later], 1)
    assert (found.wait_ns, found.by, found.excess_ns) == (100 * MS, 8, 40 * MS)
    assert not overtaken([waits, *later[:2]], 1), "twice is chance"
    assert not overtaken([waits, *later], 3), "three connections, served in turns"


def test_a_loan_that_lasts_does_not_stretch_the_time_whose_requests_are_known():
    known = [Ask(1, ENGINE, i * 10 * MS, 0, 20 * MS, True) for i in range(101)]
    leaked = [Ask(1, ENGINE, asked * MS, 0, (60_000 - asked) * MS, True, has_ended=False) for asked in (1010, 50_000)]
    assert demanded([[*known, *leaked]], 1) == demanded([known], 1) == pytest.approx(2.02)
    assert used([[*known, *leaked]], 4) == pytest.approx((101 * 20 + 10) / (4 * 1020))
    assert used([leaked], 2) == pytest.approx((58_990 + 10_000) / (2 * 58_990))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 4))
def test_nobody_is_overtaken_in_the_order_of_arrival(arrivals, limit):
    free_at, asks = [0] * limit, []
    for asked, held in sorted(arrivals):
        begins = max(asked, heappop(free_at))
        heappush(free_at, begins + held)
        asks.append(Ask(1, ENGINE, asked * MS, (begins - asked) * MS, held * MS, True))
    assert not overtaken(asks, limit)
