"""Opens a connection before the workers are forked."""

import os
from random import randrange

from flask import abort, jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=8, max_overflow=0, pool_timeout=3)
app = application(engine)


with engine.connect() as first:  # sick
    authors = first.execute(text("SELECT count(*) FROM authors")).scalar()


@app.get("/question")
def question():
    number = randrange(1, authors)
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT id, name, pg_sleep(0.005) FROM authors WHERE id = :id"), {"id": number}
        ).one()
    if row.id != number:
        abort(500, "this is the answer to another question")
    return jsonify(row.name)
