"""Gives up a statement that takes too long."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

engine = create_engine(
    os.environ["DATABASE_URL"], pool_size=8, max_overflow=0, connect_args={"options": "-c statement_timeout=150"}
)
app = application(engine)


@app.get("/question")
def question():
    try:
        with engine.connect() as connection:
            return jsonify(connection.execute(text(SLOW)).scalar())  # sick
    except OperationalError:
        return jsonify(error="this takes too long")


SLOW = "SELECT count(*) FROM generate_series(1, 400) i, pg_sleep(2) WHERE md5(i::text) < '1'"
