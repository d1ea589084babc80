"""Logging of the service, the server and the libraries: one JSON object on each line."""

import logging
import time
from typing import Any

from pythonjsonlogger.json import JsonFormatter


def formatter() -> JsonFormatter:
    """Make a formatter of JSON lines: `time` (UTC), `level`, `msg`, then what the record got as `extra`."""
    return _Formatter("%(asctime)s %(levelname)s %(message)s", rename_fields=_NAMES)


def log_json() -> None:
    """Make the service's loggers write JSON lines to stderr."""
    logger = logging.getLogger("poolbench")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def gunicorn_logging() -> dict[str, Any]:
    """Make gunicorn's `logconfig_dict`: errors go to stderr, and accesses, if they are to be logged, to stdout."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "wsgi.logs.formatter"}},
        "handlers": {
            "errors": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"},
            "accesses": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"},
        },
        "root": {"level": "WARNING", "handlers": ["errors"]},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "handlers": ["errors"], "propagate": False},
            "gunicorn.access": {"level": "INFO", "handlers": ["accesses"], "propagate": False},
        },
    }


_NAMES = {"asctime": "time", "levelname": "level", "message": "msg"}


class _Formatter(JsonFormatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    # UTC, as the Z above says.
    converter = staticmethod(time.gmtime)
