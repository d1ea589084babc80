"""What reports say, as figures by name that can be compared: shares of failures, counters, rates, distributions, ab's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from reports import names
from reports.answers import failures, requests
from reports.compare.rates import measured_rate
from reports.formats.apachebench import DOING_WHAT, PERCENTILES, AbReport
from reports.model import Extras, Period, Rate, Report, Summary

Kind = Literal["share", "counter", "rate", "summary", "ab"]

Figures = Mapping[tuple[Kind, str], float]
"""One run's figures by kind and name; of a distribution with its row: `http.response_time.p95`."""

ERRORS = "errors"
"""The share of requests that failed: those without an answer (`errors.*`) and those answered by a status of 500 or more. In
an ab report without other metrics, its failed requests."""

SUMMARY_ROWS = ("count", "min", "mean", "median", "p75", "p90", "p95", "p99", "p999", "max")
"""The figures of a distribution that are compared."""

_AB_TOTALS = (
    "concurrency",
    "time_taken_s",
    "complete",
    "failed",
    "write_errors",
    "non_2xx",
    "keep_alive",
    "total_bytes",
    "body_sent_bytes",
    "html_bytes",
    "requests_per_second",
    "time_per_request_ms",
    "time_per_request_all_ms",
    "transfer_rate_kbytes_s",
)
_AB_FAILURES = ("connect", "receive", "length", "exceptions")
_AB_TABLE = tuple((row, column) for row in DOING_WHAT for column in ("min", "mean", "sd", "median", "max"))
_AB_NAMES = (
    *(f"ab.{name}" for name in _AB_TOTALS),
    *(f"ab.failures.{kind}" for kind in _AB_FAILURES),
    *(f"ab.{row}.{column}" for row, column in _AB_TABLE),
    *(f"ab.percentile.{percentage}" for percentage in PERCENTILES),
)
_AB_HIGHER = ("ab.requests_per_second", "ab.transfer_rate_kbytes_s")
AB_SHARES = ("ab.failed", "ab.non_2xx", "ab.write_errors")
"""Counts in ab's report that are judged as shares of its complete requests."""


def figures_of(runs: Sequence[Report]) -> list[Figures]:
    """The figures of each run. A rate is events over measured seconds where every run that has it says both."""
    found = [_figures(run) for run in runs]
    for name in {name for figures in found for kind, name in figures if kind == "rate"}:
        having = [i for i, figures in enumerate(found) if ("rate", name) in figures]
        measured = {i: measured_rate(runs[i], name) for i in having if runs[i].periods}
        rates = {i: rate.per_second for i, rate in measured.items() if rate is not None}
        if len(rates) == len(having):
            for i, per_second in rates.items():
                found[i]["rate", name] = per_second
    return [dict(figures) for figures in found]


def _figures(report: Report) -> dict[tuple[Kind, str], float]:
    total = report.aggregate
    found: dict[tuple[Kind, str], float] = {}
    if sent := requests(total.counters):
        failed = sum(total.counters[name] for name in failures(total.counters))
        found["share", ERRORS] = min(1.0, failed / sent)
    found |= {("counter", name): count for name, count in sorted(total.counters.items())}
    found |= {("rate", name): rate.per_second for name, rate in sorted(total.rates.items())}
    for name, summary in sorted(total.summaries.items()):
        rows = ((row, getattr(summary, row)) for row in SUMMARY_ROWS)
        found |= {("summary", f"{name}.{row}"): figure for row, figure in rows if figure is not None}
    if report.extras and report.extras.ab:
        ab = AbReport.from_json(report.extras.ab)
        found |= {("ab", name): figure for name, figure in _ab_figures(ab).items()}
        if ab.complete and ab.failed is not None:
            found.setdefault(("share", ERRORS), min(1.0, ab.failed / ab.complete))
    return found


def _ab_figures(ab: AbReport) -> dict[str, float]:
    found = {f"ab.{name}": getattr(ab, name) for name in _AB_TOTALS}
    found |= {f"ab.failures.{kind}": getattr(ab.failures, kind, None) for kind in _AB_FAILURES}
    found |= {f"ab.{row}.{column}": getattr(ab.rows.get(row), column, None) for row, column in _AB_TABLE}
    found |= {f"ab.percentile.{percentage}": ab.percentiles.get(percentage) for percentage in PERCENTILES}
    return {name: figure for name, figure in found.items() if figure is not None}


_KINDS = ("share", "counter", "rate", "summary", "ab")
_AB_ORDER = {name: i for i, name in enumerate(_AB_NAMES)}
_ROW_ORDER = {row: i for i, row in enumerate(SUMMARY_ROWS)}


def place(key: tuple[Kind, str]) -> tuple[int, str, int]:
    """Where a figure stands in a comparison: by kind, then name; rows and ab's figures in their usual order."""
    kind, name = key
    if kind == "summary":
        metric, _, row = name.rpartition(".")
        return _KINDS.index(kind), metric, _ROW_ORDER[row]
    return (_KINDS.index(kind), "", _AB_ORDER[name]) if kind == "ab" else (_KINDS.index(kind), name, 0)


def mean_of(runs: Sequence[Figures], key: tuple[Kind, str], absent: float | None) -> float | None:
    """Mean of a figure over runs; `absent` stands for it in a run that counts requests and does not have it."""
    found = (run.get(key, absent if _counts_requests(run) else None) for run in runs)
    values = [value for value in found if value is not None]
    if not values:
        return None
    return values[0] if len(values) == 1 else sum(values) / len(values)


def _counts_requests(run: Figures) -> bool:
    return ("counter", names.REQUESTS) in run or any(k == "counter" and n.startswith(names.CODES) for k, n in run)


def whole_of(name: str, run: Figures) -> float:
    """What a counter is a share of in this run; 0 where the run does not say."""
    of = names.share_of(name)
    whole = sum(run.get(("counter", part), 0) for part in of)
    if whole or of != (names.REQUESTS,):
        return whole
    return requests({part: int(n) for (k, part), n in run.items() if k == "counter"}) or 0


def better(name: str, kind: Kind) -> names.Direction | None:
    """Which way a figure is better; None where neither is."""
    if kind == "ab":
        neutral = name in ("ab.concurrency", "ab.complete", "ab.keep_alive", "ab.time_taken_s") or name.endswith(
            "_bytes"
        )
        return None if neutral else "higher" if name in _AB_HIGHER else "lower"
    if kind == "share":
        return "lower"
    return None if kind == "summary" and name.endswith(".count") else names.better(name)


# Tools


def tool(report: Report) -> str:
    """The program whose report this is; of ours its version."""
    return report.extras.tool_version if report.extras else "Artillery"


def is_of_another_tool(report: Report) -> bool:
    """Whether the report is neither ours nor Artillery 2's, so that its names and clocks may be others."""
    return tool(report) in _OTHER_TOOLS


def same_tool(runs: Sequence[Report]) -> bool:
    """Whether all runs are of one tool; ours and Artillery measure the same and count as one."""
    tools = {tool(report) for report in runs}
    return len(tools) == 1 or not tools & _OTHER_TOOLS


_OTHER_TOOLS = {
    *("ApacheBench 2.3", "Artillery 1", "JMeter", "Locust", "autocannon", "hey", "k6", "oha", "vegeta", "wrk", "wrk2"),
}
"""What readers of other tools' reports put into `Extras.tool_version`; ours write Poolbench's version there."""


def in_same_terms(old: Report, new: Report) -> tuple[Report, Report]:
    """Two reports that can be compared: ab's figures that one side alone has are given the names of other tools' readers."""
    told = [report.extras.ab if report.extras else None for report in (old, new)]
    if all(told) or not any(told):
        return old, new
    return without_ab(old), without_ab(new)


def is_only_ab(report: Report) -> bool:
    """Whether a report was read from ApacheBench's text, so that it has ab's figures and no metrics."""
    total = report.aggregate
    bare = not (total.counters or total.rates or total.summaries)
    return bare and report.extras is not None and report.extras.ab is not None


def without_ab(report: Report) -> Report:
    """The report without ab's own figures; where it has no others, with these under the names of other tools' readers.

    ab's total time, from the start of the connection to the last byte, becomes the response time; what only ab measures is
    left out.
    """
    if report.extras is None or not report.extras.ab:
        return report
    if report.aggregate.summaries:
        return Report(report.aggregate, report.periods, replace(report.extras, ab=None))
    ab = AbReport.from_json(report.extras.ab)
    total, at = ab.rows.get("total"), {p: float(ms) for p, ms in ab.percentiles.items()}
    shape = {} if total is None else {"min": float(total.min), "mean": float(total.mean), "max": float(total.max)}
    shape |= {f"p{p}": at[p] for p in (50, 75, 90, 95, 99) if p in at}
    counters = {names.REQUESTS: ab.complete, f"{names.ERRORS}failed": ab.failed}
    period = Period(
        start_ms=0,
        counters={name: count for name, count in counters.items() if count is not None},
        rates={} if ab.requests_per_second is None else {names.REQUEST_RATE: Rate(ab.requests_per_second)},
        summaries={names.RESPONSE_TIME: Summary(**shape, count=ab.complete)} if shape else {},
    )
    return Report(period, extras=Extras("ApacheBench 2.3", "closed", partial=report.extras.partial))
