"""Borrows again and again, each time behind those who wait, from a pool for more than one."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

from poolbench import FairPool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=FairPool, pool_size=3, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    for _ in range(60):
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.002)"))
    return jsonify("done")
