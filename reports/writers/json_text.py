"""Results as JSON: the values behind each section under the section's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

import orjson

from reports.blocks import Charts, Page


def to_json(page: Page) -> str:
    """An object with a key for each section: its `data`, or its blocks where it has none; then the page's `data`.

    Sections of level 3 show parts of the data of the section before them. Charts are left out. Null stands for None and for
    numbers that JSON has no word for, such as infinity.
    """
    document: dict[str, Any] = {}
    for section in page.sections:
        if section.data is not None:
            document[section.id] = section.data
        elif section.level == 2 and (blocks := [b for b in section.blocks if not isinstance(b, Charts)]):
            document[section.id] = blocks
    values = plain_values(document | dict(page.data))
    return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def plain_values(value: Any) -> Any:
    """Values as JSON knows them: objects by their fields, null for numbers that are not finite.

    Integers beyond 64 bits become floats, and halves of a surrogate pair question marks.
    """
    match value:
        case bool() | None:
            return value
        case float():
            return value if isfinite(value) else None
        case int():
            return value if abs(value) < 2**63 else float(value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {plain_values(str(key)): plain_values(item) for key, item in value.items()}
        case list() | tuple() | range():
            return [plain_values(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"JSON has no word for {value!r}")
