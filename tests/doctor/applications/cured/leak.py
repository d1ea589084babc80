"""Gives its connection back on every path."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


calls = iter(range(10**9))


@app.get("/question")
def question():
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM authors")).scalar()
    if next(calls) % 20 == 19:
        return jsonify(error="no such author"), 404
    return jsonify(found)
