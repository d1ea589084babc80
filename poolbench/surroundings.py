"""What is known about a run besides the application itself: what its database counted, and the CPU of its workers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SATURATED, _NONE_LEFT = 0.85, 0.95
"""CPU of which so much is used that it is what limits; CPU of a machine that has none left."""


class DatabaseStatement(NamedTuple):
    """What the database counted for one statement, in sums: executions, their time, their rows, and the 8 kB pages looked at."""

    text: str
    calls: int = 0
    total_ms: float = 0.0
    rows: int = 0
    pages: int = 0


class Index(NamedTuple):
    """An index of the database that finds what equals or exceeds a value: its table, and its columns in order."""

    table: str
    columns: tuple[str, ...]
    is_unique: bool = False
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of the database and the workers of a run; None: not known.

    database_cpu: its CPU, as a share of all cores. worker_cpu: the CPU of the busiest worker, in cores.
    lock_waits: of each statement (as `statement_key` has it), the share of its time that it waited for a lock.
    active_s: of each statement, seconds that the database was seen executing it.
    """

    database_cpu: float | None = None
    worker_cpu: float | None = None
    worker_used: float | None = None
    """CPU that a worker used, in cores: the mean of all. `worker_cpu` has what it waited for, too."""
    machine_cpu: float | None = None
    """CPU that all programs of the machine used, as a share of all cores; None: unknown, or the database runs elsewhere."""
    database_queued_s: float = 0.0
    """Seconds that the database's sessions were ready to run and stood in the machine's queue for the CPU."""
    cores: int | None = None
    max_connections: int | None = None
    mean_active: float = 0.0
    """Mean number of sessions that executed a statement and waited for nothing but the CPU or the disk."""
    lock_waits: Mapping[str, float] = field(default_factory=dict)
    active_s: Mapping[str, float] = field(default_factory=dict)
    trivial_ms: float = 0.0
    """What a trivial statement took, measured beside the application: the median."""
    waits_for_idle_s: float = 0.0
    """Seconds that statements waited for a lock that an idle transaction held."""
    statements: Mapping[str, DatabaseStatement] | None = None
    """What the database itself counted (pg_stat_statements), by `statement_key`; None: nothing."""
    statements_missing: str = ""
    """Why the database counted no statements."""
    indexes: Sequence[Index] = ()
    """Those of whole tables, by columns: neither partial ones nor those of expressions."""

    @property
    def is_machine_busy(self) -> bool:
        """Whether the machine has no CPU to spare, or a worker has none: whoever holds a connection then holds it for longer."""
        return max(self.worker_cpu or 0.0, self.machine_cpu or 0.0) >= SATURATED

    @property
    def is_crowded_out(self) -> bool:
        """Whether other programs took the CPU from the workers: of what one needed, it got less than a third."""
        worker = self.worker_cpu or 0.0
        return worker >= SATURATED and self.worker_used is not None and self.worker_used < worker / 3

    @property
    def is_full(self) -> bool:
        """Whether the database has no CPU to spare: it uses the machine's, or most of it while the machine has none left."""
        database, machine = self.database_cpu or 0.0, self.machine_cpu or 0.0
        return database >= SATURATED or (database >= 0.5 and machine >= _NONE_LEFT)


FETCH = "fetch"
"""The key of statements that fetch rows from a server-side cursor."""
_FETCHES = re.compile(r'fetch\w*\??from"')
_VALUES = re.compile(
    r"%\(\w+\)s|%s|\$\d+|:\w+_\d+|'(?:[^']|'')*'|\b\d+(\.\d+)?\b|\bnull\b|\btrue\b|\bfalse\b",
)
_CASTS = re.compile(
    r"::\s*(?:[a-z_][\w.]*|\"[^\"]+\")(?: varying| precision| with(?:out)? time zone)?(?:\(\?(?:,\?)*\))?(?:\[\])*"
)
_LISTS = re.compile(r"\(\?(?:,\?)+")


def statement_key(text: str) -> str:
    """What is left of a statement without its values, so that the driver's and the database's texts agree: 200 characters.

    `FETCH` for all of those from cursors, which have a name of their own each time.
    """
    key = without_values(text)[:200]
    return FETCH if _FETCHES.match(key) else key


def without_values(text: str) -> str:
    """What is left of a statement without its values, comments, blanks and case. Of a list of values, as of IN, one is left."""
    text = re.sub(r"/\*.*?\*/", "", " ".join(text.lower().split())).replace("%%", "%")
    text = _CASTS.sub("", _VALUES.sub("?", text))
    return _LISTS.sub("(?", text.replace(" ", ""))
