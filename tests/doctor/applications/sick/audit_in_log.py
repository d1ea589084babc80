"""Writes its log into the database, with a connection of its own, while a session holds one."""

import logging
import os

from flask import jsonify
from flask_sqlalchemy import SQLAlchemy
from ordinary import application
from sqlalchemy import create_engine, text

app = application(create_engine(os.environ["DATABASE_URL"], pool_size=10))
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 4, "max_overflow": 0, "pool_timeout": 3}
db = SQLAlchemy(app)


class TableHandler(logging.Handler):
    def emit(self, record):
        with db.engine.begin() as connection:  # sick
            connection.execute(text("INSERT INTO events (kind, body) VALUES (1, :body)"), {"body": record.getMessage()})


log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.addHandler(TableHandler())


@app.get("/question")
def question():
    name = db.session.scalar(text("SELECT name FROM authors, pg_sleep(0.04) WHERE id = 1"))
    log.info("%s was shown", name)
    return jsonify(name)
