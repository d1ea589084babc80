"""Waiting for PostgreSQL in greenlets: through gevent, and for a limited time."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import gevent
import psycopg2
from psycogreen.gevent import gevent_wait_callback
from psycopg2.extensions import connection, set_wait_callback
from sqlalchemy import Connection

LATE_MARGIN_S = 2.0
"""How late, in s, a server may report that a statement took too long, before it is given up as unreachable."""

_LOOK_EVERY_S = 0.5


class GreenConnection(connection):  # type: ignore[misc]
    """A psycopg2 connection whose statements may be given up. That needs `wait_with_gevent`."""

    patience_s: float | None = None
    """Longest wait for the whole answer to a statement, in seconds; None: no limit."""


def wait_with_gevent() -> None:
    """Make psycopg2 wait through gevent, in the whole process.

    A statement on a `GreenConnection` that takes longer than its `patience_s`, by up to half a second, raises
    OperationalError, and the connection is closed. Nothing else would end the wait where the network is dead and the kernel
    does not notice: the server's own statement timeout could not be heard.
    """
    set_wait_callback(_wait)


def _wait(waiting: connection) -> None:
    patience_s = getattr(waiting, "patience_s", None)
    if patience_s is None:
        gevent_wait_callback(waiting)
        return
    hub = gevent.get_hub()
    watch = _WATCHES.get(hub) or _WATCHES.setdefault(hub, _WaitWatch(hub))
    watch.deadlines[waiting] = monotonic() + patience_s, gevent.getcurrent()
    if not watch.timer.active:
        watch.timer.start(watch.look)
    try:
        gevent_wait_callback(waiting)
    finally:
        del watch.deadlines[waiting]


class _WaitWatch:
    """Watches all waits of one event loop with one timer. A timer for each statement would cost a tenth of the statement."""

    def __init__(self, hub: Any) -> None:
        self.deadlines: dict[connection, tuple[float, Any]] = {}
        self.timer = hub.loop.timer(_LOOK_EVERY_S, _LOOK_EVERY_S, ref=False)

    def look(self) -> None:
        """End the waits that have taken too long; the hub calls this while there are any."""
        if not self.deadlines:
            self.timer.stop()
        now = monotonic()
        for waiting, (deadline, greenlet) in list(self.deadlines.items()):
            if now > deadline and waiting in self.deadlines:
                greenlet.throw(psycopg2.OperationalError(f"no word from the server within {waiting.patience_s:g} s"))


_WATCHES: WeakKeyDictionary[Any, _WaitWatch] = WeakKeyDictionary()


@contextmanager
def time_limit(connection: Connection, limit_s: float) -> Iterator[str]:
    """Allow statements in the block so many seconds (0: no limit) instead of the usual ones.

    Gives the statement that tells the server, for the transaction in which it is.
    """
    driver: Any = connection.connection.dbapi_connection
    patience_s, driver.patience_s = driver.patience_s, limit_s + LATE_MARGIN_S if limit_s else None
    try:
        yield f"SET LOCAL statement_timeout = {limit_s * 1000:.0f}"
    finally:
        driver.patience_s = patience_s
