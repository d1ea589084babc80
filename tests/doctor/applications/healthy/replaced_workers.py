"""Is served by workers that are replaced after some requests, each with a pool of its own."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=3, max_overflow=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
