"""The command `flask seed`: a hundred books and twenty readers."""

import click
from flask.cli import with_appcontext
from werkzeug.security import generate_password_hash

from library.models import Book, User, db


@click.command()
@with_appcontext
def seed():
    """Add the books and the readers."""
    # A cheap hash: how long passwords take to check is not what this example is about.
    password = generate_password_hash("reader", method="pbkdf2:sha256:1000")
    db.session.add_all(User(name=f"reader{n}", password=password) for n in range(1, 21))
    db.session.add_all(Book(title=f"Book {n}") for n in range(1, 101))
    db.session.commit()
