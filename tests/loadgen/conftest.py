"""Servers that answer as a test tells them to, on real sockets in threads of this process."""

import gc
import os
from pathlib import Path

import pytest

from tests.support.raw_server import RawServer


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
