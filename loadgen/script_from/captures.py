"""Finds in the answer of a list endpoint what another endpoint wants as its id: the JSONPath of the first such value. Pure."""

from __future__ import annotations

import re
from typing import Any

from loadgen.script_from.draft import Unusable
from loadgen.script_from.references import References
from loadgen.script_from.samples import merged, type_of

_DEEPEST = 5
_MOST_PROPERTIES = 200
_LISTS_ARE_CALLED = ("items", "data", "results", "content", "records", "entries", "list", "value", "rows", "objects")
_ID = ("id", "uuid", "guid", "sid", "key", "slug", "code", "name", "number", "ref")
_OPAQUE = _ID[:4]
_SHORT_NAMES = ("login", "slug", "key", "code")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAFE_IN_A_PATH = re.compile(r"[\w.~@:+,=-]{1,200}", re.ASCII)


def path_of(answer: Any, wanted: str, kind: str, collection: str, *, is_list: bool, exact: bool = False) -> str | None:
    """The JSONPath of a value for the parameter `wanted` in an answer; None where there is none.

    `kind` is the parameter's JSON type, `collection` the word before the parameter in its path (`pets`). An answer that is
    the object itself, and no list, counts only with `is_list` false, or where a property has the parameter's very name.
    With `exact`, only that name counts everywhere.
    """
    names = [_plain(wanted)] if exact else _names(wanted, collection)
    found = _in_lists(answer, names, kind, collection, "$", 0)
    if found is None and isinstance(answer, dict):
        found = _property(answer, names[:1] if is_list else names, kind, "$")
    if found is None and not is_list and isinstance(answer, dict):
        # What was created may be wrapped once: {"data": {"id": ...}}.
        for key, inner in answer.items():
            if isinstance(inner, dict) and found is None:
                found = _property(inner, names, kind, child("$", key))
    return found


def value_at(answer: Any, path: str) -> Any:
    """The value at a path that `path_of` has returned, or that a link of the document names; None where there is none."""
    for index, plain, quoted in re.findall(r"\[(\d+)\]|\.([A-Za-z_]\w*)|\['([^']*)'\]", path):
        if index:
            answer = answer[int(index)] if isinstance(answer, list) and int(index) < len(answer) else None
        else:
            answer = answer.get(plain or quoted) if isinstance(answer, dict) else None
    return answer


def path_of_pointer(expression: str) -> str | None:
    """The JSONPath for a runtime expression of a link, such as `$response.body#/data/0/id`; None for another kind."""
    if not expression.startswith("$response.body#/"):
        return None
    path = "$"
    for part in expression.partition("#/")[2].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        path = f"{path}[{key}]" if key.isdigit() else child(path, key)
    return path


def outline(node: Any, references: References, depth: int = 0) -> Any:
    """A value with the shape of a schema: every property, one item in each list. It need not fit the schema otherwise."""
    if depth > _DEEPEST:
        return None
    try:
        schema = references.resolve(node)
        if isinstance(schema.get("allOf"), list):
            schema = merged(schema, references)
    except Unusable:
        return None
    for key in ("oneOf", "anyOf"):
        branches = schema.get(key)
        if isinstance(branches, list) and "properties" not in schema:
            shapes = [outline(branch, references, depth + 1) for branch in branches[:3]]
            return next((shape for shape in shapes if shape is not None), None)
    kind = type_of(schema)
    if kind == "array":
        return [outline(schema.get("items"), references, depth + 1)]
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        several = list(properties.items())[:_MOST_PROPERTIES] if isinstance(properties, dict) else []
        return {name: outline(inner, references, depth + 1) for name, inner in several}
    return {"string": "text", "integer": 1, "number": 1.5, "boolean": True}.get(kind)


def singular(word: str) -> str:
    """An English word without the ending of its plural."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ss", "ss"), ("s", "")):
        if word.lower().endswith(ending) and len(word) > len(ending) + 1:
            return word[: len(word) - len(ending)] + instead
    return word


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _names(wanted: str, collection: str) -> list[str]:
    """The names that the wanted value may have, the surest first, each in small letters without signs."""
    plain, one = _plain(wanted), _plain(singular(collection))
    names = [plain]
    if plain.startswith(one) and plain != one:
        names.append(plain.removeprefix(one))
    ending = max((each for each in _ID if plain.endswith(each)), key=len, default=None)
    if ending == "name":
        names += [f"{one}name", "name", "login", "username"]
    elif ending is not None and ending not in _OPAQUE:
        names += [ending, f"{one}{ending}"]
    if ending in _OPAQUE or ending is None:
        names += [*_OPAQUE, f"{one}id"]
    if ending is None:
        names += ["login", "slug", "key", "code", "name"]
    return list(dict.fromkeys(names))


def _property(item: dict[str, Any], names: list[str], kind: str, path: str) -> str | None:
    by_name = {_plain(key.lstrip("_")): key for key in reversed(item)}
    suiting = [name for name in names if name in by_name and _suits(item[by_name[name]], kind)]
    if not suiting:
        return None
    first = suiting[0]
    if kind == "string" and first != names[0] and isinstance(item[by_name[first]], int):
        # A parameter that is a text is rather a name like these than a number.
        first = next((name for name in suiting if name in _SHORT_NAMES), first)
    return child(path, by_name[first])


def _suits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return False
    if kind in ("integer", "number"):
        return isinstance(value, int) or value.isdigit()
    return isinstance(value, int) or _SAFE_IN_A_PATH.fullmatch(value) is not None


def _in_lists(value: Any, names: list[str], kind: str, collection: str, path: str, depth: int) -> str | None:
    if isinstance(value, list):
        if not value:
            return None
        first = value[0]
        if isinstance(first, dict):
            return _property(first, names, kind, f"{path}[0]")
        return f"{path}[0]" if _suits(first, kind) and len(names) > 1 and depth < 2 else None
    if not isinstance(value, dict) or depth > 2:
        return None
    likely = (_plain(collection), *_LISTS_ARE_CALLED)
    keys = sorted(value, key=lambda key: likely.index(_plain(key)) if _plain(key) in likely else len(likely))
    for key in keys:
        inner = value[key]
        # A list of plain texts inside an object is as a rule not a list of ids, unless it has the collection's name.
        if isinstance(inner, list) and inner and not isinstance(inner[0], dict) and _plain(key) != _plain(collection):
            continue
        found = _in_lists(inner, names, kind, collection, child(path, key), depth + 1)
        if found is not None:
            return found
    return None


def child(path: str, key: str) -> str:
    """The JSONPath of a property of the object at a path."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}['{key}']"
