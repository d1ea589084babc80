"""The deterministic simulation of the pool finds nothing wrong with it, and finds every fault that is put into it."""

import math
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.poolbench.simulation.mutants import MUTANTS, mutated
from tests.poolbench.simulation.runs import first_failure
from tests.support.paths import ROOT

POOL = ROOT / "poolbench"
SCHEDULES = 3000
"""Several times as many as the mutants that hide best, those of a fork and of a kill, need on average: some hundreds."""


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.poolbench.simulation", "--processes", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def mutant_package(mutant, folder: Path) -> Path:
    package = folder / "poolbench"
    shutil.copytree(POOL, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / mutant.file).write_text(mutated((POOL / mutant.file).read_text(), mutant))
    return package


@pytest.fixture(scope="module")
def elsewhere():
    """elsewhere(function, *arguments): what it returns in a process of its own, as the simulation changes what it imports.

    All mutants share the process, until a call in it takes more than 100 s.
    """
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Pool(1)

    def call(function, *arguments):
        nonlocal process
        try:
            return process.apply_async(function, arguments).get(100)
        except multiprocessing.TimeoutError:
            process.terminate()
            process = spawn.Pool(1)
            raise

    yield call
    process.terminate()


@pytest.mark.slow
def test_everything_holds_in_ten_thousand_schedules():
    done = simulation("--schedules", "10000", "--seconds", "60")
    assert done.returncode == 0, done.stderr


def test_a_failure_is_replayed_by_its_seed(tmp_path):
    package = mutant_package(MUTANTS[0], tmp_path)
    found = simulation("--package", str(package))
    assert found.returncode == 1
    seed = found.stderr.split()[1]
    again = simulation("--package", str(package), "--seed", seed)
    assert again.returncode == 1
    assert again.stderr.strip() in found.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.breaks}")
def test_every_mutant_changes_a_line_that_is_there(mutant):
    source = (POOL / mutant.file).read_text()
    changed = mutated(source, mutant)
    assert changed != source
    compile(changed, mutant.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.breaks}")
def test_every_mutant_is_found_in_a_few_schedules(mutant, tmp_path, elsewhere):
    batch = mutant_package(mutant, tmp_path), 0, SCHEDULES, math.inf
    done, _, failure = elsewhere(first_failure, batch)
    assert failure, f"nothing found in {done} schedules"
