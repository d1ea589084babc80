"""What a command leaves for a CI system: JUnit XML, and a summary appended to the file that GitHub names."""

import json
import os

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from loadgen.cli import cli
from reports.compare.gates import GateResult
from reports.formats.artillery_json import to_json
from reports.writers.junit import to_junit
from tests.support.loadgen_process import script as script_of
from tests.support.sample_reports import sample_report

NOBODY = "http://127.0.0.1:1"

SHAPE = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "errors", "time"}),
    "testsuite": ({"testcase"}, {"name", "tests", "failures", "errors", "skipped", "time"}),
    "testcase": ({"failure", "skipped", "system-out"}, {"name", "classname", "time"}),
    "failure": (set(), {"message", "type"}),
    "skipped": (set(), {"message"}),
    "system-out": (set(), set()),
}
"""Each element of the files that Jenkins' schema and GitLab's reader accept, as far as used: children and attributes."""


def read(text):
    """The root of a JUnit document, whose shape and counts have been checked."""
    root = etree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        children, attributes = SHAPE[element.tag]
        assert {child.tag for child in element} <= children
        assert set(element.attrib) == attributes
    for element in (root, root[0]):
        assert int(element.get("tests")) == len(root.findall(".//testcase"))
        assert int(element.get("failures")) == len(root.findall(".//failure"))
    assert int(root[0].get("skipped")) == len(root.findall(".//skipped"))
    return root


def outcomes(root):
    """Each test case's name and what became of it."""
    tags = {"failure": "failed", "skipped": "skipped", "system-out": "passed"}
    return {case.get("name"): tags[case[0].tag] for case in root.iter("testcase")}


def loadgen(*arguments, **environment):
    return CliRunner().invoke(cli, [str(a) for a in arguments], env=environment)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(to_json(sample_report()))
    return path


@given(st.lists(st.builds(GateResult, st.text(st.characters()), st.booleans(), st.text(), st.booleans())))
def test_any_text_gives_well_formed_xml(results):
    root = read(to_junit("loadgen run", results, 1.5))

    assert len(root.findall(".//testcase")) == len(results)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a < b & 'c' \"d\"", "a < b & 'c' \"d\""),
        ("\x00 \x1b[31m \x08", r"\x00 \x1b[31m \x08"),
        ("\ud800 \ufffe", r"\ud800 \ufffe"),
        ("line\nline\ttab", "line\nline\ttab"),
        ("größer 😀", "größer 😀"),
        ("]]>", "]]>"),
    ],
)
def test_what_xml_cannot_hold_is_escaped_and_the_rest_comes_back(text, written):
    root = read(to_junit("loadgen run", [GateResult(text, False, text)]))

    assert root.find(".//testcase").get("name") == written
    assert root.find(".//failure").get("message") == written


def test_every_gate_of_a_run_is_a_test_case(tmp_path, serve, ok_answer):
    checks = {"p95": 5000, "conditions": [{"expression": "http.codes.200 > 99", "strict": False}], "maxErrorRate": 1}
    flow = [{"get": {"url": "/", "expect": {"statusCode": 201}}}]
    config = {"plugins": {"ensure": {}, "expect": {}}, "ensure": checks}
    script, junit, summary = (tmp_path / name for name in ("script.json", "gates.xml", "summary.md"))
    script.write_text(json.dumps(script_of(serve(ok_answer()), [{"duration": 1, "arrivalCount": 4}], flow, **config)))
    summary.write_text("before\n")

    done = loadgen(
        *("run", "-q", script, "--junit", junit, "--abort-on", "errors > 5%"), GITHUB_STEP_SUMMARY=str(summary)
    )

    assert done.exit_code == 21
    root = read(junit.read_text("utf-8"))
    assert outcomes(root) == {
        "the run reached its planned end": "passed",
        "errors > 5%": "passed",
        "p95 < 5000": "passed",
        "maxErrorRate < 1": "passed",
        "http.codes.200 > 99": "skipped",
        "all expectations held": "failed",
    }
    assert root.find(".//failure").get("message") == "FAILED: all expectations held (4 of 4 did not hold)"
    assert root.find(".//skipped").get("message").endswith("(http.codes.200 4)")
    text = summary.read_text("utf-8")
    assert text.startswith("before\n## loadgen run script.json: 1 of 6 gates failed\n")
    assert "| requests | requests/s | p50 ms | p95 ms | p99 ms | failed |" in text
    assert "\n- FAILED: all expectations held (4 of 4 did not hold)\n" in text


def test_a_run_without_gates_has_one_case_and_a_summary_with_its_errors(tmp_path):
    script, junit, summary = (tmp_path / name for name in ("script.json", "gates.xml", "summary.md"))
    script.write_text(
        json.dumps(
            {
                "config": {"target": NOBODY, "phases": [{"duration": 1, "arrivalCount": 3}]},
                "scenarios": [{"flow": [{"get": {"url": "/"}}]}],
            }
        )
    )

    done = loadgen("run", "-q", script, "--junit", junit, GITHUB_STEP_SUMMARY=str(summary))

    assert done.exit_code == 0
    assert outcomes(read(junit.read_text("utf-8"))) == {"the run reached its planned end": "passed"}
    assert "| errors.ECONNREFUSED | 3 |" in summary.read_text("utf-8")


def test_a_quick_run_leaves_a_summary(tmp_path, serve, ok_answer):
    summary = tmp_path / "summary.md"

    done = loadgen("quick", "-q", "-c", "1", "-n", "2", serve(ok_answer()).url, GITHUB_STEP_SUMMARY=str(summary))

    assert done.exit_code == 0
    assert summary.read_text("utf-8").startswith("## loadgen quick: passed\n")


def test_a_comparison_leaves_its_rules(tmp_path, saved):
    junit, summary = tmp_path / "gates.xml", tmp_path / "summary.md"
    rules = ("--fail-on", "p99 > +10%", "--fail-on", "p50 > 0")

    done = loadgen("diff", saved, saved, *rules, "--junit", junit, GITHUB_STEP_SUMMARY=str(summary))

    assert done.exit_code == 1
    assert outcomes(read(junit.read_text("utf-8"))) == {"p99 > +10%": "passed", "p50 > 0": "failed"}
    assert summary.read_text("utf-8").startswith("## loadgen diff: 1 of 2 gates failed\n")


def test_a_comparison_without_rules_is_one_case_that_passed(tmp_path, saved):
    junit = tmp_path / "gates.xml"

    assert loadgen("diff", saved, saved, "--junit", junit).exit_code == 0

    assert outcomes(read(junit.read_text("utf-8"))) == {"the reports were compared": "passed"}


def test_a_duel_leaves_its_rules_and_whether_it_was_carried_out(tmp_path, serve, ok_answer):
    server = serve(ok_answer())
    script, junit, summary = (tmp_path / name for name in ("script.json", "gates.xml", "summary.md"))
    script.write_text(json.dumps(script_of(server, [{"duration": 1, "arrivalCount": 20}])))

    done = loadgen(
        *("duel", server.url, NOBODY, script, "--junit", junit, "--fail-on", "errors > 1%"),
        GITHUB_STEP_SUMMARY=str(summary),
    )

    assert done.exit_code == 3
    assert outcomes(read(junit.read_text("utf-8"))) == {
        "the duel reached its planned end": "failed",
        "errors > 1%": "failed",
    }
    assert summary.read_text("utf-8").startswith("## loadgen duel: 2 of 2 gates failed\n")


@pytest.mark.parametrize("kind", ["folder", "no folder", "pipe"])
def test_a_summary_that_cannot_be_written_is_one_line_and_no_failure(tmp_path, saved, kind):
    path = tmp_path / "summary"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path /= "missing"

    done = loadgen("diff", saved, saved, GITHUB_STEP_SUMMARY=str(path))

    assert done.exit_code == 0
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Warning: cannot append to GITHUB_STEP_SUMMARY ({path}): ")


@pytest.mark.parametrize(("command", "code"), [("run", 1), ("diff", 2), ("duel", 2)])
def test_a_junit_file_that_cannot_be_written_is_found_before_the_work(tmp_path, serve, ok_answer, saved, command, code):
    server = serve(ok_answer())
    script = tmp_path / "script.json"
    script.write_text(json.dumps(script_of(server, [{"duration": 1, "arrivalCount": 2}])))
    what = {"run": [script], "diff": [saved, saved], "duel": [server.url, server.url, script]}[command]

    done = loadgen(command, *what, "--junit", tmp_path / "missing" / "gates.xml")

    assert done.exit_code == code
    assert "there is no folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not server.heads
