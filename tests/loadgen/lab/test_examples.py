"""Each arrangement of examples/ with its one command."""

import json
import re
import shlex
import shutil

import pytest

from tests.support.own_app import lab
from tests.support.paths import EXAMPLES

COMMANDS = re.findall(r"^cd (\w+) && loadgen lab (.+)$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
SHORT = "phases: [{duration: 2, arrivalRate: 10}]"


def test_every_folder_has_its_command():
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {folder for folder, _ in COMMANDS} == folders


@pytest.mark.long
@pytest.mark.parametrize(("folder", "arguments"), COMMANDS, ids=[folder for folder, _ in COMMANDS])
def test_an_example_runs_with_its_command(tmp_path, folder, arguments):
    shutil.copytree(EXAMPLES / folder, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "app" / "load.yml"
    text = re.sub(r"phases:(?: \[.*\]\n|\n(?: {4}.*\n)+)", f"{SHORT}\n", script.read_text())
    assert SHORT in text
    script.write_text(text)
    done = lab(tmp_path / "app", *shlex.split(arguments), timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "app" / "out" / "summary.json").read_text())
    assert list(found["strategies"]) == ["own", "null", "queue", "fair"]
    for strategy in ("own", "queue", "fair"):
        assert found["strategies"][strategy]["failed"] == 0
        assert found["strategies"][strategy]["worker CPU mean (ms)"] > 0
    assert "The database given is used" in done.stderr
