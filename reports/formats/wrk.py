"""Reader of the text of wrk and wrk2.

Both time a request to the last byte of its answer. wrk starts when the request is sent: `http.response_time`. wrk2
starts when it was due by its constant rate: `http.response_time.intended`; what it prints under "Uncorrected Latency" is
`http.response_time`. Socket errors become `errors.<kind>`, bad statuses `errors.Non-2xx or 3xx responses`; wrk prints
neither line where there are none.
"""

from __future__ import annotations

import re
from typing import Any

from reports import names
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_VALUE = r"([\d.]+)(us|ms|s|m|h)"
_STATS = re.compile(rf"Latency {_VALUE} \S+ {_VALUE} \S+")
_DISTRIBUTION = re.compile(r"Latency Distribution(.*)")
_PERCENTILE = re.compile(rf"([\d.]+)% {_VALUE}")
_RECORDED = re.compile(r"#\[Max = [\d.]+, Total count = (\d+)\]")
_COUNT = re.compile(r"(\d+) requests in .*")
_RATE = re.compile(r"Requests/sec: ([\d.]+)")
_LAST_LINES = re.compile(r"^.*Requests/sec:.*\n?(?:.*Transfer/sec:.*\n?)?", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_STATUS = re.compile(r"(Non-2xx or 3xx responses): (\d+)")
_PERCENTILES = {50: "p50", 75: "p75", 90: "p90", 95: "p95", 99: "p99", 99.9: "p999"}


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text, each of which ends with its rates, however it begins. Raises ReportError if there is none."""
    ends = [match.end() for match in _LAST_LINES.finditer(text)] or [len(text)]
    starts = [0, *ends[:-1]]
    return [from_text(text[start:end]) for start, end in zip(starts, ends, strict=True)]


def from_text(text: str) -> Report:
    """Read the report in a text, also with its indentation lost. Raises ReportError for any other text."""
    counters: dict[str, int] = {}
    times: dict[str, dict[str, Any]] = {}
    rate = None
    corrected = "HdrHistogram" in text  # only wrk2 has it
    recorded = names.INTENDED if corrected else names.RESPONSE_TIME
    current = recorded
    for raw in text.splitlines():
        line = " ".join(raw.strip(" \t>|`*").split())
        if stats := _STATS.fullmatch(line):
            times.setdefault(recorded, {}).update(mean=_ms(stats[1], stats[2]), max=_ms(stats[3], stats[4]))
        elif heading := _DISTRIBUTION.fullmatch(line):
            current = names.RESPONSE_TIME if "Uncorrected" in heading[1] else recorded
        elif (at := _PERCENTILE.fullmatch(line)) and (key := _PERCENTILES.get(_number(at[1]))):
            times.setdefault(current, {})[key] = _ms(at[2], at[3])
        elif recorded_count := _RECORDED.fullmatch(line):
            times.setdefault(current, {})["count"] = int(recorded_count[1])
        elif found := _RATE.fullmatch(line):
            rate = Rate(_number(found[1]))
        else:
            counters |= _counters(line)
    if rate is None or names.REQUESTS not in counters:
        raise ReportError("no Requests/sec with requests in")
    # wrk2 records only from the end of its calibration on.
    count = None if corrected else counters[names.REQUESTS]
    # The zeros that are printed where nothing was answered are no times.
    measured = times if counters[names.REQUESTS] else {}
    summaries = {name: Summary(**{"count": count, **figures}) for name, figures in measured.items()}
    tool, model = ("wrk2", "open") if corrected else ("wrk", "closed")
    return Report(Period(0, counters, {names.REQUEST_RATE: rate}, summaries), extras=Extras(tool, model))


def _counters(line: str) -> dict[str, int]:
    if count := _COUNT.fullmatch(line):
        return {names.REQUESTS: int(count[1])}
    if errors := _SOCKET_ERRORS.fullmatch(line):
        kinds = ("connect", "read", "write", "timeout")
        return {f"{names.ERRORS}{kind}": int(n) for kind, n in zip(kinds, errors.groups(), strict=True)}
    if bad := _BAD_STATUS.fullmatch(line):
        return {f"{names.ERRORS}{bad[1]}": int(bad[2])}
    return {}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ReportError(f"{text!r} is not a number") from None


def _ms(value: str, unit: str) -> float:
    return round(_number(value) * _UNITS_MS[unit], 6)
