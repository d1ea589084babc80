"""Reader of autocannon's tables and of its JSON (`autocannon --json`).

Its latency ends with the last byte of the answer. Text has no p75 to p95 unless it was asked for with `--latency`, and
shortens large counts ("276k requests"), which are then as exact as they are printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reports import names
from reports.formats.durations import amount, milliseconds, number
from reports.formats.json_values import an_object, document, each, whole
from reports.formats.json_values import number as a_number
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_START = re.compile(r"^(?=[^\w\n]*Running [\d.]+(?:m?s|k?) (?:test|requests test) @ )", re.MULTILINE)
_ROW = re.compile(r"^[\s>]*[│|](.*)[│|]\s*$")
_FIELDS = {"50%": "p50", "75%": "p75", "90%": "p90", "99%": "p99", "Avg": "mean", "Max": "max"}
_DETAILS = {"50": "p50", "75": "p75", "90": "p90", "99": "p99", "99.9": "p999"}
_JSON_FIELDS = {
    "min": "min", "max": "max", "mean": "mean", "p50": "p50", "p75": "p75", "p90": "p90", "p99": "p99", "p99_9": "p999",
}  # fmt: skip
_2XX = f"{names.RESPONSES}.2xx"
_NON_2XX = f"{names.ERRORS}non 2xx"
_REQUESTS = re.compile(r"^[ \t>]*([\d.]+[kMG]?) requests in [\d.]+s, ", re.MULTILINE)
_ANSWERS = re.compile(r"^[ \t>]*([\d.]+[kMG]?) 2xx responses, ([\d.]+[kMG]?) non 2xx responses", re.MULTILINE)
_ERRORS = re.compile(r"^[ \t>]*([\d.]+[kMG]?) errors \(([\d.]+[kMG]?) timeouts\)", re.MULTILINE)


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text. Raises ReportError if there is none, or one of them is cut off."""
    parts = _START.split(text)
    parts = parts[1:] if len(parts) > 2 else [text]
    return [_from_text(part, f"report {n} of {len(parts)}") for n, part in enumerate(parts, 1)]


def _from_text(text: str, which: str) -> Report:
    requests = _REQUESTS.search(text)
    rows = [[cell.strip() for cell in re.split("[│|]", row[1])] for line in lines_of(text) if (row := _ROW.match(line))]
    latency = _table(rows, "Latency")
    if requests is None or latency is None:
        raise ReportError(f"{which} has no table of Latency with a line about requests below")
    answers, errors = _ANSWERS.search(text), _ERRORS.search(text)
    times = {ours: milliseconds(latency[theirs]) for theirs, ours in _FIELDS.items() if theirs in latency}
    for cells in rows:
        if len(cells) == 2 and cells[0] in _DETAILS:
            times[_DETAILS[cells[0]]] = number(cells[1])
    counters = {names.REQUESTS: int(amount(requests[1]))}
    if answers is not None:
        counters |= {_2XX: int(amount(answers[1])), _NON_2XX: int(amount(answers[2]))}
    if errors is not None:
        timeouts = int(amount(errors[2]))
        counters |= {f"{names.ERRORS}failed": int(amount(errors[1])) - timeouts, f"{names.ERRORS}timeout": timeouts}
    answered = counters.get(_2XX, 0) + counters.get(_NON_2XX, 0)
    failed = counters.get(f"{names.ERRORS}failed", 0) + counters.get(f"{names.ERRORS}timeout", 0)
    if answers is None:
        # Printed only where some answer was not 2xx.
        answered = max(0, counters[names.REQUESTS] - failed)
    counters[names.RESPONSES] = answered
    rate = _table(rows, "Req/Sec")
    rates = {names.REQUEST_RATE: Rate(number(rate["Avg"]))} if rate and "Avg" in rate else {}
    return _report(counters, rates, times if answered else {})


def _table(rows: list[list[str]], name: str) -> dict[str, str] | None:
    """Return the cells of the row of that name, by the headings above it."""
    headings: list[str] = []
    for row in rows:
        if row[0] == "Stat":
            headings = row
        elif row[0] == name and headings:
            return dict(zip(headings, row, strict=False))
    return None


def from_json(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    found = document(text)
    if not found.keys() >= {"latency", "requests", "non2xx", "connections"}:
        raise ReportError("no latency, requests, non2xx and connections")
    latency = each(an_object(found["latency"], "latency"), "latency", _number_or_none)
    sent = each(an_object(found["requests"], "requests"), "requests", _number_or_none)
    answered = int(sent.get("total") or 0)
    counters = {names.REQUESTS: int(sent.get("sent") or answered), names.RESPONSES: answered}
    codes = an_object(found.get("statusCodeStats", {}), "statusCodeStats")
    if answered and not codes:
        # Earlier releases do not tell codes apart.
        counters |= {_2XX: whole(found.get("2xx", 0), "2xx"), _NON_2XX: whole(found["non2xx"], "non2xx")}
    for code, counts in codes.items():
        counters[f"{names.CODES}{code}"] = whole(
            an_object(counts, f"statusCodeStats.{code}").get("count"), f"statusCodeStats.{code}"
        )
    timeouts = whole(found.get("timeouts", 0), "timeouts")
    failed = whole(found.get("errors", 0), "errors") - timeouts
    counters |= {f"{names.ERRORS}failed": failed} if failed > 0 else {}
    counters |= {f"{names.ERRORS}timeout": timeouts} if timeouts else {}
    times = {ours: latency[theirs] for theirs, ours in _JSON_FIELDS.items() if latency.get(theirs) is not None}
    average = sent.get("average")
    rates = {} if average is None else {names.REQUEST_RATE: Rate(average)}
    return _report(counters, rates, times if answered else {})


def _number_or_none(value: Any, place: str) -> float | None:
    return None if value is None else a_number(value, place)


def _report(counters: Mapping[str, int], rates: Mapping[str, Rate], times: Mapping[str, Any]) -> Report:
    summaries = {names.RESPONSE_TIME: Summary(**times, count=counters[names.RESPONSES])} if times else {}
    return Report(Period(0, dict(counters), dict(rates), summaries), extras=Extras("autocannon", "closed"))
