"""Reads a table page by page, each page from a server-side cursor."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


@app.get("/question")
def question():
    last, found = 0, 0
    with engine.connect() as connection:
        reading = connection.execution_options(yield_per=400)
        while rows := reading.execute(
            text("SELECT id FROM posts WHERE id > :last ORDER BY id LIMIT 400"), {"last": last}
        ).all():
            last, found = rows[-1].id, found + len(rows)
    return jsonify(found)
