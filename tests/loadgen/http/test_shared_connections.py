"""`http.pool`: connections that all users share, lent in order; and what else a run's users send with."""

import json
import threading
import time
from itertools import pairwise

import gevent
import pytest

from loadgen.clock import WallOffset
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import Failure, TimeLimits
from loadgen.http.route import Origin
from loadgen.http.shared_connections import SharedConnections
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.transports import Transports

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
MS = 1_000_000


@pytest.fixture
def slow(serve, ok_answer):
    """A server that takes 50 ms for each answer."""

    def answer(connection, _):
        time.sleep(0.05)
        connection.sendall(ok_answer())

    return serve(answer)


@pytest.fixture
def holding(serve, ok_answer):
    """(a server, an event): it answers when the event is set."""
    go_on = threading.Event()

    def answer(connection, _):
        assert go_on.wait(30)
        connection.sendall(ok_answer())

    yield serve(answer), go_on
    go_on.set()


@pytest.fixture
def share():
    """share(limit) -> SharedConnections."""
    made = []

    def make(limit):
        dialer = Dialer(TimeLimits(), WallOffset())
        made.append(SharedConnections(limit, lambda: Connections(dialer)))
        return made[-1]

    yield make
    for each in made:
        each.close_all()


def origin(server):
    return Origin("http", "127.0.0.1", server.port)


def numbers(server):
    return [int(head.split(b" ")[1][1:]) for head in server.heads]


def test_no_more_connections_than_the_limit_and_none_wasted(slow, share):
    shared = share(2)
    answers = [
        g.get() for g in gevent.joinall([gevent.spawn(shared.exchange, origin(slow), GET % i) for i in range(6)])
    ]
    assert [a.status for a in answers] == [200] * 6
    assert slow.connections == 2


def test_one_after_another_needs_one_connection(slow, share):
    shared = share(5)
    for i in range(3):
        shared.exchange(origin(slow), GET % i)
    assert slow.connections == 1


def test_who_waits_longest_is_served_first(slow, share):
    shared = share(1)
    gevent.joinall([gevent.spawn(shared.exchange, origin(slow), GET % i) for i in range(5)])
    assert numbers(slow) == [0, 1, 2, 3, 4]


def test_waiting_for_a_connection_is_not_in_the_response_time(slow, share):
    shared = share(1)
    greenlets = gevent.joinall([gevent.spawn(shared.exchange, origin(slow), GET % i) for i in range(4)])
    answers = [g.get() for g in greenlets]
    for before, after in pairwise(answers):
        assert after.written_ns > before.last_byte_ns - MS
    assert all(answer.first_byte_ns - answer.written_ns > 49 * MS for answer in answers)


def test_the_limit_is_for_each_origin(holding, serve, ok_answer, share):
    (server, go_on), other, shared = holding, serve(ok_answer()), share(1)
    waiting = gevent.spawn(shared.exchange, origin(server), GET % 1)
    gevent.sleep(0.01)
    assert shared.exchange(origin(other), GET % 2).status == 200
    assert not waiting.ready()
    go_on.set()
    assert waiting.get().status == 200


def test_a_user_killed_while_it_waits_leaves_its_turn_to_the_next(holding, share):
    (server, go_on), shared = holding, share(1)
    greenlets = [gevent.spawn(shared.exchange, origin(server), GET % i) for i in range(3)]
    gevent.sleep(0.01)
    greenlets[1].kill()
    go_on.set()
    assert greenlets[2].get().status == 200
    assert numbers(server) == [0, 2]


def test_a_user_killed_in_mid_exchange_gives_its_place_back_but_not_its_connection(holding, share):
    (server, go_on), shared = holding, share(1)
    first = gevent.spawn(shared.exchange, origin(server), GET % 0)
    second = gevent.spawn(shared.exchange, origin(server), GET % 1)
    gevent.sleep(0.01)
    first.kill()
    go_on.set()
    answer = second.get()
    assert (answer.status, answer.reused) == (200, False)


def test_a_failed_exchange_gives_its_place_back(share):
    shared, nowhere = share(1), Origin("http", "127.0.0.1", 1)
    greenlets = gevent.joinall([gevent.spawn(shared.exchange, nowhere, GET % i) for i in range(3)], timeout=5)
    assert [(type(g.value), g.value.name) for g in greenlets] == [(Failure, "ECONNREFUSED")] * 3


def transports(server, told, env=None, **http):
    text = json.dumps(
        {"config": {"target": server.url, "http": http}, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}
    )
    script = parse_script([("s.json", text)], RunOptions(env=env or {}), lambda _: b"")
    return Transports(script, WallOffset(), told.append)


def test_with_a_pool_users_share_and_without_they_do_not(slow):
    for pool, connections in ((1, 1), (None, 2)):
        made = transports(slow, [], **({"pool": pool} if pool else {}))
        before = slow.connections
        for _ in range(2):
            user = made()
            user.exchange(origin(slow), GET % 0)
            user.close()
        made.close()
        assert slow.connections - before == connections


def test_debugging_shows_requests_and_answers(slow):
    told = []
    user = transports(slow, told, env={"DEBUG": "http"})()
    user.exchange(origin(slow), GET % 7, want_body=False)
    user.exchange(Origin("http", "127.0.0.1", 1), GET % 8)
    user.close()
    assert told[0].splitlines()[:2] == [f"http:request {slow.url}", "  GET /7 HTTP/1.1"]
    assert told[1].splitlines()[1] == "  HTTP/1.1 200 OK" and told[1].endswith("  ok")
    assert told[3] == "http:response none: ECONNREFUSED (connect)"


@pytest.mark.parametrize(
    ("debug", "shown"), [("http", True), ("*", True), ("x,http:request", True), ("httpd", False), ("", False)]
)
def test_which_debug_settings_are_ours(debug, shown):
    text = '{"config": {"target": "http://h"}, "scenarios": [{"flow": []}]}'
    assert parse_script([("s.json", text)], RunOptions(env={"DEBUG": debug}), lambda _: b"").debug is shown
