"""JSONPath as Artillery's users write it: the dialect of jsonpath-plus 10, whose rules these are. Pure.

`$` may be left out. Steps are names (`.name`, `['name']`, `.0`), `*`, `..`, slices (`[1:5:2]`), unions (`[a,b]`), filters
(`[?(@.price > 10)]`), computed names (`[(@.length-1)]`), `^` (the parent), `~` (the name of the value) and `@number()` and
its like (values of a type). Filters are JavaScript (`loadgen.language.javascript`), with `@` for the value, `@property`,
`@parent`, `@parentProperty`, `@root` and `@path`. Negative indexes find nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

from loadgen.language.javascript import Expression, JavaScriptError, compile_javascript
from loadgen.language.limits import LimitExceeded, Stopwatch
from loadgen.language.values import UNDEFINED, child, text, truthy

_TYPE = re.compile(r"@(null|boolean|number|string|integer|undefined|nonFinite|scalar|array|object|function|other)\(\)")
_SLICE = re.compile(r"(-?\d*):(-?\d*):?(\d*)")
_NAME = re.compile(rf"(?:(?!{_TYPE.pattern})[^.\[^~])+")
_INDEX = re.compile(r"0|[1-9]\d{0,9}")
_LONGEST = 2000
_MOST = 1_000_000
_OPENING = {"(": ")", "[": "]"}


class JsonPathError(ValueError):
    """The text is not a path, or one of its filters cannot be evaluated; the message says why."""


class _Found:
    """A value of the document with its place: the value it is in, and the name it has there.

    `many`: a step on the way to it may find any number of values, so that one match is still a list.
    """

    __slots__ = ("above", "many", "name", "value")

    def __init__(self, value: Any, above: _Found | None, name: Any, *, many: bool) -> None:
        self.value = value
        self.above = above
        self.name = name
        self.many = many


_Step = Callable[[_Found, Any], Iterator[_Found]]
"""(where, root of the document) -> what is found there."""


def find_all(path: str, document: Any) -> tuple[list[Any], bool]:
    """Return all matches, and whether the path may have several. Raises JsonPathError, LimitExceeded."""
    steps = _compiled(path)
    found = [_Found(document, None, None, many=False)]
    try:
        for step in steps:
            found = list(_limited(step(place, document) for place in found))
    except (JavaScriptError, RecursionError) as error:
        raise JsonPathError(str(error) or "nested too deeply") from None
    return [each.value for each in found], len(found) != 1 or found[0].many


def _limited(groups: Iterable[Iterator[_Found]]) -> Iterator[_Found]:
    """All that a step has found. Raises LimitExceeded (ERR_JSONPATH_LIMIT) where that is too much, or takes too long."""
    watch, number = Stopwatch("ERR_JSONPATH_LIMIT"), 0
    for group in groups:
        watch.check()
        for each in group:
            yield each
            number += 1
            if number % 1024 == 0:
                watch.check()
            if number > _MOST:
                raise LimitExceeded("ERR_JSONPATH_LIMIT")


def check(path: str) -> None:
    """Raise JsonPathError if the path cannot be read."""
    _compiled(path)


@lru_cache(maxsize=1024)
def _compiled(path: str) -> tuple[_Step, ...]:
    if len(path) > _LONGEST:
        raise JsonPathError("the path is too long")
    try:
        return tuple(_steps(path.strip()))
    except JavaScriptError as error:
        raise JsonPathError(str(error)) from None


def _steps(path: str) -> Iterator[_Step]:
    at = 1 if path == "$" or re.match(r"\$[.\[^~]", path) else 0
    if at == 0 and path.startswith((".", "[")):
        # jsonpath-plus takes what is before the dot for a name, which is empty.
        yield _step("")
    while at < len(path):
        if path.startswith("..", at):
            yield _descend
            at += 2
        elif path[at] == ".":
            at += 1
        elif path[at] in "^~":
            yield _parent if path[at] == "^" else _own_name
            at += 1
        elif path[at] == "[":
            end = _closing(path, at)
            yield _step(_unquoted(path[at + 1 : end]))
            at = end + 1
        elif typed := _TYPE.match(path, at):
            yield _typed(typed[1])
            at = typed.end()
        else:
            match = _NAME.match(path, at)
            if match is None:
                raise JsonPathError(f"cannot read `{path[at:]}`")
            yield _step(match[0])
            at = match.end()


def _closing(path: str, start: int) -> int:
    """Return where the bracket at `start` is closed; brackets in texts do not count."""
    open_brackets: list[str] = []
    quote = ""
    at = start
    while at < len(path):
        each = path[at]
        if quote:
            at += each == "\\"
            quote = "" if each == quote else quote
        elif each in "'\"":
            quote = each
        elif each in _OPENING:
            open_brackets.append(_OPENING[each])
        elif open_brackets and each == open_brackets[-1]:
            open_brackets.pop()
            if not open_brackets:
                return at
        at += 1
    raise JsonPathError(f"`{path[start:]}` is not closed")


def _unquoted(inside: str) -> str:
    return inside[1:-1] if len(inside) > 1 and inside[0] == inside[-1] and inside[0] in "'\"" else inside


def _step(name: str) -> _Step:
    """Return the step that stands in brackets or between dots."""
    if name == "*":
        return lambda place, _: _children(place)
    if name.startswith("?(") and name.endswith(")"):
        return _filter(compile_javascript(name[2:-1]))
    if name.startswith("(") and name.endswith(")"):
        return _computed(compile_javascript(name[1:-1]))
    if part := _SLICE.fullmatch(name):
        return _slice(*part.groups())
    if "," in name:
        parts = [_step(part) for part in name.split(",")]
        return lambda place, root: (_of_many(each) for part in parts for each in part(place, root))
    own = name.removeprefix("`")
    return lambda place, _: _property(place, own, many=place.many)


def _of_many(found: _Found) -> _Found:
    return _Found(found.value, found.above, found.name, many=True)


def _property(place: _Found, name: Any, *, many: bool) -> Iterator[_Found]:
    value = child(place.value, text(name))
    if value is not UNDEFINED:
        yield _Found(value, place, name, many=many)


def _children(place: _Found) -> Iterator[_Found]:
    value = place.value
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield _Found(inner, place, index, many=True)
    elif isinstance(value, dict):
        for name in _in_javascripts_order(value):
            yield _Found(value[name], place, name, many=True)


def _in_javascripts_order(keys: Iterable[str]) -> Sequence[str]:
    """Return the keys of an object as JavaScript lists them: those that are indexes first, by size."""
    names = list(keys)
    indexes = sorted((name for name in names if _INDEX.fullmatch(name)), key=int)
    return [*indexes, *(name for name in names if not _INDEX.fullmatch(name))] if indexes else names


def _descend(place: _Found, root: Any) -> Iterator[_Found]:
    yield place
    for inner in _children(place):
        if inner.value is None or isinstance(inner.value, dict | list):
            yield from _descend(inner, root)


def _parent(place: _Found, _: Any) -> Iterator[_Found]:
    if place.above is not None:
        yield place.above


def _own_name(place: _Found, _: Any) -> Iterator[_Found]:
    yield _Found(place.name, place.above, None, many=False)


def _slice(start: str, end: str, step: str) -> _Step:
    """A slice of a list; as in jsonpath-plus, an end of 0 is the end of the list."""

    def sliced(place: _Found, _: Any) -> Iterator[_Found]:
        if not isinstance(place.value, list):
            return
        length = len(place.value)
        low, high = int(start or 0) if start != "-" else 0, (int(end) if end not in ("", "-") else 0) or length
        low = max(0, low + length) if low < 0 else min(length, low)
        high = max(0, high + length) if high < 0 else min(length, high)
        for index in range(low, high, int(step or 0) or 1):
            yield _Found(place.value[index], place, index, many=True)

    return sliced


def _filter(holds: Expression) -> _Step:
    def filtered(place: _Found, root: Any) -> Iterator[_Found]:
        watch = Stopwatch("ERR_JSONPATH_LIMIT")
        for number, each in enumerate(_children(place)):
            if number % 16 == 0:
                watch.check()
            if truthy(holds(_scope(each.value, each.name, place, root))):
                yield each

    return filtered


def _computed(name_of: Expression) -> _Step:
    def computed(place: _Found, root: Any) -> Iterator[_Found]:
        yield from _property(place, name_of(_scope(place.value, place.name, place, root)), many=place.many)

    return computed


def _scope(value: Any, name: Any, place: _Found, root: Any) -> dict[str, Any]:
    return {
        "@": value,
        "@property": name,
        "@parent": None if place.above is None else place.above.value,
        "@parentProperty": place.name,
        "@root": root,
        "@path": "$" + "".join(f"[{n}]" if str(n).isdecimal() else f"['{n}']" for n in [*_names(place), name]),
    }


def _names(place: _Found) -> Sequence[Any]:
    names = []
    while place.above is not None:
        names.append(place.name)
        place = place.above
    return names[::-1]


def _typed(kind: str) -> _Step:
    is_of_kind = _TYPES[kind]
    return lambda place, _: iter(
        [_Found(place.value, place.above, place.name, many=False)] if is_of_kind(place.value) else []
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "number": lambda v: _is_number(v) and isfinite(v),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: _is_number(v) and isfinite(v) and v % 1 == 0,
    "undefined": lambda v: v is UNDEFINED,
    "nonFinite": lambda v: _is_number(v) and not isfinite(v),
    "scalar": lambda v: not isinstance(v, dict | list),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict | list),
    "function": lambda _: False,
    "other": lambda _: False,
}
