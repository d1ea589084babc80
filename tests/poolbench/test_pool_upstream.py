"""SQLAlchemy's own tests of pools and of reconnecting, run against FairPool in QueuePool's place in three surroundings:
monkey-patched by gevent, with gevent unpatched, and where gevent cannot be imported.

They come with SQLAlchemy's source distribution, of which this project keeps no copy. Fetch it once with
`python tests/poolbench/test_pool_upstream.py`; without it these tests are skipped.

As a pytest plugin (in the child process) this file puts FairPool in QueuePool's place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SDIST = ROOT / ".data" / f"sqlalchemy-{version('sqlalchemy')}"
SURROUNDINGS = ("unpatched", "monkey-patched", "without gevent")
FILES = ("test/engine/test_pool.py", "test/engine/test_reconnect.py")

DO_NOT_APPLY = {
    "test_recreate_state[QueuePool-pool_args0]": "compares instance dictionaries, in which FairPool has deques",
    "test_recreate_state[QueuePool-pool_args1]": "the same",
    "test_hanging_connect_within_overflow": "its creator differs by thread; FairPool opens for the queue, in threads of its own",
    "test_dispose_closes_pooled": "FairPool closes, on return, what was lent during dispose(); on purpose",
}


def fetch() -> None:
    """Download the source distribution of the installed SQLAlchemy with pip and keep its tests."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = f"sqlalchemy=={version('sqlalchemy')}"
        pip = [sys.executable, "-m", "pip", "download", "--no-binary", "sqlalchemy", "--no-deps", "-d", folder]
        subprocess.run([*pip, requirement], check=True, timeout=300)
        [archive] = Path(folder).glob("*.tar.gz")
        SDIST.parent.mkdir(exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(SDIST.parent, filter="data")


def begin(surroundings: str, folder: Path) -> subprocess.Popen:
    """Begin the tests in a folder of their own: some make a database file in the current folder, and remove it."""
    own = folder / surroundings
    shutil.copytree(SDIST, own, copy_function=os.link)
    env = {**os.environ, "FAIR_POOL_SURROUNDINGS": surroundings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-s", "-m", "pytest", "-q", "-p", "tests.poolbench.test_pool_upstream"]
    command += ["-p", "no:cacheprovider", *FILES]
    return subprocess.Popen(command, cwd=own, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def outputs():
    """What the tests said in each of the surroundings, all at once: they sleep most of the time."""
    if not SDIST.is_dir():
        pytest.skip(f"SQLAlchemy's tests are not installed; python {Path(__file__).relative_to(ROOT)} fetches them")
    # Beside the distribution, since links cannot lead to another file system.
    with tempfile.TemporaryDirectory(dir=SDIST.parent) as folder:
        processes = {surroundings: begin(surroundings, Path(folder)) for surroundings in SURROUNDINGS}
        try:
            return {each: process.communicate(timeout=300)[0] for each, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
                with process:
                    """Closes the pipe and waits."""


@pytest.mark.slow
@pytest.mark.timeout(320)
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_queue_pools_own_tests_pass(outputs, surroundings):
    summary = outputs[surroundings].strip().splitlines()[-1]
    assert "failed" not in summary and "error" not in summary, outputs[surroundings][-8000:]
    assert int(re.search(r"(\d+) passed", summary)[1]) >= 170


def _take_queue_pools_place() -> None:
    if os.environ["FAIR_POOL_SURROUNDINGS"] == "monkey-patched":
        import gevent.monkey

        gevent.monkey.patch_all()
    elif os.environ["FAIR_POOL_SURROUNDINGS"] == "without gevent":
        sys.modules["gevent"] = None
    else:
        import gevent
    from sqlalchemy import pool

    from poolbench import FairPool

    class QueueView:
        """What some of the tests look up in the queue object, told of FairPool's shelves."""

        def __init__(self, owner):
            self.owner = owner

        def empty(self):
            return self.owner.checkedin() == 0

        @property
        def queue(self):
            return [*self.owner._idle, *self.owner._vacant]

        @queue.setter
        def queue(self, kept):
            for record in [record for record in self.owner._vacant if record not in kept]:
                self.owner._vacant.remove(record)
                self.owner._drop(record)

    class QueuePool(FairPool):
        _overflow = property(FairPool.overflow)
        _pool = property(QueueView)

    pool.QueuePool = QueuePool


def pytest_collection_modifyitems(config, items):
    """In the child: drop what does not apply."""
    if "FAIR_POOL_SURROUNDINGS" in os.environ:
        items[:] = [item for item in items if item.name not in DO_NOT_APPLY]


if "FAIR_POOL_SURROUNDINGS" in os.environ:
    _take_queue_pools_place()
elif __name__ == "__main__":
    fetch()
