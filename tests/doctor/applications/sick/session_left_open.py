"""Reads with a session that nobody ends."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import scoped_session, sessionmaker

url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
engine = create_engine(url, pool_size=2, max_overflow=0, pool_timeout=1)
app = application(engine)
session = scoped_session(sessionmaker(engine))


@app.get("/question")
def question():
    return jsonify(session.scalar(text("SELECT count(*) FROM authors")))  # sick
