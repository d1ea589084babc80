"""gunicorn's configuration: `gunicorn -c wsgi/gunicorn_conf.py 'wsgi:create_app()'`, from any folder.

The application is loaded once, in the master, and workers are forked from it: they start at once and share its memory. So the
master is patched for gevent as well (by importing `wsgi`), and must not pass connections or greenlets on to its workers.
"""

import atexit
import ctypes
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# prometheus_client reads this when it is first imported, and keeps the values of all workers in files there.
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="poolbench-metrics-")

    @atexit.register
    def _remove_metrics(master: int = os.getpid(), folder: str = os.environ["PROMETHEUS_MULTIPROC_DIR"]) -> None:
        if os.getpid() == master:
            shutil.rmtree(folder, ignore_errors=True)


import gevent

from db.settings import PoolSettings, SettingError
from db.telemetry import forget_process
from wsgi import refuse
from wsgi.logs import gunicorn_logging, log_json
from wsgi.settings import MOST_CLIENTS, ServerSettings, client_limit, raise_descriptor_limit

_descriptors = raise_descriptor_limit()
try:
    _settings = ServerSettings.from_mapping(os.environ)
    worker_connections = client_limit(_descriptors, PoolSettings.from_mapping(os.environ))
except SettingError as error:
    refuse(str(error))

bind = _settings.bind
workers = _settings.workers
worker_class = "wsgi.worker.Worker"
preload_app = True
graceful_timeout = 20
control_socket_disable = True
logconfig_dict = gunicorn_logging()
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s %(D)s us'

if worker_connections < MOST_CLIENTS:
    log_json()
    logging.getLogger("poolbench.wsgi").warning(
        "a worker holds at most %d connections of clients: it may open %d files (ulimit -n)",
        *(worker_connections, _descriptors),
    )

# The workers of a killed master close the port within 1 s.
_PORT_PATIENCE_S = 1.5
_PR_SET_PDEATHSIG = 1


def on_starting(server: Any) -> None:
    """In the master, first of all: refuse a port that is in use, unless it is used by our own old master.

    gunicorn itself would try for 5 s before it says so. Warns of a `worker_connections` from the command line that leaves
    the database no file.
    """
    if server.cfg.worker_connections > worker_connections:
        log_json()
        logging.getLogger("poolbench.wsgi").warning(
            "worker_connections %d is too many for %d files (ulimit -n): beyond %d clients, the database may get none",
            *(server.cfg.worker_connections, _descriptors, worker_connections),
        )
    address = server.cfg.address[0]
    # A socket in the file system is a path; gunicorn replaces one that is left over.
    if "GUNICORN_FD" in os.environ or not isinstance(address, tuple):
        return
    host, port = address
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while complaint := _cannot_bind(host, port):
        if time.monotonic() > deadline:
            refuse(f"cannot listen on {host}:{port}: {complaint}")
        time.sleep(0.05)


def _cannot_bind(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror
        # A name that cannot be one of a host.
        except (TypeError, ValueError) as error:
            return str(error)
    return None


def post_fork(_server: Any, _worker: Any) -> None:
    """In the worker: drain and close the port as soon as the master is killed (on Linux; elsewhere within a second)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def post_worker_init(worker: Any) -> None:
    """In the worker: start with an empty pool of its own; publish the metrics and fold clicks in the background."""
    database, metrics = (worker.wsgi.extensions[name] for name in ("database", "metrics"))
    database.forget()

    def report() -> None:
        while True:
            metrics.publish(database)
            gevent.sleep(1.0)

    gevent.spawn(report)
    gevent.spawn(worker.wsgi.extensions["folder"].run)
    gc.collect()
    # Objects loaded by now stay. A collection that looked through all of them would delay requests by tens of ms.
    gc.freeze()


def worker_exit(_server: Any, worker: Any) -> None:
    """In the worker, last of all: publish what was counted in its last second."""
    if (flask := worker.wsgi) is not None:
        flask.extensions["metrics"].publish(flask.extensions["database"])


def child_exit(_server: Any, worker: Any) -> None:
    """In the master: remove the gauges of a worker that has ended from the sums."""
    forget_process(worker.pid)
