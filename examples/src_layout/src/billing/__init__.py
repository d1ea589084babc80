"""Bills: a src layout whose other packages are called db and reports, as many are."""

from flask import Flask, jsonify, request

import db
import reports


def create_app():
    app = Flask(__name__)
    db.prepare()

    @app.get("/")
    def home():
        return "billing\n"

    @app.post("/bills")
    def bill():
        with db.session() as session:
            made = db.Bill(customer=int(request.json["customer"]), cents=int(request.json["cents"]))
            session.add(made)
            session.commit()
            return jsonify(id=made.id), 201

    @app.get("/reports/<int:customer>")
    def report(customer):
        with db.session() as session:
            return jsonify(reports.of_customer(session, customer))

    return app
