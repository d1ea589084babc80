"""What a page reads out of a report: rates over time, failures, quantiles, and where the time went. Pure.

A figure that a report does not carry is None or absent, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reports import names
from reports.answers import good_answers
from reports.formats.apachebench import AbReport
from reports.model import PERIOD_MS, QUANTILES, Period, Report
from reports.sketch import Sketch

COMPONENTS = ("pool", "connect", "db")
"""Entries of Server-Timing that stand for a part of a request; `total` is the whole."""

_TOTAL = f"{names.SERVER}total"


@dataclass(frozen=True, slots=True)
class Slice:
    """A period with its place in the run: from where to where it was observed, in seconds since the first event."""

    period: Period
    start_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        """Where a point for this period is drawn."""
        return (self.start_s + self.end_s) / 2

    def per_second(self, count: int) -> float:
        """A count as a rate; the first and last period are shorter than the others, at least 1 s (as in Artillery)."""
        return count / max(1.0, self.end_s - self.start_s)


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


def duration_s(report: Report) -> float | None:
    """First event to last; of an ab run, its own figure."""
    ab = ab_of(report)
    if ab is not None and ab.time_taken_s is not None:
        return ab.time_taken_s
    first, last = report.aggregate.first_metric_ms, report.aggregate.last_metric_ms
    return None if first is None or last is None else (last - first) / 1000


def throughput(report: Report) -> float | None:
    """Answers per second over the whole run; of an ab run, its own figure."""
    ab = ab_of(report)
    if ab is not None and ab.requests_per_second is not None:
        return ab.requests_per_second
    answers, seconds = report.aggregate.counters.get(names.RESPONSES), duration_s(report)
    return None if answers is None or seconds is None else answers / max(1.0, seconds)


def requests(report: Report) -> int | None:
    """Requests sent; of an ab run without counters, those completed; of a document with codes alone, the answers."""
    counters = report.aggregate.counters
    found = counters.get(names.REQUESTS)
    ab = ab_of(report)
    if found is None and ab is not None:
        return ab.complete
    return found if found is not None else (sum(codes(counters).values()) or None)


def ab_of(report: Report) -> AbReport | None:
    """The figures of an ab run."""
    return AbReport.from_json(report.extras.ab) if report.extras and report.extras.ab else None


def codes(counters: Mapping[str, int]) -> dict[str, int]:
    """Answers by status."""
    return _under(counters, names.CODES)


def errors(counters: Mapping[str, int]) -> dict[str, int]:
    """Requests or users that failed without an answer that could be used, by kind."""
    return _under(counters, names.ERRORS)


def failures(counters: Mapping[str, int]) -> dict[str, int]:
    """Errors by kind, and answers of 400 and above by status."""
    bad = {f"HTTP {code}": n for code, n in codes(counters).items() if code[:1] in "45"}
    return {**errors(counters), **bad}


def failed(report: Report) -> int | None:
    """Requests without a good answer. Of ab's text: failed by its own rules, or not 2xx, whichever is more."""
    total = requests(report)
    ab = ab_of(report)
    if not report.aggregate.counters and ab is not None:
        counts = [n for n in (ab.failed, ab.non_2xx) if n is not None]
        return max(counts) if counts else None
    if total is None:
        return None
    return max(0, total - good_answers(report.aggregate.counters))


def quantile(period: Period, name: str, key: str) -> float | None:
    """`key` is a field of a summary ("p95", "mean", "max"). From the sketch where there is one: summaries are rounded."""
    sketch = period.sketches.get(name)
    if sketch is not None and sketch.count:
        if key in QUANTILES:
            return min(max(sketch.quantile(QUANTILES[key]), sketch.min), sketch.max)
        return {"mean": sketch.mean, "min": sketch.min, "max": sketch.max, "count": float(sketch.count)}[key]
    summary = period.summaries.get(name)
    found = getattr(summary, key) if summary is not None else None
    return None if found is None else float(found)


def sketch(report: Report, name: str) -> Sketch | None:
    """Of the whole run, if it has any sample."""
    found = report.aggregate.sketches.get(name)
    return found if found is not None and found.count else None


def breakdown(period: Period) -> list[TimeShare]:
    """Where an answer's time went, in means, which add up where quantiles do not: the parts that the server tells, the rest
    of its total, and the network: response time minus that total. Empty without `server.total`.

    A part that an answer does not name counts as 0 in its mean. Response time is of all answers; where some lack the header
    the difference is still between the two means.
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
    shares = [TimeShare(name, ms) for name, ms in parts.items()]
    shares.append(TimeShare("rest", max(0.0, total_ms - sum(parts.values()))))
    if response is not None:
        shares.append(TimeShare("network", max(0.0, response[0] / response[1] - total_ms)))
    return shares


def endpoints(period: Period) -> Iterator[tuple[str, str, dict[str, int]]]:
    """(endpoint, name of its response time, its answers and errors by kind), by name."""
    times = f"{names.ENDPOINT}.response_time."
    found: dict[str, dict[str, int]] = {
        name.removeprefix(times): {} for name in period.summaries if name.startswith(times)
    }
    for name, count in period.counters.items():
        rest = name.removeprefix(f"{names.ENDPOINT}.") if name.startswith(f"{names.ENDPOINT}.") else ""
        for mark in (".codes.", ".errors."):
            endpoint, cut, kind = rest.rpartition(mark)
            if cut:
                found.setdefault(endpoint, {})[kind] = count
    for endpoint in sorted(found):
        yield endpoint, times + endpoint, found[endpoint]


def scenarios(counters: Mapping[str, int]) -> dict[str, int]:
    """Virtual users created by scenario."""
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
