"""Runs another program after its connection has been given back."""

import os
import subprocess

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0, pool_timeout=10)
app = application(engine)


def picture(name):
    command = ["sh", "-c", f"sleep 0.06; echo {name}"]
    return subprocess.check_output(command, text=True)


@app.get("/question")
def question():
    with engine.begin() as connection:
        name = connection.execute(text("SELECT name FROM authors WHERE id = 1")).scalar()
    return jsonify(picture(name))
