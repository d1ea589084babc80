"""The scraper's page: the totals of the recorder in the text format, whoever gathered them."""

import json
import re
import socket
import sys
import urllib.error
import urllib.request
from http.client import HTTPConnection

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Progress
from loadgen.recorder import Recorder
from loadgen.watch.live import LiveError, host_allowed
from loadgen.watch.observer import ObserverError, Underway
from loadgen.watch.prometheus import BOUNDS_S, count_up_to, exposition, observer, serving
from reports.model import Period
from reports.sketch import Sketch
from tests.support.exchanges import answer, filed
from tests.support.server_process import read_until, wait_until

AT_WORK = Progress(1.0, 7, 0, 0, 0)


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.values())] = sample.value
    return found


def shown(recorder):
    return samples(exposition(lambda: recorder.report().aggregate, lambda: AT_WORK)().decode())


def test_totals_are_those_of_the_recorder():
    recorder = Recorder(WallOffset())
    for status in (200, 200, 503):
        recorder.request(now_ns())
        filed(recorder, answer(now_ns(), status=status, body_bytes=10))
    recorder.count("errors.ECONNRESET", 2)
    recorder.count("vusers.created")
    found = shown(recorder)
    assert found["poolbench_requests_total",] == 3
    assert found["poolbench_responses_total", "200"] == 2
    assert found["poolbench_responses_total", "503"] == 1
    assert found["poolbench_errors_total", "ECONNRESET"] == 2
    assert found["poolbench_downloaded_bytes_total",] == 30
    assert found["poolbench_vusers_total", "created"] == 1
    assert found["poolbench_vusers_active",] == 7


def test_response_times_are_a_histogram_in_seconds():
    recorder = Recorder(WallOffset())
    for waited_ms in (0.2, 3, 30, 30_000):
        filed(recorder, answer(now_ns(), waited_ns=int(waited_ms * 1e6)))
    found = shown(recorder)
    name = "poolbench_response_time_seconds_bucket"
    assert [found[name, bound] for bound in ("0.0001", "0.00025", "0.005", "0.05", "10.0", "+Inf")] == [
        0,
        1,
        2,
        3,
        3,
        4,
    ]
    assert found["poolbench_response_time_seconds_sum",] == pytest.approx(30.0332)


def test_before_anything_was_sent_everything_is_zero():
    found = shown(Recorder(WallOffset()))
    assert found["poolbench_requests_total",] == 0
    assert found["poolbench_response_time_seconds_count",] == 0


@given(st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=50), st.sampled_from(BOUNDS_S))
def test_a_bucket_is_exact_but_for_samples_within_the_accuracy_of_its_bound(values_ms, bound_s):
    bound_ms = bound_s * 1000
    counted = count_up_to(Sketch.of(values_ms), bound_ms)
    assert sum(v <= bound_ms * 0.98 for v in values_ms) <= counted <= sum(v <= bound_ms * 1.0203 for v in values_ms)


def test_only_metrics_are_served():
    recorder = Recorder(WallOffset())
    with serving(("127.0.0.1", 0), lambda: recorder.report().aggregate, lambda: AT_WORK) as (host, port):
        fetched = gevent.get_hub().threadpool.spawn(_fetch, f"http://{host}:{port}").get()
    assert fetched == (200, "text/plain", 404)


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1", 200), ("localhost:9090", 200), ("[::1]:9090", 200), ("127.8.9.1", 200), ("[::ffff:7f00:1]:9090", 200),
    ("evil.example", 421), ("", 421),
    ("localhost.evil.example", 421), ("[", 421), ("192.0.2.1", 421),
])  # fmt: skip
def test_names_that_are_pointed_at_this_host_from_elsewhere_are_not_served(host, status):
    environ = {"PATH_INFO": "/metrics", "HTTP_HOST": host}
    for listening in ("127.0.0.1", "localhost", "LOCALHOST", "127.1", "0x7f000001", "::1", "::ffff:127.0.0.1"):
        assert host_allowed(listening, environ) is (status == 200)
    assert host_allowed("0.0.0.0", environ) is True
    # Under the name that was given, too: some systems call themselves 127.0.1.1.
    assert host_allowed("localhost.localdomain", {"HTTP_HOST": "Localhost.Localdomain:9090"})
    with serving(("127.0.0.1", 0), lambda: Period(0), lambda: AT_WORK) as (_, port):
        assert gevent.get_hub().threadpool.spawn(_status, port, host).get() == status


def _status(port, host):
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"Host": host})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def _fetch(base):
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as page:
        status, kind = page.status, page.headers.get_content_type()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/", timeout=30)
    with refused.value:
        return status, kind, refused.value.code


def test_an_address_that_is_taken_is_named_in_one_line(monkeypatch):
    with pytest.raises(LiveError):
        observer("nowhere", print)
    underway = Underway(lambda: None, lambda: None, lambda: AT_WORK, lambda: None)
    with serving(("127.0.0.1", 0), print, print) as (_, port):
        second = observer(str(port), print)(underway)
        with pytest.raises(ObserverError, match=f"cannot serve metrics on {port}: Address already in use"):
            second.__enter__()

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # No name server is asked.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        ObserverError, match=r"cannot serve metrics on no-such-host\.invalid:0: Name or service not known"
    ):
        observer("no-such-host.invalid:0", print)(underway).__enter__()


def test_the_address_that_is_printed_is_a_url():
    told = []
    underway = Underway(lambda: None, lambda: None, lambda: AT_WORK, lambda: None)
    with observer("[::1]:0", told.append)(underway):
        assert re.fullmatch(r"Metrics: http://\[::1\]:\d+/metrics", told[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_run_is_scraped_while_it_goes_on(serve, ok_answer, start_process, tmp_path, workers):
    path = tmp_path / "script.yml"
    server = serve(ok_answer())
    phases = [{"duration": 4, "arrivalRate": 20}]
    flow = [{"get": {"url": "/"}}]
    path.write_text(json.dumps({"config": {"target": server.url, "phases": phases}, "scenarios": [{"flow": flow}]}))
    command = [sys.executable, "-m", "loadgen", "run", str(path), "-q", "--prometheus", "0", "--workers", workers]
    run = start_process(command)
    url = read_until(run.stderr, "Metrics: ").removeprefix("Metrics: ").strip()
    found = {}

    def told():
        with urllib.request.urlopen(url, timeout=30) as page:
            found.update(samples(page.read().decode()))
        return found.get(("poolbench_responses_total", "200"), 0) > 20

    wait_until(told)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert 20 < found["poolbench_responses_total", "200"] <= 80
    assert found["poolbench_response_time_seconds_count",] == found["poolbench_responses_total", "200"]
