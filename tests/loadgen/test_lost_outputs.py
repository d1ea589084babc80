"""Runs in processes of their own keep what they measured when their terminal, their reader or their disk goes away."""

import json
import signal
import sys
import time

import pytest

from tests.support.server_process import wait_until

LOADGEN = [sys.executable, "-m", "loadgen"]


def script(folder, url, flow, *, seconds=2):
    config = {"target": url, "phases": [{"duration": seconds, "arrivalRate": 2}]}
    path = folder / "script.json"
    path.write_text(json.dumps({"config": config, "scenarios": [{"flow": flow}]}))
    return str(path)


@pytest.fixture
def start(start_process):
    """start(*arguments) -> `loadgen` with these arguments as a process."""
    return lambda *arguments: start_process([*LOADGEN, *arguments])


def requests_in(path):
    return json.loads(path.read_text())["aggregate"]["counters"]["http.requests"]


def commands(folder, url):
    flow = [{"get": {"url": "/"}}]
    return {
        "run": (["run", script(folder, url, flow)], 4),
        "ab": (["ab", "-n", "300", f"{url}/"], 300),
    }


@pytest.mark.parametrize("command", ["run", "ab"])
def test_a_reader_that_goes_away_does_not_end_the_run(command, start, tmp_path, serve, ok_answer):
    arguments, requests = commands(tmp_path, serve(ok_answer()).url)[command]
    report = tmp_path / "report.json"
    process = start(*arguments, "-o", str(report))
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(60) == 0, told
    assert requests_in(report) == requests


def test_a_hangup_does_not_end_a_run(start, tmp_path, serve, ok_answer):
    arguments, requests = commands(tmp_path, serve(ok_answer()).url)["run"]
    report = tmp_path / "report.json"
    process = start(*arguments, "-o", str(report))
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert requests_in(report) == requests


@pytest.mark.parametrize("options", [["-o"], ["-e"], ["-g"]])
def test_a_full_disk_is_one_line_for_ab(options, start, serve, ok_answer):
    process = start("ab", "-n", "3", *options, "/dev/full", f"{serve(ok_answer()).url}/")
    shown, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Complete requests:      3" in shown
    assert told.count("\n") == 1 and "/dev/full" in told


def test_a_full_disk_is_one_line_for_run(start, tmp_path, serve, ok_answer):
    process = start(*commands(tmp_path, serve(ok_answer()).url)["run"][0], "-o", "/dev/full")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in told and told.count("/dev/full") == 1


def test_an_endless_trickle_is_given_up(start, tmp_path, serve):
    def trickle(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    path = script(tmp_path, serve(trickle).url, [{"get": {"url": "/"}}], seconds=1)
    process = start("run", path, "--drain", "1")
    _, told = process.communicate(timeout=30)
    assert process.returncode == 3, told


@pytest.mark.slow
def test_an_interrupt_ends_a_run_in_a_catastrophic_regular_expression(start, tmp_path, serve, ok_answer):
    capture = {"regexp": "(a+)+$", "as": "found"}
    flow = [{"get": {"url": "/", "capture": capture}}]
    server = serve(ok_answer(b"a" * 5000 + b"!"))
    process = start("run", script(tmp_path, server.url, flow, seconds=30))
    wait_until(lambda: server.heads, "the user asks", 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
