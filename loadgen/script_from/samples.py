"""Values that fit a JSON Schema: its own examples first, else the plainest value that the schema allows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from math import ceil, floor
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from loadgen.language.limits import LimitExceeded
from loadgen.language.regex import compile_regex, translated
from loadgen.script_from.draft import Unusable
from loadgen.script_from.references import References
from reports.blocks import decimal

_DEEPEST = 12
_DEEPEST_OPTIONAL = 4
"""Lists that may be empty are empty below this depth: a schema that contains itself several times would never end."""
_MOST_ITEMS = 20
_LONGEST = 10_000
_LARGEST = 1e18
_REPEATED = re.compile(r"\{\d")
_too_slow: set[str] = set()
"""The patterns that took a second once, or would take too much memory: a text is neither judged by them nor looked for."""
_FORMATS = {
    "date": "2024-01-15",
    "date-time": "2024-01-15T10:00:00Z",
    "time": "10:00:00Z",
    "duration": "PT1H",
    "email": "user@example.com",
    "idn-email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "iri": "https://example.com/",
    "uri-reference": "/",
    "uuid": "6f1c1c6e-8d6f-4f0e-9a53-2f7d1c0b7a11",
    "guid": "6f1c1c6e-8d6f-4f0e-9a53-2f7d1c0b7a11",
    "byte": "dGV4dA==",
    "password": "correct-horse-1",
}
_SHORT_FORMATS = {
    "email": "a@b.c",
    "idn-email": "a@b.c",
    "uri": "a:b",
    "url": "a:b",
    "hostname": "a",
    "password": "a1-B",
}
_FORMS = {
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)"),
    "uuid": re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"),
    "email": re.compile(r"[^@\s]+@[^@\s]+"),
    "ipv4": re.compile(r"\d{1,3}(?:\.\d{1,3}){3}"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*"),
}
_TEXTS = (
    *("text", "abc", "A", "1", "12345", "https://example.com/", "user@example.com", "en", "US", "2024-01-15"),
    *("Abcdef1!", "Abcdefghij1!", "Abcdefghijklm12!", "Abcdef12", "ABC123", "+12025550123", "12:30", "1.0.0", "en-US"),
    *("2024-01-15T10:00:00Z", "#a1b2c3", "192.0.2.1", "6f1c1c6e-8d6f-4f0e-9a53-2f7d1c0b7a11", "/text", "$10.00"),
)
"""What a pattern often describes; passwords, which must have several kinds of signs, are among them."""
_PROPERTY = re.compile(r"\\([pP])\{(\w+)(?:=\w+)?\}")
_OF_PROPERTIES = {"Lu": "A", "N": "1", "Nd": "1", "P": "-", "Pd": "-", "S": "$", "Sc": "$", "Z": " ", "Zs": " "}
_ALIASES = {
    **dict.fromkeys(("int", "int32", "int64", "long", "bigint"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    **dict.fromkeys(("str", "text", "uuid", "date", "datetime"), "string"),
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "map": "object",
}
"""Types that JSON Schema does not know, and what those who wrote them meant."""
_NARROWING = ("enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_TELLING = (
    *(("items", "array"), ("prefixItems", "array"), ("minItems", "array"), ("maxItems", "array")),
    *(("pattern", "string"), ("format", "string"), ("minLength", "string"), ("maxLength", "string")),
    *(("multipleOf", "number"), ("minimum", "number"), ("maximum", "number")),
    *(("exclusiveMinimum", "number"), ("exclusiveMaximum", "number")),
)
"""Keys that tell the type of a schema that names none."""
_TYPES = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


class NoSample(Exception):
    """Raised for a schema that no value was found for; the message says why."""


def declared(schema: dict[str, Any], references: References) -> Iterator[Any]:
    """The values that a schema itself names, the surest first, of those that fit it."""
    for each in _declared(schema):
        if fits(each, schema, references):
            yield each


def _declared(schema: dict[str, Any]) -> Iterator[Any]:
    if "const" in schema:
        yield schema["const"]
    for key in ("example", "x-example"):
        if schema.get(key) is not None:
            yield schema[key]
    examples = schema.get("examples")
    if isinstance(examples, list):
        yield from examples
    if schema.get("default") is not None:
        yield schema["default"]
    if isinstance(schema.get("enum"), list):
        yield from (each for each in schema["enum"] if each is not None)


def type_of(schema: dict[str, Any]) -> str:
    """The JSON type that a schema asks for, guessed from its other keys where it names none; "" for any type."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return _ALIASES.get(kind.lower(), kind.lower())
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return next((kind for key, kind in _TELLING if key in schema), "")


def fits(value: Any, schema: dict[str, Any], references: References, depth: int = 0) -> bool:
    """Whether a value keeps the plain rules of a schema: types, enums, ranges, lengths, patterns, required properties."""
    if value is None:
        kinds = schema.get("type")
        return bool(schema.get("nullable")) or kinds == "null" or (isinstance(kinds, list) and "null" in kinds)
    enum = schema.get("enum")
    if isinstance(enum, list) and enum and value not in enum:
        return False
    if depth > _DEEPEST:
        return True
    for key, judge in (("allOf", all), ("oneOf", any), ("anyOf", any)):
        given = schema.get(key)
        parts = [references.resolve(part) for part in given] if isinstance(given, list) else []
        if parts and not judge(fits(value, part, references, depth + 1) for part in parts):
            return False
    kind = type_of(schema)
    if kind in ("integer", "number"):
        if _number(value) is None:
            return False
        if kind == "integer" and value != int(value):
            return False
        low, high = bounds(schema)
        step = _number(schema.get("multipleOf"))
        whole = not step or abs(value / step - round(value / step)) < 1e-9
        return (low is None or value >= low) and (high is None or value <= high) and whole
    if kind in _TYPES and not isinstance(value, _TYPES[kind]):
        return False
    if isinstance(value, str):
        return _text_fits(value, schema)
    if isinstance(value, list):
        items = schema.get("items")
        return (len(value) >= _whole(schema.get("minItems"), 0)) and all(
            fits(each, references.resolve(items), references, depth + 1) for each in value[:_MOST_ITEMS]
        )
    if isinstance(value, dict):
        required = schema.get("required")
        if isinstance(required, list) and any(isinstance(name, str) and name not in value for name in required):
            return False
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        if (
            schema.get("additionalProperties") is False
            and "patternProperties" not in schema
            and not known.keys() >= value.keys()
        ):
            return False
        return all(
            fits(each, references.resolve(known[name]), references, depth + 1)
            for name, each in value.items()
            if name in known
        )
    return True


def _text_fits(value: str, schema: dict[str, Any]) -> bool:
    if not _whole(schema.get("minLength"), 0) <= len(value) <= _whole(schema.get("maxLength"), _LONGEST):
        return False
    form = _FORMS.get(str(schema.get("format")))
    if form is not None and not form.fullmatch(value):
        return False
    pattern = schema.get("pattern")
    if not isinstance(pattern, str) or pattern in _too_slow:
        return True
    try:
        # A nest of repetitions takes gigabytes to compile, and only texts longer than any sample could match it.
        if _REPEATED.search(pattern) and _parsed(pattern).getwidth()[0] > _LONGEST:
            _too_slow.add(pattern)
            return True
        return compile_regex(pattern, "u").search(value) is not None
    except (re.error, RecursionError, OverflowError):
        return True
    except LimitExceeded:
        _too_slow.add(pattern)
        return True


def bounds(schema: dict[str, Any]) -> tuple[float | None, float | None]:
    """The least and the greatest number that a schema allows, both inclusive for whole numbers; None for no bound."""
    low, high = _number(schema.get("minimum")), _number(schema.get("maximum"))
    step = 1 if type_of(schema) == "integer" else 1e-6
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    # OpenAPI 3.1 has numbers here, the versions before it have true and false.
    if above is True and low is not None:
        low += step
    if below is True and high is not None:
        high -= step
    above, below = _number(above), _number(below)
    low = low if above is None else max(above + step, above + step if low is None else low)
    high = high if below is None else min(below - step, below - step if high is None else high)
    return low, high


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
    return value if known else None


def _whole(value: Any, absent: int) -> int:
    number = _number(value)
    return absent if number is None else int(number)


def sample(node: Any, references: References, depth: int = 0) -> Any:
    """A value that fits the schema at a node. Raises NoSample where none is found."""
    if depth > _DEEPEST:
        raise NoSample("its schema needs itself")
    try:
        schema = references.resolve(node)
    except Unusable as lost:
        raise NoSample(str(lost)) from None
    if isinstance(schema.get("allOf"), list):
        schema = merged(schema, references)
    for each in declared(schema, references):
        if "{{" not in repr(each):
            return each
    for key in ("oneOf", "anyOf"):
        branches = schema.get(key)
        if isinstance(branches, list) and branches:
            return _first(branches, schema, key, references, depth)
    if isinstance(schema.get("discriminator"), dict):
        return _subtype(schema, references, depth)
    kind = type_of(schema)
    if kind == "object" or isinstance(schema.get("required"), list):
        return _object(schema, references, depth)
    if kind == "array":
        return _array(schema, references, depth)
    if kind in ("integer", "number"):
        return _amount(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return text_sample(schema) if kind == "string" else {} if not schema else "text"


def _first(branches: list[Any], schema: dict[str, Any], key: str, references: References, depth: int) -> Any:
    """The first branch that has a value, together with what stands beside the branches."""
    reason = NoSample(f"nothing fits its {key}")
    rest = {name: value for name, value in schema.items() if name != key}
    for branch in branches:
        try:
            inner = references.resolve(branch)
            if inner.get("type") == "null":
                continue
            if "properties" in rest or "required" in rest:
                inner = merged({"allOf": [rest, inner]}, references)
            value = sample(inner, references, depth + 1)
            return _named(value, branch, inner, schema.get("discriminator"))
        except (NoSample, Unusable) as failed:
            reason = NoSample(str(failed))
    raise reason


def _named(value: Any, branch: Any, inner: dict[str, Any], discriminator: Any) -> Any:
    """A value of a branch, with the property that tells branches apart: the branch's key in the mapping, or its own name."""
    name = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
    reference = branch.get("$ref") if isinstance(branch, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or not isinstance(reference, str):
        return value
    properties = inner.get("properties")
    own = properties.get(name) if isinstance(properties, dict) else None
    values = own.get("enum") if isinstance(own, dict) else None
    if isinstance(own, dict) and ("const" in own or (isinstance(values, list) and len(values) == 1)):
        return value
    schema = reference.rpartition("/")[2]
    mapping = discriminator.get("mapping")
    keys = mapping.items() if isinstance(mapping, dict) else ()
    key = next((key for key, target in keys if str(target).rpartition("/")[2] == schema), schema)
    return {**value, name: key}


def _subtype(schema: dict[str, Any], references: References, depth: int) -> Any:
    """A value for a schema that others extend: of the first one that its mapping names, else of its own properties."""
    discriminator = schema["discriminator"]
    name, mapping = discriminator.get("propertyName"), discriminator.get("mapping")
    rest = {key: value for key, value in schema.items() if key != "discriminator"}
    for key, target in mapping.items() if isinstance(mapping, dict) else ():
        with suppress(NoSample, Unusable):
            place = str(target) if "#" in str(target) else f"#/components/schemas/{target}"
            inner = merged({"allOf": [references.resolve({"$ref": references.whole(place)}), rest]}, references)
            inner.pop("discriminator", None)
            value = sample(inner, references, depth + 1)
            return {**value, name: key} if isinstance(value, dict) and isinstance(name, str) else value
    return _object(rest, references, depth)


def merged(schema: dict[str, Any], references: References, depth: int = 0) -> dict[str, Any]:
    """A schema with the schemas of its `allOf` laid into it."""
    out: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    if depth > _DEEPEST:
        return out
    properties: dict[str, Any] = {}
    required: list[str] = []
    for each in schema.get("allOf") or ():
        part = references.resolve(each)
        if isinstance(part.get("allOf"), list):
            part = merged(part, references, depth + 1)
        for key, value in part.items():
            if key == "properties" and isinstance(value, dict):
                properties |= value
            elif key == "required" and isinstance(value, list):
                required += value
            elif key in _NARROWING and key in out:
                out[key] = _narrowed(key, out[key], value)
            elif key != "discriminator":
                out.setdefault(key, value)
    own, needed = out.get("properties"), out.get("required")
    if properties:
        out["properties"] = properties | (own if isinstance(own, dict) else {})
    if required:
        out["required"] = [*required, *(needed if isinstance(needed, list) else ())]
    return out


def _narrowed(key: str, one: Any, other: Any) -> Any:
    """What two rules of the same name allow together."""
    if isinstance(one, list) and isinstance(other, list):
        return [each for each in one if each in other]
    if _number(one) is None or _number(other) is None:
        return one
    return (max if key.startswith("min") else min)(one, other)


def _object(schema: dict[str, Any], references: References, depth: int) -> dict[str, Any]:
    """An object with the properties that are required, and with those that bring an example of their own."""
    properties, required = schema.get("properties"), schema.get("required")
    properties = properties if isinstance(properties, dict) else {}
    required = required if isinstance(required, list) else []
    out = {}
    for name, node in properties.items():
        try:
            inner = references.resolve(node)
            if inner.get("readOnly"):
                continue
            if name in required:
                out[name] = sample(node, references, depth + 1)
            elif depth < 2 and inner.get("example") is not None and fits(inner["example"], inner, references):
                out[name] = inner["example"]
        except (NoSample, Unusable) as failed:
            if name in required:
                raise NoSample(f"{name}: {failed}") from None
    for name in required:
        if isinstance(name, str) and name not in properties:
            out[name] = "text"
    # An empty object says nothing, and is often refused.
    least = max(_whole(schema.get("minProperties"), 0), int(depth == 0))
    for name, node in properties.items():
        if len(out) >= least:
            break
        with suppress(NoSample, Unusable):
            if name not in out and not references.resolve(node).get("readOnly"):
                out[name] = sample(node, references, depth + 1)
    further = schema.get("additionalProperties")
    if further is not False:
        for number in range(len(out), _whole(schema.get("minProperties"), 0)):
            out[f"key{number + 1}"] = sample(further, references, depth + 1) if isinstance(further, dict) else "text"
    return out


def _array(schema: dict[str, Any], references: References, depth: int) -> list[Any]:
    least = _whole(schema.get("minItems"), 0)
    if least > _MOST_ITEMS:
        raise NoSample(f"at least {least} items")
    items, first = schema.get("items"), schema.get("prefixItems")
    leading = [sample(each, references, depth + 1) for each in first] if isinstance(first, list) else []
    if leading and len(leading) >= least:
        return leading
    if not least and depth > _DEEPEST_OPTIONAL:
        return []
    try:
        one = sample(items, references, depth + 1)
    except NoSample:
        if least:
            raise
        return []
    wanted = max(least, 1) - len(leading)
    if schema.get("uniqueItems") and wanted > 1:
        return [*leading, *_different(one, references.resolve(items), wanted, references)]
    return leading + [one] * wanted


def _different(one: Any, schema: dict[str, Any], wanted: int, references: References) -> list[Any]:
    """Values of a schema of which no two are equal. Raises NoSample."""
    enum = schema.get("enum")
    more: list[Any] = enum if isinstance(enum, list) else []
    if not more and isinstance(one, (int, float)) and not isinstance(one, bool):
        step = _number(schema.get("multipleOf")) or 1
        more = [one + step * number for number in range(wanted)]
    elif not more and isinstance(one, str):
        more = [one, *(f"{one[:-1]}{sign}" for sign in "123456789abcdefghijklmnopqrstuvwxyz")]
    found = [each for place, each in enumerate(more) if each not in more[:place] and fits(each, schema, references)]
    if len(found) < wanted:
        raise NoSample(f"{wanted} different items")
    return found[:wanted]


def _amount(schema: dict[str, Any], *, whole: bool) -> int | float:
    low, high = bounds(schema)
    value: float = 1
    if low is not None and value < low:
        value = ceil(low) if whole or high is None or ceil(low) <= high else low
    if high is not None and value > high:
        value = floor(high) if whole or low is None or floor(high) >= low else high
    step = _number(schema.get("multipleOf"))
    if step:
        value = ceil(value / step) * step
        if high is not None and value > high:
            raise NoSample(f"no multiple of {decimal(step)} in its range")
    return int(value) if value == int(value) else value


def text_sample(schema: dict[str, Any]) -> str:
    """A text that fits a schema of type string. Raises NoSample."""
    form = schema.get("format")
    least, most = _whole(schema.get("minLength"), 0), _whole(schema.get("maxLength"), _LONGEST)
    if form == "binary":
        raise NoSample("it takes a file")
    for known in (_FORMATS.get(str(form)), _SHORT_FORMATS.get(str(form))):
        if known is not None and _text_fits(known, schema):
            return known
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        return _matching(pattern, schema)
    if least > _LONGEST:
        raise NoSample(f"at least {least} characters")
    return "text".ljust(least, "x")[:most] if most else ""


def _matching(pattern: str, schema: dict[str, Any]) -> str:
    try:
        for text in chain(_TEXTS, _written_out(pattern, schema)):
            if _text_fits(text, schema) and pattern not in _too_slow:
                return text
    except (re.error, RecursionError, NoSample, OverflowError):
        pass
    raise NoSample(f"no text was found that matches {pattern}")


def _parsed(pattern: str) -> Any:
    """A regular expression, parsed; a class by a property of Unicode is one of its signs there. Raises re.error."""
    plain = _PROPERTY.sub(lambda m: "~" if m[1] == "P" else _OF_PROPERTIES.get(m[2], "a"), pattern)
    return _parser.parse(translated(plain))


def _written_out(pattern: str, schema: dict[str, Any]) -> Iterator[str]:
    """Texts that a regular expression probably matches. Raises re.error, RecursionError, OverflowError, NoSample."""
    parsed = _parsed(pattern)
    for most_repeats in (1, _whole(schema.get("minLength"), 1) or 1):
        yield "".join(_written(parsed, most_repeats))


def _written(parts: Any, repeats: int) -> Iterator[str]:
    """The pieces of a text that a parsed regular expression matches. Raises NoSample for what it cannot do."""
    for kind, what in parts:
        if kind is _constants.LITERAL:
            yield chr(what)
        elif kind is _constants.NOT_LITERAL:
            yield "a" if what != ord("a") else "b"
        elif kind is _constants.ANY:
            yield "a"
        elif kind in (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT):
            # What these ask for is looked at when the text is whole.
            continue
        elif kind is _constants.IN:
            yield _one_of(what)
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            least, most, inner = what
            count = min(max(int(least), min(int(most), repeats)), _LONGEST)
            piece = "".join(_written(inner, 1))
            if len(piece) * count > _LONGEST:
                raise NoSample(f"more than {_LONGEST:,} characters")
            yield piece * count
        elif kind is _constants.SUBPATTERN:
            yield from _written(what[-1], repeats)
        elif kind is _constants.ATOMIC_GROUP:
            yield from _written(what, repeats)
        elif kind is _constants.BRANCH:
            yield from _written(what[1][0], repeats)
        else:
            raise NoSample("a regular expression that refers to its own groups")


def _one_of(choices: Any) -> str:
    categories = {_constants.CATEGORY_DIGIT: "1", _constants.CATEGORY_WORD: "a", _constants.CATEGORY_SPACE: " "}
    if choices[0][0] is _constants.NEGATE:
        pattern = re.compile("[^" + "".join(map(_as_class, choices[1:])) + "]")
        return next((c for c in "a1-_ /.:~\x7f" if pattern.match(c)), "é")
    for kind, what in choices:
        if kind is _constants.LITERAL:
            return chr(what)
        if kind is _constants.RANGE:
            return chr(what[0])
        if kind is _constants.CATEGORY:
            return categories.get(what, "-")
    raise NoSample("an empty class of characters")


def _as_class(choice: Any) -> str:
    kind, what = choice
    if kind is _constants.LITERAL:
        return re.escape(chr(what))
    if kind is _constants.RANGE:
        return f"{re.escape(chr(what[0]))}-{re.escape(chr(what[1]))}"
    names = {_constants.CATEGORY_DIGIT: r"\d", _constants.CATEGORY_WORD: r"\w", _constants.CATEGORY_SPACE: r"\s"}
    return names.get(what, "")
