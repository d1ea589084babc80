"""Reader of oha's JSON (`oha --json`, `--output-format json`); its text is read with hey's.

Its response time is the whole request with connecting and the body, of requests that were answered; oha writes it in seconds.
Requests that the end of the run cut off (one on each connection) are not counted, as in oha's own success rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import names
from reports.formats.json_values import an_object, document, each, whole
from reports.formats.json_values import number as a_number
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_FIELDS = {"fastest": "min", "average": "mean", "slowest": "max"}
_PERCENTILES = {"p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999"}

CUT_OFF = "aborted due to deadline"
"""What oha files a request under that was still under way when the run ended (`-z`)."""


def from_json(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    found = document(text)
    if not found.keys() >= {"summary", "latencyPercentiles", "statusCodeDistribution"}:
        raise ReportError("no summary, latencyPercentiles and statusCodeDistribution")
    summary = _numbers(found["summary"], "summary")
    percentiles = _numbers(found["latencyPercentiles"], "latencyPercentiles")
    codes = each(an_object(found["statusCodeDistribution"], "statusCodeDistribution"), "statusCodeDistribution", whole)
    errors = each(an_object(found.get("errorDistribution", {}), "errorDistribution"), "errorDistribution", whole)
    errors = {error: count for error, count in errors.items() if error != CUT_OFF}
    answered = sum(codes.values())
    counters = {names.REQUESTS: answered + sum(errors.values()), names.RESPONSES: answered}
    counters |= {f"{names.CODES}{code}": count for code, count in codes.items()}
    counters |= {f"{names.ERRORS}{error}": count for error, count in errors.items()}
    times = {ours: summary[key] * 1000 for key, ours in _FIELDS.items() if key in summary}
    times |= {ours: percentiles[key] * 1000 for key, ours in _PERCENTILES.items() if key in percentiles}
    times = {name: round(ms, 6) for name, ms in times.items()}
    summaries = {names.RESPONSE_TIME: Summary(**times, count=answered)} if answered else {}
    rates = {names.REQUEST_RATE: Rate(summary["requestsPerSec"])} if "requestsPerSec" in summary else {}
    return Report(Period(0, counters, rates, summaries), extras=Extras("oha", "closed"))


def _numbers(value: Any, place: str) -> Mapping[str, float]:
    """Return the numbers of an object; those that oha does not know are null."""
    known = {key: figure for key, figure in an_object(value, place).items() if figure is not None}
    return each(known, place, a_number)
