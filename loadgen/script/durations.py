"""Reads durations as scripts write them: `2`, `"90"`, `500ms`, `1.5m`, `2 min`. Pure."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

from loadgen.language.values import UNDEFINED, number_text, text, to_number

_UNITS_S = {
    0.001: "ms msec msecs millisecond milliseconds",
    1: "s sec secs second seconds",
    60: "m min mins minute minutes",
    3600: "h hr hrs hour hours",
    86400: "d day days",
    604800: "w week weeks",
    31557600: "y yr yrs year years",
}
LONGEST_S = 10 * 31557600
"""Ten years: no phase and no time limit is longer, so that their nanoseconds fit into 64 bits."""
_SECONDS = {name: seconds for seconds, names in _UNITS_S.items() for name in names.split()}
_DURATION = re.compile(r"(-?(?:\d+(?:\.\d+)?|\.\d+)) *([a-z]+)", re.IGNORECASE)


def seconds(value: Any) -> float | None:
    """Return a phase's duration in seconds: a whole number, or a number with a unit. None for anything else, 2.5 included."""
    if value is UNDEFINED or value is None or isinstance(value, bool):
        return None
    bare = to_number(value)
    if isfinite(bare) and float(bare).is_integer():
        return bare
    match = _DURATION.fullmatch(text(value))
    if not match or match[2].lower() not in _SECONDS:
        return None
    return float(match[1]) * _SECONDS[match[2].lower()]


def think_seconds(value: Any) -> float | None:
    """Return a think time in seconds: as `seconds`, and fractions are allowed without a unit. None for anything else."""
    if isinstance(value, bool) or not text(value).strip():
        return None
    bare = to_number(value)
    return bare if value is not None and isfinite(bare) else seconds(value)


def duration_text(value: Any) -> str:
    """Return a phase's duration as the console shows it: `s` after a whole number, anything else as written."""
    bare = to_number(value)
    whole = isfinite(bare) and float(bare).is_integer()
    return f"{number_text(bare)}s" if whole else text(value)
