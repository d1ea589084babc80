"""Opens a connection for each request, with a function of its own."""

import os

import psycopg2
from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool


def opened():
    return psycopg2.connect(os.environ["DATABASE_URL"], application_name="shop")


engine = create_engine("postgresql+psycopg2://", creator=opened, poolclass=NullPool)  # sick
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        return jsonify(connection.execute(text("SELECT count(*) FROM authors")).scalar())
