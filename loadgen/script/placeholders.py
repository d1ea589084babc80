"""Finds `{{ }}` placeholders that nothing can ever fill in, before anything is sent. Pure.

Artillery sends such a text with its braces, or with the word `undefined` in it, and says nothing. Here each of them is a
warning with its place: a function that does not exist, an expression, an environment variable that is not set, a variable
that nothing in the script sets, and a placeholder with nothing in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.language.template import CALL, PLACEHOLDER
from loadgen.language.values import path_steps
from loadgen.script.document import ScriptNode, nearest

_BRACES = re.compile(r"\{\{\{?(.*?)\}\}\}?", re.DOTALL)
_ENVIRONMENTS = ("$processEnvironment", "$env")
_FOR_EVERY_USER = ("target", "$uuid", "$loopCount", "$loopElement", "$testId", "$dirname", "$scenarioFile")
_FILE_AS_CURL_WRITES_IT = re.compile(r"@[\w./~-]*[\w~-]")


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that a placeholder may name."""

    variables: frozenset[str]
    functions: frozenset[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """The environment variables of the process."""
    named_environment: bool = False
    """Whether an environment of the script was chosen with -e."""
    source: str = ""
    """The text of the Python processor, whose functions may set any variable that is written in it."""

    def with_variables(self, more: Iterable[str]) -> Names:
        """Return these names and more variables."""
        return Names(
            self.variables | frozenset(more), self.functions, self.environment, self.named_environment, self.source
        )


def complaints(text: str, names: Names) -> list[str]:
    """Return what is wrong with each placeholder of a text that can never be filled in."""
    return [said for found in _BRACES.finditer(text) if (said := _complaint(found, names))]


def _complaint(found: re.Match[str], names: Names) -> str | None:
    inside = found[1].strip()
    shown = f"`{' '.join(found[0].split())}`"
    if not inside:
        return f"{shown} is empty: it gives `undefined`"
    if call := CALL.fullmatch(found[0]):
        if call[1] in names.functions:
            return None
        return (
            f"{shown}: no template function `{call[1]}`: the whole text is undefined{_meant(call[1], names.functions)}"
        )
    if not PLACEHOLDER.fullmatch(found[0]):
        return (
            f"{shown} is sent as it is written: a placeholder holds a variable or a call `$name(1, 2)`, no expression"
        )
    keys = path_steps(inside)
    if not keys:
        return f"{shown} names no variable: it gives `undefined`"
    if keys[0] in _ENVIRONMENTS:
        return _of_environment(shown, keys, names)
    if keys[0] == "$environment":
        return None if names.named_environment else f"{shown} is undefined: no environment was chosen with -e"
    if inside in names.variables or keys[0] in names.variables or keys[0] in _FOR_EVERY_USER or inside in names.source:
        return None
    if keys[0] in names.functions:
        return f"{shown} is undefined: a function is called with parentheses, `{keys[0]}()`"
    return f"{shown} is undefined: nothing sets `{keys[0]}`{_meant(keys[0], names.variables | {'$uuid', 'target'})}"


def _of_environment(shown: str, keys: tuple[str, ...], names: Names) -> str | None:
    if len(keys) == 1:
        return None
    if keys[1] in names.environment:
        return None
    return f"{shown} is undefined: the environment variable {keys[1]} is not set{_meant(keys[1], names.environment)}"


def _meant(name: str, known: Collection[str]) -> str:
    like = nearest(name, known)
    return f". Did you mean `{like}`?" if like and like != name else ""


def warn_of_steps(flow: ScriptNode, names: Names) -> None:
    """Warn of every placeholder in the steps of a scenario that can never be filled in, and of files written as `@name`.

    `names` are those known before the first step; variables that the steps themselves set are found here.
    """
    warn_of_texts(flow, names.with_variables(set_by(flow)))
    for part in _requests(flow):
        for body in (part["body"], *(inner for _, inner in part["formData"].items())):
            if isinstance(body.value, str) and _FILE_AS_CURL_WRITES_IT.fullmatch(body.value):
                body.warn(f"is sent as text; to send a file, write `{{fromFile: {body.value[1:]}}}` in formData")


def warn_of_texts(part: ScriptNode, names: Names) -> None:
    """Warn of every placeholder inside a part that can never be filled in."""
    for text in _texts(part):
        for said in complaints(text.value, names):
            text.warn(said)


def _texts(part: ScriptNode) -> Iterator[ScriptNode]:
    """Every text inside a part that has braces in it, and every key of an object that has."""
    if isinstance(part.value, str):
        if "{{" in part.value:
            yield part
    elif isinstance(part.value, Mapping):
        for key, inner in part.items():
            if "{{" in str(key):
                yield ScriptNode(str(key), inner.path, inner.notes)
            yield from _texts(inner)
    else:
        for inner in part.parts():
            yield from _texts(inner)


def _requests(part: ScriptNode) -> Iterator[ScriptNode]:
    if isinstance(part.value, Mapping):
        if "url" in part or "uri" in part:
            yield part
        for key in part.value:
            yield from _requests(part[str(key)])
    else:
        for inner in part.parts():
            yield from _requests(inner)


def set_by(part: ScriptNode) -> Iterator[str]:
    """The variables that steps set: by captures, and by loops, which count rounds and name the element."""
    if isinstance(part.value, Mapping):
        for key, inner in part.items():
            if key in ("as", "loopValue", "loopElement") and isinstance(inner.value, str):
                yield from _root_of(inner.value)
            yield from set_by(inner)
    else:
        for inner in part.parts():
            yield from set_by(inner)


def _root_of(path: str) -> Iterator[str]:
    yield path
    yield from path_steps(path)[:1]


def variables_of(config: Mapping[str, Any]) -> set[str]:
    """Return the variables that `config` gives to every virtual user: its `variables`, and the columns of payloads."""
    variables = config.get("variables")
    names = {str(name) for name in variables} if isinstance(variables, Mapping) else set()
    payload = config.get("payload")
    for each in payload if isinstance(payload, list) else [payload]:
        if isinstance(each, Mapping):
            fields = each.get("fields")
            names |= {str(name) for name in fields} if isinstance(fields, list) else set()
            names |= {str(each["name"])} if each.get("name") else set()
    return names
