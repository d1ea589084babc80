"""Real parts for all tests: a PostgreSQL server, service processes, and a load on them that keeps a ledger."""

import gc
import os
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from db.embedded import temporary_postgres
from tests.support.paths import ROOT
from tests.support.server_process import ServerProcess, serving, start_server, wait_until

# How long an example takes depends mostly on what else the machine does, and drawing it too. Every run draws examples of its own.
settings.register_profile("poolbench", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("poolbench")

# The commands under test must not fill the summary of the job that runs the tests.
os.environ.pop("GITHUB_STEP_SUMMARY", None)


def pytest_addoption(parser):
    parser.addoption(
        "--table", metavar="FILE", help="add what tests of faults and of the stack measure to this JSON file"
    )
    parser.addoption("--minutes", type=float, default=1.0, help="length of the soak test, in minutes (default: 1)")
    parser.addoption(
        "--rewrite-golden", action="store_true", help="replace the expected outputs of reports by the actual ones"
    )


def fail_if_something_is_missing(report):
    """With POOLBENCH_NO_SKIP set, a test that is skipped because something is not installed fails."""
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("POOLBENCH_NO_SKIP"):
        *_, reason = report.longrepr
        if re.match(r"Skipped: [^:]* (is|are) not installed", reason):
            report.outcome = "failed"
            report.longrepr = reason
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_if_something_is_missing((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_if_something_is_missing((yield))


@pytest.hookimpl(trylast=True)  # those that -m leaves out count for nothing
def pytest_collection_modifyitems(items):
    """Of tests in parallel, files that may take long by the limits of their tests come first: the last ones end together."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    limits, counts = Counter(), Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        limits[item.path] = max(limits[item.path], limit.args[0] if limit else 0)
        counts[item.path] += 1
    items.sort(key=lambda item: (-limits[item.path], -counts[item.path], item.path))


def pytest_collection_finish():
    """Leaves the tests themselves out of collections of garbage: there are thousands, and they live to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres():
    """An embedded server shared by all tests; those that stop it or change its limits take one of their own."""
    with temporary_postgres(max_connections=100) as server:
        yield server


@pytest.fixture
def ahead_of_others():
    """The test and the processes that it starts run before others, where they may: for limits of time that a promise has, and
    for a generator, which learns nothing about a service if it is late.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, usual)


@pytest.fixture
def start_service(tmp_path):
    """Start server processes: `start_service(DATABASE_URL=…, …)`; whatever still runs at the end of the test is stopped."""
    started: list[ServerProcess] = []

    def start(*, command: list[str] | None = None, path: str = "/live", **settings: object) -> ServerProcess:
        server = start_server(tmp_path / f"stderr-{len(started)}", command=command, **settings)
        started.append(server)
        wait_until(lambda: server.serves(path), "the server serves")
        return server

    yield start
    for server in started:
        server.child.stop()


@pytest.fixture(scope="module")
def shared_service(postgres, tmp_path_factory):
    """A service for all tests of a file that leave it as it is."""
    with serving(tmp_path_factory.mktemp("service") / "stderr", DATABASE_URL=postgres.url) as server:
        yield server


@pytest.fixture
def start_process():
    """start_process(command, **options of Popen) -> the running command, its stdout and stderr pipes of text.

    However the test ends, the process is killed and its pipes are closed: a test that fails leaves nothing to the next one.
    """
    started: list[subprocess.Popen[str]] = []

    def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        given = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        started.append(subprocess.Popen([str(part) for part in command], **given))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:
            """Closes the pipes and waits."""


@pytest.fixture
def load(tmp_path):
    """Start a load: `load(port=…, mix=…, clients=… or rate_per_s=…)`; ended at the latest with the test."""
    from tests.support.fault_load import Load, Plan

    started: list[Load] = []

    def start(**plan: object) -> Load:
        named = Plan(**plan | {"name": f"{plan.get('name', 'w')}{len(started)}"})
        started.append(Load(named, tmp_path / f"ledger-{len(started)}"))
        return started[-1]

    yield start
    for each in started:
        each.abandon()
