"""gunicorn's configuration for a user's own application.

It is loaded by its path, so that it takes no name that the application's modules could have. The application runs under
gevent, psycopg2 included, and its answers say in Server-Timing what connections cost.
"""

import gc
import os
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

bind = f"{os.environ['HOST']}:{os.environ['PORT']}"
workers = int(os.environ["WEB_CONCURRENCY"])
worker_class = "gunicorn.workers.ggevent.GeventPyWSGIWorker"
worker_connections = 4096
graceful_timeout = 5
control_socket_disable = True


def post_fork(_server: Any, _worker: Any) -> None:
    """Prepares the worker before the application is loaded; the master must stay unpatched."""
    from gevent import monkey  # noqa: PLC0415

    # As the worker itself is about to do. SQLAlchemy, imported below, must find locks of gevent's.
    monkey.patch_all()
    from psycogreen.gevent import patch_psycopg  # noqa: PLC0415

    patch_psycopg()
    _provide_library()


def post_worker_init(worker: Any) -> None:
    """Adds Server-Timing to the answers of the application, in the worker, when it is loaded."""
    from poolbench import server_timing  # noqa: PLC0415

    worker.wsgi = server_timing(worker.wsgi)
    gc.collect()
    # What the application loaded stays in memory: collecting it again and again would only make requests wait.
    gc.freeze()


def _provide_library() -> None:
    """Make `?plugin=poolbench` known, with the library that the application has installed, or else with the tool's own.

    The tool's library is imported by its place. Its folder on the path would offer the application our `app`, `db`, `reports`
    and `wsgi` as well.
    """
    if find_spec("poolbench") is None:
        home = Path(__file__).resolve().parents[2] / "poolbench"
        spec = spec_from_file_location("poolbench", home / "__init__.py", submodule_search_locations=[str(home)])
        assert spec is not None and spec.loader is not None  # noqa: S101
        library = sys.modules["poolbench"] = module_from_spec(spec)
        spec.loader.exec_module(library)
    from sqlalchemy.dialects import plugins  # noqa: PLC0415

    plugins.register("poolbench", "poolbench.plugin", "PoolbenchPlugin")
