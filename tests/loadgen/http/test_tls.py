"""TLS beneath exchanges, certificates good and bad under Node's names, tunnels through proxies; on real sockets."""

import contextlib
import os
import socket
import threading
import time
from base64 import b64encode

import gevent
import pytest

from loadgen.clock import KERNEL_STAMPS, WallOffset
from loadgen.http import dialer
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import Exchange, Failure, TimeLimits
from loadgen.http.proxy import ProxyError, ProxyRoute
from loadgen.http.route import Origin, Route
from loadgen.http.tls import TlsRoute, TlsSettings
from loadgen.http.tls_socket import client_context

pytest.importorskip("trustme", reason="trustme is not installed")
from tests.support import certificates
from tests.support.raw_server import RawServer, answer_and_close

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MS = 1_000_000


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("tls"))


class TlsServer(RawServer):
    """Speaks TLS; keeps the host names that clients ask for."""

    def __init__(self, context, answer, address="127.0.0.1"):
        self.server_names = []
        context.sni_callback = lambda _sock, name, _context: self.server_names.append(name)
        self._context = context
        super().__init__(answer, address)
        self.origin = Origin("https", address, self.port)

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            super()._serve(self._context.wrap_socket(connection, server_side=True))


@pytest.fixture
def serve_tls(tls):
    """serve_tls(answer=OK, certificate="good", wants_client=False) -> TlsServer."""
    servers = []

    def start(answer=OK, certificate="good", address="127.0.0.1", **options):
        answers = (lambda connection, _: connection.sendall(answer)) if isinstance(answer, bytes) else answer
        servers.append(TlsServer(tls.server_context(certificate, **options), answers, address))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect(tls):
    """connect(ca="ca", ...) -> Connections that trust the tests' authority."""
    opened = []

    def make(route=None, **settings):
        settings = {"ca": tls.ca_file.read_bytes(), **settings}
        route = TlsRoute(TlsSettings(**settings)) if route is None else route
        opened.append(Connections(Dialer(TimeLimits(int(1e9), int(1e9)), WallOffset(), route)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_an_exchange_over_tls_keeps_its_connection_and_is_stamped(serve_tls, connect):
    server, link = serve_tls(), connect()
    first, second = (link.exchange(server.origin, GET) for _ in range(2))
    assert isinstance(second, Exchange), second
    assert (second.status, second.body, first.reused, second.reused) == (200, b"ok", False, True)
    assert first.stamped == second.stamped == KERNEL_STAMPS
    assert server.connections == 1
    assert first.setup_ns[2] > 0 and first.setup_ns == second.setup_ns
    assert first.started_ns < first.connected_ns <= first.written_ns <= first.first_byte_ns <= first.last_byte_ns


def test_a_slow_handshake_is_not_in_the_time_to_first_byte(tls, connect):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        raw, _ = listener.accept()
        raw.recv(1, socket.MSG_PEEK)  # the handshake has begun
        time.sleep(0.1)
        with tls.server_context("good").wrap_socket(raw, server_side=True) as connection:
            connection.recv(1000)
            connection.sendall(OK)

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        answer = connect().exchange(Origin("https", "127.0.0.1", listener.getsockname()[1]), GET)
    assert answer.setup_ns[2] > 99 * MS
    assert answer.written_ns - answer.started_ns > answer.setup_ns[2], "the request is written after the handshake"


@pytest.mark.parametrize("size", [1, 20_000, 3_000_000])
def test_bodies_of_any_size_arrive_and_leave_whole(serve_tls, connect, size):
    got = []

    def answer(connection, head):
        if b"POST" in head:
            left = size
            while left > 0:
                got.append(connection.recv(min(65536, left)))
                left -= len(got[-1])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    def serve(connection, head):  # the body may have come with the head: ask for it apart
        answer(connection, head)

    server, link = serve_tls(serve), connect()
    assert link.exchange(server.origin, GET).body == b"x" * size
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    if size > 100_000:
        assert isinstance(link.exchange(server.origin, head + b"y" * (size + 20_000)), Exchange | Failure)
        assert b"".join(got).count(b"y") >= size - 100_000


@pytest.mark.parametrize(
    ("certificate", "trusted", "name"),
    [
        ("self-signed", True, "DEPTH_ZERO_SELF_SIGNED_CERT"),
        ("good", False, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
        ("expired", True, "CERT_HAS_EXPIRED"),
        ("elsewhere", True, "ERR_TLS_CERT_ALTNAME_INVALID"),
    ],
)
def test_a_bad_certificate_has_nodes_name_and_is_accepted_when_told_to(
    serve_tls, connect, tls, certificate, trusted, name
):
    server = serve_tls(certificate=certificate)
    ca = tls.ca_file.read_bytes() if trusted else None
    failure = connect(ca=ca).exchange(server.origin, GET)
    assert isinstance(failure, Failure)
    assert (failure.name, failure.stage, failure.connected_ns) == (name, "connect", 0)
    assert connect(ca=ca, verify=False).exchange(server.origin, GET).status == 200


def test_the_server_name_is_the_host_or_the_one_that_is_given(serve_tls, connect):
    server = serve_tls(certificate="elsewhere")
    assert connect(server_name="elsewhere.example").exchange(server.origin, GET).status == 200
    connect().exchange(server.origin._replace(host="localhost"), GET)
    assert server.server_names == ["elsewhere.example", "localhost"]


def test_a_client_certificate_is_shown_where_there_is_one(serve_tls, connect, tls):
    server = serve_tls(wants_client=True)
    assert connect(cert=tls.file("client").read_bytes()).exchange(server.origin, GET).status == 200
    failure = connect().exchange(server.origin, GET)
    assert failure.name in {"ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "ECONNRESET", "EPIPE"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ca": b"nonsense"}, "ca: no PEM certificates"),
        ({"cert": b"nonsense"}, "cert and key: not a PEM certificate and its key"),
    ],
)
def test_an_invalid_certificate_is_reported(settings, said):
    with pytest.raises(ValueError, match=said):
        client_context(TlsSettings(**settings))


def test_a_server_that_speaks_no_tls(serve, ok_answer, connect):
    server = serve(ok_answer())
    failure = connect().exchange(Origin("https", "127.0.0.1", server.port), GET)
    assert failure.name in {"EPROTO", "ECONNRESET", "ERR_SOCKET_TIMEOUT"}


def test_a_server_that_says_nothing_ends_at_the_socket_limit(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        failure = connect().exchange(Origin("https", "127.0.0.1", silent.getsockname()[1]), GET)
    assert failure.name == "ERR_SOCKET_TIMEOUT"


def test_a_server_that_hangs_up_in_the_handshake(connect):
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)

    threading.Thread(target=hang_up, daemon=True).start()
    with listener:
        failure = connect().exchange(Origin("https", "127.0.0.1", listener.getsockname()[1]), GET)
    assert failure.name == "ECONNRESET"


def test_a_connection_closed_while_idle_is_replaced(serve_tls, connect):
    server, link = serve_tls(lambda connection, _: answer_and_close(connection, OK)), connect()
    assert link.exchange(server.origin, GET).status == 200
    gevent.sleep(dialer._PROBE_AFTER_NS / 1e9)
    assert link.exchange(server.origin, GET).status == 200
    assert server.connections == 2


def test_a_connection_on_which_tls_breaks_while_idle_is_replaced(serve_tls, connect):
    has_answer, is_broken = threading.Event(), threading.Event()

    def then_garbage(connection, _):
        connection.sendall(OK)
        if not is_broken.is_set():
            has_answer.wait(10)
            os.write(connection.fileno(), b"\x17\x03\x03\x00\x05hello")
            is_broken.set()

    server, link = serve_tls(then_garbage), connect()
    assert link.exchange(server.origin, GET).status == 200
    has_answer.set()
    assert is_broken.wait(10)
    # A connection that was used just now is not looked at.
    gevent.sleep(dialer._PROBE_AFTER_NS / 1e9)
    assert link.exchange(server.origin, GET).status == 200
    assert server.connections == 2


def test_nothing_is_left_open(serve_tls, connect, open_sockets):
    server, bad = serve_tls(), serve_tls(certificate="expired")
    connect().exchange(server.origin, GET)
    before = open_sockets()
    for _ in range(20):
        link = connect()
        link.exchange(server.origin, GET)
        link.exchange(bad.origin, GET)
        link.close()
    assert open_sockets() == before


def test_ipv6_hosts(serve_tls, connect):
    server = serve_tls(address="::1")
    assert connect().exchange(server.origin, GET).status == 200


def test_plain_connections_refuse_https():
    link = Connections(Dialer(TimeLimits(), WallOffset()))
    assert link.exchange(Origin("https", "127.0.0.1", 1), GET).name == "ERR_INVALID_PROTOCOL"


class Proxy(RawServer):
    """Tunnels; keeps the heads that it was asked with."""

    def __init__(self, status=b"200 Connection established"):
        self._status = status
        super().__init__(answer=None)

    def _serve(self, near):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += near.recv(1)
        self.heads.append(head)
        near.sendall(b"HTTP/1.1 %s\r\n\r\n" % self._status)
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        with near, socket.create_connection((host, int(port))) as far:
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def _pump(here, there):
    try:
        while data := here.recv(65536):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def proxy():
    proxies = []

    def start(**options):
        proxies.append(Proxy(**options))
        return proxies[-1]

    yield start
    for each in proxies:
        each.close()


def test_a_proxy_tunnels_both_schemes(serve, ok_answer, serve_tls, connect, tls, proxy):
    tunnel, plain, secure = proxy(), serve(ok_answer()), serve_tls()
    direct = TlsRoute(TlsSettings(ca=tls.ca_file.read_bytes()))
    link = connect(ProxyRoute({"HTTP_PROXY": tunnel.url}, direct))
    plainly = Origin("http", "127.0.0.1", plain.port)
    assert [link.exchange(o, GET).status for o in (plainly, plainly, secure.origin)] == [200, 200, 200]
    asked = [head.split(b"\r\n")[0].decode() for head in tunnel.heads]
    assert asked == [f"CONNECT 127.0.0.1:{o.port} HTTP/1.1" for o in (plainly, secure.origin)]
    assert plain.heads == [b"GET / HTTP/1.1\r\nHost: x"] * 2


def test_https_may_have_a_proxy_of_its_own_and_http_none(serve, ok_answer, serve_tls, connect, tls, proxy):
    tunnel, plain, secure = proxy(), serve(ok_answer()), serve_tls()
    url = tunnel.url.replace("://", "://me:p%40ss@")
    link = connect(ProxyRoute({"HTTPS_PROXY": url}, TlsRoute(TlsSettings(ca=tls.ca_file.read_bytes()))))
    assert link.exchange(Origin("http", "127.0.0.1", plain.port), GET).status == 200
    assert link.exchange(secure.origin, GET).status == 200
    assert len(tunnel.heads) == 1
    assert b"proxy-authorization: Basic " + b64encode(b"me:p@ss") in tunnel.heads[0]


def test_a_proxy_that_refuses_names_its_status(serve, ok_answer, connect, proxy):
    tunnel = proxy(status=b"407 Proxy Authentication Required")
    link = connect(ProxyRoute({"HTTP_PROXY": tunnel.url}, Route()))
    failure = link.exchange(Origin("http", "127.0.0.1", serve(ok_answer()).port), GET)
    assert (failure.name, failure.stage) == ("Bad response: 407", "connect")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:3128",
        "socks5://me:secret@h:1",
        "me:secret@h:1",
        "http://",
        "http://h:99999",
        "http://me:secret@h:99999",
    ],
)
def test_a_proxy_variable_that_names_no_proxy_is_told_without_its_password(url):
    with pytest.raises(ProxyError, match=r"^HTTP_PROXY: ") as told:
        ProxyRoute({"HTTP_PROXY": url}, Route())
    assert "secret" not in str(told.value)
