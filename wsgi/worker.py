"""gunicorn's gevent_pywsgi worker, which also drains: on SIGTERM it lets running requests end, and idle clients go.

The stock worker waits its whole grace period for idle keep-alive connections, and looks up only once a second.
"""

import contextlib
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import VERSION, GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer


class Handler(PyWSGIHandler):  # type: ignore[misc]
    """One connection; says goodbye after the answer at hand once its server drains."""

    close_connection: bool

    def read_requestline(self) -> str:
        """Between two requests the connection counts as idle."""
        if self.server.draining:
            return ""
        self.server.idle.add(self)
        try:
            return str(super().read_requestline())
        finally:
            self.server.idle.discard(self)

    def finalize_headers(self) -> None:
        """While draining, tell the client that this is the last answer on the connection."""
        if self.server.draining and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))
        super().finalize_headers()

    def log_request(self) -> None:
        """Compose an access line only where one is wanted."""
        if self.server.log_accesses:
            super().log_request()


class Server(PyWSGIServer):  # type: ignore[misc]
    """A listening socket and the connections accepted from it."""

    draining = False
    log_accesses = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle: set[Handler] = set()

    def drain(self) -> None:
        """Accept no more, and end what is idle."""
        self.draining = True
        self.close()
        for handler in self.idle:
            with contextlib.suppress(OSError):
                handler.socket.shutdown(0)  # for reading: the handler sees the end of its input


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """A process that serves until it is told to stop."""

    def run(self) -> None:
        """Serve; then drain, within `graceful_timeout`."""
        self.told_to_stop = Event()
        servers = [self._serve(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self.told_to_stop.wait(1.0)
        for server in servers:
            server.drain()
        with gevent.Timeout(self.cfg.graceful_timeout, False):
            for server in servers:
                while not server.pool.join(timeout=1.0):
                    self.notify()
            return
        self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
        for server in servers:
            server.stop(timeout=1)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        super().handle_exit(sig, frame)
        self.told_to_stop.set()

    def _serve(self, listener: Any) -> Server:
        listener.setblocking(1)
        environ = base_environ(self.cfg)
        environ.update({"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION})
        server = Server(
            listener,
            application=self.wsgi,
            spawn=Pool(self.worker_connections),
            log=self.log,
            handler_class=Handler,
            environ=environ,
        )
        server.log_accesses = bool(self.cfg.accesslog)
        server.start()
        return server
