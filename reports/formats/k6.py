"""Reader of k6's summaries: its text (before 1.0 and since), and its JSON in three shapes.

The JSON is what `--summary-export` writes, what `handleSummary` is given, and the newer one with `results`.

`http_req_duration` (sending, waiting, receiving) becomes `http.response_time`, which in Artillery ends with the first
byte; what k6 counts as failed becomes `errors.http_req_failed`, and the time of an iteration becomes the length of a session.
Other metrics keep their names in k6, as do those of a part of the requests (`http_req_duration{…}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reports import names
from reports.formats.durations import DURATION, amount, milliseconds, number
from reports.formats.json_values import an_object, document, each, whole
from reports.formats.json_values import number as a_number
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_TRENDS = {"http_req_duration": names.RESPONSE_TIME, "iteration_duration": names.SESSION_LENGTH}
_COUNTERS = {
    "http_reqs": names.REQUESTS,
    "iterations": names.VUSERS_COMPLETED,
    "dropped_iterations": names.VUSERS_SKIPPED,
}
_FIELDS = {"avg": "mean", "med": "p50", "min": "min", "max": "max", "count": "count"}
# The marks before a line may have become several letters, where its text was read in another character set.
_LINE = re.compile(r"(?:[^\w\s{] ?|\S{1,3} )?(\w+(?:\{[^}]*\})?|\{.*?\})\.*: (.+)")
_FIGURE = re.compile(r"(avg|min|med|max|p\([\d.]+\)|count)=(\S+)")
_PASSED = re.compile(r"([\d.]+)% +\S{1,3} (\d+) +\S{1,3} (\d+)")
_OUT_OF = re.compile(r"([\d.]+)% +(\d+) out of (\d+)")
_COUNTED = re.compile(r"([\d.]+ ?[kKMG]?i?B?) +([\d.]+ ?[kKMG]?i?B?)/s")
_GAUGE = re.compile(r"([\d.]+) +min=([\d.]+) +max=([\d.]+)")
_NEEDED = {"http_reqs", "iterations", "http_req_duration"}
_QUOTED = 2
"""The most metrics of a report that prose quotes."""
_PERCENTILE = re.compile(r"p\(?(50|75|90|95|99|99\.9|999)\)?")


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text; a metric that is printed again begins the next one.

    A line or two that prose quotes beside a whole report are none. Raises ReportError if there is no report, or one of them is
    cut off.
    """
    reports: list[dict[str, dict[str, float]]] = [{}]
    last = ""
    for raw in lines_of(text):
        match = _LINE.match(raw.strip(" \t>|`*"))
        if match is None:
            continue
        name, said = match[1], match[2].strip()
        if name.startswith("{"):
            name = last + re.sub(r"\s+", "", name)
        else:
            last = name
            if name in reports[-1]:
                reports.append({})
        if values := _printed(said):
            reports[-1].setdefault(name, values)
    whole = [each for each in reports if len(each) > _QUOTED] or reports
    cut = next((n for n, each in enumerate(whole, 1) if not each.keys() & _NEEDED), None)
    if cut is not None and len(whole) > 1:
        raise ReportError(f"report {cut} of {len(whole)} is cut off: it has no http_reqs and iterations")
    return [_report(each) for each in whole]


def _printed(said: str) -> dict[str, float]:
    """Return the figures of one line, times in ms; a line of another kind has none."""
    if trend := dict(_FIGURE.findall(said)):
        return _trend(trend)
    if rate := _PASSED.fullmatch(said):
        return {"rate": number(rate[1]) / 100, "passes": number(rate[2]), "fails": number(rate[3])}
    if share := _OUT_OF.fullmatch(said):
        passes, total = number(share[2]), number(share[3])
        return {"rate": number(share[1]) / 100, "passes": passes, "fails": total - passes}
    if count := _COUNTED.fullmatch(said):
        return {"count": amount(count[1]), "rate": amount(count[2])}
    if gauge := _GAUGE.fullmatch(said):
        return {"value": amount(gauge[1]), "min": amount(gauge[2]), "max": amount(gauge[3])}
    return {}


def _trend(printed: Mapping[str, str]) -> dict[str, float]:
    """Return the figures of a distribution: times in ms, or plain numbers.

    A terminal cuts long lines, and so the last figure; one that is cut is left out. A whole one of a time ends with its
    seconds, even one of minutes (`1m2.5s`).
    """
    times = {name: value for name, value in printed.items() if name != "count" and re.fullmatch(DURATION, value)}
    if not times:
        return {name: amount(value) for name, value in printed.items()}
    found = {name: milliseconds(value) for name, value in times.items() if value.endswith("s")}
    return found | ({"count": amount(printed["count"])} if "count" in printed else {})


def from_json(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    metrics = _metrics(document(text))
    return _report({name: _values(metric, f"metrics.{name}") for name, metric in metrics.items()})


def _report(values: Mapping[str, Mapping[str, float]]) -> Report:
    if not values.keys() & _NEEDED:
        raise ReportError("no metrics.http_reqs or iterations")
    requests = values.get("http_reqs", {})
    summaries = {_TRENDS.get(name, name): _summary(v) for name, v in values.items() if "avg" in v or "med" in v}
    # Each request is timed once.
    if names.RESPONSE_TIME in summaries and "count" in requests:
        summaries[names.RESPONSE_TIME] = replace(
            summaries[names.RESPONSE_TIME], count=whole(requests["count"], "http_reqs")
        )
    counters = {
        ours: whole(values[name]["count"], name) for name, ours in _COUNTERS.items() if "count" in values.get(name, {})
    }
    failed = values.get("http_req_failed", {})
    # Of "has it failed?": those that passed are the failed ones.
    if "passes" in failed:
        counters[f"{names.ERRORS}http_req_failed"] = whole(failed["passes"], "http_req_failed")
    elif "rate" in failed and "count" in requests:
        counters[f"{names.ERRORS}http_req_failed"] = round(failed["rate"] * requests["count"])
    times, failures = summaries.get(names.RESPONSE_TIME), counters.get(f"{names.ERRORS}http_req_failed", 0)
    if times is not None and times.max == 0 and failures >= counters.get(names.REQUESTS, 0) > 0:
        # The zeros that are printed where nothing was answered are no times.
        del summaries[names.RESPONSE_TIME]
    checks = values.get("checks", values.get("checks_succeeded", {}))
    if "passes" in checks and "fails" in checks:
        counters["checks.succeeded"] = whole(checks["passes"], "checks")
        counters["checks.failed"] = whole(checks["fails"], "checks")
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
    """Return the figures of a metric: the older form has them beside its thresholds, the newer form under `values`."""
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
