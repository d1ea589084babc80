"""gunicorn's configuration: `gunicorn -c wsgi/gunicorn_conf.py 'wsgi:create_app()'`, from any folder.

The application is loaded once, in the master, and forked into the workers: they start in no time and share its memory.
So the master is patched as well (importing `wsgi` does it), and it must hand down neither connections nor greenlets.
"""

import atexit
import ctypes
import gc
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

# Read by prometheus_client when it is first imported: the workers' figures meet in files there.
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="poolbench-metrics-")

    @atexit.register
    def _remove_metrics(master: int = os.getpid(), folder: str = os.environ["PROMETHEUS_MULTIPROC_DIR"]) -> None:
        if os.getpid() == master:
            shutil.rmtree(folder, ignore_errors=True)


import gevent

from db.settings import SettingError
from db.telemetry import forget_process
from wsgi import refuse
from wsgi.logs import gunicorn_logging
from wsgi.settings import ServerSettings

try:
    _settings = ServerSettings.from_mapping(os.environ)
except SettingError as error:
    refuse(str(error))

bind = _settings.bind
workers = _settings.workers
worker_class = "wsgi.worker.Worker"
worker_connections = 4096
preload_app = True
graceful_timeout = 20
control_socket_disable = True
logconfig_dict = gunicorn_logging()
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s %(D)s us'


_PORT_PATIENCE_S = 1.5  # the workers of a killed master let go of it within one
_PR_SET_PDEATHSIG = 1


def on_starting(server: Any) -> None:
    """Say soon that the port is taken (gunicorn itself would try again for 5 s), unless it is our own old master."""
    if "GUNICORN_FD" in os.environ:
        return
    host, port = server.cfg.address[0]
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
    return None


def post_fork(_server: Any, _worker: Any) -> None:
    """In the worker: drain, and let go of the port, as soon as the master is killed (Linux; elsewhere within a second)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def post_worker_init(worker: Any) -> None:
    """In the worker: begin with a pool of its own, and report its state once a second."""
    database, metrics = (worker.wsgi.extensions[name] for name in ("database", "metrics"))
    database.forget()

    def report() -> None:
        while True:
            metrics.publish(database)
            gevent.sleep(1.0)

    gevent.spawn(report)
    gc.collect()
    gc.freeze()  # what was loaded stays: a collector that looks through all of it makes every request wait for tens of ms


def worker_exit(_server: Any, worker: Any) -> None:
    """In the worker, last of all: what was counted in its last second."""
    if (flask := worker.wsgi) is not None:
        flask.extensions["metrics"].publish(flask.extensions["database"])


def child_exit(_server: Any, worker: Any) -> None:
    """In the master: the gauges of a worker that is gone no longer count."""
    forget_process(worker.pid)
