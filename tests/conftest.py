"""Real parts for all tests: a PostgreSQL server and server processes."""

import os

import pytest
from hypothesis import settings

from db.embedded import temporary_postgres
from tests.support.server_process import ServerProcess, start_server, wait_until

settings.register_profile("poolbench", deadline=None)  # how long an example takes says more of the machine's other work
settings.load_profile("poolbench")


def pytest_addoption(parser):
    parser.addoption(
        "--table", metavar="FILE", help="add what tests of faults and of the stack measure to this JSON file"
    )
    parser.addoption("--minutes", type=float, default=1.0, help="length of the soak test, in minutes (default: 1)")
    parser.addoption(
        "--rewrite-golden", action="store_true", help="replace the expected outputs of reports by the actual ones"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where every tool should be there (POOLBENCH_NO_SKIP), a test that lacks one has failed."""
    report = yield
    if report.skipped and os.environ.get("POOLBENCH_NO_SKIP") and "not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def postgres():
    """An embedded server shared by all tests; those that stop it or change its limits take one of their own."""
    with temporary_postgres(max_connections=100) as server:
        yield server


@pytest.fixture
def serve(tmp_path):
    """Start server processes: `serve(DATABASE_URL=…, …)`; whatever still runs at the end of the test is stopped."""
    started: list[ServerProcess] = []

    def start(*, command: list[str] | None = None, path: str = "/live", **settings: object) -> ServerProcess:
        server = start_server(tmp_path / f"stderr-{len(started)}", command=command, **settings)
        started.append(server)
        wait_until(lambda: server.serves(path), "the server serves", 30)
        return server

    yield start
    for server in started:
        server.child.stop()
