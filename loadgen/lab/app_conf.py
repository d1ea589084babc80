"""gunicorn's configuration for somebody else's application. Loaded by its path, so that nothing here has a name that the
application's own modules could have. Under gevent, psycopg2 included; its answers tell what connections cost."""

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
    """In the worker, before the application is loaded."""
    from psycogreen.gevent import patch_psycopg  # noqa: PLC0415 - not in the master, which is not patched

    patch_psycopg()


def post_worker_init(worker: Any) -> None:
    """In the worker, the application loaded."""
    from poolbench import server_timing  # noqa: PLC0415

    worker.wsgi = server_timing(worker.wsgi)
    gc.collect()
    gc.freeze()  # what the application loaded stays: looking through it again and again only makes requests wait
