"""How greenlets wait for PostgreSQL: through gevent, and not for ever."""

from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import gevent
import psycopg2
from psycogreen.gevent import gevent_wait_callback
from psycopg2.extensions import connection, set_wait_callback

_LOOK_EVERY_S = 0.5


class GreenConnection(connection):  # type: ignore[misc]
    """A connection that can lose its patience with the server."""

    patience_s: float | None = None
    """Longest wait for the whole answer to a statement, in s; None: no limit. Needs `wait_with_gevent`."""


def wait_with_gevent() -> None:
    """Let psycopg2 wait through gevent, in the whole process.

    A statement on a `GreenConnection` that goes on for longer than its patience (by up to half a second) raises
    OperationalError and closes the connection. Nothing else would end it where the network is dead and the kernel does
    not notice: the statement timeout is the server's, and its word does not come through.
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
    """Over all who wait in one event loop, by one timer: a timer for each statement would cost a tenth of the statement."""

    def __init__(self, hub: Any) -> None:
        self.deadlines: dict[connection, tuple[float, Any]] = {}
        self.timer = hub.loop.timer(_LOOK_EVERY_S, _LOOK_EVERY_S, ref=False)

    def look(self) -> None:
        """Run by the hub, while anybody waits."""
        if not self.deadlines:
            self.timer.stop()
        now = monotonic()
        for waiting, (deadline, greenlet) in list(self.deadlines.items()):
            if now > deadline and waiting in self.deadlines:
                greenlet.throw(psycopg2.OperationalError(f"no word from the server within {waiting.patience_s:g} s"))


_WATCHES: WeakKeyDictionary[Any, _WaitWatch] = WeakKeyDictionary()
