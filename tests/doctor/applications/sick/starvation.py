"""Borrows again and again, ahead of those who wait."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0, pool_timeout=3)  # sick
app = application(engine)


@app.get("/question")
def question():
    for _ in range(60):
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.002)"))
    return jsonify("done")
