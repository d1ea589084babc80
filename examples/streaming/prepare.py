"""Makes the table, as `python prepare.py`."""

import os
from pathlib import Path

from sqlalchemy import create_engine, text

with create_engine(os.environ["DATABASE_URL"]).begin() as connection:
    connection.execute(text(Path(__file__).with_name("schema.sql").read_text()))
