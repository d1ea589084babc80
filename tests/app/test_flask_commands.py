"""The commands of `flask`: those that only tell something need no database."""

import os
import subprocess

import pytest

from tests.support.paths import BIN, ROOT


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["routes"], ["links", "seed", "--help"]], ids=" ".join)
def test_asking_what_there_is_starts_no_database(arguments):
    environment = {"PATH": os.environ["PATH"], "PG_BIN_DIR": "/nowhere"}  # a start would fail here
    command = [str(BIN / "flask"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert "links" in done.stdout
