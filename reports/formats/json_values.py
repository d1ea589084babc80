"""Reads JSON text and checks the values of documents that other programs wrote; a wrong value is a ReportError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar, overload

import orjson

from reports.model import ReportError

_Value = TypeVar("_Value")
# The largest double is near this; whole numbers of JSON have no bound.
_LARGEST = 1e308
INSTANTS_END_MS = 253_402_300_800_000 - 2 * 86_400_000
"""Instants of reports, in epoch ms, are before this: two days before the year 10000, which no clock shows, so that neither
the end of a period nor the local time of any zone lies beyond."""
_MOST_COUNTED = 2**63


def document(text: str) -> dict[str, Any]:
    """Parse a JSON text whose value is an object. Raises ReportError.

    At orjson's speed, by the standard library where orjson gives up, as on half a surrogate pair. The indentation after
    the first brace goes first: orjson 3.13 guesses from it that the whole text is indented, and reserves too little
    memory ("failed to allocate memory") for sketches, which are not.
    """
    opening = re.match(r"\s*\{\s+", text)
    try:
        value = orjson.loads("{" + text[opening.end() :] if opening else text)
    except ValueError:
        try:
            value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except ReportError:
            raise
        except (ValueError, RecursionError) as error:
            raise ReportError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReportError("not a JSON object")
    # Each key is followed by a colon. Only where there are other such pairs in the text, the slow parser looks.
    if _number_of_keys(value) != text.count('":'):
        with suppress(RecursionError):
            json.loads(text, object_pairs_hook=_unique)
    return value


def _number_of_keys(document: Any) -> int:
    number, left = 0, [document]
    while left:
        value = left.pop()
        number += len(value) if type(value) is dict else 0
        inner = value.values() if type(value) is dict else value
        left += [each for each in inner if type(each) in (dict, list)]
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated keys. Raises ReportError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ReportError(f"the key {twice} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def an_object(value: Any, place: str) -> Mapping[str, Any]:
    """Return an object; None counts as an empty one. Raises ReportError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ReportError(f"{place} is not an object")
    return value


def a_list(value: Any, place: str) -> list[Any]:
    """Return a list; None counts as an empty one. Raises ReportError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ReportError(f"{place} is not a list")
    return value


def number(value: Any, place: str) -> float:
    """Return a finite number. Raises ReportError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise ReportError(f"{place} is not a number")
    return value


def whole(value: Any, place: str) -> int:
    """Return an integer, which may be written as a string (as Artillery's periods are) or with a zero fraction.

    Raises ReportError for anything else, and for one beyond 64 bits, with which arithmetic may overflow.
    """
    if isinstance(value, str):
        try:
            found = int(value)
        except ValueError:
            raise ReportError(f"{place} is not a whole number") from None
    elif type(value) is int:
        found = value
    else:
        figure = number(value, place)
        found = int(figure)
        if figure != found:
            raise ReportError(f"{place} is not a whole number")
    if not -_MOST_COUNTED < found < _MOST_COUNTED:
        raise ReportError(f"{place} is too large a number")
    return found


def count(value: Any, place: str) -> int:
    """Return an integer that is not negative. Raises ReportError for anything else."""
    found = whole(value, place)
    if found < 0:
        raise ReportError(f"{place} is negative")
    return found


def instant(value: Any, place: str) -> int:
    """Return an instant in epoch ms, from 1970 to 9999. Raises ReportError for anything else."""
    found = whole(value, place)
    if not 0 <= found < INSTANTS_END_MS:
        raise ReportError(f"{place} is no instant between the years 1970 and 9999")
    return found


def each(value: Any, place: str, read: Callable[[Any, str], _Value]) -> dict[str, _Value]:
    """Read the values of an object one by one; nulls are left out."""
    items = an_object(value, place)
    return {name: read(item, f"{place}.{name}") for name, item in items.items() if item is not None}


class Later(Mapping[str, _Value]):
    """The values of an object, each read when it is first asked for, since most of a large document never is.

    Asking for a malformed value raises ReportError.
    """

    __slots__ = ("_found", "_items", "_place", "_read")

    def __init__(self, items: Mapping[str, Any], place: str, read: Callable[[Any, str], _Value]) -> None:
        """Take the items of an object, from which nulls have been removed."""
        self._items, self._place, self._read = items, place, read
        self._found: dict[str, _Value] = {}

    def __getitem__(self, name: str) -> _Value:
        if name not in self._found:
            self._found[name] = self._read(self._items[name], f"{self._place}.{name}")
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(dict(self))


class LaterList(Sequence[_Value]):
    """The values of a list, each read when it is asked for. Asking for a malformed value raises ReportError.

    Equal to any sequence of the same values.
    """

    __slots__ = ("_items", "_place", "_read")

    def __init__(self, items: Sequence[Any], place: str, read: Callable[[Any, str], _Value]) -> None:
        """Take the items of a list."""
        self._items, self._place, self._read = items, place, read

    @overload
    def __getitem__(self, index: int) -> _Value: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_Value]: ...
    def __getitem__(self, index: int | slice) -> _Value | Sequence[_Value]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return self._read(self._items[index], f"{self._place}[{index}]")

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment] # as of a list

    def __repr__(self) -> str:
        return repr(tuple(self))
