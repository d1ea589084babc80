"""Reports that mean harm: one clear line and exit code 2, soon; and what they hold stays text in a spreadsheet and a page."""

import csv
import io
import json
import time

import pytest
from click.testing import CliRunner

from loadgen.cli import cli

GOOD = {"aggregate": {"counters": {"http.requests": 10}, "rates": {}, "summaries": {}}, "intermediate": []}
LOCUST = "Type,Name,Request Count,Failure Count\n"


def run(*arguments):
    started = time.process_time()
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert time.process_time() - started < 20
    return done


def with_counters(counters: str) -> str:
    return json.dumps(GOOD).replace('{"http.requests": 10}', counters)


@pytest.mark.parametrize("text", [
    "[" * 1_000_000, '{"a":' * 300_000, '{"aggregate":{"counters":{}},"x":' + "[" * 2000 + "]" * 2000 + "}",
    with_counters('{"a": NaN}'), with_counters('{"a": Infinity}'), with_counters('{"a": 1e400}'), with_counters('{"a": "x"}'),
    with_counters('{"a": %s}' % ("9" * 5000)), with_counters('{"a": 9223372036854775808}'), with_counters("[1]"),
    "-" * 1_000_000, ":" * 1_000_000, "\n" * 50_000, "\0\1\xff" * 1000, "", LOCUST + '"' * 300_001,
    LOCUST + "a,Aggregated," + "9" * 5000 + ",1\n",
    json.dumps(GOOD).replace('"summaries": {}', '"summaries": {"a": {"min": 1, "mean": 1e999}}'),
    "Type,Name,Request Count,Failure Count,Requests/s\n,Aggregated,5,1,-2\n",
    "-" * 300_000 + " Global Information",
    " " * 1_000_000 + "Summary:", "\x1b]" * 300_000,
    ("-" * 50 + "\t") * 20_000,
    "Requests per second:    " + "9" * 100_000 + " [#/sec] (mean)\n",
])  # fmt: skip
@pytest.mark.parametrize("command", ["report", "diff"])
def test_a_hostile_report_is_one_line_and_exit_code_2(tmp_path, text, command):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(GOOD))
    bad.write_text(text)
    done = run(command, bad) if command == "report" else run(command, good, bad)
    assert (done.exit_code, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert str(bad) in done.stderr


NAMES = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =1",
    "\uff1d1",
    "<script>alert(1)</script>",
    "\x1b[2J",
    "a\x00b",
]


def test_no_name_becomes_a_formula_in_a_spreadsheet(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(with_counters(json.dumps(dict.fromkeys(NAMES, 1))))
    rows = list(csv.reader(io.StringIO(run("report", path, "--format", "csv").stdout)))[1:]
    assert len(rows) == len(NAMES)
    assert not [cell for row in rows for cell in row if cell.lstrip(" \t\r\n")[:1] in ("=", "+", "-", "@", "\uff1d")]


@pytest.mark.parametrize("command", ["report", "diff"])
def test_no_name_becomes_markup_in_a_page(tmp_path, command):
    path = tmp_path / "<img src=x onerror=alert(1)>.json"
    names = {"errors.</script><img src=x onerror=alert(1)>": 1, "http.codes.200": 1, "<b>": 1, "http.requests": 3}
    path.write_text(with_counters(json.dumps(names)))
    page = run(command, *[path] * (1 if command == "report" else 2), "--format", "html").stdout
    assert "<img" not in page and "<b>" not in page and "onerror" in page
