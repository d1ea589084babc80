"""Hostile HTTP: bytes on raw sockets against a real server. What is no request is refused, and its connection closed."""

import re
import socket
import time
from contextlib import ExitStack

import pytest

from tests.support.paths import BIN, ROOT
from tests.support.server_process import serving

HOST = b"Host: localhost\r\n"
POST = b"POST /links HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
LIVE = b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /live HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "stderr"
    with serving(log, DATABASE_URL=postgres.url) as server:
        yield server


def ends_with(connection) -> bytes:
    """All that comes until the server closes."""
    got = b""
    while data := connection.recv(65536):
        got += data
    return got


def answers(server, *pieces: bytes, gap_s: float = 0.0) -> list[int]:
    """The statuses of all answers to these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(gap_s)
        got = ends_with(connection)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", got)]


SMUGGLED = b"GET /live HTTP/1.1\r\nHost: smuggled\r\n\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(("head", "status"), [
    (POST + b"Content-Length: 4\r\n" + TE, 400),
    (POST + TE + b"Content-Length: 4\r\n", 400),
    (POST + b"Content-Length: 0\r\nContent-Length: 38\r\n", 400),
    (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n", 400),
    (POST + b"Content-Length: 0, 38\r\n", 400),
    (POST + b"Content-Length: +0\r\n", 400),
    (POST + b"Content-Length: -1\r\n", 400),
    (POST + b"Content-Length: 0x0\r\n", 400),
    (POST + b"Content-Length: 0_0\r\n", 400),
    (POST + b"Content-Length:\r\n", 400),
    (POST + b"Content-Length: 18446744073709551617\r\n", 400),
    (POST + b"Content-Length : 38\r\n", 400),
    (POST + b"Content-Length\r\n : 38\r\n", 400),
    (POST + b"Transfer-Encoding : chunked\r\n", 400),
    (POST + b"Transfer-Encoding: xchunked\r\n", 400),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n", 400),
    (POST + b'Transfer-Encoding: "chunked"\r\n', 400),
    (POST + b"Transfer-Encoding: chunked, identity\r\n", 400),
    (POST + b"Transfer-Encoding: identity\r\n", 400),
    (POST + b"Transfer-Encoding:\r\n chunked\r\n", 400),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
    (POST.replace(b"1.1", b"1.0") + TE, 501),
    (POST + TE + TE, 400),
    (POST + b"X: y\nContent-Length: 38\r\n", 400),
    (POST + b"X: y\rContent-Length: 38\r\n", 400),
    (POST + b"X: \x00\r\n", 400),
    (POST + b"X y: z\r\nContent-Length: 38\r\n", 400),
    (POST + b"no colon\r\nContent-Length: 38\r\n", 400),
    (POST + b": no name\r\n", 400),
    (POST + b"\xe4: latin-1\r\n", 400),
    (POST + b" folded: first\r\n", 400),
    (POST.replace(b"\r\n", b"\n"), 400),
    (POST + HOST, 400),
    (POST.replace(HOST, b""), 400),
    (POST.replace(b"localhost", b"a b"), 400),
    (POST.replace(b"localhost", b"a@b"), 400),
    (POST.replace(b"localhost", b"a:99999"), 400),
    (POST.replace(b"localhost", b"a/../b"), 400),
    (POST.replace(b"/links", b"links"), 400),
    (POST.replace(b"/links", b"ftp://a/links"), 400),
    (POST.replace(b"/links", b"/li nks"), 400),
    (POST.replace(b"/links", b"/links\xc3\xa4"), 400),
    (POST.replace(b"/links", b"/links\x00"), 400),
    (POST.replace(b"POST", b"post"), 400),
    (POST.replace(b"POST /links", b"CONNECT a:80"), 400),
    (POST.replace(b"1.1", b"0.9"), 505),
    (POST.replace(b"1.1", b"2.0"), 505),
    (POST.replace(b"1.1", b"1.7"), 400),
    (POST.replace(b"HTTP/1.1", b"HTTQ/1.1"), 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    (POST + b"Expect: 200-ok\r\n", 417),
])  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_answered(service, head, status):
    assert answers(service, head + b"\r\n" + SMUGGLED) == [status]


NO_MORE = b"0\r\n\r\n"


@pytest.mark.parametrize("body", [
    *(size + b"\r\n{}\r\n" + NO_MORE for size in (
        b"5\n{}   ", b"0x2", b"+2", b"2 ", b"", b";x", b"2;a\nb", b"2;a\rb", b"3", b"-2", b"g", b"2;" + b"x" * 9000,
    )),
    b"2\r\n{}XX" + NO_MORE, b"2\r\n{}" + NO_MORE,
    b"2\r\n{}\r\n0\r\na: " + b"x" * 9000 + b"\r\n\r\n", b"2\r\n{}\r\n0\r\na: b\nc: d\n\r\n",
])  # fmt: skip
def test_a_malformed_chunk_is_400_and_ends_the_connection(service, body):
    """And the answer arrives, although the client sends more after it."""
    assert answers(service, POST + TE + b"\r\n" + body, b"\r\n" * 8 + SMUGGLED, gap_s=0.05)[:2] == [400]


def test_a_body_that_ends_too_early_is_400(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        connection.sendall(POST + b'Content-Length: 50\r\n\r\n{"url": "https://exam')
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert not service.failures()


@pytest.mark.parametrize("body", [
    b"Content-Length: 2\r\n\r\n{}",
    TE + b"\r\n1\r\n{\r\n1;ext=1\r\n}\r\n000\r\nTrailer: x\r\n\r\n",
    b"Expect: 100-continue\r\n" + TE + b"\r\n2\r\n{}\r\n" + NO_MORE,
])  # fmt: skip
def test_what_follows_a_well_framed_body_is_a_request_of_its_own(service, body):
    found = answers(service, POST + body + LIVE + POST + body + LAST)
    assert [status for status in found if status != 100] == [422, 200, 422, 200]


def test_any_split_of_the_bytes_gives_the_same_answers(service):
    request = POST + TE + b"\r\n2\r\n{}\r\n0\r\n\r\n" + LAST
    assert answers(service, *(request[i : i + 1] for i in range(len(request))), gap_s=0.001) == [422, 200]


def test_connections_are_kept_as_each_version_of_http_has_it(service):
    old = LIVE.replace(b"1.1", b"1.0")
    kept = old[:-2] + b"Connection: Keep-Alive\r\n\r\n"
    assert answers(service, kept + kept + old + LIVE) == [200, 200, 200]
    assert answers(service, LIVE + LIVE + LAST + LIVE) == [200, 200, 200]


def test_an_upgrade_is_declined_and_its_body_still_framed(service):
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
    assert answers(service, POST + offer + LAST) == [422, 200]


def test_an_absolute_target_names_the_host(service):
    body = b'{"url": "https://example.com/absolute"}'
    head = POST.replace(b"/links", b"http://short.example/links") + b"Connection: close\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as connection:
        connection.sendall(head % len(body) + body)
        assert b'"short_url":"http://short.example/' in ends_with(connection)


@pytest.mark.parametrize(("request_bytes", "status"), [
    (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    (b"A" * 200_000, 414),
    (b"GET /live HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 33_000 + b"\r\n\r\n", 431),
    (b"GET /live HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 6000 + b"\r\n", 431),
    (POST + b"Content-Length: 17000\r\nConnection: close\r\n\r\n" + b" " * 17_000, 413),
    (POST + b"Content-Length: 9999999999\r\n\r\n" + b" " * 300_000, 413),
    (POST + TE + b"\r\n" + b"1\r\n \r\n" * 60_000, 413),
])  # fmt: skip
def test_what_is_too_large_is_said_to_be(service, request_bytes, status):
    started = time.monotonic()
    assert answers(service, request_bytes) == [status]
    assert time.monotonic() - started < 5


def test_headers_with_underscores_do_not_pass_for_others(service):
    assert answers(service, LAST[:-2] + b"Transfer_Encoding: chunked\r\nContent_Length: 9\r\n\r\n") == [200]


def test_nothing_of_a_refused_request_is_logged(service):
    answers(service, b"GET /?token=hunter2 HTTP/1.1\r\nX y: hunter2\r\n\r\n")
    text = service.log_file.read_text()
    assert "hunter2" not in text and '"status": 400' in text


PATIENCE_S = 1.0


@pytest.fixture
def impatient(start_service, postgres, tmp_path):
    """A server whose time limits are a second instead of ten or more."""
    conf = ROOT / "wsgi" / "gunicorn_conf.py"
    own = tmp_path / "conf.py"
    own.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom runpy import run_path\n"
        f"globals().update({{k: v for k, v in run_path({str(conf)!r}).items() if not k.startswith('__')}})\n"
        f"import wsgi.reading as r\nr.IDLE_S = r.HEAD_S = r.BODY_S = r.ANSWER_S = {PATIENCE_S}\n"
    )
    return start_service(
        command=[str(BIN / "gunicorn"), "-c", str(own), "wsgi:create_app()"], DATABASE_URL=postgres.url
    )


def test_those_who_send_slowly_are_let_go_and_nobody_waits_for_them(impatient):
    with ExitStack() as opened:
        address = ("127.0.0.1", impatient.port)
        slow = [opened.enter_context(socket.create_connection(address, timeout=15)) for _ in range(60)]
        heads, bodies, silent = slow[:20], slow[20:40], slow[40:]
        for connection in heads:
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: ")
        for connection in bodies:
            connection.sendall(POST + b"Content-Length: 50\r\n\r\n{")
        started = time.monotonic()
        assert impatient.get("/live").status == 200
        assert time.monotonic() - started < PATIENCE_S
        for connection in (*heads, *bodies):
            connection.sendall(b"a")  # a byte now and then does not help
        assert {ends_with(connection)[:13] for connection in heads} == {b"HTTP/1.1 408 "}
        assert {ends_with(connection)[:13] for connection in bodies} == {b"HTTP/1.1 400 "}
        assert {ends_with(connection) for connection in silent} == {b""}
        assert time.monotonic() - started < PATIENCE_S + 5


def test_an_answer_that_nobody_takes_is_cut_off(impatient):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", impatient.port))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200_000)
