"""Closes the connection that it has opened before the workers are forked."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


with engine.connect() as first:
    authors = first.execute(text("SELECT count(*) FROM authors")).scalar()
engine.dispose()


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar() / authors)
