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
    where greenlets will stop each other, which those of eventlet do.
    """
    if not is_patched():
        return not _stops_eventlet(driver)
    if driver == "psycopg2":
        from psycopg2 import extensions  # noqa: PLC0415 - the driver of the engine being made

        if extensions.get_wait_callback() is None:
            extensions.set_wait_callback(_wait)
        return True
    if driver == "psycopg":
        if not _waits_in_c():
            return True
        reason = "psycopg was imported before gevent patched the process"
    elif driver in {"pg8000", "asyncpg"}:
        return True
    else:
        reason = f"nothing is known of the driver {driver}"
    _log.warning("a statement stops all greenlets of this process until it is answered: %s", reason)
    return False


def is_patched() -> bool:
    """Whether gevent has patched the process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def _stops_eventlet(driver: str) -> bool:
    """Whether eventlet has patched the process, and a driver's waits stop its greenlets, of which one warning is logged."""
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is None or not patcher.is_monkey_patched("socket") or driver in {"pg8000", "asyncpg"}:
        return False
    if driver == "psycopg2" and sys.modules["psycopg2"].extensions.get_wait_callback() is not None:
        return False
    if driver == "psycopg" and not _waits_in_c():
        return False
    _log.warning(
        "a statement stops all greenlets of this process until it is answered: %s waits outside eventlet", driver
    )
    return True


def _waits_in_c() -> bool:
    """Whether psycopg 3 waits in C, where it is not seen by what patches `select`."""
    waiting: Any = sys.modules.get("psycopg.waiting")
    return waiting is not None and waiting.wait is getattr(waiting, "wait_c", None)


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
