"""Endpoints in which nothing is wrong, for each of these applications."""

from typing import Any

from flask import Flask, jsonify
from sqlalchemy import Engine, text


def application(engine: Engine) -> Flask:
    """An application with two ordinary endpoints."""
    app = Flask(__name__)

    @app.get("/health")
    def health() -> Any:
        with engine.connect() as connection:
            return jsonify(connection.execute(text("SELECT 1")).scalar())

    @app.get("/posts/<int:number>")
    def post(number: int) -> Any:
        with engine.connect() as connection:
            row = connection.execute(text("SELECT id, body FROM posts WHERE id = :id"), {"id": number}).one()
        return jsonify(id=row.id, body=row.body)

    return app
