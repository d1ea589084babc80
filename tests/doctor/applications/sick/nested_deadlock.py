"""Counts while it holds the connection that it reads with, and waits for as long as the default lets it."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0)
app = application(engine)


def count():
    with engine.connect() as connection:  # sick
        return connection.execute(text("SELECT count(*) FROM authors")).scalar()


@app.get("/question")
def question():
    with engine.connect() as connection:
        name = connection.execute(text("SELECT name, pg_sleep(0.02) FROM authors WHERE id = 1")).scalar()
        return jsonify(name=name, of=count())
