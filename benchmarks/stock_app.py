"""A stock application to compare ours with: Flask and SQLAlchemy with their defaults, on gunicorn's gevent worker."""

import os

from flask import Flask, Response, jsonify
from psycogreen.gevent import patch_psycopg
from sqlalchemy import create_engine, text

patch_psycopg()
app = Flask(__name__)
engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"),
                       pool_size=int(os.environ["DB_POOL_SIZE"]), max_overflow=0)  # fmt: skip


@app.get("/health")
def health() -> Response:
    """Answer after a round trip to the database."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return jsonify(status="ok", database="up")


@app.get("/live")
def live() -> Response:
    """Answer without the database."""
    return jsonify(status="ok")
