"""Waiting for PostgreSQL under gevent without stopping the other greenlets of the process.

psycopg2 waits inside C, where gevent cannot see it, unless it has a wait callback: `make_cooperative` gives it one. psycopg 3
waits in Python where gevent has patched `select` before it was imported, and needs nothing.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

_log = logging.getLogger("poolbench")


def make_cooperative(driver: str) -> bool:
    """Make a driver's waits cooperative, in the whole process. Returns whether they are, or need not be.

    Does nothing where gevent has not patched the process, or where a wait callback has been set already. Logs one warning
    where greenlets will stop each other.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return True
    if driver == "psycopg2":
        from psycopg2 import extensions  # noqa: PLC0415 - the driver of the engine being made

        if extensions.get_wait_callback() is None:
            extensions.set_wait_callback(_wait)
        return True
    if driver == "psycopg":
        waiting: Any = sys.modules.get("psycopg.waiting")
        if waiting is None or waiting.wait is not getattr(waiting, "wait_c", None):
            return True
        reason = "psycopg was imported before gevent patched the process"
    elif driver in {"pg8000", "asyncpg"}:
        return True
    else:
        reason = f"nothing is known of the driver {driver}"
    _log.warning("a statement stops all greenlets of this process until it is answered: %s", reason)
    return False


def _wait(connection: Any) -> None:
    """Wait until libpq has what it waits for, in the running greenlet only."""
    import gevent.socket  # noqa: PLC0415
    from psycopg2 import OperationalError, extensions  # noqa: PLC0415

    socket: Any = gevent.socket
    while (state := connection.poll()) != extensions.POLL_OK:
        if state == extensions.POLL_READ:
            socket.wait_read(connection.fileno())
        elif state == extensions.POLL_WRITE:
            socket.wait_write(connection.fileno())
        else:
            raise OperationalError(f"libpq is in an unknown state: {state}")
