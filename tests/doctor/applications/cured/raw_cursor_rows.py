"""Fetches the authors of all posts on a cursor of the driver's."""

import os
from contextlib import closing

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=10)
app = application(engine)


@app.get("/question")
def question():
    with closing(engine.raw_connection()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM posts JOIN authors ON authors.id = author_id ORDER BY posts.id LIMIT 40")
        names = [name for (name,) in cursor.fetchall()]
    return jsonify(names)
