"""The command `loadgen capacity` on a real server: its answer, its exit codes, and bad input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.commands.capacity import capacity as command
from loadgen.sizing.capacity import Capacity, Target
from loadgen.sizing.capacity_findings import Found, capacities_page
from reports.formats.artillery_json import from_json
from tests.support.own_app import APP, SETUP, write_app
from tests.support.paths import EXAMPLES

SCRIPT = """
config: {{target: "{target}", phases: [{{duration: 1, arrivalRate: 40}}]}}
before: {{flow: [{{get: {{url: /before}}}}]}}
scenarios: [{{flow: [{{get: {{url: /}}}}]}}]
"""


def capacity(*arguments):
    return CliRunner().invoke(cli, ["capacity", *map(str, arguments)])


@pytest.fixture
def script(tmp_path, ahead_of_others, serve, ok_answer):
    path = tmp_path / "load.yml"
    path.write_text(SCRIPT.format(target=serve(ok_answer()).url))
    return path


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_rate_that_is_held_is_told_with_its_steps(script, tmp_path):
    report = tmp_path / "report.json"
    done = capacity(script, "--p99", 5000, "--max-seconds", 30, "--format", "json", "--report", report)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["rate"] == found["low"] >= 80
    assert found["high"] is None
    assert found["limit"] == "time"
    assert [step["rate"] for step in found["steps"][:2]] == [40, 80]
    assert "80 users/s for " in done.stderr
    saved = from_json(report.read_text())
    assert saved.extras.partial is False
    assert saved.aggregate.counters["http.requests"] >= 120


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_was_found_is_shown_although_the_report_cannot_be_written(script):
    done = capacity(script, "--p99", 5000, "--max-seconds", 30, "--format", "json", "--report", "/dev/full")
    assert done.exit_code == 2
    assert "rate" in json.loads(done.stdout)
    assert "Error: cannot write /dev/full" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_was_found_is_shown_although_the_section_after_fails(script):
    script.write_text(script.read_text() + 'after: {flow: [{get: {url: "http://127.0.0.1:1/"}}]}\n')
    done = capacity(script, "--p99", 5000, "--max-seconds", 30, "--format", "json")
    assert done.exit_code == 3
    assert "Error: the after section failed: " in done.stderr
    assert json.loads(done.stdout)["rate"] >= 80


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_target_that_no_rate_meets_exits_with_1(script):
    done = capacity(script, "--p99", 0.001, "--max-seconds", 20)
    assert done.exit_code == 1
    assert "No rate met the target" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.yml", "--p99", "10"], "cannot read missing.yml: No such file or directory"),
        (["missing.yml"], "Missing option '--p99'"),
        (["missing.yml", "--p99", "0"], "Invalid value for '--p99'"),
        (["missing.yml", "--p99", "nan"], "Invalid value for '--p99'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said):
    done = capacity(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("given", ["3%", "3"])
def test_a_share_is_given_in_percent_with_the_sign_or_without(given):
    arguments = ["x.yml", "--p99", "10", "--precision", given, "--errors", given]
    context = command.make_context("capacity", arguments)
    assert (context.params["precision"], context.params["error_percent"]) == (3.0, 3.0)


def test_the_default_shares_are_those_that_help_shows():
    context = command.make_context("capacity", ["x.yml", "--p99", "10"])
    assert (context.params["precision"], context.params["error_percent"]) == (3.0, 1.0)
    shown = capacity("--help").stdout
    assert "[default: 3%;" in shown and "[default: 1%;" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "60%"), "Invalid value for '--precision': 60.0 is not in the range 0.5<=x<=50"),
        (("--errors", "few"), "Invalid value for '--errors': 'few' is not a valid float range"),
        (("--strategies", "fair"), "--strategies goes with --app"),
        (("--app", "x:app", "--strategies", "best"), "--strategies best: there are own, null, queue, fair"),
        (("--app", "x:app", "--sizes", "0"), "--sizes 0: whole numbers from 1"),
        (("--app", "x:app", "--out", "/dev/null/x"), "cannot write into /dev/null/x: Not a directory"),
        (("--app", "x:app", "--out", "x" * 300), f"cannot write into {'x' * 300}: File name too long"),
        (("--setup", "true"), "--setup goes with --app"),
        (("--app", "x:app", "--target", "http://127.0.0.1:1"), "--target does not go with --app"),
        (("--app", "x:app", "--variables", "{"), "--variables: not JSON"),
        (
            ("--app", "x:app", "--strategies", "fair", "--sizes", "5,10", "--report", "/dev/null"),
            "--report has room for one search",
        ),
        (
            ("--target", "127.0.0.1:8000"),
            "--target: invalid URL 127.0.0.1:8000: it must begin with http:// or https://",
        ),
    ],
)
def test_options_of_an_application_are_checked(script, arguments, said):
    done = capacity(script, "--p99", "100", *arguments)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output


def test_arrangements_whose_intervals_overlap_are_not_told_apart():
    rates = {"queue, 5": (100.0, 98.0, 103.0), "fair, 5": (120.0, 118.0, 123.0), "fair, 9": (119.0, 115.0, 121.0)}
    found = [Found(name, Capacity(*rates[name], "service", ())) for name in rates]
    page = capacities_page(found, Target(50, 0.01), {})
    assert page.data["answer"] == (
        "fair, 5 holds the most: 120 new users per second with p99 within 50 ms and at most 1.0 % errors."
        " Not told apart from it: fair, 9."
    )


def test_arrangements_that_were_not_searched_are_told_with_the_reason():
    found = [Found("own", Capacity(9.0, 8.0, 10.0, "service", ()))]
    page = capacities_page(found, Target(50, 0.01), {}, "no pool without a size")
    assert page.sections[0].blocks[0].text == "Partial: not all arrangements were searched. no pool without a size"


def test_a_generator_that_was_late_for_one_arrangement_does_not_hide_that_the_others_missed():
    missed = Found("own", Capacity(None, 0.0, 1.0, "target", ()))
    late = Found("fair, 5", Capacity(None, 0.0, None, "generator", ()))
    target = "p99 within 50 ms and at most 1.0 % errors"

    def answer(*found):
        return capacities_page(found, Target(50, 0.01), {}).data["answer"]

    assert answer(missed) == f"No arrangement met the target ({target}) at any rate that was tried."
    assert answer(missed, late) == f"{answer(missed)} Nothing was learnt about fair, 5: the generator was late."
    assert answer(late, late).startswith("Nothing was learnt about the arrangements: ")
    held = Found("null", Capacity(9.0, 8.0, 10.0, "service", ()))
    assert answer(held, late).endswith(f"with {target}. Nothing was learnt about fair, 5: the generator was late.")


@pytest.mark.long
def test_an_application_is_loaded_with_the_options_of_the_script_and_its_report_is_written(tmp_path, monkeypatch):
    guarded = APP.replace("return {}, 201", "return {}, 201 if request.headers['X-Token'] == 'abc' else 500")
    write_app(tmp_path, 'os.environ["DATABASE_URL"]', guarded.replace("import Flask", "import Flask, request"))
    script = (tmp_path / "load.yml").read_text().replace("json: {}", 'json: {}, headers: {x-token: "{{ a }}{{ b }}"}')
    environments = "environments: {here: {variables: {a: ab}}}"
    (tmp_path / "load.yml").write_text(script.replace("config:", f"config:\n  {environments}"))
    monkeypatch.chdir(tmp_path)
    done = capacity(
        "load.yml", "--app", "rows_app:app", "--setup", SETUP, "--p99", "2000", "--servers", "1", "--max-seconds", "20",
        "-v", '{"b": "c"}', "-e", "here", "--report", "report.json", "--out", "out", "-o", "found.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(Path("found.json").read_text())["rate"] > 10
    counters = from_json(Path("report.json").read_text()).aggregate.counters
    assert counters["http.codes.201"] > 100 and "http.codes.500" not in counters


@pytest.mark.long
def test_an_application_is_searched_in_each_arrangement(tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES / "shop")
    done = capacity(
        "load.yml", "--app", "app:app", "--p99", "500", "--strategies", "own,fair", "--sizes", "3", "--servers", "1",
        "--max-seconds", "20", "--out", tmp_path / "out", "-o", tmp_path / "found.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(each["strategy"], each["size"]) for each in found["searches"]] == [("own", None), ("fair", 3)]
    # A busy machine may hold no rate in one of them.
    assert found["rate"] == max(each["capacity"]["rate"] or 0 for each in found["searches"])
