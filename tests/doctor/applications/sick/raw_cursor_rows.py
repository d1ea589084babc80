"""Fetches the author of each post on a cursor of the driver's."""

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
        cursor.execute("SELECT author_id FROM posts ORDER BY id LIMIT 40")
        names = []
        for (number,) in cursor.fetchall():
            cursor.execute("SELECT name FROM authors WHERE id = %s", (number,))  # sick
            names.append(cursor.fetchone()[0])
    return jsonify(names)
