"""The ensure plugin, which holds a finished run against the script's checks, and the score of the apdex plugin. Pure.

A metric in an expression is a counter, a rate, or `<summary>.<key>` (min, max, count, mean, p50, median, p75, p90, p95, p99,
p999), `apdex` is the score. A metric that the run did not have, or a broken expression, fails its check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import nan
from typing import Any

from loadgen.language.expressions import ExpressionError, compile_expression
from loadgen.language.limits import LimitExceeded
from loadgen.language.values import UNDEFINED, number_text, to_number, whole
from loadgen.script import keys
from loadgen.script.document import ABSENT, ScriptNode, nearest
from loadgen.script.model import Check
from reports.model import SUMMARY_KEYS, Period
from reports.names import (
    APDEX,
    DOWNLOADED_BYTES,
    REQUEST_RATE,
    REQUESTS,
    RESPONSE_TIME,
    RESPONSES,
    SESSION_LENGTH,
    VUSERS_COMPLETED,
    VUSERS_CREATED,
    VUSERS_FAILED,
    VUSERS_SKIPPED,
    status_class,
)

_LEGACY = keys.ENSURE_LIMITS
_ERROR_RATE = f"(({VUSERS_CREATED} - {VUSERS_COMPLETED})/{VUSERS_CREATED} * 100) <= "
_SUMMARIES = (RESPONSE_TIME, SESSION_LENGTH, status_class(200))
_FIGURES = tuple(f"{name}.{key}" for name in _SUMMARIES for key in SUMMARY_KEYS)
_COUNTERS = (
    REQUESTS,
    REQUEST_RATE,
    RESPONSES,
    DOWNLOADED_BYTES,
    VUSERS_CREATED,
    VUSERS_COMPLETED,
    VUSERS_FAILED,
    VUSERS_SKIPPED,
)
_METRIC = re.compile(r"[A-Za-z]\w*(?:\.\w+)+")
_FAMILIES = ("http", "vusers", "errors", "plugins", "apdex", "server", "loadgen")
_MANY_CODES = re.compile(r"http\.codes\.\d*[xX]+")
_NAMED_BY_USERS = re.compile(r"vusers\.created_by_name\.|errors\.|plugins\.|\{\{")
_RANKS = ((0.94, "excellent"), (0.85, "good"), (0.7, "fair"), (0.49, "poor"))


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: whether it held, and the metrics that its expression names, with their values."""

    check: Check
    held: bool
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EnsureResult:
    """The result of all checks: the lines to print after `Checks:`, whether a strict check failed, and each check's result."""

    lines: tuple[str, ...]
    failed: bool
    results: tuple[CheckResult, ...] = ()


def checks_of(part: ScriptNode) -> tuple[Check, ...]:
    """Return the checks that an `ensure` section defines, in the order in which they are evaluated."""
    checks: list[Check] = []
    _warn_of_no_checks(part)
    for item in part["thresholds"].parts():
        if isinstance(item.value, dict) and item.value:
            name, limit = next(iter(item.value.items()))
            expression = f"{name} < {_shown(limit)}"
            checks.append(Check(expression, expression))
            _warn_of_limit(item[name])
            _warn_of_metric(item[name], name)
            for other in list(item.value)[1:]:
                item[other].warn("is not checked: an element of `thresholds` is one metric and its limit")
        else:
            item.warn("is no check: an element of `thresholds` is one metric and its limit")
    for item in part["conditions"].parts():
        if isinstance(item.value, dict):
            expression, strict = str(item.get("expression")), item.get("strict", True)
            checks.append(Check(expression, expression, strict is not False))
            item.warn_unknown(("expression", "strict"))
            item["strict"].expect(bool, "true or false, without quotes: the check is strict", strict=False)
            _warn_of_expression(item["expression"])
        else:
            item.warn("is no check: an element of `conditions` has an `expression`")
    for key, item in part.items():
        if key in _LEGACY:
            limit_text = _whole(item.value)
            _warn_of_limit(item)
            checks.append(Check(f"{key} < {limit_text}", f"{RESPONSE_TIME}.{key} < {limit_text}"))
    if "maxErrorRate" in part:
        limit_text = number_text(to_number(part.get("maxErrorRate")))
        _warn_of_limit(part["maxErrorRate"])
        checks.append(Check(f"maxErrorRate < {limit_text}", _ERROR_RATE + limit_text))
    return tuple(checks)


def _warn_of_no_checks(part: ScriptNode) -> None:
    """Warn of a section, or of keys in it, that make no check."""
    if not isinstance(part.value, dict):
        if part.value not in (ABSENT, None, True):
            part.warn("makes no check: it is an object with `thresholds`, `conditions`, or limits such as `p95: 200`")
        return
    part.warn_unknown(keys.ENSURE)
    for key in ("thresholds", "conditions"):
        part[key].expect((list, type(None)), "a list", strict=False)


def _warn_of_limit(part: ScriptNode) -> None:
    limit = part.value
    if isinstance(limit, bool) or limit is None or to_number(limit) != to_number(limit):
        part.warn(f"the limit must be a number, not {limit!r}: the check always fails")
    elif to_number(limit) < 0:
        part.warn(f"no figure is below {limit}: the check always fails")


def _warn_of_metric(part: ScriptNode, name: str) -> None:
    """Warn of metrics that no run has."""
    family, _, rest = name.partition(".")
    if _MANY_CODES.fullmatch(name):
        part.warn("no run has this metric: codes are counted one by one, as `http.codes.500`")
    elif name in _SUMMARIES:
        part.warn(f"is a summary: name one of its figures, such as `{name}.p95`")
    elif like := _misspelt(name):
        part.warn("no run has this metric, unless a function of the processor makes it", like)
    elif not rest and name != "apdex":
        like = nearest(name, ("maxErrorRate", *_LEGACY))
        part.warn("no run has this metric, unless a function of the processor makes it", like)
    elif family not in _FAMILIES and (like := nearest(family, _FAMILIES)):
        part.warn(
            f"no run has this metric, unless a function of the processor makes it (did you mean `{like}.{rest}`?)"
        )


def _misspelt(name: str) -> str | None:
    """Return the metric of every run that a name is like, but for one slip; None where it is right or unlike all."""
    if name.startswith("http."):
        stem, _, figure = name.rpartition(".")
        if stem in _SUMMARIES or re.fullmatch(rf"{re.escape(RESPONSE_TIME)}\.[1-5]xx", stem):
            return None if figure in (*SUMMARY_KEYS, "median") or figure == "2xx" else nearest(name, _FIGURES)
    if name in _FIGURES or name in _COUNTERS:
        return None
    found = get_close_matches(name, (*_FIGURES, *_COUNTERS), 1, 0.93)
    return found[0] if found else None


def _warn_of_expression(part: ScriptNode) -> None:
    """Warn of an expression that cannot be read. Names of metrics may hold any character; such expressions are left alone."""
    if part.value is ABSENT:
        part.warn("is missing: the check always fails")
        return
    text = str(part.value)
    if _NAMED_BY_USERS.search(text):
        return
    try:
        compile_expression(text)
    except ExpressionError as error:
        part.warn(f"{error}: the check always fails")
        return
    if _METRIC.fullmatch(text.strip()):
        part.warn("compares nothing: write it with a limit, such as `http.response_time.p95 < 250`")
    for name in dict.fromkeys(_METRIC.findall(text)):
        if like := _misspelt(name):
            part.warn(f"`{name}`: no run has this metric, unless a function of the processor makes it", like)


def _shown(limit: Any) -> str:
    return number_text(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else str(limit)


def _whole(limit: Any) -> str:
    """Return the whole number that a limit begins with, as JavaScript's `parseInt` does."""
    match = re.match(r"\s*[+-]?\d+", _shown(limit))
    return number_text(whole(float(match.group()))) if match else "NaN"


def evaluate(checks: tuple[Check, ...], aggregate: Period) -> EnsureResult:
    """Evaluate all checks. Their lines are in Artillery's order: by the value of the expression, highest first, and in reverse
    order of definition where that is the same.
    """
    metrics = metrics_of(aggregate)
    lines, failed, results = [], False, []
    for check, result in _in_order([(check, result_of(check.expression, metrics)) for check in checks]):
        named = _named(check.expression, metrics)
        figures = {name: metrics[name] for name in named.findall(check.expression)} if named else {}
        results.append(CheckResult(check, _is_true(result), figures))
        if _is_true(result):
            lines.append(f"ok: {check.text}")
        else:
            lines.append(f"fail: {check.text}{'' if check.strict else ' (optional)'}")
            failed |= check.strict
    return EnsureResult(tuple(lines), failed, tuple(results))


def _in_order(judged: list[tuple[Check, Any]]) -> list[tuple[Check, Any]]:
    """Checks and their results as Artillery orders them.

    It sorts with a comparison that never says "equal", so that the order depends on the algorithm: the first run is reversed
    where it falls, and every further element is put in its place by binary search (what V8 does with up to 63 elements).
    """
    if len(judged) < 2:
        return judged
    falling, run = _precedes(judged[1], judged[0]), 2
    while run < len(judged) and _precedes(judged[run], judged[run - 1]) is falling:
        run += 1
    ordered = judged[:run][::-1] if falling else judged[:run]
    for each in judged[run:]:
        first, end = 0, len(ordered)
        while first < end:
            middle = (first + end) // 2
            if _precedes(each, ordered[middle]):
                end = middle
            else:
                first = middle + 1
        ordered.insert(first, each)
    return ordered


def _precedes(one: tuple[Check, Any], other: tuple[Check, Any]) -> bool:
    a, b = (nan if result is UNDEFINED else to_number(result) for _, result in (one, other))
    return not a < b


def metrics_of(aggregate: Period) -> dict[str, float]:
    """Return every metric that an expression may name, with its value."""
    values: dict[str, float] = dict(aggregate.counters)
    values |= {name: rate.per_second for name, rate in aggregate.rates.items()}
    for name, summary in aggregate.summaries.items():
        for key in SUMMARY_KEYS:
            value = getattr(summary, key)
            if value is not None:
                values[f"{name}.{key}"] = value
    score = apdex_score(aggregate.counters)
    if score is not None:
        values["apdex"] = score
    return values


def holds(expression: str, metrics: Mapping[str, float]) -> bool:
    """Whether a check's expression is true for the metrics."""
    return _is_true(result_of(expression, metrics))


def _is_true(result: Any) -> bool:
    return result is not UNDEFINED and to_number(result) == 1


def result_of(expression: str, metrics: Mapping[str, float]) -> Any:
    """The value of a check's expression for the metrics: 1 or 0, another number, or UNDEFINED where it cannot be evaluated.

    Metric names may hold any character, even `{{ id }}`.
    """
    values: dict[str, Any] = {}
    if found := _named(expression, metrics):

        def stand_in(match: re.Match[str]) -> str:
            values[f"metric{len(values)}"] = metrics[match.group()]
            return f"metric{len(values) - 1}"

        expression = found.sub(stand_in, expression)
    try:
        return compile_expression(expression)({**metrics, **values})
    except (ExpressionError, LimitExceeded, re.error):
        return UNDEFINED


def _named(expression: str, metrics: Mapping[str, float]) -> re.Pattern[str] | None:
    """The pattern of the metrics' names that occur in the expression; None if there are none."""
    names = sorted((name for name in metrics if name in expression), key=len, reverse=True)
    if not names:
        return None
    return re.compile("(?<![\\w.'])(?:" + "|".join(re.escape(name) for name in names) + ")(?![\\w'])")


def apdex_score(counters: Mapping[str, int]) -> float | None:
    """Return (satisfied + tolerated / 2) / all; None if there were no samples. Source: Apdex specification 1.1."""
    satisfied, tolerated, frustrated = (counters.get(name, 0) for name in APDEX)
    judged = satisfied + tolerated + frustrated
    return (satisfied + tolerated / 2) / judged if judged else None


def apdex_line(counters: Mapping[str, int]) -> str | None:
    """Return the line `Apdex score: 0.5 (poor)`; None if there were no samples."""
    score = apdex_score(counters)
    if score is None:
        return None
    rank = next((name for least, name in _RANKS if score >= least), "unacceptable")
    return f"Apdex score: {number_text(score)} ({rank})"
