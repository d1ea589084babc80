"""Sends the metrics of each period to where a script's `publish-metrics` wants them, under the names that Artillery sends.

- A Prometheus push gateway gets `<prefix>_counters`, `_rates` and `_summaries`, in which the label `metric` is the name of
  the metric. Counters are counted from the start of the run, the others are those of the latest period.
- An OpenTelemetry collector gets OTLP over HTTP, as JSON: counters of the period as sums (delta), the others as gauges.

A receiver that is down, slow or answers with an error never disturbs the run: it is told once, and the run goes on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import uuid4

import gevent
import orjson
from gevent.queue import Queue

from loadgen.clock import WallOffset
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import Failure, TimeLimits
from loadgen.http.message import Address, BadRequestError, address_of
from loadgen.http.tls import TlsRoute, TlsSettings
from loadgen.language.values import number_text
from loadgen.script.model import OpenTelemetry, PushGateway
from loadgen.watch.observer import Observer, ObserverError, Underway
from reports.model import SUMMARY_KEYS, Period
from reports.names import beyond_artillery

Say = Callable[[str], None]

_PUSH_S = 5.0
"""Longest time of one push, in seconds."""
_END_S = 6.0
"""Longest wait for the last pushes at the end of a run, in seconds."""
_COLLECTOR = "http://localhost:4318"
_BASE_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_WHOLE_VARIABLE = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_SPACES = re.compile(r"\s|\.")
_KINDS = (
    ("counters", "counter", "Counters, from the start of the run."),
    ("rates", "gauge", "Rates of the latest period."),
    ("summaries", "gauge", "Summaries of the latest period, in ms."),
)


class _Format(Protocol):
    """What one kind of receiver is sent."""

    address: Address
    headers: dict[str, str]

    def body(self, period: Period) -> bytes:
        """The body of the request that publishes a period."""


class Gateway:
    """The text that a push gateway is sent."""

    def __init__(self, settings: PushGateway) -> None:
        job = os.environ.get("WORKER_ID") or f"{uuid4()}"
        self.address = _address("pushgateway", f"{settings.url.rstrip('/')}/metrics/job/{job}")
        self.headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        self._prefix = settings.prefix
        self._labels = "".join(f',{name}="{_escaped(value)}"' for name, value in settings.tags.items())
        self._values: dict[str, dict[str, float]] = {kind: {} for kind, _, _ in _KINDS}

    def body(self, period: Period) -> bytes:
        """The metrics after this period, in Prometheus' text format."""
        counters = self._values["counters"]
        for name, value in _counters(period):
            counters[_key(name)] = counters.get(_key(name), 0) + value
        self._values["rates"] |= {_key(name): value for name, value in _rates(period)}
        self._values["summaries"] |= {f"{_key(name)}_{part}": value for name, part, value in _summaries(period)}
        return "\n".join(self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        for kind, type_name, help_text in _KINDS:
            name = f"{self._prefix}_{kind}"
            yield f"# HELP {name} {help_text}"
            yield f"# TYPE {name} {type_name}"
            for metric, value in self._values[kind].items():
                yield f'{name}{{metric="{_escaped(metric)}"{self._labels}}} {number_text(value)}'
            yield ""


class Collector:
    """The OTLP document that a collector is sent. Raises ObserverError where the environment names it by what is no URL."""

    def __init__(self, settings: OpenTelemetry) -> None:
        base = (os.environ.get(_BASE_VARIABLE) or _COLLECTOR).rstrip("/")
        if settings.endpoint:
            self.address = _address("endpoint", settings.endpoint)
        elif whole := os.environ.get(_WHOLE_VARIABLE):
            self.address = _address(_WHOLE_VARIABLE, whole)
        else:
            self.address = _address(_BASE_VARIABLE, f"{base}/v1/metrics")
        self.headers = {"content-type": "application/json", **settings.headers}
        self._settings = settings
        self._gauges: dict[str, float] = {}
        self._since_ns = time.time_ns()

    def body(self, period: Period) -> bytes:
        """The metrics of this period; a gauge that it does not have keeps its value."""
        wanted, now_ns = self._wanted, time.time_ns()
        about = {**self._settings.attributes, "startTime": period.first_metric_ms, "endTime": period.last_metric_ms}
        point = {
            "attributes": _attributes(about),
            "startTimeUnixNano": str(self._since_ns),
            "timeUnixNano": str(now_ns),
        }
        self._since_ns = now_ns
        self._gauges |= {name: value for name, value in _rates(period) if wanted(name)}
        self._gauges |= {f"{name}.{part}": value for name, part, value in _summaries(period) if wanted(name)}
        metrics: list[dict[str, Any]] = [
            {"name": name, "description": "", "unit": "", "sum": {
                "aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [{**point, "asDouble": value}],
            }} for name, value in _counters(period) if wanted(name)
        ]  # fmt: skip
        metrics += [
            {"name": name, "description": "", "unit": "", "gauge": {"dataPoints": [{**point, "asDouble": value}]}}
            for name, value in self._gauges.items()
        ]
        resource = {"service.name": self._settings.service, **self._settings.resource}
        scope = {"scope": {"name": self._settings.meter, "version": ""}, "metrics": metrics}
        whole = {"resource": {"attributes": _attributes(resource)}, "scopeMetrics": [scope]}
        return orjson.dumps({"resourceMetrics": [whole]})

    def _wanted(self, name: str) -> bool:
        only = self._settings.include_only
        return name not in self._settings.exclude and (not only or name in only)


class _Publisher:
    """Sends periods to one receiver, in order, from a greenlet of its own."""

    def __init__(self, to: _Format, ca: bytes | None, say: Say) -> None:
        self._to = to
        self._address = to.address
        self._say = say
        self._told = False
        limit_ns = int(_PUSH_S * 1e9)
        self._dialer = Dialer(TimeLimits(limit_ns, limit_ns), WallOffset(), TlsRoute(TlsSettings(ca=ca)))
        self._connections = Connections(self._dialer)
        self._waiting = Queue()
        self._sender = gevent.spawn(self._send_all)

    def take(self, period: Period) -> None:
        """Send this period, after those before it."""
        self._waiting.put(period)

    def close(self) -> None:
        """Wait for what has not been sent, a few seconds at most."""
        self._waiting.put(None)
        self._sender.join(_END_S)
        if not self._sender.ready():
            self._tell("it is too slow: the last metrics are lost")
        self._sender.kill()
        self._connections.close()
        self._dialer.close()

    def _send_all(self) -> None:
        while (period := self._waiting.get()) is not None:
            try:
                with gevent.Timeout(_PUSH_S):
                    self._send(self._to.body(period))
            except gevent.Timeout:
                self._connections.close()
                self._tell("ETIMEDOUT")
            # Whatever is wrong with a receiver, the run is not to suffer from it.
            except Exception as error:  # noqa: BLE001
                self._tell(f"{type(error).__name__}: {error}")

    def _send(self, body: bytes) -> None:
        fields = {"host": self._address.host, "connection": "keep-alive", **self._to.headers}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([f"POST {self._address.target} HTTP/1.1", *lines, f"content-length: {len(body)}", "", ""])
        answer = self._connections.exchange(self._address.origin, head.encode("latin-1", "replace") + body)
        if isinstance(answer, Failure):
            self._tell(answer.name)
        elif not 200 <= answer.status < 300:
            self._tell(f"HTTP {answer.status}")

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            origin = self._address.origin
            where = f"{origin.scheme}://{origin.place}"
            self._say(f"Warning: publish-metrics: {where} did not take the metrics ({what}); the run goes on")


def observer(gateways: tuple[PushGateway, ...], collectors: tuple[OpenTelemetry, ...], say: Say) -> Observer:
    """An observer that publishes each period of a run. `say` takes the one line about a receiver that fails.

    Raises ObserverError for a receiver whose address is no URL.
    """
    # An observer watches one run, so the formats may count from here.
    formats: list[tuple[_Format, bytes | None]] = [(Gateway(each), each.ca) for each in gateways]
    formats += [(Collector(each), None) for each in collectors]

    @contextmanager
    def observe(underway: Underway) -> Iterator[None]:
        publishers = [_Publisher(form, ca, say) for form, ca in formats]

        def publish(period: Period) -> None:
            if period.counters or period.rates or period.summaries:
                for publisher in publishers:
                    publisher.take(period)

        underway.period_listeners.append(publish)
        try:
            yield
        finally:
            for publisher in publishers:
                publisher.close()

    return observe


def _address(name: str, url: str) -> Address:
    """The address that a URL names; `name` is the setting or variable that gave it. Raises ObserverError."""
    try:
        return address_of(url)
    except BadRequestError:
        raise ObserverError(
            f"publish-metrics: {name}: {url!r} is no URL that metrics can be sent to: it must begin with http:// or https://"
        ) from None


def _counters(period: Period) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in period.counters.items() if not beyond_artillery(name))


def _rates(period: Period) -> Iterator[tuple[str, float]]:
    return ((name, rate.per_second) for name, rate in period.rates.items() if not beyond_artillery(name))


def _summaries(period: Period) -> Iterator[tuple[str, str, float]]:
    """Name of a metric, name of a figure, and its value."""
    for name, summary in period.summaries.items():
        if not beyond_artillery(name):
            for part in SUMMARY_KEYS:
                if (value := getattr(summary, part)) is not None:
                    yield name, part, value


def _key(name: str) -> str:
    """A metric's name as the value of the label."""
    return _SPACES.sub("_", name).lower()


def _escaped(value: str) -> str:
    """The value of a label in Prometheus' text format."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _any_value(value)} for name, value in values.items() if value is not None]


def _any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": value}
        case float():
            return {"doubleValue": value}
    return {"stringValue": str(value)}
