"""Servers that answer as a test tells them to, on real sockets in threads of this process."""

import contextlib
import gc
import os
import socket
import threading
import time
from pathlib import Path

import pytest


class RawServer:
    """Reads a request's head (and no more), then calls `answer(connection, head)`; repeats until it returns False."""

    def __init__(self, answer, backlog=200):
        self.answer = answer
        self.heads = []
        self.connections = 0
        self.peer_ports = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port = self._listener.getsockname()[1]
        self._open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, (_, peer_port) = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.peer_ports.append(peer_port)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = b""
        with connection, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in pending:
                    data = connection.recv(65536)
                    if not data:
                        return
                    pending += data
                head, _, pending = pending.partition(b"\r\n\r\n")
                self.heads.append(head)
                if self.answer(connection, head) is False:
                    return


@pytest.fixture
def serve():
    """serve(answer) -> RawServer; `answer` may be bytes to send each time."""
    servers = []

    def start(answer):
        if isinstance(answer, bytes):
            servers.append(RawServer(lambda connection, _: connection.sendall(answer)))
        else:
            servers.append(RawServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def generator_sockets():
    """Sockets that this process has open, the servers' own left out: those of the generator are non-blocking."""
    gc.collect()
    found = 0
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            is_socket = str(Path(f"/proc/self/fd/{path.name}").readlink()).startswith("socket:")
            flags = int(path.read_text().split("flags:")[1].split()[0], 8)
        except OSError:
            continue
        found += is_socket and bool(flags & os.O_NONBLOCK)
    return found


def ok(body=b"ok", head=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body)


@pytest.fixture
def ok_answer():
    return ok


@pytest.fixture
def open_sockets():
    """open_sockets(): how many the generator has open."""
    return generator_sockets


@pytest.fixture
def eventually():
    """eventually(condition): wait for what another thread will make true."""

    def wait(condition, timeout_s=5.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.005)

    return wait
