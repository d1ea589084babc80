"""The connections of virtual users as the script wants them: own or shared, with TLS, through proxies, printed or not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from loadgen.clock import WallOffset, now_ns
from loadgen.http.connection import NEVER_NS
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import FILED, Exchange, Failure, FileAnswer, TimeLimits
from loadgen.http.message import BadRequestError, address_of
from loadgen.http.ports import LocalPorts, ports_of
from loadgen.http.proxy import ProxyRoute
from loadgen.http.route import Origin, Route
from loadgen.http.shared_connections import SharedConnections
from loadgen.http.tls import TlsRoute
from loadgen.schedule import Share
from loadgen.script.model import Script

_SHOWN_BODY_BYTES = 2048


class Transport(Protocol):
    """The connections of a virtual user."""

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
        """Make one exchange with the origin; see `Connections.exchange`."""

    def close(self) -> None:
        """Close all connections that belong to this user alone."""


class Transports:
    """Makes the connections of each virtual user of a run. `tell` takes the lines that `DEBUG=http` asks for."""

    def __init__(self, script: Script, wall: WallOffset, tell: Callable[[str], None]) -> None:
        http = script.http
        self._drain_s = http.drain_s
        self._target = script.target
        limits = TimeLimits(
            int(http.timeout_s * 1e9), int(http.socket_limit_s * 1e9), int(http.drain_s * 1e9), http.max_body_bytes
        )
        route: Route = TlsRoute(http.tls)
        if script.proxies:
            route = ProxyRoute(script.proxies, route)
        dialer = Dialer(limits, wall, route)
        self._tell = tell if script.debug else None
        self._own = partial(Connections, dialer)
        self._dialer = dialer
        self._pool = http.pool
        self._shared = None if http.pool is None else SharedConnections(http.pool, self._own)

    def __call__(self) -> Transport:
        """The connections of a new virtual user."""
        transport: Transport = self._own() if self._shared is None else self._shared
        return transport if self._tell is None else _Shown(transport, self._tell)

    def plan_begins(self) -> None:
        """Make ready for the first users; let answers go on for as long as users are still to come."""
        with suppress(BadRequestError):
            self._dialer.expect(address_of(self._target).origin)
        self._dialer.set_plan_end(NEVER_NS)

    def plan_ended(self) -> None:
        """Note that the plan's last user has arrived: from now on answers have only a limited time."""
        self._dialer.set_plan_end(now_ns())

    def cut_off(self) -> tuple[str, ...]:
        """A sentence on answers that were given up because they went on for too long after the plan's end; usually empty."""
        cut = self._dialer.cut_off
        if not cut:
            return ()
        from reports.blocks import decimal  # noqa: PLC0415 - few runs have such answers

        answers = f"{cut} answers" if cut > 1 else "an answer"
        return (f"{answers} still went on {decimal(self._drain_s)} s after the last arrival, given up (see --drain)",)

    def take_share(self, share: Share) -> None:
        """Become one of several generators: use only a part of the shared connections, at least one, and of the ports."""
        if self._pool is not None:
            self._shared = SharedConnections(max(1, share.part(self._pool)), self._own)
        self._dialer.ports = LocalPorts(ports_of(*share.beside))

    def about(self) -> dict[str, Any]:
        """For the report: the first and the last local port, if connections are kept to a part of the ports."""
        ports = self._dialer.ports.own
        return {} if ports is None else {"from_ports": [ports.first, ports.last]}

    def close(self) -> None:
        """Close the connections that users shared."""
        if self._shared is not None:
            self._shared.close_all()
        self._dialer.close()


class _Shown:
    """Prints every exchange, and makes it with another transport."""

    def __init__(self, transport: Transport, tell: Callable[[str], None]) -> None:
        self._transport = transport
        self._tell = tell
        self.close = transport.close

    def exchange(
        self,
        origin: Origin,
        request: bytes,
        method_is_head: bool = False,
        want_body: bool = True,  # noqa: ARG002
        file: FileAnswer | None = None,
        intended_ns: int = 0,
        want_plain: bool = True,
        response_ns: int = 0,
    ) -> Exchange | Failure:
        self._tell(f"http:request {origin.scheme}://{origin.place}\n{_indented(request)}")
        result = self._transport.exchange(
            origin, request, method_is_head=method_is_head, file=file, intended_ns=intended_ns, response_ns=response_ns
        )
        if isinstance(result, Failure):
            self._tell(f"http:response none: {result.name} ({result.stage})")
        else:
            self._tell(f"http:response\n{_indented(result.head + result.body[:_SHOWN_BODY_BYTES])}")
            if result.facts.plain and not want_plain:
                return FILED
        return result


def _indented(data: bytes) -> str:
    return "\n".join(f"  {line}" for line in data.decode("utf-8", "replace").splitlines()).rstrip()
