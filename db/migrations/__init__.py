"""The history of the tables, applied by `upgrade`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from db import rollups
from db.errors import DatabaseDown

_FOLDER = str(Path(__file__).parent)
# Any number that no other program uses: the bytes of "poolbenc".
_LOCK = 0x706F6F6C62656E63


def is_newest(connection: Connection) -> bool:
    """Whether the tables in the connection's schema have the newest version."""
    return MigrationContext.configure(connection).get_current_revision() == ScriptDirectory(_FOLDER).get_current_head()


def upgrade(connection: Connection) -> None:
    """Bring the tables in the connection's schema one version further, unless they have the newest.

    `connection` must be in a transaction, which the caller commits. Processes that start together take turns, and all but
    the first find less to do, or nothing. Raises DatabaseDown for tables of a version that is not known here.
    """
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    if is_newest(connection):
        return
    config = Config()
    config.set_main_option("script_location", _FOLDER.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "+1")
    except CommandError as error:
        # The database was made by a later version of this program, as a rule.
        raise DatabaseDown(f"the tables are not of a version that is known here: {error}") from error
    if is_newest(connection):
        rollups.prepare(connection)
