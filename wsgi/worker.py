"""gunicorn's gevent_pywsgi worker, which also drains: on SIGTERM it lets running requests end, and idle clients go.

The stock worker waits its whole grace period for idle keep-alive connections, looks up only once a second, resets the
connections that the kernel took but nobody accepted, and leaves in the middle of its requests when the master is killed.
"""

import contextlib
import os
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import VERSION, GeventPyWSGIWorker

from wsgi.reading import StrictHandler, StrictServer

KEEP_ALIVE_GRACE_S = 1.0
"""How long a draining worker leaves kept connections open: a client whose next request is on its way gets its answer."""


class Handler(StrictHandler):
    """One connection; says goodbye after the answer at hand once its server drains."""

    close_connection: bool

    def read_requestline(self) -> str:
        """Between two requests the connection counts as idle."""
        if self.server.ended_idle:
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


class Server(StrictServer):
    """A listening socket and the connections accepted from it."""

    draining = False
    ended_idle = False
    log_accesses = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle: set[Handler] = set()

    def drain(self) -> None:
        """Accept who has connected already, and nobody else; answers from now on are the last on their connection."""
        self.draining = True
        while not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        self.close()
        gevent.spawn_later(KEEP_ALIVE_GRACE_S, self._end_idle)

    def _end_idle(self) -> None:
        self.ended_idle = True
        for handler in self.idle:
            with contextlib.suppress(OSError):
                handler.socket.shutdown(0)  # for reading: the handler sees the end of its input


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """A process that serves until it is told to stop."""

    def run(self) -> None:
        """Serve until told to stop, or without a master; then drain, within `graceful_timeout`."""
        self.told_to_stop = Event()
        servers = [self._serve(listener) for listener in self.sockets]
        while self.alive and os.getppid() == self.ppid:
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

    def notify(self) -> None:
        """Tell the master that we live; gunicorn's own would end the process at once where there is none."""
        self.tmp.notify()

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
