"""psycopg 3 under gunicorn's sync workers. The URL of the environment names no driver, so the service adds its own."""

import os

from flask import Flask, jsonify, request
from sqlalchemy import create_engine, make_url, text

url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
engine = create_engine(url, pool_size=2)
app = Flask(__name__)

with engine.begin() as connection:
    # Several workers start together.
    connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
    connection.execute(text("CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, number int NOT NULL)"))


@app.get("/")
def home():
    return "visits\n"


@app.post("/visits")
def visit():
    statement = text(
        "INSERT INTO visits VALUES (:page, 1) ON CONFLICT (page) DO UPDATE SET number = visits.number + 1"
        " RETURNING number"
    )
    with engine.begin() as connection:
        return jsonify(number=connection.scalar(statement, {"page": request.json["page"]}))
