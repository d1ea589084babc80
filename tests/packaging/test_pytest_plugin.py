"""The fixture `load`, in somebody else's project with an application of its own, with the tool's wheel installed."""

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.verdicts import World, report
from reports.formats.artillery_json import to_json
from reports.model import Period, Report
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
import time
from flask import Flask

app = Flask(__name__)

@app.get("/")
def home():
    return "hello"

@app.get("/slow")
def slow():
    time.sleep(0.08)
    return "slow"

@app.get("/broken")
def broken():
    return "broken", 500
"""
CONFTEST = """
from threading import Thread
from types import SimpleNamespace
import pytest
from werkzeug.serving import make_server
from app import app

@pytest.fixture(scope="session")
def live_server():
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.port}")
    server.shutdown()
"""
SCRIPT = """
config:
  target: http://127.0.0.1:1
  phases: [{duration: 1, arrivalRate: 20}]
  variables: {path: "/"}
scenarios:
  - flow: [get: {url: "{{ path }}"}]
"""
REPORTS = "raise ImportError('a module of the project was imported by the tool')"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python whose environment has both wheels; what they depend on, and pytest, comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, ROOT, ROOT / "poolbench"], env=outside(), check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    found = folder / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", found, "--disable-pip-version-check", "install", "-q", "--no-deps"]
    subprocess.run([*pip, *folder.glob("*.whl")], env=outside(), check=True)
    [packages] = folder.glob("env/lib/python3*/site-packages")
    # A plain path: .pth files in there, such as the checkout's own, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return found


def outside():
    ours = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def project(tmp_path):
    """A project with an application, a load script beside its tests, and modules named as the tool's."""
    folder = tmp_path / "shop"
    for name, text in {
        "app.py": APP, "tests/conftest.py": CONFTEST, "tests/load.yml": SCRIPT, "reports.py": REPORTS, "db.py": REPORTS,
        "pytest.ini": "[pytest]\npythonpath = .\nfilterwarnings = error\n",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(python: Path, project: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests in the project."""
    (project / "tests/test_load.py").write_text(test)
    # Of the plugins that the environment of these tests has, none belongs to the project.
    quiet = [
        each for name in ("playwright", "base_url", "schemathesis", "xdist", "timeout") for each in ("-p", f"no:{name}")
    ]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quiet, *options]
    return subprocess.run(command, cwd=project, env=outside(), capture_output=True, text=True, timeout=200, check=False)


def test_a_quick_service_passes_and_its_figures_can_be_asserted(python, project):
    done = run(
        python,
        project,
        """
import math, socket, sys

def test_home(load, live_server):
    result = load("load.yml", target=live_server, rate=50, seconds=2)
    assert result.p99 < 2000 and 0 < result.p50 <= result.p95 <= result.p99 <= result.max
    assert result.failures == 0 and result.requests == 100 and 40 < result.rate < 60
    assert result.counters["http.codes.200"] == 100
    assert result.report.exists() and result.document["aggregate"]

def test_the_script_s_own_phases_variables_and_a_url(load, live_server):
    broken = load("load.yml", target=live_server.url, variables={"path": "/broken"})
    assert broken.failures == broken.requests == 20 and broken.errors == {"http.codes.500": 20}
    assert load(f"{live_server.url}/slow", rate=10, seconds=1).p50 >= 80

def test_nothing_of_the_tool_is_in_this_process(load):
    assert not {"gevent", "loadgen", "poolbench", "numpy", "reports"} & sys.modules.keys()
    assert not [each for each in sys.path if "poolbench_tool" in each]
    assert socket.socket.__module__ == "socket"

def test_a_service_that_is_not_there_has_infinite_times(load):
    result = load("load.yml", target="http://127.0.0.1:1", rate=10, seconds=1)
    assert result.p99 == math.inf and result.failures == 10
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"test_home: 100 requests, 0 failed, \S+ answers/s, p50 \S+, p95 \S+, p99 \S+ ms", done.stdout)


def test_what_does_not_hold_fails_with_a_readable_message(python, project):
    rng = np.random.default_rng(1)
    quiet = World("runs of one version do not differ", periods=12, rate=20, period_deviation=0.01)
    for name, world in {
        "baseline": quiet,
        "same": quiet,
        "slow": replace(quiet, factor=3.0),
        "short": replace(quiet, periods=1, rate=2),
    }.items():
        (project / f"tests/{name}.json").write_text(to_json(report(world, rng)))
    unanswered = {"http.requests": 600, "errors.ECONNREFUSED": 600}
    dead = Report.of([Period(0, unanswered, first_counter_ms=1000, last_counter_ms=9000)])
    (project / "tests/dead.json").write_text(to_json(dead))
    done = run(
        python,
        project,
        """
import pytest

def test_limit(load, live_server):
    assert load(f"{live_server.url}/slow", rate=10, seconds=1).p99 < 50

def test_same(load):
    assert load.read("same.json").not_worse_than("baseline.json")
    assert load.read("same.json").not_worse_than(load.read("baseline.json"), "same.json", unjudged="fail")

def test_worse(load):
    assert load.read("slow.json").not_worse_than("baseline.json")

def test_worse_in_one_figure(load):
    assert load.read("slow.json").not_worse_than("baseline.json", figures=["errors"])
    assert load.read("slow.json").not_worse_than("baseline.json", figures=["p50", "p95"])

def test_unjudged(load):
    assert load.read("short.json").not_worse_than("baseline.json", figures=["p99"])
    assert load.read("short.json").not_worse_than("baseline.json", figures=["p99"], unjudged="fail")

def test_a_figure_that_is_missing(load):
    assert load.read("same.json").not_worse_than("baseline.json", figures=["server.else.p99"])

def test_nothing_answered(load):
    assert load.read("dead.json").not_worse_than("dead.json")

def test_no_baseline(load):
    load.read("same.json").not_worse_than("nowhere.json")

def test_no_script(load):
    load("nowhere.yml")

def test_bad_script(load, tmp_path):
    (tmp_path / "bad.yml").write_text("scenarios: 7")
    load(tmp_path / "bad.yml", target="http://127.0.0.1:1")

def test_bad_use(load):
    with pytest.raises(ValueError, match="belong together"):
        load("load.yml", rate=5)
    with pytest.raises(ValueError, match="needs rate and seconds"):
        load("http://127.0.0.1:1/")
    with pytest.raises(TypeError, match="needs a baseline"):
        load.read("same.json").not_worse_than()
""",
        "--load-report",
        "kept",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.findall(r"(?m)^FAILED \S+::(\w+)", done.stdout)
    assert failed == [
        *("test_limit", "test_worse", "test_worse_in_one_figure", "test_unjudged"),
        *("test_a_figure_that_is_missing", "test_nothing_answered"),
        *("test_no_baseline", "test_no_script", "test_bad_script"),
    ]
    assert re.search(r"assert worse than baseline.json: median \S+ -> \S+, \+\d+", done.stdout)
    assert re.search(r"assert cannot be judged against baseline.json: p99 .*too little data", done.stdout)
    assert "assert cannot be judged against dead.json: nothing was answered" in done.stdout
    assert re.search(r"assert cannot be judged against baseline.json: server.else.p99 .*on neither side", done.stdout)
    assert "there is no baseline nowhere.json in " in done.stdout and "pytest --load-report DIR" in done.stdout
    assert "there is no script nowhere.yml in " in done.stdout
    assert re.search(r"loadgen run .*bad.yml ended with exit code 1:\n.*bad.yml", done.stdout)
    assert "Captured comparison of load tests call" in done.stdout
    assert [path.name for path in (project / "kept").iterdir()] == ["tests-test_load.py-test_limit.json"]


def test_a_session_without_load_tests_imports_next_to_nothing(python, project):
    done = run(python, project, "def test_nothing(): pass\n", "--load-report", "kept")
    assert done.returncode == 0 and "load tests" not in done.stdout
    assert not (project / "kept").exists()
    said = subprocess.run(
        [python, "-X", "importtime", "-c", "import pytest, poolbench_tool.pytest_plugin"],
        env=outside(), cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    own_us = [int(line.split("|")[0].split(":")[1]) for line in said.stderr.splitlines() if "poolbench_tool" in line]
    assert len(own_us) == 2 and sum(own_us) < 20_000
