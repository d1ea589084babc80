"""A distance between a service and its database: a process through which every byte takes half a round trip.

    python -m loadgen.lab.delay 127.0.0.1 5432

prints the port of 127.0.0.1 that it listens on. Each line of its standard input is a round-trip time in seconds, in force
from then on, and is printed back when it is; the end of the input is the end of the process, so it dies with its parent.

What is simulated is time, not a network: bytes arrive in order and whole, as many at once as were sent (no bandwidth, no
loss, no slow start). Opening a connection costs the round trip that TCP's handshake would. Nagle's algorithm is off on both
sides. What the process itself adds is for `distance.calibrate` to measure.
"""

from __future__ import annotations

import gc
import resource
import socket
import sys
from contextlib import closing, suppress
from typing import Any

import gevent
import gevent.socket
from gevent.fileobject import FileObject
from gevent.queue import Queue
from gevent.server import StreamServer

from loadgen.clock import Alarm, now_ns

_CHUNK_BYTES = 256 * 1024
# Beyond this, the reader waits, so that memory stays bounded; within 5 ms it is still gigabytes a second.
_CHUNKS_UNDER_WAY = 4096
_BACKLOG = 1024

Socket = Any
"""gevent's socket, which has the methods of the standard library's."""


class Proxy:
    """Carries connections to `address` and back. `round_trip_ns` may change at any time; bytes under way keep their delay."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.round_trip_ns = 0

    def carry(self, client: Socket, _client_address: object) -> None:
        """Serves one connection, from its acceptance to the end of both directions."""
        accepted_ns = now_ns()
        try:
            server = gevent.socket.create_connection(self._address)
        except OSError:
            client.close()
            return
        with client, server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            shaken_ns = accepted_ns + self.round_trip_ns
            ways = _Way(self, client, server, shaken_ns), _Way(self, server, client, shaken_ns)
            gevent.joinall([gevent.spawn(step) for way in ways for step in (way.read, way.write)])


class _Way:
    """One direction of a connection: bytes, and the end of the stream, are written half a round trip after they were read."""

    def __init__(self, proxy: Proxy, source: Socket, target: Socket, from_ns: int) -> None:
        self._proxy, self._source, self._target = proxy, source, target
        # No byte leaves before the handshake is over.
        self._from_ns = from_ns
        # Pairs of the time when bytes are due, and the bytes; empty bytes mean the end.
        self._under_way: Any = Queue(_CHUNKS_UNDER_WAY)

    def read(self) -> None:
        """Reads until the source has ended or is gone."""
        data = b"-"
        while data:
            try:
                data = self._source.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            self._under_way.put((max(now_ns(), self._from_ns) + self._proxy.round_trip_ns // 2, data))

    def write(self) -> None:
        """Writes what was read, each part when it is due, until the end has been passed on."""
        with closing(Alarm()) as alarm:
            due_ns, data = self._under_way.get()
            while data:
                alarm.sleep_until(due_ns)
                self._send(data)
                due_ns, data = self._under_way.get()
            alarm.sleep_until(due_ns)
            with suppress(OSError):
                self._target.shutdown(socket.SHUT_WR)

    def _send(self, data: bytes) -> None:
        try:
            self._target.sendall(data)
        # The target is gone, so nobody needs what the source still sends.
        except OSError:
            for each in (self._source, self._target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Runs the delay as a program. Its arguments are the host and the port of the database."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each connection takes four open files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    proxy = Proxy((sys.argv[1], int(sys.argv[2])))
    server = StreamServer(("127.0.0.1", 0), proxy.carry, backlog=_BACKLOG)
    server.start()
    gc.freeze()
    print(server.server_port, flush=True)  # noqa: T201 - the parent reads it
    for line in FileObject(sys.stdin.fileno(), "r", closefd=False):
        proxy.round_trip_ns = round(float(line) * 1e9)
        print(line.strip(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
