"""Watching has bounds: of memory at any rate, of its thread's life, and of what a fault of its own can do."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from poolbench.hooks import _watched_execute
from poolbench.loan_book import BOOK, LoanBook
from poolbench.loans import Loan, Request, WatchedEngine
from poolbench.observed import LEAKED, OTHERS
from poolbench.places import Place
from poolbench.repeats import writes
from poolbench.sampler import Sampler
from poolbench.tally import Tally
from tests.support.paths import ROOT

ENGINE = WatchedEngine("shop.py:1\tpostgresql://here/shop\t0", None, "QueuePool", 5, 10)
HERE = Place(test_code := (lambda: None).__code__, 0)


def ended_loan(number, weight=1):
    loan = Loan(ENGINE, 1, Place(test_code, 0, number), Request({}, f"GET /{number}"), weight)
    loan.request._environ = None
    loan.lent_ns = loan.asked_ns
    loan.ended_ns = loan.asked_ns + 1000
    loan.groups = {(f"SELECT {number}", 0, 0): [HERE, 1, 1000, 1, 0, 1000, 0, 0, 1000, 0, 0]}
    return loan


def test_any_number_of_statements_places_and_endpoints_takes_bounded_rows():
    tally = Tally(1, keeps_all=False)
    for number in range(6000):
        tally.ended(ended_loan(number, weight=3))
        if number % 1000 == 999:
            tally.add_up()
    (found,) = tally.parts()
    assert len(found.statements) <= 2001 and len(found.loans) <= 2001
    assert sum(row.count for row in found.loans.values()) == 18_000
    assert sum(row.count for row in found.statements.values()) == 18_000
    assert any(key.text == OTHERS for key in found.statements)


def test_loans_that_come_faster_than_they_are_added_up_are_dropped_and_counted():
    tally = Tally(1, keeps_all=False)
    for number in range(10_100):
        tally.ended(ended_loan(number % 10, weight=2))
    tally.add_up()
    assert sum(row.count for row in tally.current.loans.values()) == 20_000
    assert tally.current.dropped == 200


@pytest.mark.parametrize("adopted", [False, True])
def test_a_connection_that_many_requests_used_has_no_loop_of_statements(adopted):
    tally = Tally(1, keeps_all=False)
    loan = ended_loan(1)
    loan.groups = {("SELECT 1", 0, 0): [HERE, 9, 9000, 9, 0, 90_000, 0, 0, 1000, 0, 0]}
    loan.adopted = adopted
    tally.ended(loan)
    tally.add_up()
    (row,) = tally.current.statements.values()
    assert (row.count, row.repeated) == (9, 0 if adopted else 9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SELECT name FROM authors WHERE id = 1", "SELECT name FROM authors WHERE id = 23"),
        ("SELECT a FROM t /*trace='00-1'*/", "SELECT a FROM t /*trace='00-2'*/"),
        ("SELECT a FROM t WHERE b IN (%(b_1)s, %(b_2)s)", "SELECT a FROM t WHERE b IN (%(b_1)s, %(b_2)s, %(b_3)s)"),
        (f"SELECT {', '.join(f'column_{n}' for n in range(60))} FROM t WHERE b = 'x'",
         f"SELECT {', '.join(f'column_{n}' for n in range(60))} FROM t WHERE b = 'y'"),
    ],
)  # fmt: skip
def test_statements_that_differ_only_in_their_values_are_one(first, second):
    tally = Tally(1, keeps_all=False)
    loan = ended_loan(1)
    loan.groups = {
        (first, 0, 0): [HERE, 3, 3000, 3, 0, 40_000, 0, 0, 900, 0, 0],
        (second, 0, 0): [HERE, 4, 4000, 4, 50_000, 90_000, 0, 0, 500, 0, 0],
    }
    tally.ended(loan)
    again = ended_loan(1)
    again.groups = {(second, 0, 0): [HERE, 1, 1000, 1, 0, 1000, 0, 0, 1000, 0, 0]}
    tally.ended(again)
    tally.add_up()
    ((key, row),) = tally.current.statements.items()
    assert key.text == first[:300]
    assert (row.count, row.rows, row.groups, row.fastest_ns) == (8, 8, 2, 500)
    assert (row.repeated, row.repeated_ns) == (7, 90_000)


def test_statements_that_differ_late_in_long_texts_are_told_apart():
    tally, columns = Tally(1, keeps_all=False), ", ".join(f"c{n}" for n in range(60))
    loan = ended_loan(1)
    loan.groups = {
        (f"SELECT {columns} FROM t WHERE {name} = %(x)s", 0, 0): [HERE, 3, 3000, 3, 0, 90_000, 0, 0, 900, 0, 0]
        for name in "ab"
    }
    tally.ended(loan)
    tally.add_up()
    assert {row.repeated for row in tally.current.statements.values()} == {0}


@pytest.mark.parametrize(
    ("text", "loans", "executions", "rows", "expected"),
    [
        ("SELECT n FROM t WHERE id = %(id)s", 12, 1, 1, 12),
        ("SELECT n FROM t WHERE id = %(id)s", 9, 1, 1, 0),
        ("SELECT n FROM t WHERE id = %(id)s", 12, 1, 500, 0),
        ("SELECT n FROM t WHERE id = %(id)s", 12, 2, 2, 0),
        ("SELECT n FROM t WHERE id = {}", 12, 1, 1, 12),
        # The same answer again: whoever polls, or queues again.
        ("SELECT n FROM t WHERE id = 1", 12, 1, 1, 0),
        ("SELECT id FROM jobs LIMIT 1 FOR UPDATE SKIP LOCKED", 12, 1, 1, 0),
        ("INSERT INTO t VALUES (1)", 12, 1, 1, 12),
        # executemany(), of which drivers count other rows, or none.
        ("INSERT INTO t VALUES (1)", 12, 1, 100, 0),
        ("INSERT INTO t VALUES (1)", 12, 1, 0, 0),
    ],
)
def test_a_statement_that_one_request_repeats_in_loan_after_loan(text, loans, executions, rows, expected):
    tally = Tally(1, keeps_all=True)
    request = Request({}, "GET /rows")
    request._environ = None
    for number in range(loans):
        loan = ended_loan(1)
        loan.request = request
        loan.groups = {(text.format(number), 0, 0): [HERE, executions, 600, rows, 0, 600, 0, 0, 600, 0, 0]}
        tally.ended(loan)
    request.end()
    tally.answered(request)
    tally.add_up()
    (row,) = tally.current.statements.values()
    assert (row.apart, row.apart_requests, row.apart_ns) == (expected, bool(expected), 1000 * expected)
    assert not tally._executed


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("  update t SET n = 1", True),
        ("/* shop */ -- why\n INSERT INTO t VALUES (1)", True),
        ("/**/" * 200 + "SELECT 1", False),
        ("WITH moved AS (DELETE FROM t RETURNING *) SELECT * FROM moved", True),
        ("WITH found AS (SELECT 1) SELECT updated FROM found", False),
        ("WITH old AS (SELECT id FROM t) DELETE FROM t USING old", True),
        ("/* route */ WITH a AS (SELECT 1), b AS (\n-- why\nUPDATE t SET n = 1 RETURNING n) SELECT * FROM b", True),
        ("SELECT * FROM t WHERE id = 1 FOR SHARE", True),
        ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", True),
        ("SELECT pg_advisory_xact_lock(1)", True),
        ("COPY t (a, b) FROM STDIN", True),
        ("COPY (SELECT a FROM t) TO STDOUT", False),
        ("SELECT created, updated FROM t", False),
    ],
)
def test_statements_that_change_or_lock_rows(statement, expected):
    assert writes(statement) is expected


def test_requests_of_a_time_without_loans_are_not_counted_as_those_of_the_last_minute():
    tally = Tally(1, keeps_all=False)
    for age_s in [*[100] * 10_000, 50, 0]:
        request = Request({}, "GET /health")
        request.ended_ns = request.began_ns - age_s * 1_000_000_000
        tally.answered(request)
    tally.add_up()
    assert sum(row.count for row in tally.current.requests.values()) == 2
    assert not tally.current.dropped


def test_one_loan_with_any_number_of_statements_is_bounded():
    book = LoanBook()
    loan = Loan(ENGINE, 1, None, None)
    for number in range(1000):
        loan.statement = f"SELECT {number}"
        book.executed(loan, 10, SimpleNamespace(rowcount=1), sys._getframe(), False)
    assert len(loan.groups) == 201
    assert sum(group[1] for group in loan.groups.values()) == 1000


class DriverError(Exception):
    def __init__(self, state):
        self.sqlstate = state


@pytest.mark.parametrize(
    ("error", "slow"),
    [
        # Its timeout; the timeout of a lock.
        (DriverError("57014"), 1),
        (DriverError("55P03"), 1),
        # To be tried again: no serialisation, a deadlock.
        (DriverError("40001"), 0),
        (DriverError("40P01"), 0),
        # The connection was lost; the greenlet was killed.
        (DriverError(None), 0),
        (KeyboardInterrupt(), 0),
    ],
)
def test_a_statement_that_fails_is_noted_and_slow_if_the_database_gave_it_up(error, slow):
    book = LoanBook()
    loan = Loan(ENGINE, 1, None, None)
    loan.statement = "SELECT 1"
    book.failed(loan, 300_000_000, error, sys._getframe())
    (group,) = loan.groups.values()
    executions, duration_ns, rows, _, _, is_slow, _, _, unknown, _ = group[1:]
    assert (executions, duration_ns, rows, unknown, is_slow) == (1, 300_000_000, 0, 1, slow)


@pytest.mark.parametrize("per_s", [5, 200, 10_000])
def test_loans_noted_in_full_are_few_at_any_rate_and_stand_for_all(per_s):
    book, weights = LoanBook(), []
    for _ in range(600):
        for _ in range(max(1, per_s // 10)):
            book.left -= 1
            if book.left < 0:
                weights.append(book.draw(None))
        book.keep_pace(100_000_000 if per_s >= 10 else 200_000_000)
    assert len(weights) <= 60 * 25
    # Each counts as many as it stands for: the sum is right but for chance.
    assert 0.7 < sum(weights) / (600 * max(1, per_s // 10)) < 1.4


def test_bursts_with_pauses_between_them_are_not_noted_anew_each_time():
    book, weights = LoanBook(), []
    for look in range(600):
        for _ in range(2000 if look % 4 == 0 else 0):
            book.left -= 1
            if book.left < 0:
                weights.append(book.draw(None))
        book.keep_pace(100_000_000)
    assert len(weights) <= 60 * 25
    assert 0.7 < sum(weights) / (150 * 2000) < 1.4


def test_a_thread_that_could_not_be_started_is_started_by_the_next_loan():
    begun = []

    def prepare():
        begun.append(1)
        if len(begun) == 1:
            raise OSError("the folder is not there yet")

    watcher = Sampler(LoanBook(), prepare, lambda: None)
    watcher.idle_s = 0
    with pytest.raises(OSError, match="not there yet"):
        watcher.start()
    watcher.start()
    assert watcher.is_running and len(begun) == 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/books/17/pages/4", "/books/…/pages/…"),
        ("/books/12345678-1234-4234-8234-1234567890ab", "/books/…"),
        ("/books/9F8E7D6C-aaaa-4bbb-8ccc-0123456789ab/cover", "/books/…/cover"),
        ("/books/deadbeef-dead-4eef-8ead-deadbeefdead", "/books/…"),
        ("/books/5f1d7e84c3b2a19087654321", "/books/…"),
        ("/facade/decade/v2", "/facade/decade/v…"),
        ("/", "/"),
    ],
)
def test_requests_of_one_kind_have_one_endpoint_whatever_their_numbers(path, expected):
    assert Request({"PATH_INFO": path}).name == f"GET {expected}"


def test_a_request_is_noted_without_its_environ_once_it_has_ended():
    request = Request({"REQUEST_METHOD": "GET", "PATH_INFO": "/posts/7"})
    request.end()
    assert request.name == "GET /posts/…" and request._environ is None


LIVING = """
import gc, os, sys, time, weakref
import poolbench
from sqlalchemy import create_engine, text

def threads():
    return len(os.listdir("/proc/self/task"))

engine = create_engine(sys.argv[1], pool_size=2)
before = threads()
watching = poolbench.watch(engine)
watching.sampler.idle_s = 0.3
assert threads() == before  # nothing runs before the first loan

def borrow():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))

def wait_for(count):
    until_s = time.monotonic() + 10
    while threads() != count:
        assert time.monotonic() < until_s, (threads(), count)
        time.sleep(0.05)

borrow()
assert threads() == before + 1
engine.dispose()
wait_for(before)
borrow()
assert threads() == before + 1  # the next loan starts it again
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        assert threads() == 1 and not watching.sampler.is_running
        engine.dispose(close=False)
        borrow()
        assert watching.sampler.is_running
        os._exit(0)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
pool, gone = weakref.ref(engine.pool), weakref.ref(engine)
del engine
until_s = time.monotonic() + 10
while pool() is not None or gone() is not None:
    gc.collect()
    assert time.monotonic() < until_s
    time.sleep(0.05)
wait_for(before)
engine = create_engine(sys.argv[1], pool_size=2)
poolbench.watch(engine)
kept = engine.connect()
print("ends at once, though a connection is lent and looked at")
"""

FAILING = """
import sys
import poolbench
from poolbench import hooks, loan_book, sampler, tally
from sqlalchemy import create_engine, event, text

def fails(*_, **__):
    raise ValueError("a fault of ours")

engine = create_engine(sys.argv[1], pool_size=2)
watching = poolbench.watch(engine)
book = loan_book.BOOK
for module, name in [(loan_book, "place_of"), (loan_book, "writes"), (hooks, "application_frame"), (hooks, "at"),
                     (hooks, "place_of"), (book, "current"), (book, "requests"), (book.tally, "ended")]:
    kept = getattr(module, name)
    setattr(module, name, fails)
    for left in (0, 1000):
        book.left, book.fault = left, ""
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        assert engine.pool.checkedout() == 0, name
    setattr(module, name, kept)
    engine.dispose()
    watching.sampler.begin()
book.lent.clear()
watching.diagnosis()
print("nothing was lost")
"""


@pytest.mark.parametrize(
    "source", [LIVING, FAILING], ids=["its thread lives no longer than needed", "a fault of its own"]
)
def test_the_application_goes_on(postgres, tmp_path, source):
    program = tmp_path / "service.py"
    program.write_text(source)
    done = subprocess.run(
        [sys.executable, program, postgres.url], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1


def test_the_request_that_made_an_engine_is_told_from_later_ones():
    maker, later = Request({}, "GET /"), Request({}, "GET /")
    maker._environ = None
    engine = WatchedEngine("shop.py:1", None, "QueuePool", 5, 10, "GET /", 0, maker.began_ns)
    later.began_ns = maker.began_ns + 1
    assert [Loan(engine, 1, None, each).is_by_maker for each in (maker, later, None)] == [True, False, False]
    assert not Loan(ENGINE, 1, None, maker).is_by_maker
    tally = Tally(1, keeps_all=True)
    for request in (maker, later, later):
        loan = ended_loan(1)
        loan.engine, loan.request = engine, request
        tally.ended(loan)
    tally.add_up()
    (row,) = tally.current.loans.values()
    assert (row.count, row.by_maker) == (3, 1)


def test_light_loans_name_their_borrower_too():
    book = LoanBook()
    pool = SimpleNamespace(_poolbench_engine=ENGINE)
    record = type("Record", (), {"fairy_ref": object(), "dbapi_connection": None, "_ConnectionRecord__pool": pool})()
    book.lent[record] = (1, test_code, 0, None, 5)
    ((_, loan),) = book.all_loans()
    assert (loan.engine, loan.lent_ns, loan.place.code) == (ENGINE, 5, test_code)
    record.fairy_ref = None
    book.sweep()
    assert not book.all_loans() and not book.lent


def test_a_loan_that_is_not_noted_in_full_is_known_to_have_written_until_its_transaction_ends():
    book = LoanBook()
    book.keep_all(None)
    connection = SimpleNamespace(info=SimpleNamespace(transaction_status=2))
    pool = SimpleNamespace(_poolbench_engine=ENGINE)
    record = type(
        "Record", (), {"fairy_ref": object(), "dbapi_connection": connection, "_ConnectionRecord__pool": pool}
    )()
    lent = SimpleNamespace(_connection_record=record)
    context = SimpleNamespace(root_connection=SimpleNamespace(_dbapi_connection=lent))

    def has_written(statement):
        assert book.executing(context, statement) is None
        ((_, loan),) = book.all_loans()
        return loan.wrote

    book.lent[record] = (1, test_code, 0, None, 5)
    assert [has_written(text) for text in ("SELECT 1", "UPDATE t SET n = 1", "SELECT 1")] == [False, True, True]
    connection.info.transaction_status = 0
    assert not has_written("SELECT 1") and has_written("DELETE FROM t")
    # The next loan of the same connection has not.
    book.lent[record] = (2, test_code, 0, None, 6)
    assert not has_written("SELECT 1")
    book.sweep()
    assert not book.wrote and not book.fault


def test_a_statement_that_is_known_to_read_is_not_looked_at_until_one_writes(monkeypatch):
    looked_at = []
    monkeypatch.setattr(BOOK, "keeps_all", True)
    monkeypatch.setattr(BOOK, "reads", set())
    monkeypatch.setattr(LoanBook, "_executing_lightly", _told(looked_at, LoanBook._executing_lightly))
    connection = SimpleNamespace(info=SimpleNamespace(transaction_status=2))
    record = type("Record", (), {"fairy_ref": None, "dbapi_connection": connection})()
    context = SimpleNamespace(
        root_connection=SimpleNamespace(_dbapi_connection=SimpleNamespace(_connection_record=record))
    )
    execute = _watched_execute(lambda *_: None, many=False)
    BOOK.lent[record] = (1, test_code, 0, None, 5)
    try:
        for statement in ("SELECT 1", "SELECT 1", "UPDATE t SET n = 1", "SELECT 1"):
            execute(None, statement, (), context)
        assert record in BOOK.wrote and not BOOK.fault
        assert looked_at == ["SELECT 1", "UPDATE t SET n = 1", "SELECT 1"]
    finally:
        BOOK.lent.pop(record)
        BOOK.wrote.pop(record, None)


def _told(looked_at, inner):
    def executing(book, record, statement):
        looked_at.append(statement)
        inner(book, record, statement)

    return executing


def test_a_loan_has_outlived_its_request_only_if_several_looks_in_a_row_see_it():
    book = LoanBook()
    sampler = Sampler(book, lambda: None, lambda: None)
    pool = SimpleNamespace(_poolbench_engine=ENGINE)
    record = type("Record", (), {"fairy_ref": object(), "dbapi_connection": None, "_ConnectionRecord__pool": pool})()
    ended = Request({}, "GET /")
    ended._environ = None
    ended.end()
    ended.ended_ns = 1

    def left_over_ms(lent_ns, elapsed_ms=100):
        book.lent[record] = (1, test_code, 0, ended, lent_ns)
        sampler.look(elapsed_ms * 1_000_000)
        return sum(row.own_ns for key, row in book.tally.current.samples.items() if key.doing == LEAKED) // 1_000_000

    # The connection may be on its way back, or have been lent anew without anybody having noted it so far.
    assert [left_over_ms(lent_ns) for lent_ns in (5, 6, 7)] == [0, 0, 0]
    assert [left_over_ms(7) for _ in range(4)] == [0, 100, 200, 300]
    # Where the machine stood still, one look stands for a long time. Where looks are frequent, each stands for little.
    assert [left_over_ms(8, 1000) for _ in range(3)] == [300, 300, 1300]
    assert [left_over_ms(9, 40) for _ in range(7)] == [*[1300] * 5, 1340, 1380]
