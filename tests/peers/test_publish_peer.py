"""What Artillery's publish-metrics sends for a script, and what ours sends for it: the same names, labels and shapes."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.recording_gateway import recording_gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def sent(command, environment, tmp_path):
    with recording_gateway() as gateway:
        receivers = [
            {"type": "prometheus", "pushgateway": gateway.url, "tags": ["a:b", "c:d:e"], "prefix": "my"},
            {"type": "open-telemetry", "serviceName": "svc", "metrics": {
                "endpoint": f"{gateway.url}/v1/metrics", "attributes": {"team": "t"}, "exclude": ["http.codes.202"]}},
        ]  # fmt: skip
        config = {
            "target": gateway.url,
            "phases": [{"duration": 2, "arrivalCount": 6}],
            "plugins": {"publish-metrics": receivers},
        }
        flow = [{"post": {"url": "/one two", "body": "x"}}]
        path = tmp_path / "script.json"
        path.write_text(json.dumps({"config": config, "scenarios": [{"name": "A  B.c", "flow": flow}]}))
        # Periods begin at whole ten seconds. A run in one of them sends all its counts at once.
        time.sleep(-time.time() % 10)
        subprocess.run([*command, "run", "-q", str(path)], env=environment, timeout=90, check=True, capture_output=True)
    *_, pushed = gateway.pushed()
    documents = list(gateway.collected())
    return pushed, documents[-1][0], {name: shaped for _, found in documents for name, shaped in found.items()}


def test_the_metrics_have_artillerys_names_labels_and_shapes(artillery, tmp_path):
    command, environment = artillery
    theirs = sent([command], environment, tmp_path)
    ours = sent([sys.executable, "-m", "loadgen"], None, tmp_path)
    assert ours[0].keys() == theirs[0].keys()
    counted = {name for name in theirs[0] if "_counters{" in name or name.endswith('_count"')}
    assert {name: ours[0][name] for name in counted} == {name: theirs[0][name] for name in counted}
    assert ours[2] == theirs[2]
    first = [each[1]["resourceMetrics"][0]["resource"]["attributes"][0] for each in (ours, theirs)]
    assert first[0] == first[1]
