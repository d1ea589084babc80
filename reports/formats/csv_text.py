"""Writes a report as CSV, one line per figure, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime

from reports.blocks import ABSENT
from reports.formats.artillery_text import js_number
from reports.model import QUANTILES, SUMMARY_KEYS, Period, Report
from reports.printable import printable

# The last four are full-width forms of the first four.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_csv(report: Report, *, periods: bool = False) -> str:
    """Return CSV with the columns period ("all", or its start as ISO 8601 in UTC), metric, figure and value; times in ms.

    A percentile without samples is a dash.

    The name of a metric may come from a server or from a script that somebody else wrote. A name that a spreadsheet
    would take for a formula gets an apostrophe in front, as OWASP advises.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("period", "metric", "figure", "value"))
    for period in report.periods if periods else ():
        writer.writerows((_start(period), *row) for row in _rows(period))
    writer.writerows(("all", *row) for row in _rows(report.aggregate))
    return out.getvalue()


def _start(period: Period) -> str:
    try:
        return datetime.fromtimestamp(period.start_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        # A document may say anything.
        return str(period.start_ms)


def _rows(period: Period) -> Iterator[tuple[str, str, str]]:
    for name, count in sorted(period.counters.items()):
        yield _harmless(name), "count", js_number(count)
    for name, rate in sorted(period.rates.items()):
        yield _harmless(name), "per_second", js_number(rate.per_second)
    for name, summary in sorted(period.summaries.items()):
        for key in SUMMARY_KEYS:
            figure = summary.figure(key)
            if key != "p50" and (figure is not None or key in QUANTILES):
                yield _harmless(name), key, ABSENT if figure is None else js_number(figure)


def _harmless(name: str) -> str:
    name = printable(name)
    return f"'{name}" if name.lstrip(" ").startswith(_FORMULA) else name
