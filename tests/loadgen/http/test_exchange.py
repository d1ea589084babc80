"""Exchanges over real sockets: instants in order, every misbehaviour of a server under its own name, nothing leaked."""

import os
import socket
import threading
import time
from pathlib import Path

import gevent
import pytest

from loadgen.clock import KERNEL_STAMPS, WallOffset, now_ns
from loadgen.http import connection as connection_module
from loadgen.http import dialer
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import EXAMINED, FILED, LATER, STAMPED, Exchange, Failure, TimeLimits
from loadgen.http.route import Origin
from tests.support.raw_server import answer_and_close, wait_until_read

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MS = 1_000_000


@pytest.fixture
def connections():
    """connections(response_s=1, idle_s=1) -> Connections, closed after the test."""
    opened = []

    def make(response_s=1.0, idle_s=1.0):
        opened.append(Connections(Dialer(TimeLimits(int(response_s * 1e9), int(idle_s * 1e9)), WallOffset())))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def origin(server):
    return Origin("http", "127.0.0.1", server.port)


def test_instants_follow_each_other(connections, serve, ok_answer):
    answer = connections().exchange(origin(serve(ok_answer())), GET)
    assert isinstance(answer, Exchange)
    assert answer.started_ns <= answer.connected_ns <= answer.written_ns <= answer.first_byte_ns <= answer.last_byte_ns
    assert (answer.status, answer.body, answer.body_bytes) == (200, b"ok", 2)


def test_a_server_delay_lies_between_written_and_first_byte(connections, serve, ok_answer):
    def late(connection, _):
        time.sleep(0.1)
        connection.sendall(ok_answer())

    before = now_ns()
    answer = connections().exchange(origin(serve(late)), GET)
    assert 99 * MS < answer.first_byte_ns - answer.written_ns < now_ns() - before


def test_a_trickling_body_does_not_lengthen_the_time_to_first_byte(connections, serve):
    def trickle(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        wait_until_read(connection)
        for letter in (b"a", b"b", b"c"):
            time.sleep(0.05)
            connection.sendall(letter)

    answer = connections().exchange(origin(serve(trickle)), GET)
    assert answer.body == b"abc"
    assert answer.last_byte_ns - answer.first_byte_ns > 140 * MS


class Answering:
    """A server that answers only while the generator is busy, or may be idle for all that it cares."""

    def __init__(self, serve, answer):
        self._may_answer, self._has_answered, self._answer = threading.Event(), threading.Event(), answer
        self._server = serve(self._answer_when_it_may)
        self.origin = origin(self._server)

    def _answer_when_it_may(self, connection, _):
        assert self._may_answer.wait(30)
        self._answer(connection)
        self._has_answered.set()

    def await_request(self, number):
        """Return when it has so many requests, the last of which it has not answered."""
        while len(self._server.heads) < number:
            gevent.sleep(0.001)

    def answer(self, *, busy):
        """Let it answer; busy: the generator does nothing else until 0.1 s later."""
        self._has_answered.clear()
        self._may_answer.set()
        if busy:
            assert self._has_answered.wait(30)  # lets the server's thread run, but never this thread's event loop
            self._may_answer.clear()
            time.sleep(0.1)


@pytest.mark.skipif(not KERNEL_STAMPS, reason="this system does not stamp arrivals")
@pytest.mark.parametrize(
    ("pieces", "pause_s", "busy", "known"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",), 0, True, EXAMINED),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"), 0, True, EXAMINED | LATER),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"), 0.03, True, EXAMINED | LATER),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"), 0.1, False, EXAMINED),
        # More has arrived than the first read took: nobody can say whether before it or after.
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", b"k" * 20000), 0, True, 0),
    ],
    ids=["one segment", "two at once", "two late", "two reads", "more than read"],
)
def test_it_is_known_which_first_bytes_a_later_segment_dates(
    connections, serve, monkeypatch, pieces, pause_s, busy, known
):
    monkeypatch.setattr(connection_module, "_EXAMINED_BITS", 0)

    def answer(connection):
        for piece in pieces:
            connection.sendall(piece)
            if not busy:
                wait_until_read(connection)
            time.sleep(pause_s)

    server, link, filed = Answering(serve, answer), connections(), []
    for number in (1, 2):  # on a new connection, and on a kept one
        waiting = gevent.spawn(link.exchange, server.origin, GET, file=lambda *row: filed.append(row[6]))
        server.await_request(number)
        server.answer(busy=busy)
        waiting.get()
    assert filed == [STAMPED | known] * 2


@pytest.mark.skipif(not KERNEL_STAMPS, reason="this system does not stamp arrivals")
def test_a_busy_generator_does_not_lengthen_what_the_kernel_stamps(connections, serve, ok_answer):
    server, link = Answering(serve, lambda connection: connection.sendall(ok_answer())), connections()
    waiting = gevent.spawn(link.exchange, server.origin, GET)
    server.await_request(1)
    server.answer(busy=True)
    answer = waiting.get()
    assert answer.stamped
    assert now_ns() - answer.first_byte_ns > 90 * MS
    assert answer.last_byte_ns == answer.first_byte_ns


def test_a_connection_is_kept_and_used_again(connections, serve, ok_answer):
    server, link = serve(ok_answer()), connections()
    answers = [link.exchange(origin(server), GET) for _ in range(3)]
    assert [a.reused for a in answers] == [False, True, True]
    assert server.connections == 1


def test_every_answer_is_filed_and_a_plain_one_need_not_be_returned(connections, serve, ok_answer):
    server, link, filed = serve(ok_answer()), connections(), []
    asked_ns = now_ns()
    for intended_ns in (0, asked_ns - MS):
        found = link.exchange(
            origin(server), GET, file=lambda *row: filed.append(row), intended_ns=intended_ns, want_plain=False
        )
        assert found is FILED
    (head, written, first, last, intended, body_bytes, stamped, plain), second = filed
    assert (head.status, body_bytes, stamped & STAMPED, plain) == (200, 2, KERNEL_STAMPS, True)
    assert asked_ns <= intended <= written <= first <= last <= now_ns()
    assert second[4] == asked_ns - MS
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nServer-Timing: db;dur=2\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    ],
)
def test_an_answer_that_somebody_has_to_look_into_is_returned(connections, serve, answer, plain):
    filed = []
    found = connections().exchange(origin(serve(answer)), GET, file=lambda *row: filed.append(row), want_plain=False)
    assert found is FILED if plain else (found.body, found.body_bytes) == (b"ok", 2)
    assert [row[-1] for row in filed] == [plain]


def test_an_answer_that_breaks_off_after_its_head_is_filed_but_not_as_plain(connections, serve):
    def begin(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        return False

    filed = []
    found = connections().exchange(origin(serve(begin)), GET, file=lambda *row: filed.append(row), want_plain=False)
    assert isinstance(found, Failure)
    assert [(row[0].status, row[5], row[-1]) for row in filed] == [(200, 2, False)]


def test_connection_close_is_obeyed(connections, serve, ok_answer):
    server, link = serve(ok_answer(head=b"Connection: close\r\n")), connections()
    assert [link.exchange(origin(server), GET).reused for _ in range(2)] == [False, False]


def test_a_connection_closed_while_idle_is_replaced_before_anything_is_sent(connections, serve, ok_answer):
    server, link = serve(lambda connection, _: answer_and_close(connection, ok_answer())), connections()
    assert link.exchange(origin(server), GET).status == 200
    gevent.sleep(dialer._PROBE_AFTER_NS / 1e9)
    assert link.exchange(origin(server), GET).status == 200
    assert server.connections == 2


def partial_then_close(data):
    def answer(connection, _):
        connection.sendall(data)
        return False

    return answer


def reset(connection, _):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return False


def silent(_connection, _head):
    time.sleep(3)
    return False


@pytest.mark.parametrize(
    ("answer", "name", "answered"),
    [
        (partial_then_close(b""), "ECONNRESET", False),
        (reset, "ECONNRESET", False),
        (partial_then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), "ECONNRESET", False),
        (partial_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "ECONNRESET", True),
        (partial_then_close(b"what is this\r\n\r\n"), "HPE_INVALID_CONSTANT", False),
        (partial_then_close(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20000), "HPE_HEADER_OVERFLOW", False),
    ],
    ids=["closed", "reset", "half a head", "half a body", "nonsense", "endless head"],
)
def test_each_misbehaviour_has_its_name(connections, serve, answer, name, answered):
    found = connections().exchange(origin(serve(answer)), GET)
    assert isinstance(found, Failure)
    assert (found.name, found.stage, found.response is not None) == (name, "receive", answered)


def test_silence_before_the_head_is_a_timeout_at_the_response_limit(connections, serve):
    before = now_ns()
    found = connections(response_s=0.2, idle_s=5).exchange(origin(serve(silent)), GET)
    assert found.name == "ETIMEDOUT"
    assert 199 * MS <= found.at_ns - before < 2500 * MS  # the server goes away after 3 s


def test_silence_longer_than_the_socket_limit_has_another_name(connections, serve):
    assert connections(response_s=5, idle_s=0.2).exchange(origin(serve(silent)), GET).name == "ERR_SOCKET_TIMEOUT"


def test_a_body_that_stops_coming_is_a_silent_socket(connections, serve):
    def stop(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        time.sleep(2)

    found = connections(response_s=0.1, idle_s=0.3).exchange(origin(serve(stop)), GET)
    assert (found.name, found.response.status, found.response.body_bytes) == ("ERR_SOCKET_TIMEOUT", 200, 3)


def test_a_shorter_limit_holds_though_a_longer_one_was_armed_before(connections, serve, ok_answer):
    def first_fast_then_never(connection, head):
        if b"slow" in head:
            time.sleep(2)
        else:
            connection.sendall(ok_answer())

    server = serve(first_fast_then_never)
    link = connections(response_s=0.3, idle_s=5)
    assert link.exchange(origin(server), GET).status == 200
    before = now_ns()
    assert link.exchange(origin(server), b"GET /slow HTTP/1.1\r\n\r\n").name == "ETIMEDOUT"
    assert now_ns() - before < 1900 * MS  # the server answers nothing for 2 s


def test_nobody_listening_is_refused(connections):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = connections().exchange(Origin("http", "127.0.0.1", port), GET)
    assert (found.name, found.stage) == ("ECONNREFUSED", "connect")


def test_a_name_that_does_not_exist(connections):
    assert connections().exchange(Origin("http", "no-such-host.invalid", 80), GET).name in ("ENOTFOUND", "EAI_AGAIN")


def test_a_name_is_tried_at_each_of_its_addresses(connections, serve, ok_answer):
    server = serve(ok_answer())  # listens on 127.0.0.1 only; localhost may be ::1 first
    assert connections().exchange(Origin("http", "localhost", server.port), GET).status == 200


def test_an_address_of_a_family_that_the_kernel_does_not_have_is_passed_over(
    connections, serve, ok_answer, monkeypatch
):
    server = serve(ok_answer())
    addresses = [(10_000, 0, 0, "", ("::1", server.port)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", server.port))]
    monkeypatch.setattr("loadgen.http.dialer.addresses_of", lambda *_: addresses)
    assert connections().exchange(Origin("http", "both", server.port), GET).status == 200
    own = addresses.pop()
    assert connections().exchange(Origin("http", "neither", server.port), GET).name == "EAFNOSUPPORT"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refusing = (*own[:4], ("127.0.0.1", taken.getsockname()[1]))
    for order in (0, 1):
        addresses.insert(order, refusing)
        assert connections().exchange(Origin("http", f"refused{order}", server.port), GET).name == "ECONNREFUSED"
        addresses.remove(refusing)


def test_a_request_larger_than_the_kernel_takes_at_once_is_sent_whole(connections, serve, ok_answer):
    size = 4_000_000

    request = b"POST / HTTP/1.1\r\nLength: %d\r\n\r\n" % size + b"x" * size + b"end"

    def whole_reader(connection, head):
        tail = b""
        while not tail.endswith(b"end"):
            tail = tail[-2:] + connection.recv(1 << 20)
        connection.sendall(ok_answer())

    answer = connections(response_s=5, idle_s=5).exchange(origin(serve(whole_reader)), request)
    assert answer.status == 200
    assert answer.written_ns > answer.connected_ns


def test_no_socket_is_left_open_after_failures_and_closing(connections, serve, ok_answer):
    server, broken = serve(ok_answer()), serve(partial_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    gevent.sleep(0)
    before = client_sockets()
    for target in (server, broken) * 20:
        link = connections()
        link.exchange(origin(target), GET)
        link.close()
    for _ in range(20):
        connections().exchange(Origin("http", "127.0.0.1", 1), GET)
    assert client_sockets() <= before + 2


def client_sockets():
    """Open sockets of this process that are no listeners and no accepted ones of the fixture's threads."""
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(fd.name))) as copy:
                count += copy.family == socket.AF_INET and not copy.getblocking()
        except OSError:
            continue
    return count


def test_ten_users_wait_together_not_one_after_the_other(connections, serve, ok_answer):
    all_have_asked = threading.Barrier(10, timeout=30)

    def answer(connection, _):
        all_have_asked.wait()
        connection.sendall(ok_answer())

    server = serve(answer)
    jobs = [gevent.spawn(connections(response_s=30, idle_s=30).exchange, origin(server), GET) for _ in range(10)]
    gevent.joinall(jobs)
    assert {job.value.status for job in jobs} == {200}
