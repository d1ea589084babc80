"""A small application of the usual kind: Flask, Flask-SQLAlchemy, a database from DATABASE_URL. It knows nothing of pools."""

import os

from flask import Flask, jsonify, request

from db import Order, Product, db


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite://")
    db.init_app(app)
    with app.app_context():
        db.prepare()

    @app.get("/")
    def home():
        return "a shop\n"

    @app.get("/products/<int:number>")
    def product(number):
        found = db.get_or_404(Product, number)
        return jsonify(id=found.id, name=found.name, price=found.price)

    @app.post("/orders")
    def order():
        made = Order(product_id=int(request.json["product"]), quantity=int(request.json.get("quantity", 1)))
        db.session.add(made)
        db.session.commit()
        return jsonify(id=made.id), 201

    return app


app = create_app()
