"""Fetches the authors of all posts by one statement."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

from poolbench import FairPool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=FairPool, pool_size=20, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        posts = "SELECT authors.name FROM posts JOIN authors ON authors.id = author_id ORDER BY posts.id LIMIT 40"
        return jsonify(connection.execute(text(posts)).scalars().all())
