"""Writes many rows with each statement, and reads them in batches."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


@app.get("/question")
def question():
    with engine.begin() as connection:
        for kind in range(5):
            rows = [{"kind": kind, "body": f"event {number}"} for number in range(200)]
            connection.execute(text("INSERT INTO events (kind, body) VALUES (:kind, :body)"), rows)
    last, found = 0, 0
    with engine.connect() as connection:
        while rows := connection.execute(
            text("SELECT id FROM posts WHERE id > :last ORDER BY id LIMIT 250"), {"last": last}
        ).all():
            last, found = rows[-1].id, found + len(rows)
    return jsonify(found)
