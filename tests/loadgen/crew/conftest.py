"""The command as a process of its own, with workers."""

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.fixture
def start(tmp_path):
    """start(script, *options) -> the running command, its JSON going to `tmp_path / "out.json"`."""
    started = []

    def run(script, *options):
        path = tmp_path / "script.yml"
        path.write_text(json.dumps(script), "utf-8")
        command = [sys.executable, "-m", "loadgen", "run", str(path), "-o", str(tmp_path / "out.json"), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
