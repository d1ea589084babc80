"""Flask and SQLAlchemy without an extension: one engine with a QueuePool of its own, served by threads."""

import os

from flask import Flask, jsonify, request
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=5, max_overflow=2, pool_timeout=3)
app = Flask(__name__)


@app.get("/")
def home():
    return "notes\n"


@app.post("/notes")
def add():
    with engine.begin() as connection:
        statement = text("INSERT INTO notes (body) VALUES (:body) RETURNING id")
        number = connection.scalar(statement, {"body": request.json["body"]})
    return jsonify(id=number), 201


@app.get("/notes/<int:number>")
def show(number):
    with engine.connect() as connection:
        body = connection.scalar(text("SELECT body FROM notes WHERE id = :id"), {"id": number})
    return (jsonify(id=number, body=body), 200) if body is not None else (jsonify(error="no such note"), 404)
