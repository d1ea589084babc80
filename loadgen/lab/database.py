"""The database under test: starting it or using a given one, filling it, and what can be asked of it from outside."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psutil
import psycopg2

from db import seeding
from db.database import Database
from db.embedded import EmbeddedPostgres, temporary_postgres
from db.settings import DatabaseSettings, database_url
from db.settings import libpq_url as as_libpq
from loadgen.lab.evidence import MemoryUse
from loadgen.lab.memory_limit import MemoryCounts, MemoryLimit, NoMemoryLimit
from loadgen.lab.own_database import libpq_url
from loadgen.lab.stack import count_backends, memory_of_tree, query

LINKS = 200
"""Number of links that the scripts use."""

_RECOVERY_PATIENCE_S = 30.0


class LabDatabase:
    """One database under test. `postgres` is None where it was given by its URL."""

    def __init__(
        self, url: str, monitor_url: str, postgres: EmbeddedPostgres | None = None, limit: MemoryLimit | None = None
    ) -> None:
        self.url = url
        """URL for the servers."""
        self.monitor_url = monitor_url
        """URL for watching the database; it may use the reserved connections."""
        self.postgres = postgres
        self._limit = limit
        self._before = MemoryCounts(0, 0)
        self._has_clicks = False

    def seed(self, clicks: int) -> None:
        """Puts in the links of the scripts, and once a number of clicks on each, which the nested object is made of."""
        clicks = 0 if self._has_clicks else clicks
        self._has_clicks = self._has_clicks or clicks > 0
        database = Database(DatabaseSettings(database_url(self.url)))
        with database.connection() as connection:
            seeding.seed_links(connection, LINKS)
            seeding.seed_clicks(connection, LINKS, clicks)
            seeding.analyze(connection)
        database.close()

    def clicks(self) -> int:
        """Number of rows of clicks."""
        return int(query(self.url, "SELECT count(*) FROM clicks")[0][0])

    def rows(self) -> tuple[int, int]:
        """Number of rows of links and of clicks."""
        return int(query(self.url, "SELECT count(*) FROM links")[0][0]), self.clicks()

    def watch_memory(self) -> None:
        """Starts the measurement that `memory_use` reads."""
        if self._limit is not None:
            self._limit.forget_peak()
            self._before = self._limit.counts()

    def memory_use(self) -> MemoryUse:
        """Memory of an embedded database since `watch_memory`. A database that does not answer has 30 s to recover."""
        connections, pss_mb = self._settled() or (0, 0.0)
        counts = self._limit.counts() if self._limit else None
        return MemoryUse(
            limit_mb=self._limit.limit_mb if self._limit else None,
            peak_mb=self._limit.peak_mb() if self._limit else None,
            limit_hits=None if counts is None else counts.limit_hits - self._before.limit_hits,
            oom_kills=None if counts is None else counts.oom_kills - self._before.oom_kills,
            connections=connections,
            pss_mb=pss_mb,
            answers_afterwards=pss_mb > 0,
        )

    def _settled(self) -> tuple[int, float] | None:
        """Number of client connections, and summed PSS of all processes in MB; None if the database does not answer."""
        assert self.postgres is not None  # noqa: S101 - only those of our own are limited
        deadline = time.monotonic() + _RECOVERY_PATIENCE_S
        while time.monotonic() < deadline and psutil.pid_exists(self.postgres.pid):
            with contextlib.suppress(psycopg2.Error):
                connections = count_backends(self.monitor_url)
                return connections, sum(pss for _, pss in memory_of_tree(self.postgres.pid))
            time.sleep(0.05)
        return None


@contextlib.contextmanager
def own_database(max_connections: int = 100) -> Iterator[LabDatabase]:
    """An embedded PostgreSQL, removed afterwards. Raises EmbeddedPostgresError."""
    with temporary_postgres(max_connections=max_connections, shared_buffers="128MB") as postgres:
        yield LabDatabase(postgres.url, postgres.admin_url, postgres)


@contextlib.contextmanager
def limited_database(limit_mb: int, connections: int, tell: Callable[[str], None]) -> Iterator[LabDatabase]:
    """As `own_database`, with its memory limited. `tell` is called with a sentence about the limit.

    max_connections is raised to `connections` and some more where needed, so that the memory runs out first. Raises
    EmbeddedPostgresError.
    """
    with contextlib.ExitStack() as entered:
        limit: MemoryLimit | None = None
        try:
            limit = entered.enter_context(MemoryLimit(limit_mb))
            tell(
                "Each database of group M was in a control group of the kernel, which limits its memory, cache included."
            )
        except NoMemoryLimit as reason:
            tell(f"Group M was run WITHOUT a limit of memory, which cannot be set here: {reason}.")
        started = temporary_postgres(max_connections=max(100, connections + 20), shared_buffers="128MB")
        with limit.inside() if limit else contextlib.nullcontext():
            postgres = entered.enter_context(started)
        yield LabDatabase(postgres.url, postgres.admin_url, postgres, limit)


@contextlib.contextmanager
def given_database(text: str) -> Iterator[LabDatabase]:
    """A schema of our own in the database that `text` names, dropped afterwards. Raises DatabaseError, psycopg2.Error."""
    monitor_url = libpq_url(text)
    schema = f"poolbench_lab_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    query(monitor_url, f"CREATE SCHEMA {schema}")
    try:
        yield LabDatabase(_with_option(monitor_url, f"-csearch_path={schema}"), monitor_url)
    finally:
        query(monitor_url, f"DROP SCHEMA {schema} CASCADE")


def _with_option(url: str, option: str) -> str:
    """libpq's URL with one more of the server's options, which wins over those that the URL has."""
    parsed = database_url(url)
    given = parsed.query.get("options", "")
    return as_libpq(parsed.update_query_dict({"options": f"{given} {option}".strip()}))
