"""Much to do, in the database and in Python, and nothing of it while a connection waits."""

import os
from collections import Counter

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, author_id, body FROM posts ORDER BY id LIMIT 300")).all()
    words = Counter(str(row.author_id) for row in rows)
    return jsonify(words=words, posts=[row._asdict() for row in rows])
