"""A connection to an origin: a raw non-blocking socket with one libev watcher, used by one greenlet at a time."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from gevent import get_hub, getcurrent

from loadgen.clock import KERNEL_STAMPS, WallOffset, now_ns, stamp_arrivals
from loadgen.http.deadlines import Deadlines
from loadgen.http.exchange import EXAMINED, FILED, LATER, NO_HEAD, STAMPED, Exchange, Failure, FileAnswer, TimeLimits
from loadgen.http.response import BadResponse, ResponseHead, ResponseReader, parse_common
from loadgen.http.route import Ended, Handshake, error_name

IDLE_CLOSE_NS = 4_000_000_000
"""A kept connection that was idle for longer than this is not used again (4 s: Artillery's rule)."""
# A request that fits into one segment is never held back by Nagle's algorithm.
_ONE_SEGMENT_BYTES = 1400
_FIRST_READ_BYTES = 4096
# After a small answer this size is tried first: Python keeps memory ready for objects of up to this size.
_SMALL_READ_BYTES = 470
_READ_BYTES = 65536
_READ, _WRITE = 1, 2
NEVER_NS = 1 << 62
_CONNECTING = (errno.EINPROGRESS, errno.EALREADY)
_STAMP_ROOM = socket.CMSG_SPACE(48)
_unpack_stamp = struct.Struct("qq").unpack_from
# An exchange is examined where these bits of its start are zero: one in 16, since that takes two system calls.
_EXAMINED_BITS = 15 << 10
_TCP_INFO, _TCP_INFO_BYTES = 11, 160
# Of struct tcp_info in Linux 4.6 and later, from byte 128 on: bytes received, and segments with data received.
_unpack_received = struct.Struct("=Q16xI").unpack_from


_CLOSE = re.compile(rb"\nconnection:[^\r]*close", re.IGNORECASE)


def _asks_to_close(request: bytes) -> bool:
    """Whether the head of a request asks for the connection to be closed, as a script may want it."""
    return b"lose\r" in request and _CLOSE.search(request.partition(b"\r\n\r\n")[0] + b"\r") is not None


class ConnectionContext:
    """Shared by all connections of a run, and looked up once: time limits, clocks, and functions of the event loop."""

    __slots__ = (
        "closing",
        "cut_off",
        "deadlines",
        "head_limit",
        "limits",
        "plan_ended_ns",
        "sent",
        "switch",
        "wall",
        "watcher",
    )

    def __init__(self, limits: TimeLimits, wall: WallOffset) -> None:
        hub = get_hub()
        self.switch, self.watcher = hub.switch, hub.loop.io
        self.limits = limits
        self.head_limit = min(
            (limits.response_ns, "ETIMEDOUT"), (limits.idle_ns, "ERR_SOCKET_TIMEOUT"), key=itemgetter(0)
        )
        self.wall = wall
        self.deadlines = Deadlines()
        self.plan_ended_ns = 0
        """When the plan's last user arrived; `NEVER_NS` while there are more to come, 0 where there is no plan."""
        self.cut_off = 0
        """How many answers were given up because they went on for too long after the plan's end."""
        self.sent, self.closing = b"", False
        """The newest request, and whether its head asks for the connection to be closed: users often send the same bytes."""


class Connection:
    """One connection to one origin, used by one greenlet at a time.

    Methods of other objects are called through local names, which Python 3.11 makes quicker than a call on a slot.
    """

    __slots__ = (
        "_context",
        "_countable",
        "_deadline_ns",
        "_deadlines",
        "_fires_ns",
        "_head_limit_name",
        "_head_limit_ns",
        "_io",
        "_limits",
        "_recvmsg",
        "_resume",
        "_room",
        "_send",
        "_sock",
        "_switch",
        "_undelayed",
        "_waiting",
        "_wall",
        "address",
        "last_used_ns",
        "over",
        "setup_ns",
        "usable",
    )

    def __init__(self, sock: Any, context: ConnectionContext) -> None:
        self._sock = sock
        self._send = sock.send
        self._recvmsg = sock.recvmsg
        self._context = context
        self._limits = context.limits
        self._head_limit_ns, self._head_limit_name = context.head_limit
        self._wall = context.wall
        self._deadlines = context.deadlines
        self._switch = context.switch
        self._io = context.watcher(sock.fileno(), _READ)
        self._resume: Callable[[bool], Any] = getcurrent().switch
        self._countable = KERNEL_STAMPS
        self._room = _FIRST_READ_BYTES
        self._fires_ns = NEVER_NS
        self._deadline_ns = 0
        self._waiting = self._undelayed = False
        self.usable = True
        self.over = False
        """Whether it is closed, so that no time limit matters any more."""
        self.last_used_ns = 0
        self.setup_ns = (0, 0, 0)
        self.address: Any = None
        """The peer's address, once `connect` was called."""

    def start_from(self, option: tuple[int, int, int]) -> None:
        """Before connecting: restrict the local port with the option that `LocalPorts.option` gave. Raises OSError."""
        self._sock.setsockopt(*option)

    def connect(self, address: Any) -> None:
        """Connect the socket to this address. Raises OSError, and Ended after the time limit."""
        sock = self._sock
        self.address = address
        stamp_arrivals(sock)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            # On loopback the socket is connected by now, and there is no need to wait for an event.
            code = sock.connect_ex(address)
        if code in _CONNECTING:
            self._wait_writable()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code and code != errno.EISCONN:
            raise OSError(code, os.strerror(code))

    def shake_hands(self, handshakes: Sequence[Callable[[Any], Handshake]]) -> None:
        """Go through the handshakes that follow the connect, such as TLS. Raises OSError, Ended."""
        self._send_at_once()
        for begin in handshakes:
            handshake = begin(self._sock)
            while (ready := handshake.advance()) is None:
                if not self._wait(now_ns() + self._limits.idle_ns):
                    raise Ended("ERR_SOCKET_TIMEOUT")
            if ready is not self._sock:
                # The kernel counts encrypted bytes, which are more than what is read.
                self._countable = False
            self._sock, self._send, self._recvmsg = ready, ready.send, ready.recvmsg

    def encryption(self) -> str:
        """How the connection is encrypted, as `TlsSocket.encryption` says; "" if it is not."""
        return str(said()) if (said := getattr(self._sock, "encryption", None)) else ""

    def close(self) -> None:
        """Close the socket and its watcher; may be called again."""
        self.usable = False
        if not self.over:
            self.over = True
            self._io.close()
            self._sock.close()

    def fresh_enough(self, at_ns: int) -> bool:
        """Whether the connection may be used again: kept alive, not idle for too long, and not closed by the peer."""
        idle_ns = at_ns - self.last_used_ns
        if not self.usable or idle_ns > IDLE_CLOSE_NS:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except (OSError, Ended):
            return False
        # The peer has closed it, or has sent bytes that nobody asked for.
        return False

    def exchange_within(self, response_ns: int, *what: Any) -> Exchange | Failure:
        """As `exchange`, with another time limit from the request written to the head of the answer, in ns."""
        usual = self._head_limit_ns, self._head_limit_name
        idle_ns = self._limits.idle_ns
        self._head_limit_ns, self._head_limit_name = min((response_ns, "ETIMEDOUT"), (idle_ns, "ERR_SOCKET_TIMEOUT"))
        try:
            return self.exchange(*what)
        finally:
            self._head_limit_ns, self._head_limit_name = usual

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

        The parameters are those of `Connections.exchange`. The steps of every exchange stand here in one piece, since calls
        and objects in between would add to the cost of a request.
        """
        self._resume = resume = getcurrent().switch
        self.usable = False
        stage = "send"
        try:
            if len(request) > _ONE_SEGMENT_BYTES:
                self._send_at_once()
            context = self._context
            if request is not context.sent:
                context.sent, context.closing = request, _asks_to_close(request)
            closing = context.closing
            send, recvmsg, io, switch = self._send, self._recvmsg, self._io, self._switch
            before = None if started_ns & _EXAMINED_BITS else self._received()
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
                # The same as in `_wait`.
                io.start(resume, True)
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
        stamped = 0
        if stamps:
            seconds, nanoseconds = _unpack_stamp(stamps[0][2])
            stamp_ns = seconds * 1_000_000_000 + nanoseconds - self._wall.wall_ns
            if written_ns <= stamp_ns <= read_ns:
                first_byte_ns, stamped = stamp_ns, STAMPED
                if before is not None:
                    stamped = self._examined(before, len(data))
            else:
                # The wall clock has been set meanwhile, so this stamp means nothing.
                self._wall.measure()
        self._room = _SMALL_READ_BYTES if len(data) < _SMALL_READ_BYTES else _FIRST_READ_BYTES
        head = None if head_only else parse_common(data)
        if head is None:
            answer = Exchange(
                status=0,
                head=b"",
                body=b"",
                body_bytes=0,
                reused=reused,
                stamped=bool(stamped),
                started_ns=started_ns,
                connected_ns=connected_ns,
                written_ns=written_ns,
                first_byte_ns=first_byte_ns,
                last_byte_ns=read_ns,
                setup_ns=self.setup_ns,
                facts=NO_HEAD,
            )
            return self._longer(answer, data, head_only, want_body, closing, file, intended_ns, stamped, want_plain)
        self.usable = head.keep_alive and not closing
        self.last_used_ns = read_ns
        # The stamp of a read is that of the last segment in it, so it is the stamp of the last byte, too.
        last_byte_ns = first_byte_ns
        body_bytes = len(data) - len(head.raw)
        plain = head.plain
        if file is not None:
            file(head, written_ns, first_byte_ns, last_byte_ns, intended_ns or started_ns, body_bytes, stamped, plain)
        if plain and not want_plain:
            return FILED
        return Exchange(
            head.status,
            head.raw,
            data[len(head.raw) :] if want_body else b"",
            body_bytes,
            reused,
            bool(stamped),
            started_ns,
            connected_ns,
            written_ns,
            first_byte_ns,
            last_byte_ns,
            self.setup_ns,
            head,
        )

    def _longer(
        self,
        answer: Exchange,
        data: bytes,
        head_only: bool,
        want_body: bool,
        closing: bool,
        file: FileAnswer | None,
        intended_ns: int,
        stamped: int,
        want_plain: bool,
    ) -> Exchange | Failure:
        """End an exchange whose answer is not of the common shape; `data` are its first bytes. Fills in and files `answer`."""
        found = self._receive(answer, data, head_only, want_body)
        self.usable = self.usable and not closing
        plain = found is answer and answer.facts.plain
        if answer.status and file is not None:
            file(
                answer.facts,
                answer.written_ns,
                answer.first_byte_ns,
                answer.last_byte_ns,
                intended_ns or answer.started_ns,
                answer.body_bytes,
                stamped,
                plain,
            )
        return FILED if plain and not want_plain else found

    def _examined(self, before: tuple[int, int], read_bytes: int) -> int:
        """STAMPED, with EXAMINED if the kernel's counts show of how many segments the read was, and LATER if of several.

        `before` are the counts from before the request was sent. They show it only if nothing more has arrived than was read.
        """
        after = self._received()
        if after is None or after[0] - before[0] != read_bytes:
            return STAMPED
        return STAMPED | EXAMINED | (LATER if after[1] - before[1] > 1 else 0)

    def _received(self) -> tuple[int, int] | None:
        """How many bytes and how many segments with data have arrived on this connection; None where that is not known."""
        if not self._countable:
            return None
        told = self._sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES)
        return _unpack_received(told, 128) if len(told) == _TCP_INFO_BYTES else None

    def _receive(self, answer: Exchange, data: bytes, head_only: bool, want_body: bool) -> Exchange | Failure:
        """Read the rest of an answer that is not of the common shape, and fill it in. `data` are its first bytes."""
        reader = ResponseReader(head_only=head_only, want_body=want_body, max_body_bytes=self._limits.max_body_bytes)
        try:
            self._read_rest(reader, data, answer.written_ns)
        except OSError as error:
            return self._broken(error_name(error), answer, reader)
        except (Ended, BadResponse) as ended:
            failure = self._broken(ended.name, answer, reader)
            failure.closed = ended.name not in ("ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "ERR_DRAIN_TIMEOUT")
            return failure
        self.usable = reader.keep_alive
        return self._filled(answer, reader)

    def _broken(self, name: str, answer: Exchange, reader: ResponseReader) -> Failure:
        """Make the failure, with this name, that cut an answer off; it has the part of the answer that had arrived."""
        partial = self._filled(answer, reader) if reader.status else None
        return Failure(name, "receive", answer.started_ns, answer.connected_ns, now_ns(), partial)

    def _filled(self, answer: Exchange, reader: ResponseReader) -> Exchange:
        answer.status, answer.head, answer.facts = reader.status, reader.head, ResponseHead.of(reader.head)
        answer.body, answer.body_bytes, answer.too_large = reader.body, reader.body_bytes, reader.too_large
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
            self._see_to_the_end(written_ns)
            if not reader.status and now_ns() > written_ns + limits.response_ns:
                raise Ended("ETIMEDOUT")
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

    def _see_to_the_end(self, written_ns: int) -> None:
        """Raise Ended for an answer that still goes on long after the plan's end: a server may send without end."""
        context, drain_ns = self._context, self._limits.drain_ns
        if drain_ns and now_ns() > max(written_ns, context.plan_ended_ns) + drain_ns:
            context.cut_off += 1
            raise Ended("ERR_DRAIN_TIMEOUT")

    def _send_rest(self, rest: bytes) -> int:
        """Send what the kernel did not take. Returns the instant just before the last piece was sent. Raises OSError, Ended."""
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
        """Let other greenlets run until the socket is ready. Returns False if the deadline came first.

        A wake-up that was asked for is not cancelled when the wait ends: when it comes, the deadline in force by then is
        looked at. So an ordinary exchange, over long before its deadline, costs nothing here.
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
        """End the wait if its deadline has passed; else ask to be woken at its deadline. Called by `Deadlines`."""
        self._fires_ns = NEVER_NS
        if not self._waiting:
            return
        if now_ns() < self._deadline_ns:
            self._fires_ns = self._deadline_ns
            self._deadlines.watch(self, self._deadline_ns)
        else:
            self._resume(False)

    def _send_at_once(self) -> None:
        """From now on send without delay: needed where more than one segment is sent before the peer answers."""
        if not self._undelayed:
            self._undelayed = True
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
