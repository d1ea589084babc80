"""The ensure plugin, which holds a finished run against the script's checks, and the score of the apdex plugin. Pure.

A metric in an expression is a counter, a rate, or `<summary>.<key>` (min, max, count, mean, p50, median, p75, p90, p95, p99,
p999), `apdex` is the score. A metric that the run did not have, or a broken expression, fails its check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadgen.language.expressions import ExpressionError, compile_expression
from loadgen.language.values import UNDEFINED, number_text, to_number, whole
from loadgen.script.document import ScriptNode
from loadgen.script.model import Check
from reports.model import SUMMARY_KEYS, Period

_LEGACY = ("min", "max", "median", "p95", "p99")
_ERROR_RATE = "((vusers.created - vusers.completed)/vusers.created * 100) <= "
_APDEX_COUNTERS = ("apdex.satisfied", "apdex.tolerated", "apdex.frustrated")
_RANKS = ((0.94, "excellent"), (0.85, "good"), (0.7, "fair"), (0.49, "poor"))


@dataclass(frozen=True, slots=True)
class EnsureResult:
    """The result of all checks: the lines to print after `Checks:`, and whether a strict check failed."""

    lines: tuple[str, ...]
    failed: bool


def checks_of(part: ScriptNode) -> tuple[Check, ...]:
    """Return the checks that an `ensure` section defines, in the order in which they are evaluated."""
    checks: list[Check] = []
    for item in part["thresholds"].parts():
        if isinstance(item.value, dict) and item.value:
            name, limit = next(iter(item.value.items()))
            expression = f"{name} < {_shown(limit)}"
            checks.append(Check(expression, expression))
    for item in part["conditions"].parts():
        if isinstance(item.value, dict):
            expression, strict = str(item.get("expression")), item.get("strict", True)
            checks.append(Check(expression, expression, strict is not False))
    for key, item in part.items():
        if key in _LEGACY:
            limit_text = _whole(item.value)
            checks.append(Check(f"{key} < {limit_text}", f"http.response_time.{key} < {limit_text}"))
    if "maxErrorRate" in part:
        limit_text = number_text(to_number(part.get("maxErrorRate")))
        checks.append(Check(f"maxErrorRate < {limit_text}", _ERROR_RATE + limit_text))
    return tuple(checks)


def _shown(limit: Any) -> str:
    return number_text(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else str(limit)


def _whole(limit: Any) -> str:
    """Return the whole number that a limit begins with, as JavaScript's `parseInt` does."""
    match = re.match(r"\s*[+-]?\d+", _shown(limit))
    return number_text(whole(float(match.group()))) if match else "NaN"


def evaluate(checks: tuple[Check, ...], aggregate: Period) -> EnsureResult:
    """Evaluate all checks. The lines of those that passed come first; each group is in reverse order of definition."""
    metrics = metrics_of(aggregate)
    judged = [(check, holds(check.expression, metrics)) for check in reversed(checks)]
    lines = [f"ok: {check.text}" for check, ok in judged if ok]
    lines += [f"fail: {check.text}{'' if check.strict else ' (optional)'}" for check, ok in judged if not ok]
    return EnsureResult(tuple(lines), any(check.strict and not ok for check, ok in judged))


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
    """Whether a check's expression is true for the metrics. Metric names may hold any character, even `{{ id }}`."""
    names = sorted((name for name in metrics if name in expression), key=len, reverse=True)
    values: dict[str, Any] = {}
    if names:
        found = re.compile("(?<![\\w.'])(?:" + "|".join(re.escape(name) for name in names) + ")(?![\\w'])")

        def stand_in(match: re.Match[str]) -> str:
            values[f"metric{len(values)}"] = metrics[match.group()]
            return f"metric{len(values) - 1}"

        expression = found.sub(stand_in, expression)
    try:
        result = compile_expression(expression)({**metrics, **values})
    except (ExpressionError, re.error):
        return False
    return result is not UNDEFINED and to_number(result) == 1


def apdex_score(counters: Mapping[str, int]) -> float | None:
    """Return (satisfied + tolerated / 2) / all; None if there were no samples. Source: Apdex specification 1.1."""
    satisfied, tolerated, frustrated = (counters.get(name, 0) for name in _APDEX_COUNTERS)
    judged = satisfied + tolerated + frustrated
    return (satisfied + tolerated / 2) / judged if judged else None


def apdex_line(counters: Mapping[str, int]) -> str | None:
    """Return the line `Apdex score: 0.5 (poor)`; None if there were no samples."""
    score = apdex_score(counters)
    if score is None:
        return None
    rank = next((name for least, name in _RANKS if score >= least), "unacceptable")
    return f"Apdex score: {number_text(score)} ({rank})"
