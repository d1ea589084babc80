"""Reader of Artillery 1's reports, JSON and console text, under the names that Artillery 2 gives the same figures.

Its latency starts with the request, so it includes connecting where a connection was opened; Artillery 2's
`http.response_time` does not. Distributions without samples are nulls there, and absent here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from reports import names
from reports.formats.durations import number as number_of
from reports.formats.json_values import a_list, an_object, document, each, number, whole
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary, aggregate

_COUNTERS = {
    "scenariosCreated": names.VUSERS_CREATED,
    "scenariosCompleted": names.VUSERS_COMPLETED,
    "scenariosAvoided": names.VUSERS_SKIPPED,
    "requestsCompleted": names.RESPONSES,
}
_MAPS = {"scenarioCounts": names.VUSERS_CREATED_BY_NAME, "errors": names.ERRORS, "codes": names.CODES, "counters": ""}
_HEADING = re.compile(r"(Summary report|Report)(?: @ (.+))?$")
_AT = re.compile(r"(\d\d:\d\d:\d\d)\(([+-]\d{4})\) (\d{4}-\d\d-\d\d)")
_PRINTED = re.compile(r"(\S.*?):(?: +(.*))?")
_PRINTED_COUNT = re.compile(r"(\d+)(?: \([\d.]+%\))?")
_PRINTED_COUNTERS = {
    "Scenarios launched": names.VUSERS_CREATED,
    "Scenarios completed": names.VUSERS_COMPLETED,
    "Requests completed": names.RESPONSES,
}
_PRINTED_MAPS = {"Scenario counts": names.VUSERS_CREATED_BY_NAME, "Codes": names.CODES, "Errors": names.ERRORS}
_FIELDS = {"min": "min", "max": "max", "median": "p50", "p95": "p95", "p99": "p99"}


def from_json(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
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


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a console text, which end with their summaries. Raises ReportError if it has none.

    A text without a summary is that of an interrupted run: its periods are added up, and the report is partial.
    """
    reports: list[Report] = []
    periods: list[Period] = []
    for heading, block in _blocks(text):
        if heading == "Summary report":
            reports.append(Report(block, tuple(periods), Extras("Artillery 1", "open")))
            periods = []
        else:
            periods.append(block)
    if periods:
        total = aggregate(periods)
        reports.append(Report(total, tuple(periods), Extras("Artillery 1", "open", partial=True)))
    if not reports:
        raise ReportError("no Summary report with Scenarios launched")
    return reports


def _blocks(text: str) -> Iterator[tuple[str, Period]]:
    """Yield each heading with the figures under it."""
    heading, at_ms, lines = "", 0, list[str]()
    for raw in [*lines_of(text), "Summary report"]:
        line = raw.strip(" \t>|`*\r")
        if match := _HEADING.match(line):
            if heading and any(each.startswith("Scenarios launched:") for each in lines):
                yield heading, _printed(lines, at_ms)
            heading, at_ms, lines = match[1], _printed_instant(match[2]), []
        else:
            lines.append(line)


def _printed_instant(said: str | None) -> int:
    """Return the epoch ms of `12:34:56(+0000) 2020-06-22`; 0 if the heading has no date."""
    match = _AT.fullmatch((said or "").strip())
    if match is None:
        return 0
    return int(datetime.fromisoformat(f"{match[3]}T{match[1]}{match[2][:3]}:{match[2][3:]}").timestamp() * 1000)


def _printed(lines: list[str], at_ms: int) -> Period:
    counters: dict[str, int] = {}
    rates: dict[str, Rate] = {}
    figures: dict[str, float] = {}
    section = ""
    for line in lines:
        match = _PRINTED.fullmatch(line)
        if match is None:
            continue
        name, said = match[1], (match[2] or "").strip()
        if not said:
            section = name
        elif name in _PRINTED_COUNTERS:
            section, counters[_PRINTED_COUNTERS[name]] = "", int(number_of(said))
        elif name in ("RPS sent", "Mean response/sec", "Mean requests/sec"):
            section = ""
            if said != "NaN":
                rates[names.REQUEST_RATE] = Rate(number_of(said))
        elif section in ("Request latency", "Response time (msec)") and name in _FIELDS:
            if said not in ("NaN", "null", "undefined"):
                figures[_FIELDS[name]] = number_of(said)
        elif section in _PRINTED_MAPS and (count := _PRINTED_COUNT.fullmatch(said)):
            counters[f"{_PRINTED_MAPS[section]}{name}"] = int(count[1])
        else:
            section = ""
    summaries = {names.RESPONSE_TIME: Summary(**figures)} if figures else {}  # type: ignore[arg-type]
    return Period(at_ms, counters, rates, summaries)


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
    """Return the epoch ms of `2020-06-22T03:05:36.243Z`; 0 for a report without a time."""
    if value is None:
        return 0
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise ReportError(f"{place} is not a time") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
