"""Reader of hey's text summary. Its response time is the whole request, connecting and the body included.

Percentiles that hey could not fill (it prints `0% in 0.0000 secs` then) and its NaN are absent here.
"""

from __future__ import annotations

import re
from typing import Any

from reports import names
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_TIME = re.compile(r"(Slowest|Fastest|Average): *([\d.]+) secs")
_RATE = re.compile(r"Requests/sec: *([\d.]+)")
_PERCENTILE = re.compile(r"(\d+)%+ in ([\d.]+) secs")
_STATUS = re.compile(r"\[(\d{3})\] (\d+) responses?")
_ERROR = re.compile(r"\[(\d+)\] (\D.*)")
_FIELDS = {"Slowest": "max", "Fastest": "min", "Average": "mean"}
_PERCENTILES = {"50": "p50", "75": "p75", "90": "p90", "95": "p95", "99": "p99"}


def from_text(text: str) -> Report:
    """The report in a text, also with its indentation lost. Raises ReportError for any other text."""
    lines = [" ".join(line.strip(" \t>|`*").split()) for line in text.splitlines()]
    rate = next((found for line in lines if (found := _RATE.fullmatch(line))), None)
    if rate is None or not any(line.startswith(("Fastest:", "Status code distribution:")) for line in lines):
        raise ReportError("no Requests/sec with Fastest or Status code distribution")
    figures: dict[str, Any] = {}
    counters: dict[str, int] = {}
    for line in lines:
        if time := _TIME.fullmatch(line):
            figures.setdefault(_FIELDS[time[1]], _ms(time[2]))
        elif (percentile := _PERCENTILE.fullmatch(line)) and percentile[1] in _PERCENTILES:
            figures.setdefault(_PERCENTILES[percentile[1]], _ms(percentile[2]))
        elif status := _STATUS.fullmatch(line):
            counters.setdefault(f"{names.CODES}{status[1]}", int(status[2]))
        elif error := _ERROR.fullmatch(line):
            counters.setdefault(f"{names.ERRORS}{error[2]}", int(error[1]))
    answered = sum(count for name, count in counters.items() if name.startswith(names.CODES))
    if counters:
        counters = {names.REQUESTS: sum(counters.values()), names.RESPONSES: answered, **counters}
    summaries = {names.RESPONSE_TIME: Summary(**figures, count=answered or None)} if "mean" in figures else {}
    rates = {names.REQUEST_RATE: Rate(float(rate[1]))}
    return Report(Period(0, counters, rates, summaries), extras=Extras("hey", "closed"))


def _ms(seconds: str) -> float:
    return round(float(seconds) * 1000, 4)
