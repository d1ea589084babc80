"""Opens a connection for each request, more than the database allows, so that the pool beside it is refused some, too."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0)
app = application(engine)


reports = create_engine(os.environ["DATABASE_URL"], poolclass=NullPool)  # sick


@app.get("/question")
def question():
    with reports.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.07)"))
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
