"""Reader of k6's summary JSON: `--summary-export`, what `handleSummary` is given, and the newer one with `results`.

`http_req_duration` (sending, waiting, receiving) becomes `http.response_time`, which in Artillery ends with the first
byte; what k6 counts as failed becomes `errors.http_req_failed`, the time of an iteration a session's. Other metrics keep
k6's names; those of a part of the requests (`http_req_duration{…}`) too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reports import names
from reports.formats.json_values import an_object, document, each, whole
from reports.formats.json_values import number as a_number
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_TRENDS = {"http_req_duration": names.RESPONSE_TIME, "iteration_duration": names.SESSION_LENGTH}
_COUNTERS = {
    "http_reqs": names.REQUESTS,
    "iterations": names.VUSERS_COMPLETED,
    "dropped_iterations": names.VUSERS_SKIPPED,
}
_FIELDS = {"avg": "mean", "med": "p50", "min": "min", "max": "max", "count": "count"}
_PERCENTILE = re.compile(r"p\(?(50|75|90|95|99|99\.9|999)\)?")


def from_json(text: str) -> Report:
    """The report in a text. Raises ReportError (one line) for any other text."""
    metrics = _metrics(document(text))
    values = {name: _values(metric, f"metrics.{name}") for name, metric in metrics.items()}
    if not values.keys() & {"http_reqs", "iterations", "http_req_duration"}:
        raise ReportError("no metrics.http_reqs or iterations")
    requests = values.get("http_reqs", {})
    summaries = {_TRENDS.get(name, name): _summary(v) for name, v in values.items() if "avg" in v or "med" in v}
    if names.RESPONSE_TIME in summaries and "count" in requests:  # each request is timed once
        summaries[names.RESPONSE_TIME] = replace(
            summaries[names.RESPONSE_TIME], count=whole(requests["count"], "http_reqs")
        )
    counters = {
        ours: whole(values[name]["count"], name) for name, ours in _COUNTERS.items() if "count" in values.get(name, {})
    }
    failed = values.get("http_req_failed", {})
    if "passes" in failed:  # of "has it failed?": those that passed are the failed ones
        counters[f"{names.ERRORS}http_req_failed"] = whole(failed["passes"], "http_req_failed")
    elif "rate" in failed and "count" in requests:
        counters[f"{names.ERRORS}http_req_failed"] = round(failed["rate"] * requests["count"])
    rates = {names.REQUEST_RATE: Rate(requests["rate"])} if "rate" in requests else {}
    return Report(Period(0, counters, rates, summaries), extras=Extras("k6", ""))


def _metrics(found: Mapping[str, Any]) -> Mapping[str, Any]:
    listed = found.get("metrics")
    if listed is None:
        listed = an_object(found.get("results"), "results").get("metrics")
    if isinstance(listed, list):
        listed = {str(metric["name"]): metric for metric in listed if isinstance(metric, dict) and "name" in metric}
    return an_object(listed, "metrics")


def _values(metric: Any, place: str) -> dict[str, float]:
    """The figures of a metric, which the older shape has beside its thresholds and the newer under `values`."""
    found = an_object(metric, place)
    found = an_object(found.get("values", found), place)
    return each({key: v for key, v in found.items() if isinstance(v, int | float)}, place, a_number)


def _summary(values: Mapping[str, float]) -> Summary:
    figures: dict[str, Any] = {ours: float(values[key]) for key, ours in _FIELDS.items() if key in values}
    if "count" in figures:
        figures["count"] = int(figures["count"])
    for key, value in values.items():
        if percentile := _PERCENTILE.fullmatch(key):
            figures[f"p{percentile[1].replace('.', '')}"] = float(value)
    return Summary(**figures)
