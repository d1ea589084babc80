"""Tries again, on a connection borrowed anew, when a transaction could not be serialised."""

import os
import time

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


isolated = engine.execution_options(isolation_level="SERIALIZABLE")


@app.get("/question")
def question():
    for attempt in range(5):
        try:
            with isolated.begin() as connection:
                row = connection.execute(text("SELECT n FROM counters WHERE id = :id"), {"id": attempt + 1}).one()
                connection.execute(
                    text("UPDATE counters SET n = :n WHERE id = :id"), {"n": row.n + 1, "id": attempt + 1}
                )
            return jsonify(row.n + 1)
        except OperationalError:
            time.sleep(0.01 * (attempt + 1))
    return jsonify(error="try again"), 503
