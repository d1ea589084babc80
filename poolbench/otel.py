"""OpenTelemetry's metrics of connection pools, `db.client.connection.*`, by its semantic conventions.

`observe(engine)` switches them on for an engine, as the plugin's URL does with `otel=on`. Needs the package
`opentelemetry-api`, which nothing else here imports; figures go to the meter provider that the application has set.

Gauges and counters are read from the pool's own when the provider collects. `wait_time`, `use_time` and `create_time` are
recorded one duration at a time, by a subclass that the engine's pool gets here; other pools pay nothing. A wait that ended
without a connection is not in `wait_time`; `timeouts` counts those that lasted for the pool's timeout.
"""

from __future__ import annotations

import time
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import Meter, MeterProvider, Observation, get_meter_provider
from sqlalchemy import Engine

from poolbench.fair_pool import FairPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolbench.telemetry import PoolSnapshot

POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"

BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds of the histograms' buckets, in s: those that the semantic conventions advise for durations of database clients.
OpenTelemetry's own begin at 5, since they were made for milliseconds. A view of the application wins over these.
"""
# The package has it since version 1.30.
_TAKES_BOUNDS = "explicit_bucket_boundaries_advisory" in signature(Meter.create_histogram).parameters

Figure = tuple[int, dict[str, str]]


def observe(engine: Engine, meter_provider: MeterProvider | None = None, pool_name: str | None = None) -> None:
    """Report the metrics of the engine's FairPool, also of the pools that `engine.dispose()` puts in its place.

    meter_provider: None means the global one. pool_name: the value of `db.client.connection.pool.name`; None means
    `host:port/database` from the engine's URL. Raises TypeError if the engine has another pool. Keeps no engine alive.
    """
    if not isinstance(engine.pool, FairPool):
        raise TypeError(f"metrics are those of a FairPool, and this engine has a {type(engine.pool).__name__}")
    provider = meter_provider or get_meter_provider()
    metrics = _metrics.get(provider)
    if metrics is None:
        metrics = _metrics[provider] = _Metrics(provider.get_meter("poolbench"))
    metrics.add(engine, pool_name or _name_of(engine))


class _Metrics:
    """The instruments of one meter provider, which report all engines that were added."""

    def __init__(self, meter: Meter) -> None:
        self._engines: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()
        name = "db.client.connection."
        histogram: Any = meter.create_histogram
        if _TAKES_BOUNDS:
            histogram = partial(histogram, explicit_bucket_boundaries_advisory=BOUNDS_S)
        self._create_time = histogram(f"{name}create_time", "s", "The time it took to create a new connection.")
        self._wait_time = histogram(
            f"{name}wait_time", "s", "The time it took to obtain an open connection from the pool."
        )
        self._use_time = histogram(
            f"{name}use_time", "s", "The time between borrowing a connection and returning it to the pool."
        )
        gauge, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        gauge(f"{name}count", [self._reading(_count)], "{connection}", "Connections, by state.")
        gauge(f"{name}max", [self._reading(_max)], "{connection}", "The most connections that may be open.")
        gauge(f"{name}idle.max", [self._reading(_idle_max)], "{connection}", "The most connections kept idle.")
        gauge(f"{name}idle.min", [self._reading(_idle_min)], "{connection}", "The fewest connections kept open.")
        gauge(f"{name}pending_requests", [self._reading(_pending)], "{request}", "Requests that wait for a connection.")
        counter(f"{name}timeouts", [self._reading(_timeouts)], "{timeout}", "Waits for a connection that timed out.")

    def add(self, engine: Engine, pool_name: str) -> None:
        """Report this engine, too."""
        is_new = engine not in self._engines
        self._engines[engine] = pool_name
        if is_new:
            pool: Any = engine.pool
            attributes = {POOL_NAME: pool_name}
            pool._connect_timers.append(lambda ns: self._create_time.record(ns / 1e9, attributes))  # noqa: SLF001
            pool.__class__ = _metered(
                type(pool),
                lambda ns: self._wait_time.record(ns / 1e9, attributes),
                lambda ns: self._use_time.record(ns / 1e9, attributes),
            )

    def _reading(self, figures: Callable[[PoolSnapshot], list[Figure]]) -> Callable[[Any], Any]:
        def read(_options: Any) -> Iterator[Observation]:
            for engine, pool_name in list(self._engines.items()):
                pool = engine.pool
                if isinstance(pool, FairPool):
                    for value, attributes in figures(pool.snapshot()):
                        yield Observation(value, {POOL_NAME: pool_name, **attributes})

        return read


def _metered(kind: Any, waited: Callable[[int], None], used: Callable[[int], None]) -> Any:
    """The kind of pool, and its successors after dispose(), reporting how long each loan was waited for and lasted, in ns."""

    class Metered(kind):  # type: ignore[misc]
        def connect(self) -> Any:
            loan = super().connect()
            record = loan._connection_record  # noqa: SLF001
            waited(record.wait_ns + record.connect_ns)
            return loan

        def _do_return_conn(self, record: Any) -> None:
            if record.lent:
                used(time.monotonic_ns() - record.since_ns)
            super()._do_return_conn(record)

    Metered.__name__ = Metered.__qualname__ = kind.__name__
    return Metered


def _count(pool: PoolSnapshot) -> list[Figure]:
    return [(pool.in_use, {STATE: "used"}), (pool.idle, {STATE: "idle"})]


def _max(pool: PoolSnapshot) -> list[Figure]:
    return [] if pool.limit is None else [(pool.limit, {})]


def _idle_max(pool: PoolSnapshot) -> list[Figure]:
    return [(pool.size, {})] if pool.size else []


def _idle_min(pool: PoolSnapshot) -> list[Figure]:
    return [(pool.min_size, {})]


def _pending(pool: PoolSnapshot) -> list[Figure]:
    return [(pool.waiting, {})]


def _timeouts(pool: PoolSnapshot) -> list[Figure]:
    return [(pool.timeouts, {})]


def _name_of(engine: Engine) -> str:
    url = engine.url
    port = f":{url.port}" if url.port else ""
    return f"{url.host or ''}{port}/{url.database or ''}"


_metrics: WeakKeyDictionary[MeterProvider, _Metrics] = WeakKeyDictionary()
