"""The history of the tables, applied by `upgrade`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

# Any number that no other program uses: the bytes of "poolbenc".
_LOCK = 0x706F6F6C62656E63


def upgrade(connection: Connection) -> None:
    """Bring the tables in the connection's schema to the newest version.

    `connection` must be in a transaction, which the caller commits. Processes that start together take turns, and all but the
    first find nothing to do.
    """
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
