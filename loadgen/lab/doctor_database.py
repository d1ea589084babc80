"""What the database of a watched application shows: its sessions meanwhile, and the statements that it counted."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2
from psycopg2.extensions import quote_ident

from loadgen.lab.own_database import OwnDatabase
from loadgen.lab.stack import SessionSampler, connect
from poolbench.surroundings import DatabaseStatement, Index, statement_key

_WAITS = {"Lock", "Timeout", "Client"}

_PAGES = ("shared_blks_hit", "shared_blks_read", "temp_blks_read", "temp_blks_written")

_ACTIVITY = """
SELECT pid, state, wait_event_type, query, CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) ELSE '{}' END
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""
_INDEXES = """
SELECT c.relname, array_agg(attname::text ORDER BY at), indisunique, nspname
FROM pg_index JOIN pg_class c ON c.oid = indrelid, unnest(indkey::int2[]) WITH ORDINALITY AS k (number, at), pg_attribute a,
  pg_namespace n, pg_class i, pg_am m
WHERE n.oid = c.relnamespace AND i.oid = indexrelid AND m.oid = i.relam AND amname = 'btree'
  AND a.attrelid = indrelid AND attnum = number AND at <= indnkeyatts AND indisvalid AND indpred IS NULL AND indexprs IS NULL
  AND nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
GROUP BY indexrelid, c.relname, indisunique, nspname
LIMIT 10000
"""


class StatementStatistics:
    """What `pg_stat_statements` counted between two readings; `missing` says why it counts nothing, "" if it does."""

    def __init__(self, url: str, database: str) -> None:
        self._url, self._database = url, database
        self.missing = ""
        self._before = self._read()

    def since(self) -> dict[str, DatabaseStatement] | None:
        """Executions since the beginning, by `statement_key`; None where the extension is missing."""
        after = None if self.missing else self._read()
        if after is None:
            return None
        found: dict[str, DatabaseStatement] = {}
        for number, (text, *counted) in after.items():
            before = self._before.get(number, (text, 0, 0.0, 0, 0)) if self._before else (text, 0, 0.0, 0, 0)
            calls, total_ms, rows, pages = (now - then for now, then in zip(counted, before[1:], strict=True))
            if calls > 0:
                key = statement_key(text)
                known = found.get(key, DatabaseStatement(text))
                found[key] = DatabaseStatement(
                    text, known.calls + calls, known.total_ms + total_ms, known.rows + rows, known.pages + pages
                )
        return found

    def _read(self) -> dict[tuple[int, int, bool], tuple[Any, ...]] | None:
        """By user and number of the statement, and whether a client sent it: text, executions, ms, rows and pages looked at."""
        try:
            with contextlib.closing(connect(self._url)) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
                    " WHERE extname = 'pg_stat_statements'"
                )
                schema = cursor.fetchone()
                if schema is None:
                    self.missing = "CREATE EXTENSION pg_stat_statements was not run in this database"
                    return None
                # As JSON, since versions differ in their columns.
                cursor.execute(
                    f"SELECT to_jsonb(s) FROM {quote_ident(schema[0], cursor)}.pg_stat_statements s"  # noqa: S608 - quoted
                    " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s)",
                    (self._database,),
                )
                rows = [row for (row,) in cursor.fetchall()]
        except psycopg2.Error as error:
            self.missing = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return None
        return {
            # Statements inside functions are counted apart, from PostgreSQL 14 on.
            (int(row["userid"]), int(row["queryid"]), bool(row.get("toplevel", True))): (
                row["query"],
                row["calls"],
                row.get("total_exec_time", row.get("total_time", 0.0)),
                row["rows"],
                # Pages of temporary files, too: a sort that does not fit into work_mem goes through them.
                sum(row[name] for name in _PAGES),
            )
            for row in rows
            if row.get("queryid") is not None and row.get("query")
        }


class DatabaseWatch(SessionSampler):
    """Sees which statements the database's sessions execute, and who waits for whom."""

    def __init__(self, database: OwnDatabase) -> None:
        super().__init__(database.monitor_url)
        self.looks = self.waits_for_idle = self._sum_active = 0
        self._began_s = self._looked_s = 0.0
        self._took_s: list[float] = []
        self.active: Counter[str] = Counter()
        """Looks in which a statement was being executed, by `statement_key`."""
        self._waiting: Counter[str] = Counter()
        # Of each session's process that was seen at work: for how long it had been in the machine's queue at first, and by now.
        self._queued_s: dict[int, tuple[float, float]] = {}
        self._is_here = database.postgres is not None
        # Now: under load, the application may leave no connection for it.
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW max_connections")
            self.max_connections = int(cursor.fetchone()[0])
        self._statistics = StatementStatistics(database.statistics_url, self.connection.info.dbname)
        self.statements: dict[str, DatabaseStatement] | None = None
        """What the database itself counted of each statement, by `statement_key`; None: nothing."""
        self.indexes: list[Index] = []
        """At the end. Empty where they could not be asked for."""

    @property
    def statements_missing(self) -> str:
        """Why the database counts no statements; "" if it does."""
        return self._statistics.missing

    @property
    def mean_active(self) -> float:
        """Mean number of sessions that executed a statement, and waited for no lock, no timer and no client."""
        return self._sum_active / max(1, self.looks)

    @property
    def look_every_s(self) -> float:
        """Mean time from one look to the next, in s: on a busy machine a look itself takes long."""
        return (self._looked_s - self._began_s) / max(1, self.looks - 1)

    @property
    def trivial_ms(self) -> float:
        """What half of the looks have stayed below: a few that a busy machine was late for say nothing."""
        return 1000 * median(self._took_s) if self._took_s else 0.0

    @property
    def queued_s(self) -> float:
        """Seconds that sessions were ready to run and waited for the CPU; 0 where the database runs elsewhere."""
        return sum(max(0.0, last_s - first_s) for first_s, last_s in self._queued_s.values())

    def lock_waits(self) -> dict[str, float]:
        """Of each statement, the share of looks in which it waited for a lock."""
        return {key: count / self.active[key] for key, count in self._waiting.items()}

    def look(self) -> None:
        """Look once at each session that is not idle."""
        began_s = time.monotonic()
        with self.connection.cursor() as cursor:
            cursor.execute(_ACTIVITY)
            rows = cursor.fetchall()
        self._looked_s = time.monotonic()
        self._took_s.append(self._looked_s - began_s)
        self._began_s = self._began_s or self._looked_s
        self.looks += 1
        for pid, *_ in rows if self._is_here else ():
            queued_s = in_queue_s(pid)
            self._queued_s[pid] = self._queued_s.get(pid, (queued_s, 0.0))[0], queued_s
        states = {pid: state for pid, state, *_ in rows}
        blocking = {pid: blockers for pid, _, _, _, blockers in rows}
        for pid, state, waits_for, statement, _blockers in rows:
            if state != "active":
                continue
            key = statement_key(statement)
            self.active[key] += 1
            self._sum_active += waits_for not in _WAITS
            if waits_for == "Lock":
                self._waiting[key] += 1
                self.waits_for_idle += any(states.get(each, "").startswith("idle in") for each in ahead(pid, blocking))

    def run(self) -> None:
        """Look until the block is left, and then at the indexes."""
        super().run()
        with contextlib.suppress(psycopg2.Error), self.connection.cursor() as cursor:
            cursor.execute(_INDEXES)
            self.indexes = [Index(table, tuple(columns), *more) for table, columns, *more in cursor.fetchall()]

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.statements = self._statistics.since()
        if self.statements is not None:
            for own in (_ACTIVITY, _INDEXES):
                self.statements.pop(statement_key(own), None)


def in_queue_s(pid: int) -> float:
    """Seconds that a process of one thread has been ready to run and waited for the CPU, as Linux counts them; 0: unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def ahead(pid: int, blocking: Mapping[int, Sequence[int]]) -> set[int]:
    """All sessions for which `pid` waits: those that block it, those that block these, and so on, as in a queue for one row."""
    found: set[int] = set()
    to_do = [pid]
    while to_do:
        for each in set(blocking.get(to_do.pop(), ())) - found:
            found.add(each)
            to_do.append(each)
    return found
