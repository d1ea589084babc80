"""Following requests changes nothing that a WSGI server or its client can see, and notes when each request has been answered."""

import io
import threading
import urllib.request
from types import SimpleNamespace
from wsgiref.handlers import SimpleHandler

import flask
import pytest
import waitress.server
from gunicorn.http.wsgi import FileWrapper
from waitress import wasyncore
from werkzeug.test import EnvironBuilder

from poolbench.endpoints import watched_requests
from poolbench.loan_book import BOOK
from poolbench.shares import Shares
from poolbench.tally import Tally
from tests.support.server_process import wait_until


class Parts:
    """An answer of two parts that counts how often it is closed; `broken`: it raises after the first part."""

    def __init__(self, broken=False):
        self.broken, self.closed = broken, 0

    def __iter__(self):
        yield b"one"
        if self.broken:
            raise ValueError("broken midway")
        yield b"two"

    def close(self):
        self.closed += 1


def serve(application, environ=None):
    """The answer of the wrapped application, and the request that is being followed."""
    answer = watched_requests(application)({"REQUEST_METHOD": "GET", **(environ or {})}, lambda *_: None)
    return answer, BOOK.requests.get(BOOK.current())


@pytest.mark.parametrize("parts_read", [0, 1, 2], ids=["HEAD", "the client leaves", "whole"])
def test_an_answer_is_closed_once_and_then_the_request_has_been_answered(parts_read):
    parts = Parts()
    answer, request = serve(lambda *_: parts)
    read = iter(answer)
    assert [next(read) for _ in range(parts_read)] == [b"one", b"two"][:parts_read]
    assert not request.ended_ns and not hasattr(answer, "__len__")
    answer.close()
    assert parts.closed == 1 and request.ended_ns and BOOK.current() not in BOOK.requests


def test_a_streamed_answer_has_the_name_of_its_route():
    application = flask.Flask(__name__)

    @application.get("/towns/<int:town>.csv")
    def export(town):
        def lines():
            yield BOOK.requests[BOOK.current()].name

        return flask.Response(lines())

    answer, _ = serve(application.wsgi_app, EnvironBuilder("/towns/7.csv").get_environ())
    assert b"".join(answer) == b"GET /towns/<int:town>.csv"
    answer.close()


@pytest.mark.parametrize(
    ("weight", "rule", "name"),
    [(0, None, "GET /towns/…"), (None, None, "GET /towns/…"), (0, "/towns/<int:id>", "GET /towns/<int:id>"),
     (4, None, "GET /towns/…")],
    ids=["drawn as not to be noted", "without a loan", "named anew after it was drawn", "noted in full"],
)  # fmt: skip
def test_each_request_is_counted_once_with_its_time_under_its_name(monkeypatch, weight, rule, name):
    monkeypatch.setattr(BOOK, "shares", Shares())
    monkeypatch.setattr(BOOK, "tally", Tally(1, keeps_all=True))
    took_ns = []

    def application(*_):
        request = BOOK.requests[BOOK.current()]
        if weight is not None:
            request.weight, request.drawn_as = weight, request.name
        if rule is not None:
            request.rule = SimpleNamespace(rule=rule)
        return [b"one"]

    for number in range(30):
        answer, request = serve(application, {"PATH_INFO": f"/towns/{number}"})
        answer.close()
        answer.close()
        took_ns.append(request.ended_ns - request.began_ns)
        if number % 10 == 9:
            BOOK.tally.add_up()
    ((found, row),) = BOOK.tally.current.requests.items()
    assert (found, row.count, row.duration_ns) == (name, 30, sum(took_ns))
    # Under the name by which it was drawn, as the next of them will be.
    assert BOOK.tally.taken_costs()[1] == {"GET /towns/…": 30}


def test_an_answer_that_fails_midway_raises_as_it_is_and_is_closed_by_the_server():
    parts = Parts(broken=True)
    answer, request = serve(lambda *_: parts)
    with pytest.raises(ValueError, match="broken midway"):
        list(answer)
    answer.close()
    assert parts.closed == 1 and request.ended_ns


def test_an_application_that_fails_or_returns_no_answer_has_no_request_afterwards():
    def failing(*_):
        raise ValueError("no answer")

    for application, error in ((failing, ValueError), (lambda *_: None, TypeError)):
        with pytest.raises(error):
            serve(application)
        assert BOOK.current() not in BOOK.requests


class Handler(SimpleHandler):
    """wsgiref's handler, which takes the Content-Length from an answer of one part."""

    origin_server = False


@pytest.mark.parametrize("answer", [[b"one"], (b"one",), [b"one", b"two"], []])
def test_a_server_writes_the_same_bytes_with_and_without_following(answer):
    def application(_environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return answer

    written = []
    for each in (application, watched_requests(application)):
        into = io.BytesIO()
        Handler(io.BytesIO(), into, io.StringIO(), {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}).run(each)
        written.append(into.getvalue())
    assert written[0] == written[1]
    assert (b"Content-Length" in written[0]) is (len(answer) < 2)


def test_write_and_exc_info_of_start_response_reach_the_server():
    told = []

    def start_response(*given):
        told.append(given)
        return told.append

    def application(_environ, start):
        start("200 OK", [])(b"written")
        start("500 Sorry", [], ("kind", "error", None))
        return []

    watched_requests(application)({"REQUEST_METHOD": "GET"}, start_response).close()
    assert told == [("200 OK", []), b"written", ("500 Sorry", [], ("kind", "error", None))]


class Fixed:
    """A file_wrapper whose instances take no attributes, as of a server that is written in C."""

    __slots__ = ("file",)

    def __init__(self, file, _size=0):
        self.file = file


@pytest.mark.parametrize(
    "wrapper", [FileWrapper, lambda file, _size=0: file, Fixed], ids=["class", "function", "fixed"]
)
def test_the_answer_made_by_a_servers_file_wrapper_reaches_it_as_it_is(wrapper):
    file, made = io.BytesIO(b"content"), []

    def application(environ, _start):
        made.append(environ["wsgi.file_wrapper"](file))
        return made[0]

    answer, request = serve(application, {"wsgi.file_wrapper": wrapper})
    assert answer is made[0]
    if wrapper is Fixed:
        assert request is None
        return
    assert request is None or not request.ended_ns
    answer.close()
    assert file.closed and BOOK.current() not in BOOK.requests


def test_a_file_is_sent_by_the_server_in_another_thread_with_its_length(tmp_path):
    (tmp_path / "page").write_bytes(b"x" * 300_000)

    def application(environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"]((tmp_path / "page").open("rb"))

    server = waitress.server.create_server(watched_requests(application), host="127.0.0.1", port=0, threads=1)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.effective_port}/", timeout=10) as answer:
            assert answer.headers["Content-Length"] == "300000" and len(answer.read()) == 300_000
        # The server closes the file after it has sent the last of it.
        wait_until(lambda: not BOOK.requests, "the request has ended")
    finally:
        # By its own thread: closing sockets that it waits for would be an error there, which a later test would get.
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
        thread.join(10)
        server.task_dispatcher.shutdown()
