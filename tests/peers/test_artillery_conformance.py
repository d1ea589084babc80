"""Our runs of the reference scripts beside what the real Artillery did with each, as record_artillery.py recorded it.

Compared are: exit code, counters, how many samples each summary has, what the target was asked (method, target, header
fields, body), how many connections it saw, and the console but for its figures.
"""

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from tests.peers.reference_runs import console, run_case, scripts, tls_files

pytest.importorskip("trustme", reason="trustme is not installed")

SCRIPTS = scripts()
AT_ONCE = 8
SHARED_CONNECTIONS = ("pool", "tls-insecure-option", "parallel-branches")
"""Which of two connections takes a request is chance there."""
DIFFERENT = {
    # Artillery's worker crashes on a phase it cannot read.
    "invalid-phase": {"exit_code": 1},
}
"""Where we differ on purpose (docs/artillery-compatibility.md)."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Runs by the script's name; several at once, since they mostly wait."""
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "loadgen"]
    certificates = tls_files(tmp_path_factory.mktemp("tls"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = pool.map(lambda script: run_case(script, command, environment, certificates), SCRIPTS)
        return {script.stem: run for script, run in zip(SCRIPTS, runs, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [script.stem for script in SCRIPTS])
@pytest.mark.parametrize("aspect", ["exit_code", "asked", "counters", "summaries", "rates", "connections", "console"])
def test_a_reference_script_does_what_it_does_under_artillery(ours, name, aspect):
    theirs = json.loads((SCRIPTS[0].parent / f"{name}.json").read_text())
    theirs["console"] = theirs["console"] and console("\n".join(theirs["console"]))
    if aspect == "asked" and name in SHARED_CONNECTIONS:
        assert Counter(map(json.dumps, chain(*ours[name][aspect]))) == Counter(map(json.dumps, chain(*theirs[aspect])))
        return
    assert ours[name][aspect] == DIFFERENT.get(name, {}).get(aspect, theirs[aspect])
