"""A service that only borrows a connection for a query of 5 ms, so that little but the lending of connections is measured.

The pool is chosen in DATABASE_URL, by the engine plugin, as any application could choose it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

_QUERY = "SELECT pg_sleep(0.005)"


def create_app() -> Callable[..., Iterable[bytes]]:
    """The WSGI application. A query that fails is a 503."""
    engine = create_engine(os.environ["DATABASE_URL"], isolation_level="AUTOCOMMIT")

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status = "200 OK"
        if environ["PATH_INFO"] != "/live":
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql(_QUERY)
            except SQLAlchemyError:
                status = "503 Service Unavailable"
        start_response(status, [("Content-Length", "2")])
        return [b"ok"]

    return application
