"""Statements that are slow, repeated, or that only the database tells of: found by figures alone."""

from dataclasses import replace
from time import process_time

import pytest

from poolbench.diagnosis import diagnose
from poolbench.diagnosis_case import Case
from poolbench.observed import (
    LIBRARY,
    SLEEP,
    STATEMENT,
    WORK,
    LoanKey,
    LoanSum,
    RequestSum,
    SampleKey,
    SampleSum,
    StatementKey,
    StatementSum,
)
from poolbench.surroundings import DatabaseStatement, Server, statement_key
from tests.support.observations import DISEASES, ENDPOINT, ENGINE, MS, PLACE, first, loans, sample, seen, waits


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


@pytest.mark.parametrize(
    ("text", "rows", "is_told"), [("SELECT id", 3000, True), ("INSERT", 3000, False), ("SELECT id", 900, False)]
)
def test_fetching_many_rows_is_no_fault_but_mentioned_where_it_takes_much(text, rows, is_told):
    found = diagnose(
        seen(
            statements={StatementKey(ENDPOINT, "app.py:15", text): StatementSum(100, 100 * MS, 100 * rows, MS)},
            samples=sample(LIBRARY, 200, place="app.py:15"),
        )
    )
    assert not found.findings and len(found.notes) == is_told
    if is_told:
        assert "app.py:15 in GET /orders fetches 3,000 rows each time" in found.notes[0] and "30 %" in found.notes[0]


@pytest.mark.parametrize(
    "row",
    [
        StatementSum(1000, 500 * MS, 1000, MS, groups=10, repeated=1000, repeated_groups=10, repeated_ns=500 * MS),
        StatementSum(3000, 400 * MS, 3000, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=550 * MS),
        StatementSum(10, 900 * MS, 10, 90 * MS, slow=10, slow_ns=900 * MS, groups=10),
    ],
)
def test_a_statement_that_a_library_executed_has_no_line_and_the_evidence_says_why(row):
    observed = seen(statements={StatementKey(ENDPOINT, "", "SELECT name FROM tags"): row})
    (found,) = diagnose(observed).findings
    assert found.where is None and "from here" not in found.evidence and "SELECT name FROM tags" in found.evidence
    assert "No line is named" in found.evidence and found.evidence.endswith("JSON after the view has returned.")


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


def test_a_commit_for_each_row_is_the_worse_fault_than_an_unfair_pool():
    observed = waits([0, *range(20, 200), *range(1, 20)])
    observed.statements = {
        StatementKey(ENDPOINT, "app.py:15", "UPDATE t"): StatementSum(
            200, 1900 * MS, 200, MS, groups=200, apart=200, apart_requests=4, apart_ns=10**15, apart_changes=200
        )
    }
    assert [each.kind for each in diagnose(observed).findings][:2] == ["n-plus-one", "starvation"]


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


def test_what_others_wait_for_meanwhile_is_charged_to_a_commit_for_each_row_and_not_to_reading_row_by_row():
    read = StatementSum(3000, 250 * MS, 3000, MS, groups=3000, apart=3000, apart_requests=100, apart_ns=500 * MS)
    shares = []
    for row in (read, replace(read, apart_changes=3000)):
        observed = seen(
            statements={StatementKey(ENDPOINT, "app.py:15", "UPDATE t"): row},
            loans=loans(count=3000, held_ns=500 * MS, wait_ns=400 * MS),
            samples={SampleKey(ENGINE, ENDPOINT, "app.py:15", STATEMENT, False): SampleSum(500 * MS, 400 * MS, 90)},
        )
        shares += [each.share for each in diagnose(observed).findings if each.kind == "n-plus-one"]
    assert shares == [pytest.approx(0.5), pytest.approx(0.9)]


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
    ("text", "ms", "pages", "is_found"),
    [
        ("SELECT a FROM t WHERE b = 1", 260, 400, True),
        ("SELECT a FROM t WHERE b = 1", 260, 200, False),
        ("SELECT a FROM t WHERE b = 1", 140, 400, False),
        ("SELECT count(*) FROM t", 260, 400, False),
    ],
)
def test_a_short_scan_is_a_slow_statement_if_it_compares_something_and_costs_a_fifth(text, ms, pages, is_found):
    rows = StatementSum(65, ms * MS, 65, 2 * MS, groups=65, quick=65)
    server = Server(statements={statement_key(text): DatabaseStatement(text, 65, 0.7 * ms, 65, 65 * pages)})
    found = first(seen(statements={StatementKey(ENDPOINT, "app.py:16", text): rows}), server)
    assert found == (("slow-statement", "app.py:16") if is_found else None)


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


FOR = "SELECT a FROM t WHERE b = %s"


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        # 5 executions, each with a few fetches: slow ones, quick ones, and those of an export of many rows.
        (DatabaseStatement("FETCH FORWARD 50 FROM c_1", 15, 500.0, 600, 90_000), "app.py:12"),
        (DatabaseStatement("FETCH FORWARD 50 FROM c_1", 150, 500.0, 600, 90_000), None),
        (DatabaseStatement("FETCH FORWARD 5000 FROM c_1", 15, 500.0, 75_000, 9000), None),
    ],
)
def test_rows_that_a_server_side_cursor_fetches_slowly_are_a_slow_statement(counted, expected):
    observed = seen(samples=sample(STATEMENT, 500, place="app.py:30"), loans=loans(count=5))
    observed.statements[StatementKey(ENDPOINT, "app.py:12", FOR)] = StatementSum(5, 2 * MS, groups=5, unknown=5)
    cursor = statement_key(f'DECLARE "c_1" CURSOR WITHOUT HOLD FOR {FOR}')
    fetch = statement_key('FETCH FORWARD 50 FROM "c_7f3a_12"')
    statements = {fetch: counted, cursor: DatabaseStatement(cursor, 5, 2.0)}
    found = diagnose(observed, Server(active_s={fetch: 0.5}, statements=statements)).findings
    assert [each.where for each in found] == ([expected] if expected else [])
    if expected:
        assert f"slow to fetch at app.py:30, 100 ms for each loan of this endpoint: “{FOR}”" in found[0].evidence
        assert "an index on t (b)" in found[0].advice
        (first_of_none,) = diagnose(observed, Server(active_s={fetch: 0.5}, statements={fetch: counted})).findings
        assert first_of_none.where == "app.py:30"


@pytest.mark.parametrize(
    ("text", "calls", "is_found"),
    [
        ("SELECT name FROM t WHERE id = $1", 1200, True),
        ("SELECT name FROM t WHERE id = $1", 150, False),
        ("INSERT INTO t VALUES ($1)", 1200, False),
        ("SELECT 1", 1200, False),
    ],
)
def test_the_same_reading_again_and_again_on_a_cursor_of_the_drivers_is_found(text, calls, is_found):
    observed = seen(samples=sample(STATEMENT, 500, place="app.py:30"), loans=loans(count=20))
    server = Server(statements={statement_key(text): DatabaseStatement(text, calls, 60.0, calls)})
    found = diagnose(observed, server).findings
    assert [(each.kind, each.where) for each in found] == ([("n-plus-one", "app.py:30")] if is_found else [])
    if is_found:
        assert (
            "executed 60 times for each loan of this endpoint, for 1 row each time, 25 ms in all" in found[0].evidence
        )


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


def test_work_between_the_statements_of_a_loop_is_not_the_loops():
    loop = {
        StatementKey(ENDPOINT, "app.py:15", "SELECT name"): StatementSum(
            1000, 100 * MS, 1000, MS, groups=100, repeated=1000, repeated_groups=100, repeated_ns=900 * MS
        )
    }
    found = diagnose(seen(statements=loop, samples=sample(WORK, 700))).findings
    assert [(each.kind, round(each.share, 2)) for each in found] == [("work-while-holding", 0.7), ("n-plus-one", 0.2)]


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
