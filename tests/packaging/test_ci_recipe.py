"""docs/ci.md's recipe, run as pasted in somebody else's new repository, with the tool installed from this checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from ruamel.yaml import YAML

from tests.support.paths import ROOT
from tests.support.server_process import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs/ci.md").read_text("utf-8")
SERVICE = """
import time
from flask import Flask

app = Flask(__name__)

@app.get("/")
def slow():
    time.sleep({seconds})
    return "hello"
"""


def block(first_line):
    """The code block of the page that has this text in one of its first two lines."""
    found = [text for text in re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL) if first_line in text[:150]]
    assert len(found) == 1
    return found[0]


def shortened(text):
    """A recipe with short phases and ports that are free; nothing else is changed."""
    ports = {"8001": str(free_port()), "8002": str(free_port())}
    text = re.sub("8001|8002", lambda found: ports[found.group()], text)
    return (
        text.replace("duration: 30", "duration: 2").replace("--minutes 2", "--minutes 0.3").replace("seq 60", "seq 30")
    )


@pytest.fixture
def repository(tmp_path):
    """repository(old, new, script) -> a folder: a service that sleeps this many seconds, before and in the last commit."""

    def make(old, new, script):
        folder = tmp_path / "theirs"
        (folder / "load").mkdir(parents=True)
        git = ("git", "-c", "user.name=dev", "-c", "user.email=dev@example.org")
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        (folder / "requirements.txt").write_text("flask\ngunicorn\n")
        (folder / ".gitignore").write_text("load/results\n")
        for seconds in (old, new):
            (folder / "app.py").write_text(SERVICE.format(seconds=seconds))
            subprocess.run([*git, "add", "."], cwd=folder, check=True)
            subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "a version"], cwd=folder, check=True)
        (folder / "load/script.yml").write_text(shortened(block("# load/script.yml")))
        (folder / "load/compare.sh").write_text(script)
        return folder

    return make


def compare(folder):
    """Run the script as a CI system does; returns what it ended with, and the results that it left."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = f"{Path(sys.base_prefix) / 'bin'}:{own['PATH']}"
    summary = folder / "load/summary.md"
    environment = {**own, "PATH": path, "POOLBENCH": str(ROOT), "GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(
        ["bash", "load/compare.sh"], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    gates = folder / "load/results/gates.xml"
    cases = ET.fromstring(gates.read_text("utf-8")).iter("testcase") if gates.exists() else ()
    failed = {case.get("name"): case.find("failure") is not None for case in cases}
    return done, failed, summary.read_text("utf-8") if summary.exists() else ""


def test_five_runs_a_side_find_a_version_that_is_slower(repository):
    folder = repository(0.005, 0.03, shortened(block("# load/compare.sh")))

    done, failed, summary = compare(folder)

    assert done.returncode == 1, done.stderr
    assert set(failed) == {"errors > 0.1%", "p99 worse", "http.response_time.p95 > 250"}
    assert (failed["errors > 0.1%"], failed["p99 worse"]) == (False, True)
    assert re.match(r"## loadgen diff: [12] of 3 gates failed\n", summary)
    assert summary.count("## ") == 1
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=folder, check=True, capture_output=True, text=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_a_duel_finds_it_too(repository):
    before, _, _ = block("# load/compare.sh").partition("# Five runs a side")
    folder = repository(0.005, 0.03, shortened(before + block('"$loadgen" duel')))

    done, failed, _ = compare(folder)

    assert done.returncode == 1, done.stderr
    assert failed == {"the duel reached its planned end": False, "errors > 0.1%": False, "p99 worse": True}


def test_a_service_that_does_not_start_is_not_waited_for_for_ever(repository):
    folder = repository(0.005, "0 / 0", shortened(block("# load/compare.sh")).replace("seq 30", "seq 15"))

    done, failed, _ = compare(folder)

    assert (done.returncode, failed) == (1, {})
    assert re.search(r"http://127.0.0.1:\d+/ does not answer; what the service wrote:", done.stderr)


def test_the_workflows_are_whole_and_run_the_script():
    github = YAML(typ="safe").load(block("# .github/workflows/load.yml"))
    gitlab = YAML(typ="safe").load(block("# .gitlab-ci.yml"))

    assert "bash load/compare.sh" in [step.get("run") for step in github["jobs"]["load"]["steps"]]
    assert gitlab["load"]["script"] == ["bash load/compare.sh"]
    assert "POOLBENCH" in github["jobs"]["load"]["env"]
    assert "POOLBENCH" in gitlab["load"]["variables"]
