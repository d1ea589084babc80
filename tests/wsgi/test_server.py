"""Starting and stopping: gunicorn, `flask run`, and what they say to wrong settings."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import psycopg2
import pytest

from tests.support.paths import BIN, ROOT
from tests.support.server_process import GUNICORN, free_port, wait_until

FLASK_RUN = [str(BIN / "flask"), "run", "--port", "PORT"]


def waiting_for_lock(url):
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return cursor.fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize("command", [FLASK_RUN, GUNICORN], ids=["flask", "gunicorn"])
def test_clients_wait_in_the_database_all_at_once(start_service, postgres, command):
    server = start_service(command=command, DATABASE_URL=postgres.url, DB_POOL_SIZE=20)
    code = server.new_link()
    lock = psycopg2.connect(postgres.url)
    with ThreadPoolExecutor(1) as thread:
        try:
            lock.cursor().execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
            answers = thread.submit(server.get_many, f"/links/{code}", 20)
            wait_until(lambda: waiting_for_lock(postgres.admin_url) == 20, "20 clients wait in the database")
        finally:
            lock.close()
        assert [answer.status for answer in answers.result()] == [200] * 20


def test_clients_may_come_by_a_socket_in_the_file_system(start_process, postgres, tmp_path):
    path = tmp_path / "service.sock"
    command = [BIN / "gunicorn", "-c", "wsgi/gunicorn_conf.py", "--bind", f"unix:{path}", "wsgi:create_app()"]
    server = start_process(command, env={**os.environ, "DATABASE_URL": postgres.url, "WEB_CONCURRENCY": "1"})
    wait_until(path.exists, "the service listens")
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(30)
        client.connect(str(path))
        body = b'{"url": "https://example.com/"}'
        client.sendall(
            b"POST /links HTTP/1.0\r\nHost: short.example\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b" 201 " in answer.splitlines()[0] and b'"http://short.example/' in answer
    server.terminate()
    assert "Traceback" not in server.communicate(timeout=60)[1]


def test_a_stop_lets_the_running_request_end_and_idle_clients_go(start_service, postgres):
    server = start_service(DATABASE_URL=postgres.url)
    code = server.new_link()
    idle = HTTPConnection("127.0.0.1", server.port, timeout=10)
    idle.request("GET", "/live")
    idle.getresponse().read()
    lock = psycopg2.connect(postgres.url)
    with ThreadPoolExecutor(1) as thread:
        lock.cursor().execute("LOCK TABLE links IN ACCESS EXCLUSIVE MODE")
        running = thread.submit(server.get, f"/links/{code}")
        wait_until(lambda: waiting_for_lock(postgres.admin_url) == 1, "the request is in the database")
        server.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b"", "the idle client is let go"
        assert server.process.poll() is None
        lock.close()
        assert running.result().status == 200
    idle.close()
    assert server.process.wait(15) == 0, "much sooner than the 20 s that the server would wait for clients"


def test_keep_alive_answers_do_not_stall(shared_service):
    connection = HTTPConnection("127.0.0.1", shared_service.port, timeout=10)
    took = []
    for _ in range(20):
        started = time.perf_counter()
        connection.request("GET", "/live")
        connection.getresponse().read()
        took.append(time.perf_counter() - started)
    connection.close()
    # A busy machine makes some late; a stall would be in each but the first.
    assert sorted(took[1:])[5] < 0.02, "Nagle's algorithm and a delayed acknowledgement would cost 0.04 s each"


@pytest.mark.parametrize("path", ["/live", "/no-such-page"])
def test_an_answer_is_one_segment(shared_service, path):
    with socket.create_connection(("127.0.0.1", shared_service.port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            assert answer.read().endswith(b"}")
        # tcpi_data_segs_in of struct tcp_info (linux/tcp.h): segments with data that were received.
        [segments] = struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 152)
    assert segments == 1


WITH_TEXT = """
from gevent import socket
from gevent.server import _tcp_listener
from wsgi.reading import StrictHandler, StrictServer

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter(["no bytes"]) if environ["PATH_INFO"] == "/chunked" else ["no bytes"]

StrictHandler.log_request = lambda handler: None
server = StrictServer(_tcp_listener(("127.0.0.1", 0)), application=application, handler_class=StrictHandler, log=None)
server.start()
for path in ("/chunked", "/whole"):
    client = socket.create_connection(("127.0.0.1", server.server_port))
    client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n".encode())
    answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 500 "), answer
    assert answer.endswith(b"\\r\\n\\r\\nInternal Server Error"), answer
    assert b"chunked" not in answer and b"Content-Length: 21" in answer, answer
"""


def test_an_answer_that_cannot_be_sent_is_a_whole_500():
    subprocess.run([sys.executable, "-c", WITH_TEXT], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(("name", "value"), [
    ("DB_POOL", "nosuch"),    ("PORT", "0"),
    ("DATABASE_URL", "mysql://root:hunter2@localhost/x"), ("WEB_CONCURRENCY", "0"),
])  # fmt: skip
def test_a_wrong_setting_stops_the_start_with_one_line(name, value):
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://127.0.0.1:1/x", name: value}
    done = subprocess.run(GUNICORN, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and name in done.stderr and "hunter2" not in done.stderr


def test_a_port_in_use_is_one_line():
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://127.0.0.1:1/x", "PORT": str(port)}
        done = subprocess.run(
            GUNICORN, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr.splitlines()[-1]


def test_seeding_says_what_it_did(postgres):
    with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA seeded")
        connection.commit()
    url = f"{postgres.url}?options=-csearch_path%3Dseeded"
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    command = [str(BIN / "flask"), "links", "seed", "12", "--clicks", "30"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "added 12 links" in done.stdout and "360 clicks" in done.stdout


SHARES = [
    # Without a bounded pool, each client may need a connection to the database, or DB_POOL_MIN of them.
    (20_000, {}, 4096),
    (256, {"DB_POOL_SIZE": "20", "DB_POOL_MAX_OVERFLOW": "5"}, 256 - 64 - 25),
    (256, {"DB_POOL": "null"}, (256 - 64) // 2),
    (256, {"DB_POOL": "per-request", "DB_POOL_MIN": "5"}, (256 - 64) // 6),
    (256, {"DB_POOL": "queue", "DB_POOL_MAX_OVERFLOW": "-1"}, (256 - 64) // 2),
    (32, {}, 1),
]


def test_descriptors_are_shared_out_among_clients_and_the_database():
    """In a process of its own, since importing `wsgi` patches the whole process."""
    code = (
        "from wsgi.settings import client_limit; from db.settings import PoolSettings\n"
        f"print([client_limit(n, PoolSettings.from_mapping(pool)) for n, pool, _ in {SHARES}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([clients for *_, clients in SHARES])


@pytest.mark.parametrize("strategy", ["fair", "null"])
def test_with_few_descriptors_idle_clients_leave_some_for_the_database(start_service, postgres, strategy):
    command = ["sh", "-c", f"ulimit -n 256; exec {' '.join(GUNICORN[:-1])} '{GUNICORN[-1]}'"]
    server = start_service(command=command, DATABASE_URL=postgres.url, DB_POOL=strategy)
    assert any("256 files" in line["msg"] for line in server.log_lines() if line["level"] == "WARNING")
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=15)) for _ in range(300)
        ]
        for connection in idle[:20]:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert {connection.recv(12) for connection in idle[:20]} == {b"HTTP/1.1 200"}
    assert server.failures() == []


def test_more_connections_than_the_files_allow_are_warned_of(start_service, postgres):
    arguments = [GUNICORN[0], "--worker-connections", "1000", *GUNICORN[1:-1], f"'{GUNICORN[-1]}'"]
    server = start_service(
        command=["sh", "-c", f"ulimit -n 256; exec {' '.join(arguments)}"], DATABASE_URL=postgres.url
    )
    assert any("worker_connections 1000 is too many for 256 files" in line["msg"] for line in server.log_lines())
