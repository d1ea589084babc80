"""Counters, histograms and gauges of the service for Prometheus, all of its processes together."""

import os
from bisect import bisect_left
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from db.database import Database
from poolbench import LoanCost

_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in _BOUNDS_S)


class _PrometheusHistogram(Histogram):
    """Also takes samples counted elsewhere."""

    def add(self, counts: list[int], total_s: float) -> None:
        """Add samples by bucket, and their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total_s)


class _Tally:
    """A histogram in two plain numbers and a list: a tenth of what the library's `observe` costs across processes."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def move_to(self, histogram: Any) -> None:
        histogram.add(self.counts, self.total_ns / 1e9)
        self.__init__()  # type: ignore[misc]


class Metrics:
    """Request counters, loan histograms and pool gauges for Prometheus.

    Where PROMETHEUS_MULTIPROC_DIR is set (the server does so before this module is imported), the library keeps each
    process's figures in files there, and `text` adds them up. That costs microseconds a figure, so a request is counted
    in plain numbers, and `publish`, called once a second, hands them over.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # as the library asks
        self._requests = Counter(
            "poolbench_requests", "Answers by endpoint and status.", ["endpoint", "status"], registry=self._registry
        )
        self._seconds = self._histogram("poolbench_request_seconds", "Time in the application.", ["endpoint"])
        self._loans = {
            "wait": self._histogram("poolbench_pool_wait_seconds", "Waiting for a connection, one loan."),
            "connect": self._histogram("poolbench_pool_connect_seconds", "Opening a connection, one loan."),
            "hold": self._histogram("poolbench_pool_hold_seconds", "Holding a connection, one loan."),
        }
        self._pool = Gauge(
            "poolbench_pool_connections",
            "Connections and those who ask for them, by state.",
            ["state"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._timeouts = Counter("poolbench_pool_timeouts", "Loans that came too late.", registry=self._registry)
        self._timeouts_told = 0
        self._answered: dict[tuple[str, int], int] = {}
        self._took: dict[str, _Tally] = {}
        self._lent = {name: _Tally() for name in self._loans}

    def observe_request(self, endpoint: str, status: int, duration_ns: int) -> None:
        """Count one answer."""
        self._answered[endpoint, status] = self._answered.get((endpoint, status), 0) + 1
        took = self._took.get(endpoint)
        if took is None:
            took = self._took[endpoint] = _Tally()
        took.add(duration_ns)

    def observe_loan(self, cost: LoanCost) -> None:
        """Count what one loan cost."""
        lent = self._lent
        lent["wait"].add(cost.wait_ns)
        lent["connect"].add(cost.connect_ns)
        lent["hold"].add(cost.held_ns)

    def publish(self, database: Database) -> None:
        """Hand over what was counted since the last time, and the pool's state; each worker does so for its own."""
        answered, self._answered = self._answered, {}
        for (endpoint, status), count in answered.items():
            self._requests.labels(endpoint, str(status)).inc(count)
        for endpoint, took in self._took.items():
            took.move_to(self._seconds.labels(endpoint))
        for name, lent in self._lent.items():
            lent.move_to(self._loans[name])
        found = database.status()
        for state in ("in_use", "idle", "waiting", "connecting", "overflow"):
            self._pool.labels(state).set(getattr(found, state))
        self._timeouts.inc(found.timeouts - self._timeouts_told)
        self._timeouts_told = found.timeouts

    def text(self) -> bytes:
        """The exposition, of all processes where they share a folder."""
        if not self._shared:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)
        return generate_latest(everybody)

    def _histogram(self, name: str, what: str, labels: list[str] | None = None) -> _PrometheusHistogram:
        return _PrometheusHistogram(name, what, labels or [], buckets=_BOUNDS_S, registry=self._registry)
