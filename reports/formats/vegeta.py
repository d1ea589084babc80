"""Reader of vegeta's reports: `vegeta report` (text) and `vegeta report -type=json`.

Its latency is the whole request, with connecting and the body: `http.response_time` here. A status of 0 stands for requests
without an answer: they become `errors.no answer`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reports import names
from reports.formats.durations import milliseconds, number
from reports.formats.json_values import an_object, document, each, whole
from reports.formats.json_values import number as a_number
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_LINE = re.compile(r"(Requests|Duration|Latencies|Status Codes) +\[([^\]]*)\] *(.*)")
_TEXT_FIELDS = {"min": "min", "mean": "mean", "50": "p50", "90": "p90", "95": "p95", "99": "p99", "max": "max"}
_JSON_FIELDS = {
    "min": "min", "mean": "mean", "50th": "p50", "90th": "p90", "95th": "p95", "99th": "p99", "max": "max",
}  # fmt: skip
_NS_IN_MS = 1e6
NO_ANSWER = f"{names.ERRORS}no answer"


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text, each from its line "Requests" to its line "Status Codes".

    Raises ReportError if there is none, or one of them is cut off.
    """
    found: list[dict[str, dict[str, str]]] = []
    for raw in lines_of(text):
        match = _LINE.fullmatch(raw.strip(" \t>|`*"))
        if match is None:
            continue
        name, fields, values = match.groups()
        if name == "Requests":
            found.append({})
        # What follows the statuses of one report, or stands above the first, is the rest of a report without its beginning.
        if not found or "Status Codes" in found[-1]:
            continue
        if name == "Status Codes":
            found[-1][name] = dict(pair.split(":", 1) for pair in values.split() if ":" in pair)
        else:
            found[-1][name] = dict(zip(fields.split(", "), values.strip().split(", "), strict=False))
    if not any(found):
        raise ReportError("no Requests, Latencies and Status Codes")
    return [_from_lines(each, f"report {n} of {len(found)}") for n, each in enumerate(found, 1)]


def _from_lines(found: Mapping[str, Mapping[str, str]], which: str) -> Report:
    if not found.keys() >= {"Requests", "Latencies", "Status Codes"}:
        raise ReportError(f"{which} is cut off: it has not all of Requests, Latencies and Status Codes")
    sent = found["Requests"]
    times = {
        ours: milliseconds(found["Latencies"][theirs])
        for theirs, ours in _TEXT_FIELDS.items()
        if theirs in found["Latencies"]
    }
    codes = {code: int(number(count)) for code, count in found["Status Codes"].items()}
    if sum(codes.values()) != number(sent.get("total", "")):
        raise ReportError(f"{which} is cut off: its statuses are not as many as its requests")
    return _report(int(number(sent.get("total", ""))), number(sent.get("rate", "")), codes, times)


def from_json(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    found = document(text)
    if not found.keys() >= {"latencies", "status_codes", "requests"}:
        raise ReportError("no latencies, status_codes and requests")
    latencies = each(an_object(found["latencies"], "latencies"), "latencies", a_number)
    times = {ours: latencies[theirs] / _NS_IN_MS for theirs, ours in _JSON_FIELDS.items() if theirs in latencies}
    codes = each(an_object(found["status_codes"], "status_codes"), "status_codes", whole)
    return _report(whole(found["requests"], "requests"), a_number(found.get("rate", 0), "rate"), codes, times)


def _report(requests: int, rate: float, codes: Mapping[str, int], times: Mapping[str, Any]) -> Report:
    counters = {names.REQUESTS: requests}
    for code, count in codes.items():
        counters[NO_ANSWER if code == "0" else f"{names.CODES}{code}"] = count
    counters[names.RESPONSES] = answers = requests - codes.get("0", 0)
    # Where nothing was answered, the times are those of connecting in vain.
    summaries = {names.RESPONSE_TIME: Summary(**times, count=requests)} if answers > 0 and times else {}
    return Report(Period(0, counters, {names.REQUEST_RATE: Rate(rate)}, summaries), extras=Extras("vegeta", "open"))
