"""Each thread keeps a connection of its own, and there are more threads than connections."""

import os
import threading

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=3, max_overflow=0, pool_timeout=1)
app = application(engine)
local = threading.local()


def connection():
    if not hasattr(local, "connection"):
        local.connection = engine.connect()  # sick
    return local.connection


@app.get("/question")
def question():
    found = connection().execute(text("SELECT count(*), pg_sleep(0.01) FROM authors")).scalar()
    connection().commit()
    return jsonify(found)
