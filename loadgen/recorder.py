"""Records what happens in a run: events go into columns, columns into counters, rates and sketches of 10-second periods.

While requests are under way only plain numbers are appended to columns; `flush` turns the columns into counters and sketches
with numpy. A column is flushed as soon as it holds 2048 rows, which takes about half a millisecond and so delays nobody.
An event belongs to the period, and to the second, of its own instant: a request may be counted in one period and its answer
in the next. Greenlets do not preempt each other and nothing here waits, so there is no lock.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from math import isfinite
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadgen.clock import WallOffset, now_ns
from loadgen.http.exchange import EXAMINED, LATER, STAMPED
from loadgen.http.response import parse_headers
from reports import names
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, Second, Summary
from reports.sketch import Sketch

if TYPE_CHECKING:
    from loadgen.http.exchange import Exchange, FileAnswer
    from loadgen.http.response import ResponseHead

_SECOND_NS = 1_000_000_000
_PERIOD_NS = PERIOD_MS * 1_000_000
_FLUSH_ROWS = 2048
_PARTS_MAX = 16
_LATE_NS = 10_000_000
_TOO_MANY_REQUESTS = 429
_LARGEST_MS = 1e15
_NAMES_MAX = 1000
"""The most different names of counters, of distributions, of rates and of endpoints: what a server sends may name them."""
_SERVER_NAMES_MAX = 100
"""The most different names of Server-Timing entries."""
_LONGEST_NAME = 1024
_OWN_NAME = re.compile(rf"(vusers|loadgen|apdex)\.|{re.escape(names.ERRORS)}[A-Z_]{{1,60}}$")
"""Names that no server can make: they are always counted."""
_OTHER_ERRORS = f"{names.ERRORS}TOO_MANY_DIFFERENT_ERRORS"
NO_ENDPOINT = -1
"""In place of an endpoint's number: the answer belongs to none, or it is not known yet to which."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Records = NDArray[np.void]
"""An array of rows with named columns (a numpy structured array)."""
Rows = NDArray[np.bool_] | slice


ANSWER_COLUMNS = (
    "status",
    "written_ns",
    "first_byte_ns",
    "last_byte_ns",
    "intended_ns",
    "body_bytes",
    "stamped",
    "endpoint",
)
"""The figures of an answer that are recorded, in this order; see `FileAnswer`."""


class ColumnBuffer:
    """Rows of 64-bit whole numbers in one piece of memory, read as named columns.

    Adding a row is written out where it is done, for speed: `pack(buffer, end, ...)` with the values in the order of the
    columns, then `end += row`. When `end` has become `size`, the table is full and must be taken.
    """

    __slots__ = ("buffer", "dtype", "end", "pack", "row", "size")

    def __init__(self, *columns: str) -> None:
        layout = Struct(f"{len(columns)}q")
        self.dtype = np.dtype([(name, np.int64) for name in columns])
        self.row = layout.size
        self.size = self.row * _FLUSH_ROWS
        self.buffer = bytearray(self.size)
        self.end = 0
        self.pack = layout.pack_into

    def take(self) -> Records:
        """Return all rows, as an array whose fields are the columns, and empty the table."""
        rows = np.frombuffer(self.buffer, self.dtype, self.end // self.row).copy()
        self.end = 0
        return rows


class _SecondTally:
    """A second that is being recorded."""

    __slots__ = ("answers", "errors", "requests", "times")

    def __init__(self) -> None:
        self.requests = self.answers = self.errors = 0
        self.times: list[Sketch] = []

    def second(self, number: int) -> Second:
        """The finished value of the second that began `number` seconds after the epoch."""
        if len(self.times) > 1:
            self.times[:] = [Sketch.merged(self.times)]
        times = self.times[0] if self.times else None
        return Second(number * 1000, self.requests, self.answers, self.errors, times)


class _Bucket:
    """A period that is being recorded. Instants are epoch ns."""

    def __init__(self) -> None:
        self.seconds: defaultdict[int, _SecondTally] = defaultdict(_SecondTally)
        self.counters: dict[str, int] = {}
        self.sketches: dict[str, list[Sketch]] = defaultdict(list)
        self.requests = 0
        self.requested: tuple[int, int] | None = None
        self.rates: dict[str, tuple[int, tuple[int, int]]] = {}
        self.counted: tuple[int, int] | None = None
        self.sampled: tuple[int, int] | None = None

    def count(self, name: str, n: int, first_ns: int, last_ns: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + n
        self.counted = _span(self.counted, first_ns, last_ns)

    def sample(self, name: str, sketch: Sketch, first_ns: int, last_ns: int) -> None:
        parts = self.sketches[name]
        parts.append(sketch)
        if len(parts) == _PARTS_MAX:
            parts[:] = [Sketch.merged(parts)]
        # The instants of first and last samples stand in Artillery's part of a report.
        if not names.beyond_artillery(name):
            self.sampled = _span(self.sampled, first_ns, last_ns)

    def rate(self, name: str, count: int, first_ns: int, last_ns: int) -> None:
        so_far, span = self.rates.get(name, (0, None))
        self.rates[name] = so_far + count, _span(span, first_ns, last_ns)

    def request(self, count: int, first_ns: int, last_ns: int) -> None:
        self.requests += count
        self.requested = _span(self.requested, first_ns, last_ns)
        self.count(names.REQUESTS, count, first_ns, last_ns)

    def period(self, start_ms: int) -> Period:
        sketches = {name: Sketch.merged(parts) for name, parts in self.sketches.items()}
        rates = {}
        if self.requested is not None:
            first_ns, last_ns = self.requested
            rates[names.REQUEST_RATE] = Rate.of(self.requests, first_ns // 1_000_000, last_ns // 1_000_000)
        for name, (count, (first_ns, last_ns)) in self.rates.items():
            rates[name] = Rate.of(count, first_ns // 1_000_000, last_ns // 1_000_000)
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
            tuple(self.seconds[number].second(number) for number in sorted(self.seconds)),
        )


def _span(so_far: tuple[int, int] | None, first_ns: int, last_ns: int) -> tuple[int, int]:
    return (first_ns, last_ns) if so_far is None else (min(so_far[0], first_ns), max(so_far[1], last_ns))


def _ms(instant_ns: int | None) -> int | None:
    return None if instant_ns is None else instant_ns // 1_000_000


class Recorder:
    """Takes the events of one generator, with instants in ns of CLOCK_MONOTONIC; gives periods, totals and the report."""

    def __init__(self, wall: WallOffset) -> None:
        self._wall = wall
        self._buckets: dict[int, _Bucket] = {}
        self._shown: set[int] = set()
        self._endpoints: list[tuple[str, str]] = []
        self._endpoint_numbers: dict[tuple[str, str], int] = {}
        self._server_names: set[str] = set()
        self._requested_ns = array("q")
        self._answers = ColumnBuffer(*ANSWER_COLUMNS)
        self._endpoint_answers = ColumnBuffer("status", "written_ns", "first_byte_ns", "endpoint")
        self._starts = ColumnBuffer("started_ns", "intended_ns")
        self._ends = ColumnBuffer("ended_ns", "started_ns")
        self._created: dict[str, array[int]] = {}
        # The instants at which one is added to a counter. All counters are in there; other amounts stand beside their instants.
        self._counts: dict[str, array[int]] = {}
        self._amounts: dict[str, tuple[array[int], array[int]]] = {}
        self._rates: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._samples: dict[str, tuple[array[int], array[float]]] = {}
        self.request: Callable[[int], None] = self._requested_ns.append
        """Count a request (each redirect is one too) that was made at this instant."""
        self.requests = self.responses = self.errors = self.stamped = 0
        """Running totals as of the last flush: requests, responses, errors, answers that the kernel stamped."""
        self.examined = self.later_segment = 0
        """Of the stamped answers: those whose segments were counted, and of these those dated by a later segment."""
        self.turned_away: Counter[int] = Counter()
        """Answers of 429 as of the last flush, by the second in which they came (s since the epoch)."""
        self.thinking = 0
        """Users who think at this moment."""

    def apart(self) -> Recorder:
        """Make another recorder with the same clock, whose figures go into no report."""
        return Recorder(self._wall)

    def endpoint(self, name: str, namespace: str = names.ENDPOINT) -> int:
        """The number of an endpoint, for `answers` and `endpoint_answer`; the same name has the same number.

        There are at most 1000 endpoints. Answers of any other have NO_ENDPOINT, and count as dropped.
        """
        metric = (
            _cut(f"{namespace}{names.ENDPOINT_TIME}{name}"),
            _cut(f"{namespace}.{name}") + names.ENDPOINT_CODES,
        )
        number = self._endpoint_numbers.get(metric)
        if number is None:
            if len(self._endpoints) >= _NAMES_MAX:
                self._drop()
                return NO_ENDPOINT
            number = self._endpoint_numbers[metric] = len(self._endpoints)
            self._endpoints.append(metric)
        return number

    def answers(self, endpoint: int = NO_ENDPOINT) -> FileAnswer:
        """The function that files answers, to be given to the connection that reads them.

        With an endpoint's number it files plain answers as answers of that endpoint too. Others may be redirects, or have
        more to be looked at: they are given to `endpoint_answer` once they turn out to be final.
        """
        table = self._answers
        pack, buffer, row, size = table.pack, table.buffer, table.row, table.size

        def file(
            head: ResponseHead,
            written_ns: int,
            first_byte_ns: int,
            last_byte_ns: int,
            intended_ns: int,
            body_bytes: int,
            stamped: int,
            plain: bool,
        ) -> None:
            end = table.end
            pack(
                buffer,
                end,
                head.status,
                written_ns,
                first_byte_ns,
                last_byte_ns,
                intended_ns,
                body_bytes,
                stamped,
                endpoint if plain else NO_ENDPOINT,
            )
            table.end = end = end + row
            if not plain and head.server_timing:
                self._server_timing(head)
            if end == size:
                self._flush_requests()
                self._flush_answers()

        return file

    def add_closed(self, answers: Records) -> None:
        """Count many answers, given in `ANSWER_COLUMNS`, and a request for each, made at the answer's `intended_ns`."""
        self._count_requests(answers["intended_ns"])
        self._count_answers(answers)

    def endpoint_answer(self, endpoint: int, answer: Exchange) -> None:
        """Count an answer, filed before, as the final one of a request to that endpoint."""
        table = self._endpoint_answers
        table.pack(table.buffer, table.end, answer.status, answer.written_ns, answer.first_byte_ns, endpoint)
        table.end += table.row
        if table.end == table.size:
            self._flush_endpoint_answers()

    def count(self, name: str, n: int = 1) -> None:
        """Add `n` to a counter, at this instant. Beyond 1000 counters, errors are counted together and others dropped."""
        if n == 1:
            column = self._counts.get(name)
            if column is None:
                kept = self._kept(name)
                column = array("q") if kept is None else self._counts[kept]
            column.append(now_ns())
            return
        columns = self._amounts.get(name)
        if columns is None:
            kept = self._kept(name)
            columns = array("q"), array("q")
            if kept is not None:
                columns = self._amounts.setdefault(kept, columns)
        columns[0].append(now_ns())
        columns[1].append(n)

    def _kept(self, name: str) -> str | None:
        """The name of the counter that stands for one of this name; None if that is dropped."""
        name = _cut(name)
        if name not in self._counts and len(self._counts) >= _NAMES_MAX and not _OWN_NAME.match(name):
            self._drop()
            if not name.startswith(names.ERRORS):
                return None
            name = _OTHER_ERRORS
        self._counts.setdefault(name, array("q"))
        return name

    def _drop(self) -> None:
        """Count a figure that is not recorded, because there are too many different names already."""
        self._counts.setdefault(names.DROPPED, array("q")).append(now_ns())

    def rate(self, name: str) -> None:
        """Count an event of a rate per second, at this instant."""
        if name not in self._rates and len(self._rates) >= _NAMES_MAX:
            self._drop()
            return
        self._rates[_cut(name)].append(now_ns())

    def sample(self, name: str, value_ms: float) -> None:
        """Add a value in ms to a distribution, at this instant. A value that is not a number of a sensible size is ignored."""
        if not -_LARGEST_MS < value_ms < _LARGEST_MS:
            return
        columns = self._samples.get(name)
        if columns is None:
            if len(self._samples) >= _NAMES_MAX:
                self._drop()
                return
            name = _cut(name)
            columns = self._samples.setdefault(name, (array("q"), array("d")))
        at, values = columns
        at.append(now_ns())
        values.append(value_ms)
        if len(at) == _FLUSH_ROWS:
            self._flush_samples(name)

    def scenario(self, label: str) -> Callable[[int], None]:
        """Make the function that counts a virtual user of that scenario; its argument is the instant of creation."""
        return self._created.setdefault(f"{names.VUSERS_CREATED_BY_NAME}{label}", array("q")).append

    def started(self, intended_ns: int) -> None:
        """Record that a virtual user, whose start was planned for `intended_ns`, starts now."""
        table = self._starts
        table.pack(table.buffer, table.end, now_ns(), intended_ns)
        table.end += table.row
        if table.end == table.size:
            self._flush_starts()

    def completed(self, started_ns: int) -> None:
        """Record that a virtual user that started at `started_ns` has come to the end of its scenario."""
        table = self._ends
        table.pack(table.buffer, table.end, now_ns(), started_ns)
        table.end += table.row
        if table.end == table.size:
            self._flush_ends()

    def flush(self) -> None:
        """Turn all columns into counters and sketches."""
        self._flush_created()
        self._flush_starts()
        self._flush_ends()
        self._flush_counts()
        self._flush_rates()
        self._flush_requests()
        self._flush_answers()
        self._flush_endpoint_answers()
        for name in self._samples:
            self._flush_samples(name)

    def drain(self) -> list[Period]:
        """Return and forget everything recorded since the last call: periods, to be merged with those of other calls."""
        self.flush()
        buckets, self._buckets = self._buckets, {}
        return [buckets[start].period(start * PERIOD_MS) for start in sorted(buckets)]

    def over(self, grace_ns: int) -> Iterator[Period]:
        """The periods that ended at least `grace_ns` ago and that this method has not returned before."""
        self.flush()
        now = now_ns() + self._wall.wall_ns - grace_ns
        for start in sorted(self._buckets.keys() - self._shown):
            if (start + 1) * _PERIOD_NS <= now:
                self._shown.add(start)
                yield self._buckets[start].period(start * PERIOD_MS)

    def remaining(self) -> Iterator[Period]:
        """The periods that `over` has not returned yet."""
        return self.over(-2 * _PERIOD_NS)

    def latest(self) -> Period | None:
        """The period being recorded now, as far as it goes; None before the first event."""
        self.flush()
        start = max(self._buckets, default=None)
        return None if start is None else self._buckets[start].period(start * PERIOD_MS)

    def recent_ms(self, quantile: float) -> float | None:
        """A quantile of the response times of the newest second with answers, in ms, as of the last flush; None before that."""
        bucket = self._buckets.get(max(self._buckets, default=0))
        timed = [number for number, second in bucket.seconds.items() if second.times] if bucket else []
        return Sketch.merged(bucket.seconds[max(timed)].times).quantile(quantile) if bucket and timed else None

    def report(self, extras: Extras | None = None) -> Report:
        """The report on everything recorded so far."""
        self.flush()
        return Report.of((self._buckets[start].period(start * PERIOD_MS) for start in sorted(self._buckets)), extras)

    def _bucket(self, start: int) -> _Bucket:
        found = self._buckets.get(start)
        if found is None:
            found = self._buckets[start] = _Bucket()
        return found

    def _by_bucket(self, at_ns: Ints, slice_ns: int = _PERIOD_NS) -> Iterator[tuple[_Bucket, Rows, int, int]]:
        """Rows of each period, or of shorter slices of it: (bucket, which rows, first and last of their instants)."""
        if not len(at_ns):
            return
        wall_ns = at_ns + self._wall.wall_ns
        first_ns, last_ns = int(wall_ns.min()), int(wall_ns.max())
        if first_ns // slice_ns == last_ns // slice_ns:
            yield self._bucket(first_ns // _PERIOD_NS), slice(None), first_ns, last_ns
            return
        slices = wall_ns // slice_ns
        for number in _distinct(slices):
            rows = slices == number
            when = wall_ns[rows]
            first_ns, last_ns = int(when.min()), int(when.max())
            yield self._bucket(first_ns // _PERIOD_NS), rows, first_ns, last_ns

    def _by_second(self, at_ns: Ints) -> Iterator[tuple[_Bucket, _SecondTally, Rows, int, int]]:
        """Rows of each second, as `_by_bucket` gives them, with the second's tally."""
        for bucket, rows, first_ns, last_ns in self._by_bucket(at_ns, _SECOND_NS):
            yield bucket, bucket.seconds[first_ns // _SECOND_NS], rows, first_ns, last_ns

    def _flush_created(self) -> None:
        for name, column in self._created.items():
            at_ns = _taken(column)
            for bucket, rows, first_ns, last_ns in self._by_bucket(at_ns):
                bucket.count(name, len(at_ns[rows]), first_ns, last_ns)
                bucket.count(names.VUSERS_CREATED, len(at_ns[rows]), first_ns, last_ns)

    def _flush_starts(self) -> None:
        table = self._starts.take()
        for bucket, rows, first_ns, last_ns in self._by_bucket(table["started_ns"]):
            starts = table[rows]
            lag_ns = starts["started_ns"] - starts["intended_ns"]
            bucket.sample(names.START_LAG, Sketch.of(lag_ns / 1e6), first_ns, last_ns)
            late = int((lag_ns > _LATE_NS).sum())
            if late:
                bucket.count(names.LATE, late, first_ns, last_ns)

    def _flush_ends(self) -> None:
        table = self._ends.take()
        for bucket, rows, first_ns, last_ns in self._by_bucket(table["ended_ns"]):
            ends = table[rows]
            length_ms = (ends["ended_ns"] - ends["started_ns"]) / 1e6
            bucket.count(names.VUSERS_FAILED, 0, first_ns, last_ns)
            bucket.count(names.VUSERS_COMPLETED, len(ends), first_ns, last_ns)
            bucket.sample(names.SESSION_LENGTH, Sketch.of(length_ms), first_ns, last_ns)

    def _flush_counts(self) -> None:
        for name, column in self._counts.items():
            self._add_to_counter(name, _taken(column))
        for name, (at, amounts) in self._amounts.items():
            self._add_to_counter(name, _taken(at), _taken(amounts))

    def _add_to_counter(self, name: str, at_ns: Ints, amounts: Ints | None = None) -> None:
        """Add these amounts, or one each, to a counter at these instants."""
        is_error = name.startswith(names.ERRORS)
        for bucket, rows, first_ns, last_ns in self._by_bucket(at_ns, _SECOND_NS if is_error else _PERIOD_NS):
            counted = len(at_ns[rows]) if amounts is None else int(amounts[rows].sum())
            bucket.count(name, counted, first_ns, last_ns)
            if is_error:
                self.errors += counted
                bucket.seconds[first_ns // _SECOND_NS].errors += counted

    def _flush_rates(self) -> None:
        for name, column in self._rates.items():
            at_ns = _taken(column)
            for bucket, rows, first_ns, last_ns in self._by_bucket(at_ns):
                bucket.rate(name, len(at_ns[rows]), first_ns, last_ns)

    def _flush_requests(self) -> None:
        self._count_requests(_taken(self._requested_ns))

    def _count_requests(self, at_ns: Ints) -> None:
        self.requests += len(at_ns)
        for bucket, second, rows, first_ns, last_ns in self._by_second(at_ns):
            second.requests += len(at_ns[rows])
            bucket.request(len(at_ns[rows]), first_ns, last_ns)

    def _flush_answers(self) -> None:
        self._count_answers(self._answers.take())

    def _count_answers(self, table: Records) -> None:
        self.responses += len(table)
        stamped = table["stamped"]
        self.stamped += int(np.count_nonzero(stamped & STAMPED))
        self.examined += int(np.count_nonzero(stamped & EXAMINED))
        self.later_segment += int(np.count_nonzero(stamped & LATER))
        for bucket, second, rows, first_ns, last_ns in self._by_second(table["first_byte_ns"]):
            answers = table[rows]
            status = answers["status"]
            waited_ms = (answers["first_byte_ns"] - answers["written_ns"]) / 1e6
            sketch = Sketch.of(waited_ms)
            second.answers += len(answers)
            second.errors += int((status >= 500).sum())
            second.times.append(sketch)
            for code, n in _tally(status):
                bucket.count(f"{names.CODES}{code}", n, first_ns, last_ns)
                if code == _TOO_MANY_REQUESTS:
                    self.turned_away[first_ns // _SECOND_NS] += n
            bucket.count(names.RESPONSES, len(answers), first_ns, last_ns)
            bucket.sample(names.RESPONSE_TIME, sketch, first_ns, last_ns)
            for hundreds, part in _parted(waited_ms, status // 100, sketch):
                if hundreds > 1:
                    bucket.sample(names.status_class(hundreds * 100), part, first_ns, last_ns)
            response_ms = (answers["last_byte_ns"] - answers["intended_ns"]) / 1e6
            bucket.sample(names.INTENDED, Sketch.of(response_ms), first_ns, last_ns)
            self._endpoint_figures(bucket, answers["endpoint"], status, waited_ms, sketch, first_ns, last_ns)
        for bucket, rows, first_ns, last_ns in self._by_bucket(table["last_byte_ns"]):
            bucket.count(names.DOWNLOADED_BYTES, int(table["body_bytes"][rows].sum()), first_ns, last_ns)

    def _flush_endpoint_answers(self) -> None:
        table = self._endpoint_answers.take()
        for bucket, rows, first_ns, last_ns in self._by_bucket(table["first_byte_ns"]):
            answers = table[rows]
            waited_ms = (answers["first_byte_ns"] - answers["written_ns"]) / 1e6
            sketch = Sketch.of(waited_ms)
            self._endpoint_figures(bucket, answers["endpoint"], answers["status"], waited_ms, sketch, first_ns, last_ns)

    def _endpoint_figures(
        self,
        bucket: _Bucket,
        endpoint: Ints,
        status: Ints,
        waited_ms: Floats,
        whole: Sketch,
        first_ns: int,
        last_ns: int,
    ) -> None:
        """Add status codes and times of each endpoint; `whole` is the sketch of all of `waited_ms`."""
        for number, part in _parted(waited_ms, endpoint, whole):
            if number == NO_ENDPOINT:
                continue
            time_name, code_name = self._endpoints[number]
            for code, n in _tally(status[endpoint == number]):
                bucket.count(f"{code_name}{code}", n, first_ns, last_ns)
            bucket.sample(time_name, part, first_ns, last_ns)

    def _flush_samples(self, name: str) -> None:
        at, values = self._samples[name]
        value_ms = np.array(values, np.float64)
        del values[:]
        for bucket, rows, first_ns, last_ns in self._by_bucket(_taken(at)):
            bucket.sample(name, Sketch.of(value_ms[rows]), first_ns, last_ns)

    def _server_timing(self, head: ResponseHead) -> None:
        for field, value in parse_headers(head.raw):
            if field.lower() == "server-timing":
                for name, duration_ms in server_timing(value):
                    if name in self._server_names:
                        self.sample(names.SERVER + name, duration_ms)
                    elif len(self._server_names) < _SERVER_NAMES_MAX:
                        self._server_names.add(name)
                        self.sample(names.SERVER + name, duration_ms)
                    else:
                        self._drop()


def _cut(name: str) -> str:
    """A name no longer than Artillery's longest."""
    return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME]


def _taken(column: array[int]) -> Ints:
    """Return the values of a column, and empty it."""
    values = np.array(column, np.int64)
    del column[:]
    return values


def _tally(status: Ints) -> Iterator[tuple[int, int]]:
    """Each status and how often it occurs."""
    counts = np.bincount(status)
    return ((int(code), int(counts[code])) for code in np.flatnonzero(counts))


def _distinct(numbers: Ints) -> list[int]:
    """The different numbers, in order. `np.unique` would import a module of its own while users wait."""
    return sorted(set(numbers.tolist()))


def _parted(values: Floats, labels: Ints, whole: Sketch) -> Iterator[tuple[int, Sketch]]:
    """Each label and the sketch of the values that have it. Most often all have the same label: then it is `whole`."""
    if labels.min() == labels.max():
        yield int(labels[0]), whole
        return
    for label in _distinct(labels):
        yield label, Sketch.of(values[labels == label])


_QUOTED = r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)'
# A quoted text that nothing closes goes on to the end.
_TIMING_ENTRY = re.compile(rf'(?:[^,"]+|{_QUOTED})+')
_TIMING_PART = re.compile(rf'(?:[^;"]+|{_QUOTED})+')
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def server_timing(value: str) -> Iterator[tuple[str, float]]:
    """Name and duration in ms of each entry of a Server-Timing field that has a finite duration (W3C Server Timing)."""
    for entry in value.split(",") if '"' not in value else _TIMING_ENTRY.findall(value):
        parts = entry.split(";") if '"' not in entry else _TIMING_PART.findall(entry)
        name, *parameters = (part.strip() for part in parts)
        for parameter in parameters if _TOKEN.fullmatch(name) else ():
            key, _, number = parameter.partition("=")
            if key.strip().lower() == "dur":
                try:
                    duration_ms = float(number.strip().strip('"'))
                except ValueError:
                    continue
                if isfinite(duration_ms):
                    yield name, duration_ms
