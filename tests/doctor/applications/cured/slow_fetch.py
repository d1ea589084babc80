"""Fetches rows from a server-side cursor."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect().execution_options(stream_results=True) as connection:
        rows = connection.execute(text("SELECT id FROM posts WHERE id <= 24"))
        return jsonify([row.id for row in rows])
