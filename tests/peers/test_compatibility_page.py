"""The compatibility page names tests and reference runs; all of them exist, and every reference run is named."""

import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "artillery-compatibility.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
NAMED = {name for row in ROWS if row[-1] != "shown by |" for name in re.findall(r"`([^`]+)`", row[-1])}
RUNS = {path.name for path in (ROOT / "tests" / "golden" / "artillery").glob("[!_]*.yml")}


def test_every_reference_run_is_named_and_recorded():
    assert {name for name in NAMED if name.endswith(".yml")} == RUNS
    assert all((ROOT / "tests" / "golden" / "artillery" / name).with_suffix(".json").exists() for name in RUNS)


def test_every_test_that_is_named_exists():
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert not {name for name in NAMED if not name.endswith(".yml")} - tests


def test_every_feature_has_something_that_shows_it():
    assert not [row[0] for row in ROWS if "`" not in row[-1] and row[-1] not in ("shown by |", "- |")]
