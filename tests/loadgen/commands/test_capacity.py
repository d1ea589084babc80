"""The command `loadgen capacity` on a real server: its answer, its exit codes, and bad input."""

import json

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from reports.formats.artillery_json import from_json

SCRIPT = """
config: {{target: "{target}", phases: [{{duration: 1, arrivalRate: 40}}]}}
before: {{flow: [{{get: {{url: /before}}}}]}}
scenarios: [{{flow: [{{get: {{url: /}}}}]}}]
"""


def capacity(*arguments):
    return CliRunner().invoke(cli, ["capacity", *map(str, arguments)])


@pytest.fixture
def script(tmp_path, serve, ok_answer):
    path = tmp_path / "load.yml"
    path.write_text(SCRIPT.format(target=serve(ok_answer()).url))
    return path


@pytest.mark.slow
def test_a_rate_that_is_held_is_told_with_its_steps(script, tmp_path):
    report = tmp_path / "report.json"
    done = capacity(script, "--p99", 5000, "--max-seconds", 20, "--format", "json", "--report", report)
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
