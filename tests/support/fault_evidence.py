"""What the ledger of a load and the database together say, and the row that a measured fault leaves in the table."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from db.embedded import EmbeddedPostgres
from tests.support.fault_load import NOT_SENT, WRITES, Outcome


@dataclass(frozen=True)
class Writes:
    """Acknowledged writes; those of them that are in the database; rows beyond one for any write; unacknowledged ones there."""

    acknowledged: int
    found: int
    doubled: int
    unacknowledged_found: int

    def columns(self) -> dict[str, int]:
        """Those that a row of the table has."""
        return {"acknowledged": self.acknowledged, "found": self.found, "doubled": self.doubled}


def check_writes(outcomes: list[Outcome], postgres: EmbeddedPostgres) -> Writes:
    """No acknowledged write may be missing, no write may be there twice, and nothing may be there that nobody asked for."""
    rows = _rows(postgres)
    asked = {o.key for o in outcomes if o.kind in WRITES and o.error != NOT_SENT}
    acknowledged = {o.key for o in outcomes if o.kind in WRITES and o.good}
    writes = Writes(
        acknowledged=len(acknowledged),
        found=sum(key in rows for key in acknowledged),
        doubled=sum(count - 1 for count in rows.values()),
        unacknowledged_found=sum(key not in acknowledged for key in rows),
    )
    assert writes.acknowledged > 0, Counter((o.status, o.error) for o in outcomes)
    assert writes.found == writes.acknowledged, sorted(acknowledged - rows.keys())[:5]
    assert writes.doubled == 0
    assert rows.keys() <= asked
    return writes


def _rows(postgres: EmbeddedPostgres) -> Counter[str]:
    """Rows by key of the write; links and clicks that the test itself made have no key."""
    with closing(psycopg2.connect(postgres.admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT url FROM links WHERE url LIKE 'https://example.com/%-%'")
        links = [urlsplit(url).path[1:] for (url,) in cursor.fetchall()]
        cursor.execute("SELECT referrer FROM clicks WHERE referrer IS NOT NULL")
        return Counter([*links, *(referrer for (referrer,) in cursor.fetchall())])


def check_answers(outcomes: list[Outcome], *, limit_s: float, unanswered: int = 0) -> None:
    """Everybody got a proper answer in time: success, 503 with Retry-After, 504 or 507; at most `unanswered` got none."""
    failed = [o for o in outcomes if not o.good]
    assert sum(not o.status for o in failed) <= unanswered, Counter(o.error for o in failed)
    assert {o.status for o in failed} <= {0, 503, 504, 507}, Counter(o.status for o in failed)
    assert all(o.retry_after and o.problem for o in failed if o.status == 503)
    assert max(o.took_s for o in outcomes) < limit_s


def recovery_s(outcomes: list[Outcome], repaired_s: float) -> float:
    """From the repair to the end of the last request that failed; 0 if none failed after it."""
    return max((o.ended_s - repaired_s for o in outcomes if not o.good and o.ended_s > repaired_s), default=0.0)


def seen(outcomes: list[Outcome]) -> str:
    """What clients saw, in words: successes, then failures by what they were told."""
    failures = Counter(f"{o.status} {o.problem}" if o.status else o.error for o in outcomes if not o.good)
    told = [f"{count} x {what}" for what, count in failures.most_common()]
    return ", ".join([f"{sum(o.good for o in outcomes)} answered well", *told])


@dataclass(frozen=True)
class Row:
    """One line of the table of faults; `order` is its place, and tells it from the others."""

    order: float
    fault: str
    load: str
    saw: str
    longest_answer_s: float
    recovery: str
    acknowledged: int | None = None
    found: int | None = None
    doubled: int | None = None


def file_row(path: Path, row: Row) -> None:
    """Put the row into a table file, in the place of one for the same fault; say when and on what."""
    table = json.loads(path.read_text()) if path.exists() else {}
    others = [each for each in table.get("rows", []) if each["order"] != row.order]
    _file(path, table | {"rows": sorted([*others, asdict(row)], key=lambda each: each["order"])})


def file_findings(path: Path, findings: list[str]) -> None:
    """Put what was measured on the stack of containers into a table file, in the place of what was there."""
    table = json.loads(path.read_text()) if path.exists() else {}
    _file(path, table | {"stack": findings})


def _file(path: Path, table: dict[str, Any]) -> None:
    table["measured"] = datetime.now(UTC).strftime("%Y-%m-%d")
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    table["machine"] = f"{os.cpu_count()} cores, {system}"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(table, indent=2) + "\n")
    partial.rename(path)
