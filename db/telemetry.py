"""The service's metrics for Prometheus, of all its processes together. The only module that uses prometheus_client."""

import os
from bisect import bisect_left
from collections import Counter as Tallied
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from db.database import Database
from poolbench import LoanCost

_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in _BOUNDS_S)

_POOL_STATES = ("in_use", "idle", "waiting", "connecting", "overflow")
# Adding up the files of all processes takes some ms, and each process publishes once a second.
_SUMS_KEPT_S = 0.5


@dataclass(frozen=True)
class AllPools:
    """The pools of all processes of the service, added up. Each process publishes its state once a second."""

    workers: int
    """Processes that serve."""
    size: int
    """Connections that are kept open, of all pools; 0 if the strategy keeps none, or without a limit."""
    in_use: int
    idle: int
    waiting: int
    connecting: int
    overflow: int
    timeouts: int
    """Requests that waited for a connection in vain, since the start."""
    wait_ms: dict[str, float | None]
    """p50, p90 and p99 of the waits for a connection since the start, in ms, estimated from `waits`; None without any."""
    waits: dict[str, int]
    """Waits since the start that took at most as many ms as the key says; the last key is `+Inf`."""


class Metrics:
    """Counters of requests, histograms of durations, and gauges of the pool, of this process.

    Where PROMETHEUS_MULTIPROC_DIR is set (the server sets it before this module is imported), prometheus_client keeps each
    process's values in files there, and `text` adds them up. Changing such a value takes microseconds. So requests and loans
    are counted in plain numbers first, and `publish`, called once a second, adds those to the shared values.
    """

    content_type = CONTENT_TYPE_LATEST
    """Content type of `text`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._requests = Counter(
            "poolbench_requests", "Answers by endpoint and status.", ["endpoint", "status"], registry=self._registry
        )
        self._request_seconds = self._histogram(
            "poolbench_request_seconds", "Time of a request in the application.", ["endpoint"]
        )
        self._loan_seconds = {
            "wait": self._histogram(
                "poolbench_pool_wait_seconds", "Time that a request waited for a connection, also in vain."
            ),
            "connect": self._histogram("poolbench_pool_connect_seconds", "Time that a loan spent on connecting."),
            "hold": self._histogram("poolbench_pool_hold_seconds", "Time that a loan held its connection."),
        }
        self._pool = Gauge(
            "poolbench_pool_connections",
            "Connections and requests that wait for one, by state.",
            ["state"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._pool_size, self._workers = (
            Gauge(name, text, multiprocess_mode="livesum", registry=self._registry)
            for name, text in (
                ("poolbench_pool_size", "Connections that the pools keep open; 0: none, or without a limit."),
                ("poolbench_workers", "Processes that serve."),
            )
        )
        self._timeouts = Counter(
            "poolbench_pool_timeouts", "Requests that waited for a connection in vain.", registry=self._registry
        )
        self._published_timeouts = 0
        self._new_requests: dict[tuple[str, int], int] = {}
        self._new_durations: dict[str, _Tally] = {}
        self._new_loans = {name: _Tally() for name in self._loan_seconds}
        self._sums: AllPools | None = None
        self._summed_s = 0.0

    def observe_request(self, endpoint: str, status: int, duration_ns: int) -> None:
        """Count one answer."""
        self._new_requests[endpoint, status] = self._new_requests.get((endpoint, status), 0) + 1
        durations = self._new_durations.get(endpoint)
        if durations is None:
            durations = self._new_durations[endpoint] = _Tally()
        durations.add(duration_ns)

    def observe_loan(self, cost: LoanCost) -> None:
        """Count what a request spent on connections; one that waited in vain has a wait, and no hold."""
        loans = self._new_loans
        loans["wait"].add(cost.wait_ns)
        loans["connect"].add(cost.connect_ns)
        if cost.held_ns:
            loans["hold"].add(cost.held_ns)

    def publish(self, database: Database) -> None:
        """Add what was counted since the last call to the shared values, and set the gauges to the pool's state."""
        requests, self._new_requests = self._new_requests, {}
        for (endpoint, status), count in requests.items():
            self._requests.labels(endpoint, str(status)).inc(count)
        for endpoint, durations in self._new_durations.items():
            durations.move_to(self._request_seconds.labels(endpoint))
        for name, loans in self._new_loans.items():
            loans.move_to(self._loan_seconds[name])
        pool = database.status()
        for state in _POOL_STATES:
            self._pool.labels(state).set(getattr(pool, state))
        self._pool_size.set(pool.size)
        self._workers.set(1)
        self._timeouts.inc(pool.timeouts - self._published_timeouts)
        self._published_timeouts = pool.timeouts

    def text(self) -> bytes:
        """All metrics in Prometheus's text format, added up over the processes that share a folder."""
        return generate_latest(self._all_processes())

    def all_pools(self, database: Database) -> AllPools:
        """The pools of all processes that share a folder, added up at most half a second ago."""
        now_s = monotonic()
        if self._sums is None or now_s - self._summed_s > _SUMS_KEPT_S:
            self.publish(database)
            self._sums, self._summed_s = self._add_up(), now_s
        return self._sums

    def _add_up(self) -> AllPools:
        found: Tallied[str] = Tallied()
        waits: dict[str, int] = {}
        for metric in self._all_processes().collect():
            for sample in metric.samples:
                if sample.name == "poolbench_pool_wait_seconds_bucket":
                    bound_ms = float(sample.labels["le"]) * 1000
                    waits["+Inf" if bound_ms == float("inf") else f"{bound_ms:g}"] = int(sample.value)
                elif sample.name == "poolbench_pool_connections":
                    found[sample.labels["state"]] = int(sample.value)
                elif not sample.labels:
                    found[sample.name] = int(sample.value)
        return AllPools(
            workers=found["poolbench_workers"],
            size=found["poolbench_pool_size"],
            **{state: found[state] for state in _POOL_STATES},
            timeouts=found["poolbench_pool_timeouts_total"],
            wait_ms={f"p{q:g}": _quantile_ms(waits, q / 100) for q in (50, 90, 99)},
            waits=waits,
        )

    def _all_processes(self) -> CollectorRegistry:
        if not self._shared:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return registry

    def _histogram(self, name: str, text: str, labels: list[str] | None = None) -> "_BulkHistogram":
        return _BulkHistogram(name, text, labels or [], buckets=_BOUNDS_S, registry=self._registry)


def forget_process(pid: int) -> None:
    """Remove the gauges of a process that has ended from the sums."""
    mark_process_dead(pid)


def _quantile_ms(waits: dict[str, int], q: float) -> float | None:
    """A quantile from cumulative counts by upper bound in ms: on a straight line within its bucket, as Prometheus does it.

    A quantile beyond the last bound is that bound.
    """
    bounds = [float(bound) for bound in waits if bound != "+Inf"]
    counts = list(waits.values())
    if not counts or not counts[-1]:
        return None
    rank = q * counts[-1]
    for (low, high), (before, upto) in zip(pairwise([0.0, *bounds]), pairwise([0, *counts]), strict=False):
        if upto >= rank:
            return round(low + (high - low) * (rank - before) / (upto - before or 1), 3)
    return bounds[-1]


class _BulkHistogram(Histogram):
    """prometheus_client's histogram, which also takes many samples at once."""

    def add(self, counts: list[int], total_s: float) -> None:
        """Add samples, given as a number for each bucket and the sum of all, in seconds."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total_s)


class _Tally:
    """A histogram in plain numbers, a tenth as costly as prometheus_client's `observe` across processes."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self._clear()

    def add(self, duration_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def move_to(self, histogram: Any) -> None:
        """Add everything to a histogram, and start again from zero."""
        histogram.add(self.counts, self.total_ns / 1e9)
        self._clear()

    def _clear(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0
