"""May open more connections than the database allows."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=40, max_overflow=20)  # sick
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.07)"))
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
