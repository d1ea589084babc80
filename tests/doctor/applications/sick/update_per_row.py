"""Changes the rows of a list with a statement each, in one transaction."""

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
    with engine.begin() as connection:
        for number in range(first, first + 40):
            row = {"id": number, "body": f"post {number}"}
            connection.execute(text("UPDATE posts SET body = :body WHERE id = :id"), row)  # sick
    return jsonify("written")
