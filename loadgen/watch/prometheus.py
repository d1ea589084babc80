"""Serves the totals of a run in progress to Prometheus: `GET /metrics` in its text format, while the run goes on.

On a loopback address, only requests that name a loopback host are answered, as by the live page.

With several workers, the totals are sums of what has arrived from them, a second old at most. The metrics, all counted from
the start of the run:

- poolbench_requests_total, poolbench_downloaded_bytes_total
- poolbench_responses_total{code}, poolbench_errors_total{error}
- poolbench_vusers_total{state}: created, completed, failed, skipped
- poolbench_vusers_active: those active at the moment
- poolbench_response_time_seconds: histogram of `http.response_time`, request written to first byte; the counts come from
  a sketch, so that a sample may stand in the bucket beside its own if it is within 1 % of the bound
- poolbench_start_lag_seconds: histogram of the generator's own lateness
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gevent.socket
import numpy as np
from ddsketch.mapping import LogarithmicMapping
from gevent.pywsgi import WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from loadgen.engine import Progress
from loadgen.http.route import Origin
from loadgen.watch.live import host_allowed, parse_address
from loadgen.watch.observer import Observer, ObserverError, Underway
from reports import names
from reports.model import Period
from reports.sketch import Sketch

BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets, in seconds."""

_STATES = {
    "created": names.VUSERS_CREATED,
    "completed": names.VUSERS_COMPLETED,
    "failed": names.VUSERS_FAILED,
    "skipped": names.VUSERS_SKIPPED,
}
_HISTOGRAMS = (
    ("poolbench_response_time_seconds", "Request written to first byte of the answer.", names.RESPONSE_TIME),
    ("poolbench_start_lag_seconds", "Intended to actual start of a virtual user.", names.START_LAG),
)


class Totals(Collector):
    """The metrics of a run, computed again at each scrape."""

    def __init__(self, totals: Callable[[], Period], progress: Callable[[], Progress]) -> None:
        self._totals = totals
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment; prometheus_client calls this."""
        total = self._totals()
        counters = total.counters
        yield _counter("requests", "Requests begun.", counters.get(names.REQUESTS, 0))
        yield _counter("downloaded_bytes", "Bytes of bodies.", counters.get(names.DOWNLOADED_BYTES, 0))
        yield _labelled("responses", "Answers by status code.", "code", _under(names.CODES, total))
        yield _labelled("errors", "Failures by name.", "error", _under(names.ERRORS, total))
        states = [(state, counters.get(name, 0)) for state, name in _STATES.items()]
        yield _labelled("vusers", "Virtual users by what became of them.", "state", states)
        active = self._progress().active_vus
        yield GaugeMetricFamily("poolbench_vusers_active", "Virtual users at work.", value=active)
        for name, help_text, metric in _HISTOGRAMS:
            yield _histogram(name, help_text, total.sketches.get(metric))


def exposition(totals: Callable[[], Period], progress: Callable[[], Progress]) -> Callable[[], bytes]:
    """Make the function that returns the current metrics as text."""
    registry = CollectorRegistry()
    registry.register(Totals(totals, progress))
    return lambda: generate_latest(registry)


@contextmanager
def serving(
    address: tuple[str, int], totals: Callable[[], Period], progress: Callable[[], Progress]
) -> Iterator[tuple[str, int]]:
    """Serve the metrics at this address while inside; port 0 means any free port. Gives the address in use. Raises OSError."""
    render = exposition(totals, progress)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not host_allowed(address[0], environ):
            start_response("421 Misdirected Request", [("Content-Type", "text/plain")])
            return [b"These metrics are served by their own address only.\n"]
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"only /metrics is here\n"]
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [render()]

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with gevent.socket.socket(family) as listener:  # type: ignore[attr-defined] # its names are made at import
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        server = WSGIServer(listener, answer, log=None, error_log=None)
        server.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            server.stop(timeout=1)


def observer(address: str, say: Callable[[str], None]) -> Observer:
    """An observer that serves a run's metrics at `[HOST:]PORT`, and prints the address. Raises LiveError for an invalid one."""
    wanted = parse_address(address)

    @contextmanager
    def observe(underway: Underway) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                host, port = stack.enter_context(serving(wanted, underway.totals, underway.progress))
            except OSError as error:
                raise ObserverError(f"cannot serve metrics on {address}: {error.strerror or error}") from None
            say(f"Metrics: http://{Origin('http', host, port).place}/metrics")
            yield

    return observe


def _counter(name: str, help_text: str, value: int) -> Metric:
    return CounterMetricFamily(f"poolbench_{name}", help_text, value=value)


def _labelled(name: str, help_text: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"poolbench_{name}", help_text, labels=[label])
    for value, count in values:
        family.add_metric([value], count)
    return family


def _under(prefix: str, total: Period) -> Iterator[tuple[str, int]]:
    return ((name.removeprefix(prefix), n) for name, n in total.counters.items() if name.startswith(prefix))


def _histogram(name: str, help_text: str, sketch: Sketch | None) -> Metric:
    counts = [0] * len(BOUNDS_S) if sketch is None else [count_up_to(sketch, bound * 1000) for bound in BOUNDS_S]
    buckets = [(str(bound), float(n)) for bound, n in zip(BOUNDS_S, counts, strict=True)]
    everything = 0 if sketch is None else sketch.count
    total_s = 0.0 if sketch is None else sketch.sum / 1000
    return HistogramMetricFamily(name, help_text, buckets=[*buckets, ("+Inf", float(everything))], sum_value=total_s)


def count_up_to(sketch: Sketch, value: float) -> int:
    """The number of samples that were at most `value` (> 0), which is blurred by the sketch's relative accuracy."""
    below = sketch.negative.total + sketch.zero_count
    edge = LogarithmicMapping(sketch.relative_accuracy).key(value) - sketch.positive.offset
    return below + int(np.sum(sketch.positive.counts[: max(0, edge + 1)]))
