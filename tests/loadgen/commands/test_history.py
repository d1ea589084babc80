"""`loadgen history`: formats, order, files that are no reports, rules and exit codes."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from loadgen.commands.history import history
from reports import names
from reports.formats.artillery_json import to_json
from reports.model import Extras, Period, Rate, Report
from reports.sketch import Sketch
from tests.support.paths import ROOT

DAY_MS = 86_400_000
START_MS = 1_771_500_000_000
ENDPOINT = f"{names.ENDPOINT}{names.ENDPOINT_TIME}GET /"


def a_report(day, factor=1.0, **extras):
    rng = np.random.default_rng(day)
    at = START_MS + day * DAY_MS
    times = np.exp(rng.normal(np.log(30 * factor) + rng.normal(0, 0.02), 0.3, 400))
    sketches = {names.RESPONSE_TIME: Sketch.of(times), ENDPOINT: Sketch.of(times)}
    period = Period(
        start_ms=at // 10_000 * 10_000,
        counters={names.REQUESTS: 400, names.RESPONSES: 400},
        rates={names.REQUEST_RATE: Rate.of(400, at, at + 9000)},
        sketches=sketches,
        first_counter_ms=at,
        last_counter_ms=at + 9000,
    )
    return Report.of([period], Extras("0.1.0", "open", **extras))


@pytest.fixture
def folder(tmp_path):
    """Reports of 20 days; the last eight are by a third slower."""
    found = tmp_path / "reports"
    found.mkdir()
    for day in range(20):
        told = {"commit": f"{day:x}" * 40, "cpu": "old" if day < 12 else "new"}
        # Names that sort in another order than the days.
        text = to_json(a_report(day, 1.3 if day >= 12 else 1.0, environment=told))
        (found / f"{97 * day % 20}.json").write_text(text)
    return found


@pytest.fixture
def invoke():
    return lambda *args: CliRunner().invoke(history, [str(each) for each in args])


def test_a_change_is_told_with_its_dates_commits_and_levels(invoke, folder):
    done = invoke(folder, "--metric", f"{ENDPOINT}.p95")
    assert done.exit_code == 0 and done.stderr == ""
    first = done.stdout.splitlines()[0]
    assert first.startswith("p95 of GET / rose by ")
    assert "between 2026-03-02 (bbbbbbb) and 2026-03-03 (ccccccc) (from " in first


@pytest.mark.parametrize("style", ["text", "markdown", "json", "html"])
def test_every_format_has_the_changes_of_all_usual_figures(invoke, folder, style):
    done = invoke(folder, "--format", style)
    assert done.exit_code == 0
    for words in ("p95", "p99", "GET /"):
        assert words in done.stdout


def test_json_has_changes_and_figures(invoke, folder):
    found = json.loads(invoke(folder, "--format", "json").stdout)
    change = next(each for each in found["changes"] if each["name"] == "http.response_time.median")
    assert (change["verdict"], change["gradual"], change["also_different"]) == ("worse", False, ["machine"])
    assert change["relative"] == pytest.approx(0.3, abs=0.05) and change["p"] < 0.01
    assert len(found["reports"]) == 20 and len(found["figures"][0]["values"]) == 20
    # The rate of an open workload is the plan's.
    assert all(each["name"] != names.REQUEST_RATE for each in found["figures"])


def test_the_page_marks_the_change_in_a_chart(invoke, folder, tmp_path):
    assert invoke(folder, "-o", tmp_path / "out.html").output == ""
    page = (tmp_path / "out.html").read_text()
    assert page.count('class="mark"') == 4 and ">level<" in page


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        (["worse"], 1),
        (["p99 worse"], 1),
        (["p95 > +20%"], 1),
        (["p95 > +50%"], 0),
        (["errors > 0.1%"], 0),
        (["p99 < +0%", "p99 worse"], 1),
    ],
)
def test_a_rule_is_about_the_last_change(invoke, folder, tmp_path, rules, code):
    options = [each for rule in rules for each in ("--fail-on", rule)]
    done = invoke(folder, *options, "--junit", tmp_path / "gates.xml")
    assert done.exit_code == code and ("FAILED: " in done.stdout) == bool(code)
    assert (tmp_path / "gates.xml").read_text().count("<testcase") == len(rules)


def test_a_change_before_the_last_reports_is_not_looked_at(invoke, folder):
    done = invoke(folder, "--last", 8, "--fail-on", "worse")
    assert done.exit_code == 0
    assert done.stdout.startswith("No change in 8 reports, 2026-03-03 (ccccccc) to 2026-03-10")


def test_few_reports_cannot_be_judged_and_break_a_rule(invoke, folder):
    done = invoke(folder, "--last", 7, "--fail-on", "worse")
    assert done.exit_code == 1
    assert done.stdout.startswith("Cannot be judged: 7 reports (8 are needed).") and "NOT JUDGED: worse" in done.stdout
    assert invoke(folder, "--last", 7).exit_code == 0


def test_what_is_no_report_in_a_folder_is_named_and_left_out(invoke, folder):
    (folder / "README.md").write_text("Reports of every night.")
    (folder / "more").mkdir()
    (folder / "more" / "cut.json").write_text('{"aggregate": ')
    (folder / ".hidden").write_text("x")
    done = invoke(folder)
    assert done.exit_code == 0
    assert [line.split(":")[1].rpartition("/")[2] for line in done.stderr.splitlines()] == ["README.md", "cut.json"]


def test_what_is_named_itself_must_be_a_report(invoke, folder, tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    done = invoke(folder, tmp_path / "a.txt", tmp_path / "nowhere.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 2 and "nowhere.json: No such file" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metric", "p95x"], "no report has a figure called 'p95x'"),
        (["--fail-on", "soon"], "is no rule"),
        (["--least-effect", "much"], "--least-effect 'much'"),
        (["--last", "0"], "--last"),
    ],
)
def test_bad_options_exit_2(invoke, folder, args, message):
    done = invoke(folder, *args)
    assert done.exit_code == 2 and message in done.stderr


@pytest.mark.parametrize("name", ["nothing-in-it", "no*match", "x" * 300, "*" + "x" * 300])
def test_a_folder_without_reports_exits_2(invoke, tmp_path, name):
    (tmp_path / "nothing-in-it").mkdir()
    done = invoke(tmp_path / name)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1


def test_reports_without_a_time_go_by_that_of_their_files_or_by_name(invoke, tmp_path):
    text = (ROOT / "tests/golden/reports/ab/some-non-2xx.txt").read_text()
    for i in range(9):
        file = tmp_path / f"run{i + 2}.txt"
        file.write_text(text)
        os.utime(file, (1_771_500_000 - i * 3600,) * 2)
    by_time = invoke(f"{tmp_path}/run*.txt", "--format", "json")
    assert by_time.stderr.startswith("Ordered by the file's time, as the report has none (--order name): ")
    order = [each["name"].rpartition("/")[2] for each in json.loads(by_time.stdout)["reports"]]
    assert order[0] == "run10.txt" and order[-1] == "run2.txt"
    by_name = invoke(tmp_path, "--order", "name", "--format", "json")
    order = [each["name"].rpartition("/")[2] for each in json.loads(by_name.stdout)["reports"]]
    assert order[0] == "run2.txt" and order[-1] == "run10.txt" and by_name.stderr == ""


@pytest.mark.parametrize("metric", ["http.codes.503", "errors.ETIMEDOUT", "http.requests", "rps", "p999", "errors"])
def test_other_figures_can_be_named(invoke, folder, metric):
    done = invoke(folder, "--metric", metric, "--format", "json")
    assert done.exit_code == 0
    [figure] = json.loads(done.stdout)["figures"]
    expected = {"http.requests": pytest.approx(400), "rps": pytest.approx(400 / 9, 0.2), "p999": pytest.approx(75, 0.5)}
    assert figure["levels"][0] == expected.get(metric, 0)


def test_failures_that_begin_are_told_as_shares(invoke, folder):
    for file in folder.iterdir():
        document = json.loads(file.read_text())
        if document["aggregate"]["firstCounterAt"] >= START_MS + 12 * DAY_MS:
            for part in (document["aggregate"], *document["intermediate"]):
                part["counters"]["http.codes.503"] = 40
            file.write_text(json.dumps(document))
    done = invoke(folder, "--metric", "errors", "--metric", "http.codes.503")
    assert done.stdout.startswith("Failed requests rose between ") and "(from 0 % to 10 %)" in done.stdout
    assert "answers of status 503" in done.stdout


def test_runs_that_were_cut_short_are_left_out_with_a_note(invoke, folder):
    (folder / "cut.json").write_text(to_json(a_report(21, 9.0, partial=True)))
    done = invoke(folder)
    assert "Left out, because the run did not reach the planned end: " in done.stdout and "cut.json" in done.stdout


def test_a_drift_too_small_to_matter_is_judged_by_a_limit(invoke, tmp_path):
    for day in range(24):
        (tmp_path / f"{day}.json").write_text(to_json(a_report(day, 1.0 + day / 3000)))
    done = invoke(tmp_path, "--metric", "p50", "--fail-on", "p50 > 2500")
    assert done.exit_code == 0 and "passed: p50 > 2500" in done.stdout


def test_a_slow_drift_is_told_as_one(invoke, tmp_path):
    for day in range(24):
        (tmp_path / f"{day}.json").write_text(to_json(a_report(day, 1.0 + day / 30)))
    done = invoke(tmp_path, "--metric", "p50")
    assert " gradually, from 2026-02-19 to 2026-03-14, (from " in done.stdout.splitlines()[0]
