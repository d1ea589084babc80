"""Watching in somebody's service: who holds the connections when none comes in time, in greenlets and in threads."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

HOLDING = """
import logging, os, sys, threading, time
GEVENT = sys.argv[2] == "greenlets"
if GEVENT:
    from gevent import monkey
    monkey.patch_all()
from sqlalchemy import create_engine, exc, text
logging.basicConfig(format="%(message)s", stream=sys.stdout)
engine = create_engine(sys.argv[1] + "&pool_size=2&max_overflow=0&pool_timeout=0.3")

def sleeper():
    with engine.connect() as connection:  # borrowed by the sleeper
        connection.execute(text("SELECT 1"))
        holding.append("sleeper")
        time.sleep(9)  # sleeps

def worker():
    with engine.connect() as connection:  # borrowed by the worker
        holding.append("worker")
        connection.execute(text("SELECT pg_sleep(9)"))  # executes

holding, threads = [], [threading.Thread(target=each, daemon=True) for each in (sleeper, worker)]
for each in threads:
    each.start()
while len(holding) < 2:
    time.sleep(0.01)
time.sleep(0.2)
try:
    engine.connect()  # asks in vain
except exc.TimeoutError:
    os._exit(0)
"""


def line_of(source, mark):
    """The number of the line that ends in a comment."""
    return next(number for number, line in enumerate(source.splitlines(), 1) if line.endswith(f"# {mark}"))


def run(tmp_path, source, *arguments):
    """The JSON lines that a program wrote to stdout."""
    program = tmp_path / "service.py"
    program.write_text(source)
    done = subprocess.run(
        [sys.executable, program, *arguments],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    ("driver", "borrowers", "pool"),
    [("psycopg2", "threads", "queue"), ("psycopg2", "greenlets", "fair"), ("psycopg", "threads", "fair")],
)
def test_a_wait_in_vain_is_logged_with_who_holds_each_connection(postgres, tmp_path, driver, borrowers, pool):
    url = postgres.url.replace("postgresql://", f"postgresql+{driver}://")
    mark = "&" if "?" in url else "?"
    (line,) = run(tmp_path, HOLDING, f"{url}{mark}plugin=poolbench&pool={pool}&watch=1", borrowers)
    assert line["event"] == "no connection in time" and 250 < line["waited_ms"] < 8000
    assert line["asked_at"] == f"service.py:{line_of(HOLDING, 'asks in vain')}"
    holders = {each["borrowed_at"]: each for each in line["holders"]}
    sleeper = holders[f"service.py:{line_of(HOLDING, 'borrowed by the sleeper')}"]
    worker = holders[f"service.py:{line_of(HOLDING, 'borrowed by the worker')}"]
    assert sleeper["doing"] == "sleep" and sleeper["where"] == f"service.py:{line_of(HOLDING, 'sleeps')}"
    assert worker["doing"] == "statement: SELECT pg_sleep(9)"
    assert worker["where"] == f"service.py:{line_of(HOLDING, 'executes')}"
    assert 0.4 < sleeper["seconds"] < 9 and 0.4 < worker["seconds"] < 9


BUSY = """
import logging, sys, threading
from sqlalchemy import create_engine, exc, text
logging.basicConfig(format="%(message)s", stream=sys.stdout)
engine = create_engine(sys.argv[1] + "&pool_size=1&max_overflow=0&pool_timeout=0.6")  # made

def work():
    for _ in range(6):
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(0.05)"))
        except exc.TimeoutError:
            pass

threads = [threading.Thread(target=work) for _ in range(16)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


@pytest.mark.parametrize("pool", ["queue", "fair"])
def test_a_wait_in_vain_for_a_pool_that_is_only_too_small_is_logged_with_that_finding(postgres, tmp_path, pool):
    mark = "&" if "?" in postgres.url else "?"
    line, *_ = run(tmp_path, BUSY, f"{postgres.url}{mark}plugin=poolbench&pool={pool}&watch=1")
    assert [(each["kind"], each["where"]) for each in line["findings"]] == [
        ("pool-too-small", f"service.py:{line_of(BUSY, 'made')}")
    ]


CREATING = """
import json, sys, time
import poolbench
from poolbench.watching import opened_by_driver
import psycopg2
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

way, pool = sys.argv[2:]
connect = psycopg2.connect

# As the command has the driver's function.
def guarded(*given, **named):
    began_ns = time.perf_counter_ns()
    connection = connect(*given, **named)
    opened_by_driver(connection, time.perf_counter_ns() - began_ns)
    return connection

psycopg2.connect = guarded

def create(*_):
    time.sleep(0.02)
    return psycopg2.connect(sys.argv[1])

options = {"creator": create} if way == "creator" else {}
kinds = {"queue": QueuePool, "fair": poolbench.FairPool, "null": NullPool}
engine = create_engine("postgresql+psycopg2://", poolclass=kinds[pool], **options)
if way == "do_connect":
    event.listen(engine, "do_connect", create)
watching = poolbench.watch(engine)
watching.note_all()
for _ in range(3):
    engine.connect().close()
kept = guarded(sys.argv[1])
found = watching.observed()
rows = {key.engine.split("\\t")[1] != "": row for key, row in found.loans.items()}
print(json.dumps({"engines": len(found.loans), "count": rows[True].count, "opened": rows[True].opened,
                  "connect_ms": rows[True].connect_ns // 10**6, "driver": rows[False].count}))
"""


@pytest.mark.parametrize("way", ["creator", "do_connect"])
@pytest.mark.parametrize(("pool", "opened"), [("queue", 1), ("fair", 1), ("null", 3)])
def test_connections_that_the_application_opens_for_its_engine_are_the_engines(postgres, tmp_path, way, pool, opened):
    (found,) = run(tmp_path, CREATING, postgres.url, way, pool)
    assert 20 * opened <= found.pop("connect_ms") < 20_000
    assert found == {"engines": 2, "count": 3, "opened": opened, "driver": 1}


COMPUTING = """
import json, sys, threading, time
from gevent import monkey
monkey.patch_all()
import gevent
import poolbench
from poolbench.loan_book import BOOK
from sqlalchemy import create_engine

engine = create_engine(sys.argv[1])
watching = poolbench.watch(engine)

def compute():
    # No loan is noted in full.
    BOOK.left = 1_000_000
    with engine.connect():
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            sum(range(100))

watching.sampler.start()
gevent.spawn(compute).join()
found = watching.observed()
print(json.dumps({key.doing: sum(row.looks for other, row in found.samples.items() if other.doing == key.doing)
                  for key in found.samples}))
"""


def test_a_greenlet_that_computes_for_long_is_not_one_that_has_ended(postgres, tmp_path):
    (looks,) = run(tmp_path, COMPUTING, postgres.url)
    assert looks["computing"] > 2 and "leaked" not in looks


DEADLOCKED = """
import json, os, sys, threading, time
import poolbench
from sqlalchemy import create_engine
engine = create_engine(sys.argv[1], pool_size=1, max_overflow=0)
watching = poolbench.watch(engine)
served = poolbench.watching.watched_requests(lambda *_: held.append(engine.connect()) or engine.connect())  # asks
held = []
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
threading.Thread(target=served, args=(environ, lambda *_: None), daemon=True).start()
while not held:
    time.sleep(0.01)
time.sleep(0.5)
found = watching.observed()
(row,) = found.loans.values()
request = found.requests["GET /"]
print(json.dumps({each.kind: each.where for each in watching.diagnosis().findings}), flush=True)
print(json.dumps({"count": row.count, "waiting": row.waiting, "nested": row.nested, "waited_ms": row.wait_ns // 10**6,
                  "requests": request.count, "lasted_ms": request.duration_ns // 10**6}), flush=True)
os._exit(0)
"""


def test_waits_that_have_not_ended_are_told_with_the_time_of_their_requests(postgres, tmp_path):
    kinds, sums = run(tmp_path, DEADLOCKED, postgres.url)
    assert kinds == {"nested-checkout": f"service.py:{line_of(DEADLOCKED, 'asks')}"}
    assert (sums["count"], sums["waiting"], sums["nested"], sums["requests"]) == (1, 1, 1, 1)
    assert 300 < sums["waited_ms"] <= sums["lasted_ms"] < 10_000


ASKING = """
import json, sys, threading, time
import poolbench
from sqlalchemy import create_engine, text
engine = create_engine(sys.argv[1], pool_size=3, max_overflow=0)
watching = poolbench.watch(engine)
kept = [engine.connect()]  # borrowed
time.sleep(1.5)  # sleeps
(holder,) = watching.holders()
print(json.dumps({"borrowed_at": holder.borrowed_at, "seconds": holder.seconds}))
kept[0].close()
assert not watching.holders()
engine.dispose()
with engine.connect() as connection:
    assert len(watching.holders()) == 1
    assert connection.execute(text("SELECT 1")).scalar() == 1
print(json.dumps({each.kind: each.where for each in watching.diagnosis().findings}))
"""


def test_watch_tells_holders_and_a_diagnosis_at_any_time(postgres, tmp_path):
    told, found = run(tmp_path, ASKING, postgres.url)
    assert told["borrowed_at"] == f"service.py:{line_of(ASKING, 'borrowed')}" and told["seconds"] >= 1.4
    assert found == {"work-while-holding": f"service.py:{line_of(ASKING, 'sleeps')}"}


BORROWING_IN_TWO_WAYS = """
import json, sys
import poolbench
from poolbench.loan_book import BOOK
from sqlalchemy import create_engine

engine = create_engine(sys.argv[1])
watching = poolbench.watch(engine)

def helper():
    return engine.raw_connection()  # borrows

def service():
    return helper()

def view(itself):
    if itself:
        engine.connect().close()
    return service()

# No loan is noted in full.
BOOK.left = 1_000_000
view(True).close()
kept = view(False)
(holder,) = watching.holders()
print(json.dumps({"borrowed_at": holder.borrowed_at}))
"""


def test_whoever_borrows_for_somebody_who_borrows_too_is_named(postgres, tmp_path):
    (told,) = run(tmp_path, BORROWING_IN_TWO_WAYS, postgres.url)
    assert told["borrowed_at"] == f"service.py:{line_of(BORROWING_IN_TWO_WAYS, 'borrows')}"


BORROWING_IN_A_TEMPLATE = """
import json, sys
from pathlib import Path
import jinja2
import poolbench
from poolbench.loan_book import BOOK
from sqlalchemy import create_engine

engine = create_engine(sys.argv[1])
watching = poolbench.watch(engine)
Path("page.html").write_text("<p>\\n</p>\\n{{ kept.append(connect()) }}\\n")
page = jinja2.Environment(loader=jinja2.FileSystemLoader(".")).get_template("page.html")
# No loan is noted in full.
BOOK.left = 1_000_000
for connect in (engine.connect, engine.raw_connection):
    kept = []
    page.render(kept=kept, connect=connect)
    (holder,) = watching.holders()
    print(json.dumps({"borrowed_at": holder.borrowed_at}))
    kept[0].close()
"""


def test_whoever_borrows_in_a_template_is_named_with_its_line(postgres, tmp_path):
    for told in run(tmp_path, BORROWING_IN_A_TEMPLATE, postgres.url):
        assert told["borrowed_at"] == "page.html:3"


FORKING = """
import json, os, sys
import poolbench
from sqlalchemy import create_engine, text
engine = create_engine(sys.argv[1])
watching = poolbench.watch(engine)
watching.note_all()
with engine.connect() as connection:  # opened
    connection.execute(text("SELECT 1"))
child = os.fork()
if child == 0:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    import time
    time.sleep(0.5)
    print(json.dumps([each.to_json() for each in watching.diagnosis().findings][0]), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_connection_of_the_parent_is_noticed_in_the_child(postgres, tmp_path):
    (found,) = run(tmp_path, FORKING, postgres.url)
    assert (found["kind"], found["where"]) == ("fork-shared", f"service.py:{line_of(FORKING, 'opened')}")


BEFORE_THE_LOAD = """
import json, sys, time
from pathlib import Path
import poolbench
from poolbench.watching import record_all, watched_requests
from sqlalchemy import create_engine, text
folder, kept = Path(sys.argv[1]), []
engine, other = (create_engine(sys.argv[2], pool_size=3) for _ in range(2))
# As where the command watches a process: from its first engine on.
record_all(folder)
watching = [poolbench.watch(each) for each in (engine, other)][0]

@watched_requests
def answer(environ, start_response):
    path = environ["PATH_INFO"]
    with engine.connect() as connection:  # borrowed
        connection.execute(text("SELECT 'before'" if path == "/first" else "SELECT 'load'"))
        time.sleep(0.2 if path == "/first" else 0.02)
    if path == "/first":
        other.connect().close()
        kept.append(engine.connect())  # kept
        made = create_engine(sys.argv[2])
        poolbench.watch(made)
        made.connect().close()
    return [b""]

def get(path):
    answer({"REQUEST_METHOD": "GET", "PATH_INFO": path}, None).close()

def wait_for(pattern):
    until = time.monotonic() + 20
    while not list(folder.glob(pattern)) and time.monotonic() < until:
        time.sleep(0.01)

get("/first")
time.sleep(1)
began_ns = time.perf_counter_ns()
(folder / "load").write_text(str(began_ns))
wait_for("*.begun")
get("/load")
get("/load")
time.sleep(0.7)
(folder / "report").touch()
wait_for("*.observed")
found = watching.observed()
print(json.dumps({
    "began": found.lives[0][0] == began_ns,
    "requests": {name: row.count for name, row in found.requests.items()},
    "loans": sorted((key.endpoint, key.place, row.count) for key, row in found.loans.items()),
    "longest_ms": max(row.held_ns for row in found.loans.values()) // 10**6,
    "since_ms": (time.perf_counter_ns() - began_ns) // 10**6,
    "statements": [key.text for key in found.statements],
    "engines": sorted((key[-1], row.size, row.made_in_requests) for key, row in found.engines.items()),
    "asked_before": sum(ask.asked_ns < began_ns for ask in found.asks),
    "findings": [each.kind for each in watching.diagnosis().findings],
}), flush=True)
"""


def test_what_was_before_the_load_is_forgotten_and_what_lasts_is_seen(postgres, tmp_path):
    (tmp_path / "seen").mkdir()
    (found,) = run(tmp_path, BEFORE_THE_LOAD, tmp_path / "seen", postgres.url)
    assert found["began"] and found["requests"] == {"GET /load": 2}
    borrowed, kept = (line_of(BEFORE_THE_LOAD, mark) for mark in ("borrowed", "kept"))
    assert found["loans"] == [["GET /first", f"service.py:{kept}", 1], ["GET /load", f"service.py:{borrowed}", 2]]
    assert found["longest_ms"] <= found["since_ms"] and not found["asked_before"]
    assert found["statements"] == ["SELECT 'load'"]
    # Those made before are known, and none of them as made by a request of the load.
    assert found["engines"] == [["0", 5, 0], ["1", 3, 0], ["2", 3, 0]]
    assert "leak" in found["findings"]


SHARING = """
import json, sys
import poolbench
from sqlalchemy import create_engine, text
from poolbench.loan_book import BOOK

first = create_engine(sys.argv[1], pool_size=2)
second = create_engine(sys.argv[1], pool=first.pool)
options = {"isolation_level": "AUTOCOMMIT"}
for engine in (first, second, first, second.execution_options(**options)):
    watching = poolbench.watch(engine)
watching.note_all()
engines = (first, second, second.execution_options(**options), first.execution_options(stream_results=True))
for number, engine in enumerate(engines * 2):
    if number == len(engines):
        first.dispose()
    with engine.connect() as connection:
        connection.execute(text(f"SELECT 1 AS number_{number}"))
BOOK.tally.add_up()
found = watching.observed()
print(json.dumps({key.text: row.count for key, row in found.statements.items()}))
print(json.dumps({"loans": sum(row.count for row in found.loans.values()), "engines": len(found.engines)}))
"""


def test_engines_that_share_a_pool_are_watched_each_once(postgres, tmp_path):
    statements, sums = run(tmp_path, SHARING, postgres.url)
    assert statements == {f"SELECT 1 AS number_{number}": 1 for number in range(8)}
    assert sums == {"loans": 8, "engines": 1}


FAILING_TO_CONNECT = """
import json, sys
import poolbench
from poolbench.loan_book import BOOK
from sqlalchemy import Engine, create_engine, exc

engine = create_engine(sys.argv[1], pool_size=1, max_overflow=0, pool_timeout=0.05)
unreachable = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
for each in (engine, unreachable):
    watching = poolbench.watch(each)

def error_of(borrow):
    # No loan is noted in full.
    BOOK.left = 1_000_000
    try:
        borrow()
    except exc.SQLAlchemyError as error:
        return type(error).__name__

borrow = engine.connect
with borrow():
    told = [error_of(each) for each in (unreachable.connect, unreachable.connect, borrow, engine.begin().__enter__)]
traced = []
inner = Engine.connect
Engine.connect = lambda itself: traced.append(1) or inner(itself)
for _ in range(2):
    BOOK.left = 0
    engine.connect().close()
BOOK.tally.add_up()
found = watching.observed()
print(json.dumps({"told": told, "traced": len(traced), "timeouts": sum(row.timeouts for row in found.loans.values())}))
"""


INSTRUMENTED_FIRST = """
import json, sys
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import Pool
traced, kind = [], {"Engine": Engine, "Pool": Pool, "object": Pool}[sys.argv[2]]
inner = kind.connect

class Wrapper:
    # Has all attributes of the method that it stands before.

    def __init__(self, method):
        self.method = method

    def __get__(self, pool, kind):
        return Wrapper(self.method.__get__(pool, kind))

    def __getattr__(self, name):
        return getattr(self.method, name)

    def __call__(self, *given):
        traced.append(1)
        return self.method(*given)

kind.connect = Wrapper(inner) if sys.argv[2] == "object" else lambda itself: traced.append(1) or inner(itself)
import poolbench
engine = create_engine(sys.argv[1])
watching = poolbench.watch(engine)
for _ in range(50):
    engine.connect().close()
print(json.dumps({"traced": len(traced)}))
"""


@pytest.mark.parametrize("instrumented", ["Engine", "Pool", "object"])
def test_an_instrument_that_was_there_before_the_library_is_called_each_time(postgres, tmp_path, instrumented):
    (found,) = run(tmp_path, INSTRUMENTED_FIRST, postgres.url, instrumented)
    assert found == {"traced": 50}


def test_errors_are_sqlalchemys_and_an_instrument_of_its_connect_is_called(postgres, tmp_path):
    (found,) = run(tmp_path, FAILING_TO_CONNECT, postgres.url)
    assert found == {"told": ["OperationalError"] * 2 + ["TimeoutError"] * 2, "traced": 2, "timeouts": 2}


DETACHED = """
import json, sys, time
import poolbench
from poolbench.loan_book import BOOK
from sqlalchemy import create_engine, exc, text

class NoneInFull:
    def draw(self, endpoint):
        return 0

    def spend(self, *given):
        pass

engine = create_engine(sys.argv[1], pool_size=1, max_overflow=0, pool_timeout=0.2)
watching = poolbench.watch(engine)
BOOK.keep_all(NoneInFull())
detached = engine.connect()
detached.detach()
for _ in range(2):
    detached.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS written (n int)"))
time.sleep(0.3)
with engine.connect() as connection:
    connection.execute(text("SELECT 1"))
    try:
        engine.connect()
    except exc.TimeoutError:
        pass
detached.close()
BOOK.tally.add_up()
found = watching.observed()
print(json.dumps({"held_ms": [ask.held_ns // 1_000_000 for ask in found.asks if ask.is_served], "wrote": len(BOOK.wrote),
                  "waited_ms": [ask.wait_ns // 1_000_000 for ask in found.asks if not ask.is_served], "fault": BOOK.fault}))
"""


def test_a_detached_connection_is_no_loan_any_more_and_a_refused_one_has_waited(postgres, tmp_path):
    (found,) = run(tmp_path, DETACHED, postgres.url)
    assert not found["fault"] and not found["wrote"]
    (held_ms,), (waited_ms,) = found["held_ms"], found["waited_ms"]
    assert held_ms >= 200 and waited_ms >= 200


DRAWN = """
import json, sys, time
from collections import Counter
import poolbench
from poolbench.loan_book import BOOK
from poolbench.shares import Shares
from poolbench.watching import watched_requests
from sqlalchemy import create_engine, text

engine = create_engine(sys.argv[1], pool_size=8, max_overflow=0)
watching = poolbench.watch(engine)
watching.sampler.interval_s = 0.04
kept, answered = [], Counter()

def ordinary():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))

def leak():
    connection = engine.connect()  # leaks
    kept.append(connection)

def loop():
    with engine.connect() as connection:
        for number in range(120):
            connection.execute(text("SELECT :number"), {"number": number})  # repeats

def application(environ, start_response):
    {"/leak": leak, "/loop": loop, "/": ordinary}[environ["PATH_INFO"]]()
    return [b""]

serve = watched_requests(application)

def request(path):
    answer = serve({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: None)
    list(answer)
    answer.close()
    answered[path] += 1

# Noting all would cost 2200 a second at this rate, and more than the budget at a tenth of it, on a slow machine.
PER_S, BUDGET_PER_S = 500, 300
BOOK.keep_all(Shares(BUDGET_PER_S))
began_s = time.monotonic()
for number in range(1, 1001):
    time.sleep(max(0, began_s + number / PER_S - time.monotonic()))
    request("/leak" if number in (400, 600) else "/loop" if number % 250 == 0 else "/")
found = watching.observed()
print(json.dumps({each.kind: each.where for each in watching.diagnosis().findings}))
print(json.dumps({"answered": answered, "requests": {key: row.count for key, row in found.requests.items()},
                  "statements": {key.text: row.count for key, row in found.statements.items()},
                  "asks": len(found.asks), "every": BOOK.shares._every["GET /"], "fault": BOOK.fault}))
"""


def test_a_fast_application_is_noted_in_parts_and_its_rare_faults_are_found(postgres, tmp_path):
    kinds, sums = run(tmp_path, DRAWN, postgres.url)
    assert kinds == {
        "leak": f"service.py:{line_of(DRAWN, 'leaks')}",
        "n-plus-one": f"service.py:{line_of(DRAWN, 'repeats')}",
    }
    answered = sums["answered"]
    assert sums["every"] > 1 and not sums["fault"]
    assert sums["requests"] == {f"GET {path}": count for path, count in answered.items()}
    # The times of all loans are kept; of the statements, what is noted stands for all.
    assert sums["asks"] == sum(answered.values())
    assert sums["statements"]["SELECT 1"] == pytest.approx(answered["/"], rel=0.35)
    assert sums["statements"]["SELECT %(number)s"] == pytest.approx(120 * answered["/loop"], rel=0.5)
