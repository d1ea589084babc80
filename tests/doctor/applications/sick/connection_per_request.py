"""Opens a connection for each request."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=NullPool)  # sick
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
