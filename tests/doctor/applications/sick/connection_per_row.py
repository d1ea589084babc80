"""Fetches the author of each post on a connection borrowed anew."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

from poolbench import FairPool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=FairPool, pool_size=20, max_overflow=0, pool_timeout=3)
app = application(engine)


def name_of(number):
    with engine.connect() as connection:
        return connection.execute(text("SELECT name FROM authors WHERE id = :id"), {"id": number}).scalar()  # sick


@app.get("/question")
def question():
    with engine.connect() as connection:
        numbers = connection.execute(text("SELECT author_id FROM posts ORDER BY id LIMIT 40")).scalars().all()
    return jsonify([name_of(number) for number in numbers])
