"""Turns CSV text into rows for virtual users. Pure."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from random import Random
from typing import Any

from loadgen.language.values import UNDEFINED, number
from loadgen.script.model import Payload

_EXACT = 2**53
"""Up to here, doubles hold every whole number."""
_LONG = re.compile(r"[+-]?\d{16,21}", re.ASCII)
_RADIX = re.compile(r"\s*0[xXoObB]")
# Takes the place of a delimiter of several characters, which the csv module does not support.
_STAND_IN = "\x1f"


class PayloadError(ValueError):
    """Raised for text that is not valid CSV; the message names the line."""


def read_rows(
    text: str,
    *,
    delimiter: str = ",",
    quote: str = '"',
    skip_header: bool = False,
    skip_empty_lines: bool = True,
    trim: bool = False,
    cast: bool = True,
    uneven: bool = False,
) -> tuple[tuple[Any, ...], ...]:
    """Return the rows of a CSV text. With `cast`, cells that JavaScript reads as numbers become numbers (`007` is 7, `0x10` 0).

    Raises PayloadError for broken quoting and, unless `uneven`, for rows of different lengths.
    """
    text = text.removeprefix("\ufeff")
    if len(delimiter) > 1:
        text, delimiter = text.replace(delimiter, _STAND_IN), _STAND_IN
    if skip_header:
        text = text.replace("\r\n", "\n").replace("\r", "\n").partition("\n")[2]
    # The module's own limit is 131,072 characters; it is there for texts that are not read as a whole.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, strict=True)
    rows: list[tuple[Any, ...]] = []
    try:
        for cells in reader:
            row = cells or [""]
            if skip_empty_lines and not cells:
                continue
            if rows and len(row) != len(rows[0]) and not uneven:
                line = reader.line_num + skip_header
                raise PayloadError(f"line {line} has {len(row)} columns, the first row {len(rows[0])}")
            rows.append(tuple(_cell(cell.strip() if trim else cell, cast=cast) for cell in row))
    except csv.Error as error:
        raise PayloadError(f"line {reader.line_num + skip_header}: {error}") from None
    return tuple(rows)


def _cell(text: str, *, cast: bool) -> Any:
    value = number(text) if cast else None
    # Artillery's CSV reader takes `0x10` for a number, and then reads it up to the letter.
    if value and _RADIX.match(text):
        return 0
    if value is None or not isfinite(value):
        return text
    return _rounded(value) if isinstance(value, int) and abs(value) > _EXACT else value


def _rounded(value: int) -> int:
    """An integer beyond 2^53 as JavaScript has it: the double beside it, in the fewest digits that name that double."""
    return int(Decimal(repr(float(value))))


def loses_digits(text: str) -> bool:
    """Whether a cell of a CSV file is a whole number that Artillery, and `read_rows` with `cast`, changes."""
    bare = text.strip()
    return bool(_LONG.fullmatch(bare)) and _cell(bare, cast=True) != int(bare)


def variables_of(payload: Payload, rng: Random, first: int = 0, every: int = 1) -> Callable[[], Mapping[str, Any]]:
    """Return a function that gives a virtual user its variables at each call: the next row, a random one, or all of them.

    Rows in sequence are every `every`-th row from number `first` on, so that several generators share them.
    """
    if payload.order == "all":
        rows = [dict(zip(payload.fields, row, strict=False)) if payload.fields else list(row) for row in payload.rows]
        everything = {payload.name or "": rows}
        return lambda: everything
    fields = payload.fields
    if not payload.rows:
        nothing = dict.fromkeys(fields, UNDEFINED)
        return lambda: nothing
    prepared = [{f: row[i] if i < len(row) else UNDEFINED for i, f in enumerate(fields)} for row in payload.rows]
    if payload.order == "sequence":
        at = first - every

        def following() -> Mapping[str, Any]:
            nonlocal at
            at = (at + every) % len(prepared)
            return prepared[at]

        return following
    return lambda: rng.choice(prepared)
