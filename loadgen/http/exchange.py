"""The result of an HTTP exchange: an Exchange or a Failure, which are values, not exceptions.

The measured instants, in ns of CLOCK_MONOTONIC (clock.py):

- started: the exchange was asked for; connected: the connection was open (the same as started on a kept one);
- written: just before the system call that handed the last byte of the request to the kernel;
- first byte: on Linux the kernel's own receive stamp (SO_TIMESTAMPING, software) of the read that began the answer, so that
  a generator that is late to read does not lengthen what it measures; elsewhere the clock after that read (see `stamped`);
- last byte: for an answer that came whole in one read, the stamp of that read, too; else the clock after the read that
  completed the answer.

The kernel stamps segments, and gives those that wait unread together the stamp of the last (a first read of one byte gets
that stamp, too). So if a generator is late to read an answer of several segments, the first byte is dated by the last
segment that had arrived. That is still never later than the clock after the read, which would be used without stamps. How
often it happens is counted on one exchange in 16: the kernel says how many bytes and segments have come in (TCP_INFO).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadgen.http.response import MAX_BODY_BYTES, ResponseHead, parse_headers


@dataclass(slots=True)
class Exchange:
    """A finished exchange.

    `body` is the body as sent (without chunks, still compressed), and empty unless it was asked for; `body_bytes` is its length
    in either case. The names of instants are explained above.
    """

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
    """Nanoseconds of resolving, connecting and TLS for this connection, even if an earlier exchange opened it."""
    facts: ResponseHead
    """What the head says, as far as it is often needed."""
    too_large: bool = False
    """Whether the body was wanted, but is longer than may be kept; `body` is empty then."""

    def headers(self) -> list[tuple[str, str]]:
        """All header fields in order, with names as sent."""
        return parse_headers(self.head)

    def header(self, name: str) -> str | None:
        """The value of the first field with this name (in any case), or None."""
        wanted = name.lower()
        return next((value for field, value in self.headers() if field.lower() == wanted), None)


NO_HEAD = ResponseHead.of(b"")

FILED = Exchange(0, b"", b"", 0, False, False, 0, 0, 0, 0, 0, (0, 0, 0), NO_HEAD)
"""Returned in place of a plain answer that was filed and that the caller did not want to see."""

STAMPED, EXAMINED, LATER = 1, 2, 4
"""The kernel stamped the first byte; it is known of how many segments the first read was; it was of several, so that the
stamp is that of a later segment than the first."""

FileAnswer = Callable[[ResponseHead, int, int, int, int, int, int, bool], None]
"""Files one answer: its head; the instants when the request was written, of the first and the last byte, and when the
request was planned to start; bytes of the body; 0 or a sum of STAMPED, EXAMINED and LATER; whether the answer is whole and
plain (`ResponseHead.plain`). Made by `Recorder.answers`.
"""


@dataclass(slots=True)
class Failure:
    """An exchange that did not finish. `name` is the error's name in Artillery (ECONNREFUSED, ETIMEDOUT...).

    `stage` is "connect" (there was no connection, and `connected_ns` is 0), "send" or "receive". `response` has the status
    and the instants of the answer if its head had arrived.
    """

    name: str
    stage: str
    started_ns: int
    connected_ns: int
    at_ns: int
    response: Exchange | None = None
    closed: bool = False
    """Whether the peer closed the connection in good order before its answer was whole, or sent what is no answer."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits of an exchange, times in ns.

    `response_ns` is the longest time from the request written to the head of the answer (else ETIMEDOUT), `idle_ns` the
    longest time without traffic on a socket, also while connecting (else ERR_SOCKET_TIMEOUT).
    """

    response_ns: int = 10_000_000_000
    idle_ns: int = 8_000_000_000
    drain_ns: int = 0
    """How long an answer may go on after the last arrival of the plan (else ERR_DRAIN_TIMEOUT); 0 for without end."""
    max_body_bytes: int = MAX_BODY_BYTES
    """The most that is kept of a body, in bytes as sent; a longer one is not kept at all."""
