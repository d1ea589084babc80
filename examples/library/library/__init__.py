"""A lending library: Flask-SQLAlchemy, a factory, migrations by Flask-Migrate, and users who log in."""

import os

from flask import Flask

from library.models import User, db, login, migrate
from library.seed import seed
from library.views import pages


def create_app(config=None):
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-development"),
        SQLALCHEMY_DATABASE_URI=os.environ.get("LIBRARY_DATABASE", "sqlite:///library.db"),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 5, "max_overflow": 5},
    )
    app.config.update(config or {})
    db.init_app(app)
    migrate.init_app(app, db)
    login.init_app(app)
    login.user_loader(lambda number: db.session.get(User, int(number)))
    app.register_blueprint(pages)
    app.cli.add_command(seed)
    return app
