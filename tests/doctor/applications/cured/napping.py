"""Rests after its transaction has ended."""

import os
from random import randint
from time import sleep as rest

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.begin() as connection:
        connection.execute(text("UPDATE counters SET n = n + 1 WHERE id = :id"), {"id": randint(1, 100)})
    rest(0.1)
    return jsonify("counted")
