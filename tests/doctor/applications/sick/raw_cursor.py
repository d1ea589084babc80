"""Sorts what it could have looked up, on a cursor of the driver's."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    connection = engine.raw_connection()
    try:
        with connection.cursor() as cursor:
            cursor.execute(SLOW)  # sick
            return jsonify(cursor.fetchone()[0])
    finally:
        connection.close()


SLOW = "SELECT count(*) FROM generate_series(1, 1000) i, pg_sleep(0.12) WHERE md5(i::text) < '1'"
