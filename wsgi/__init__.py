"""The application as servers load it: `flask run` finds this package by its name, gunicorn gets `wsgi:create_app()`.

Everything below waits through gevent, so the first lines here patch the standard library and psycopg2, before any module
that creates a lock is imported. Python imports this module before the others of the package, so they are patched as well.
"""

from gevent import monkey

monkey.patch_all()

from db.green import wait_with_gevent  # noqa: E402

wait_with_gevent()

import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from typing import NoReturn  # noqa: E402

import click  # noqa: E402
import gevent  # noqa: E402
from flask import Flask  # noqa: E402

import app  # noqa: E402
from db.binaries import EmbeddedPostgresError  # noqa: E402
from db.errors import DatabaseFailure  # noqa: E402
from db.settings import SettingError  # noqa: E402
from wsgi.edge import Edge  # noqa: E402
from wsgi.logs import log_json  # noqa: E402
from wsgi.settings import ServerSettings  # noqa: E402

START_S = 3.0
"""Longest time, in s, that the start waits for the database; what is left to do is done while the service listens."""

log = logging.getLogger("poolbench.wsgi")


def create_app() -> Flask:
    """Make the application from the environment's settings, and bring its tables up to date.

    If the database is down, silent or locked, the service starts all the same, after `START_S` at most, and the first
    request that reaches the database brings the tables up to date. Wrong settings end the process with one line on stderr
    and exit code 2. Of the commands of `flask`, only `run` needs the database at once; `--help` and the like must not start
    an embedded server.
    """
    log_json()
    if not os.environ.get("DATABASE_URL"):
        # The embedded server is stopped by an exit handler, which SIGTERM would otherwise not run.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        flask = app.create_app(os.environ)
        flask.wsgi_app = Edge(flask.wsgi_app, ServerSettings.from_mapping(os.environ).trusted_proxies)  # type: ignore[method-assign]
        command = click.get_current_context(silent=True)
        if command is None or command.info_name == "run":
            if command is not None:
                # Each worker of gunicorn does this for itself.
                gevent.spawn(flask.extensions["folder"].run)
            flask.extensions["database"].migrate(START_S)
    except (SettingError, EmbeddedPostgresError) as error:
        refuse(str(error))
    except DatabaseFailure as failure:
        log.warning("the database cannot be reached yet: %s", failure)
    return flask


def refuse(reason: str) -> NoReturn:
    """End the process before it serves, with one line on stderr and exit code 2."""
    print(f"poolbench: {reason}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
