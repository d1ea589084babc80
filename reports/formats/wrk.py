"""Reader of the text of wrk and wrk2.

Both time a request to the last byte of its answer. wrk starts when the request is sent: `http.response_time`. wrk2
starts when it was due by its constant rate: `http.response_time.intended`; what it prints under "Uncorrected Latency" is
`http.response_time`. Where wrk2 printed the spectrum of a distribution, its exact mean, maximum, minimum and p95 are taken
from there. Socket errors become `errors.<kind>`, bad statuses `errors.Non-2xx or 3xx responses`; wrk prints neither line
where there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from reports import names
from reports.formats.plain_text import lines_of
from reports.model import Extras, Period, Rate, Report, ReportError, Summary

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_VALUE = r"([\d.]+)(us|ms|s|m|h)"
_START = re.compile(r"Running .* test @ .*")
_CALIBRATION = re.compile(r"Thread calibration: .*")
_STATS = re.compile(rf"Latency {_VALUE} \S+ {_VALUE} \S+")
_DISTRIBUTION = re.compile(r"Latency Distribution(?: \(HdrHistogram - (.*)\))?")
_PERCENTILE = re.compile(rf"([\d.]+)% {_VALUE}")
_SPECTRUM = re.compile(r"([\d.]+) (0\.000000|0\.950000) \d+ [\d.]+")
_MEAN = re.compile(r"#\[Mean = ([\d.]+), StdDeviation = [\d.]+\]")
_MAX = re.compile(r"#\[Max = ([\d.]+), Total count = (\d+)\]")
_COUNT = re.compile(r"(\d+) requests in .*")
_RATE = re.compile(r"Requests/sec: ([\d.]+)")
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_STATUS = re.compile(r"(Non-2xx or 3xx responses): (\d+)")
_PERCENTILES = {50: "p50", 75: "p75", 90: "p90", 95: "p95", 99: "p99", 99.9: "p999"}


@dataclass
class _Draft:
    """The figures of one report while its lines are being read. `times` has one distribution, or wrk2's two."""

    corrected: bool = False
    uncorrected_now: bool = False
    times: dict[bool, dict[str, float]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    rate: Rate | None = None
    seen: set[str] = field(default_factory=set)

    def begins_anew(self, what: str) -> bool:
        """Whether a line of this kind belongs to another report, since this one has such a line or is complete."""
        again = what in self.seen or self.rate is not None
        self.seen.add(what)
        return again

    @property
    def now(self) -> dict[str, float]:
        """The times of the distribution whose lines are being read."""
        return self.times.setdefault(self.uncorrected_now, {})


def all_from_text(text: str) -> list[Report]:
    """Read all reports in a text, also with its indentation or its first lines lost.

    Raises ReportError if there is none, or one of them is cut off.
    """
    drafts = [_Draft()]
    for raw in lines_of(text):
        line = " ".join(raw.strip(" \t>|`*").split())
        if (what := _kind(line)) and drafts[-1].begins_anew(what):
            drafts.append(_Draft(seen={what}))
        _read(line, drafts[-1])
    drafts = [draft for draft in drafts if draft.times or draft.counters or draft.rate]
    if not any(draft.rate and names.REQUESTS in draft.counters for draft in drafts):
        raise ReportError("no Requests/sec with requests in")
    return [_report(draft, f"report {n} of {len(drafts)}") for n, draft in enumerate(drafts, 1)]


def _kind(line: str) -> str | None:
    """Return the kind of a line that a report has once; None for any other."""
    once = (("start", _START), ("stats", _STATS), ("count", _COUNT), ("rate", _RATE), ("errors", _SOCKET_ERRORS))
    if heading := _DISTRIBUTION.fullmatch(line):
        return f"distribution {heading[1]}"
    return next((what for what, pattern in once if pattern.fullmatch(line)), None)


def _read(line: str, draft: _Draft) -> None:
    if _CALIBRATION.fullmatch(line):
        draft.corrected = True
    elif stats := _STATS.fullmatch(line):
        draft.now.update(mean=_ms(stats[1], stats[2]), max=_ms(stats[3], stats[4]))
    elif heading := _DISTRIBUTION.fullmatch(line):
        draft.corrected |= heading[1] is not None
        draft.uncorrected_now = (heading[1] or "").startswith("Uncorrected")
    elif (at := _PERCENTILE.fullmatch(line)) and (key := _PERCENTILES.get(_number(at[1]))):
        draft.now[key] = _ms(at[2], at[3])
    elif row := _SPECTRUM.fullmatch(line):
        draft.now["p95" if row[2] == "0.950000" else "min"] = _number(row[1])
    elif mean := _MEAN.fullmatch(line):
        draft.now["mean"] = _number(mean[1])
    elif largest := _MAX.fullmatch(line):
        draft.now.update(max=_number(largest[1]), count=int(largest[2]))
    elif found := _RATE.fullmatch(line):
        draft.rate = Rate(_number(found[1]))
    else:
        draft.counters |= _counters(line)


def _report(draft: _Draft, which: str) -> Report:
    if draft.rate is None or names.REQUESTS not in draft.counters:
        raise ReportError(f"{which} is cut off: it has no Requests/sec with requests in")
    requests = draft.counters[names.REQUESTS]
    summaries: dict[str, Summary] = {}
    # The zeros that are printed where nothing was answered are no times.
    for uncorrected, figures in draft.times.items() if requests else ():
        name = names.INTENDED if draft.corrected and not uncorrected else names.RESPONSE_TIME
        count = figures.pop("count", None)
        # wrk2 records only from the end of its calibration on.
        count = count if draft.corrected else requests
        summaries[name] = Summary(**figures, count=None if count is None else int(count))
    tool, model = ("wrk2", "open") if draft.corrected else ("wrk", "closed")
    return Report(
        Period(0, draft.counters, {names.REQUEST_RATE: draft.rate}, summaries),
        extras=Extras(tool, model),
    )


def _counters(line: str) -> dict[str, int]:
    if count := _COUNT.fullmatch(line):
        return {names.REQUESTS: int(count[1])}
    if errors := _SOCKET_ERRORS.fullmatch(line):
        kinds = ("connect", "read", "write", "timeout")
        return {f"{names.ERRORS}{kind}": int(n) for kind, n in zip(kinds, errors.groups(), strict=True)}
    if bad := _BAD_STATUS.fullmatch(line):
        return {f"{names.ERRORS}{bad[1]}": int(bad[2])}
    return {}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ReportError(f"{text!r} is not a number") from None


def _ms(value: str, unit: str) -> float:
    return round(_number(value) * _UNITS_MS[unit], 6)
