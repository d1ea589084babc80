"""From what was seen of an application to what holds it back: each disease by figures alone, and nothing where all is well."""

from dataclasses import replace
from heapq import heappop, heappush
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolbench.asks import demanded, overtaken, used
from poolbench.diagnosis import diagnose
from poolbench.diagnosis_case import Case
from poolbench.findings import KINDS
from poolbench.observed import (
    COMPUTING,
    CPU,
    LEAKED,
    LEFT_OPEN,
    NESTED,
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

MS = 1_000_000
MADE_AT = "app.py:3"
ENGINE, ENDPOINT, PLACE = f"{MADE_AT}\tpostgresql://h:5432/d\t1", "GET /orders", "app.py:10"


def seen(**changes):
    """A hundred requests of 10 ms, which held a connection for 5 ms each, and the given changes."""
    found = Observed(
        requests={ENDPOINT: RequestSum(100, 1000 * MS)},
        loans={LoanKey(ENGINE, ENDPOINT, PLACE): LoanSum(count=100, held_ns=500 * MS, opened=5, connect_ns=20 * MS)},
        statements={StatementKey(ENDPOINT, PLACE, "SELECT 1"): StatementSum(200, 300 * MS, 200, MS, groups=100)},
        samples={SampleKey(ENGINE, ENDPOINT, PLACE, STATEMENT, False): SampleSum(500 * MS, 0, 50)},
        engines={ENGINE: EngineSum(made=1, pool="QueuePool", size=5, overflow=0, processes=1)},
        asks=[Ask(1, ENGINE, i * 10 * MS, 0, 5 * MS, True) for i in range(100)],
        span_ns=1000 * MS,
    )
    for name, rows in changes.items():
        getattr(found, name).update(rows)
    return found


def first(observed, server=None):
    """The first finding's kind and place."""
    found = diagnose(observed, server).findings
    return (found[0].kind, found[0].where) if found else None


def sample(doing, own_ms, blamed_ms=0, place="app.py:12", wrote=False):
    return {SampleKey(ENGINE, ENDPOINT, place, doing, wrote): SampleSum(own_ms * MS, blamed_ms * MS, 90)}


def loans(**figures):
    return {LoanKey(ENGINE, ENDPOINT, PLACE): LoanSum(**{"count": 100, "held_ns": 500 * MS, **figures})}


def test_nothing_is_found_where_all_is_well():
    found = diagnose(seen())
    assert not found.findings and found.checked == KINDS


DISEASES = {
    "leak": (seen(samples=sample(LEAKED, 900)), ("leak", "app.py:12")),
    "a second checkout": (
        seen(loans=loans(nested=100, nested_ns=200 * MS), samples=sample(NESTED, 100)), ("nested-checkout", PLACE),
    ),
    "a connection of the parent": (seen(loans=loans(foreign=50)), ("fork-shared", PLACE)),
    "work": (seen(samples=sample(WORK, 600)), ("work-while-holding", "app.py:12")),
    "a sleep that locks nothing": (seen(samples=sample(SLEEP, 600)), ("work-while-holding", "app.py:12")),
    "a sleep with changed rows": (seen(samples=sample(SLEEP, 600, wrote=True)), ("idle-in-transaction", "app.py:12")),
    "a session that is never ended": (
        seen(samples=sample(LEFT_OPEN, 900, place=PLACE), loans=loans(count=12, adopted=9)), ("idle-in-transaction", PLACE),
    ),
    "a session that is not ended after an error": (
        seen(samples=sample(LEFT_OPEN, 900, place=PLACE), loans=loans(adopted=9)), ("leak", PLACE),
    ),
    "a connection that a thread keeps, after each commit": (
        seen(samples=sample(LEAKED, 900, place=PLACE), loans=loans(adopted=9)), ("leak", PLACE),
    ),
    "a connection that is lost in its transaction": (seen(samples=sample(LEFT_OPEN, 900)), ("leak", "app.py:12")),
    "the same statement": (
        seen(statements={StatementKey(ENDPOINT, "app.py:15", "SELECT name"): StatementSum(
            3000, 400 * MS, 3000, MS, groups=100, repeated=3000, repeated_groups=100, repeated_ns=450 * MS)}),
        ("n-plus-one", "app.py:15"),
    ),
    "a commit for each row": (
        seen(statements={StatementKey(ENDPOINT, "app.py:15", "INSERT INTO t"): StatementSum(
            3000, 500 * MS, 3000, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=550 * MS, apart_changes=3000)}),
        ("n-plus-one", "app.py:15"),
    ),
    "a slow statement": (
        seen(statements={StatementKey(ENDPOINT, "app.py:16", "SELECT 2"): StatementSum(
            10, 600 * MS, 10, 95 * MS, slow=10, slow_ns=600 * MS, groups=10)}),
        ("slow-statement", "app.py:16"),
    ),
    "no pool": (
        seen(
            loans=loans(opened=100, connect_ns=400 * MS),
            engines={ENGINE: EngineSum(made=1, pool="NullPool", processes=1)},
        ),
        ("connection-per-request", MADE_AT),
    ),
    "a pool that closes what it has opened": (
        seen(
            loans=loans(count=500, opened=120, connect_ns=400 * MS),
            engines={ENGINE: EngineSum(made=1, pool="QueuePool", size=1, overflow=20, processes=2)},
        ),
        ("connection-per-request", MADE_AT),
    ),
    "an engine for each request": (
        seen(
            loans=loans(opened=100, connect_ns=400 * MS, by_maker=100),
            engines={ENGINE: EngineSum(100, 100, 50 * MS, ENDPOINT, "QueuePool", 5, 10, 1)},
        ),
        ("pool-per-request", MADE_AT),
    ),
    "connections that the server refuses": (seen(loans=loans(refused=20)), ("pool-too-large", MADE_AT)),
}  # fmt: skip


@pytest.mark.parametrize("name", DISEASES)
def test_each_disease_is_found_with_its_place(name):
    observed, expected = DISEASES[name]
    assert first(observed) == expected


@pytest.mark.parametrize("name", DISEASES)
def test_what_was_seen_survives_json_and_adding_up(name):
    observed, expected = DISEASES[name]
    assert first(total([Observed.from_json(observed.to_json()), Observed()])) == expected


def waits(order, pool="QueuePool"):
    """A pool of one connection, asked for 10 ms of it every 9 ms, that serves in the given order of numbers."""
    asks, at = [], 0
    for number in order:
        asked = number * 9 * MS
        at = max(at, asked)
        asks.append(Ask(1, ENGINE, asked, at - asked, 10 * MS, True))
        at += 10 * MS
    wait_ns = sum(ask.wait_ns for ask in asks)
    return Observed(
        requests={ENDPOINT: RequestSum(len(asks), wait_ns + len(asks) * 12 * MS)},
        loans={
            LoanKey(ENGINE, ENDPOINT, PLACE): LoanSum(count=len(asks), wait_ns=wait_ns, held_ns=len(asks) * 10 * MS)
        },
        samples=sample(STATEMENT, 400, 1000),
        engines={ENGINE: EngineSum(made=1, pool=pool, size=1, processes=1)},
        asks=asks,
    )


def test_waiting_in_order_is_a_pool_too_small():
    assert first(waits(range(200))) == ("pool-too-small", MADE_AT)


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
    assert (found.kind, found.where, found.rank) == (kind, MADE_AT, 1)
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


def test_a_statement_that_waits_for_a_lock_is_not_slow_by_itself():
    observed, _ = DISEASES["a slow statement"]
    assert first(observed, Server(lock_waits={statement_key("SELECT 2"): 0.9})) is None


@pytest.mark.parametrize(("apart_ms", "rows", "is_fault"), [(550, 3000, True), (450, 3000, False), (550, 9000, False)])
def test_reading_row_by_row_on_connections_borrowed_anew_is_a_fault_if_a_request_does_little_else(
    apart_ms, rows, is_fault
):
    row = StatementSum(3000, 400 * MS, rows, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=apart_ms * MS)
    observed = seen(statements={StatementKey(ENDPOINT, "app.py:15", "SELECT name"): row})
    found = diagnose(observed)
    if is_fault:
        assert first(observed) == ("n-plus-one", "app.py:15") and not found.notes
        assert "30 times from here, each time on a connection borrowed anew" in found.findings[0].evidence
        return
    assert not found.findings
    assert found.notes[0].startswith(
        "A request to GET /orders executed the same statement 30 times at app.py:15, each time"
    )


def test_an_unfair_pool_is_the_worse_fault_than_reading_row_by_row():
    observed = waits([0, *range(20, 200), *range(1, 20)])
    observed.statements = {
        StatementKey(ENDPOINT, "app.py:15", "SELECT name"): StatementSum(
            200, 1900 * MS, 200, MS, groups=200, apart=200, apart_requests=4, apart_ns=10**15
        )
    }
    found = diagnose(observed)
    assert found.findings[0].kind == "starvation" and "n-plus-one" not in {each.kind for each in found.findings}
    assert "each time on a connection borrowed anew" in found.notes[0]


def test_a_commit_for_each_row_that_is_read_before_is_found_behind_a_queue_too():
    read = StatementSum(3000, 250 * MS, 3000, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=400 * MS)
    write = replace(read, apart_changes=3000)
    observed = seen(
        statements={
            StatementKey(ENDPOINT, "app.py:14", "SELECT n"): read,
            StatementKey(ENDPOINT, "app.py:15", "UPDATE t"): write,
        }
    )
    assert first(observed) == ("n-plus-one", "app.py:15") and not diagnose(observed).notes
    observed.requests[ENDPOINT].duration_ns *= 3
    assert first(observed) is None
    for row in observed.loans.values():
        row.wait_ns = 2000 * MS
    assert any(each.where == "app.py:15" for each in diagnose(observed).findings)


def test_a_transaction_for_each_item_is_no_finding_where_most_of_the_time_goes_to_something_else():
    rows = StatementSum(
        3000, 300 * MS, 3000, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=400 * MS, apart_changes=3000
    )
    found = diagnose(seen(statements={StatementKey(ENDPOINT, "app.py:15", "UPDATE jobs"): rows}))
    assert not found.findings and not found.notes


def test_a_long_queue_for_the_locks_of_transactions_at_work_is_a_slow_statement_and_a_short_one_a_note():
    rows = StatementSum(10, 950 * MS, 10, MS, slow=6, slow_ns=900 * MS, groups=10)
    observed = seen(statements={StatementKey(ENDPOINT, "app.py:16", "UPDATE t"): rows})
    waiting = {"lock_waits": {statement_key("UPDATE t"): 0.9}, "active_s": {statement_key("UPDATE t"): 0.9}}
    found = diagnose(observed, Server(**waiting))
    assert (found.findings[0].kind, found.findings[0].where) == ("slow-statement", "app.py:16") and not found.notes
    assert "waiting for a lock" in found.findings[0].evidence
    observed.requests = {ENDPOINT: RequestSum(100, 4000 * MS)}
    short = diagnose(observed, Server(**waiting))
    assert not short.findings and short.notes == (
        "Statements waited 0.8 s for locks of other transactions that were at work.",
    )


def test_a_queue_for_the_locks_of_an_idle_transaction_is_that_ones_fault_alone():
    rows = StatementSum(10, 950 * MS, 10, MS, slow=6, slow_ns=900 * MS, groups=10)
    waiting = {"lock_waits": {statement_key("UPDATE t"): 0.9}, "active_s": {statement_key("UPDATE t"): 0.9}}
    observed = seen(
        statements={StatementKey(ENDPOINT, "app.py:16", "UPDATE t"): rows}, samples=sample(SLEEP, 600, wrote=True)
    )
    found = diagnose(observed, Server(**waiting, waits_for_idle_s=0.8))
    assert [each.kind for each in found.findings] == ["idle-in-transaction"] and not found.notes


def test_a_statement_is_as_slow_as_the_database_says():
    observed, expected = DISEASES["a slow statement"]
    key = statement_key("SELECT 2")
    slow, quick = (
        DatabaseStatement("select $1", 10, 580.0, 10, 40_000),
        DatabaseStatement("select $1", 10, 20.0, 10, 30),
    )
    assert first(observed, Server(statements={key: slow})) == expected
    assert "58 ms, and looked at 4000 pages" in diagnose(observed, Server(statements={key: slow})).findings[0].evidence
    assert first(observed, Server(statements={key: quick})) is None, "the application was late to read the answer"
    assert "pg_stat_statements was not used" in diagnose(observed, Server(statements_missing="not there")).notes[0]


@pytest.mark.parametrize(
    ("quick", "server", "is_slow"),
    [
        (1, Server(), True),
        (9, Server(), True),
        (10, Server(), False),
        # Whatever takes turns at a busy machine may take long.
        (3, Server(machine_cpu=0.99), True),
        (9, Server(machine_cpu=0.99), False),
        (9, Server(worker_cpu=0.99), False),
    ],
)
def test_a_slow_statement_may_be_quick_now_and_then(quick, server, is_slow):
    row = StatementSum(40, 4000 * MS, 40, MS, slow=31, slow_ns=3600 * MS, groups=40, quick=quick)
    observed = seen(statements={StatementKey(ENDPOINT, "app.py:16", "SELECT 2"): row})
    assert first(observed, server) == (("slow-statement", "app.py:16") if is_slow else None)


@pytest.mark.parametrize(
    ("active_s", "counted", "expected"),
    [
        (
            {"selecta": 0.55},
            {"selecta": DatabaseStatement("select a", 5, 550.0, 5)},
            "loan of this endpoint: “select a”",
        ),
        ({"selecta": 0.55, "selectb": 0.5}, {}, "100 ms for each loan of this endpoint."),
        # Nothing, the engine's own, what ends a transaction, batches, and quick ones in a loop.
        ({}, {}, None),
        ({"select?": 0.55}, {}, None),
        ({"selecta": 0.2}, {}, None),
        ({"commit": 0.55, "copytfromstdin": 0.55}, {}, None),
        ({"selecta": 0.55}, {"selecta": DatabaseStatement("select a", 5, 550.0, 9000)}, None),
        ({"selecta": 0.55}, {"selecta": DatabaseStatement("select a", 500, 550.0, 500)}, None),
    ],
)
def test_a_slow_statement_of_a_cursor_of_the_drivers_is_found(active_s, counted, expected):
    observed = seen(samples=sample(STATEMENT, 500, place="app.py:30"), loans=loans(count=5))
    found = diagnose(observed, Server(active_s=active_s, statements=counted)).findings
    assert [(each.kind, each.where) for each in found] == ([("slow-statement", "app.py:30")] if expected else [])
    assert not found or expected in found[0].evidence


def test_a_statement_that_the_engine_tells_of_is_no_cursor_of_the_drivers():
    observed = seen(samples=sample(STATEMENT, 500, place="app.py:30"), loans=loans(count=5))
    rows = StatementSum(5, 480 * MS, 5 * 2000, 90 * MS, groups=5)
    observed.statements[StatementKey(ENDPOINT, "app.py:30", "SELECT 3")] = rows
    assert first(observed, Server(active_s={"selecta": 0.55})) is None


def test_a_statement_that_takes_little_more_than_a_trivial_one_is_slow_only_if_the_database_says_so():
    observed, expected = DISEASES["a slow statement"]
    key = statement_key("SELECT 2")
    slow = DatabaseStatement("select $1", 10, 580.0, 10, 40_000)
    assert first(observed, Server(trivial_ms=5)) == expected
    assert first(observed, Server(trivial_ms=15)) is None
    assert first(observed, Server(trivial_ms=15, statements={key: slow})) == expected


def test_what_the_database_counts_of_the_executions_that_did_not_fail_says_nothing_of_those_that_did():
    observed, expected = DISEASES["a slow statement"]
    key = statement_key("SELECT 2")
    quick = DatabaseStatement("select $1", 2, 4.0, 2, 30)
    assert first(observed, Server(statements={key: quick}, active_s={key: 0.6})) == expected


def test_a_statement_that_looks_at_many_pages_for_few_rows_is_slow_at_less_time():
    statements = {StatementKey(ENDPOINT, "app.py:16", "SELECT 2"): StatementSum(20, 600 * MS, 40, 2 * MS, groups=20)}
    key = statement_key("SELECT 2")
    wasteful = DatabaseStatement("select $1", 20, 560.0, 40, 80_000)
    assert first(seen(statements=statements), Server(statements={key: wasteful})) == ("slow-statement", "app.py:16")
    for thrifty in (wasteful._replace(pages=8000), wasteful._replace(total_ms=300.0)):
        assert first(seen(statements=statements), Server(statements={key: thrifty})) is None
    assert first(seen(statements=statements)) is None


@pytest.mark.parametrize("cut", range(300, 331, 3))
def test_a_statement_of_which_only_the_beginning_is_known_is_found_in_the_database(cut):
    values = ", ".join(f"%(primary_keys_{n})s::INTEGER" for n in range(20))
    whole = f"SELECT title FROM t WHERE id IN ({values}) LIMIT 5"
    servers = "SELECT title FROM t WHERE id IN ($1::INTEGER /*, ... */) LIMIT $2"
    case = Case(seen(), Server(statements={statement_key(servers): DatabaseStatement(servers)}))
    assert case.key_of(whole[:cut]) == statement_key(servers)


def test_a_statement_that_is_never_quick_is_slow_at_fewer_pages():
    row, key = StatementSum(20, 260 * MS, 20, 9 * MS, groups=20), statement_key("SELECT 2")
    server = Server(statements={key: DatabaseStatement("select $1", 20, 250.0, 20, 8000)}, trivial_ms=1.3)
    statements = {StatementKey(ENDPOINT, "app.py:16", "SELECT 2"): row}
    assert first(seen(statements=statements), server) == ("slow-statement", "app.py:16")
    row.fastest_ns = 2 * MS
    assert first(seen(statements=statements), server) is None, "the machine was busy"


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


def test_work_between_the_statements_of_a_loop_is_not_the_loops():
    loop = {
        StatementKey(ENDPOINT, "app.py:15", "SELECT name"): StatementSum(
            1000, 100 * MS, 1000, MS, groups=100, repeated=1000, repeated_groups=100, repeated_ns=900 * MS
        )
    }
    found = diagnose(seen(statements=loop, samples=sample(WORK, 700))).findings
    assert [(each.kind, round(each.share, 2)) for each in found] == [("work-while-holding", 0.7), ("n-plus-one", 0.2)]


def test_one_place_in_several_endpoints_is_one_finding_with_the_share_of_all():
    other = {SampleKey(ENGINE, "GET /other", "app.py:12", WORK, False): SampleSum(100 * MS, 0, 90)}
    other_loans = {LoanKey(ENGINE, "GET /other", PLACE): LoanSum(count=10, held_ns=100 * MS)}
    (found,) = diagnose(seen(samples={**sample(WORK, 600), **other}, loans=other_loans)).findings
    assert (found.endpoint, round(found.share, 2)) == (ENDPOINT, 0.7)
    assert found.evidence.endswith("The same in GET /other.")


def test_a_diagnosis_of_many_rows_takes_time_in_proportion_to_them():
    def took_s(count):
        observed = seen()
        for n in range(count):
            endpoint, place = f"GET /{n}", f"app.py:{n}"
            observed.loans[LoanKey(ENGINE, endpoint, place)] = LoanSum(count=1, held_ns=10 * MS)
            text = f"SELECT {', '.join(f'column_{n}_{i}' for i in range(40))}"[:300]
            observed.statements[StatementKey(endpoint, place, text)] = StatementSum(
                20, 2000 * MS, 20, 90 * MS, slow=20, slow_ns=2000 * MS, groups=1, repeated=20, repeated_groups=1,
            )  # fmt: skip
            observed.samples[SampleKey(ENGINE, endpoint, place, WORK, False)] = SampleSum(10 * MS, 0, 9)
        server = Server(active_s={f"select{n}": 1.0 for n in range(count)})
        began_s = process_time()
        diagnose(observed, server)
        return process_time() - began_s

    assert took_s(2000) < 4 * max(min(took_s(1000) for _ in range(3)), 0.01)


def test_what_costs_little_in_each_of_many_endpoints_is_found_by_the_sum_of_its_line():
    loop = {"groups": 20, "repeated": 200, "repeated_groups": 20}
    for row, kind in (
        (StatementSum(2, 180 * MS, 2, 85 * MS, slow=2, slow_ns=180 * MS), "slow-statement"),
        (StatementSum(200, 180 * MS, 200, MS // 2, **loop, repeated_ns=180 * MS), "n-plus-one"),
    ):
        statements = {StatementKey(f"GET /{name}", "app.py:15", "SELECT name"): replace(row) for name in "abcde"}
        observed = seen(statements=statements)
        observed.requests[ENDPOINT].duration_ns = 9000 * MS
        (found,) = diagnose(observed).findings
        assert (found.kind, found.where, round(found.share, 3)) == (kind, "app.py:15", 0.1)
        for name in "ab":
            del observed.statements[StatementKey(f"GET /{name}", "app.py:15", "SELECT name")]
        observed.requests[ENDPOINT].duration_ns = 27_000 * MS
        assert not diagnose(observed).findings


def test_work_in_many_endpoints_that_are_seen_seldom_is_found_by_its_line():
    observed = seen()
    for name in "abcde":
        observed.samples[SampleKey(ENGINE, f"GET /{name}", "app.py:40", WORK, False)] = SampleSum(20 * MS, 0, 1)
        observed.loans[LoanKey(ENGINE, f"GET /{name}", PLACE)] = LoanSum(count=1, held_ns=20 * MS)
    (found,) = diagnose(observed).findings
    assert (found.kind, found.where, round(found.share, 2)) == ("work-while-holding", "app.py:40", 0.1)
    observed.requests[ENDPOINT].duration_ns = 5000 * MS
    assert not diagnose(observed).findings


def test_statements_that_differ_only_in_the_values_that_each_process_saw_first_are_one():
    rows = [StatementSum(5, 450 * MS, 5, 85 * MS, slow=5, slow_ns=450 * MS) for _ in range(2)]
    texts = ("SELECT 2 WHERE a = 'x'", "SELECT 2 WHERE a = 'y'")
    observed = seen()
    for text, row in zip(texts, rows, strict=True):
        observed.statements[StatementKey(ENDPOINT, "app.py:16", text)] = row
    assert "10 times this took" in diagnose(observed).findings[0].evidence
    assert [row.count for row in rows] == [5, 5]


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


@pytest.mark.parametrize(
    ("ours", "servers"),
    [
        ("SELECT name FROM t WHERE id = %(id)s", "select name from t where id = 17"),
        ("UPDATE t SET n=n + %(x)s WHERE t.a = %(a_1)s", "UPDATE t SET n=n + 1\n WHERE t.a = 'it''s'"),
        ("SELECT a FROM t WHERE b IN (%s)", "SELECT a FROM t WHERE b IN ($1 /*, ... */)"),
        ("SELECT * FROM t WHERE b = %s", "SELECT * FROM t WHERE b = NULL"),
        (
            "SELECT a FROM t WHERE b = %(b)s::INTEGER LIMIT %(x)s::INTEGER",
            "SELECT a FROM t\nWHERE b = $1::INTEGER\nLIMIT $2::INTEGER",
        ),
        (
            "SELECT a FROM t WHERE a IN (%(a_1)s::INTEGER, %(a_2)s::INTEGER)",
            "SELECT a FROM t WHERE a IN ($1::INTEGER /*, ... */)",
        ),
        ("SELECT a FROM t WHERE a %% 7 = %(a)s AND b LIKE '%%x'", "SELECT a FROM t WHERE a % $1 = $2 AND b LIKE $3"),
        ("SELECT %(a)s::timestamp with time zone AS x", "SELECT $1::timestamp with time zone AS x"),
        ("SELECT %(a)s::VARCHAR(20)[] || b", "SELECT $1::varchar(20)[] || b"),
        ("SELECT 1 -- one\nFROM t", "SELECT $1 -- one\nFROM t"),
    ],
)
def test_statements_of_driver_and_database_agree_without_their_values(ours, servers):
    assert statement_key(ours) == statement_key(servers)
