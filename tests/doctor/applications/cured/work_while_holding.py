"""Computes a digest after it has given its connection back."""

import hashlib
import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        name = connection.execute(text("SELECT name FROM authors WHERE id = 1")).scalar()
    return jsonify(hashlib.pbkdf2_hmac("sha256", name.encode(), b"salt", 60_000).hex())
