"""A server with known delays that knows what it is measured by: 5 to 15 ms evenly, every 33rd answer 40 ms.

    python -m benchmarks.delaying PORT

A request counts from the instant at which the kernel received it, so the time that it waits unread in a socket's buffer is part
of its response time, as it is for whoever sent it. `GET /figures` is answered with the JSON of `Figures`, which then begin anew.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from loadgen.clock import stamp_arrivals

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
_STAMP_ROOM = socket.CMSG_SPACE(48)


@dataclass
class Figures:
    """Times in ns from a request's arrival in the kernel to just before its answer is sent."""

    times_ns: list[int] = field(default_factory=list)

    def take(self) -> bytes:
        """An answer whose body is the JSON of [p50, p99] in ms, or of [0, 0] without requests. The times are forgotten."""
        times_ns, self.times_ns = sorted(self.times_ns) or [0], []
        body = json.dumps([_quantile_ms(times_ns, q) for q in (0.5, 0.99)]).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _quantile_ms(times_ns: Sequence[int], q: float) -> float:
    return times_ns[min(len(times_ns) - 1, int(q * len(times_ns)))] / 1e6


def serve(port: int) -> None:
    """Serve for ever."""
    rng, numbers, figures = random.Random(1), count(1), Figures()
    due: list[tuple[int, int, socket.socket, int]] = []
    connections: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener, select.epoll() as poll:
        poll.register(listener, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll(max(0, due[0][0] - time.time_ns()) / 1e9 if due else -1):
                if descriptor == listener.fileno():
                    connection, _ = listener.accept()
                    stamp_arrivals(connection)
                    connections[connection.fileno()] = connection
                    poll.register(connection, select.EPOLLIN)
                    continue
                connection = connections[descriptor]
                data, stamps = b"", []
                with suppress(OSError):
                    data, stamps, _, _ = connection.recvmsg(65536, _STAMP_ROOM)
                if data.startswith(b"GET /figures"):
                    connection.sendall(figures.take())
                elif data:
                    seconds, rest = struct.unpack_from("qq", stamps[0][2])
                    arrived_ns, number = seconds * 1_000_000_000 + rest, next(numbers)
                    delay_s = 0.040 if number % 33 == 0 else rng.uniform(0.005, 0.015)
                    heappush(due, (arrived_ns + round(delay_s * 1e9), number, connection, arrived_ns))
                else:
                    connections.pop(descriptor).close()
            while due and due[0][0] <= time.time_ns():
                _, _, waiting, arrived_ns = heappop(due)
                sent_ns = time.time_ns()
                # Whoever has closed the connection meanwhile counts this request neither.
                with suppress(OSError):
                    waiting.send(_ANSWER)
                    figures.times_ns.append(sent_ns - arrived_ns)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
