"""`publish-metrics`: what a push gateway and a collector are sent, and that one that fails disturbs nothing."""

import json
import subprocess
import sys
import time

import pytest

from loadgen.script.model import OpenTelemetry
from loadgen.watch.observer import ObserverError
from loadgen.watch.publish import observer
from tests.loadgen.conftest import ok
from tests.support.loadgen_process import apart_from_a_busy_machine
from tests.support.recording_gateway import recording_gateway


def run(tmp_path, target, receivers, *options, phases=({"duration": 1, "arrivalCount": 4},)):
    path = tmp_path / "script.json"
    config = {"target": target, "phases": list(phases), "plugins": {"publish-metrics": receivers}}
    path.write_text(json.dumps({"config": config, "scenarios": [{"name": "Any One", "flow": [{"get": {"url": "/"}}]}]}))
    command = [sys.executable, "-m", "loadgen", "run", "-q", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=" ".join)
def test_a_push_gateway_has_every_metric_of_the_run_at_its_end(tmp_path, serve, options):
    with recording_gateway() as gateway:
        receiver = {"type": "prometheus", "pushgateway": gateway.url, "tags": ["team:a", "x:1"], "prefix": "mine"}
        done = run(tmp_path, serve(ok()).url, [receiver], "-o", str(tmp_path / "report.json"), *options)
    assert (done.returncode, apart_from_a_busy_machine(done.stderr)) == (0, [])
    *_, last = gateway.pushed()
    *_, period = json.loads((tmp_path / "report.json").read_text())["intermediate"]
    assert last['mine_counters{metric="vusers_created_by_name_any_one",team="a",x="1"}'] == "4"
    assert last['mine_counters{metric="http_codes_200",team="a",x="1"}'] == "4"
    # A mean over slices of the wall clock: where the four requests fall into two, it is less than 4.
    rate = period["rates"]["http.request_rate"]
    assert last['mine_rates{metric="http_request_rate",team="a",x="1"}'] == str(rate) and 1 <= rate <= 4
    assert 'mine_summaries{metric="http_response_time_p999",team="a",x="1"}' in last
    assert last["# TYPE mine_counters"] == "counter"
    assert not [name for name in last if "start_lag" in name or "intended" in name]


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"])
@pytest.mark.parametrize("value", ["collector:4317", "collector", "ftp://collector", "http://", "http://[::1"])
def test_a_variable_that_names_no_url_is_refused_before_anything_is_sent(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ObserverError, match=rf"{variable}: .* is no URL"):
        observer((), (OpenTelemetry(),), print)


def test_a_collector_is_sent_the_metrics_that_were_asked_for(tmp_path, serve):
    with recording_gateway() as gateway:
        metrics = {
            "endpoint": f"{gateway.url}/v1/metrics", "headers": {"x-key": "k"}, "attributes": {"team": "a"},
            "includeOnly": ["http.requests", "http.response_time"], "exclude": ["http.response_time"],
        }  # fmt: skip
        done = run(tmp_path, serve(ok()).url, [{"type": "open-telemetry", "serviceName": "svc", "metrics": metrics}])
    assert (done.returncode, apart_from_a_busy_machine(done.stderr)) == (0, [])
    assert gateway.posts[0][1]["x-key"] == "k"
    documents = list(gateway.collected())
    assert {name for _, found in documents for name in found} == {"http.requests"}
    points = [
        point
        for document, _ in documents
        for metric in document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
        for point in metric["sum"]["dataPoints"]
    ]
    assert sum(point["asDouble"] for point in points) == 4
    assert points[0]["attributes"][0] == {"key": "team", "value": {"stringValue": "a"}}
    resource = documents[0][0]["resourceMetrics"][0]["resource"]["attributes"]
    assert resource[0] == {"key": "service.name", "value": {"stringValue": "svc"}}


@pytest.mark.slow
def test_a_gateway_that_is_down_or_answers_with_an_error_is_told_once(tmp_path, serve):
    with recording_gateway(500) as gateway:
        receivers = [{"type": "prometheus", "pushgateway": url} for url in (gateway.url, "http://127.0.0.1:1")]
        done = run(
            tmp_path, serve(ok()).url, receivers, "--no-calibration", phases=[{"duration": 11, "arrivalRate": 1}]
        )
    assert done.returncode == 0
    assert len(gateway.posts) >= 2
    assert sorted(apart_from_a_busy_machine(done.stderr)) == sorted(
        [
            f"Warning: publish-metrics: {gateway.url} did not take the metrics (HTTP 500); the run goes on",
            "Warning: publish-metrics: http://127.0.0.1:1 did not take the metrics (ECONNREFUSED); the run goes on",
        ]
    )


@pytest.mark.slow
def test_a_gateway_that_never_answers_holds_a_run_up_for_seconds_only(tmp_path, serve):
    silent = serve(lambda *_: time.sleep(60))
    started = time.monotonic()
    done = run(tmp_path, serve(ok()).url, [{"type": "prometheus", "pushgateway": silent.url}])
    assert done.returncode == 0
    assert time.monotonic() - started < 30
    assert f"{silent.url} did not take the metrics (ETIMEDOUT)" in done.stderr


@pytest.mark.parametrize(
    ("receiver", "code", "said"),
    [
        ({"type": "datadog"}, 1, "metrics are not sent to datadog"),
        ({"type": "promethus"}, 1, "did you mean `prometheus`?"),
        ({"type": "prometheus"}, 1, "a push gateway needs its URL, `pushgateway`"),
        ({"type": "prometheus", "pushgateway": "http://h", "tag": []}, 1, "did you mean `tags`?"),
        ({"type": "prometheus", "pushgateway": "ftp://h"}, 1, "not a URL that metrics can be sent to"),
        ({"type": "prometheus", "pushgateway": "http://h", "ca": "no.pem"}, 1, "cannot read no.pem"),
        ({"type": "open-telemetry", "traces": {}}, 1, "traces are not sent"),
        ({"type": "open-telemetry", "metrics": {"exporter": "otlp-grpc"}}, 1, "by otlp-http only"),
        ({"type": "open-telemetry", "metrics": {"exporter": "x"}}, 1, "no such exporter: 'x'"),
        ({"type": "prometheus", "pushgateway": "http://h"}, 0, "no problems"),
    ],
)  # fmt: skip
def test_check_names_what_is_not_honoured(tmp_path, receiver, code, said):
    done = run(tmp_path, "http://127.0.0.1:1", [receiver], "--check")
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
