"""Artillery's `{{ }}` templates, compiled once and rendered for each virtual user. Pure, except for the functions passed in.

- A template that is one placeholder gives the variable's value with its type; with text around it, it gives text.
- A missing variable gives UNDEFINED on its own, and the word `undefined` inside a text.
- A placeholder holds a path of letters, digits, `_ $ . - [ ] ' "` and spaces, or a call `$name(arguments)`. Anything else
  in braces stays as written. A call gives text; a call of an unknown function makes the whole template UNDEFINED.
- In an object, keys are templates too and undefined values are left out; in a list they become null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from loadgen.language.values import UNDEFINED, get_path, json_text, number, path_steps, text

Variables = Mapping[str, Any]
Render = Callable[[Variables], Any]
Function = Callable[..., Any]

CALL: Final = re.compile(r"\{\{\s*(\$[A-Za-z0-9_]+)\s*\(([A-Za-z0-9_,\s]*)\)\s*\}\}")
"""A placeholder that calls a function; the groups are its name and its arguments."""
PLACEHOLDER: Final = re.compile(r"""\{\{\{?[\s$\w.\[\]'"-]+\}\}\}?""", re.ASCII)
"""A placeholder that names a variable."""
_PLAIN_NAME = re.compile(r"[$\w-]+", re.ASCII)
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_ENVIRONMENTS = (("$processEnvironment",), ("$env",))
_NESTED_MAX = 10
"""How many levels of placeholders inside the values of placeholders are filled in."""
_LONGEST = 1_000_000
"""Longest text, in characters, in which placeholders of values are filled in; also the longest random text."""


class Template:
    """A compiled value of a script. If `constant`, it holds no placeholder, and `render` always returns `value`."""

    __slots__ = ("constant", "render", "value")

    def __init__(self, value: Any, render: Render | None) -> None:
        self.value = value
        self.constant = render is None
        self.render: Render = render or (lambda _: value)


def functions(rng: Random) -> dict[str, Function]:
    """Return the functions that every template may call, by name."""

    def random_number(low: Any = 0, high: Any = None, *_: Any) -> int | float:
        if not isinstance(low, int | float):
            low = 0
        if not isinstance(high, int | float):
            low, high = (0, low) if low else (0, 1)
        low, high = min(low, high), max(low, high)
        return rng.randint(low, high) if isinstance(low, int) and isinstance(high, int) else rng.uniform(low, high)

    def random_string(length: Any = 10, *_: Any) -> str:
        return "".join(rng.choices(_ALPHABET, k=characters(length))) if isinstance(length, int | float) else ""

    return {"$randomNumber": random_number, "$randomString": random_string}


def characters(length: float) -> int:
    """Return the length of a random text that was asked for as `value`: at most a million, 0 if it is no number."""
    return int(min(max(length, 0), _LONGEST)) if length == length else 0  # noqa: PLR0124 - NaN


def compile_template(value: Any, calls: Mapping[str, Function]) -> Template:
    """Compile any value of a script: a text, an object or list of templates, or a constant."""
    if isinstance(value, str):
        return Template(value, _compile_text(value, calls) if "{{" in value else None)
    if isinstance(value, Mapping):
        pairs = [(compile_template(k, calls), compile_template(v, calls)) for k, v in value.items()]
        if all(k.constant and v.constant for k, v in pairs):
            return Template(value, None)
        return Template(value, _object(pairs))
    if isinstance(value, list | tuple):
        items = [compile_template(v, calls) for v in value]
        if all(item.constant for item in items):
            return Template(value, None)
        return Template(value, _list(items))
    return Template(value, None)


def placeholders(template: str) -> list[str]:
    """Return the variable paths that a text refers to, without its function calls."""
    return [_path_of(found) for found in PLACEHOLDER.findall(CALL.sub("", template))]


def _object(pairs: list[tuple[Template, Template]]) -> Render:
    if all(k.constant for k, _ in pairs):
        fields = [(k.value, v.render) for k, v in pairs]

        def render_values(variables: Variables) -> dict[str, Any]:
            return {k: v for k, render in fields if (v := render(variables)) is not UNDEFINED}

        return render_values

    # Artillery puts a key that it has filled in behind the others.
    pairs = [pair for pair in pairs if pair[0].constant] + [pair for pair in pairs if not pair[0].constant]

    def render(variables: Variables) -> dict[str, Any]:
        rendered = ((text(k.render(variables)), v.render(variables)) for k, v in pairs)
        return {k: v for k, v in rendered if v is not UNDEFINED}

    return render


def _list(items: list[Template]) -> Render:
    def render(variables: Variables) -> list[Any]:
        values = (item.render(variables) for item in items)
        return [None if value is UNDEFINED else value for value in values]

    return render


def _compile_text(template: str, calls: Mapping[str, Function]) -> Render | None:
    """Compile a text with braces; None if nothing in it is a placeholder."""
    called = CALL.search(template)
    if called:
        return _compile_calls(template, calls)
    found = PLACEHOLDER.findall(template)
    if not found:
        return None
    if found == [template]:
        return _getter(_path_of(template))
    return _mixed(template)


def _compile_calls(template: str, calls: Mapping[str, Function]) -> Render:
    """Compile a text with function calls: they are filled in first, as text, and then the variables."""
    pieces: list[str | Callable[[], str]] = []
    at = 0
    for match in CALL.finditer(template):
        name, arguments = match.groups()
        if name not in calls:
            return lambda _: UNDEFINED
        pieces += [template[at : match.start()], _call(calls[name], arguments)]
        at = match.end()
    pieces.append(template[at:])
    plain = "".join(p for p in pieces if isinstance(p, str))
    has_variables = bool(PLACEHOLDER.search(plain))

    def render(variables: Variables) -> str:
        filled = "".join(p if isinstance(p, str) else p() for p in pieces)
        return _fill(filled, variables) if has_variables else filled

    return render


def _call(function: Function, arguments: str) -> Callable[[], str]:
    given = arguments.split(",") if arguments.strip() else []
    values = [number(a) if number(a) is not None else UNDEFINED for a in given]
    return lambda: text(function(*values))


def _path_of(placeholder: str) -> str:
    return placeholder.strip("{}").strip()


def _getter(path: str) -> Render:
    if _PLAIN_NAME.fullmatch(path):
        return lambda variables: variables.get(path, UNDEFINED)
    return lambda variables: get_path(variables, path)


def _as_text(value: Any) -> str:
    """Return a value as it appears inside a text: objects and lists as JSON."""
    return json_text(value) if isinstance(value, dict | list | tuple) else text(value)


def _mixed(template: str) -> Render:
    literals: list[str] = []
    getters: list[Render] = []
    at = 0
    for match in PLACEHOLDER.finditer(template):
        literals.append(template[at : match.start()])
        getters.append(_getter(_path_of(match.group())))
        at = match.end()
    last = template[at:]
    parts = list(zip(literals, getters, strict=True))

    def render(variables: Variables) -> str:
        out = []
        for literal, get in parts:
            value = get(variables)
            if type(value) is not str:
                value = _as_text(value)
            elif "{{" in value:
                value = _fill(value, variables, own=False)
            out.append(literal)
            out.append(value)
        out.append(last)
        return "".join(out)

    return render


def _fill(template: str, variables: Variables, *, own: bool = True) -> str:
    """Fill in a text that was not known before; placeholders inside values are filled in too, up to `_LONGEST` characters.

    `own`: the text is the script's. Values may come from an answer, so environment variables are not filled in there.
    """
    left = _LONGEST

    def filled(part: str, depth: int) -> str:
        def value_of(match: re.Match[str]) -> str:
            nonlocal left
            path = _path_of(match.group())
            if (depth or not own) and path_steps(path)[:1] in _ENVIRONMENTS:
                return match.group()
            value = _as_text(get_path(variables, path))
            left -= len(value)
            return filled(value, depth + 1) if "{{" in value and depth < _NESTED_MAX and left > 0 else value

        return PLACEHOLDER.sub(value_of, part)

    return filled(template, 0)
