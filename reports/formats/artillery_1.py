"""Reader of Artillery 1's JSON report, under the names that Artillery 2 gives the same figures.

Its latency starts with the request, so it includes connecting where a connection was opened; Artillery 2's
`http.response_time` does not. Distributions without samples are nulls there, and absent here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reports import names
from reports.formats.json_values import a_list, an_object, document, each, number, whole
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_COUNTERS = {
    "scenariosCreated": names.VUSERS_CREATED,
    "scenariosCompleted": names.VUSERS_COMPLETED,
    "scenariosAvoided": names.VUSERS_SKIPPED,
    "requestsCompleted": names.RESPONSES,
}
_MAPS = {"scenarioCounts": names.VUSERS_CREATED_BY_NAME, "errors": names.ERRORS, "codes": names.CODES, "counters": ""}
_FIELDS = {"min": "min", "max": "max", "median": "p50", "p95": "p95", "p99": "p99"}


def from_json(text: str) -> Report:
    """The report in a text. Raises ReportError (one line) for any other text."""
    found = document(text)
    total = found.get("aggregate")
    if not isinstance(total, dict) or "scenariosCreated" not in total:
        raise ReportError("no aggregate.scenariosCreated")
    parts = a_list(found.get("intermediate"), "intermediate")
    periods = sorted(
        (_period(an_object(part, f"intermediate[{i}]"), f"intermediate[{i}]") for i, part in enumerate(parts)),
        key=lambda period: period.start_ms,
    )
    return Report(_period(total, "aggregate"), tuple(periods), Extras("Artillery 1", "open"))


def _period(part: Mapping[str, Any], place: str) -> Period:
    counters = {
        ours: whole(part[key], f"{place}.{key}") for key, ours in _COUNTERS.items() if part.get(key) is not None
    }
    for key, prefix in _MAPS.items():
        counts = each(part.get(key), f"{place}.{key}", whole)
        counters |= {f"{prefix}{name}": count for name, count in counts.items()}
    rps = each(part.get("rps"), f"{place}.rps", number)
    if "count" in rps:
        counters[names.REQUESTS] = int(rps["count"])
    summaries = {
        names.RESPONSE_TIME: _summary(part.get("latency"), f"{place}.latency"),
        names.SESSION_LENGTH: _summary(part.get("scenarioDuration"), f"{place}.scenarioDuration"),
    }
    summaries |= each(part.get("customStats"), f"{place}.customStats", _summary)
    return Period(
        start_ms=_instant(part.get("timestamp"), f"{place}.timestamp"),
        counters=counters,
        rates={names.REQUEST_RATE: Rate(rps["mean"])} if "mean" in rps else {},
        summaries={name: summary for name, summary in summaries.items() if summary != Summary()},
    )


def _summary(value: Any, place: str) -> Summary:
    figures = each(value, place, number)
    return Summary(**{ours: float(figures[key]) for key, ours in _FIELDS.items() if key in figures})  # type: ignore[arg-type]


def _instant(value: Any, place: str) -> int:
    """Epoch ms of `2020-06-22T03:05:36.243Z`; a report without one gets 0."""
    if value is None:
        return 0
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise ReportError(f"{place} is not a time") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
