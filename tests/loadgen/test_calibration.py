"""What the generator finds out about itself before a run, and what a report says with it."""

import json
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path
from random import Random

import psutil
import pytest
from click.testing import CliRunner

from loadgen import calibration
from loadgen.calibration import Calibration, beyond, calibrate, calibrated
from loadgen.cli import cli
from loadgen.script.parse import RunOptions, parse_script
from reports import names
from reports.formats.artillery_json import from_json
from reports.formats.markdown import report_text
from reports.model import Extras, Period, Report, Summary
from reports.page.page import report_page
from reports.sketch import Sketch

QUICK = Calibration(user_cpu_us=100, request_cpu_us=25, resolution_ms=0.2, timer_late_p99_ms=0.1, took_s=0.3)


def script_of(flow, *phases, scenarios=()):
    several = [{"flow": flow}, *scenarios]
    text = json.dumps({"config": {"target": "http://h", "phases": list(phases)}, "scenarios": several})
    return parse_script([("s.json", text)], RunOptions(), lambda _: b"", Random(1))


GET = {"get": {"url": "/"}}


def report(*response_times_ms, generator=None):
    sketch = Sketch.of(response_times_ms)
    total = Period(0, sketches={names.RESPONSE_TIME: sketch}, summaries={names.RESPONSE_TIME: Summary.of(sketch)})
    return Report(total, (total,), Extras("1", "open", generator=generator or {}))


@pytest.mark.usefixtures("ahead_of_others")
def test_it_measures_in_half_a_second_and_leaves_nothing_behind():
    before = set(psutil.Process().children())
    found = calibrate()
    # At this moment, this thread included: the average of a minute knows nothing yet of programs that have just begun.
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    assert set(psutil.Process().children()) <= before
    if found is None and running > os.cpu_count():
        pytest.skip("this machine is too busy to be calibrated")
    assert 0 < found.request_cpu_us < found.user_cpu_us
    assert 0 < found.resolution_ms < 100
    assert found.took_s < 0.5 or running > 1


def test_the_peer_outlives_users_who_are_cut_off():
    with calibration._peer() as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as user:
                user.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert user.recv(1)
                # What was not read makes the close a reset.
                user.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_machine_that_cannot_fork_is_not_calibrated(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(calibration.os, "fork", refuse)
    assert calibrate() is None


@pytest.mark.parametrize(
    ("ms", "bound"), [(0.13, 0.2), (0.2, 0.2), (0.201, 0.3), (0.95, 1.0), (1.1, 2.0), (0.031, 0.04), (12, 20)]
)
def test_the_resolution_is_rounded_up_to_one_digit(ms, bound):
    assert calibration._rounded_up(ms) == bound


def test_rates_have_two_digits():
    assert replace(QUICK, user_cpu_us=79.9).users_per_s == 12_000
    assert replace(QUICK, request_cpu_us=15.7).requests_per_s == 63_000
    assert "10,000 users/s" in QUICK.sentence
    assert "below 0.2 ms" in QUICK.sentence


@pytest.mark.parametrize(
    ("flow", "phases", "workers", "cores"),
    [
        # 100 us a user, and 25 us for each request after its first.
        ([GET], [{"duration": 9, "arrivalRate": 8400}], 1, None),
        ([GET], [{"duration": 9, "arrivalRate": 9000}], 1, "0.9"),
        ([GET, GET, GET], [{"duration": 9, "arrivalRate": 6000}], 1, "0.9"),
        ([{"loop": [GET], "count": 17}], [{"duration": 9, "arrivalRate": 2000}], 1, "1"),
        ([{"loop": [GET], "count": "{{ n }}"}], [{"duration": 9, "arrivalRate": 2000}], 1, None),
        ([{"loop": [GET], "over": [1, 2, 3]}], [{"duration": 9, "arrivalRate": 6000}], 1, "0.9"),
        ([{"parallel": [GET, GET]}], [{"duration": 9, "arrivalRate": 8000}], 1, "1"),
        ([GET], [{"duration": 9, "arrivalRate": 1, "rampTo": 9000}], 1, "0.9"),
        ([GET], [{"duration": 2, "arrivalCount": 20_000}], 1, "1"),
        ([GET], [{"duration": 1, "arrivalCount": 800}, {"pause": 9}], 1, None),
        ([GET], [{"duration": 9, "concurrency": 50_000}], 1, None),
        ([GET], [{"duration": 9, "arrivalRate": 9000}], 2, None),
    ],
)
def test_a_plan_beyond_the_generator_is_named(flow, phases, workers, cores, monkeypatch):
    monkeypatch.setattr(calibration.os, "cpu_count", lambda: 4)
    told = beyond(QUICK, script_of(flow, *phases), workers)
    assert told is None if cores is None else f"needs about {cores} cores of generator" in told


def test_the_advice_is_one_that_helps(monkeypatch):
    plan = script_of([GET], {"duration": 9, "arrivalRate": 20_000})
    monkeypatch.setattr(calibration.os, "cpu_count", lambda: 4)
    assert beyond(QUICK, plan, 1).endswith("and it has 1: users will start late; --workers 3 shares it")
    monkeypatch.setattr(calibration.os, "cpu_count", lambda: 1)
    assert "--dask" in beyond(QUICK, plan, 1)


def test_figures_that_could_not_be_told_are_bounds_in_every_form():
    found = calibrated(report(*[0.05] * 97, 7, 7, 7), QUICK)
    (warning,) = found.extras.warnings
    assert warning.endswith("p50 to p95 are < 0.2 ms")
    assert found.extras.generator["calibration"]["resolution_ms"] == 0.2
    assert found.aggregate.sketches[names.RESPONSE_TIME].min == pytest.approx(0.05)
    assert "&lt; 0.2" in report_text(found) or "< 0.2" in report_text(found)
    shown = repr(report_page([("report", found)], title="T"))
    assert "'< 0.2 ms'" in shown
    assert "'7.00 ms'" in shown


def test_figures_that_could_be_told_are_as_before():
    found = calibrated(report(5, 6, 7), QUICK)
    assert found.extras.warnings == ()
    assert "< 0.2" not in repr(report_page([("report", found)], title="T"))
    assert calibrated(report(0.01), None) == report(0.01)


@pytest.mark.parametrize("broken", [{"calibration": 3}, {"calibration": {"resolution_ms": "x"}}, {"calibration": {}}])
def test_a_document_with_another_calibration_is_read_all_the_same(broken):
    assert report(0.01, generator=broken).resolution_ms is None


@pytest.fixture
def quick_script(tmp_path, serve):
    def answer(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    plan = {"target": serve(answer).url, "phases": [{"duration": 1, "arrivalRate": 20}]}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"config": plan, "scenarios": [{"flow": [GET]}]}))
    return str(path)


@pytest.fixture
def quickly(monkeypatch):
    """The calibration finds this, whatever the machine is busy with."""
    monkeypatch.setattr(calibration, "calibrate", lambda: QUICK)


@pytest.mark.usefixtures("quickly")
def test_a_run_says_what_it_found_and_keeps_it(quick_script, tmp_path):
    out = str(tmp_path / "out.json")
    ran = CliRunner().invoke(cli, ["run", quick_script, "-q", "--calibration", "-o", out])
    assert ran.exit_code == 0, ran.output
    assert "a process here starts at most about" in ran.stderr
    generator = from_json((tmp_path / "out.json").read_text()).extras.generator
    assert generator["calibration"]["user_cpu_us"] > 0


def test_a_short_run_is_not_calibrated(quick_script, tmp_path):
    out = str(tmp_path / "out.json")
    ran = CliRunner().invoke(cli, ["run", quick_script, "-q", "-o", out])
    assert ran.exit_code == 0
    assert "users/s" not in ran.stderr
    assert "calibration" not in from_json((tmp_path / "out.json").read_text()).extras.generator


def test_a_plan_that_is_too_much_is_told_before_the_run(quick_script, monkeypatch):
    slow = replace(QUICK, user_cpu_us=1e6)
    monkeypatch.setattr(calibration, "calibrate", lambda: slow)
    ran = CliRunner().invoke(cli, ["run", quick_script, "--calibration"])
    assert "Warning: the plan has up to 20 users/s of 1 request each" in ran.stderr


@pytest.mark.usefixtures("quickly")
@pytest.mark.slow
def test_a_run_of_some_seconds_is_calibrated_unless_not_wanted(quick_script):
    longer = ["run", quick_script, "--overrides", '{"config": {"phases": [{"duration": 5, "arrivalCount": 2}]}}', "-q"]
    assert "a process here starts" in CliRunner().invoke(cli, longer).stderr
    assert "a process here starts" not in CliRunner().invoke(cli, [*longer, "--no-calibration"]).stderr


def test_a_machine_that_is_too_busy_says_so(quick_script, monkeypatch):
    monkeypatch.setattr(calibration, "calibrate", lambda: None)
    ran = CliRunner().invoke(cli, ["run", quick_script, "-q", "--calibration"])
    assert ran.exit_code == 0
    assert "not calibrated: this machine is too busy" in ran.stderr


@pytest.mark.usefixtures("quickly")
def test_ab_and_duel_are_calibrated_too(quick_script, serve, tmp_path):
    def answer(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    url = serve(answer).url + "/"
    ran = CliRunner().invoke(cli, ["ab", "-n", "30", "-k", "--calibration", "-o", str(tmp_path / "ab.json"), url])
    assert ran.exit_code == 0, ran.output
    assert "calibration" in from_json((tmp_path / "ab.json").read_text()).extras.generator
    ran = CliRunner().invoke(cli, ["duel", url, url, quick_script, "--calibration", "-o", str(tmp_path / "duel")])
    assert "a process here starts" in ran.stderr
    assert "calibration" in from_json((tmp_path / "duel" / "a.json").read_text()).extras.generator
