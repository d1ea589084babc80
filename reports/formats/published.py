"""The figures of the two published experiments, as reports to which the lab compares its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from reports.formats.apachebench import AbReport, AbRow
from reports.model import Period, Report, ReportError, Summary

_SAME_NAME = (
    "concurrency",
    "time_taken_s",
    "complete",
    "failed",
    "non_2xx",
    "requests_per_second",
    "time_per_request_ms",
    "time_per_request_all_ms",
    "transfer_rate_kbytes_s",
)
_ROWS = ("connect", "processing", "waiting", "total")


@dataclass(frozen=True, slots=True)
class PublishedExperiment:
    """One published experiment. Figures that its source does not give are absent from the report."""

    id: str
    source: str
    """"A" or "B"."""
    title: str
    report: Report
    ab: AbReport | None = None
    """The ApacheBench report of an experiment of source B; `report.extras.ab` has the same figures."""
    total_time_s: float | None = None
    summary_at: str | None = None
    """The time of day in the heading of the published summary."""


@dataclass(frozen=True, slots=True)
class Gain:
    """One row of source B's own summary: the original figure, the final figure, and the gain in its words.

    The source prints ratios as percentages: 257 instead of 44 requests/s, 5.84 times as many, stands as "+584.09%".
    """

    group: str
    """"single" or "concurrent" users."""
    figure: str
    old: float
    new: float
    printed: str


@cache
def experiments() -> Mapping[str, PublishedExperiment]:
    """Return all published experiments by id, in the order of the sources."""
    document = _document()
    found = [_artillery_experiment(e) for e in document["artillery"]] + [_ab_experiment(e) for e in document["ab"]]
    return {experiment.id: experiment for experiment in found}


def published(experiment_id: str) -> Report:
    """Return the report of one experiment. Raises ReportError, with the known ids, for an unknown one."""
    known = experiments()
    if experiment_id not in known:
        raise ReportError(f"nothing was published as {experiment_id!r}; there are {', '.join(known)}")
    return known[experiment_id].report


@cache
def gains() -> tuple[Gain, ...]:
    """Return source B's table of gains."""
    document = _document()["gains"]
    return tuple(
        Gain(group, figure, document[group][figure][0], document[group][figure][1], printed)
        for group in ("single", "concurrent")
        for figure, printed in zip(("processed", "rps", "time_per_request_ms"), document[group]["gains"], strict=True)
    )


@cache
def facts(source: str) -> tuple[str, ...]:
    """Return what a source ("A" or "B") states in words."""
    return tuple(_document()["facts"][source])


@cache
def _document() -> Mapping[str, Any]:
    text = (files("reports") / "data" / "published.json").read_text("utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document


def _artillery_experiment(entry: Mapping[str, Any]) -> PublishedExperiment:
    summaries = {name: _summary(figures) for name, figures in entry["summaries"].items()}
    total = Period(start_ms=0, counters=entry["counters"], summaries=summaries)
    return PublishedExperiment(
        id=entry["id"],
        source=entry["source"],
        title=entry["title"],
        report=Report(total),
        total_time_s=entry["total_time_s"],
        summary_at=entry["summary_at"],
    )


def _summary(figures: Mapping[str, float]) -> Summary:
    return Summary(**{"p50" if key == "median" else key: float(figure) for key, figure in figures.items()})  # type: ignore[arg-type]


def _ab_experiment(entry: Mapping[str, Any]) -> PublishedExperiment:
    ab = AbReport(
        **{name: entry[name] for name in _SAME_NAME},
        total_bytes=entry["total_transferred_bytes"],
        html_bytes=entry["html_transferred_bytes"],
        rows={name: AbRow(*entry[name]) for name in _ROWS},
        percentiles={int(percentage): ms for percentage, ms in entry["percentiles"].items()},
    )
    title = f"{entry['strategy']}, {entry['concurrency']} at a time"
    return PublishedExperiment(entry["id"], entry["source"], title, ab.as_report(), ab)
