"""Reads from one engine while it writes with another."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


archive = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)


@app.get("/question")
def question():
    with engine.connect() as reading, archive.begin() as writing:
        name = reading.execute(text("SELECT name FROM authors WHERE id = 2")).scalar()
        writing.execute(text("INSERT INTO events (kind, body) VALUES (1, :name)"), {"name": name})
    return jsonify(name)
