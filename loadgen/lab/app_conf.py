"""gunicorn's configuration for a user's own application.

It is loaded by its path, so that it takes no name that the application's modules could have. The application runs under
gevent, psycopg2 included, and its answers say in Server-Timing what connections cost.
"""

import gc
import os
from typing import Any

bind = f"{os.environ['HOST']}:{os.environ['PORT']}"
workers = int(os.environ["WEB_CONCURRENCY"])
worker_class = "gunicorn.workers.ggevent.GeventPyWSGIWorker"
worker_connections = 4096
graceful_timeout = 5
control_socket_disable = True


def post_fork(_server: Any, _worker: Any) -> None:
    """Prepares psycopg2 for gevent in the worker, before the application is loaded."""
    from psycogreen.gevent import patch_psycopg  # noqa: PLC0415 - not in the master, which is not patched

    patch_psycopg()


def post_worker_init(worker: Any) -> None:
    """Adds Server-Timing to the answers of the application, in the worker, when it is loaded."""
    from poolbench.plugin import server_timing  # noqa: PLC0415

    worker.wsgi = server_timing(worker.wsgi)
    gc.collect()
    # What the application loaded stays in memory: collecting it again and again would only make requests wait.
    gc.freeze()
