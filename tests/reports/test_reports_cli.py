"""The commands: exit codes, streams and formats."""

import json
import os
import pty
import subprocess
import sys

import pytest
from click.testing import CliRunner
from test_artillery_json import sample_report

from reports import cli
from reports.artillery_json import from_json, to_json
from reports.model import Period, Report


@pytest.fixture
def run():
    return lambda command, *args: CliRunner().invoke(command, [str(a) for a in args])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(to_json(sample_report()))
    return path


def test_a_diff_goes_to_stdout_and_exits_0(run):
    done = run(cli.diff, "published:B.1.c1", "published:B.3.c1")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("metric ") and "ab.requests_per_second" in done.stdout


@pytest.mark.parametrize("style", ["json", "markdown"])
def test_a_diff_has_other_formats(run, style):
    done = run(cli.diff, "published:B.1.c1", "published:B.3.c1", "--format", style)

    assert json.loads(done.stdout)["metrics"] if style == "json" else done.stdout.startswith("| metric |")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "published:B.3.c1"], "nowhere: No such file"),
        (["published:B.9", "published:B.3.c1"], "nothing was published as 'B.9'"),
    ],
)
def test_a_bad_input_is_one_line_on_stderr_and_exits_2(run, args, message):
    done = run(cli.diff, *args)

    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_made_up_figures_of_ab_are_a_bad_input(run, tmp_path, saved):
    document = json.loads(saved.read_text())
    document["poolbench"]["ab"] = {"colour": "red"}
    (tmp_path / "odd.json").write_text(json.dumps(document))

    done = run(cli.diff, tmp_path / "odd.json", "published:B.3.c1")

    assert done.exit_code == 2 and "not the figures of an ApacheBench report" in done.stderr


def test_a_report_is_shown_as_artillerys_console_summary(run, saved):
    done = run(cli.report, saved)

    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith("Summary report @ ") and "loadgen." not in done.stdout


def test_periods_come_before_the_summary_on_demand(run, saved):
    lines = run(cli.report, saved, "--periods").stdout.splitlines()

    assert lines[1].startswith("Metrics for period to: ") and any(line.startswith("Summary report") for line in lines)


def test_abs_text_is_shown_as_abs_text(run, golden):
    path = golden / "ab" / "some-non-2xx.txt"

    assert run(cli.report, path).stdout == path.read_text()


def test_several_reports_are_merged(run, saved):
    done = run(cli.report, saved, saved, "--format", "json")

    assert from_json(done.stdout).aggregate.counters["vusers.created"] == 8


def test_a_report_goes_to_a_file_on_demand(run, saved, tmp_path):
    done = run(cli.report, saved, "-o", tmp_path / "out.md", "--format", "markdown")

    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "out.md").read_text().startswith("| metric | value |")


def test_the_markdown_report_is_as_the_golden_file_shows(run, saved, assert_golden):
    assert_golden("report.md", run(cli.report, saved, "--format", "markdown").stdout)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "/nowhere/at/all"], "there is no folder /nowhere/at"),
        (["--format", "ab"], "no ApacheBench figures"),
    ],
)
def test_what_cannot_be_written_exits_2(run, saved, args, message):
    done = run(cli.report, saved, *args)

    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_reports_that_cannot_be_merged_exit_2(run, saved, tmp_path):
    (tmp_path / "short.json").write_text(to_json(Report(Period(start_ms=0, counters={"a": 1}))))

    done = run(cli.report, saved, tmp_path / "short.json")

    assert done.exit_code == 2 and "cannot be merged" in done.stderr


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(no_color, coloured):
    code = "from reports.cli import diff; diff(['published:B.1.c1', 'published:B.3.c1'])"
    leader, follower = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=follower, env=environment, timeout=30, check=True)
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)

    assert shown.startswith(b"metric") and (b"\x1b[90m" in shown) is coloured


def _read(terminal):
    """What is left to read; a terminal whose other side is closed raises instead of ending."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_help_needs_neither_numpy_nor_a_report():
    code = "import sys; from reports.cli import diff, report; sys.exit(bool({'numpy', 'orjson'} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
