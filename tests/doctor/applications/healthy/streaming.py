"""Sends rows as they come from a server-side cursor."""

import os

from flask import Response
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


@app.get("/question")
def question():
    def lines():
        with engine.connect() as connection:
            rows = connection.execution_options(stream_results=True).execute(text("SELECT id, body FROM posts"))
            for part in rows.partitions(200):
                yield "".join(f"{row.id},{row.body}\n" for row in part)

    return Response(lines(), mimetype="text/csv")
