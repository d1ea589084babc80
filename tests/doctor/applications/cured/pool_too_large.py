"""May open as many connections as the database allows, over all its processes."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=4, max_overflow=0)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.07)"))
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
