"""Folds clicks into the roll-ups in the background of a process (see rollups.py)."""

import logging
import math
from time import monotonic
from typing import NoReturn

import gevent
import gevent.event
from sqlalchemy.exc import SQLAlchemyError

from db.database import Database
from db.errors import DatabaseFailure
from db.rollups import BATCH_CLICKS, fold, keep_partitions

FOLDING_PAUSE_S = 1.0
"""Shortest time from one folding in the background to the next, in s."""

UPKEEP_S = 600.0
"""Time from one look at the partitions to the next, in s."""

log = logging.getLogger("poolbench.rollups")


class Folder:
    """Folds clicks and keeps the partitions in the background of one process, in a greenlet that runs `run`.

    Asks nothing of the database before it is woken. With `retention_days` it looks for old partitions all the same.
    """

    def __init__(self, database: Database, retention_days: float) -> None:
        self._database = database
        self._retention_days = retention_days
        self._wanted = gevent.event.Event()
        self._kept_s = -math.inf

    def wake(self) -> None:
        """Say that there may be clicks to fold."""
        if not self._wanted.is_set():
            self._wanted.set()

    def run(self) -> NoReturn:
        """Fold and keep partitions until the greenlet is killed; a failure is logged, and tried again later."""
        while True:
            self._wanted.wait(UPKEEP_S if self._retention_days else None)
            gevent.sleep(FOLDING_PAUSE_S)
            self._wanted.clear()
            try:
                self._work()
            except (DatabaseFailure, SQLAlchemyError) as failure:
                self._wanted.set()
                log.warning("the clicks were not folded: %s", " ".join(str(failure).split()))

    def _work(self) -> None:
        if monotonic() - self._kept_s > UPKEEP_S:
            self._kept_s = monotonic()
            with self._database.connection(slow=True) as connection:
                for name in keep_partitions(connection, self._retention_days):
                    log.info("dropped the clicks in %s, which are in the roll-ups", name)
        folded: int | None = BATCH_CLICKS
        while folded is not None and folded >= BATCH_CLICKS:
            # Whoever waits for a connection may have one between two batches.
            with self._database.connection(slow=True) as connection:
                folded = fold(connection)
        if folded != 0:
            # There may be clicks of transactions that had not ended, or that came after those which somebody else folds.
            self._wanted.set()
