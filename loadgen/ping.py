"""One request and its times, for `loadgen ping`: what was sent and answered, and how long each part of it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from loadgen.clock import WallOffset
from loadgen.http.connection import Connection
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import Exchange, Failure, TimeLimits
from loadgen.http.proxy import ProxyRoute
from loadgen.http.route import Origin, Route
from loadgen.http.tls import TlsRoute
from loadgen.language.template import functions
from loadgen.recorder import Recorder
from loadgen.script.model import Expectation, ExpectPlugin, RequestStep, Script
from loadgen.vu.answer import Answer
from loadgen.vu.expect import ExpectationResult, compile_expectations
from loadgen.vu.request import compile_request
from loadgen.vu.vu import Setting, Vu, VuFailedError


class PingFailed(Exception):
    """No answer came. `name` is the error's name, such as ECONNREFUSED."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Times:
    """How long each part of an exchange took, in ms. Looking up, connecting and TLS are None on a connection that was open."""

    dns: float | None
    tcp: float | None
    tls: float | None
    """None also where the connection is not encrypted."""
    first_byte: float
    """From the request written to the first byte of the answer; the kernel dates that byte where it can."""
    download: float
    """From the first byte to the last."""
    total: float
    """From the beginning of the exchange to the last byte."""

    @classmethod
    def of(cls, exchange: Exchange, *, encrypted: bool) -> Times:
        """The times of a finished exchange."""
        dns, tcp, tls = (None, None, None) if exchange.reused else (ns / 1e6 for ns in exchange.setup_ns)
        return cls(
            dns,
            tcp,
            tls if encrypted else None,
            (exchange.first_byte_ns - exchange.written_ns) / 1e6,
            (exchange.last_byte_ns - exchange.first_byte_ns) / 1e6,
            (exchange.last_byte_ns - exchange.started_ns) / 1e6,
        )


@dataclass(frozen=True, slots=True)
class Ping:
    """The last exchange of a ping: those before it were redirects."""

    origin: Origin
    address: str
    """The address that was connected to."""
    sent: bytes
    """The request, as it was sent."""
    exchange: Exchange
    answer: Answer
    times: Times
    checks: Sequence[ExpectationResult] = field(default_factory=tuple)
    """The results of the expectations, in their order."""

    @property
    def failed(self) -> bool:
        """Whether an expectation does not hold."""
        return not all(check.ok for check in self.checks)


class _Noting(Dialer):
    """Notes the address of the last connection that it opened."""

    address = ""

    def open(self, origin: Origin) -> Connection:
        connection = super().open(origin)
        self.address = str(connection.address[0])
        return connection


def send_ping(script: Script, expectations: Sequence[Expectation], agent: str) -> Ping:
    """Send the only request of the script's only scenario, follow its redirects, and judge the last answer.

    Raises PingFailed where no answer comes.
    """
    (step,) = script.scenarios[0].flow
    if not isinstance(step, RequestStep):
        raise PingFailed("there is no request to send")
    route: Route = TlsRoute(script.http.tls)
    if script.proxies:
        route = ProxyRoute(script.proxies, route)
    wall = WallOffset()
    dialer = _Noting(TimeLimits(int(script.http.timeout_s * 1e9), int(script.http.socket_limit_s * 1e9)), wall, route)
    connections = Connections(dialer)
    last: list[tuple[Origin, bytes, Exchange]] = []

    def exchange(origin: Origin, request: bytes, is_head: bool = False, *_: Any, **__: Any) -> Exchange | Failure:
        answered = connections.exchange(origin, request, is_head)
        if isinstance(answered, Exchange):
            last[:] = [(origin, request, answered)]
        return answered

    setting = _setting(script, Recorder(wall), agent)
    try:
        compile_request(step, setting)(Vu(dict(script.built_ins), exchange, 0, cookies_on=False))
    except VuFailedError as failed:
        raise PingFailed(failed.name) from None
    finally:
        connections.close()
        dialer.close()
    origin, sent, answered = last[-1]
    answer = Answer(answered.status, answered.head, answered.body, decode=True, too_large=answered.too_large)
    results = _judged(expectations, answer, setting.calls)
    times = Times.of(answered, encrypted=origin.scheme == "https")
    return Ping(origin, dialer.address, sent, answered, answer, times, results)


def _setting(script: Script, recorder: Recorder, agent: str) -> Setting:
    rng = Random()

    def nothing(*_: Any) -> None:
        pass

    return Setting(script, recorder, rng, functions(rng), agent, nothing, nothing, nothing)


def _judged(
    expectations: Sequence[Expectation], answer: Answer, calls: Mapping[str, Any]
) -> tuple[ExpectationResult, ...]:
    check = compile_expectations(expectations, ExpectPlugin(), calls)
    return () if check is None else tuple(check(answer, {})[0])
