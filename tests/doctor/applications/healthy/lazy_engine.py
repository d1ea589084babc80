"""Makes its engine when a request needs it first, once in each process."""

import os
from functools import cache

from flask import Flask, jsonify
from sqlalchemy import create_engine, text

app = Flask(__name__)


@cache
def engine():
    return create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)


@app.get("/health")
def health():
    with engine().connect() as connection:
        return jsonify(connection.execute(text("SELECT 1")).scalar())


@app.get("/posts/<int:number>")
def post(number):
    with engine().connect() as connection:
        return jsonify(connection.execute(text("SELECT body FROM posts WHERE id = :id"), {"id": number}).scalar())


@app.get("/question")
def question():
    with engine().connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
