"""gunicorn's configuration for somebody else's application. Loaded by its path, so that nothing here has a name that the
application's own modules could have. Under gevent, psycopg2 included; its answers tell what connections cost."""

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
    """In the worker, before the application is loaded. Nothing of this may happen in the master, which is not patched."""
    from gevent import monkey  # noqa: PLC0415

    # As the worker itself is about to do. SQLAlchemy, imported below, must find locks of gevent's.
    monkey.patch_all()
    from psycogreen.gevent import patch_psycopg  # noqa: PLC0415

    patch_psycopg()
    _provide_library()


def post_worker_init(worker: Any) -> None:
    """In the worker, the application loaded."""
    from poolbench import server_timing  # noqa: PLC0415

    worker.wsgi = server_timing(worker.wsgi)
    gc.collect()
    gc.freeze()  # what the application loaded stays: looking through it again and again only makes requests wait


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
