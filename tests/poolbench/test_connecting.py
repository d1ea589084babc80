"""`connect_timeout` under gevent: a server that accepts and says nothing, alone and in a list of hosts."""

import json
import subprocess
import sys

import pytest
from sqlalchemy import make_url

from poolbench.connecting import connect_limit_s
from tests.support.paths import ROOT

PATCHED = """
from gevent import monkey
monkey.patch_all()
from psycogreen.gevent import patch_psycopg
patch_psycopg()
import json, sys, time
import gevent
from gevent import socket
from sqlalchemy import create_engine, make_url, text

def silent():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(50)
    return listener

def ask(engine):
    began = time.monotonic()
    try:
        with engine.connect() as connection:
            answer = connection.execute(text("SELECT 'ok'")).scalar()
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    return answer, time.monotonic() - began

def engine_for(hosts, **query):
    url = make_url(sys.argv[1]).set(drivername="postgresql+psycopg2", host=None, port=None)
    query = {"plugin": "poolbench", "connect_timeout": "1", "host": [f"{host}:{port}" for host, port in hosts], **query}
    return create_engine(url.update_query_dict(query))

def address(listener):
    return listener.getsockname()[:2]

real = make_url(sys.argv[1])
server = (real.host, real.port)
"""


def outcome(postgres, code):
    """Run code in a process where everything waits through gevent; the JSON that it prints."""
    command = [sys.executable, "-c", PATCHED + code, postgres.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def tcp(postgres):
    """The server by its TCP address."""
    if not make_url(postgres.url).port:
        pytest.skip("the server listens on no TCP port")
    return postgres


@pytest.mark.parametrize("pool", ["fair", "queue", "null"])
def test_a_silent_server_costs_the_connect_timeout_and_the_slots_come_back(tcp, pool):
    sized = "" if pool == "null" else ", pool_size='2', max_overflow='0', pool_timeout='5'"
    code = f"""
listener = silent()
engine = engine_for([address(listener)], pool={pool!r}{sized})
asked = [gevent.spawn(ask, engine) for _ in range(2)]
gevent.joinall(asked, timeout=10)
lent = engine.pool.checkedout() if hasattr(engine.pool, "checkedout") else 0
print(json.dumps([[greenlet.value for greenlet in asked], lent]))
"""
    answers, lent = outcome(tcp, code)
    for answer, seconds in answers:
        assert answer.startswith("OperationalError") and "within 1 s: timeout expired" in answer
        assert 0.9 <= seconds < 4
    assert lent == 0


@pytest.mark.slow
def test_each_host_of_a_list_has_the_whole_limit_to_itself(tcp):
    code = """
first, second = silent(), silent()
at_once = engine_for([server, address(first)], connect_timeout="9")
print(json.dumps([ask(engine_for([address(first), address(second), server])), ask(at_once)]))
"""
    (answer, seconds), (at_once, soon) = outcome(tcp, code)
    assert answer == at_once == "ok"
    assert 1.9 <= seconds < 6 and soon < 8


def test_a_server_that_refuses_the_role_ends_the_search(tcp):
    code = """
listener = silent()
engine = engine_for([server, address(listener)], user="nobody_of_that_name", connect_timeout="9")
print(json.dumps(ask(engine)))
"""
    answer, seconds = outcome(tcp, code)
    assert "nobody_of_that_name" in answer and seconds < 8


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "1e300"])
def test_a_connect_timeout_that_is_no_duration_is_refused_in_one_line(text):
    with pytest.raises(ZeroDivisionError, match=rf"^connect_timeout must be a number of seconds, .* not '{text}'$"):
        connect_limit_s({"connect_timeout": text}, ZeroDivisionError)
    assert connect_limit_s({"connect_timeout": "-1"}, ZeroDivisionError) == 0
    assert connect_limit_s({"connect_timeout": 1.5}, ZeroDivisionError) == 1.5


@pytest.mark.parametrize("where", ["", "hostaddr", "PGHOST"])
def test_the_service_gives_each_host_the_whole_limit_too(tcp, where):
    """The hosts in the URL, by address, or in the variables that libpq reads."""
    code = (
        f"where = {where!r}"
        """
import os
from db.database import connect_arguments, _connect
from db.settings import DatabaseSettings, database_url
first = silent()
hosts, ports = zip(address(first), server)
parts = make_url(sys.argv[1])
hosts, ports = ",".join(hosts), ",".join(map(str, ports))
dsn = f"user={parts.username} dbname={parts.database} connect_timeout=1"
if where.isupper():
    os.environ |= {where: hosts, "PGPORT": ports}
else:
    dsn += f" {where or 'host'}={hosts} port={ports}"
if parts.password:
    dsn += f" password={parts.password}"
began = time.monotonic()
connection = _connect(connect_arguments(DatabaseSettings(database_url(dsn))))
print(json.dumps([connection.info.port == parts.port, time.monotonic() - began]))
"""
    )
    reached, seconds = outcome(tcp, code)
    assert reached and 0.9 <= seconds < 4
