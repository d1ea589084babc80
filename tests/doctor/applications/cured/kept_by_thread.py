"""Borrows a connection for each question."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=3, max_overflow=0, pool_timeout=1)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*), pg_sleep(0.01) FROM authors")).scalar())
