"""Several workers carry out one plan: nothing is sent twice or left out, and what happens to one is told."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.recorder import Recorder
from loadgen.schedule import Share, most_shares
from loadgen.script.model import Phase
from reports.formats.artillery_json import from_json, to_json
from reports.merge import merge_periods
from reports.model import Period, Report
from tests.support.exchanges import FixedWall, answer, filed
from tests.support.loadgen_process import report_of, script
from tests.support.server_process import descendants, lives, wait_until


def workers_of(process):
    return [child.pid for child in descendants(process.pid)]


@pytest.mark.slow
def test_together_they_send_what_one_would(start, serve, ok_answer, tmp_path):
    counters = []
    for count in ("1", "3"):
        server = serve(ok_answer())
        process = start(script(server, [{"duration": 1, "arrivalRate": 50}]), "--workers", count)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(server.heads) == 50
        total = report_of(tmp_path).aggregate
        counters.append({name: n for name, n in total.counters.items() if name != "loadgen.late"})
        assert total.sketches["http.response_time"].count == total.sketches["loadgen.start_lag"].count == 50
    assert counters[0] == counters[1]


def test_rows_in_sequence_are_shared_without_gap_or_repetition(start, serve, ok_answer, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"row{i}\n" for i in range(40)), "utf-8")
    server = serve(ok_answer())
    flow = [{"get": {"url": "/{{ row }}"}}]
    payload = {"path": str(rows), "fields": ["row"], "order": "sequence"}
    plan = script(server, [{"duration": 1, "arrivalRate": 40}], flow, payload=payload)
    start(plan, "--workers", "2").communicate(timeout=60)
    asked = [int(re.search(rb"/row(\d+)", head)[1]) for head in server.heads]
    assert sorted(asked) == list(range(40))


def test_the_console_shows_one_run(start, serve, ok_answer):
    server = serve(ok_answer())
    flow = [{"get": {"url": "/"}}, {"log": "a line"}]
    phases = [{"duration": 1, "arrivalCount": 4, "name": "first"}, {"pause": 1}]
    out, _ = start(script(server, phases, flow), "--workers", "2").communicate(timeout=60)
    assert out.count("Phase started: first") == out.count("Phase completed: first") == 1
    assert out.count("Phase completed") == 2
    assert out.count("a line\n") == 4
    assert re.findall(r"^http\.requests: \.+ (\d+)$", out.partition("Summary report")[2], re.MULTILINE) == ["4"]


def test_a_failed_expectation_of_any_worker_fails_the_run(start, serve, ok_answer):
    flow = [{"get": {"url": "/", "expect": [{"statusCode": 201}]}}]
    plan = script(serve(ok_answer()), [{"duration": 1, "arrivalCount": 2}], flow, plugins={"expect": {}})
    process = start(plan, "--workers", "2")
    process.communicate(timeout=60)
    assert process.returncode == 21


def test_conditions_are_checked_on_the_sum_of_all_workers(start, serve, ok_answer):
    ensure = {"conditions": [{"expression": "vusers.created == 4"}]}
    plan = script(serve(ok_answer()), [{"duration": 1, "arrivalCount": 4}], plugins={"ensure": {}}, ensure=ensure)
    process = start(plan, "--workers", "2")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "ok: vusers.created == 4" in out


@pytest.mark.slow
def test_the_run_goes_on_without_a_worker_that_was_killed_and_says_so(start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    process = start(script(server, [{"duration": 4, "arrivalRate": 20}]), "--workers", "2")
    wait_until(lambda: len(server.heads) > 50)  # past two seconds, so that more than half of it has arrived
    os.kill(workers_of(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "worker 2 of 2 was killed by signal 9" in err
    report = report_of(tmp_path)
    assert report.extras.partial
    assert any("worker 2 of 2" in warning for warning in report.extras.warnings)
    sent, told = len(server.heads), report.aggregate.counters["http.requests"]
    assert 40 < told <= sent < 80
    assert sent - told <= 20  # two seconds' worth of one worker: one since its last report, and one on a busy machine


def test_an_interrupt_reaches_every_worker_and_users_finish(start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    flow = [{"get": {"url": "/"}}, {"think": "1s"}, {"get": {"url": "/"}}]
    process = start(script(server, [{"duration": 60, "arrivalRate": 20}], flow), "--workers", "2")
    wait_until(lambda: len(server.heads) > 10)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    report = report_of(tmp_path)
    assert report.extras.partial
    assert report.aggregate.counters["vusers.completed"] == report.aggregate.counters["vusers.created"] > 0


INTERRUPTED_AT_THE_START = """
import signal
import gevent
from loadgen.clock import WallOffset
from loadgen.crew.forked import ForkedCrew
from loadgen.engine import Listener
from loadgen.recorder import Recorder
from loadgen.runner import stopping

def work(share, link, started_ns):
    with stopping(lambda: None) as seen, gevent.Timeout(10, False):
        while not seen:
            gevent.sleep(0.01)
    return {"worker": share.index, "seen": seen}

wall = WallOffset()
crew = ForkedCrew(24, work, Recorder(wall), wall, print)
fork = crew._fork

def interrupted(share, started_ns):
    worker = fork(share, started_ns)
    if share.index == 1:
        signal.raise_signal(signal.SIGINT)
    return worker

crew._fork = interrupted
with stopping(crew.stop) as seen:
    crew.run([], Listener())
print(seen, crew.results())
"""


def test_an_interrupt_while_workers_are_started_reaches_those_that_are():
    command = [sys.executable, "-c", INTERRUPTED_AT_THE_START]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[2] [{'worker': 0, 'seen': [2]}, {'worker': 1, 'seen': [2]}]\n", done.stderr


def test_workers_that_cannot_be_started_are_told_in_one_line(tmp_path):
    path = tmp_path / "script.json"
    plan = script(SimpleNamespace(url="http://127.0.0.1:1"), [{"duration": 60, "arrivalRate": 1}])
    plan["after"] = {"flow": [{"log": "cleaned up"}]}
    path.write_text(json.dumps(plan))
    options = f"--no-calibration --workers 64 -o {tmp_path}/report.json --junit {tmp_path}/junit.xml"
    command = f"ulimit -n 64; exec {sys.executable} -m loadgen run {options} {path}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert re.fullmatch(r"Error: worker \d+ of 64 cannot be started: Too many open files\n", done.stderr)
    assert "cleaned up" in done.stdout
    report = from_json((tmp_path / "report.json").read_text())
    assert report.extras.partial and "cannot be started" in report.extras.warnings[0]
    assert "cannot be started" in (tmp_path / "junit.xml").read_text()


def test_a_second_interrupt_ends_every_worker_at_once(start, serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    flow = [{"get": {"url": "/"}}, {"think": "30s"}]
    process = start(script(server, [{"duration": 60, "arrivalRate": 20}], flow), "--workers", "2")
    wait_until(lambda: len(server.heads) > 10)
    process.send_signal(signal.SIGINT)

    def no_more_come():
        before = len(server.heads)
        time.sleep(0.3)
        return len(server.heads) == before

    wait_until(no_more_come, "the first interrupt is heeded: two that come at once are one")
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    # Users have a grace of 10 s after the first.
    assert time.monotonic() - before < 8
    assert process.returncode == 130
    assert report_of(tmp_path).aggregate.counters["vusers.created"] > 10


def test_workers_end_with_their_parent(start, serve, ok_answer):
    server = serve(ok_answer())
    process = start(script(server, [{"duration": 60, "arrivalRate": 20}]), "--workers", "2")
    wait_until(lambda: len(server.heads) > 2)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(lives(pid) for pid in workers))


@given(st.integers(0, 1000), st.integers(1, 40))
def test_the_parts_of_a_split_number_add_up_and_differ_by_one_most_shares(total, of):
    parts = [Share(index, of).part(total) for index in range(of)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


def test_no_worker_is_left_without_a_part_of_the_users():
    phases = [Phase(0, None, 1.0, "1", arrival_rate=5, max_vusers=limit) for limit in (None, 3, 8)]
    assert [most_shares(wanted, phases) for wanted in (1, 2, 3, 8)] == [1, 2, 3, 3]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 29_999), st.integers(1, 10**9)), min_size=1, max_size=60))
def test_what_workers_send_in_pieces_merges_into_what_one_would_have_filed(events):
    whole, parts = Recorder(FixedWall()), [Recorder(FixedWall()) for _ in range(2)]
    sent = []
    for worker, at_ms, waited_ns in events:
        for recorder in (whole, parts[worker % 2]):
            recorder.request(at_ms * 1_000_000)
            filed(recorder, answer(at_ms * 1_000_000 + 1, waited_ns=waited_ns))
        if worker > 1:
            sent += _through_json(parts[worker % 2].drain())
    for recorder in parts:
        sent += _through_json(recorder.drain())
    for one, other in zip(whole.report().periods, merge_periods(sent), strict=True):
        assert (one.counters, one.rates) == (other.counters, other.rates)
        assert _bins_by_second(one) == _bins_by_second(other)
        assert {n: (s.positive, s.zero_count, s.min, s.max) for n, s in one.sketches.items()} == {
            n: (s.positive, s.zero_count, s.min, s.max) for n, s in other.sketches.items()
        }


def _bins_by_second(period):
    return [
        (s.start_ms, s.requests, s.answers, s.errors, s.response_time and s.response_time.positive)
        for s in period.seconds
    ]


def _through_json(periods):
    return from_json(to_json(Report(Period(0), tuple(periods)))).periods
