"""Figures of an application that is watched: where all is well, and with one disease each."""

from poolbench.diagnosis import diagnose
from poolbench.observed import (
    CLOSED,
    LEAKED,
    LEFT_OPEN,
    NESTED,
    SLEEP,
    STATEMENT,
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
)

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
    "connections that the application closes": (
        seen(loans=loans(opened=100, connect_ns=400 * MS), samples=sample(CLOSED, 0)), ("connection-per-request", "app.py:12"),
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
