"""The commands: exit codes, streams and formats."""

import csv
import html
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from reports import cli
from reports.formats.artillery_json import from_json, to_json
from reports.formats.csv_text import to_csv
from reports.model import Period, Report
from tests.support.sample_reports import sample_report


@pytest.fixture
def invoke():
    return lambda command, *args: CliRunner().invoke(command, [str(a) for a in args])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(to_json(sample_report()))
    return path


def test_a_diff_goes_to_stdout_and_exits_0(invoke):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Better, beyond chance: failed requests, requests per second, median, p95, p99 and ")
    assert "ab.requests_per_second" not in done.stdout


def test_a_diff_shows_every_figure_if_asked_to(invoke):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "--all")

    assert done.stdout.startswith("Better, beyond chance: ") and "ab.requests_per_second" in done.stdout


def test_a_report_that_is_merged_with_itself_is_named(invoke, saved):
    again = "1 of 2 reports are there a second time, and are counted again.\n"
    assert again in invoke(cli.report, saved, saved).stderr
    assert again not in invoke(cli.report, saved).stderr


@pytest.mark.parametrize("style", ["json", "markdown"])
def test_a_diff_has_other_formats(invoke, style):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "--format", style)

    assert json.loads(done.stdout)["metrics"] if style == "json" else "\n| metric | old |" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "published:B.3.c1"], "nowhere: No such file"),
        (["published:B.9", "published:B.3.c1"], "nothing was published as 'B.9'"),
    ],
)
def test_a_bad_input_is_one_line_on_stderr_and_exits_2(invoke, args, message):
    done = invoke(cli.diff, *args)

    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_made_up_figures_of_ab_are_a_bad_input(invoke, tmp_path, saved):
    document = json.loads(saved.read_text())
    document["poolbench"]["ab"] = {"colour": "red"}
    (tmp_path / "odd.json").write_text(json.dumps(document))

    done = invoke(cli.diff, tmp_path / "odd.json", "published:B.3.c1")

    assert done.exit_code == 2 and "not the figures of an ApacheBench report" in done.stderr


def test_a_report_is_shown_as_artillerys_console_summary(invoke, saved):
    done = invoke(cli.report, saved)

    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith("Summary report @ ") and "loadgen." not in done.stdout


def test_periods_come_before_the_summary_on_demand(invoke, saved):
    lines = invoke(cli.report, saved, "--periods").stdout.splitlines()

    assert lines[1].startswith("Metrics for period to: ") and any(line.startswith("Summary report") for line in lines)


def test_abs_text_is_shown_as_abs_text(invoke, golden):
    path = golden / "ab" / "some-non-2xx.txt"

    assert invoke(cli.report, path).stdout == path.read_text()


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        ("txt", "Requests per second:    "),
        ("csv", "all,http.response_time,p95,"),
        ("md", "| errors.failed | "),
        ("html", "Connection times"),
    ],
)
def test_abs_text_goes_to_a_file_in_every_format(invoke, golden, tmp_path, ending, line):
    path, out = golden / "ab" / "some-non-2xx.txt", tmp_path / f"out.{ending}"

    done = invoke(cli.report, path, "-o", out)

    assert (done.exit_code, done.output) == (0, "") and line in out.read_text("utf-8")
    assert ending != "txt" or out.read_text() == path.read_text()


def test_abs_text_is_shown_under_artillerys_names_on_demand(invoke, golden):
    done = invoke(cli.report, golden / "ab" / "some-non-2xx.txt", "--format", "text")

    assert done.stdout.startswith("-") and "http.requests: ...." in done.stdout and "  p99: ...." in done.stdout


def test_several_reports_are_merged(invoke, saved):
    done = invoke(cli.report, saved, saved, "--format", "json")

    assert from_json(done.stdout).aggregate.counters["vusers.created"] == 8


def test_a_report_goes_to_a_file_on_demand(invoke, saved, tmp_path):
    done = invoke(cli.report, saved, "-o", tmp_path / "out.md", "--format", "markdown")

    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "out.md").read_text().startswith("| metric | value |")


def test_any_report_is_shown_in_the_layout_of_apachebench(invoke, tmp_path):
    for name, requests in (("a", 30), ("b", 12)):
        counters = {"http.requests": requests, "http.responses": requests - 2, "http.codes.200": requests - 2}
        (tmp_path / f"{name}.json").write_text(to_json(Report.of([Period(0, counters)])))
    done = invoke(cli.report, tmp_path / "a.json", tmp_path / "b.json", "--format", "ab")

    assert done.exit_code == 0
    figures = dict(re.findall(r"^(Complete|Failed) requests: +(\d+)$", done.stdout, re.MULTILINE))
    assert figures == {"Complete": "42", "Failed": "4"}


def test_the_markdown_report_is_as_the_golden_file_shows(invoke, saved, assert_golden):
    assert_golden("report.md", invoke(cli.report, saved, "--format", "markdown").stdout)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "/nowhere/at/all"], "there is no folder /nowhere/at"),
        (["-o", "."], "it is a folder"),
    ],
)
def test_what_cannot_be_written_exits_2(invoke, saved, args, message):
    done = invoke(cli.report, saved, *args)

    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_reports_that_cannot_be_merged_exit_2(invoke, saved, tmp_path):
    (tmp_path / "short.json").write_text(to_json(Report(Period(start_ms=0, counters={"a": 1}))))

    done = invoke(cli.report, saved, tmp_path / "short.json")

    assert done.exit_code == 2 and "cannot be merged" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda of: of["sketches"]["loadgen.start_lag"].update(relative_accuracy=0.02),
            "different relative accuracy",
        ),
        (lambda of: of["rate_counts"]["http.request_rate"].update(count=10**400), "too large a number"),
    ],
)
def test_reports_whose_figures_do_not_add_up_exit_2(invoke, saved, tmp_path, change, said):
    document = json.loads(saved.read_text())
    change(document["poolbench"]["periods"][0])
    (tmp_path / "odd.json").write_text(json.dumps(document))

    done = invoke(cli.report, saved, tmp_path / "odd.json")

    assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_broken_rule_exits_1_and_says_which(invoke):
    done = invoke(
        cli.diff, "published:B.3.c1", "published:B.1.c1", "--fail-on", "p99 > +10%", "--fail-on", "rps > 1000"
    )

    assert done.exit_code == 1
    lines = done.stdout.splitlines()[-2:]
    assert lines[0].startswith("FAILED: p99 > +10% (ab.percentile.99 8 -> 60, +650.0%, worse)")
    assert lines[1].startswith("passed: rps > 1000")


def test_rules_that_are_kept_exit_0_and_json_lists_them(invoke):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "--fail-on", "worse", "--format", "json")

    assert done.exit_code == 0 and done.stderr == "passed: worse (no figure is worse)\n"
    assert json.loads(done.stdout)["checks"][0] == {
        "rule": "worse",
        "met": True,
        "line": "passed: worse (no figure is worse)",
    }


@pytest.mark.parametrize("rule", ["p99 >> 5", "p97 > 5"])
def test_a_rule_that_cannot_be_checked_exits_2_in_one_line(invoke, rule):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "--fail-on", rule)

    assert (done.exit_code, done.stdout) == (2, "") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--run-deviation", "x"), ("--least-effect", "1 apple")])
def test_a_bound_that_is_no_amount_is_a_bad_input(invoke, option, value):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", option, value)

    assert (done.exit_code, done.stdout) == (2, "") and done.stderr.startswith(f"Error: {option} ")


def test_the_assumed_deviation_between_runs_is_told_and_can_be_set(invoke):
    usual = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1").stdout
    wide = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "--run-deviation", "40%").stdout

    assert "a standard deviation of 5 %" in usual and " better\n" in usual
    assert "a standard deviation of 40 %" in wide and wide.count(" better\n") < usual.count(" better\n")


def test_several_runs_a_side_are_compared(invoke, saved, tmp_path):
    later = tmp_path / "later.json"
    later.write_text(saved.read_text().replace("303.4", "303.5"))
    done = invoke(cli.diff, *(part for side in ("--old", "--new") for path in (saved, later) for part in (side, path)))

    assert done.exit_code == 0 and "Judged by the variation between 2 and 2 runs, by a rotation test." in done.stdout
    assert "0 worse, 0 better" in done.stdout


def test_a_report_that_is_given_twice_counts_once(invoke, saved):
    done = invoke(cli.diff, *(part for side in ("--old", "--new") for _ in range(4) for part in (side, saved)))

    assert done.exit_code == 0 and "3 of 4 old reports are there a second time; a run counts once." in done.stdout
    assert "The same report is on both sides" in done.stdout
    assert "One run a side" in done.stdout and "0 worse, 0 better" in done.stdout


def test_a_side_that_is_missing_is_bad_usage(invoke, saved):
    assert invoke(cli.diff, saved).exit_code == invoke(cli.diff, "--old", saved).exit_code == 2


def test_which_of_several_reports_was_taken_is_said_on_stderr(invoke, golden):
    path = golden / "pasted" / "artillery.md"

    done = invoke(cli.diff, path, f"{path}#2")

    assert done.exit_code == 0 and done.stderr == f"{path} holds 2 reports; the first is used ({path}#2 is the next)\n"
    assert re.search(r"response time, p99 +127.8 +3000", done.stdout)


def test_a_diff_goes_to_a_file_in_the_format_of_its_name(invoke, tmp_path):
    done = invoke(cli.diff, "published:B.1.c1", "published:B.3.c1", "-o", tmp_path / "diff.md")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "| metric | old | new |" in (tmp_path / "diff.md").read_text()


def test_a_report_goes_to_a_file_in_the_format_of_its_name(invoke, saved, tmp_path):
    begins = {"html": "<!doctype html>", "md": "| metric", "csv": "period,", "json": "{", "txt": "----"}
    for ending, start in begins.items():
        done = invoke(cli.report, saved, "-o", tmp_path / f"out.{ending}")
        assert (done.exit_code, done.output) == (0, "")
        assert (tmp_path / f"out.{ending}").read_text("utf-8").strip().startswith(start)


@pytest.mark.parametrize("ending", ["html", "md", "json", "txt"])
def test_a_diff_says_the_same_in_every_format(invoke, tmp_path, ending):
    """Every figure with both of its values, its verdict, the notes and the rules."""
    out = tmp_path / f"out.{ending}"
    done = invoke(cli.diff, "published:B.3.c1", "published:B.1.c1", "--fail-on", "p99 > +10%", "-o", out)
    text = html.unescape(re.sub(r"<[^>]+>", " ", out.read_text("utf-8"))).replace("\\", "")
    assert done.exit_code == 1
    assert "FAILED: p99 > +10% (ab.percentile.99 8 -> 60" in text
    assert "runs are supposed to vary" in text
    assert "Worse, beyond chance: failed requests, requests per second, median" in text
    assert re.search(r"(requests per second|ab\.requests_per_second)\W.*?256\.76.*?44\.26.*?worse", text, re.DOTALL)


def test_a_page_is_one_file(invoke, saved, tmp_path):
    page = tmp_path / "page.html"
    done = invoke(cli.report, saved, "-o", page)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "<svg" in page.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".html", ".js")] == ["page.html"]


def test_csv_has_a_line_per_figure_and_periods_on_demand(invoke, saved, tmp_path):
    plain = list(csv.DictReader(io.StringIO(invoke(cli.report, saved, "--format", "csv").stdout)))
    periods = list(csv.DictReader(io.StringIO(invoke(cli.report, saved, "--format", "csv", "--periods").stdout)))

    assert {row["period"] for row in plain} == {"all"} and set(plain[0]) == {"period", "metric", "figure", "value"}
    assert ("vusers.created", "count", "4") in {(row["metric"], row["figure"], row["value"]) for row in plain}
    assert len(periods) > len(plain) and periods[0]["period"].endswith("Z")


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "  =1", "\uff1d1"])
def test_no_name_is_a_formula_to_a_spreadsheet(name):
    text = to_csv(Report(Period(0, {name: -5})))

    row = list(csv.reader(io.StringIO(text, newline="")))[1]
    assert row == ["all", f"'{name}", "count", "-5"]


@pytest.mark.parametrize(("kind", "line"), [
    ("csv", "all,http.response_time,p95,–"), ("markdown", "| http.response_time | 35.92 | – | 5.4 | – | – |"),
    ("text", "  p95: " + "." * 73 + " –"), ("html", "<dt>p95</dt><dd>–"),
])  # fmt: skip
def test_percentiles_without_samples_are_dashes_in_every_format(invoke, tmp_path, kind, line):
    """Such a report read back says the same: a dash is no figure."""
    document = """{"aggregate": {"counters": {"http.requests": 4}, "summaries": {
        "http.response_time": {"max": 35.92, "mean": 5.4, "p99": null}, "other": {"count": 0, "p95": 0, "p99": 0}}}}"""
    path = tmp_path / "some.json"
    path.write_text(document)
    done = invoke(cli.report, path, "--format", kind)
    assert done.exit_code == 0
    assert line in done.output
    if kind == "text":
        (tmp_path / "again.txt").write_text(done.output)
        assert "35.92" in invoke(cli.report, tmp_path / "again.txt").output


def test_a_name_cannot_break_a_csv_line():
    text = to_csv(Report(Period(0, {'a\r=1,"\n\0b': 5})))

    assert list(csv.reader(io.StringIO(text, newline="")))[1] == ["all", 'a\\x0d=1,"\\x0a\\x00b', "count", "5"]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(no_color, coloured):
    code = "from reports.cli import diff; diff(['published:B.1.c1', 'published:B.3.c1'])"
    leader, follower = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=follower, env=environment, timeout=60, check=True)
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)

    assert b"\nmetric" in shown and (b"\x1b[32m" in shown) is coloured


def _read(terminal):
    """What is left to read; a terminal whose other side is closed raises instead of ending."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_help_needs_neither_numpy_nor_a_report():
    code = "import sys; from reports.cli import diff, report; sys.exit(bool({'numpy', 'orjson'} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
