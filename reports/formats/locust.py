"""Reader of Locust's CSV files (`--csv NAME`): NAME_stats.csv, NAME_stats_history.csv and NAME_failures.csv.

Locust's response time ends with the last byte of the body. Requests that Locust counts as failed become
`errors.failed`; an endpoint is named `<method> <name>`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reports import names
from reports.formats.plain_text import table
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_HEADING = re.compile('"?(?:Timestamp"?,"?User Count|Type"?,"?Name|Method"?,"?Name)')
_HISTORY = {"Timestamp", "Type", "Name", "Total Request Count", "Total Failure Count"}
_HISTORY_FIELDS = {
    "Total Min Response Time": "min",
    "Total Max Response Time": "max",
    "Total Average Response Time": "mean",
    "Total Median Response Time": "p50",
}
_FAILURES = {"Method", "Name", "Error", "Occurrences"}
_NEEDED = {"Type", "Name", "Request Count", "Failure Count"}
_FIELDS = {
    "Min Response Time": "min",
    "Max Response Time": "max",
    "Average Response Time": "mean",
    "50%": "p50",
    "75%": "p75",
    "90%": "p90",
    "95%": "p95",
    "99%": "p99",
    "99.9%": "p999",
}


def from_csv(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    lines = table(text, _HEADING)
    try:
        columns = set(next(csv.reader(lines[:1]), []))
        if columns >= _HISTORY:
            return _of_history(list(csv.DictReader(lines, strict=True)))
        if columns >= _FAILURES:
            return _of_failures(list(csv.DictReader(lines, strict=True)))
        if not columns >= _NEEDED:
            raise ReportError("no columns Type, Name, Request Count, Failure Count")
        rows = list(csv.DictReader(lines, strict=True))
    except csv.Error as error:
        raise ReportError(f"not CSV: {error}") from None
    total = next((row for row in rows if row["Name"] == "Aggregated"), None)
    if total is None:
        raise ReportError("no row called Aggregated")
    counters: dict[str, int] = {}
    for row in rows:
        endpoint = "" if row is total else f"{row['Type']} {row['Name']}".strip()
        counters |= _counters(row, endpoint)
    summaries = {_time_name(row, total): summary for row in rows if (summary := _summary(row)) != Summary()}
    rate = _number(total, "Requests/s")
    rates = {} if rate is None else {names.REQUEST_RATE: Rate(rate)}
    return Report(Period(0, counters, rates, summaries), extras=Extras("Locust", "closed"))


def _of_history(rows: Sequence[Mapping[str, Any]]) -> Report:
    """Read the last state in NAME_stats_history.csv. Only its totals are used: its percentiles cover recent seconds alone."""
    last: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        last[row["Name"] if row["Name"] == "Aggregated" else f"{row['Type']} {row['Name']}".strip()] = row
    total = last.pop("Aggregated", None)
    if total is None:
        raise ReportError("no row called Aggregated")
    counters: dict[str, int] = {}
    summaries: dict[str, Summary] = {}
    for endpoint, row in {"": total, **last}.items():
        requests, failures = _number(row, "Total Request Count"), _number(row, "Total Failure Count")
        prefix = f"{names.ENDPOINT}.{endpoint}." if endpoint else ""
        counters[f"{prefix}requests" if endpoint else names.REQUESTS] = int(requests or 0)
        counters[f"{prefix}{names.ERRORS}failed"] = int(failures or 0)
        if requests:
            figures = {ours: _number(row, column) for column, ours in _HISTORY_FIELDS.items()}
            summaries[f"{names.ENDPOINT}{names.ENDPOINT_TIME}{endpoint}" if endpoint else names.RESPONSE_TIME] = (
                Summary(
                    **figures,
                    count=int(requests),
                )
            )
    first_s, last_s = _number(rows[0], "Timestamp"), _number(total, "Timestamp")
    seconds = (last_s or 0) - (first_s or 0)
    rates = {names.REQUEST_RATE: Rate(counters[names.REQUESTS] / seconds)} if seconds > 0 else {}
    return Report(Period(0, counters, rates, summaries), extras=Extras("Locust", "closed"))


def _of_failures(rows: Sequence[Mapping[str, Any]]) -> Report:
    """Read NAME_failures.csv, which has only the number of times that each error occurred."""
    counters: dict[str, int] = {}
    for row in rows:
        name = f"{names.ERRORS}{row['Error']}"
        counters[name] = counters.get(name, 0) + int(_number({**row, "Name": row["Error"]}, "Occurrences") or 0)
    if not counters:
        raise ReportError("a list of failures without any")
    return Report(Period(0, counters), extras=Extras("Locust", "closed"))


def _time_name(row: Mapping[str, Any], total: Mapping[str, Any]) -> str:
    return names.RESPONSE_TIME if row is total else f"{names.ENDPOINT}{names.ENDPOINT_TIME}{row['Type']} {row['Name']}"


def _counters(row: Mapping[str, Any], endpoint: str) -> dict[str, int]:
    requests, failures = _number(row, "Request Count"), _number(row, "Failure Count")
    prefix = f"{names.ENDPOINT}.{endpoint}." if endpoint else ""
    counts = {
        f"{prefix}requests" if endpoint else names.REQUESTS: requests,
        f"{prefix}{names.ERRORS}failed": failures,
    }
    return {name: int(count) for name, count in counts.items() if count is not None}


def _summary(row: Mapping[str, Any]) -> Summary:
    """Return the times of a row; empty without requests, where Locust writes zeros and N/A."""
    count = _number(row, "Request Count")
    figures: dict[str, Any] = {ours: _number(row, column) for column, ours in _FIELDS.items()}
    return Summary(**figures, count=int(count)) if count else Summary()


def _number(row: Mapping[str, Any], column: str) -> float | None:
    text = row.get(column)
    if text in (None, "", "N/A"):
        return None
    try:
        value = float(str(text))
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e300:
        raise ReportError(f"{column} of {row['Name']!r} is not a number")
    return value
