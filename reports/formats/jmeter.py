"""Reader of JMeter's results (`jmeter -l results.jtl`), as CSV or as XML: one row or element per sample.

The time from the start of a sample to its last byte (`elapsed`, `t`; ms) becomes `http.response_time`; the same of each label
stands among the endpoints. The time stamp (epoch ms) is the start of a sample, unless `sampleresult.timestamp.start=false` was
set; a sample belongs to the period of that instant. Samples without success become `errors.<response code or message>`, also
where they were answered and so count among `http.codes`. In XML, samples inside another one are parts of it, and are not counted.

A transaction controller has a sample of its own, which is no request: it is left out, and in XML the samples inside it are
counted. Where a file has the samples of controllers alone (CSV with "generate parent sample"), these are counted.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reports import names
from reports.formats.durations import number
from reports.formats.plain_text import table
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, ReportError, Summary
from reports.sketch import Sketch

_NEEDED = {"timeStamp", "elapsed", "label", "responseCode", "success"}
_HEADING = re.compile(r'"?timeStamp"?(.)"?elapsed')
_ATTRIBUTES = {"ts": "timeStamp", "t": "elapsed", "lb": "label", "rc": "responseCode", "rm": "responseMessage"}
_SAMPLES = ("httpSample", "sample")
_TRANSACTION = "Number of samples in transaction : "
"""What the message of a transaction controller's sample begins with."""
_LATEST_MS = 1 << 43


@dataclass
class _PeriodSamples:
    """The counts and times of one period while samples are being read."""

    counters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    instants: list[int] = field(default_factory=list)


class _Samples:
    """The samples of a file, by the start of their period; those of transaction controllers apart."""

    def __init__(self) -> None:
        self._requests: dict[int, _PeriodSamples] = defaultdict(_PeriodSamples)
        self._transactions: dict[int, _PeriodSamples] = defaultdict(_PeriodSamples)

    def add(self, row: Mapping[str, str | None], place: str) -> None:
        """Add a sample, given by the names of CSV's columns. Raises ReportError."""
        _add(self._transactions if _is_transaction(row.get("responseMessage")) else self._requests, row, place)

    def counted(self) -> dict[int, _PeriodSamples]:
        """The periods of the samples that are counted."""
        return self._requests or self._transactions


def _is_transaction(message: str | None) -> bool:
    return message is not None and message.startswith(_TRANSACTION)


def from_csv(text: str) -> Report:
    """Read the report in a text whose last line may be cut off. Raises ReportError (one line) for any other text."""
    lines = table(text, _HEADING)
    heading = _HEADING.match(lines[0]) if lines else None
    if heading is None:
        raise ReportError("no columns timeStamp, elapsed, label, responseCode, success")
    samples = _Samples()
    partial = False
    try:
        rows = csv.reader(lines, delimiter=heading[1], strict=True)
        columns = next(rows)
        if not set(columns) >= _NEEDED:
            raise ReportError("no columns timeStamp, elapsed, label, responseCode, success")
        for row in filter(None, rows):
            partial = len(row) < len(columns)
            if partial and rows.line_num < len(lines):
                raise ReportError(f"line {rows.line_num}: {len(row)} columns, of {len(columns)} in the heading")
            if not partial:
                samples.add(dict(zip(columns, row, strict=False)), f"line {rows.line_num}")
    except csv.Error as error:
        # A quotation mark that is open at the end is that of a last line cut off.
        if rows.line_num < len(lines) or not samples.counted():
            raise ReportError(f"not CSV: {error}") from None
        partial = True
    return _report(samples.counted(), partial=partial)


def from_xml(text: str) -> Report:
    """Read the report in a text, also without its end, as an interrupted run leaves it. Raises ReportError for any other text."""
    if "<testResults" not in text[:1000]:
        raise ReportError("no testResults")
    samples = _Samples()
    whole = False
    for count, sample in enumerate(_samples(text), 1):
        whole = sample is None
        if sample is not None:
            row = {column: sample.get(short) for short, column in _ATTRIBUTES.items()}
            samples.add(row | {"success": sample.get("s")}, f"sample {count}")
    return _report(samples.counted(), partial=not whole)


def _samples(text: str) -> Iterator[Mapping[str, str] | None]:
    """Yield the attributes of each sample that is no part of another, and None at the end. Raises ReportError."""
    # Only such a file needs it.
    from lxml import etree  # noqa: PLC0415

    depth = 0
    source = io.BytesIO(text.encode("utf-8", "replace"))
    try:
        for event, element in etree.iterparse(
            source, ("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, encoding="utf-8"
        ):
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 1:
                yield from _whole(element)
                element.clear()
            if depth == 0:
                yield None
    except etree.XMLSyntaxError as error:
        # What is wrong with the last line is that it is not the last.
        if (error.lineno or 0) < text.rstrip().count("\n") + 1:
            raise ReportError(f"not XML: {error}") from None


def _whole(element: Any) -> Iterator[Mapping[str, str]]:
    """The attributes of a sample; those of the samples inside a transaction, where it has any."""
    if element.tag not in _SAMPLES:
        return
    inside = [child for child in element if child.tag in _SAMPLES] if _is_transaction(element.get("rm")) else []
    if not inside:
        yield dict(element.attrib)
    for child in inside:
        yield from _whole(child)


def _add(slices: dict[int, _PeriodSamples], row: Mapping[str, str | None], place: str) -> None:
    try:
        at_ms, elapsed_ms = int(row["timeStamp"] or ""), number(row["elapsed"] or "")
    except ValueError:
        raise ReportError(f"{place}: timeStamp or elapsed is not a number") from None
    if not 0 <= at_ms < _LATEST_MS or not 0 <= elapsed_ms < _LATEST_MS:
        raise ReportError(f"{place}: timeStamp or elapsed is out of range")
    found = slices[at_ms // PERIOD_MS * PERIOD_MS]
    label, code = row["label"] or "unnamed", (row["responseCode"] or "").strip()
    found.instants.append(at_ms)
    found.counters[names.REQUESTS] += 1
    answered = code.isdecimal() and len(code) == 3
    if answered:
        found.counters[names.RESPONSES] += 1
        found.counters[f"{names.CODES}{code}"] += 1
        found.times[names.RESPONSE_TIME].append(elapsed_ms)
        found.times[f"{names.ENDPOINT}{names.ENDPOINT_TIME}{label}"].append(elapsed_ms)
    if (row["success"] or "").strip().lower() != "true":
        found.counters[f"{names.ERRORS}{code if answered else row.get('responseMessage') or code or 'failed'}"] += 1


def _report(slices: Mapping[int, _PeriodSamples], *, partial: bool) -> Report:
    if not slices:
        raise ReportError("no samples")
    return Report.of(
        (_period(start, each) for start, each in slices.items()), Extras("JMeter", "closed", partial=partial)
    )


def _period(start_ms: int, found: _PeriodSamples) -> Period:
    sketches = {name: Sketch.of(times) for name, times in found.times.items()}
    first, last = min(found.instants), max(found.instants)
    return Period(
        start_ms,
        dict(found.counters),
        {names.REQUEST_RATE: Rate.of(len(found.instants), first, last)},
        {name: Summary.of(sketch) for name, sketch in sketches.items()},
        sketches,
        first,
        last,
        first if sketches else None,
        last if sketches else None,
    )
