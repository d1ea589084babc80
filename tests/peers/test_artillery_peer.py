"""The lab's scripts under the real Artillery: the same requests, the same counters, the same kinds of figures."""

import json
import subprocess
import sys
from importlib.resources import files

import pytest

from tests.support.paths import ROOT

PHASES = json.dumps({"config": {"phases": [{"duration": 3, "arrivalRate": 40}]}})
SHIPPED = ["pool10.yml", "analytics.yml"]


@pytest.fixture
def service(postgres, start_service):
    server = start_service(DATABASE_URL=postgres.url, DB_POOL="queue", WEB_CONCURRENCY=1)
    seed = [sys.executable, "-m", "flask", "--app", "wsgi", "links", "seed", "200", "--clicks", "5"]
    subprocess.run(seed, check=True, cwd=ROOT, env={"DATABASE_URL": postgres.url}, capture_output=True)
    return server


def told(command, environment, out):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text())


def kinds(counters):
    """Counters by what they count: which of the two scenarios, links and endpoints was drawn is chance."""
    sums = {}
    for name, count in counters.items():
        kind = "by_name" if "created_by_name" in name else "endpoint" if "by-endpoint" in name else name
        if name in ("http.codes.200", "http.codes.301"):
            kind = "http.codes.200 or 301"
        sums[kind] = sums.get(kind, 0) + count
    return {kind: count for kind, count in sums.items() if kind != "http.downloaded_bytes"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_script_gives_the_same_counters_under_artillery(artillery, service, tmp_path, name):
    command, environment = artillery
    script = str(files("loadgen.lab") / "scripts" / name)
    target = ["-t", f"http://127.0.0.1:{service.port}", "--overrides", PHASES]
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    their_text, their_report = told([command, "run", *target, "-o", theirs, script], environment, theirs)
    our_text, our_report = told([sys.executable, "-m", "loadgen", "run", *target, "-o", ours, script], None, ours)
    assert kinds(our_report["aggregate"]["counters"]) == kinds(their_report["aggregate"]["counters"])
    assert set(our_report["aggregate"]["summaries"]) == set(their_report["aggregate"]["summaries"])
    assert our_report["aggregate"]["rates"].keys() == their_report["aggregate"]["rates"].keys()
    shown = [[line.split(":")[0] for line in text.partition("Summary report")[2].splitlines()[3:]]
             for text in (our_text, their_text)]  # fmt: skip
    assert shown[0] == shown[1]
