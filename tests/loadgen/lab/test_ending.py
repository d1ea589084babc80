"""What was measured before a signal or an error ended a session is kept."""

import json
from random import Random
from signal import SIGINT, SIGTERM

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.lab.ending import Ending
from loadgen.lab.stack import StackError
from loadgen.lab.turns import in_turns
from loadgen.runner import Interrupted
from tests.support.own_app import APP, SETUP, errors, lab, write_app

GIVEN = 'os.environ["DATABASE_URL"]'
WITHOUT_NULL = f"{APP}\nengine.pool.size()\n"
"""It does not start under `null`, whose pool has no size."""
FOURTH_START = """
from pathlib import Path
starts = Path("starts")
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
if len(starts.read_text()) > 3:
    raise RuntimeError("the licence has expired")
"""


@pytest.mark.parametrize(
    ("raised", "number"),
    [(Interrupted(SIGTERM), SIGTERM), (KeyboardInterrupt(), SIGINT), (SystemExit(143), SIGTERM)],
)
def test_a_signal_is_kept_if_something_was_measured(raised, number):
    ending = Ending()
    with ending.kept(lambda: True):
        raise raised
    assert (ending.signal, ending.error, ending.is_early) == (number, None, True)
    with pytest.raises((Interrupted, SystemExit)), Ending().kept(lambda: False):
        raise raised


def test_an_error_is_kept_if_something_was_measured_and_told_in_one_line_without_a_password():
    ending, error = Ending(), StackError("no secret\nhere")
    with ending.kept(lambda: True):
        raise error
    assert (ending.signal, ending.error) == (None, error)
    assert ending.told(lambda text: text.replace("secret", "***")) == "no *** here"
    with pytest.raises(StackError), Ending().kept(lambda: False):
        raise error


def test_nothing_ends_a_session_that_is_complete():
    ending = Ending()
    with ending.kept(lambda: True):
        pass
    assert not ending.is_early and ending.told() == ""


@pytest.mark.long
def test_the_strategies_that_ran_before_one_that_does_not_start_are_in_the_page(tmp_path):
    write_app(tmp_path, GIVEN, WITHOUT_NULL)
    order = ["own", "null"]
    seed = next(seed for seed in range(99) if list(in_turns(order, 1, Random(seed))) == order)
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "own,null", "--seed", seed)
    assert done.returncode == 2
    (error,) = errors(done)
    assert "AttributeError" in error and f"What was measured until then is in {tmp_path / 'out'}" in done.stderr
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["partial"] is True and "AttributeError" in found["error"]
    assert list(found["strategies"]) == ["own"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Partial: it was ended by an error." in page and "AttributeError" in page


@pytest.mark.long
def test_the_capacities_found_before_a_strategy_that_does_not_start_are_shown(tmp_path, monkeypatch):
    write_app(tmp_path, GIVEN, WITHOUT_NULL)
    monkeypatch.chdir(tmp_path)
    given = ("--app", "rows_app:app", "--setup", SETUP, "--strategies", "own,null", "--servers", "1")
    limits = ("--p99", "2000", "--max-seconds", "20", "--out", "out", "-o", "found.json")
    done = CliRunner().invoke(cli, ["capacity", "load.yml", *given, *limits])
    assert done.exit_code == 2 and "AttributeError" in done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["strategy"] for each in found["searches"]] == ["own"] and found["rate"] > 10
    assert found["partial"] is True and "AttributeError" in found["error"]


@pytest.mark.long
def test_the_sizes_that_ran_before_the_application_failed_are_in_the_page(tmp_path, monkeypatch):
    write_app(tmp_path, GIVEN, APP + FOURTH_START)
    monkeypatch.chdir(tmp_path)
    # The first start only shows that there is one.
    given = ("--app", "rows_app:app", "--script", "load.yml", "--setup", SETUP, "--servers", "1", "--sizes", "1-8")
    done = CliRunner().invoke(cli, ["sweep", *given, "--rate", "20", "--seconds", "1", "--out", "out"])
    assert done.exit_code == 2 and "the licence has expired" in done.stderr
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert found["partial"] is True and "the licence has expired" in found["error"]
    assert sum(len(curve["runs"]) for curve in found["curves"]) == 2
    assert "Partial: it was ended by an error." in (tmp_path / "out" / "sweep.html").read_text()
