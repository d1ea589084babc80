"""One connection to one origin: a raw non-blocking socket with one libev watcher, used by one greenlet at a time."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from gevent import get_hub, getcurrent

from loadgen.clock import WallOffset, now_ns, stamp_arrivals
from loadgen.http.deadlines import Deadlines
from loadgen.http.exchange import FILED, NO_HEAD, Exchange, Failure, FileAnswer, TimeLimits
from loadgen.http.response import BadResponse, ResponseHead, ResponseReader, parse_common
from loadgen.http.route import Ended, Handshake, error_name

IDLE_CLOSE_NS = 4_000_000_000
"""A kept connection unused for this long is not used again (Artillery's rule, and most servers')."""
_ONE_SEGMENT_BYTES = 1400  # what is sent in one piece is never held back (Nagle)
_FIRST_READ_BYTES = 4096
_SMALL_READ_BYTES = 470  # where the answer before was a small one: Python has memory of up to that size at hand
_READ_BYTES = 65536
_READ, _WRITE = 1, 2
_NEVER_NS = 1 << 62
_CONNECTING = (errno.EINPROGRESS, errno.EALREADY)
_STAMP_ROOM = socket.CMSG_SPACE(48)
_unpack_stamp = struct.Struct("qq").unpack_from


class ConnectionContext:
    """What all connections of a run have in common, looked up once: limits, clocks, and the event loop's functions."""

    __slots__ = ("deadlines", "head_limit", "limits", "switch", "wall", "watcher")

    def __init__(self, limits: TimeLimits, wall: WallOffset) -> None:
        hub = get_hub()
        self.switch, self.watcher = hub.switch, hub.loop.io
        self.limits = limits
        self.head_limit = min(
            (limits.response_ns, "ETIMEDOUT"), (limits.idle_ns, "ERR_SOCKET_TIMEOUT"), key=itemgetter(0)
        )
        self.wall = wall
        self.deadlines = Deadlines()


class Connection:
    """One connection to one origin, lent to one greenlet at a time.

    Methods of other objects are called by way of local names: Python 3.11 specialises that, and not a call on a slot.
    """

    __slots__ = (
        "_deadline_ns", "_deadlines", "_fires_ns", "_head_limit_name", "_head_limit_ns", "_io", "_limits", "_recvmsg",
        "_resume", "_room", "_send", "_sock", "_switch", "_undelayed", "_waiting", "_wall", "last_used_ns", "over", "setup_ns",
        "usable",
    )  # fmt: skip

    def __init__(self, sock: Any, context: ConnectionContext) -> None:
        self._sock = sock
        self._send = sock.send
        self._recvmsg = sock.recvmsg
        self._limits = context.limits
        self._head_limit_ns, self._head_limit_name = context.head_limit
        self._wall = context.wall
        self._deadlines = context.deadlines
        self._switch = context.switch
        self._io = context.watcher(sock.fileno(), _READ)
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
        file: FileAnswer | None,
        intended_ns: int,
        want_plain: bool,
    ) -> Exchange | Failure:
        """Send the request's bytes, read the answer and file it. Afterwards `usable` says whether there may be another.

        The parameters are those of `Connections.exchange`. What every exchange goes through stands here in one piece,
        since calls and objects in between show in the cost of a request.
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
                started_ns, connected_ns, written_ns, first_byte_ns, read_ns, self.setup_ns, NO_HEAD,
            )  # fmt: skip
            found = self._receive(answer, data, head_only, want_body)
            plain = found is answer and answer.facts.plain
            if answer.status and file is not None:
                file(
                    answer.facts, written_ns, first_byte_ns, answer.last_byte_ns, intended_ns or started_ns,
                    answer.body_bytes, stamped, plain,
                )  # fmt: skip
            return FILED if plain and not want_plain else found
        self.usable = head.keep_alive
        self.last_used_ns = read_ns
        body_at = len(head.raw)
        plain = head.plain
        if file is not None:
            file(
                head, written_ns, first_byte_ns, read_ns, intended_ns or started_ns, len(data) - body_at, stamped, plain
            )
        if plain and not want_plain:
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
        """The failure that ended an answer, with what had arrived of it."""
        partial = self._filled(answer, reader) if reader.status else None
        return Failure(name, "receive", answer.started_ns, answer.connected_ns, now_ns(), partial)

    def _filled(self, answer: Exchange, reader: ResponseReader) -> Exchange:
        answer.status, answer.head, answer.facts = reader.status, reader.head, ResponseHead.of(reader.head)
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
