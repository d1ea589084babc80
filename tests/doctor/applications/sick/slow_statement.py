"""Sorts what it could have looked up."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text(SLOW)).scalar())  # sick


SLOW = "SELECT count(*) FROM generate_series(1, 400000) i, pg_sleep(0.12) WHERE md5(i::text) < '1'"
