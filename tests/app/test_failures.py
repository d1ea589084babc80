"""What the service says when the database fails it, on real servers that really fail."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg2
import pytest

from app import create_app
from db import queries
from db.embedded import temporary_postgres
from db.errors import StatementTimeout
from tests.support.server_process import wait_until

LOG_KEYS = {"time", "level", "msg", "trace", "method", "url", "remote_addr", "duration_ms"}


@pytest.fixture(scope="module")
def small_postgres():
    with temporary_postgres(max_connections=10, shared_buffers="16MB") as server:
        yield server


@contextmanager
def locked_links(url):
    """For the duration of the block, whoever reads a link waits in the database."""
    connection = psycopg2.connect(url)
    try:
        connection.cursor().execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.close()


def waiting_for_lock(admin):
    cursor = admin.cursor()
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return cursor.fetchone()[0]


@pytest.fixture
def admin(postgres):
    connection = psycopg2.connect(postgres.admin_url)
    connection.autocommit = True
    yield connection
    connection.close()


def check_failure_line(line, path, sqlstate=None):
    assert set(line) == LOG_KEYS
    assert line["level"] == "ERROR" and line["method"] == "GET" and line["url"].endswith(path)
    assert line["remote_addr"] == "127.0.0.1" and line["duration_ms"] > 0
    assert sqlstate is None or sqlstate in line["trace"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


@pytest.mark.slow
def test_too_many_clients_is_503_with_53300_in_the_log(start_service, small_postgres):
    server = start_service(DATABASE_URL=small_postgres.url, DB_POOL="null")
    server.get("/health")
    answers = [answer for _ in range(5) for answer in server.get_many("/health", 40)]
    refused = [answer for answer in answers if answer.status != 200]
    assert Counter(answer.status for answer in answers).keys() == {200, 503}
    assert {answer.problem for answer in refused} == {"too-many-clients"}
    assert all(answer.headers["retry-after"] and answer.headers["server-timing"] for answer in refused)
    lines = server.failures()
    assert len(lines) == len(refused)
    for line in lines:
        check_failure_line(line, "/health", "53300")


@pytest.mark.parametrize("strategy", ["null", "per-request", "queue", "fair"])
def test_every_strategy_serves(start_service, postgres, strategy):
    server = start_service(DATABASE_URL=postgres.url, DB_POOL=strategy)
    code = server.new_link()
    assert {answer.status for answer in server.get_many(f"/{code}", 5)} == {301}
    assert server.get(f"/links/{code}").json["clicks"] == 5
    assert server.get("/pool").json["strategy"] == strategy


def test_a_request_that_finds_no_connection_in_time_is_503(start_service, postgres, admin):
    server = start_service(DATABASE_URL=postgres.url, DB_POOL_SIZE=1, DB_POOL_TIMEOUT=0.2)
    code = server.new_link()
    with ThreadPoolExecutor(1) as thread:
        with locked_links(postgres.url):
            first = thread.submit(server.get, f"/links/{code}")
            wait_until(lambda: waiting_for_lock(admin) == 1, "the first request waits in the database")
            second = server.get("/health")
        assert first.result().status == 200
    assert (second.status, second.problem) == (503, "pool-timeout") and second.headers["retry-after"]
    assert float(second.headers["server-timing"].split("=")[1].split(",")[0]) >= 200
    check_failure_line(server.failures()[0], "/health")
    assert server.get("/pool").json["timeouts"] == 1


def test_health_is_503_whatever_the_database_has(postgres, monkeypatch):
    def fail(_connection):
        raise StatementTimeout("canceling statement due to statement timeout")

    monkeypatch.setattr(queries, "ping", fail)
    answer = create_app({"DATABASE_URL": postgres.url}).test_client().get("/health")
    assert (answer.status_code, answer.json["type"]) == (503, "urn:poolbench:problem:statement-timeout")
    assert answer.headers["Retry-After"]


def test_a_slow_statement_is_504(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url, STATEMENT_TIMEOUT=0.2, DB_POOL_SIZE=1)
    code = server.new_link()
    with locked_links(postgres.url):
        answer = server.get(f"/links/{code}")
    assert (answer.status, answer.problem) == (504, "statement-timeout") and answer.headers["server-timing"]
    check_failure_line(server.failures()[0], f"/links/{code}", "57014")
    assert server.get(f"/links/{code}").status == 200


def test_a_lost_database_is_503_until_it_is_back(start_service, small_postgres):
    server = start_service(DATABASE_URL=small_postgres.url)
    assert server.get("/health").status == 200
    small_postgres.stop()
    answers = [server.get("/health") for _ in range(3)]
    assert {(answer.status, answer.problem) for answer in answers} == {(503, "database-down")}
    assert server.get("/live").status == 200
    assert re.search("SQLSTATE (08|57)", server.failures()[-1]["trace"])
    small_postgres.start()
    wait_until(lambda: server.get("/health").status == 200, "the service recovers without a restart")


@pytest.mark.slow
def test_a_server_started_before_its_database_migrates_later(start_service, tmp_path):
    with temporary_postgres(max_connections=10, shared_buffers="16MB") as own:
        own.stop()
        server = start_service(DATABASE_URL=own.url)
        answer = server.get("/health")
        assert (answer.status, answer.problem) == (503, "database-down")
        assert any("cannot be reached yet" in line["msg"] for line in server.log_lines())
        own.start()
        wait_until(lambda: server.get("/health").status == 200, "the service finds its database")
        assert server.get(f"/{server.new_link()}").status == 301


@pytest.mark.slow
def test_links_and_clicks_survive_restarts(start_service, small_postgres):
    server = start_service(DATABASE_URL=small_postgres.url)
    code = server.new_link()
    server.get_many(f"/{code}", 7)
    assert server.stop() == 0
    small_postgres.restart()
    again = start_service(DATABASE_URL=small_postgres.url)
    assert again.get(f"/links/{code}").json["clicks"] == 7
    small_postgres.kill()
    small_postgres.start()
    wait_until(lambda: again.get("/health").status == 200, "the service recovers")
    assert again.get(f"/links/{code}").json["clicks"] == 7
