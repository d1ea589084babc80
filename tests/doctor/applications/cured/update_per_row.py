"""Changes all rows of a list with one statement."""

import os
from random import randint

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=4, max_overflow=0, pool_timeout=3)
app = application(engine)


@app.get("/question")
def question():
    first = randint(1, 1960)
    numbers = list(range(first, first + 40))
    update = "UPDATE posts SET body = n.body FROM unnest(CAST(:ids AS int[]), CAST(:bodies AS text[])) AS n(id, body)"
    with engine.begin() as connection:
        connection.execute(
            text(f"{update} WHERE posts.id = n.id"),
            {"ids": numbers, "bodies": [f"post {number}" for number in numbers]},
        )
    return jsonify("written")
