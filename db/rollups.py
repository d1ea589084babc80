"""Keeps the roll-ups of the clicks up to date, and the partitions that the clicks are in (docs/rollups.md).

A click is one row, which nobody changes. Counting a link's rows takes longer the more there are, so what has been counted
once is kept: `click_totals` has a row for each link, `click_counts` one for each link and day, referrer, and program. To
fold a click is to add it to these. A request for a redirect never does; readers add the clicks that are not folded yet.

A number below which all clicks are folded must not be the id of a click: transactions with lower ids may commit later. So
each click has the number of its transaction, and the watermark is the lowest number of a transaction that still ran.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from db.green import time_limit

PARTITION_TRANSACTIONS = 20_000_000
"""Transactions whose clicks share a partition, which then has some 3 GB if each of them is a click."""

LONGEST_S = 600.0
"""Longest time, in s, of a folding or a check: a single transaction may have added very many clicks."""

BATCH_CLICKS = 20_000
"""Clicks that are folded in one transaction, unless one transaction has added more: some 0.2 s of work."""

# A partition that was not made in time starts so many transactions later, to leave those that run to `clicks_elsewhere`.
_LATE_START = 100_000
# Longest wait for a lock on all clicks: clicks queue up behind it.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"

log = logging.getLogger("poolbench.rollups")


def fold(connection: Connection) -> int | None:
    """Fold a batch of new clicks and return their number; None if somebody else is folding."""
    with time_limit(connection, LONGEST_S) as setting:
        # One message, and so one transaction.
        found: int | None = connection.exec_driver_sql(f"{setting}; SELECT fold_clicks({BATCH_CLICKS})").scalar_one()
    return found


def fold_all(connection: Connection, progress: Callable[[int], None] = lambda _clicks: None) -> int:
    """Fold batches until nothing is left, or somebody else is folding; return the number of clicks folded."""
    total = 0
    while folded := fold(connection):
        total += folded
        progress(folded)
    return total


@dataclass(frozen=True)
class Check:
    """A comparison of the roll-ups with the clicks, all in one snapshot."""

    clicks: int
    """Rows of clicks."""
    unfolded: int
    """Those of them that are not in the roll-ups yet."""
    dropped: int
    """Clicks in the roll-ups whose partitions were dropped."""
    rolled_up: int
    """Clicks in the roll-ups, which must be `clicks - unfolded + dropped`."""
    differences: int
    """Counts in the roll-ups that differ from the clicks; where clicks were dropped, counts that are too low."""

    @property
    def holds(self) -> bool:
        """Whether the roll-ups are right."""
        return self.rolled_up == self.clicks - self.unfolded + self.dropped and not self.differences


_CHECK = """
SELECT (SELECT count(*) FROM clicks),
       (SELECT count(*) FROM clicks, click_folding
        WHERE transaction_id >= watermark OR transaction_id = 0 AND clicks.id > old_id),
       gone, (SELECT coalesce(sum(clicks), 0) FROM click_totals),
       (SELECT count(*) FROM click_differences WHERE gone = 0 OR rolled_up < clicks)
FROM (SELECT coalesce(sum(clicks), 0) AS gone FROM click_partitions WHERE dropped IS NOT NULL) AS partitions
"""


def check(connection: Connection) -> Check:
    """Compare the roll-ups with the clicks, which reads all of these."""
    with time_limit(connection, LONGEST_S) as setting:
        row = connection.exec_driver_sql(f"{setting}; {_CHECK}").one()
    return Check(*(int(each) for each in row))


# Partitions

_NOW = "txid_snapshot_xmax(txid_current_snapshot())"

# How many transactions are missing to those that clicks have: some where a dump was restored, and numbers began anew.
_STATE = f"""
SELECT {_NOW} + added AS now, (SELECT max(ends) FROM click_partitions) AS ends,
    greatest(watermark, (SELECT max(transaction_id) + 1 FROM clicks WHERE transaction_id > 0)) - {_NOW} - added AS missing
FROM click_folding
"""  # noqa: S608 (composed of constants)


def is_prepared(connection: Connection) -> bool:
    """Whether clicks may be added without `prepare`."""
    now, ends, missing = connection.exec_driver_sql(_STATE).one()
    return bool(missing <= 0 and ends >= now + PARTITION_TRANSACTIONS)


def prepare(connection: Connection, length: int = PARTITION_TRANSACTIONS) -> None:
    """Make ready for clicks: transaction numbers from the watermark on, and partitions of `length` numbers for them.

    Where a dump was restored, the server's numbers begin anew, and a constant is added to them. `connection` must be in a
    transaction, which has not read any clicks, and which the caller commits.
    """
    connection.exec_driver_sql("SELECT FROM click_folding FOR UPDATE")
    now, ends, missing = connection.exec_driver_sql(_STATE).one()
    if missing > 0:
        connection.exec_driver_sql("UPDATE click_folding SET added = added + %s", (missing,))
        added = connection.exec_driver_sql("SELECT added FROM click_folding").scalar_one()
        connection.exec_driver_sql(f"ALTER TABLE clicks ALTER transaction_id SET DEFAULT txid_current() + {added:d}")
        now += missing
    while ends < now + 2 * length:
        start = ends if ends > now or ends == 1 else now + _LATE_START
        ends = max(start, now) + length
        name = f"clicks_from_{start}"
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (LIKE clicks INCLUDING DEFAULTS);"
            f"CREATE INDEX ON {name} (transaction_id);"
            f"CREATE INDEX ON {name} (link_id, transaction_id);"
            f"ALTER TABLE clicks ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({ends})"
        )
        connection.exec_driver_sql("INSERT INTO click_partitions VALUES (%s, %s)", (name, ends))


def keep_partitions(connection: Connection, retention_days: float, length: int = PARTITION_TRANSACTIONS) -> list[str]:
    """Make the partitions for clicks to come, and drop those whose clicks are all older than `retention_days` (0: none).

    Drops only what is in the roll-ups. Returns the names of the partitions dropped.
    """
    with _transaction(connection):
        prepare(connection, length)
    if not retention_days:
        return []
    for name in _names(connection, _FOLDED):
        with time_limit(connection, LONGEST_S) as setting:
            connection.exec_driver_sql(
                f"{setting};"  # noqa: S608
                f"UPDATE click_partitions SET (clicks, newest) = (SELECT count(*), max(at) FROM {name}) WHERE name = %s",
                (name,),
            )
    old = _names(connection, _OLD, (retention_days,))
    for name in old:
        with _transaction(connection):
            connection.exec_driver_sql(f"DROP TABLE {name}")
            connection.exec_driver_sql("UPDATE click_partitions SET dropped = now() WHERE name = %s", (name,))
    return old


_FOLDED = """
SELECT name FROM click_partitions, click_folding
WHERE clicks IS NULL AND ends <= watermark AND old_id = last_old_id ORDER BY ends
"""
_OLD = """
SELECT name FROM click_partitions
WHERE dropped IS NULL AND clicks IS NOT NULL
    AND coalesce(newest, '-infinity') < now() - %s * interval '1 day' ORDER BY ends
"""


def _names(connection: Connection, query: str, values: tuple[float, ...] = ()) -> list[str]:
    return [str(name) for name in connection.exec_driver_sql(query, values).scalars()]


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """A transaction on a connection in autocommit mode, alone among those that fold and keep partitions."""
    connection.exec_driver_sql(f"BEGIN; {_LOCK_TIMEOUT}; SELECT FROM click_folding FOR UPDATE")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")
