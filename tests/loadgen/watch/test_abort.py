"""`loadgen run --abort-on`: a hopeless run ends early, and says why."""

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import gevent
import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.engine import Progress
from loadgen.watch.abort import FIRST_LOOK_S, LOOKS_LEAST, AbortWatch
from loadgen.watch.observer import Underway
from reports.compare.conditions import Condition
from reports.formats.artillery_json import from_json
from reports.model import Period
from tests.support.loadgen_process import script as script_of

FAILING = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


def run(tmp_path, script, *options, patience=60):
    path, out = tmp_path / "script.json", tmp_path / "out.json"
    path.write_text(json.dumps(script))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", "run", path, "-o", out, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=patience,
    )
    return done, time.monotonic() - began, from_json(out.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_hopeless_run_ends_early_with_its_report(tmp_path, serve, options):
    server = serve(lambda connection, _: connection.sendall(FAILING))
    script = script_of(server, [{"duration": 60, "arrivalRate": 20}])
    script["after"] = {"flow": [{"log": "after ran"}]}

    done, seconds, report = run(tmp_path, script, "--abort-on", "p99 > 5s", "--abort-on", "errors > 5%", *options)

    assert done.returncode == 1
    assert seconds < 30
    assert "after ran" in done.stdout
    assert "Summary report @" in done.stdout
    assert report.extras.partial
    [aborted] = [warning for warning in report.extras.warnings if "--abort-on" in warning]
    assert re.search(r"errors > 5% \(errors (100|9\d)\.\d\d%\)", aborted)
    assert f"Aborted: {aborted}\n" in done.stderr
    assert report.aggregate.counters["vusers.created"] < 60 * 20


@pytest.mark.slow
def test_users_that_never_end_do_not_hold_up_the_end(tmp_path, serve):
    server = serve(lambda connection, _: connection.sendall(FAILING))
    flow = [{"get": {"url": "/"}}, {"think": 300}]
    script = script_of(server, [{"duration": 60, "arrivalRate": 10}], flow)

    done, seconds, report = run(tmp_path, script, "--abort-on", "http.codes.500 > 20")

    assert done.returncode == 1
    assert seconds < 40
    assert report.extras.partial


@pytest.mark.slow
def test_a_single_early_error_does_not_end_a_run(tmp_path, serve, ok_answer):
    answers = iter([FAILING])
    ok = ok_answer()

    def answer(connection, _):
        connection.sendall(next(answers, ok))

    script = script_of(serve(answer), [{"duration": 8, "arrivalRate": 4}])

    done, _, report = run(tmp_path, script, "--abort-on", "errors > 1%")

    assert done.returncode == 0, done.stderr
    assert not report.extras.partial
    assert report.aggregate.counters["http.codes.500"] == 1


def test_a_condition_that_holds_only_at_the_end_is_a_threshold_not_met(tmp_path, serve):
    server = serve(lambda connection, _: connection.sendall(FAILING))

    done, _, report = run(
        tmp_path, script_of(server, [{"duration": 1, "arrivalCount": 40}]), "--abort-on", "errors > 5%"
    )

    assert done.returncode == 1
    assert "--abort-on FAILED: errors > 5% (errors 100.00%)" in done.stderr
    assert not report.extras.partial


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("errors", "--abort-on 'errors' is no rule"),
        ("errors > 5", "errors is a share"),
        ("p99 > +10%", "there is nothing to compare this run with"),
        ("worse", "there is nothing to compare this run with"),
        ("p98 > 20", "no run has a figure called 'p98' (did you mean p99?)"),
        ("p99 > 5%", "p99 is no share"),
        ("", "is no rule"),
    ],
)
def test_a_mistake_is_found_before_anything_is_sent(tmp_path, serve, ok_answer, condition, told):
    server = serve(ok_answer())
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script_of(server, [{"duration": 1, "arrivalCount": 2}])))

    done = CliRunner().invoke(cli, ["run", str(path), "--abort-on", condition])

    assert done.exit_code == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not server.heads


@contextmanager
def watched(totals):
    """A watch over a run whose figures are the next of these each time that they are looked at."""
    stopped, warnings, looks = [], [], []
    figures = iter(totals)
    watch = AbortWatch([Condition.parse("http.codes.500 > 5", "--abort-on")], lambda _: None)
    progress = Progress(FIRST_LOOK_S, 0, 0, 0, 0)

    def look():
        looks.append(watch.ended_by)
        return next(figures)

    underway = Underway(lambda: Period(0), look, lambda: progress, lambda: stopped.append(1), warnings.append)
    with watch.observe(underway), gevent.Timeout(60):
        yield watch, underway, stopped, warnings, looks


def seen(start_ms, failed):
    return Period(start_ms, {"http.responses": 100, "http.codes.500": failed})


@pytest.mark.slow
def test_a_condition_must_hold_at_several_looks_in_a_row():
    figures = [seen(10_000, n) for n in (6, 0, *(6 for _ in range(LOOKS_LEAST)))]
    with watched(figures) as (watch, _, stopped, warnings, looks):
        while watch.ended_by is None:
            gevent.sleep(0.1)
        assert watch.ended_by.rule == "http.codes.500 > 5"
    assert looks == [None] * (LOOKS_LEAST + 2), "before the last of these looks, nothing has ended it"
    assert stopped == [1]
    assert len(warnings) == 1


@pytest.mark.slow
def test_periods_that_are_over_are_part_of_the_figures():
    later = [seen(20_000, 2)] * 10
    with watched([seen(10_000, 1), *later]) as (watch, underway, _, _, looks):
        while not looks:
            gevent.sleep(0.1)
        underway.period_over(seen(10_000, 4))
        while watch.ended_by is None:
            gevent.sleep(0.1)
    assert watch.ended_by.line == "FAILED: http.codes.500 > 5 (http.codes.500 6)"
