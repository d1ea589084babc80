"""Reader of Artillery's console text: as it was printed by any 2.0 release, or as people paste it.

Indentation may be lost, dots fewer or gone, headings turned into Markdown's, prose and quote marks around it, metrics
left out, several reports one after the other. A line `name:` opens a distribution; min, max, mean, median, p50 … p999
below it are its rows, also where other metrics stand in between. `label: ....... value` is a counter, with `/sec` a
rate. The text has times of day without a date, so periods are placed on 1970-01-01 (local to the text), and a period
that ends before the one above it, on the next day. A first period that began before midnight puts all on 1970-01-02.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from reports import names
from reports.formats.plain_text import lines_of
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, ReportError, Summary, aggregate

_DAY_MS = 86_400_000
_SUMMARY_HEADING = re.compile(r"Summary report(?: @ (?P<time>[\d:]+).*)?")
_PERIOD_HEADING = re.compile(r"Metrics for period to: *(?P<time>[\d:]+)(?:\([-+\d]*\))? *(?:\(width: *[\d.]+s\))?.*")
_LINE = re.compile(
    r"(?P<label>\S.*?)(?:: ?(?P<dots>\.*)|(?P<cut>(?<=\S)\.\.\.)) ?(?P<value>-?\d+(?:\.\d+)?(?:e[-+]?\d+)?) ?(?P<rate>/sec)?"
)
_OPENING = re.compile(r"(?P<name>[\w/{][^:]*(?::\S[^:]*)*):")
_ROWS = {"min": "min", "max": "max", "mean": "mean", "median": "p50", "p50": "p50"} | {
    row: row for row in ("p75", "p90", "p95", "p99", "p999")
}
# Its name before January 2022.
_RENAMED = {"vusers.created.total": names.VUSERS_CREATED}
_KNOWN = ("http.", "vusers.", names.ERRORS, "plugins.", "apdex.", "browser.", "socketio.", "websocket.")


@dataclass(slots=True)
class _ConsoleSection:
    """The metrics under one heading."""

    of_period: bool = False
    heading: str = ""
    at_ms: int | None = None
    counters: dict[str, int] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    summaries: dict[str, dict[str, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.counters or self.rates or any(self.summaries.values()))


def from_text(text: str) -> list[Report]:
    """Every report of a text, in its order: each summary with the periods above it. Raises ReportError if none.

    Metrics above the first heading are prose's; where there are no headings at all, a metric that comes again begins
    another report. Periods without a summary are those of an interrupted run: their report is partial.
    """
    reports: list[Report] = []
    pending: list[_ConsoleSection] = []
    sections = _sections(text)
    headed = any(section.heading for section in sections)
    for section in sections:
        if headed and not section.heading:
            continue
        if section.of_period:
            pending.append(section)
        else:
            reports.append(_report(section, pending))
            pending = []
    if pending:
        # The run was interrupted, or only a part of the text was pasted.
        reports.append(_interrupted(pending))
    if not reports:
        raise ReportError("no Summary report and no metric lines")
    return reports


def _sections(text: str) -> list[_ConsoleSection]:
    sections = [_ConsoleSection()]
    open_name = ""
    for raw in lines_of(text):
        line = " ".join(re.sub(r"\x1b\[[\d;]*m", "", raw).strip(" \t>|`*#").split())
        if heading := _SUMMARY_HEADING.fullmatch(line):
            open_name = ""
            sections.append(_ConsoleSection(False, line, _ms_of_day(heading["time"])))
        elif heading := _PERIOD_HEADING.fullmatch(line):
            open_name = ""
            sections.append(_ConsoleSection(True, line, _ms_of_day(heading["time"])))
        elif (found := _LINE.fullmatch(line)) and (value := _number(found["value"])) is not None:
            label = found["label"] + (found["cut"] or "")
            if label in _ROWS and open_name:
                sections[-1].summaries.setdefault(open_name, {}).setdefault(_ROWS[label], value)
            elif label not in _ROWS and (found["cut"] or len(found["dots"] or "") > 1 or _is_metric(label)):
                name = _RENAMED.get(label, label)
                if _begin_another(sections, name in (sections[-1].rates if found["rate"] else sections[-1].counters)):
                    open_name = ""
                _add(sections[-1], name, value, rate=bool(found["rate"]))
        elif (opening := _OPENING.fullmatch(line)) and _is_metric(opening["name"]):
            open_name = opening["name"]
            _begin_another(sections, open_name in sections[-1].summaries)
    return [section for section in sections if section]


def _begin_another(sections: list[_ConsoleSection], again: bool) -> bool:
    """Starts another report where a metric comes `again` without a heading above it. Returns whether it did."""
    if not again or sections[-1].heading:
        return False
    sections.append(_ConsoleSection())
    return True


def _is_metric(label: str) -> bool:
    """Without dots before its value, a line may as well be prose: the label must look like a metric's name."""
    return label.startswith(_KNOWN) or ("." in label and " " not in label)


def _add(section: _ConsoleSection, name: str, value: float, *, rate: bool) -> None:
    if rate:
        section.rates.setdefault(name, Rate(value))
    elif value == int(value):
        section.counters.setdefault(name, int(value))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None


def _ms_of_day(text: str | None) -> int | None:
    parts = re.fullmatch(r"(\d\d?):(\d\d):(\d\d)", text or "")
    return None if parts is None else (int(parts[1]) * 3600 + int(parts[2]) * 60 + int(parts[3])) * 1000


def _report(total: _ConsoleSection, periods: list[_ConsoleSection]) -> Report:
    parts = _placed(periods)
    start = parts[-1].start_ms if parts else 0 if total.at_ms is None else total.at_ms // PERIOD_MS * PERIOD_MS
    return Report(_period(total, start), tuple(parts))


def _placed(periods: list[_ConsoleSection]) -> list[Period]:
    """The periods at their instants: one that ends before the one above it is of the next day, so that none is negative."""
    parts: list[Period] = []
    for section in periods:
        start = (section.at_ms or 0) - PERIOD_MS
        while start < (parts[-1].start_ms if parts else 0):
            start += _DAY_MS
        parts.append(_period(section, start))
    return parts


def _interrupted(periods: list[_ConsoleSection]) -> Report:
    """Add up the periods of a run without a summary, as far as that is possible, into a partial report.

    Counters add up, rates are averaged as Artillery does, and distributions keep their least and greatest value; of one
    that a single period has, all figures are known.
    """
    parts = _placed(periods)
    total = aggregate(parts)
    found: dict[str, list[Summary]] = {}
    for part in parts:
        for name, summary in part.summaries.items():
            found.setdefault(name, []).append(summary)
    summaries = {name: each[0] if len(each) == 1 else _extremes(each) for name, each in found.items()}
    return Report(replace(total, summaries=summaries), tuple(parts), Extras("Artillery", "open", partial=True))


def _extremes(summaries: list[Summary]) -> Summary:
    least = [each.min for each in summaries if each.min is not None]
    greatest = [each.max for each in summaries if each.max is not None]
    return Summary(min=min(least, default=None), max=max(greatest, default=None))


def _period(section: _ConsoleSection, start_ms: int) -> Period:
    read: dict[str, Any] = {name: Summary(**rows) for name, rows in section.summaries.items() if rows}  # type: ignore[arg-type]
    return Period(start_ms, section.counters, section.rates, read)
