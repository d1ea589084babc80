"""Merges several measurements, made at the same time or one after the other, into one: exactly, as sketches do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from reports.model import Extras, Period, Rate, Report, ReportError, Second, aggregate
from reports.names import ERRORS, REQUESTS, RESPONSES
from reports.sketch import Sketch

_Value = TypeVar("_Value")


def merge(reports: Sequence[Report]) -> Report:
    """Merge reports into one: periods of the same time become one, and the aggregate is that of the merged periods.

    Raises ReportError where a distribution has no sketch (in a document of another tool), since percentiles cannot be merged,
    and where sketches are of different accuracy.
    """
    if len(reports) == 1:
        return reports[0]
    for number, report in enumerate(reports, 1):
        bare = sorted(n for p in (report.aggregate, *report.periods) for n in p.summaries.keys() - p.sketches.keys())
        if bare:
            raise ReportError(
                f"report {number} cannot be merged: {bare[0]} has no sketch, and percentiles do not add up"
            )
        if not report.periods:
            raise ReportError(f"report {number} cannot be merged: it has no periods")
    extras = _extras([r.extras for r in reports])
    try:
        periods = merge_periods(p for r in reports for p in r.periods)
        return Report.of(periods, extras and replace(extras, pauses=_pauses(reports)))
    except ReportError:
        raise
    except (ValueError, OverflowError) as error:
        raise ReportError(f"the reports cannot be merged: {error}") from None


def merge_periods(periods: Iterable[Period]) -> list[Period]:
    """Merge periods of the same start: counters add up, sketches and seconds merge, rates are those of all events.

    The result is in time order. A rate without count and instants (from another tool) adds its events per second.
    """
    same: dict[int, list[Period]] = {}
    for period in periods:
        same.setdefault(period.start_ms, []).append(period)
    return [parts[0] if len(parts) == 1 else _one(parts) for _, parts in sorted(same.items())]


def _pauses(reports: Sequence[Report]) -> tuple[tuple[int, int], ...]:
    """The times between the first and the last event in which no run was at work. The reports may be merged ones."""
    found: list[tuple[int, int]] = []
    busy_until: int | None = None
    for start, end in sorted(span for report in reports for span in _spans(report)):
        if busy_until is not None and start > busy_until:
            found.append((busy_until, start))
        busy_until = end if busy_until is None else max(busy_until, end)
    return tuple(found)


def _spans(report: Report) -> Iterator[tuple[int, int]]:
    """Yield the stretches of time, as (start, end) in epoch ms, in which a report's runs were at work."""
    start, end = report.aggregate.first_metric_ms, report.aggregate.last_metric_ms
    if start is None or end is None:
        return
    for pause_start, pause_end in report.extras.pauses if report.extras else ():
        yield start, pause_start
        start = pause_end
    yield start, end


def _one(parts: list[Period]) -> Period:
    rates: dict[str, list[Rate]] = {}
    for part in parts:
        for name, rate in part.rates.items():
            rates.setdefault(name, []).append(rate)
    return replace(aggregate(parts), rates={name: _rate(some) for name, some in rates.items()}, seconds=_seconds(parts))


def _seconds(parts: list[Period]) -> tuple[Second, ...]:
    """The seconds of all parts; empty if one part has events but no seconds, since the sum would be too low."""
    if not all(part.seconds or not _has_events(part) for part in parts):
        return ()
    same: dict[int, list[Second]] = {}
    for part in parts:
        for second in part.seconds:
            same.setdefault(second.start_ms, []).append(second)
    return tuple(some[0] if len(some) == 1 else _one_second(some) for _, some in sorted(same.items()))


def _has_events(part: Period) -> bool:
    return any(name in (REQUESTS, RESPONSES) or name.startswith(ERRORS) for name in part.counters)


def _one_second(parts: list[Second]) -> Second:
    sketches = [part.response_time for part in parts if part.response_time is not None]
    return Second(
        parts[0].start_ms,
        sum(part.requests for part in parts),
        sum(part.answers for part in parts),
        sum(part.errors for part in parts),
        Sketch.merged(sketches) if sketches else None,
    )


def _rate(rates: list[Rate]) -> Rate:
    counts = [r.count for r in rates if r.count is not None]
    firsts = [r.first_ms for r in rates if r.first_ms is not None]
    lasts = [r.last_ms for r in rates if r.last_ms is not None]
    if len(counts) == len(firsts) == len(lasts) == len(rates):
        return Rate.of(sum(counts), min(firsts), max(lasts))
    return Rate(sum(r.per_second for r in rates))


def _extras(extras: list[Extras | None]) -> Extras | None:
    known = [e for e in extras if e is not None]
    if not known:
        return None
    warnings = dict.fromkeys(w for e in known for w in e.warnings)
    return Extras(
        tool_version=_common([e.tool_version for e in known], "several"),
        model=_common([e.model for e in known], "several"),
        partial=any(e.partial for e in known),
        environment=_common([e.environment for e in known], {"runs": [dict(e.environment) for e in known]}),
        generator=_common([e.generator for e in known], {"runs": [dict(e.generator) for e in known]}),
        warnings=tuple(warnings),
    )


def _common(values: list[_Value], otherwise: Any) -> Any:
    """The value that all of them share, else `otherwise`."""
    return values[0] if all(value == values[0] for value in values) else otherwise
