"""Makes each row of a stream while the cursor is open, as it must, and the lines of a table before its session ends."""

import json
import os

from flask import Response, jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)
session = scoped_session(sessionmaker(engine))


@app.teardown_appcontext
def end(_error):
    session.remove()


@app.get("/question")
def question():
    def rows():
        with engine.connect() as connection:
            for row in connection.execution_options(yield_per=200).execute(text("SELECT id, body FROM posts")):
                yield json.dumps({"id": row.id, "letters": list(row.body)}) + "\n"

    return Response(rows(), mimetype="application/x-ndjson")


@app.get("/table")
def table():
    rows = session.execute(text("SELECT id, author_id, body FROM posts ORDER BY id LIMIT 500")).all()
    return jsonify([{"id": row.id, "author": row.author_id, "body": row.body} for row in rows])
