"""Flask-SQLAlchemy with two engines: orders in one database, an audit trail in another (a bind)."""

import os

from flask import Flask, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["ORDERS_URL"]
app.config["SQLALCHEMY_BINDS"] = {"audit": os.environ["AUDIT_URL"]}
db = SQLAlchemy(app)


class Order(db.Model):
    __tablename__ = "orders"
    id = db.Column(db.Integer, primary_key=True)
    product = db.Column(db.Integer, nullable=False)


class Entry(db.Model):
    __bind_key__ = "audit"
    __tablename__ = "entries"
    id = db.Column(db.Integer, primary_key=True)
    what = db.Column(db.Text, nullable=False)


with app.app_context(), db.engine.begin() as alone:
    # Several workers start together.
    alone.execute(text("SELECT pg_advisory_xact_lock(1)"))
    db.create_all()


@app.get("/")
def home():
    return "orders\n"


@app.post("/orders")
def order():
    made = Order(product=int(request.json["product"]))
    db.session.add_all([made, Entry(what=f"order of {made.product}")])
    db.session.commit()
    return jsonify(id=made.id), 201
