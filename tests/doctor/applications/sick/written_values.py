"""Fetches the author of each post by a statement of its own, with the author's number written into its text."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    names = []
    with engine.connect() as connection:
        for post in connection.execute(text("SELECT author_id FROM posts ORDER BY id LIMIT 40")).all():
            found = connection.exec_driver_sql(f"SELECT name FROM authors WHERE id = {post.author_id}")  # sick
            names.append(found.scalar())
    return jsonify(names)
