"""Closed phases (`concurrency`): a number of users at all times, each replaced when it ends, also among open phases."""

import json
import subprocess
import sys
import threading
import time

import pytest

from loadgen.schedule import arrivals, most_shares, spans
from tests.loadgen.conftest import ok
from tests.loadgen.script.test_parse import FLOW, parse, problems, warnings
from tests.support.server_process import wait_until


class Slow:
    """Answers after a while, and knows the most requests that waited at one time."""

    def __init__(self, seconds):
        self.seconds, self.now, self.most, self.lock = seconds, 0, 0, threading.Lock()

    def __call__(self, connection, _):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        connection.sendall(ok())


def run(tmp_path, target, phases, *options):
    script, out = tmp_path / "s.json", tmp_path / "out.json"
    script.write_text(
        json.dumps({"config": {"target": target, "phases": phases}, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]})
    )
    command = [sys.executable, "-m", "loadgen", "run", *options, "-o", str(out), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text()), done


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=" ".join)
def test_a_closed_phase_keeps_its_users_busy_until_it_ends(tmp_path, serve, options):
    slow = Slow(0.2)
    report, done = run(tmp_path, serve(slow).url, [{"duration": 2, "concurrency": 4, "name": "full"}], *options)
    counters = report["aggregate"]["counters"]
    # By Little's law 4 users at 0.2 s make 40 requests in 2 s; a busy machine makes fewer.
    assert 16 <= counters["http.requests"] <= 44
    assert counters["vusers.created"] == counters["vusers.completed"] == counters["http.requests"]
    assert slow.most == 4
    assert report["poolbench"]["model"] == "closed"
    assert "loadgen.start_lag" not in json.dumps(report)
    assert "Phase started: full (index: 0, duration: 2s)" in done.stdout


@pytest.mark.slow
def test_open_and_closed_phases_follow_each_other(tmp_path, serve):
    slow = Slow(0.05)
    phases = [
        {"duration": 1, "arrivalCount": 3}, {"duration": "500ms", "concurrency": 2}, {"pause": 1},
        {"duration": 1, "arrivalCount": 2},
    ]  # fmt: skip
    report, done = run(tmp_path, serve(slow).url, phases)
    counters = report["aggregate"]["counters"]
    assert counters["vusers.created"] > 3 + 2 + 2
    assert counters["vusers.created"] == counters["vusers.completed"]
    assert report["poolbench"]["model"] == "mixed"
    assert done.stdout.count("Phase completed") == 4


def test_an_interrupt_ends_a_closed_phase(tmp_path, serve, start_process):
    script, server = tmp_path / "s.json", serve(Slow(0.1))
    config = {"target": server.url, "phases": [{"duration": 60, "concurrency": 2}]}
    script.write_text(json.dumps({"config": config, "scenarios": [{"flow": [{"get": {"url": "/"}}]}]}))
    process = start_process([sys.executable, "-m", "loadgen", "run", script])
    wait_until(lambda: len(server.heads) > 4, "users come one after the other")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def closed(**phase):
    return "config: {target: 'http://h', phases: [" + json.dumps({"duration": 4, **phase}) + "]}\n" + FLOW


def test_a_closed_phase_has_a_length_and_no_planned_arrivals():
    phases = parse(closed(concurrency="3")).phases
    assert [span.end_ns for span in spans(phases)] == [4_000_000_000]
    assert list(arrivals(phases, None)) == []
    assert most_shares(8, phases) == 3


@pytest.mark.parametrize("users", [0, -1, 1.5, "many", True, None, [2]])
def test_a_number_of_users_that_is_none_is_refused(users):
    assert any("must be a whole number of users, 1 or more" in said for said in problems(closed(concurrency=users)))


@pytest.mark.parametrize("key", ["arrivalRate", "arrivalCount", "rampTo", "maxVusers"])
def test_keys_of_open_phases_have_no_effect_in_a_closed_one(key):
    (said,) = warnings(closed(concurrency=2, **{key: 5}))
    assert f"phases[0].{key}: has no effect: the phase has a `concurrency`" in said


def test_check_names_the_extension(tmp_path):
    script = tmp_path / "s.yml"
    script.write_text(closed(concurrency=2, name="full"))
    command = [sys.executable, "-m", "loadgen", "run", "--check", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "which Artillery does not have: `concurrency`, in full (2 users at a time)" in done.stderr
