"""Makes an engine for each request."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    mine = create_engine(os.environ["DATABASE_URL"])  # sick
    with mine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM authors")).scalar()
    mine.dispose()
    return jsonify(found)
