"""Writes and reads reports as JSON: Artillery 2.0's document, with one key of ours, `poolbench`, for everything else.

The Artillery part is what `JSON.stringify(document, null, 2)` gives: key order, indentation, integers without `.0`, the
period a string in intermediates and a number in the aggregate, `histograms` an exact repetition of `summaries`. The
keys with null that Artillery adds per rate to each intermediate are a bug of its own and are not written.

The `poolbench` key: what `Extras` holds, then `aggregate` and `periods` (one per intermediate, in the same order), each
with those of `counters`, `rates`, `summaries` that Artillery does not know (`names.beyond_artillery`), `rate_counts`
(count and instants of each rate, so that periods of several generators can be merged), `sketches` (DDSketch bins) and
`seconds` (one object for each second with an event: `start_ms`, those of `requests`, `answers` and `errors` that are not 0,
and the sketch `response_time`, whose empty bins are written as `Sketch.to_json` says with `runs`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeVar

import orjson

from reports.formats.json_values import (
    INSTANTS_END_MS,
    Later,
    LaterList,
    a_list,
    an_object,
    count,
    document,
    each,
    instant,
    number,
    whole,
)
from reports.model import FORMAT_VERSION, SUMMARY_KEYS, Extras, Period, Rate, Report, ReportError, Second, Summary
from reports.names import beyond_artillery
from reports.sketch import Sketch

_Value = TypeVar("_Value")

_LARGEST_EXACT = 2.0**53
_LARGEST_FREE = 10**300
_INSTANTS = {
    "firstCounterAt": "first_counter_ms",
    "firstHistogramAt": "first_histogram_ms",
    "lastCounterAt": "last_counter_ms",
    "lastHistogramAt": "last_histogram_ms",
    "firstMetricAt": "first_metric_ms",
    "lastMetricAt": "last_metric_ms",
}
# The instants with Metric in their names are derived from the others.
_READ_INSTANTS = {key: attribute for key, attribute in _INSTANTS.items() if "Metric" not in key}
# The keys of a summary, in the order of the fields of Summary.
_SUMMARY_FIELDS = tuple(key for key in SUMMARY_KEYS if key != "median")
_ALL_FIGURES = set(_SUMMARY_FIELDS)
_FIGURES = itemgetter(*_SUMMARY_FIELDS)
_NUMBERS, _HUGE = {int, float}, 1e300


def to_json(report: Report) -> str:
    """The document as text, with no newline at its end, as Artillery leaves it. `from_json` is its exact inverse.

    The environment, generator and ab figures of the extras must be values that JSON has.
    """
    try:
        return orjson.dumps(_document(report, _line), option=orjson.OPT_INDENT_2).decode()
    except TypeError:
        # A name holds half a surrogate pair, which only the standard library can escape.
        return json.dumps(_document(report, dict), indent=2)


def from_json(text: str) -> Report:
    """A report from Artillery's document: ours, a real one of any 2.0 release, or one with only some of the keys.

    What the document does not carry is absent from the report; nulls count as absent. Raises ReportError (one
    line) for a text that is no such document. Distributions of periods are read when they are asked for: that raises
    ReportError where one of them is malformed.
    """
    found = document(text)
    if not isinstance(found.get("aggregate"), dict):
        raise ReportError("no object called aggregate")
    if not _PERIOD_PARTS & found["aggregate"].keys():
        raise ReportError("aggregate has neither counters, rates nor summaries")
    intermediate = a_list(found.get("intermediate"), "intermediate")
    ours = an_object(found.get("poolbench"), "poolbench")
    extras = _extras(ours)
    our_periods = a_list(ours.get("periods"), "poolbench.periods") or [{}] * len(intermediate)
    if len(our_periods) != len(intermediate):
        raise ReportError(f"poolbench.periods has {len(our_periods)} entries, intermediate {len(intermediate)}")
    periods = tuple(
        _period(theirs, our, f"intermediate[{i}]")
        for i, (theirs, our) in enumerate(zip(intermediate, our_periods, strict=True))
    )
    latest = max((p.start_ms for p in periods), default=0)
    total = _period(found["aggregate"], ours.get("aggregate"), "aggregate", latest)
    read_now = replace(total, summaries=dict(total.summaries), sketches=dict(total.sketches))
    return Report(read_now, periods, extras)


# Writing

_Fragment = Callable[[Mapping[str, Any]], Any]
"""Turns a flat object of ours into the text that the encoder writes."""


def _document(report: Report, fragment: _Fragment) -> dict[str, Any]:
    theirs: dict[str, Any] = {
        "aggregate": _period_document(report.aggregate, report.aggregate.start_ms),
        "intermediate": [_period_document(p, str(p.start_ms)) for p in report.periods],
    }
    ours = _our_document(report, fragment)
    return {**theirs, "poolbench": ours} if ours else theirs


def _number(value: float) -> float:
    """Return a number as JavaScript prints it: without a fraction if it is integral."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_EXACT else value


def _artillerys(items: Mapping[str, _Value]) -> dict[str, _Value]:
    return {name: value for name, value in items.items() if not beyond_artillery(name)}


def _ours(items: Mapping[str, _Value]) -> dict[str, _Value]:
    return {name: value for name, value in items.items() if beyond_artillery(name)}


def _summary_document(summary: Summary) -> dict[str, float]:
    figures = ((key, getattr(summary, key)) for key in SUMMARY_KEYS)
    return {key: _number(value) for key, value in figures if value is not None}


def _period_document(period: Period, start: int | str) -> dict[str, Any]:
    summaries = {name: _summary_document(s) for name, s in _artillerys(period.summaries).items()}
    instants = ((key, getattr(period, attribute)) for key, attribute in _INSTANTS.items())
    return {
        "period": start,
        "counters": _artillerys(period.counters),
        "rates": {name: _number(rate.per_second) for name, rate in _artillerys(period.rates).items()},
        **{key: instant for key, instant in instants if instant is not None},
        "summaries": summaries,
        "histograms": summaries,
    }


def _our_document(report: Report, fragment: _Fragment) -> dict[str, Any]:
    extras = report.extras
    own: dict[str, Any] = (
        {}
        if extras is None
        else {
            "format_version": extras.format_version,
            "tool_version": extras.tool_version,
            "partial": extras.partial,
            "model": extras.model,
            "environment": extras.environment,
            "generator": extras.generator,
            "warnings": list(extras.warnings),
            "ab": extras.ab,
            **({"pauses": [list(pause) for pause in extras.pauses]} if extras.pauses else {}),
        }
    )
    total, periods = _our_period(report.aggregate, fragment), [_our_period(p, fragment) for p in report.periods]
    if not own and not total and not any(periods):
        return {}
    return {**own, "aggregate": total, "periods": periods}


def _our_period(period: Period, fragment: _Fragment) -> dict[str, Any]:
    parts = {
        "counters": _ours(period.counters),
        "rates": {name: _number(rate.per_second) for name, rate in _ours(period.rates).items()},
        "summaries": {name: fragment(_summary_document(s)) for name, s in _ours(period.summaries).items()},
        "rate_counts": {
            name: fragment({"count": rate.count, "first_ms": rate.first_ms, "last_ms": rate.last_ms})
            for name, rate in period.rates.items()
            if (rate.count, rate.first_ms, rate.last_ms) != (None, None, None)
        },
        "sketches": {name: fragment(sketch.to_json()) for name, sketch in period.sketches.items()},
        "seconds": [fragment(_second_document(second)) for second in period.seconds],
    }
    return {key: part for key, part in parts.items() if part}


def _second_document(second: Second) -> dict[str, Any]:
    counts = {"requests": second.requests, "answers": second.answers, "errors": second.errors}
    shown = {"start_ms": second.start_ms} | {key: count for key, count in counts.items() if count}
    return shown if second.response_time is None else shown | {"response_time": second.response_time.to_json(runs=True)}


def _line(value: Mapping[str, Any]) -> orjson.Fragment:
    """Write a value on one line: a bin per line would make the document many times longer and no easier to read."""
    return orjson.Fragment(orjson.dumps(value))


# Reading

_PERIOD_PARTS = {"counters", "rates", "summaries", "histograms"}


def _counts(value: Any, place: str) -> dict[str, int]:
    """`each` with `whole`, quick where all is as it should be: large documents are mostly this."""
    items = an_object(value, place)
    quick = {int}.issuperset(map(type, items.values())) and min(items.values(), default=0) >= 0
    return dict(items) if quick else each(items, place, count)


def _summaries(value: Any, place: str) -> dict[str, Any]:
    """Return the summaries that hold any figure, not yet read. Artillery writes nulls if the samples were no numbers."""
    items = an_object(value, place)
    kept = {name: item for name, item in items.items() if item is not None}
    return {name: item for name, item in kept.items() if not isinstance(item, dict) or _holds_a_figure(item)}


def _holds_a_figure(item: Mapping[str, Any]) -> bool:
    return item.get("count") is not None or any(item.get(key) is not None for key in SUMMARY_KEYS)


def _summary(value: Any, place: str) -> Summary:
    figures = an_object(value, place)
    # Nearly all summaries have all figures, and large documents have many: these are read quickly.
    if figures.keys() >= _ALL_FIGURES:
        row = _FIGURES(figures)
        if (
            _NUMBERS.issuperset(map(type, row))
            and type(figures["count"]) is int
            and figures["count"] >= 0
            and -_HUGE < min(row) <= max(row) < _HUGE
        ):
            return Summary(*row)
    found = {key: figures[key] for key in _SUMMARY_FIELDS if figures.get(key) is not None}
    if "p50" not in found and figures.get("median") is not None:
        found["p50"] = figures["median"]
    for key, figure in found.items():
        if key == "count":
            found[key] = count(figure, f"{place}.count")
        elif type(figure) is not float or not -_HUGE < figure < _HUGE:
            found[key] = float(number(figure, f"{place}.{key}"))
    return Summary(**found)


def _sketch(value: Any, place: str, *, runs: bool = False) -> Sketch:
    try:
        return Sketch.from_json(value, runs=runs)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ReportError(f"poolbench: the sketch {place} cannot be read ({error!r})") from None


def _second(value: Any, place: str) -> Second:
    found = an_object(value, place)
    counts = {key: whole(found[key], f"{place}.{key}") for key in ("requests", "answers", "errors") if key in found}
    if min(counts.values(), default=0) < 0:
        raise ReportError(f"{place} counts less than nothing")
    times = found.get("response_time")
    return Second(
        instant(found.get("start_ms"), f"{place}.start_ms"),
        **counts,
        response_time=None if times is None else _sketch(times, f"{place}.response_time", runs=True),
    )


def _instants(found: Mapping[str, Any], place: str) -> dict[str, int]:
    read = ((key, attribute, found.get(key)) for key, attribute in _READ_INSTANTS.items())
    return {attribute: instant(v, f"{place}.{key}") for key, attribute, v in read if v is not None}


def _rates(theirs: Mapping[str, Any], ours: Mapping[str, Any], place: str) -> dict[str, Rate]:
    per_second: dict[str, float] = each(theirs.get("rates"), f"{place}.rates", number)
    per_second |= each(ours.get("rates"), f"poolbench {place}.rates", number)
    counted = each(ours.get("rate_counts"), f"poolbench {place}.rate_counts", lambda v, at: each(v, at, whole))
    negative = next((name for name, value in per_second.items() if value < 0), None)
    if negative is not None:
        raise ReportError(f"{place}.rates.{negative} is negative")
    return {name: Rate(value, **_rate_count(counted.get(name, {}))) for name, value in per_second.items()}


def _rate_count(counted: Mapping[str, int]) -> dict[str, int]:
    return {key: counted[key] for key in ("count", "first_ms", "last_ms") if key in counted}


def _period(their_part: Any, our_part: Any, place: str, latest: int | None = None) -> Period:
    """Read a period and our part of it; `latest` is its start if the document has none."""
    theirs, ours = an_object(their_part, place), an_object(our_part, f"poolbench {place}")
    summaries = theirs.get("summaries") or theirs.get("histograms")
    sketches = {n: s for n, s in an_object(ours.get("sketches"), f"{place}.sketches").items() if s is not None}
    start = theirs.get("period", latest)
    if start is None:
        raise ReportError(f"{place} has no period")
    return Period(
        start_ms=instant(start, f"{place}.period"),
        counters=_counts(theirs.get("counters"), f"{place}.counters")
        | _counts(ours.get("counters"), f"poolbench {place}.counters"),
        rates=_rates(theirs, ours, place),
        summaries=Later(
            _summaries(summaries, f"{place}.summaries")
            | _summaries(ours.get("summaries"), f"poolbench {place}.summaries"),
            f"{place}.summaries",
            _summary,
        ),
        sketches=Later(sketches, f"{place}.sketches", _sketch),
        seconds=LaterList(a_list(ours.get("seconds"), f"poolbench {place}.seconds"), f"{place}.seconds", _second),
        **_instants(theirs, place),
    )


def _extras(ours: Mapping[str, Any]) -> Extras | None:
    if "tool_version" not in ours:
        return None
    version = whole(ours.get("format_version", FORMAT_VERSION), "poolbench.format_version")
    if version > FORMAT_VERSION:
        raise ReportError(f"written by a newer Poolbench: format {version}, and this one reads up to {FORMAT_VERSION}")
    ab, partial = ours.get("ab"), ours.get("partial")
    if partial not in (None, True, False):
        raise ReportError("poolbench.partial is neither true nor false")
    return Extras(
        tool_version=str(ours["tool_version"]),
        model=str(ours.get("model", "")),
        partial=bool(partial),
        environment=_free(ours.get("environment"), "poolbench.environment"),
        generator=_free(ours.get("generator"), "poolbench.generator"),
        warnings=tuple(str(w) for w in a_list(ours.get("warnings"), "poolbench.warnings")),
        ab=None if ab is None else an_object(ab, "poolbench.ab"),
        format_version=version,
        pauses=tuple(_pause(pause) for pause in a_list(ours.get("pauses"), "poolbench.pauses")),
    )


def _free(value: Any, place: str) -> Mapping[str, Any]:
    """An object of any values. Raises ReportError for a number so large that arithmetic with it fails."""
    left = list(an_object(value, place).items())
    while left:
        name, item = left.pop()
        if isinstance(item, int) and abs(item) >= _LARGEST_FREE:
            raise ReportError(f"{place}: {name} is too large a number")
        if isinstance(item, dict):
            left += item.items()
        elif isinstance(item, list):
            left += [(name, inner) for inner in item]
    return an_object(value, place)


def _pause(found: Any) -> tuple[int, int]:
    match a_list(found, "poolbench.pauses"):
        case [int(start), int(end)] if 0 <= start <= end < INSTANTS_END_MS:
            return start, end
    raise ReportError("poolbench.pauses: each must be two instants in epoch ms, in order")
