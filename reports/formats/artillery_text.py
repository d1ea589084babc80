"""Writes Artillery 2.0's console text exactly, because its users compare, paste and parse it.

Each function returns whole lines, newlines included: written one after the other they give Artillery's console. Times
of day are local (or of the given zone), without a date. Metrics that Artillery does not have are printed only on request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from math import isfinite

from reports.model import PERIOD_MS, QUANTILES, Period, Report
from reports.names import ENDPOINT, beyond_artillery
from reports.printable import printable

HIDDEN = (ENDPOINT,)
"""Metrics whose names contain one of these are in the JSON only, unless the script itself lists the plugin."""

ROWS = ("min", "max", "mean", "median", "p95", "p99")
"""The figures of a summary that are printed, in this order."""

WIDTH = 79
"""Column of the last dot; on a terminal narrower than that, Artillery uses max(50, columns)."""

_ABSENT = "–"
"""Stands for a figure that a summary does not have."""


def run_id_line(run_id: str) -> str:
    """Return the first line of a run."""
    return f"Test run id: {run_id}\n"


def phase_started(
    name: str | None, index: int, duration: str, at_ms: float, *, tz: tzinfo | None = None, colour: bool = False
) -> str:
    """Return a phase line and the empty line after it. `duration` is the text of the script, `at_ms` epoch milliseconds."""
    return _phase_line("started", name, index, duration, at_ms, tz, colour)


def phase_completed(
    name: str | None, index: int, duration: str, at_ms: float, *, tz: tzinfo | None = None, colour: bool = False
) -> str:
    """Return the line for the end of a phase, with the arguments of `phase_started`."""
    return _phase_line("completed", name, index, duration, at_ms, tz, colour)


def period_text(
    period: Period,
    *,
    hidden: tuple[str, ...] = HIDDEN,
    width: int = WIDTH,
    tz: tzinfo | None = None,
    colour: bool = False,
) -> str:
    """Return the periodic report of one period, with two empty lines after it. Its heading names the period's end."""
    heading = f"Metrics for period to: {time_of_day(period.start_ms + PERIOD_MS, tz)}"
    first, last = period.first_metric_ms, period.last_metric_ms
    seconds = 0.0 if first is None or last is None else (last - first) / 1000
    rule = "-" * len(heading)
    span = _painted(f"(width: {js_number(seconds)}s)", _GREY, colour)
    body = metrics_text(period, hidden=hidden, width=width, colour=colour)
    return f"{rule}\n{heading} {span}\n{rule}\n\n{body}\n\n"


def summary_text(
    report: Report,
    at_ms: float | None = None,
    *,
    hidden: tuple[str, ...] = HIDDEN,
    width: int = WIDTH,
    tz: tzinfo | None = None,
    colour: bool = False,
    everything: bool = False,
) -> str:
    """Return the summary report; with `everything`, also the metrics that Artillery does not have.

    `at_ms` (epoch): the heading's time; by default the last event's, left out if unknown.
    """
    at = report.aggregate.last_metric_ms if at_ms is None else at_ms
    heading = "Summary report" if at is None else f"Summary report @ {time_of_day(at, tz)}"
    rule = "-" * len(heading)
    body = metrics_text(report.aggregate, hidden=hidden, width=width, colour=colour, everything=everything)
    return f"{rule}\n{heading}\n{rule}\n\n{body}"


def metrics_text(
    period: Period,
    *,
    hidden: tuple[str, ...] = HIDDEN,
    width: int = WIDTH,
    colour: bool = False,
    everything: bool = False,
) -> str:
    """Return the lines of the metrics, sorted by UTF-16 code unit. `everything` includes those that Artillery does not have."""
    names = {n for n in (*period.counters, *period.rates, *period.summaries) if everything or not beyond_artillery(n)}
    if not names:
        return "No measurements recorded during this period\n"
    shown = sorted((n for n in names if not any(part in n for part in hidden)), key=_utf16)
    return "\n".join(line for name in shown for line in _metric_lines(period, name, width, colour)) + "\n"


def finished_text(seconds: float) -> str:
    """Return the line between the last periodic report and the summary, and the empty line after it."""
    return f"All VUs finished. Total time: {total_time_text(seconds)}\n\n"


def log_file_line(path: str) -> str:
    """Return the line after the summary of a run with an output file."""
    return f"Log file: {path}\n"


def total_time_text(seconds: float) -> str:
    """Return a duration in whole seconds: `1 minute, 1 second`. Below the largest unit, every unit is shown."""
    rest, names = int(seconds), ("day", "hour", "minute", "second")
    counts: list[int] = []
    for size in (86_400, 3_600, 60, 1):
        counts.append(rest // size)
        rest %= size
    first = next((i for i, count in enumerate(counts) if count), len(counts) - 1)
    pairs = zip(counts[first:], names[first:], strict=True)
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in pairs)


def time_of_day(at_ms: float, tz: tzinfo | None = None) -> str:
    """Return a time of day as `23:59:07(+0000)`, in the local zone unless one is given."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(tz).strftime("%H:%M:%S(%z)")


def js_number(value: float) -> str:
    """Return a number as JavaScript's Number::toString writes it (ECMA-262, 6.1.6.1.20): `2`, `0.7`, `1e+21`, `1.5e-7`."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**21 else js_number(float(value))
    if not isfinite(value):
        return "NaN" if value != value else f"{'-' if value < 0 else ''}Infinity"  # noqa: PLR0124 - NaN's own test
    if value == 0:
        return "0"
    sign, digits, point = _shortest_digits(value)
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{mantissa}e{point - 1:+d}"


def _shortest_digits(value: float) -> tuple[str, str, int]:
    """Return the sign, the shortest digits that read back as the same double, and the position of the decimal point."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    leading = len(digits) - len(digits.lstrip("0"))
    point = len(whole) + int(exponent or 0) - leading
    return sign, digits.strip("0"), point


def _phase_line(
    what: str, name: str | None, index: int, duration: str, at_ms: float, tz: tzinfo | None, colour: bool
) -> str:
    unit = "s" if re.fullmatch(r"[0-9]+(\.0*)?", duration) else ""
    shown = _painted(printable(name or "unnamed"), _GREEN, colour)
    return f"Phase {what}: {shown} (index: {index}, duration: {duration}{unit}) {time_of_day(at_ms, tz)}\n\n"


def _metric_lines(period: Period, name: str, width: int, colour: bool) -> Iterator[str]:
    """Yield the lines of one name. It may be counter, summary and rate at once; Artillery prints them in this order."""
    if name in period.counters:
        yield _line(name, js_number(period.counters[name]), width, colour)
    if name in period.summaries:
        yield f"{printable(name)}:"
        for row in ROWS:
            value = period.summaries[name].figure(row)
            # Artillery leaves out what older documents do not have; percentiles they all have, if there were samples.
            if value is not None or row in QUANTILES:
                yield _line(f"  {row}", _ABSENT if value is None else js_number(value), width, colour)
    if name in period.rates:
        yield _line(name, f"{js_number(period.rates[name].per_second)}/sec", width, colour)


def _line(label: str, value: str, width: int, colour: bool) -> str:
    """Return one line with its dots. Lengths are counted as in JavaScript, in UTF-16 code units."""
    units = _utf16(f"{printable(label)}:")
    if len(units) > 2 * width:
        units = units[: 2 * (width - 3)] + _utf16("...")
    dots = "." * (width - len(units) // 2)
    return f"{units.decode('utf-16-be', 'replace')} {_painted(dots, _GREY, colour)} {value}"


_GREEN, _GREY = 32, 90


def _painted(text: str, code: int, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[39m" if colour and text else text


def _utf16(name: str) -> bytes:
    """Encode a name in UTF-16, by whose units JavaScript sorts and counts; half a surrogate pair is printed as U+FFFD."""
    return name.encode("utf-16-be", "surrogatepass")
