"""ApacheBench's workload: a number of requests shared by a number of users, with failures counted by kind."""

import threading
import time

import gevent
import pytest

from loadgen.clock import WallOffset, now_ns
from loadgen.closed import ClosedRun, Workload
from loadgen.http.route import Origin
from loadgen.recorder import Recorder


def run(server_port, *, stop_when=None, **work):
    """stop_when() tells whether the run is to be interrupted."""
    wall = WallOffset()
    recorder = Recorder(wall)
    closed = ClosedRun(Workload(Origin("http", "127.0.0.1", server_port), "/p?q=1", **work), recorder, wall, "test/1")
    if stop_when is not None:
        gevent.spawn(_stop, closed, stop_when)
    return closed, closed.run(), recorder.report().aggregate


def _stop(closed, when):
    while not when():
        gevent.sleep(0.005)
    closed.stop()


@pytest.mark.parametrize(("requests", "users"), [(1, 1), (7, 3), (50, 10), (10, 10)])
def test_exactly_the_requests_asked_for_are_made(serve, ok_answer, requests, users):
    server = serve(ok_answer())
    _, samples, total = run(server.port, requests=requests, concurrency=users)
    assert len(samples.total_us) == len(server.heads) == requests == total.counters["http.requests"]
    assert samples.failures.total == samples.non_2xx == 0


def test_each_request_has_a_connection_of_its_own_unless_kept_alive(serve, ok_answer):
    server = serve(ok_answer())
    run(server.port, requests=12, concurrency=3)
    assert server.connections == 12
    kept = serve(ok_answer(head=b"Connection: keep-alive\r\n"))
    _, samples, _ = run(kept.port, requests=12, concurrency=3, keep_alive=True)
    assert kept.connections == 3
    assert samples.keep_alive == 12


def test_an_answer_that_does_not_speak_of_keeping_the_connection_ends_it(serve, ok_answer):
    def once(connection, _):
        connection.sendall(ok_answer())
        connection.close()

    server = serve(once)
    _, samples, _ = run(server.port, requests=12, concurrency=2, keep_alive=True)
    assert (server.connections, samples.failures.total, samples.keep_alive) == (12, 0, 0)


def test_the_request_is_written_as_ab_writes_it(serve, ok_answer):
    server = serve(ok_answer())
    run(server.port, headers=[("X-A", "1"), ("accept", "text/html")])
    assert server.heads == [
        b"GET /p?q=1 HTTP/1.0\r\nX-A: 1\r\naccept: text/html\r\nHost: 127.0.0.1:%d\r\nUser-Agent: test/1" % server.port
    ]


def test_a_connection_header_of_the_users_own_decides_whether_connections_are_kept(serve, ok_answer):
    server = serve(ok_answer(head=b"Connection: keep-alive\r\n"))
    run(server.port, requests=3, keep_alive=True, headers=[("connection", "close")])
    assert server.connections == 3


def test_users_are_at_work_at_the_same_time(serve, ok_answer):
    all_have_asked = threading.Barrier(10, timeout=30)

    def late(connection, _):
        all_have_asked.wait()
        time.sleep(0.1)
        connection.sendall(ok_answer())

    _, samples, _ = run(serve(late).port, requests=10, concurrency=10)
    assert samples.answered == 10
    assert samples.total_us.min() > 99_000


def test_an_answer_of_another_length_than_the_first_is_a_length_failure(serve, ok_answer):
    count = iter(range(100))

    def growing(connection, _):
        connection.sendall(ok_answer(b"x" * (1 if next(count) % 2 else 2)))

    _, samples, _ = run(serve(growing).port, requests=10)
    assert (samples.failures.length, samples.document_length, len(samples.total_us)) == (5, 2, 10)


def test_answers_other_than_2xx_are_counted(serve):
    _, samples, _ = run(serve(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").port, requests=4)
    assert (samples.non_2xx, samples.failures.total) == (4, 0)


def test_a_connection_closed_without_an_answer_is_a_length_failure_as_in_ab_and_does_not_end_the_run(serve, ok_answer):
    count = iter(range(100))

    def now_and_then(connection, _):
        if next(count) % 3:
            connection.sendall(ok_answer())
        return False

    _, samples, total = run(serve(now_and_then).port, requests=9)
    # The first one came before there was a length to compare with.
    assert (samples.failures.receive, samples.failures.length, len(samples.total_us)) == (1, 2, 9)
    assert total.counters["errors.ECONNRESET"] == 3


def test_an_answer_that_does_not_come_is_an_exception(serve):
    _, samples, total = run(serve(lambda *_: gevent.sleep(1)).port, requests=2, concurrency=2, timeout_s=0.2)
    assert samples.failures.exceptions == 2
    assert total.counters["errors.ETIMEDOUT"] == 2


def test_a_target_that_refuses_everything_is_given_up():
    closed, samples, _ = run(1, requests=1000, concurrency=5)
    assert closed.refused == "ECONNREFUSED"
    assert len(samples.total_us) == 0
    assert samples.failures.connect > 10


def test_a_target_that_dies_is_given_up_and_each_finished_request_is_told_once(serve, ok_answer):
    def answer_and_die(connection, _):
        server.stop_listening()
        connection.sendall(ok_answer())
        return False

    server = serve(answer_and_die)
    told, wall = [], WallOffset()
    recorder = Recorder(wall)
    work = Workload(Origin("http", "127.0.0.1", server.port), "/", requests=1000, concurrency=2)
    closed = ClosedRun(work, recorder, wall, "test/1", told.append)
    samples = closed.run()
    assert closed.refused == "ECONNREFUSED"
    assert samples.answered >= 1
    assert told == list(range(1, len(samples.total_us) + 1))
    assert 10 < samples.failures.connect < 20


def test_refused_connections_let_an_interrupt_through(monkeypatch):
    monkeypatch.setattr("loadgen.closed._REFUSED_MAX", 10**9)
    until_ns = now_ns() + 50_000_000
    closed, samples, _ = run(1, requests=1000, concurrency=3, stop_when=lambda: now_ns() > until_ns)
    assert closed.interrupted
    assert len(samples.total_us) == 0


def test_the_time_limit_ends_the_run(serve, ok_answer):
    before = now_ns()
    _, samples, _ = run(serve(ok_answer()).port, requests=10**9, concurrency=2, duration_s=0.3)
    assert 0.29 < samples.time_taken_s < (now_ns() - before) / 1e9
    assert len(samples.total_us) > 10


def test_an_interrupted_run_keeps_what_it_has(serve, ok_answer):
    server = serve(ok_answer())
    closed, samples, _ = run(server.port, requests=10**9, concurrency=2, stop_when=lambda: len(server.heads) > 20)
    assert closed.interrupted
    assert len(samples.total_us) > 10


def test_requests_without_an_answer_at_the_interrupt_are_counted(serve):
    def silent(connection, _):
        gevent.sleep(5)

    server = serve(silent)
    _, samples, total = run(server.port, requests=9, concurrency=4, stop_when=lambda: len(server.heads) == 4)
    assert total.counters["http.requests"] == 4
    assert len(samples.total_us) == samples.answered == 0


def test_many_answers_of_several_kinds_are_all_counted(serve, ok_answer):
    def mixed(connection, head):
        answers.append(0)
        kind = len(answers) % 4
        connection.sendall(
            ok_answer((b"a", b"bb", b"a", b"a")[kind], kept + (b"", b"", b"Set-Cookie: a=1\r\n", b"")[kind])
        )

    kept, answers = b"Connection: keep-alive\r\n", []
    _, samples, total = run(serve(mixed).port, requests=2800, concurrency=4, keep_alive=True)
    assert samples.answered == samples.keep_alive == len(samples.total_us) == 2800 == total.counters["http.codes.200"]
    assert total.counters["http.requests"] == total.counters["http.responses"] == 2800
    assert samples.html_bytes == total.counters["http.downloaded_bytes"] == 2100 + 700 * 2
    # Whichever answer is read first sets the length; all of the other length count as failures.
    assert samples.failures.length in (700, 2100)
    assert (samples.connect_us > 0).sum() == 4
    assert (samples.total_us >= samples.connect_us + samples.waiting_us - 1).all()


def test_littles_law_holds(serve, ok_answer):
    """Users = throughput x time in the system, for a closed workload without pauses."""
    _, samples, _ = run(serve(ok_answer()).port, requests=500, concurrency=4)
    in_flight = samples.total_us.sum() / 1e6 / samples.time_taken_s
    assert in_flight == pytest.approx(4, rel=0.15)
