"""Opens connections, and keeps the connections of one virtual user."""

from __future__ import annotations

import _socket
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from loadgen.clock import WallOffset, now_ns
from loadgen.http.connection import Connection, ConnectionContext
from loadgen.http.exchange import Exchange, Failure, FileAnswer, TimeLimits
from loadgen.http.ports import LocalPorts
from loadgen.http.route import DIRECT, Ended, Handshake, Origin, Route, addresses_of, error_name, prepare_lookup

# A connection that was idle for longer is checked for being closed by the peer before it is used again.
_PROBE_AFTER_NS = 1_000_000
_WAYS_MAX = 4096
_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Dialer:
    """Opens connections for all virtual users of a run, by one route and with the same time limits."""

    def __init__(
        self,
        limits: TimeLimits,
        wall: WallOffset,
        route: Route = DIRECT,
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        """`prepare` is called with each new socket, before it is connected."""
        self._context = ConnectionContext(limits, wall)
        self._prepare = prepare
        self.ports = LocalPorts()
        self._route = route
        self._ways: dict[Origin, tuple[Sequence[Callable[[Any], Handshake]], list[Any]]] = {}

    def close(self) -> None:
        """Stop watching time limits, once the run is over."""
        self._context.deadlines.close()

    def expect(self, origin: Origin) -> None:
        """Load what the first connection to this origin needs, such as trusted certificates: users that are on their way would
        have to wait for it.
        """
        with suppress(Ended):
            self._route.handshakes(origin)
        prepare_lookup(self._route.door(origin)[0])

    def set_plan_end(self, at_ns: int) -> None:
        """Set when the plan's last user arrived, from when on answers have a limited time (`TimeLimits.drain_ns`)."""
        self._context.plan_ended_ns = at_ns

    @property
    def cut_off(self) -> int:
        """How many answers were given up because they went on for too long after that."""
        return self._context.cut_off

    def open(self, origin: Origin) -> Connection:
        """Open a connection to the first of the origin's addresses that accepts one. Raises OSError or Ended."""
        started_ns = now_ns()
        way = self._ways.get(origin)
        if way is None:
            if len(self._ways) >= _WAYS_MAX:
                # A server may redirect to ever new hosts.
                self._ways.clear()
            handshakes = self._route.handshakes(origin)
            way = self._ways[origin] = handshakes, addresses_of(*self._route.door(origin))
        handshakes, addresses = way
        resolved_ns = now_ns()
        option = self.ports.option(started_ns)
        error: Exception | None = None
        for family, _, _, _, address in addresses:
            # This is the type beneath socket.socket, whose own code takes longer than the system calls that it makes.
            try:
                sock = _socket.socket(family, _KIND)
            except OSError as this:
                # IPv6 may be switched off in the kernel, while the name has an address of it: the error of one that could be
                # tried says more.
                error = error or this
                continue
            connection = Connection(sock, self._context)
            try:
                if self._prepare is not None:
                    self._prepare(sock)
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
        raise error or OSError(errno.EADDRNOTAVAIL, "no address")


class Connections:
    """The connections of a virtual user: one for each origin, opened when it is first needed and kept alive."""

    __slots__ = ("_dialer", "_kept", "connected_ns")

    def __init__(self, dialer: Dialer) -> None:
        self._kept: dict[Origin, Connection] = {}
        self.connected_ns = 0
        """The instant when the newest connection was open."""
        self._dialer = dialer

    def exchange(
        self,
        origin: Origin,
        request: bytes,
        method_is_head: bool = False,
        want_body: bool = True,
        file: FileAnswer | None = None,
        intended_ns: int = 0,
        want_plain: bool = True,
        response_ns: int = 0,
    ) -> Exchange | Failure:
        """Make one exchange with the origin, over its kept connection or a new one.

        `file` files the answer, even one that breaks off after its head, under the planned start of the request
        (`intended_ns`; 0: its actual start). Without `want_plain`, FILED is returned for a whole answer whose content nobody
        needs (`ResponseHead.plain`), which is quicker than an Exchange. `response_ns` replaces the time limit from the
        request written to the head of the answer, unless it is 0.
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
            self.connected_ns = connected_ns = now_ns()
        assert connection is not None  # noqa: S101 - for the type checker: reused or just opened
        if response_ns:
            return connection.exchange_within(
                response_ns,
                request,
                started_ns,
                connected_ns,
                reused,
                method_is_head,
                want_body,
                file,
                intended_ns,
                want_plain,
            )
        return connection.exchange(
            request, started_ns, connected_ns, reused, method_is_head, want_body, file, intended_ns, want_plain
        )

    def encryption(self, origin: Origin) -> str:
        """How the kept connection to the origin is encrypted, as `TlsSocket.encryption` says; "" if it is not."""
        connection = self._kept.get(origin)
        return "" if connection is None else connection.encryption()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()
