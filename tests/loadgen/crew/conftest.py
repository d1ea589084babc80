"""The command as a process of its own, with workers."""

import json
import sys

import pytest


@pytest.fixture
def start(start_process, tmp_path):
    """start(script, *options) -> the running command, its JSON going to `tmp_path / "out.json"`."""

    def run(script, *options):
        path = tmp_path / "script.yml"
        path.write_text(json.dumps(script), "utf-8")
        command = [sys.executable, "-m", "loadgen", "run", str(path), "-o", str(tmp_path / "out.json")]
        return start_process([*command, *options])

    return run
