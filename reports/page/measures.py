"""Reads the figures of a page from a report: rates over time, failures, quantiles, and where the time went. Pure.

A figure that a report does not have is None or absent, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import ceil

from reports import answers, names
from reports.compare.figures import tool
from reports.formats.apachebench import AbReport
from reports.model import PERIOD_MS, QUANTILES, Period, Report, Second
from reports.sketch import Sketch

COMPONENTS = ("pool", "connect", "db")
"""Entries of Server-Timing that stand for a part of a request; `total` is the whole."""

_TOTAL = f"{names.SERVER}total"


_STEPS_S = (1, 2, 5, 10, 30, 60, 300, 600, 3600)
_MOST_POINTS = 1200
"""A chart over time has no more points than this for each curve, so that long runs do not make large pages."""

_LEAST_OBSERVED_S = 0.5
"""A first or last second that was observed for less than this gives no rate."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A period and its place in the run: the start and end of its observation, in seconds from the run's first event."""

    period: Period
    start_s: float
    end_s: float

    def per_second(self, count: int) -> float:
        """Turn a count into a rate. The first and last period are shorter than the others, but at least 1 s as in Artillery."""
        return count / max(1.0, self.end_s - self.start_s)


@dataclass(frozen=True, slots=True)
class Moment:
    """One point of the charts over time: what happened from `start_s` to `end_s`, seconds since the run's first event.

    Rates are per second, None where too little was observed; `times_ms` are quantiles of the response time by name,
    None where there was no answer.
    """

    start_s: float
    end_s: float
    requests: float | None
    answers: float | None
    errors: float | None
    times_ms: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimeShare:
    """One part of an answer's time."""

    name: str
    ms: float
    """Mean over all answers that carried Server-Timing."""


def slices(report: Report) -> list[Slice]:
    """The periods with events in them, in order of time."""
    seen = [p for p in report.periods if p.first_metric_ms is not None and p.last_metric_ms is not None]
    if not seen:
        return []
    first = min(p.first_metric_ms or 0 for p in seen)
    last = max(p.last_metric_ms or 0 for p in seen)
    return [
        Slice(p, (max(p.start_ms, first) - first) / 1000, (min(p.start_ms + PERIOD_MS, last) - first) / 1000)
        for p in seen
        if p.start_ms <= last
    ]


def timeline(report: Report, quantiles: Sequence[str]) -> list[Moment]:
    """The run in order of time, a point for each second; in a run of more than 1,200 s, for each 2, 5, 10 or more.

    A document that has no seconds gives a point for each of its periods. `quantiles` are keys such as "p95".
    """
    seconds = sorted((s for p in report.periods for s in p.seconds), key=lambda s: s.start_ms)
    if not seconds:
        return [_of_slice(s, quantiles) for s in slices(report)]
    origin, total = seconds[0].start_ms, report.aggregate
    first = max(origin, total.first_metric_ms or origin)
    last = max(seconds[-1].start_ms, total.last_metric_ms or seconds[-1].start_ms + 1000)
    whole_s = (last - origin) // 1000 + 1
    step_s = next((s for s in _STEPS_S if whole_s / s <= _MOST_POINTS), ceil(whole_s / _MOST_POINTS))
    step_ms = 1000 * step_s
    bins = {at: list(some) for at, some in groupby(seconds, key=lambda s: (s.start_ms - origin) // step_ms)}
    return [
        _of_seconds(bins.get(at, []), origin + at * step_ms, step_ms, origin, (first, last), quantiles)
        for at in range((last - origin) // step_ms + 1)
    ]


def _of_seconds(
    seconds: Sequence[Second],
    start_ms: int,
    step_ms: int,
    origin: int,
    observed: tuple[int, int],
    quantiles: Sequence[str],
) -> Moment:
    end_ms = start_ms + step_ms
    seen_s = (min(end_ms, observed[1]) - max(start_ms, observed[0])) / 1000

    def rate(count: int) -> float | None:
        return count / seen_s if seen_s >= _LEAST_OBSERVED_S else None

    sketches = [s.response_time for s in seconds if s.response_time is not None and s.response_time.count]
    found = Sketch.merged(s for s in sketches if s.relative_accuracy == sketches[0].relative_accuracy)
    times = {key: _sketched(found, key) if found.count else None for key in quantiles}
    return Moment(
        start_s=(start_ms - origin) / 1000,
        end_s=(end_ms - origin) / 1000,
        requests=rate(sum(s.requests for s in seconds)),
        answers=rate(sum(s.answers for s in seconds)),
        errors=rate(sum(s.errors for s in seconds)),
        times_ms=times,
    )


def _of_slice(part: Slice, quantiles: Sequence[str]) -> Moment:
    counters = part.period.counters
    return Moment(
        start_s=part.start_s,
        end_s=part.end_s,
        requests=part.per_second(counters[names.REQUESTS]) if names.REQUESTS in counters else None,
        answers=part.per_second(counters[names.RESPONSES]) if names.RESPONSES in counters else None,
        errors=part.per_second(sum(counters[name] for name in answers.failures(counters))),
        times_ms={key: quantile(part.period, names.RESPONSE_TIME, key) for key in quantiles},
    )


def duration_s(report: Report) -> float | None:
    """Seconds from the first event to the last, None if a report has no event; for an ab run, its own figure."""
    ab = ab_of(report)
    if ab is not None and ab.time_taken_s is not None:
        return ab.time_taken_s
    first, last = report.aggregate.first_metric_ms, report.aggregate.last_metric_ms
    return None if first is None or last is None else (last - first) / 1000


def throughput(report: Report) -> float | None:
    """Answers per second over the whole run, None where it is not known; for an ab run, its own figure.

    Of a document that does not say how long the run was: the requests per second that its tool printed.
    """
    ab = ab_of(report)
    if ab is not None and ab.requests_per_second is not None:
        return ab.requests_per_second
    answered, seconds = report.aggregate.counters.get(names.RESPONSES), duration_s(report)
    if seconds is None:
        rate = report.aggregate.rates.get(names.REQUEST_RATE)
        return None if rate is None else rate.per_second
    return None if answered is None else answered / max(1.0, seconds)


def requests(report: Report) -> int | None:
    """Number of requests, as `answers.requests` counts them; of a report with only ab's figures, of those completed."""
    ab = ab_of(report)
    found = answers.requests(report.aggregate.counters)
    return ab.complete if found is None and ab is not None else found


def ab_of(report: Report) -> AbReport | None:
    """ApacheBench's figures in a report of one of its runs, else None."""
    return AbReport.from_json(report.extras.ab) if report.extras and report.extras.ab else None


def codes(counters: Mapping[str, int]) -> dict[str, int]:
    """Number of answers, by status."""
    return _under(counters, names.CODES)


def errors(counters: Mapping[str, int]) -> dict[str, int]:
    """Number of requests or users that failed without a usable answer, by kind of failure.

    A kind that is a status of 400 or more, as in a reader of JMeter's, is left out where `codes` has these answers already.
    Answers of 2xx or 3xx that the tool's own checks found wrong are "failed with HTTP 200".
    """
    found = {}
    for kind, n in _under(counters, names.ERRORS).items():
        if f"{names.CODES}{kind}" not in counters:
            found[kind] = n
        elif kind[:1] not in "45":
            found[f"failed with HTTP {kind}"] = n
    return found


def bad_answers(counters: Mapping[str, int]) -> dict[str, int]:
    """Number of errors by kind, and of answers of 400 and above by status."""
    bad = {f"HTTP {code}": n for code, n in codes(counters).items() if code[:1] in "45"}
    return {**errors(counters), **bad}


def without_good_answer(report: Report) -> int | None:
    """Number of requests without an answer of 2xx or 3xx; None where it is not known.

    Of a report without statuses: of the requests that its tool counts as failed. For ab's text, failed by its own rules or not
    2xx, whichever is more.
    """
    counters, total, ab = report.aggregate.counters, requests(report), ab_of(report)
    if not counters and ab is not None:
        counts = [n for n in (ab.failed, ab.non_2xx) if n is not None]
        return max(counts) if counts else None
    if total is None:
        return None
    if answers.has_codes(counters):
        return max(0, total - answers.good_answers(counters))
    kinds = errors(counters)
    known = bool(kinds) or tool(report) in _NAME_ONLY_FAILURES
    return min(total, sum(kinds.values())) if known else None


_NAME_ONLY_FAILURES = {"autocannon", "wrk", "wrk2"}
"""Tools that count no statuses, and name failures only where there were any."""


def quantile(period: Period, name: str, key: str) -> float | None:
    """A figure of a distribution, None if the period does not have it. `key` is a field of a summary ("p95", "mean").

    It is taken from the sketch where there is one, because summaries are rounded.
    """
    sketch = period.sketches.get(name)
    if sketch is not None and sketch.count:
        return _sketched(sketch, key)
    summary = period.summaries.get(name)
    found = summary.figure(key) if summary is not None else None
    return None if found is None else float(found)


def _sketched(found: Sketch, key: str) -> float:
    if key in QUANTILES:
        return min(max(found.quantile(QUANTILES[key]), found.min), found.max)
    return {"mean": found.mean, "min": found.min, "max": found.max, "count": float(found.count)}[key]


def sketch(report: Report, name: str) -> Sketch | None:
    """The sketch of a metric over the whole run, None if it has no sample."""
    found = report.aggregate.sketches.get(name)
    return found if found is not None and found.count else None


def breakdown(period: Period) -> list[TimeShare]:
    """The parts of the mean response time in ms: those that the server reports, the rest of its total, and what is outside.

    Means add up, where quantiles do not. Empty without `server.total`. A part that an answer does not name counts as 0 in
    its mean. Outside is the mean response time of all answers minus the mean total of those with a Server-Timing header.
    Where the server reports the worker's CPU in a loan, `db` is the whole time that a connection was held: it is given as
    `held-cpu` and `held-rest`.
    """
    whole, response = _sum_count(period, _TOTAL), _sum_count(period, names.RESPONSE_TIME)
    if whole is None:
        return []
    parts = {
        name: found[0] / whole[1]
        for name in COMPONENTS
        if (found := _sum_count(period, names.SERVER + name)) is not None
    }
    total_ms = whole[0] / whole[1]
    cpu = _sum_count(period, names.SERVER + "loan-cpu")
    if cpu is None or "db" not in parts:
        shares = [TimeShare(name, ms) for name, ms in parts.items()]
    else:
        held_ms = parts["db"]
        cpu_ms = min(cpu[0] / whole[1], held_ms)
        shares = [TimeShare(name, ms) for name, ms in parts.items() if name != "db"]
        shares += [TimeShare("held-cpu", cpu_ms), TimeShare("held-rest", held_ms - cpu_ms)]
    shares.append(TimeShare("rest", max(0.0, total_ms - sum(parts.values()))))
    if response is not None:
        shares.append(TimeShare("outside", max(0.0, response[0] / response[1] - total_ms)))
    return shares


def endpoints(period: Period) -> Iterator[tuple[str, str, dict[str, int]]]:
    """All endpoints, sorted: (endpoint, name of its response time metric, counts of its answers and errors by kind)."""
    measured = (name.partition(names.ENDPOINT_TIME) for name in {**period.summaries, **period.sketches})
    timed = {(start, endpoint) for start, cut, endpoint in measured if cut}
    # A script may have another prefix than the plugin's own. Then its counters tell an endpoint from other metrics.
    kinds: dict[tuple[str, str], dict[str, int]] = {each: {} for each in timed if each[0] == names.ENDPOINT}
    prefixes = {names.ENDPOINT} | {start for start, _ in timed}
    for counter, count in period.counters.items():
        for prefix in prefixes:
            rest = counter.removeprefix(f"{prefix}.") if counter.startswith(f"{prefix}.") else ""
            # An endpoint's own name may have either mark in it: the last one counts.
            cuts = (rest.rpartition(mark) for mark in (names.ENDPOINT_CODES, f".{names.ERRORS}"))
            endpoint, cut, kind = max(cuts, key=lambda cut: len(cut[0]))
            if cut and (prefix == names.ENDPOINT or (prefix, endpoint) in timed):
                kinds.setdefault((prefix, endpoint), {})[kind] = count
    for (prefix, endpoint), found in sorted(kinds.items(), key=lambda each: each[0][::-1]):
        yield endpoint, f"{prefix}{names.ENDPOINT_TIME}{endpoint}", found


def scenarios(counters: Mapping[str, int]) -> dict[str, int]:
    """Number of virtual users created, by scenario."""
    return _under(counters, names.VUSERS_CREATED_BY_NAME)


def _under(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in sorted(counters.items()) if name.startswith(prefix)}


def _sum_count(period: Period, name: str) -> tuple[float, int] | None:
    found = period.sketches.get(name)
    if found is not None and found.count:
        return found.sum, found.count
    summary = period.summaries.get(name)
    if summary is None or summary.mean is None or not summary.count:
        return None
    return summary.mean * summary.count, summary.count
