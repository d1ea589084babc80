"""Files what happened: exchanges into columns, columns into counters, rates and sketches of 10-second periods.

The hot path appends plain numbers to arrays and does no arithmetic; `flush` turns the columns into sketches with numpy, a
few thousand rows at a time. An event belongs to the period of its own instant: a request may be counted in one period and
its answer in the next. Greenlets do not preempt and nothing here waits, so there is no lock.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadgen.clock import WallOffset, now_ns
from reports import names
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, Summary
from reports.sketch import Sketch

if TYPE_CHECKING:
    from loadgen.exchange import Exchange

_PERIOD_NS = PERIOD_MS * 1_000_000
_FLUSH_ROWS = 4096
_LATE_NS = 10_000_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Bucket:
    """One period under construction. Instants are epoch nanoseconds."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.sketches: dict[str, list[Sketch]] = defaultdict(list)
        self.requests = (0, 0, 0)  # how many, first, last
        self.counted: tuple[int, int] | None = None
        self.sampled: tuple[int, int] | None = None

    def count(self, name: str, n: int, first_ns: int, last_ns: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + n
        self.counted = _span(self.counted, first_ns, last_ns)

    def sample(self, name: str, values_ms: Floats, first_ns: int, last_ns: int) -> None:
        self.sketches[name].append(Sketch.of(values_ms))
        self.sampled = _span(self.sampled, first_ns, last_ns)

    def request(self, count: int, first_ns: int, last_ns: int) -> None:
        so_far, first, last = self.requests
        self.requests = so_far + count, min(first or first_ns, first_ns), max(last, last_ns)
        self.count(names.REQUESTS, count, first_ns, last_ns)

    def period(self, start_ms: int) -> Period:
        sketches = {name: Sketch.merged(parts) for name, parts in self.sketches.items()}
        count, first, last = self.requests
        rates = {names.REQUEST_RATE: Rate.of(count, first // 1_000_000, last // 1_000_000)} if count else {}
        counted, sampled = self.counted or (None, None), self.sampled or (None, None)
        return Period(
            start_ms,
            self.counters,
            rates,
            {name: Summary.of(sketch) for name, sketch in sketches.items()},
            sketches,
            _ms(counted[0]),
            _ms(counted[1]),
            _ms(sampled[0]),
            _ms(sampled[1]),
        )


def _span(so_far: tuple[int, int] | None, first_ns: int, last_ns: int) -> tuple[int, int]:
    return (first_ns, last_ns) if so_far is None else (min(so_far[0], first_ns), max(so_far[1], last_ns))


def _ms(instant_ns: int | None) -> int | None:
    return None if instant_ns is None else instant_ns // 1_000_000


class Recorder:
    """Takes events with their monotonic instants; gives periods, running totals and the report."""

    def __init__(self, wall: WallOffset) -> None:
        self._wall = wall
        self._buckets: dict[int, _Bucket] = {}
        self._shown: set[int] = set()
        self._endpoints: list[tuple[str, str]] = []
        self._requested_ns = array("q")
        self._answers = array("q")  # rows of status, written, first byte, last byte, intended, body bytes
        self._finals = array("q")  # rows of endpoint, status, written, first byte
        self._samples: dict[str, tuple[array[int], array[float]]] = {}
        self.requests = self.responses = self.errors = self.stamped = 0
        """Running totals: requests and responses at the last flush, errors and kernel-stamped answers at once."""

    def endpoint(self, name: str, namespace: str = names.ENDPOINT) -> int:
        """A number for an endpoint's name, to be given to `endpoint_response`."""
        metric = f"{namespace}.response_time.{name}", f"{namespace}.{name}.codes."
        if metric not in self._endpoints:
            self._endpoints.append(metric)
        return self._endpoints.index(metric)

    def request(self, at_ns: int) -> None:
        """A request object was created (each redirect hop too)."""
        self._requested_ns.append(at_ns)

    def response(self, answer: Exchange, intended_ns: int = 0) -> None:
        """An answer's head arrived; `intended_ns` is when the plan wanted its request started (0: when it was)."""
        self._answers.extend((
            answer.status, answer.written_ns, answer.first_byte_ns, answer.last_byte_ns,
            intended_ns or answer.started_ns, answer.body_bytes,
        ))  # fmt: skip
        self.stamped += answer.stamped
        if b"erver-" in answer.head:
            self._server_timing(answer)
        if len(self._requested_ns) > _FLUSH_ROWS:
            self.flush()

    def endpoint_response(self, endpoint: int, answer: Exchange) -> None:
        """The final answer of a request to that endpoint."""
        self._finals.extend((endpoint, answer.status, answer.written_ns, answer.first_byte_ns))

    def count(self, name: str, n: int = 1) -> None:
        """Counter event, now."""
        at_ns = now_ns() + self._wall.wall_ns
        self._bucket(at_ns // _PERIOD_NS).count(name, n, at_ns, at_ns)
        if name.startswith(names.ERRORS):
            self.errors += n

    def sample(self, name: str, value_ms: float) -> None:
        """One value of a summary, now."""
        at, values = self._samples.get(name) or self._samples.setdefault(name, (array("q"), array("d")))
        at.append(now_ns())
        values.append(value_ms)

    def started(self, intended_ns: int) -> None:
        """A VU started, which the plan wanted at `intended_ns`."""
        lag_ns = now_ns() - intended_ns
        self.sample(names.START_LAG, lag_ns / 1e6)
        if lag_ns > _LATE_NS:
            self.count(names.LATE)

    def flush(self) -> None:
        """Turn all columns into counters and sketches."""
        self._flush_requests()
        self._flush_answers()
        self._flush_finals()
        for name, (at, values) in self._samples.items():
            if at:
                value = np.frombuffer(values, np.float64)
                for bucket, rows, when in self._by_bucket(np.frombuffer(at, np.int64)):
                    bucket.sample(name, value[rows], int(when.min()), int(when.max()))
                self._samples[name] = array("q"), array("d")

    def over(self, grace_ns: int) -> Iterator[Period]:
        """Periods that ended at least `grace_ns` ago and were not given by this method before."""
        self.flush()
        now = now_ns() + self._wall.wall_ns - grace_ns
        for start in sorted(self._buckets.keys() - self._shown):
            if (start + 1) * _PERIOD_NS <= now:
                self._shown.add(start)
                yield self._buckets[start].period(start * PERIOD_MS)

    def remaining(self) -> Iterator[Period]:
        """What `over` has not given yet."""
        return self.over(-2 * _PERIOD_NS)

    def report(self, extras: Extras | None = None) -> Report:
        """Everything so far."""
        self.flush()
        return Report.of((self._buckets[start].period(start * PERIOD_MS) for start in sorted(self._buckets)), extras)

    def _bucket(self, start: int) -> _Bucket:
        found = self._buckets.get(start)
        if found is None:
            found = self._buckets[start] = _Bucket()
        return found

    def _by_bucket(self, at_ns: Ints) -> Iterator[tuple[_Bucket, NDArray[np.bool_], Ints]]:
        """Rows of each period: (bucket, mask, epoch instants of these rows)."""
        wall_ns = at_ns + self._wall.wall_ns
        starts = wall_ns // _PERIOD_NS
        for start in np.unique(starts):
            rows = starts == start
            yield self._bucket(int(start)), rows, wall_ns[rows]

    def _flush_requests(self) -> None:
        if self._requested_ns:
            self.requests += len(self._requested_ns)
            for bucket, _, when in self._by_bucket(np.frombuffer(self._requested_ns, np.int64)):
                bucket.request(len(when), int(when.min()), int(when.max()))
            self._requested_ns = array("q")

    def _flush_answers(self) -> None:
        if not self._answers:
            return
        table = np.frombuffer(self._answers, np.int64).reshape(-1, 6)
        self._answers = array("q")
        self.responses += len(table)
        for bucket, rows, when in self._by_bucket(table[:, 2]):
            first_at, last_at = int(when.min()), int(when.max())
            status, written, first_byte, last_byte, intended, _ = table[rows].T
            for code, n in zip(*np.unique(status, return_counts=True), strict=True):
                bucket.count(f"{names.CODES}{code}", int(n), first_at, last_at)
            bucket.count(names.RESPONSES, len(when), first_at, last_at)
            waited_ms = (first_byte - written) / 1e6
            bucket.sample(names.RESPONSE_TIME, waited_ms, first_at, last_at)
            for klass in np.unique(status // 100):
                if klass > 1:
                    values = waited_ms[status // 100 == klass]
                    bucket.sample(names.status_class(int(klass) * 100), values, first_at, last_at)
            bucket.sample(names.INTENDED, (last_byte - intended) / 1e6, first_at, last_at)
        for bucket, rows, when in self._by_bucket(table[:, 3]):
            bucket.count(names.DOWNLOADED_BYTES, int(table[rows, 5].sum()), int(when.min()), int(when.max()))

    def _flush_finals(self) -> None:
        if not self._finals:
            return
        table = np.frombuffer(self._finals, np.int64).reshape(-1, 4)
        self._finals = array("q")
        for bucket, rows, when in self._by_bucket(table[:, 3]):
            first_at, last_at = int(when.min()), int(when.max())
            endpoint, status, written, first_byte = table[rows].T
            for number in np.unique(endpoint):
                time_name, code_name = self._endpoints[number]
                here = endpoint == number
                for code, n in zip(*np.unique(status[here], return_counts=True), strict=True):
                    bucket.count(f"{code_name}{code}", int(n), first_at, last_at)
                bucket.sample(time_name, (first_byte[here] - written[here]) / 1e6, first_at, last_at)

    def _server_timing(self, answer: Exchange) -> None:
        for field, value in answer.headers():
            if field.lower() == "server-timing":
                for name, duration_ms in server_timing(value):
                    self.sample(names.SERVER + name, duration_ms)


def server_timing(value: str) -> Iterator[tuple[str, float]]:
    """(name, duration in ms) of each entry of a Server-Timing field that has a duration (W3C Server Timing)."""
    for entry in value.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, number = parameter.partition("=")
            if key.strip().lower() == "dur":
                try:
                    yield name, float(number.strip().strip('"'))
                except ValueError:
                    continue
