"""Recognises outputs that look like reports and are not read here, so that a refusal can say what would be."""

from __future__ import annotations

import re

_PAGE = re.compile(r"\s*(?:<!doctype html|<html)", re.IGNORECASE)
_OTHERS = (
    (
        re.compile(r'\A\s*\{"(?:metric":"|type":"(?:Metric|Point)")'),
        "it is k6's stream of samples (--out json); `k6 run --summary-export FILE` writes a summary that can be read",
    ),
    (
        re.compile(r"\A\s*response-time,DNS\+dialup,"),
        "it is hey's list of requests (-o csv); hey's summary can be read",
    ),
    (
        re.compile(r"\A\s*Bucket +# +% +Histogram"),
        "it is vegeta's histogram, which has no times; `vegeta report` and its -type=json can be read",
    ),
    (
        re.compile(r"^[ \t>|`*]*Summary:\s*\n[ \t>|`*]*Count:\s*\d", re.MULTILINE),
        "it is a report of ghz, which measures gRPC",
    ),
    (re.compile(r"^-{1,40} Global Information -", re.MULTILINE), "it is a report of Gatling"),
)
_BEGINNING = 1_000_000
_OURS = {
    "plan": ('"wait_mean_error_ms"', '"knee_per_s"'),
    "sweep": ('"target_p99_ms"', '"settled"', '"sizes"'),
    "capacity": ('"rate"', '"low"', '"high"', '"limit"', '"steps"'),
    "doctor": ('"findings"', '"checked"'),
    "diff": ('"metrics"', '"verdict"'),
}
"""Keys that the results of our commands have, in JSON."""
_GHZ_KEYS = ('"latencyDistribution"', '"histogram"', '"statusCodeDistribution"')


def stranger(text: str) -> str | None:
    """Return what a text is, in a few words, if it is of a kind that is known and not read; else None."""
    text = text[:_BEGINNING]
    if not text.strip():
        return "it is empty"
    if "\0" in text:
        return "it is not text"
    if _PAGE.match(text):
        if "locust" in text.lower():
            return "it is a page of Locust; its CSV files (`locust --csv NAME`) can be read"
        return "it is a page; what can be read is a tool's text, JSON or CSV"
    if text.lstrip().startswith("{") and all(key in text for key in _GHZ_KEYS):
        return "it is a report of ghz, which measures gRPC"
    if text.lstrip().startswith("{"):
        for command, keys in _OURS.items():
            if all(key in text for key in keys):
                return f"it is a result of loadgen {command}, not the report of a run"
    return next((what for pattern, what in _OTHERS if pattern.search(text)), None)
