"""One HTTP exchange over a socket: a request's bytes in, an Exchange or a Failure out. Values, not exceptions.

A connection is a raw non-blocking socket with one libev watcher, used by one greenlet at a time. Instants are monotonic
nanoseconds (clock.py):

- started: the exchange was asked for; connected: the connection stood (equal to started on a reused one);
- written: just before the system call that handed the request's last byte to the kernel;
- first byte: on Linux the kernel's own receive stamp (SO_TIMESTAMPING, software) of the read that began the answer, so that
  a generator that is late to read does not lengthen what it measures; elsewhere the clock after that read (`stamped` tells);
- last byte: the clock after the read that made the answer whole.

The kernel stamps segments, and joins those that wait unread under the stamp of the last (tried: a first read of one byte
gives that stamp too). So an answer in several segments, to a generator that comes late, counts from the last one that was
there: still never later than the clock after the read, which is what there would be without stamps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadgen.http.response import ResponseHead, parse_headers


@dataclass(slots=True)
class Exchange:
    """A finished exchange. `body` is as sent (de-chunked, still compressed), empty unless wanted; `body_bytes` counts always."""

    status: int
    head: bytes
    body: bytes
    body_bytes: int
    reused: bool
    stamped: bool
    started_ns: int
    connected_ns: int
    written_ns: int
    first_byte_ns: int
    last_byte_ns: int
    setup_ns: tuple[int, int, int]
    """(dns, tcp, tls) of the connection, also when it was opened by an earlier exchange."""
    facts: ResponseHead
    """What the head says that many ask for."""

    def headers(self) -> list[tuple[str, str]]:
        """All header fields in order, names as sent."""
        return parse_headers(self.head)

    def header(self, name: str) -> str | None:
        """The first field of that name (any case), or None."""
        wanted = name.lower()
        return next((value for field, value in self.headers() if field.lower() == wanted), None)


NO_HEAD = ResponseHead.of(b"")

FILED = Exchange(0, b"", b"", 0, False, False, 0, 0, 0, 0, 0, (0, 0, 0), NO_HEAD)
"""Returned in place of a plain answer that was filed and that the caller did not want to see."""

FileAnswer = Callable[[ResponseHead, int, int, int, int, int, bool, bool], None]
"""Files one answer: its head; the instants when the request was written, of the first and the last byte, and when the
request was planned to start; bytes of the body; whether the kernel stamped the first byte; whether the answer is whole and
plain (`ResponseHead.plain`). Made by `Recorder.answers`.
"""


@dataclass(slots=True)
class Failure:
    """An exchange that did not finish. `name` is Artillery's (ECONNREFUSED, ETIMEDOUT...).

    `stage`: "connect" (no connection, and `connected_ns` is 0), "send", "receive". `response` holds status and instants
    when a head had arrived.
    """

    name: str
    stage: str
    started_ns: int
    connected_ns: int
    at_ns: int
    response: Exchange | None = None


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits. `response_ns`: request written to head of the answer, ETIMEDOUT. `idle_ns`: a socket without traffic,
    connecting included, ERR_SOCKET_TIMEOUT.
    """

    response_ns: int = 10_000_000_000
    idle_ns: int = 8_000_000_000
