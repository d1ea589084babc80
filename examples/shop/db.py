"""The shop's tables."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text


class Database(SQLAlchemy):
    def prepare(self):
        """Create the tables, and a hundred products, once: several workers may start together."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
            self.metadata.create_all(connection)
            if not connection.scalar(text("SELECT count(*) FROM product")):
                products = [{"name": f"product {n}", "price": n * 100} for n in range(1, 101)]
                connection.execute(Product.__table__.insert(), products)


db = Database()


class Product(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.Text, nullable=False)
    price = db.Column(db.Integer, nullable=False)


class Order(db.Model):
    __tablename__ = "orders"
    id = db.Column(db.Integer, primary_key=True)
    product_id = db.Column(db.ForeignKey("product.id"), nullable=False)
    quantity = db.Column(db.Integer, nullable=False)
