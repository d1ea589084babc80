"""The least that any generator of this kind can cost: a bare gevent loop over raw sockets that only measures.

    python -m benchmarks.bare keepalive|connections HOST:PORT USERS REQUESTS

It has raw non-blocking sockets with one libev watcher each, `recvmsg` with the kernel's receive stamp, and keeps four
numbers per request. It has no script, parser, limits or error handling. It prints requests, wall seconds and CPU seconds as
JSON. Comparing a complete generator with this loop removes the speed of the machine's Python and kernel from the result.
"""

import json
import socket
import sys
import time
from array import array

from gevent import get_hub, getcurrent, spawn_raw
from gevent.event import Event

from loadgen.clock import WallOffset, stamp_arrivals
from loadgen.http.ports import LocalPorts

_REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: keep-alive\r\n\r\n"


def run(mode: str, address: tuple[str, int], users: int, requests: int) -> tuple[int, float, float]:
    """Return (requests, wall s, CPU s). `users` greenlets share the requests; mode "connections" opens a socket for each."""
    loop, switch, now_ns = get_hub().loop, get_hub().switch, time.monotonic_ns
    kept = array("q")
    over = Event()
    stamps = WallOffset()  # while it lives the kernel goes on stamping
    ports = LocalPorts()
    running = users

    def connected() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamp_arrivals(sock)
        if option := ports.option(now_ns()):
            sock.setsockopt(*option)
        sock.connect_ex(address)
        sock.connect_ex(address)  # on loopback it stands by now
        return sock

    def once(sock: socket.socket, readable: object, resume: object) -> None:
        sent_ns = now_ns()
        sock.send(_REQUEST)
        readable.start(resume, True)
        switch()
        readable.stop()
        data, stamp, _, _ = sock.recvmsg(4096, 64)
        kept.extend((sent_ns, now_ns(), len(data), len(stamp)))

    def user() -> None:
        nonlocal running
        resume = getcurrent().switch
        sock = connected()
        readable = loop.io(sock.fileno(), 1)
        for _ in range(requests // users):
            if mode == "connections":
                readable.close()
                sock.close()
                sock = connected()
                readable = loop.io(sock.fileno(), 1)
            once(sock, readable, resume)
        readable.close()
        sock.close()
        running -= 1
        if not running:
            over.set()

    cpu_s, wall_s = time.process_time(), time.monotonic()
    for _ in range(users):
        spawn_raw(user)
    over.wait()
    del stamps
    return len(kept) // 4, time.monotonic() - wall_s, time.process_time() - cpu_s


if __name__ == "__main__":
    host, _, port = sys.argv[2].rpartition(":")
    print(json.dumps(run(sys.argv[1], (host, int(port)), int(sys.argv[3]), int(sys.argv[4]))))
