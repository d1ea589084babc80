"""JavaScript's values in Python: what a script's variable can be, and its conversions to text, number, boolean and path.

null is None, `undefined` is UNDEFINED; booleans, numbers, texts, lists and dicts are themselves. The rules are ECMAScript's
(String(), Number(), JSON.stringify, ==) and, for paths, those of lodash's `get` and `set`: what Artillery uses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from math import inf, isfinite, isnan, nan
from typing import Any, Final

import orjson


class Undefined:
    """The type of JavaScript's `undefined`, which is falsy."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "undefined"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        """Pickle by name, so that another process has only one such object, too."""
        return "UNDEFINED"


UNDEFINED: Final = Undefined()

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)")
_RADIX = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+")
_EXPONENT = re.compile(r"e([+-])0*(\d)")
_EXACT = 1 << 53
_BEYOND_DOUBLES = 1 << 1023
# Longest list, in elements, that a script can make by writing to an index beyond its end.
_MOST_ELEMENTS = 1_000_000


def number_text(value: float) -> str:
    """Return a number as JavaScript prints it: without a trailing `.0`, as `1e+21`, as `1e-7`."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e21):
        whole = int(value)
        return str(whole) if abs(whole) < 10**21 else number_text(float(whole))
    if not isfinite(value):
        return "NaN" if isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if 1e-6 <= abs(value) < 1e-4:
        return _plain(value)
    return _EXPONENT.sub(r"e\1\2", repr(value))


def _plain(value: float) -> str:
    """Write a small number with its shortest digits and without an exponent."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    digits = mantissa.replace(".", "")
    return ("-" if value < 0 else "") + "0." + "0" * (-int(exponent or 0) - 1) + digits


def number(text: str) -> int | float | None:
    """Return the number that JavaScript reads in a text (`007` is 7, `0x10` 16, `1e3` 1000); None if it is blank or no number."""
    bare = text.strip()
    if _RADIX.fullmatch(bare):
        return integer(bare[2:], {"x": 16, "o": 8, "b": 2}[bare[1].lower()])
    if bare in {"Infinity", "+Infinity", "-Infinity"}:
        return float(bare.replace("Infinity", "inf"))
    return whole(float(bare)) if _NUMBER.fullmatch(bare) else None


def whole(value: float) -> int | float:
    """Return an integral float as an int: JavaScript does not tell them apart."""
    if not (isfinite(value) and value.is_integer() and abs(value) < 1e21):
        return value
    # Beyond 2^53, JavaScript shows the shortest digits that are this double's, and zeros.
    return int(value) if abs(value) < _EXACT else int(Decimal(repr(value)))


def integer(digits: str, base: int = 10) -> int | float:
    """Return the number written by any number of digits; beyond 1e21 it is a double, as all of JavaScript's numbers are."""
    if base == 10:
        return int(digits) if len(digits) <= 21 else whole(float(digits))
    value = int(digits, base)
    if value < 10**21:
        return value
    return float(value) if value < _BEYOND_DOUBLES else inf


def to_number(value: Any) -> float:
    """Return what JavaScript's `Number(value)` gives."""
    if isinstance(value, bool | int | float):
        return value
    if value is None:
        return 0
    if isinstance(value, str):
        found = number(value)
        return found if found is not None else (nan if value.strip() else 0)
    if isinstance(value, list):
        return to_number(text(value[0])) if len(value) == 1 else (nan if value else 0)
    return nan


def text(value: Any) -> str:
    """Return what JavaScript's `String(value)` gives: lists joined by commas, objects as `[object Object]`."""
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return ",".join("" if item is None or item is UNDEFINED else text(item) for item in value)
    return "[object Object]" if isinstance(value, Mapping) else "undefined"


def json_text(value: Any) -> str:
    """Return what `JSON.stringify(value)` gives, and `undefined` for UNDEFINED.

    Floats beyond 1e21 or below 1e-6 are written as valid JSON, though with a shorter exponent than JavaScript's. What JSON does
    not have, such as a set that a processor made, is its text in Python.
    """
    if value is UNDEFINED:
        return "undefined"
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        return json.dumps(_defined(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _defined(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _defined(v) for k, v in value.items() if v is not UNDEFINED}
    if isinstance(value, list | tuple):
        return [_defined(v) for v in value]
    return None if value is UNDEFINED else value


def json_value(data: bytes | str) -> Any:
    """Parse JSON text as `JSON.parse` does; integral floats become ints. Raises ValueError."""
    try:
        return _whole_inside(orjson.loads(data))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole_inside(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(item) is float or type(item) is dict or type(item) is list:
                value[key] = _whole_inside(item)
    elif kind is list:
        for i, item in enumerate(value):
            if type(item) is float or type(item) is dict or type(item) is list:
                value[i] = _whole_inside(item)
    elif kind is float:
        return whole(value)
    return value


def strictly_equal(a: Any, b: Any) -> bool:
    """Whether `a === b` in JavaScript: equal and of one type; objects and lists are equal only to themselves."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    return a is b


def loosely_equal(a: Any, b: Any) -> bool:
    """Whether `a == b` in JavaScript: null equals undefined; numbers, texts and booleans of different types are
    compared as numbers.
    """
    empty_a, empty_b = a is None or a is UNDEFINED, b is None or b is UNDEFINED
    if empty_a or empty_b:
        return empty_a and empty_b
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    boxed_a, boxed_b = isinstance(a, list | Mapping), isinstance(b, list | Mapping)
    if boxed_a and boxed_b:
        return a is b
    if boxed_a:
        return loosely_equal(text(a), b)
    if boxed_b:
        return loosely_equal(a, text(b))
    return to_number(a) == to_number(b)


def truthy(value: Any) -> bool:
    """Whether JavaScript takes the value for true; empty lists and objects are."""
    if isinstance(value, list | Mapping):
        return True
    return bool(value) and value == value  # noqa: PLR0124 - NaN is false


_STEP = re.compile(r"""[^.\[\]]+|\[(?:(-?\d+(?:\.\d+)?)|(["'])(.*?)\2)\]|(?=(?:\.|\[\])(?:\.|\[\]|$))""")


@lru_cache(maxsize=4096)
def path_steps(path: str) -> tuple[str, ...]:
    """Split a path such as `a.b[0]['k']` into its keys."""
    steps = []
    if path.startswith("."):
        steps.append("")
    for match in _STEP.finditer(path):
        index, quote, quoted = match.groups()
        steps.append(quoted if quote else (index if index is not None else match.group()))
    return tuple(steps)


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 16


def child(value: Any, key: str) -> Any:
    """Return `value[key]` of an object, a list or a text (an index or `length`); UNDEFINED if there is no such key."""
    if isinstance(value, Mapping):
        return value.get(key, UNDEFINED)
    if isinstance(value, list | tuple | str):
        if key == "length":
            return len(value)
        if _is_index(key) and int(key) < len(value):
            return value[int(key)]
    return UNDEFINED


def get_path(value: Any, path: str) -> Any:
    """Return the value at `path`, UNDEFINED if there is none; a key spelled exactly like the path takes precedence."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    keys = path_steps(path)
    if not keys:
        return UNDEFINED
    for key in keys:
        value = child(value, key)
        if value is UNDEFINED:
            return UNDEFINED
    return value


def set_path(variables: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `path`, creating objects (lists where the next key is an index) on the way.

    Containers on the way are copied, not changed: variables of other users may share them. An index beyond a million
    makes an object, and raises ValueError where there is a list already.
    """
    if path in variables or ("." not in path and "[" not in path):
        variables[path] = value
        return
    keys = path_steps(path)
    if not keys:
        variables[path] = value
        return
    holder: Any = variables
    for key, following in pairwise(keys):
        found = child(holder, key)
        inner: Any
        if isinstance(found, Mapping):
            inner = dict(found)
        elif isinstance(found, list | tuple):
            inner = list(found)
        else:
            inner = [] if _is_index(following) and int(following) < _MOST_ELEMENTS else {}
        _put(holder, key, inner)
        holder = inner
    _put(holder, keys[-1], value)


def _put(holder: Any, key: str, value: Any) -> None:
    if isinstance(holder, list):
        if _is_index(key):
            if int(key) >= _MOST_ELEMENTS:
                raise ValueError(f"a list of {key} elements")
            holder.extend([UNDEFINED] * (int(key) + 1 - len(holder)))
            holder[int(key)] = value
    else:
        holder[key] = value
