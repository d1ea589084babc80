"""Reader of the text summaries of hey and oha, whose response time is the whole request with connecting and the body.

Percentiles for which hey had too few samples (it prints `0% in 0.0000 secs`) and its NaN are absent here.
"""

from __future__ import annotations

import re
from typing import Any

from reports import names
from reports.formats.durations import DURATION, milliseconds, number
from reports.formats.oha import CUT_OFF
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_BUCKET = re.compile(r"[\d.]+(?: \w+)? \[(\d+)\].*")
_COUNT = re.compile(r"Count: *\d+")
_TIME = re.compile(rf"(Slowest|Fastest|Average): *({DURATION})")
_RATE = re.compile(r"Requests/sec: *([\d.]+)")
_PERCENTILE = re.compile(rf"([\d.]+)%+ in ({DURATION})")
_OTHER_STATUS = re.compile(r"\[[A-Za-z]\w*\] *\d+ responses?")
_STATUS = re.compile(r"\[(\d{3})\] (\d+) responses?")
_ERROR = re.compile(r"\[(\d+)\] (\D.*)")
_FIELDS = {"Slowest": "max", "Fastest": "min", "Average": "mean"}
_PERCENTILES = {"50": "p50", "75": "p75", "90": "p90", "95": "p95", "99": "p99", "99.9": "p999"}


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text; each begins with `Summary:`, or with its total time.

    Raises ReportError if there is none, or one of them is cut off.
    """
    lines = lines_of(text)
    starts: list[int] = []
    seen: set[str] = set()
    for at, line in enumerate(lines):
        label = line.strip(" \t>|`*").partition(":")[0]
        if label == "Summary" or (label in ("Success rate", "Total") and (not starts or label in seen)):
            starts.append(at)
            seen = set()
        seen.add(label)
    starts = starts or [0]
    ends = [*starts[1:], len(lines)]
    return [from_text("\n".join(lines[start:end])) for start, end in zip(starts, ends, strict=True)]


def from_text(text: str) -> Report:
    """Read the report in a text, also with its indentation lost. Raises ReportError for any other text."""
    lines = [" ".join(line.strip(" \t>|`*").split()) for line in lines_of(text)]
    rate = next((found for line in lines if (found := _RATE.fullmatch(line))), None)
    if rate is None or not any(line.startswith(("Fastest:", "Status code distribution:")) for line in lines):
        raise ReportError("no Requests/sec with Fastest or Status code distribution")
    if any(_OTHER_STATUS.fullmatch(line) or _COUNT.fullmatch(line) for line in lines):
        raise ReportError("its statuses are not those of HTTP: the report of another tool (ghz?)")
    oha = any(line.startswith("Success rate:") for line in lines)
    figures: dict[str, Any] = {}
    counters: dict[str, int] = {}
    for line in lines:
        if time := _TIME.fullmatch(line):
            figures.setdefault(_FIELDS[time[1]], milliseconds(time[2]))
        elif (percentile := _PERCENTILE.fullmatch(line)) and f"{number(percentile[1]):g}" in _PERCENTILES:
            figures.setdefault(_PERCENTILES[f"{number(percentile[1]):g}"], milliseconds(percentile[2]))
        elif status := _STATUS.fullmatch(line):
            counters.setdefault(f"{names.CODES}{status[1]}", int(status[2]))
        elif (error := _ERROR.fullmatch(line)) and error[2] != CUT_OFF:
            counters.setdefault(f"{names.ERRORS}{error[2]}", int(error[1]))
    answered = sum(count for name, count in counters.items() if name.startswith(names.CODES))
    in_histogram = sum(int(found[1]) for line in lines if (found := _BUCKET.fullmatch(line)))
    if answered < in_histogram and counters:
        raise ReportError("the report is cut off: its statuses are fewer than the answers in its histogram")
    if counters:
        counters = {names.REQUESTS: sum(counters.values()), names.RESPONSES: answered, **counters}
    # The zeros that are printed where nothing was answered are no times.
    measured = answered or (not counters and figures.get("max"))
    summaries = {names.RESPONSE_TIME: Summary(**figures, count=answered or None)} if measured else {}
    rates = {names.REQUEST_RATE: Rate(float(rate[1]))}
    return Report(Period(0, counters, rates, summaries), extras=Extras("oha" if oha else "hey", "closed"))
