"""A server on a real socket, in threads of the test's own process, that answers as the test tells it to."""

import contextlib
import socket
import threading
from pathlib import Path

from tests.support.server_process import wait_until


def answer_and_close(connection, data):
    """Answer and close in one segment: whoever has read the answer can know that the connection is closed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    connection.sendall(data)
    return False


def wait_until_read(connection):
    """Return when the other end, on this machine, has read all that was sent: a reset takes away what is unread."""
    ends = [f"{port:04X}" for port in (connection.getpeername()[1], connection.getsockname()[1])]

    def is_read():
        rows = (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
        queues = [row[4] for row in rows if [end.rpartition(":")[2] for end in row[1:3]] == ends]
        return all(queue.endswith(":00000000") for queue in queues)

    wait_until(is_read, "what was sent has been read")


class RawServer:
    """Reads a request's head (and no more), then calls `answer(connection, head)`; repeats until it returns False."""

    def __init__(self, answer, address="127.0.0.1", backlog=200):
        self.answer = answer
        self.heads = []
        self.connections = 0
        self.peer_ports = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family, backlog=backlog)
        self.port = self._listener.getsockname()[1]
        self._open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def stop_listening(self):
        """From now on refuse connections; those that are open go on."""
        self._listener.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, (_, peer_port, *_) = self._listener.accept()
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
