"""The engine plugin: another pool for anybody's engine, by the URL alone."""

import subprocess
import sys
import types
from time import thread_time_ns

import psycopg2
import pytest
from sqlalchemy import NullPool, QueuePool, create_engine, engine_from_config, event, exc, make_url, text

from loadgen.lab.fairness import with_pool
from poolbench import FairPool, server_timing
from poolbench.cooperative import make_cooperative
from poolbench.costs import costs
from poolbench.settings import POOL_SETTINGS

URL = "postgresql+psycopg2://me:secret@h/db?plugin=poolbench"


def engine_of(postgres, pool="fair", **parameters):
    return create_engine(with_pool(postgres.url, pool, **parameters))


@pytest.mark.parametrize(("name", "kind"), [("fair", FairPool), ("queue", QueuePool), ("null", NullPool)])
def test_the_url_chooses_the_pool(name, kind):
    pool = create_engine(f"{URL}&pool={name}").pool
    assert isinstance(pool, kind)
    assert type(pool.recreate()) is type(pool)


def test_the_fair_pool_is_the_default():
    assert isinstance(create_engine(URL).pool, FairPool)


def test_the_url_wins_over_the_applications_arguments():
    engine = create_engine(f"{URL}&pool_size=3&max_waiting=7", pool_size=9, max_overflow=1, poolclass=QueuePool)
    assert isinstance(engine.pool, FairPool)
    assert engine.pool.size() == 3
    assert engine.pool._max_waiting == 7
    assert engine.pool._max_overflow == 1


def test_a_pool_that_the_application_made_opens_the_new_ones_connections(postgres):
    own = QueuePool(lambda: psycopg2.connect(postgres.url))
    engine = create_engine("postgresql+psycopg2://?plugin=poolbench&pool=fair", pool=own)
    assert isinstance(engine.pool, FairPool)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == make_url(postgres.url).database


def test_a_listener_may_detach_the_connection_that_is_being_lent(postgres):
    engine = create_engine(f"{postgres.url.replace('postgresql:', 'postgresql+psycopg2:')}?plugin=poolbench&pool=fair")
    event.listen(engine, "checkout", lambda _connection, _record, proxy: proxy.detach())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("pool", ["fair", "queue", "null", "own"])
def test_a_listener_that_the_application_adds_may_say_how_to_connect(postgres, pool):
    """As those do that fetch a new password for each connection."""
    url = make_url(postgres.url).set(drivername="postgresql+psycopg2")
    engine = create_engine(url.update_query_dict({"plugin": "poolbench", "pool": pool}))
    event.listen(engine, "do_connect", lambda _dialect, _record, _given, named: named.update(application_name="new"))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW application_name")) == "new"
    engine.dispose()


@pytest.mark.parametrize("watch", ["0", "1"])
@pytest.mark.parametrize("pool", ["fair", "own"])
def test_no_listener_of_the_plugin_makes_statements_slower(pool, watch):
    """SQLAlchemy looks for listeners at each step of each statement where an engine or its dialect has any."""
    engine = create_engine(f"{URL}&pool={pool}&watch={watch}")
    assert (engine._has_events, engine.dialect._has_events) == (False, False)


def test_an_application_that_wanted_a_sized_pool_may_be_given_none():
    assert isinstance(create_engine(f"{URL}&pool=null", pool_size=9, pool_timeout=3).pool, NullPool)


@pytest.mark.parametrize("kind", ["fair", "queue"])
def test_a_part_of_a_second_is_kept_where_sqlalchemy_reads_a_configuration(kind):
    url = f"postgresql+psycopg2://h/x?plugin=poolbench&pool={kind}&pool_timeout=0.5"
    for recycle, kept in (("0.25", 0.25), ("0", -1)):
        pool = engine_from_config({"sqlalchemy.url": f"{url}&recycle={recycle}"}).pool
        assert (pool.timeout(), pool._recycle) == (0.5, kept)


def test_the_driver_sees_none_of_the_parameters():
    names = [name for setting in POOL_SETTINGS for name in setting.parameters]
    query = "&".join(f"{name}=1" for name in (*names, "client_connection_check_interval"))
    assert dict(create_engine(f"{URL}&{query}").url.query) == {}


@pytest.mark.parametrize(
    ("query", "told"),
    [("pool=magic", "magic"), ("pool_size=many", "pool_size must be"), ("pool_pre_ping=maybe", "pool_pre_ping"),
     ("pool=null&pool_size=3", "pool_size"), ("pool=queue&max_waiting=3", "max_waiting"), ("pool=own&recycle=60", "recycle")],
)  # fmt: skip
def test_a_parameter_that_cannot_be_is_named(query, told):
    with pytest.raises(exc.ArgumentError, match=told) as error:
        create_engine(f"{URL}&{query}")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("pool", ["fair", "queue", "null"])
def test_costs_are_charged_to_who_asks(postgres, pool):
    engine = engine_of(postgres, pool)
    costs.reset()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.02)"))
    assert costs.sum().connect_ns > 500_000
    assert 20_000_000 < costs.sum().held_ns < 20_000_000_000
    first_connect_ns = costs.sum().connect_ns
    with engine.connect():
        pass
    assert (costs.sum().connect_ns > first_connect_ns) == (pool == "null")
    engine.dispose()


@pytest.mark.parametrize("pool", ["fair", "queue", "own"])
def test_a_detached_connection_is_lent_no_longer(postgres, pool):
    engine = engine_of(postgres, pool)
    costs.reset()
    with engine.connect() as connection:
        assert costs.lent_now() == 1
        connection.detach()
        assert costs.lent_now() == 0
    engine.dispose()


def test_answers_tell_what_connections_cost(postgres):
    engine = engine_of(postgres)

    def application(_environ, start_response):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    told = []
    assert server_timing(application)({}, lambda status, headers: told.append((status, dict(headers)))) == [b"ok"]
    status, headers = told[0]
    parts = dict(part.split(";dur=") for part in headers["Server-Timing"].split(", "))
    assert status == "200 OK"
    assert set(parts) == {"pool", "connect", "db", "total", "cpu", "loan-cpu"}
    assert float(parts["total"]) >= float(parts["connect"]) > 0
    engine.dispose()


def test_a_connection_that_is_given_back_after_the_answer_began_was_held_until_then(postgres):
    """As Flask-SQLAlchemy's sessions do; what one request left behind is not charged to the next."""
    engine = engine_of(postgres)
    told, lent = [], []

    def application(_environ, start_response):
        lent.append(engine.connect())
        lent[-1].execute(text("SELECT pg_sleep(0.02)"))
        start_response("200 OK", [])
        lent[-1].close()
        return [b"ok"]

    timed = server_timing(application)
    for _ in range(2):
        timed({}, lambda _status, headers: told.append(dict(headers)["Server-Timing"]))
    held_ms = [float(dict(part.split(";dur=") for part in value.split(", "))["db"]) for value in told]
    assert all(20 <= each < 20_000 for each in held_ms)
    assert costs.lent_now() == 0
    engine.dispose()


PATCHED = """
from gevent import monkey
monkey.patch_all()
from psycogreen.gevent import patch_psycopg
patch_psycopg()
import sys, time, gevent
from sqlalchemy import create_engine, text
url, admin_url = sys.argv[1:3]
def backends():
    with watcher.connect() as connection:
        found = connection.execute(text("SELECT state FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' "
                                        "AND pid <> pg_backend_pid()")).scalars().all()
    return found
watcher = create_engine(admin_url.replace("postgresql://", "postgresql+psycopg2://"), isolation_level="AUTOCOMMIT")
"""


def patched(postgres, url, code):
    """Run code in a process where everything waits through gevent; what it prints."""
    command = [sys.executable, "-c", PATCHED + code, url, postgres.admin_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


ABANDON = """
def query():
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(30)"))
abandoned = gevent.spawn(query)
while backends() != ["active"]:
    gevent.sleep(0.01)
{end}
began = time.monotonic()
while backends():
    gevent.sleep(0.01)
print(time.monotonic() - began)
with engine.connect() as connection:
    print(connection.execute(text("SELECT 41 + 1")).scalar())
print(engine.pool.checkedout())
"""


@pytest.mark.parametrize("pool", ["fair", "queue"])
@pytest.mark.parametrize("end", ["abandoned.kill()", "abandoned.kill(gevent.Timeout())"], ids=["killed", "timed out"])
def test_a_statement_whose_greenlet_is_gone_ends_in_the_server(postgres, pool, end):
    url = with_pool(postgres.url, pool, pool_size=1, max_overflow=0, client_connection_check_interval=100)
    code = f"engine = create_engine({url!r})\n" + ABANDON.format(end=end)
    seconds, answer, lent = patched(postgres, url, code)
    assert float(seconds) < 5
    assert (answer, lent) == ("42", "0")


def test_the_driver_waits_cooperatively_if_gevent_patches_after_the_engine_was_made(postgres):
    """As where a server loads the application before it forks the workers."""
    code = f"""
import sys, time
from sqlalchemy import create_engine, text
engine = create_engine({with_pool(postgres.url, "own")!r})
import gevent.monkey
gevent.monkey.patch_all()
import gevent
def query():
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.5)"))
began = time.monotonic()
gevent.joinall([gevent.spawn(query) for _ in range(2)], raise_error=True)
print(time.monotonic() - began)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) < 0.9


def test_each_greenlet_has_costs_of_its_own(postgres):
    url = with_pool(postgres.url, "fair", pool_size=1, max_overflow=0)
    code = """
from poolbench.cooperative import make_cooperative
from poolbench.costs import costs
engine = create_engine(url)
engine.connect().close()
def borrow(hold_s):
    costs.reset()
    with engine.connect():
        gevent.sleep(hold_s)
    spent = costs.sum()
    return spent.wait_ns / 1e9, spent.held_ns / 1e9
first, second = gevent.spawn(borrow, 0.3), gevent.spawn(borrow, 0.0)
gevent.joinall([first, second])
print(*first.value, *second.value)
"""
    first_wait, first_held, second_wait, second_held = map(float, patched(postgres, url, code))
    assert first_wait < second_wait and second_wait > 0.1
    assert second_held < first_held and first_held >= 0.3


def burn(milliseconds):
    began = thread_time_ns()
    while thread_time_ns() - began < milliseconds * 1e6:
        pass


def timings(application):
    told = []
    wrapped = server_timing(application)
    list(wrapped({}, lambda _status, headers: told.append(dict(headers)["Server-Timing"])))
    return {name: float(value) for name, value in (part.split(";dur=") for part in told[0].split(", "))}


def test_cpu_of_a_loan_is_told_from_waiting_for_the_database(postgres):
    engine = engine_of(postgres)

    def application(_environ, start_response):
        burn(10)
        with engine.connect() as connection:
            burn(20)
            connection.execute(text("SELECT pg_sleep(0.05)"))
        start_response("200 OK", [])
        return []

    timings(application)
    parts = timings(application)
    assert 20 <= parts["loan-cpu"] < 30
    assert 30 <= parts["cpu"] < 45
    assert parts["db"] > 70
    engine.dispose()


def test_an_application_that_is_wrapped_twice_is_counted_once():
    def application(_environ, start_response):
        start_response("200 OK", [])
        return []

    headers = []
    list(server_timing(server_timing(application))({}, lambda _status, given: headers.extend(given)))
    assert [name for name, _ in headers] == ["Server-Timing"]


def test_an_applications_own_pool_is_kept_and_measured(postgres):
    engine = create_engine(with_pool(postgres.url, "own"), pool_size=3, max_overflow=1)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.size() == 3
    costs.reset()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.02)"))
    assert costs.sum().held_ns > 20_000_000
    engine.dispose()
    assert isinstance(engine.pool, QueuePool)
    pool = create_engine(with_pool(postgres.url, "own"), poolclass=NullPool).pool
    assert isinstance(pool, NullPool)


UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent
from sqlalchemy import create_engine, text
from poolbench import server_timing
engine = create_engine(sys.argv[1], pool_size=10)

def application(environ, start_response):
    with engine.connect() as connection:
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        under_way.append(1)
        most.append(len(under_way))
        connection.execute(text("SELECT pg_sleep(0.2)"))
        under_way.pop()
    start_response("200 OK", [])
    return []

told, under_way, most = [], [], []
application = server_timing(application)
one = lambda: application({}, lambda _status, headers: told.append(dict(headers)["Server-Timing"]))
gevent.joinall([gevent.spawn(one) for _ in range(8)], raise_error=True)
print(max(most))
for line in told:
    parts = dict(part.split(";dur=") for part in line.split(", "))
    print(parts["loan-cpu"], parts["cpu"])
"""


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_under_gevent_waits_are_cooperative_and_cpu_is_each_greenlets_own(postgres, driver):
    url = with_pool(postgres.url, "own").replace("psycopg2", driver)
    done = subprocess.run([sys.executable, "-c", UNDER_GEVENT, url], capture_output=True, text=True, check=True)
    at_once, *requests = done.stdout.splitlines()
    assert int(at_once) > 1
    loans, answers = zip(*(map(float, line.split()) for line in requests), strict=True)
    assert len(loans) == 8
    # 10 ms of their own each; the others' 70 ms are not in it.
    assert all(10 <= each < 30 for each in loans)
    assert sum(answers) > 75


def test_a_driver_that_stops_all_greenlets_is_told_in_one_line(postgres):
    program = (
        "import psycopg; from gevent import monkey; monkey.patch_all(); import sys; from sqlalchemy import create_engine;"
        " create_engine(sys.argv[1]); create_engine(sys.argv[1])"
    )
    url = with_pool(postgres.url, "own").replace("psycopg2", "psycopg")
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
    assert "psycopg was imported before gevent" in done.stderr.splitlines()[0]


def test_a_driver_that_stops_the_greenlets_of_eventlet_is_told_in_one_line(monkeypatch, caplog):
    # Stands for eventlet, which the tests do not install.
    patcher = types.SimpleNamespace(is_monkey_patched=lambda _name: True)
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)
    monkeypatch.setattr("psycopg2.extensions.get_wait_callback", lambda: None)
    assert not make_cooperative("psycopg2")
    assert caplog.messages == [
        "a statement stops all greenlets of this process until it is answered: psycopg2 waits outside eventlet"
    ]
    monkeypatch.setattr("psycopg2.extensions.get_wait_callback", lambda: print)
    assert make_cooperative("psycopg2") and make_cooperative("pg8000")


def statements_logged(postgres, caplog, parameters):
    """All statements that the server gets for a connect, a query and a return, by its own log, which it sends to the client."""
    caplog.clear()
    url = postgres.admin_url.replace("postgresql://", "postgresql+psycopg2://")
    logged = "options=-c%20log_statement%3Dall%20-c%20client_min_messages%3Dlog"
    engine = create_engine(f"{url}?plugin=poolbench&{logged}{parameters}")
    # SQLAlchemy moves the server's messages to this logger, after each statement of its own.
    with caplog.at_level("INFO", "sqlalchemy.dialects.postgresql"), engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        connection.execute(text("SELECT 'mine'"))
        connection.rollback()
        connection.execute(text("SELECT 'again'"))
    messages = [*caplog.messages, *driver.notices]
    engine.dispose()
    return [message.partition("statement: ")[2].strip() for message in messages if "statement: " in message]


@pytest.mark.parametrize("pool", ["fair", "queue", "null"])
def test_by_default_the_plugin_sends_no_set(postgres, caplog, pool):
    logged = statements_logged(postgres, caplog, f"&pool={pool}")
    assert "SELECT 'mine'" in logged
    assert not [statement for statement in logged if statement.upper().startswith("SET ")]
    asked_for = statements_logged(postgres, caplog, f"&pool={pool}&client_connection_check_interval=100")
    assert [statement for statement in asked_for if statement.upper().startswith("SET ")] == [
        "SET client_connection_check_interval = 100"
    ]
