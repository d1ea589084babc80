"""The server of the live page, asked over real connections."""

import json
from http.client import HTTPConnection

import gevent
import pytest
from gevent import socket

from loadgen.engine import Progress
from loadgen.watch.live import (
    WINDOW,
    LiveError,
    LivePage,
    LiveServer,
    of_errors_and_endpoints,
    parse_address,
    snapshot_of,
    with_rates,
)
from loadgen.watch.observer import RunningTotals, Underway
from reports.formats.artillery_json import from_json
from reports.model import Period
from reports.sketch import Sketch
from tests.support.sample_reports import report

TOKEN = "the-token"


class Run:
    """A run that advances when it is looked at."""

    def __init__(self):
        self.seconds = 0
        self.stopped = 0

    def snapshot(self):
        self.seconds += 1
        return snapshot_of(Progress(float(self.seconds), 3, 10 * self.seconds, 9 * self.seconds, self.seconds), None)

    def stop(self):
        self.stopped += 1


@pytest.fixture
def fake_run():
    return Run()


@pytest.fixture
def live(fake_run):
    with LiveServer(("127.0.0.1", 0), fake_run.snapshot, fake_run.stop, TOKEN, every_s=0.01) as server:
        yield server


def ask(live, method="GET", path="/", body=None, **headers):
    """(status, headers, body)."""
    connection = open_connection(live)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def open_connection(live):
    connection = HTTPConnection("127.0.0.1", int(live.url.rpartition(":")[2].rstrip("/")), timeout=5)
    connection._create_connection = socket.create_connection  # gevent's: the server lives in this thread
    return connection


class Events:
    """A stream of server-sent events, read one by one."""

    def __init__(self, live, **headers):
        self.connection = open_connection(live)
        self.connection.request("GET", "/events", headers=headers)
        self.answer = self.connection.getresponse()

    def next(self):
        """(event, id, data) of the next message with data."""
        fields = {"event": "message", "id": ""}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if not line and "data" in fields:
                return fields["event"], fields["id"], json.loads(fields["data"])
            name, _, value = line.partition(": ")
            fields[name] = value

    def close(self):
        self.connection.close()


def test_an_address_may_leave_out_the_host_and_then_is_loopback():
    assert parse_address("8089") == ("127.0.0.1", 8089)
    assert parse_address("0.0.0.0:0") == ("0.0.0.0", 0)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("load.example:8089") == ("load.example", 8089)


@pytest.mark.parametrize(
    "text", ["", "x", "127.0.0.1", "1:2:x", ":80", "70000", "-1", "٣", "host:", "a..b:80", "9" * 5000]
)
def test_an_invalid_address_is_refused_in_one_line(text):
    with pytest.raises(LiveError, match="invalid address") as error:
        parse_address(text)
    assert "\n" not in str(error.value)


def test_a_port_in_use_is_told_in_one_line(live, fake_run):
    address = parse_address(live.url.removeprefix("http://").rstrip("/"))
    with pytest.raises(LiveError, match=r"cannot serve the live page on 127\.0\.0\.1:\d+: Address") as error:
        LiveServer(address, fake_run.snapshot, fake_run.stop).start()
    assert "\n" not in str(error.value)


def test_rates_are_of_the_time_between_two_snapshots():
    before = {"elapsed_s": 1.0, "requests": 10, "responses": 8, "errors": 0}
    now = {"elapsed_s": 3.0, "requests": 30, "responses": 9, "errors": 5}
    rates = with_rates(now, before)
    assert (rates["requests_per_s"], rates["responses_per_s"], rates["errors_per_s"]) == (10, 0.5, 2.5)
    assert with_rates(now, None) == now


def test_a_snapshot_has_the_percentiles_that_have_samples():
    period = report(1, periods=1).periods[0]
    found = snapshot_of(Progress(2.0, 1, 5, 4, 0), period, planned_s=10, workers=2)
    sketch = period.sketches["server.pool"]
    assert found["pool_wait_ms"]["p95"] == round(sketch.quantile(0.95), 3)
    assert found["response_ms"]["p50"] < found["response_ms"]["p99"]
    assert (found["workers"], found["planned_s"], found["active_vus"]) == (2, 10, 1)
    assert "response_ms" not in snapshot_of(Progress(2.0, 1, 5, 4, 0), None)


def test_events_come_numbered_with_rates_and_are_not_to_be_stored(live):
    events = Events(live)
    assert events.answer.getheader("Content-Type").startswith("text/event-stream")
    assert events.answer.getheader("Cache-Control") == "no-store"
    seen = [events.next() for _ in range(4)]
    assert [event for event, *_ in seen] == ["message"] * 4
    numbers = [int(number) for _, number, _ in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert seen[-1][2]["requests_per_s"] == 10
    assert seen[-1][2]["active_vus"] == 3
    events.close()


def test_a_page_that_comes_back_gets_what_it_missed_and_nothing_twice(live):
    events = Events(live)
    last = [events.next() for _ in range(2)][-1][1]
    events.close()
    gevent.sleep(0.1)
    again = Events(live, **{"Last-Event-ID": last})
    assert int(again.next()[1]) == int(last) + 1
    again.close()


@pytest.mark.parametrize("given", ["x", "-1", "99999999", "9" * 50, ""])
def test_an_id_of_another_run_gets_everything(live, given):
    gevent.sleep(0.05)
    events = Events(live, **{"Last-Event-ID": given})
    assert events.next()[1] == "1"
    events.close()


def test_what_is_kept_for_late_pages_is_bounded(live, fake_run):
    live._every_s = 0.0
    while fake_run.seconds < WINDOW + 50:
        gevent.sleep(0.01)
    events = Events(live)
    assert int(events.next()[1]) > 1
    events.close()


def test_the_page_allows_scripts_of_its_own_only(live):
    status, headers, body = ask(live)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "<script>" not in body
    for path, kind in (("/live.js", "text/javascript"), ("/live.css", "text/css")):
        assert ask(live, path=path)[1]["content-type"].startswith(kind)


def test_stopping_needs_a_post_with_the_token(live, fake_run):
    assert ask(live, "GET", f"/stop?token={TOKEN}")[0] == 405
    assert ask(live, "POST", "/stop")[0] == 403
    assert ask(live, "POST", "/stop", "the-tokem")[0] == 403
    assert ask(live, "POST", f"/stop?token={TOKEN}", "")[0] == 403
    assert ask(live, "POST", "/stop", "x" * 10_000)[0] == 413
    assert fake_run.stopped == 0
    assert ask(live, "POST", "/stop", TOKEN)[0] == 202
    gevent.sleep(0)
    assert fake_run.stopped == 1


def test_a_token_is_made_up_where_none_is_given(fake_run):
    tokens = {LiveServer(("127.0.0.1", 0), fake_run.snapshot, fake_run.stop).token for _ in range(5)}
    assert len(tokens) == 5
    assert min(map(len, tokens)) >= 20


def test_names_that_are_pointed_at_this_host_from_elsewhere_are_not_served(live):
    assert ask(live, Host="evil.example")[0] == 421
    assert ask(live, Host="localhost:1234")[0] == 200
    assert ask(live, Host="[::1]")[0] == 200
    assert ask(live, Host="[")[0] == 421


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("PUT", "/", 405), ("POST", "/events", 405)]
)
def test_anything_else_is_refused(live, method, path, status):
    assert ask(live, method, path)[0] == status


def test_after_the_end_the_page_is_the_report_and_open_pages_are_told(live, fake_run):
    events = Events(live)
    events.next()
    live.finish(report(1, periods=2))
    while (event := events.next())[0] == "message":
        pass
    assert event[0] == "finished"
    events.close()
    status, _, body = ask(live)
    assert status == 200
    assert "<h1>Load test report</h1>" in body
    assert ask(live, "POST", "/stop", TOKEN)[0] == 409
    late = Events(live)
    while (event := late.next())[0] == "message":
        pass
    assert event[0] == "finished"
    late.close()


def test_closing_waits_for_open_pages_to_fetch_the_report(fake_run):
    live = LiveServer(("127.0.0.1", 0), fake_run.snapshot, fake_run.stop, every_s=0.01)
    live.start()
    events = Events(live)
    events.next()
    live.finish(report(1, periods=2))
    closing = gevent.spawn(live.close, 5.0)
    gevent.sleep(0.05)
    assert not closing.ready()
    assert "Load test report" in ask(live)[2]
    closing.get(timeout=5)
    events.close()


def test_closing_without_a_reader_does_not_wait(fake_run):
    live = LiveServer(("127.0.0.1", 0), fake_run.snapshot, fake_run.stop)
    live.start()
    live.finish(report(1, periods=2))
    with gevent.Timeout(2):
        live.close(60.0)


@pytest.mark.parametrize("stays", [True, False])
def test_who_has_seen_the_run_may_load_the_report_again_after_the_end(fake_run, stays):
    """Whether the page is still open at the end, or was left before."""
    live = LiveServer(("127.0.0.1", 0), fake_run.snapshot, fake_run.stop, every_s=0.01)
    live.start()
    assert "in progress" in ask(live)[2]
    events = Events(live)
    events.next()
    if not stays:
        events.close()
    live.finish(report(1, periods=2))
    closing = gevent.spawn(live.close, 5.0, 30.0)
    for _ in range(2):
        assert "Load test report" in ask(live)[2]
        gevent.sleep(0.1)
    assert not closing.ready()
    # As Ctrl-C does.
    closing.kill()
    live.close()
    events.close()


def test_after_the_end_the_report_can_be_downloaded(live):
    assert ask(live, path="/report.json")[0] == 404
    finished = report(1, periods=2)
    live.finish(finished)
    status, _, body = ask(live, path="/report.json")
    assert status == 200
    assert from_json(body).aggregate == finished.aggregate
    assert '<a href="report.json" download>' in ask(live)[2]


def test_a_snapshot_has_a_row_for_each_endpoint_and_for_each_kind_of_error():
    sketch = Sketch.of([1.0, 2.0, 3.0])
    total = Period(
        0,
        {
            "errors.ECONNRESET": 1,
            "errors.ETIMEDOUT": 7,
            "plugins.metrics-by-endpoint.GET /a.codes.200": 2,
            "plugins.metrics-by-endpoint.GET /a.codes.503": 1,
            "plugins.metrics-by-endpoint.GET /b.codes.x.errors.ETIMEDOUT": 7,
            "http.codes.200": 2,
        },
        sketches={"plugins.metrics-by-endpoint.response_time.GET /a": sketch, "http.response_time.2xx": sketch},
    )
    found = snapshot_of(Progress(2.0, 1, 5, 4, 0), None, total=of_errors_and_endpoints(total))
    first, second = found["endpoints"]
    assert (first["name"], first["answers"], first["kinds"]) == ("GET /a", 3, [("200", 2), ("503", 1)])
    assert first["p50"] == pytest.approx(2.0, rel=0.02)
    assert second == {"name": "GET /b.codes.x", "answers": 0, "kinds": [("ETIMEDOUT", 7)]}
    assert found["errors_by_kind"] == [("ETIMEDOUT", 7), ("ECONNRESET", 1)]


def test_errors_and_endpoints_are_added_up_over_all_periods():
    """Periods are seen as they grow, and each once more when it is over."""
    time, code = "plugins.metrics-by-endpoint.response_time./a", "plugins.metrics-by-endpoint./a.codes.200"
    now = []
    underway = Underway(lambda: Period(0), lambda: now[-1], lambda: Progress(1.0, 0, 0, 0, 0), lambda: None)
    totals = RunningTotals(of_errors_and_endpoints)
    totals.follow(underway)
    for start, timeouts, over in [(10_000, 1, False), (10_000, 3, True), (20_000, 2, False), (20_000, 5, False)]:
        counters = {"errors.ETIMEDOUT": timeouts, "http.requests": 9, code: timeouts}
        now.append(Period(start, counters, sketches={time: Sketch.of([4.0] * timeouts)}))
        total = totals.so_far(underway)
        if over:
            underway.period_over(now[-1])
    assert total.counters == {"errors.ETIMEDOUT": 8, code: 8}
    assert total.sketches[time].count == 8
    assert totals.so_far(underway).counters == total.counters


def test_the_page_names_what_is_run():
    said = []
    page = LivePage("127.0.0.1:0", [("Script", "a.yml"), ("Target", "http://<b>")], 10.0, 1, said.append)
    with page.observe(Underway(lambda: Period(0), lambda: None, lambda: Progress(1.0, 0, 0, 0, 0), lambda: None)):
        body = ask(page.server)[2]
    page.close()
    assert "<dd>a.yml</dd>" in body
    assert "<dd>http://&lt;b&gt;</dd>" in body
