"""The ways in which a database fails its clients, told apart in one place."""

import psycopg2
import sqlalchemy.exc
from psycopg2 import errorcodes

from poolbench import QueueFull

UNDEFINED = "-"
"""Stands for the SQLSTATE of a failure that the server has no part in."""


class DatabaseFailure(Exception):
    """A failure that is not a bug: load, a limit, or a server that is not there. `sqlstate` is PostgreSQL's code."""

    def __init__(self, detail: str, sqlstate: str = UNDEFINED) -> None:
        super().__init__(detail)
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        """One line, with the SQLSTATE where there is one."""
        text = " ".join(str(self.args[0]).split())
        return text if self.sqlstate == UNDEFINED else f"SQLSTATE {self.sqlstate}: {text}"


class PoolTimeout(DatabaseFailure):
    """No connection came free within the pool's timeout."""


class PoolQueueFull(DatabaseFailure):
    """Too many were waiting for a connection already."""


class TooManyClients(DatabaseFailure):
    """The server refused a connection: its limit, or the role's, is reached (53300)."""


class DatabaseDown(DatabaseFailure):
    """The server cannot be reached, does not let us in, went away, takes no writes (25006), or is short of memory (53200)."""

    @property
    def demoted(self) -> bool:
        """Whether it is the server that takes no writes: another one may, to which a new connection may lead."""
        return bool(self.sqlstate == errorcodes.READ_ONLY_SQL_TRANSACTION)


class StatementTimeout(DatabaseFailure):
    """The server cancelled a statement that ran for too long (57014), or waited too long for a lock (55P03)."""


class DiskFull(DatabaseFailure):
    """The server has no room left to write to (53100); it goes on reading."""


# psycopg2 gives no SQLSTATE for a connection that failed to open or broke, so it is told by the server's words, which are
# those of the C locale.
_TEXTS = (
    ("sorry, too many clients already", errorcodes.TOO_MANY_CONNECTIONS),
    ("remaining connection slots are reserved", errorcodes.TOO_MANY_CONNECTIONS),
    # For a role or a database.
    ("too many connections for", errorcodes.TOO_MANY_CONNECTIONS),
    # PgBouncer's max_client_conn.
    ("no more connections allowed", errorcodes.TOO_MANY_CONNECTIONS),
    # Starting up, shutting down, or in recovery mode.
    ("the database system is", errorcodes.CANNOT_CONNECT_NOW),
    ("terminating connection due to administrator command", errorcodes.ADMIN_SHUTDOWN),
    ("terminating connection because of crash", errorcodes.CRASH_SHUTDOWN),
    ("authentication failed", errorcodes.INVALID_PASSWORD),
    ("no pg_hba.conf entry", errorcodes.INVALID_AUTHORIZATION_SPECIFICATION),
    ("server closed the connection unexpectedly", errorcodes.CONNECTION_FAILURE),
    ("could not receive data", errorcodes.CONNECTION_FAILURE),
    ("could not send data", errorcodes.CONNECTION_FAILURE),
    ("connection already closed", errorcodes.CONNECTION_FAILURE),
    # Our own words, see green.py.
    ("no word from the server", errorcodes.CONNECTION_FAILURE),
)


# Besides whole classes of codes.
_DOWN = {errorcodes.INVALID_CATALOG_NAME, errorcodes.READ_ONLY_SQL_TRANSACTION, errorcodes.OUT_OF_MEMORY}


def classify(error: BaseException) -> DatabaseFailure | None:
    """The failure behind an exception of SQLAlchemy or psycopg2; None if it is something else (a bug, as a rule)."""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        kind = PoolQueueFull if isinstance(error, QueueFull) else PoolTimeout
        return kind(str(error.args[0]))
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if not isinstance(original, (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError)):
        return None
    sqlstate = original.pgcode or _sqlstate_from_text(str(original))
    if sqlstate == errorcodes.TOO_MANY_CONNECTIONS:
        return TooManyClients(str(original), sqlstate)
    if sqlstate in {errorcodes.QUERY_CANCELED, errorcodes.LOCK_NOT_AVAILABLE}:
        return StatementTimeout(str(original), sqlstate)
    if sqlstate == errorcodes.DISK_FULL:
        return DiskFull(str(original), sqlstate)
    unreachable = sqlstate is None and isinstance(original, psycopg2.OperationalError)
    if unreachable:
        return DatabaseDown(str(original), errorcodes.SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION)
    if sqlstate is not None and (sqlstate[:2] in {"08", "28", "57"} or sqlstate in _DOWN):
        return DatabaseDown(str(original), sqlstate)
    return None


def _sqlstate_from_text(text: str) -> str | None:
    return next((sqlstate for words, sqlstate in _TEXTS if words in text), None)
