"""Values as Node's console shows them (`util.inspect` with its defaults), for `log` steps and the expect plugin. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import floor, sqrt
from typing import Any

from loadgen.language.values import text

_DEPTH = 2
_WIDTH = 128
_ITEMS_MAX = 100
_SHORT_LIST = 6
_COLUMNS_MAX = 12
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z_0-9]*")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def inspected(value: Any) -> str:
    """Return a text unchanged, and lists and objects as Node prints them, three levels deep."""
    return value if isinstance(value, str) else _shown(value, 0, 0)


def _shown(value: Any, depth: int, indent: int) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return _list(value, depth, indent)
    return _object(value, depth, indent) if isinstance(value, Mapping) else text(value)


def _quoted(value: str) -> str:
    mark = next((mark for mark in "'\"`" if mark not in value), "'")
    escapes = _ESCAPES | ({"'": "\\'"} if mark == "'" else {})
    return mark + "".join(escapes.get(c, c) for c in value) + mark


def _list(value: Sequence[Any], depth: int, indent: int) -> str:
    if not value:
        return "[]"
    if depth > _DEPTH:
        return "[Array]"
    items = [_shown(item, depth + 1, indent + 2) for item in value[:_ITEMS_MAX]]
    left = len(value) - _ITEMS_MAX
    more = [f"... {left} more item{'s' if left > 1 else ''}"] if left > 0 else []
    lines = items
    if len(items) + len(more) > _SHORT_LIST:
        lines = _columns(items, indent, right=all(isinstance(item, int | float) for item in value))
    return _joined("[]", [*lines, *more], indent, in_columns=lines is not items)


def _object(value: Mapping[str, Any], depth: int, indent: int) -> str:
    if not value:
        return "{}"
    if depth > _DEPTH:
        return "[Object]"
    pairs = [
        f"{key if _NAME.fullmatch(key) else _quoted(key)}: {_shown(item, depth + 1, indent + 2)}"
        for key, item in value.items()
    ]
    return _joined("{}", pairs, indent, in_columns=False)


def _joined(braces: str, entries: list[str], indent: int, *, in_columns: bool) -> str:
    """Join the items on one line where that is short enough, otherwise on a line each."""
    length = sum(map(len, entries)) + 2 * len(entries) + indent + 1 + 10
    if not in_columns and length <= _WIDTH and not any("\n" in e for e in entries):
        return f"{braces[0]} {', '.join(entries)} {braces[1]}"
    between = "\n" + " " * indent
    return f"{braces[0]}{between}  {f',{between}  '.join(entries)}{between}{braces[1]}"


def _columns(items: list[str], indent: int, *, right: bool) -> list[str]:
    """Arrange the items of a long list in columns, numbers aligned right; items too long for that stay on separate lines."""
    lengths = [len(item) + 2 for item in items]
    widest, total = max(lengths), sum(lengths)
    if widest * 3 + indent >= _WIDTH or not (total / widest > 5 or widest - 2 <= _SHORT_LIST):
        return items
    biased = max(widest - 2 - sqrt(widest - total / len(items)), 1)
    columns = min(
        floor(sqrt(2.5 * biased * len(items)) / biased + 0.5), floor((_WIDTH - indent) / widest), _COLUMNS_MAX, 15
    )
    if columns <= 1:
        return items
    widths = [max(lengths[i::columns]) for i in range(columns)]
    lines = []
    for start in range(0, len(items), columns):
        *row, last = items[start : start + columns]
        if right:
            line = "".join(f"{item}, ".rjust(width) for item, width in zip(row, widths, strict=False))
            lines.append(line + last.rjust(widths[len(row)] - 2))
        else:
            lines.append("".join(f"{item}, ".ljust(width) for item, width in zip(row, widths, strict=False)) + last)
    return lines
