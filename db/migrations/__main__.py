"""`python -m db.migrations`: brings the tables of DATABASE_URL up to date, before any server starts."""

import os
import sys

from db.database import Database
from db.errors import DatabaseFailure
from db.settings import DatabaseSettings, SettingError


def main() -> None:
    """Bring the tables up to date. Exits with 2 for wrong settings, 1 for a database that cannot be reached, and one line."""
    try:
        Database(DatabaseSettings.from_mapping(os.environ)).migrate()
    except SettingError as error:
        print(f"poolbench: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except DatabaseFailure as failure:
        sys.exit(f"poolbench: the tables were not brought up to date: {failure}")


if __name__ == "__main__":
    main()
