"""Runs in processes of their own keep what they measured when their terminal, their reader or their disk goes away."""

import json
import os
import signal
import subprocess
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


def test_files_that_ab_cannot_write_do_not_take_others_with_them(start, tmp_path, serve, ok_answer):
    table = tmp_path / "table.tsv"
    process = start(
        "ab", "-n", "3", "-o", "/dev/full", "-e", "/dev/full", "-g", str(table), f"{serve(ok_answer()).url}/"
    )
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2 and told.count("cannot write /dev/full: No space left on device") == 2
    assert len(table.read_text().splitlines()) == 4


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


def shell(command, **names):
    """Exit code, stdout and stderr of a command of bash, in which `$loadgen` and these names stand for something."""
    environment = os.environ | {"loadgen": f"{sys.executable} -m loadgen"} | {k: str(v) for k, v in names.items()}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


LOADS = {
    "run": ("run $script", 4, 1),
    "workers": ("run --workers 2 $script", 4, 1),
    "quick": ("quick -c 1 -n 3 $url/", 3, 1),
    "ab": ("ab -n 3 $url/", 3, 2),
}
"""Each command with load: how many requests it makes, and its exit code when its output cannot be written."""
EACH = [pytest.param(name, marks=[pytest.mark.slow] if name == "workers" else []) for name in LOADS]


@pytest.fixture
def loading(tmp_path, serve, ok_answer):
    """loading(name, redirections) -> exit code, stdout, stderr, and number of requests in the report of a command of LOADS."""
    url = serve(ok_answer()).url

    def run(name, redirections):
        path = script(tmp_path, url, [{"get": {"url": "/"}}])
        report = tmp_path / "report.json"
        done = shell(f"$loadgen {LOADS[name][0]} -o $report {redirections}", script=path, url=url, report=report)
        return *done, requests_in(report)

    return run


@pytest.mark.parametrize("name", EACH)
def test_a_full_disk_under_stdout_is_one_line_and_the_report_is_kept(name, loading):
    _, requests, failed = LOADS[name]
    code, _, told, counted = loading(name, ">/dev/full")
    assert (code, counted) == (failed, requests)
    assert told.count("cannot write to standard output: No space left on device") == 1 and "Traceback" not in told


@pytest.mark.parametrize("name", EACH)
def test_without_any_of_the_standard_descriptors_a_run_is_as_others(name, loading):
    assert loading(name, "<&- >&- 2>&-") == (0, "", "", LOADS[name][1])


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_what_becomes_of_stderr_does_not_decide_the_exit_code(redirection, name, loading):
    code, shown, _, counted = loading(name, redirection)
    assert (code, counted) == (0, LOADS[name][1])
    assert "requests:" in shown


def test_warnings_that_cannot_be_told_fail_nothing(tmp_path):
    (tmp_path / "a.yml").write_text("config: {target: 'http://h', phazes: 5}\nscenarios: [{flow: [{think: 1}]}]")
    assert [shell(f"$loadgen run --check $path {to}", path=tmp_path / "a.yml")[0] for to in ("", "2>/dev/full")] == [
        1,
        1,
    ]
    (tmp_path / "a.yml").write_text("config: {target: 'http://h'}\nscenarios: [{flow: [{get: {url: /}}]}]")
    assert shell("$loadgen run --check $path 2>/dev/full", path=tmp_path / "a.yml") == (0, "", "")


def test_a_ping_that_cannot_be_shown_is_one_line(serve, ok_answer):
    code, _, told = shell("$loadgen ping $url/ >/dev/full", url=serve(ok_answer()).url)
    assert (code, told) == (1, "Error: cannot write the result to standard output: No space left on device\n")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_first_script_that_cannot_be_shown_is_one_line(tmp_path, redirection):
    api = {
        "openapi": "3.0.0",
        "info": {"title": "a", "version": "1"},
        "servers": [{"url": "http://h"}],
        "paths": {"/": {"get": {}}},
    }
    (tmp_path / "api.json").write_text(json.dumps(api))
    code, _, told = shell(f"$loadgen init $path --no-probe -o - {redirection}", path=tmp_path / "api.json")
    assert code == 2 and told.startswith("Error: cannot write the result") and told.count("\n") == 1


def test_a_reader_who_is_slow_loses_nothing_though_the_pipe_does_not_wait(serve, ok_answer):
    """Another program has set O_NONBLOCK for the pipe, which holds less than what is printed."""
    code = (
        "import fcntl, os, subprocess, sys, termios, time; r, w = os.pipe(); os.set_blocking(w, False)\n"
        "run = subprocess.Popen(sys.argv[1:], stdout=w); os.close(w); got = b''\n"
        "while int.from_bytes(fcntl.ioctl(r, termios.FIONREAD, bytes(4)), sys.byteorder) < 60000: time.sleep(0.05)\n"
        "time.sleep(0.2)  # the pipe is full, and more is to come\n"
        "while part := os.read(r, 65536): got += part\n"
        "print(run.wait(), got.count(b'LOG: header received'))"
    )
    arguments = [*LOADGEN, "ab", "-v", "2", "-n", "500", f"{serve(ok_answer(b'x' * 900)).url}/"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=60, check=True)
    assert done.stdout.split() == [b"0", b"500"]


def test_an_endless_trickle_is_given_up(start, tmp_path, serve):
    def trickle(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    path = script(tmp_path, serve(trickle).url, [{"get": {"url": "/"}}], seconds=1)
    process = start("run", path, "--drain", "1")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 3, told


@pytest.mark.slow
def test_an_interrupt_ends_a_run_in_a_catastrophic_regular_expression(start, tmp_path, serve, ok_answer):
    capture = {"regexp": "(a+)+$", "as": "found"}
    flow = [{"get": {"url": "/", "capture": capture}}]
    server = serve(ok_answer(b"a" * 5000 + b"!"))
    process = start("run", script(tmp_path, server.url, flow, seconds=30))
    wait_until(lambda: server.heads, "the user asks")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
