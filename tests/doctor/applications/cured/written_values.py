"""Fetches the authors of all posts by one statement."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    with engine.connect() as connection:
        numbers = connection.execute(text("SELECT author_id FROM posts ORDER BY id LIMIT 40")).scalars().all()
        found = connection.exec_driver_sql(f"SELECT id, name FROM authors WHERE id IN ({', '.join(map(str, numbers))})")
        names = {author.id: author.name for author in found}
    return jsonify([names[number] for number in numbers])
