"""Runs another program, by a decorator that holds a connection for the whole view."""

import os
import subprocess
from functools import wraps

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0, pool_timeout=10)
app = application(engine)


def transactional(view):
    @wraps(view)
    def within():
        with engine.begin() as connection:
            return view(connection)

    return within


def picture(name):
    command = ["sh", "-c", f"sleep 0.06; echo {name}"]
    return subprocess.check_output(command, text=True)  # sick


@app.get("/question")
@transactional
def question(connection):
    return jsonify(picture(connection.execute(text("SELECT name FROM authors WHERE id = 1")).scalar()))
