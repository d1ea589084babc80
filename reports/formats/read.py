"""Reads any report from a file, or a published one. The format is recognised by the content of a file, not by its name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from reports.files import exists
from reports.formats import (
    apachebench,
    artillery_1,
    artillery_console,
    artillery_json,
    autocannon,
    hey,
    jmeter,
    k6,
    locust,
    oha,
    vegeta,
    wrk,
)
from reports.formats.json_values import INSTANTS_END_MS
from reports.formats.plain_text import decoded, undecorated
from reports.formats.strangers import stranger
from reports.model import Report, ReportError

PUBLISHED = "published:"
"""The prefix of `published:ID`, which names a published experiment."""
STDIN = "-"
"""The name of standard input."""

READERS: dict[str, Callable[[str], Sequence[Report]]] = {
    "Artillery JSON": lambda text: [artillery_json.from_json(text)],
    "Artillery 1 JSON": lambda text: [artillery_1.from_json(text)],
    "k6 summary JSON": lambda text: [k6.from_json(text)],
    "Locust CSV": lambda text: [locust.from_csv(text)],
    "JMeter CSV": lambda text: [jmeter.from_csv(text)],
    "JMeter XML": lambda text: [jmeter.from_xml(text)],
    "ApacheBench text": lambda text: [report.as_report() for report in apachebench.all_from_text(text)],
    "autocannon JSON": lambda text: [autocannon.from_json(text)],
    "vegeta JSON": lambda text: [vegeta.from_json(text)],
    "oha JSON": lambda text: [oha.from_json(text)],
    "autocannon text": autocannon.all_from_text,
    "wrk text": wrk.all_from_text,
    "hey or oha text": hey.all_from_text,
    "vegeta text": vegeta.all_from_text,
    "k6 text": k6.all_from_text,
    "Artillery 1 console text": artillery_1.all_from_text,
    "Artillery console text": artillery_console.from_text,
}
"""The readers by format, in the order in which they are tried, the most tolerant last.

Each returns the reports in a text, or raises ValueError if it has none.
"""

_OWN_WORDS = {
    "ApacheBench text": ("This is ApacheBench", "Time taken for tests:", "Requests per second:"),
    "wrk text": ("Thread Stats", "Transfer/sec:"),
    "autocannon text": ("│ Latency", "Bytes/Sec"),
    "hey or oha text": ("Response time histogram:", "Status code distribution:", "Requests/sec:"),
    "vegeta text": ("Latencies     [", "Status Codes  ["),
    "k6 text": ("http_req_duration", "http_reqs", "iteration_duration"),
    "Locust CSV": ("Request Count,Failure Count", "Total Request Count", "Error,Occurrences"),
    "JMeter CSV": ("timeStamp,elapsed",),
    "JMeter XML": ("<testResults",),
    "Artillery 1 console text": ("Scenarios launched:",),
    "Artillery console text": ("vusers.created", "http.response_time", "Metrics for period to:"),
}
_OWN_KEYS = {
    "autocannon JSON": ("latency", "non2xx"),
    "vegeta JSON": ("latencies", "status_codes"),
    "oha JSON": ("latencyPercentiles", "statusCodeDistribution"),
    "k6 summary JSON": ("http_req_duration",),
    "Artillery 1 JSON": ("scenariosCreated",),
    "Artillery JSON": ("aggregate",),
}
_NOT_JSON = "not JSON"
_OBJECT = re.compile(r"\s*\{\s*\"")
MOST_BYTES = 256_000_000
"""The most that is read of a report."""
_LONG = 8_000_000
"""The length of a text, in characters, from which readers of text look at it only where it holds words of theirs."""
_LONGEST_REASON = 120
_NOBODY_COUNTED = 2**63
_MOST_DIGITS = 18


def load(spec: str | Path, note: Callable[[str], None] = lambda _: None) -> Report:
    """Read the report in a file, the Nth report of `FILE#N` (counted from 1), standard input (`-`), or `published:ID`.

    If a file holds several reports and no number was given, the first is used, and `note` gets one line that says so.
    Raises ReportError with one line that names the file.
    """
    name = str(spec)
    if name.startswith(PUBLISHED):
        from reports.formats.published import published  # noqa: PLC0415 - its data need not be read for files

        return published(name.removeprefix(PUBLISHED))
    path, number = _numbered(name)
    if path == STDIN and sys.stdin is None:
        raise ReportError(f"{name}: standard input is closed")
    try:
        # Something without end, such as a device, is left after this, too.
        with nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb") as file:  # noqa: PTH123 - an empty name is none
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ReportError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise ReportError(f"{name}: larger than {MOST_BYTES // 1_000_000} MB, the most that is read of a report")
    found = read(decoded(data), path)
    if number is None and len(found) > 1:
        note(f"{name} holds {len(found)} reports; the first is used ({name}#2 is the next)")
    chosen = 1 if number is None else number
    if not 1 <= chosen <= len(found):
        raise ReportError(f"{name}: the file holds {len(found)} report{'s' * (len(found) > 1)}, counted from 1")
    return found[chosen - 1]


def _numbered(name: str) -> tuple[str, int | None]:
    """Split `FILE#N` into file and number, unless a file of the whole name exists."""
    path, mark, number = name.rpartition("#")
    if not mark or not number.isdecimal() or exists(name):
        return name, None
    return path, int(number) if len(number) <= _MOST_DIGITS else sys.maxsize


def read(text: str, name: str) -> Sequence[Report]:
    """Read the reports in a text, at least one; `name` is used in the error. Raises UnreadableReport."""
    reasons: dict[str, str] = {}
    text = undecorated(text)
    is_json = _begins_as_json(text)
    for kind, reader in READERS.items():
        if is_json and not kind.endswith("JSON"):
            reasons[kind] = "it begins as JSON does"
            continue
        if len(text) > _LONG and not any(word in text for word in _OWN_WORDS.get(kind, ("",))):
            reasons[kind] = "none of its words in a text of this length"
            continue
        try:
            found = reader(text)
            for report in found:
                _check(report)
            return found
        except (ValueError, OverflowError) as error:
            # A ReportError is a ValueError; so is what absurd numbers raise.
            reasons[kind] = " ".join(str(error).split())[:_LONGEST_REASON]
    likeliest = _likeliest(text, reasons)
    said = f"it looks like {likeliest}, but: {reasons[likeliest]}" if likeliest else "of none of the known formats"
    raise UnreadableReport(name, stranger(text) or said, reasons)


def _begins_as_json(text: str) -> bool:
    """Whether the text is one JSON object, whole or cut off, rather than a log whose first line is one.

    A console's reader would find figures in what is left of it.
    """
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{"):
        return False
    if not rest.strip():
        return _OBJECT.match(first) is not None
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return _OBJECT.match(text) is not None
    return False


class UnreadableReport(ReportError):
    """Raised for a text that no reader takes. The message is about the likeliest format; `reasons` has one for each format."""

    def __init__(self, name: str, said: str, reasons: Mapping[str, str]) -> None:
        super().__init__(f"{name}: no report that can be read: {said}")
        self.reasons = reasons


def _likeliest(text: str, reasons: Mapping[str, str]) -> str | None:
    """Return the format whose typical words the text holds, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return next((kind for kind, words in _OWN_WORDS.items() if any(word in text for word in words)), None)
    if reasons["Artillery JSON"].startswith(_NOT_JSON):
        return "Artillery JSON"
    return next((kind for kind, words in _OWN_KEYS.items() if all(f'"{word}"' in text for word in words)), None)


def _check(report: Report) -> None:
    """Raise ReportError for a count too large to be real, so that no arithmetic overflows, and for malformed figures of ab."""
    ab = report.extras.ab if report.extras else None
    if ab is not None:
        apachebench.AbReport.from_json(ab)
    for counts in (period.counters for period in (report.aggregate, *report.periods)):
        odd = next((name for name, count in counts.items() if not abs(count) < _NOBODY_COUNTED), None)
        if odd is not None:
            raise ReportError(f"{odd} is too large a number")
    for period in (report.aggregate, *report.periods):
        negative = next((name for name, count in period.counters.items() if count < 0), None)
        if negative is not None:
            raise ReportError(f"{negative} is negative")
        slow = next((name for name, rate in period.rates.items() if not 0 <= rate.per_second < _NOBODY_COUNTED), None)
        if slow is not None:
            raise ReportError(f"{slow} is no rate")
        instants = (period.start_ms, period.first_metric_ms, period.last_metric_ms)
        if any(at is not None and not 0 <= at < INSTANTS_END_MS for at in instants):
            raise ReportError("an instant is not between the years 1970 and 9999")
