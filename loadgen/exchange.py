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

import _socket
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gevent import get_hub, getcurrent

from loadgen.clock import WallOffset, now_ns, stamp_arrivals
from loadgen.deadlines import Deadlines
from loadgen.ports import LocalPorts
from loadgen.response import BadResponse, Head, ResponseReader, parse_common, parse_headers
from loadgen.route import DIRECT, Ended, Handshake, Origin, Route, addresses_of, error_name

IDLE_CLOSE_NS = 4_000_000_000
"""A kept connection unused for this long is not used again (Artillery's rule, and most servers')."""

_PROBE_AFTER_NS = 1_000_000  # an idle connection is looked at for the peer's close before it is used again
_ONE_SEGMENT_BYTES = 1400  # what is sent in one piece is never held back (Nagle)
_FIRST_READ_BYTES = 4096
_SMALL_READ_BYTES = 470  # where the answer before was a small one: Python has memory of up to that size at hand
_READ_BYTES = 65536
_READ, _WRITE = 1, 2
_NEVER_NS = 1 << 62

_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_CONNECTING = (errno.EINPROGRESS, errno.EALREADY)
_STAMP_ROOM = socket.CMSG_SPACE(48)
_unpack_stamp = struct.Struct("qq").unpack_from


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
    facts: Head
    """What the head says that many ask for."""

    def headers(self) -> list[tuple[str, str]]:
        """All header fields in order, names as sent."""
        return parse_headers(self.head)

    def header(self, name: str) -> str | None:
        """The first field of that name (any case), or None."""
        wanted = name.lower()
        return next((value for field, value in self.headers() if field.lower() == wanted), None)


_NO_HEAD = Head.of(b"")

FILED = Exchange(0, b"", b"", 0, False, False, 0, 0, 0, 0, 0, (0, 0, 0), _NO_HEAD)
"""Stands for an exchange that nobody needs to look at: its answer was filed."""

Filing = Callable[[int, int, int, int, int, int, bool], None]
"""Takes an answer as numbers: status; instants of: written, first byte, last byte, intended start; bytes of body; stamped."""


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
class Limits:
    """Time limits. `response_ns`: request written to head of the answer, ETIMEDOUT. `idle_ns`: a socket without traffic,
    connecting included, ERR_SOCKET_TIMEOUT.
    """

    response_ns: int = 10_000_000_000
    idle_ns: int = 8_000_000_000

    @classmethod
    def for_timeout(cls, timeout_s: float | None) -> Limits:
        """Artillery's: 10 s to the head by default, and max(8 s, the timeout that was given) for a silent socket."""
        if timeout_s is None:
            return cls()
        return cls(int(timeout_s * 1e9), max(8_000_000_000, int(timeout_s * 1e9)))


class Connection:
    """One connection to one origin, lent to one greenlet at a time.

    Methods of other objects are called by way of local names: Python 3.11 specialises that, and not a call on a slot.
    """

    __slots__ = (
        "_deadline_ns", "_deadlines", "_fires_ns", "_head_limit_name", "_head_limit_ns", "_io", "_limits", "_recvmsg",
        "_resume", "_room", "_send", "_sock", "_switch", "_undelayed", "_waiting", "_wall", "last_used_ns", "over", "setup_ns",
        "usable",
    )  # fmt: skip

    def __init__(self, sock: Any, dialer: Dialer) -> None:
        self._sock = sock
        self._send = sock.send
        self._recvmsg = sock.recvmsg
        self._limits = dialer.limits
        self._head_limit_ns, self._head_limit_name = dialer.head_limit
        self._wall = dialer.wall
        self._deadlines = dialer.deadlines
        self._switch = dialer.switch
        self._io = dialer.watcher(sock.fileno(), _READ)
        self._resume: Callable[[bool], Any] = getcurrent().switch
        self._room = _FIRST_READ_BYTES
        self._fires_ns = _NEVER_NS
        self._deadline_ns = 0
        self._waiting = self._undelayed = False
        self.usable = True
        self.over = False
        """Closed: no time limit matters any more."""
        self.last_used_ns = 0
        self.setup_ns = (0, 0, 0)

    def start_from(self, option: tuple[int, int, int]) -> None:
        """Before connecting: the ports that LocalPorts says. Raises OSError."""
        self._sock.setsockopt(*option)

    def connect(self, address: Any) -> None:
        """Raises OSError, Ended."""
        sock = self._sock
        stamp_arrivals(sock)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            code = sock.connect_ex(address)  # on loopback it stands by now: no need to wait for an event
        if code in _CONNECTING:
            self._wait_writable()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code and code != errno.EISCONN:
            raise OSError(code, os.strerror(code))

    def shake_hands(self, handshakes: Sequence[Callable[[Any], Handshake]]) -> None:
        """Go through what follows the connect. Raises OSError, Ended."""
        self._send_at_once()
        for begin in handshakes:
            handshake = begin(self._sock)
            while (ready := handshake.advance()) is None:
                if not self._wait(now_ns() + self._limits.idle_ns):
                    raise Ended("ERR_SOCKET_TIMEOUT")
            self._sock, self._send, self._recvmsg = ready, ready.send, ready.recvmsg

    def close(self) -> None:
        """Give everything back; safe to repeat."""
        self.usable = False
        if not self.over:
            self.over = True
            self._io.close()
            self._sock.close()

    def fresh_enough(self, at_ns: int) -> bool:
        """Whether it may be used again: kept alive, not idle too long, and not closed by the peer meanwhile."""
        idle_ns = at_ns - self.last_used_ns
        if not self.usable or idle_ns > IDLE_CLOSE_NS:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # closed, or bytes that nobody asked for

    def exchange(
        self,
        request: bytes,
        started_ns: int,
        connected_ns: int,
        reused: bool,
        head_only: bool,
        want_body: bool,
        filing: Filing | None = None,
        intended_ns: int = 0,
    ) -> Exchange | Failure:
        """Send the request's bytes, read the answer. Usable again afterwards only if `usable` says so.

        What every exchange goes through stands here in one piece: calls and objects in between show in its cost.
        """
        self._resume = resume = getcurrent().switch
        self.usable = False
        stage = "send"
        try:
            if len(request) > _ONE_SEGMENT_BYTES:
                self._send_at_once()
            send, recvmsg, io, switch = self._send, self._recvmsg, self._io, self._switch
            written_ns = now_ns()
            try:
                sent = send(request)
            except BlockingIOError:
                sent = 0
            if sent != len(request):
                written_ns = self._send_rest(request[sent:])
            stage = "receive"
            self._deadline_ns = deadline_ns = written_ns + self._head_limit_ns
            if self._fires_ns > deadline_ns:
                self._fires_ns = deadline_ns
                self._deadlines.watch(self, deadline_ns)
            while True:
                io.start(resume, True)  # as `_wait`
                self._waiting = True
                try:
                    ready = switch()
                finally:
                    self._waiting = False
                    io.stop()
                if not ready:
                    return Failure(self._head_limit_name, stage, started_ns, connected_ns, now_ns())
                try:
                    data, stamps, _, _ = recvmsg(self._room, _STAMP_ROOM)
                except BlockingIOError:
                    continue
                break
        except OSError as error:
            return Failure(error_name(error), stage, started_ns, connected_ns, now_ns())
        except Ended as ended:
            return Failure(ended.name, stage, started_ns, connected_ns, now_ns())
        first_byte_ns = read_ns = now_ns()
        stamped = False
        if stamps:
            seconds, nanoseconds = _unpack_stamp(stamps[0][2])
            stamp_ns = seconds * 1_000_000_000 + nanoseconds - self._wall.wall_ns
            if written_ns <= stamp_ns <= read_ns:
                first_byte_ns, stamped = stamp_ns, True
            else:
                self._wall.measure()  # the wall clock was set meanwhile, and the stamp means nothing
        self._room = _SMALL_READ_BYTES if len(data) < _SMALL_READ_BYTES else _FIRST_READ_BYTES
        head = None if head_only else parse_common(data)
        if head is None:
            answer = Exchange(
                0, b"", b"", 0, reused, stamped,
                started_ns, connected_ns, written_ns, first_byte_ns, read_ns, self.setup_ns, _NO_HEAD,
            )  # fmt: skip
            return self._receive(answer, data, head_only, want_body)
        self.usable = head.keep_alive
        self.last_used_ns = read_ns
        body_at = len(head.raw)
        if filing is not None and head.plain:
            filing(
                head.status, written_ns, first_byte_ns, read_ns, intended_ns or started_ns, len(data) - body_at, stamped
            )
            return FILED
        return Exchange(
            head.status, head.raw, data[body_at:] if want_body else b"", len(data) - body_at, reused, stamped,
            started_ns, connected_ns, written_ns, first_byte_ns, read_ns, self.setup_ns, head,
        )  # fmt: skip

    def _receive(self, answer: Exchange, data: bytes, head_only: bool, want_body: bool) -> Exchange | Failure:
        """Fill in an answer that the fast path does not know, whose first bytes are read."""
        reader = ResponseReader(head_only=head_only, want_body=want_body)
        try:
            self._read_rest(reader, data, answer.written_ns)
        except OSError as error:
            return self._broken(error_name(error), answer, reader)
        except (Ended, BadResponse) as ended:
            return self._broken(ended.name, answer, reader)
        self.usable = reader.keep_alive
        return self._filled(answer, reader)

    def _broken(self, name: str, answer: Exchange, reader: ResponseReader) -> Failure:
        partial = self._filled(answer, reader) if reader.status else None
        return Failure(name, "receive", answer.started_ns, answer.connected_ns, now_ns(), partial)

    def _filled(self, answer: Exchange, reader: ResponseReader) -> Exchange:
        answer.status, answer.head, answer.facts = reader.status, reader.head, Head.of(reader.head)
        answer.body, answer.body_bytes = reader.body, reader.body_bytes
        answer.last_byte_ns = self.last_used_ns = now_ns()
        return answer

    def _read_rest(self, reader: ResponseReader, data: bytes, written_ns: int) -> None:
        """Feed the reader until the answer is whole. Raises OSError, Ended, BadResponse."""
        limits = self._limits
        while True:
            if not data:
                if reader.eof():
                    return
                raise Ended("ECONNRESET")
            if reader.feed(data):
                return
            deadline_ns, name = now_ns() + limits.idle_ns, "ERR_SOCKET_TIMEOUT"
            if not reader.status and written_ns + limits.response_ns <= deadline_ns:
                deadline_ns, name = written_ns + limits.response_ns, "ETIMEDOUT"
            while True:
                if not self._wait(deadline_ns):
                    raise Ended(name)
                try:
                    data = self._sock.recv(_READ_BYTES)
                    break
                except BlockingIOError:
                    continue

    def _send_rest(self, rest: bytes) -> int:
        """Send what the kernel did not take at once; the instant just before the last piece went. Raises OSError, Ended."""
        while True:
            self._wait_writable()
            written_ns = now_ns()
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                continue
            if not rest:
                return written_ns

    def _wait_writable(self) -> None:
        self._io.events = _WRITE
        try:
            if not self._wait(now_ns() + self._limits.idle_ns):
                raise Ended("ERR_SOCKET_TIMEOUT")
        finally:
            self._io.events = _READ

    def _wait(self, deadline_ns: int) -> bool:
        """Yield until the socket is ready; False when the deadline came first.

        The limit is watched lazily, from exchange to exchange: an instant asked for once is not taken back, and the deadline
        is looked at when it comes. An ordinary exchange, over long before, never touches it.
        """
        self._deadline_ns = deadline_ns
        if self._fires_ns > deadline_ns:
            self._fires_ns = deadline_ns
            self._deadlines.watch(self, deadline_ns)
        io, switch = self._io, self._switch
        io.start(self._resume, True)
        self._waiting = True
        try:
            return switch()  # type: ignore[no-any-return] # what `_resume` was called with
        finally:
            self._waiting = False
            io.stop()

    def time_is_up(self) -> None:
        """The instant that `_wait` asked for has come: end the wait, if it is still that one."""
        self._fires_ns = _NEVER_NS
        if not self._waiting:
            return
        if now_ns() < self._deadline_ns:
            self._fires_ns = self._deadline_ns
            self._deadlines.watch(self, self._deadline_ns)
        else:
            self._resume(False)

    def _send_at_once(self) -> None:
        """From now on; needed where more than one segment goes out before the peer has anything to say."""
        if not self._undelayed:
            self._undelayed = True
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Dialer:
    """Opens connections for all users of a run, by one route and within the same limits."""

    def __init__(self, limits: Limits, wall: WallOffset, route: Route = DIRECT) -> None:
        hub = get_hub()
        self.switch, self.watcher = hub.switch, hub.loop.io
        self.limits = limits
        self.head_limit = min(
            (limits.response_ns, "ETIMEDOUT"), (limits.idle_ns, "ERR_SOCKET_TIMEOUT"), key=itemgetter(0)
        )
        self.wall = wall
        self.deadlines = Deadlines()
        self.ports = LocalPorts()
        self._route = route
        self._ways: dict[Origin, tuple[Sequence[Callable[[Any], Handshake]], list[Any]]] = {}

    def close(self) -> None:
        """The run is over: no time limit is watched any more."""
        self.deadlines.close()

    def open(self, origin: Origin) -> Connection:
        """Connect to the first address that answers. Raises OSError or Ended."""
        started_ns = now_ns()
        way = self._ways.get(origin)
        if way is None:
            handshakes = self._route.handshakes(origin)
            way = self._ways[origin] = handshakes, addresses_of(*self._route.door(origin))
        handshakes, addresses = way
        resolved_ns = now_ns()
        option = self.ports.option(started_ns)
        error: Exception = OSError(errno.EADDRNOTAVAIL, "no address")
        for family, _, _, _, address in addresses:
            # The type beneath socket.socket, whose own layer takes longer than the system calls it stands before.
            connection = Connection(_socket.socket(family, _KIND), self)
            try:
                if option is not None:
                    connection.start_from(option)
                connection.connect(address)
                reached_ns = shaken_ns = now_ns()
                if handshakes:
                    connection.shake_hands(handshakes)
                    shaken_ns = now_ns()
            except (OSError, Ended) as this:
                connection.close()
                error = this
            except BaseException:
                connection.close()
                raise
            else:
                connection.setup_ns = (resolved_ns - started_ns, reached_ns - resolved_ns, shaken_ns - reached_ns)
                return connection
        raise error


class Connections:
    """A virtual user's connections: one kept alive for each origin, opened when first used."""

    __slots__ = ("_dialer", "_kept")

    def __init__(self, dialer: Dialer) -> None:
        self._kept: dict[Origin, Connection] = {}
        self._dialer = dialer

    def exchange(
        self,
        origin: Origin,
        request: bytes,
        method_is_head: bool = False,
        want_body: bool = True,
        filing: Filing | None = None,
        intended_ns: int = 0,
    ) -> Exchange | Failure:
        """One exchange with the origin, over its kept connection or a new one.

        `filing`: takes a plain answer that came in one piece; what is returned for that is FILED.
        """
        started_ns = connected_ns = now_ns()
        connection = self._kept.get(origin)
        reused = (
            connection is not None
            and connection.usable
            and (started_ns - connection.last_used_ns < _PROBE_AFTER_NS or connection.fresh_enough(started_ns))
        )
        if not reused:
            if connection is not None:
                connection.close()
            try:
                connection = self._dialer.open(origin)
            except OSError as error:
                return Failure(error_name(error), "connect", started_ns, 0, now_ns())
            except Ended as ended:
                return Failure(ended.name, "connect", started_ns, 0, now_ns())
            self._kept[origin] = connection
            connected_ns = now_ns()
        assert connection is not None  # noqa: S101 - for the type checker: reused or just opened
        return connection.exchange(
            request, started_ns, connected_ns, reused, method_is_head, want_body, filing, intended_ns
        )

    def close(self) -> None:
        """Close all of them."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()
