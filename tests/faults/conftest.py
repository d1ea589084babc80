"""For the fault tests: a database and a service of their own, a load with a ledger, and the table of what was measured."""

import dataclasses
from pathlib import Path

import psutil
import pytest

from db.embedded import temporary_postgres
from tests.support import fault_evidence


@pytest.fixture
def database():
    """A server that the test may kill, with the durability that a real one has."""
    with temporary_postgres(max_connections=100, shared_buffers="32MB") as server:
        yield server


@pytest.fixture
def service_on(start_service, tmp_path):
    """Start the service on a database: `service_on(url, workers=2, …)` -> (server, code of a link)."""

    def start(url, *, workers=2, **settings):
        server = start_service(DATABASE_URL=url, WEB_CONCURRENCY=workers, HEALTH_TIMEOUT=2, TMPDIR=tmp_path, **settings)
        return server, server.new_link("https://example.com/followed")

    return start


@pytest.fixture
def record(request):
    """File a row of the table, where `--table` asks for one; always says it on stdout."""

    def file(row):
        print(dataclasses.asdict(row))  # noqa: T201
        if given := request.config.getoption("--table"):
            fault_evidence.file_row(Path(given), row)

    return file


@pytest.fixture
def minutes(request):
    """Length of the soak."""
    return request.config.getoption("--minutes")


@pytest.fixture
def workers():
    """The pids of a server's workers, those that have ended left out."""

    def lives(process):
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return lambda server: {each.pid for each in psutil.Process(server.process.pid).children() if lives(each)}
