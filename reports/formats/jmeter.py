"""Reader of JMeter's results as CSV (`jmeter -l results.jtl`): one row per sample.

`elapsed` (ms), from the start of a sample to its last byte, becomes `http.response_time`; the same of each label stands among
the endpoints. `timeStamp` (epoch ms) is the start of a sample, unless `sampleresult.timestamp.start=false` was set; a sample
belongs to the period of that instant. Samples without success become `errors.<response code or message>`.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field

from reports import names
from reports.formats.durations import number
from reports.model import PERIOD_MS, Extras, Period, Rate, Report, ReportError, Summary
from reports.sketch import Sketch

_NEEDED = {"timeStamp", "elapsed", "label", "responseCode", "success"}
_LATEST_MS = 1 << 43


@dataclass
class _Slice:
    """The counts and times of one period while samples are being read."""

    counters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    instants: list[int] = field(default_factory=list)


def from_csv(text: str) -> Report:
    """Read the report in a text. Raises ReportError (one line) for any other text."""
    lines = text.strip().splitlines()
    try:
        if not set(next(csv.reader(lines[:1]), [])) >= _NEEDED:
            raise ReportError("no columns timeStamp, elapsed, label, responseCode, success")
        slices: dict[int, _Slice] = defaultdict(_Slice)
        for count, row in enumerate(csv.DictReader(lines, strict=True), 2):
            _add(slices, row, count)
    except csv.Error as error:
        raise ReportError(f"not CSV: {error}") from None
    if not slices:
        raise ReportError("no samples")
    return Report.of((_period(start, each) for start, each in slices.items()), Extras("JMeter", "closed"))


def _add(slices: dict[int, _Slice], row: dict[str, str | None], line: int) -> None:
    try:
        at_ms, elapsed_ms = int(row["timeStamp"] or ""), number(row["elapsed"] or "")
    except ValueError:
        raise ReportError(f"line {line}: timeStamp or elapsed is not a number") from None
    if not 0 <= at_ms < _LATEST_MS or not 0 <= elapsed_ms < _LATEST_MS:
        raise ReportError(f"line {line}: timeStamp or elapsed is out of range")
    found = slices[at_ms // PERIOD_MS * PERIOD_MS]
    label, code = row["label"] or "unnamed", (row["responseCode"] or "").strip()
    found.instants.append(at_ms)
    found.counters[names.REQUESTS] += 1
    answered = code.isdecimal() and len(code) == 3
    if answered:
        found.counters[names.RESPONSES] += 1
        found.counters[f"{names.CODES}{code}"] += 1
        found.times[names.RESPONSE_TIME].append(elapsed_ms)
        found.times[f"{names.ENDPOINT}.response_time.{label}"].append(elapsed_ms)
    if (row["success"] or "").strip().lower() != "true":
        found.counters[f"{names.ERRORS}{code if answered else row.get('responseMessage') or code or 'failed'}"] += 1


def _period(start_ms: int, found: _Slice) -> Period:
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
