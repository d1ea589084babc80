"""Keeps each hundredth connection in a list."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


kept = []
calls = iter(range(10**9))


@app.get("/question")
def question():
    connection = engine.connect()  # sick
    found = connection.execute(text("SELECT count(*) FROM authors")).scalar()
    if next(calls) % 20 == 19:
        kept.append(connection)
        return jsonify(error="no such author"), 404
    connection.close()
    return jsonify(found)
