"""Whole runs against servers that misbehave: each error under its name, the run goes on to its end, no socket is left."""

import json
import socket
import threading
import time
from random import Random

import pytest

from loadgen.clock import WallOffset
from loadgen.engine import Engine, Listener
from loadgen.recorder import Recorder
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript
from loadgen.vu.transports import Transports
from tests.support.raw_server import answer_and_close, wait_until_read

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


def run(url, flow, users, open_sockets, duration_s=0.3, **config):
    """Run that many users; return the counters, the errors by name, and how many files stayed open."""
    phases = [{"duration": f"{int(duration_s * 1000)}ms", "arrivalCount": users}]
    text = json.dumps({"config": {"target": url, "phases": phases, **config}, "scenarios": [{"flow": flow}]})
    script = parse_script([("s.json", text)], RunOptions(), lambda _: b"")
    wall, rng = WallOffset(), Random(1)
    recorder = Recorder(wall)
    transports = Transports(script, wall, lambda _: None)
    program = CompiledScript(script, recorder, transports, rng, agent="me", write_line=lambda _: None)
    before = open_sockets()
    Engine(program, script.phases, recorder, wall, rng).run(Listener())
    transports.close()
    counters = dict(recorder.report().aggregate.counters)
    errors = {k.removeprefix("errors."): n for k, n in counters.items() if k.startswith("errors.")}
    assert counters["vusers.created"] == users == counters.get("vusers.completed", 0) + counters["vusers.failed"]
    return counters, errors, open_sockets() - before


def send(data, *, then_close=True, gap_s=0.0):
    """Send bytes at once, or one by one with a gap."""

    def answer(connection, _):
        if gap_s:
            for i in range(len(data)):
                connection.sendall(data[i : i + 1])
                time.sleep(gap_s)
        elif then_close:
            answer_and_close(connection, data)
        else:
            connection.sendall(data)
        return not then_close

    return answer


def reset(connection, _):
    connection.sendall(HEAD + b"ab")
    wait_until_read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return False


def endless_head(connection, _):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for i in range(10_000):
        connection.sendall(b"X-%d: and so on\r\n" % i)


def endless_interim(connection, _):
    for _ in range(200):
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.01)


BAD = {
    "half a head": (send(b"HTTP/1.1 200 OK\r\nContent-L"), {"ECONNRESET": 20}),
    "half a body": (send(HEAD + b"ab"), {"ECONNRESET": 20}),
    "reset in the body": (reset, {"ECONNRESET": 20}),
    "nothing": (send(b""), {"ECONNRESET": 20}),
    "not HTTP": (send(b"hello there\r\n\r\n"), {"HPE_INVALID_CONSTANT": 20}),
    "a wrong length": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 4x\r\n\r\nabcd"), {"HPE_INVALID_CONTENT_LENGTH": 20}),
    "two lengths": (
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"),
        {"HPE_UNEXPECTED_CONTENT_LENGTH": 20},
    ),
    "an endless head": (endless_head, {"HPE_HEADER_OVERFLOW": 20}),
    "interim answers only": (endless_interim, {"ETIMEDOUT": 20}),
    "a head that trickles": (send(HEAD + b"abcd", gap_s=0.05), {"ETIMEDOUT": 20}),
    "a length too short": (send(HEAD + b"abcdefgh", then_close=False), {}),
    "an interim answer first": (send(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"abcd"), {}),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_has_its_name_and_none_ends_the_run_or_leaks(serve, open_sockets, kind):
    answer, errors = BAD[kind]
    server = serve(answer)
    config = {"http": {"timeout": 0.8 if "ETIMEDOUT" in errors else 30}}
    counters, found, left = run(server.url, [{"get": {"url": "/"}}], 20, open_sockets, **config)
    assert found == errors
    assert left == 0
    assert counters["http.requests"] == 20
    assert counters.get("http.responses", 0) == (
        20 if kind in ("half a body", "reset in the body") or not errors else 0
    )


def test_bytes_that_nobody_asked_for_are_never_taken_for_the_next_answer(serve, open_sockets):
    server = serve(send(HEAD + b"abcdHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", then_close=False))
    flow = [{"loop": [{"get": {"url": "/"}}], "count": 5}]
    counters, errors, left = run(server.url, flow, 4, open_sockets)
    assert counters["http.codes.200"] == 20 and not errors and not left
    assert "http.codes.500" not in counters


def test_a_connection_closed_between_requests_is_replaced_where_nothing_was_sent(serve, open_sockets):
    server = serve(send(HEAD + b"abcd"))  # promises to stay, and closes
    flow = [{"loop": [{"get": {"url": "/"}}, {"think": "20ms"}], "count": 5}]
    counters, errors, left = run(server.url, flow, 4, open_sockets)
    assert counters["http.codes.200"] == 20 and not errors and not left
    assert server.connections == 20


def test_thousands_of_refused_connections(serve, open_sockets):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    counters, errors, left = run(f"http://127.0.0.1:{port}", [{"get": {"url": "/"}}], 2500, open_sockets, duration_s=1)
    assert errors == {"ECONNREFUSED": 2500} and counters["http.requests"] == 2500
    assert left == 0


def test_good_users_are_not_disturbed_by_bad_answers(serve, open_sockets):
    lock, n = threading.Lock(), [0]

    def every_other(connection, head):
        with lock:
            n[0] += 1
            bad = n[0] % 2
        connection.sendall(b"junk\r\n\r\n" if bad else HEAD + b"abcd")
        return not bad

    counters, errors, left = run(serve(every_other).url, [{"get": {"url": "/"}}], 40, open_sockets)
    assert errors == {"HPE_INVALID_CONSTANT": 20}
    assert counters["http.codes.200"] == counters["vusers.completed"] == 20
    assert left == 0
