"""A transaction begins with each request, whether it is needed or not, and exports are streamed from a cursor in it."""

import os

from flask import Flask, Response, g, jsonify
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=5)
app = Flask(__name__)


@app.before_request
def begin():
    g.connection = engine.connect()
    g.transaction = g.connection.begin()


@app.teardown_request
def end(error):
    connection = g.pop("connection", None)
    if connection is not None and not g.pop("streams", False):
        (g.transaction.rollback if error else g.transaction.commit)()
        connection.close()


@app.get("/")
def home():
    return "measurements\n"


@app.get("/count")
def count():
    return jsonify(count=g.connection.scalar(text("SELECT count(*) FROM measurements")))


@app.get("/export")
def export():
    connection, g.streams = g.connection, True

    def rows():
        try:
            options = {"stream_results": True, "max_row_buffer": 100}
            for row in connection.execution_options(**options).execute(text("SELECT * FROM measurements ORDER BY 1")):
                yield f"{row.id},{row.value}\n"
        finally:
            connection.close()

    return Response(rows(), mimetype="text/csv")
