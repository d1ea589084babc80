"""gunicorn's gevent_pywsgi worker, which also drains: on SIGTERM it finishes running requests and closes idle connections.

The worker that comes with gunicorn waits for idle keep-alive connections until its grace period is over, notices SIGTERM only
once a second, resets the connections that the kernel took but nobody accepted, and ends in the middle of its requests when
the master is killed.
"""

import contextlib
import os
import socket
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import VERSION, GeventPyWSGIWorker

from wsgi.reading import StrictHandler, StrictServer

KEEP_ALIVE_GRACE_S = 1.0
"""Seconds that a draining worker leaves idle connections open, so that a request that is on its way is still answered."""


class Handler(StrictHandler):
    """One connection. It is closed after the current answer when its server drains."""

    close_connection: bool

    def read_requestline(self) -> str:
        """Wait for the next request's first line; the connection counts as idle meanwhile."""
        if self.server.ended_idle:
            return ""
        self.server.idle.add(self)
        try:
            return str(super().read_requestline())
        finally:
            self.server.idle.discard(self)

    def finalize_headers(self) -> None:
        """Complete the headers: while the server drains, they say that the connection ends with this answer."""
        if self.server.draining and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))
        super().finalize_headers()

    def log_request(self) -> None:
        """Write the access log's line, where there is an access log."""
        if self.server.log_accesses:
            super().log_request()


class Server(StrictServer):
    """A listening socket and the connections accepted from it.

    `draining` is true when each answer is the last on its connection, `ended_idle` when idle connections have been closed.
    """

    draining = False
    ended_idle = False
    log_accesses = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle: set[Handler] = set()

    def drain(self) -> None:
        """Accept the connections that are waiting, then close the socket; each answer from now on ends its connection."""
        self.draining = True
        while not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        self.close()
        gevent.spawn_later(KEEP_ALIVE_GRACE_S, self._end_idle)

    def _end_idle(self) -> None:
        self.ended_idle = True
        for handler in self.idle:
            with contextlib.suppress(OSError):
                # The handler then sees the end of its input.
                handler.socket.shutdown(socket.SHUT_RD)


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """A worker process, which serves until SIGTERM."""

    def run(self) -> None:
        """Serve until SIGTERM, or the end of the master; then drain for at most `graceful_timeout` seconds."""
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
        """Tell the master that this worker is alive. gunicorn's own method would end the process where the master is gone."""
        self.tmp.notify()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: stop serving."""
        super().handle_exit(sig, frame)
        self.told_to_stop.set()

    def _serve(self, listener: Any) -> Server:
        listener.setblocking(1)
        environ = base_environ(self.cfg)
        environ.update({"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION})
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            host, port = listener.getsockname()[:2]
            # The address itself: gevent would ask DNS for its name, and wait for an answer.
            environ.update({"SERVER_NAME": host, "SERVER_PORT": str(port)})
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
