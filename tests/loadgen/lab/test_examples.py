"""Each arrangement of examples/ with its one command."""

import json
import re
import shlex
import shutil

import pytest

from tests.support.own_app import lab
from tests.support.paths import EXAMPLES

COMMANDS = re.findall(r"^cd (\w+) && loadgen lab (.+)$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
SIX = {
    "threads": "Using worker: gthread",
    "library": "Using worker: gunicorn.workers.ggevent.GeventPyWSGIWorker",
    "psycopg3": "Using worker: sync",
    "src_layout": "Using worker: gunicorn.workers.ggevent.GeventPyWSGIWorker",
    "two_engines": "Using worker: gunicorn.workers.ggevent.GeventPyWSGIWorker",
    "streaming": "waitress:Serving on",
}
"""Arrangements that differ in what matters, and what the log of each one's server says."""


def test_every_folder_has_its_command():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {folder for folder, _ in COMMANDS} == folders


def run_example(folder, place, *options, seconds, patience_s=100):
    """Runs an example's command, with more options, for some seconds of load. Returns what ended, and its summary."""
    shutil.copytree(EXAMPLES / folder, place, ignore=shutil.ignore_patterns("__pycache__"))
    script = place / "load.yml"
    short = f"phases: [{{duration: {seconds}, arrivalRate: 10}}]"
    text = re.sub(r"phases:(?: \[.*\]\n|\n(?: {4}.*\n)+)", f"{short}\n", script.read_text())
    assert short in text
    script.write_text(text)
    done = lab(place, *shlex.split(dict(COMMANDS)[folder]), *options, timeout=patience_s)
    assert done.returncode == 0, done.stderr
    assert "The database given is used" in done.stderr
    found = json.loads((place / "out" / "summary.json").read_text())
    for strategy in {"own", "queue", "fair"} & set(found["strategies"]):
        assert found["strategies"][strategy]["failed"] == 0
        assert found["strategies"][strategy]["requests"] >= 10 * seconds
        assert found["strategies"][strategy]["worker CPU mean (ms)"] > 0
    return done, found


@pytest.mark.slow
@pytest.mark.parametrize("folder", SIX)
def test_an_arrangement_is_compared(tmp_path, folder):
    place = tmp_path / "app"
    done, found = run_example(folder, place, "--strategies", "own,fair", "--rounds", "1", seconds=1)
    assert list(found["strategies"]) == ["own", "fair"]
    sentence = found["answer"]["sentence"]
    assert sentence in done.stdout.replace("\n", " ") and "p99" in sentence
    assert sentence.split(".")[0] in (place / "out" / "index.html").read_text()
    for strategy in ("own", "fair"):
        assert SIX[folder] in (place / "out" / "logs" / f"{strategy}.1.log").read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", dict(COMMANDS))
def test_an_example_runs_with_its_command(tmp_path, folder):
    _, found = run_example(folder, tmp_path / "app", seconds=2, patience_s=280)
    assert list(found["strategies"]) == ["own", "null", "queue", "fair"]
