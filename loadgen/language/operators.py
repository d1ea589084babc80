"""JavaScript's binary operators of arithmetic and order, on its values in Python. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from loadgen.language.values import text, to_number


def add(a: Any, b: Any) -> Any:
    """Return `a + b`: texts, lists and objects are joined as text, anything else is added as numbers."""
    if isinstance(a, str | list | Mapping) or isinstance(b, str | list | Mapping):
        return text(a) + text(b)
    return to_number(a) + to_number(b)


def subtract(a: Any, b: Any) -> float:
    """Return `a - b` as numbers."""
    return to_number(a) - to_number(b)


def multiply(a: Any, b: Any) -> float:
    """Return `a * b` as doubles, so that a product of large integers costs no more than one of small ones."""
    return float(to_number(a)) * float(to_number(b))


def divide(a: Any, b: Any) -> float:
    """Return `a / b` as numbers; a division by zero gives an infinity with its sign, or NaN."""
    x, y = to_number(a), to_number(b)
    if y:
        return x / y
    return math.nan if not x or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1, y)


def remainder(a: Any, b: Any) -> float:
    """Return `a % b` as numbers, with the sign of `a`; NaN where `b` is zero or `a` infinite."""
    x, y = to_number(a), to_number(b)
    return math.fmod(x, y) if y and math.isfinite(x) else math.nan


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def ordered(a: Any, b: Any) -> bool:
        both_texts = isinstance(a, str) and isinstance(b, str)
        return compare(a, b) if both_texts else compare(to_number(a), to_number(b))

    return ordered


ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
}
"""Comparisons by their sign: two texts compare as texts, anything else as numbers."""
