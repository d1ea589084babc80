"""Correlation: values of a recording's requests that came from earlier answers, and how a script takes them from there. Pure.

Three kinds of values are found: the hidden fields and meta tags of a page (CSRF tokens), tokens in an answer of JSON, and the
id or the Location of what a POST has created. A script that repeated them as recorded would send a token that is no longer
valid, or ask for something that another user has deleted.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Literal
from urllib.parse import unquote

from loadgen.language.limits import LimitExceeded
from loadgen.script_from.captures import child, singular
from loadgen.script_from.draft import Capture

_MOST_VALUES = 500
_DEEPEST = 4
_LARGEST_PAGE = 2_000_000
_LEAST_TOKEN = 8
_LEAST_HIDDEN = 16
"""The shortest value, in characters, of a hidden field that is no secret by its name."""
_LONG = 8
_ID = re.compile(
    r"(?:.*[-_])?(?i:id|uuid|guid|code|slug|key|sku|number)|.*[a-z\d](?:ID|Id|Uuid|Guid|Code|Slug|Key|Number)"
)
_TOKEN = re.compile(r"token|csrf|xsrf|nonce|verification|authenticity|jwt|session|secret|ticket", re.IGNORECASE)
_OPAQUE = re.compile(r"(?=.*[\dA-Z])[\w.~-]{6,}|\d+", re.ASCII)
"""What the part of a path looks like that was made for one object, and no word."""
_IN_A_SELECTOR = re.compile(r"[\w.:\[\]-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Known:
    """A value of an earlier answer: the number of the step that it answered, what it is called there, and how it is captured."""

    number: int
    name: str
    place: str
    source: Literal["json", "selector", "header"] = "json"
    attribute: str = ""
    collection: str = ""
    """The last word of the path that it was created at: `items` for POST /api/items."""


class Correlation:
    """What is known of the answers so far, and what the steps take from them. Steps have numbers, from 0."""

    def __init__(self, *, target_has_path: bool = False) -> None:
        """`target_has_path`: the script's target, which goes before each path, has a path itself."""
        self._target_has_path = target_has_path
        self.captures: dict[int, list[Capture]] = {}
        """By number of a step: what later steps take from its answer."""
        self._tokens: dict[str, _Known] = {}
        self._ids: dict[str, _Known] = {}
        self._locations: dict[str, _Known] = {}
        self._variables: dict[str, _Known] = {}
        self._paths: set[str] = set()
        self._taken: list[str] = []

    def learn(self, number: int, method: str, path: str, response: Mapping[str, Any], origin: str) -> None:
        """Take over the answer to the step `number`, which was made with `method` (in small letters) to `path`."""
        path = path.partition("?")[0]
        self._paths.add(path)
        words = [part for part in path.split("/") if part and not _OPAQUE.fullmatch(part)]
        kind, text = _kind_and_text(response)
        if "json" in kind:
            for name, value, place in _leaves(text):
                if _may_be_token(value):
                    self._tokens[str(value)] = _Known(number, name, place)
                if method == "post" and _ID.fullmatch(name):
                    self._ids[str(value)] = _Known(number, name, place, collection=words[-1] if words else "")
        elif "html" in kind and len(text) <= _LARGEST_PAGE:
            for name, value, selector, attribute in _hidden(text):
                self._tokens[value] = _Known(number, name, selector, "selector", attribute)
        given = _location(response)
        location = given.removeprefix(origin)
        if self._target_has_path and given == location:
            # A path that an answer gives has the target's path already, and would get it twice.
            return
        is_new = method == "post" and location.startswith("/") and location not in self._paths
        if is_new and _OPAQUE.fullmatch(location.rpartition("/")[2]):
            self._locations[location] = _Known(number, "location", "location", "header")

    def token(self, value: str) -> str | None:
        """The template for a token that an earlier answer has; None for another value."""
        return self._template(self._tokens.get(value))

    def path(self, path: str) -> str:
        """A path with templates for what an earlier POST has created."""
        for location, known in self._locations.items():
            if path == location or path.startswith((f"{location}/", f"{location}?")):
                return f"{self._template(known)}{path[len(location) :]}"
        before, question, query = path.partition("?")
        parts = before.split("/")
        for place, part in enumerate(parts):
            created = self._ids.get(unquote(part))
            if created and part and (parts[place - 1] == created.collection or _is_long(part)):
                parts[place] = self._template(created) or part
        return f"{'/'.join(parts)}{question}{query}"

    def value(self, name: str, value: Any) -> str | None:
        """The template for a field of a body or a parameter of a query: a page's hidden field, or the id of what was created.

        None for any other value.
        """
        text = "" if isinstance(value, bool) else str(value)
        hidden = self._tokens.get(text)
        if hidden is not None and hidden.source == "selector" and hidden.name == name and len(text) >= _LEAST_HIDDEN:
            return self._template(hidden)
        known = self._ids.get(text)
        if known is None:
            return None
        own = _plain(name) == _plain(singular(known.collection)) + _plain(known.name)
        return self._template(known) if own or _is_long(text) else None

    def taken(self) -> list[str]:
        """The variables that were asked for since the last call; the steps whose answers have them are made to capture them."""
        names = list(dict.fromkeys(self._taken))
        for name in names:
            known = self._variables[name]
            capture = Capture(known.place, name, known.source, known.attribute)
            several = self.captures.setdefault(known.number, [])
            several += [] if capture in several else [capture]
        self._taken.clear()
        return names

    def forget(self) -> None:
        """What was asked for since the last call of `taken` is not needed: the step is left out."""
        self._taken.clear()

    def _template(self, known: _Known | None) -> str | None:
        if known is None:
            return None
        plain = re.sub(r"\W+", "_", known.name, flags=re.ASCII).strip("_") or "value"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        names = chain([plain], (f"{plain}_{number}" for number in count(2)))
        name = next(each for each in names if self._variables.setdefault(each, known) == known)
        self._taken.append(name)
        return f"{{{{ {name} }}}}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_long(text: str) -> bool:
    return len(text) >= _LONG and _OPAQUE.fullmatch(text) is not None


def tokens_of(response: Mapping[str, Any]) -> list[str]:
    """The texts of an answer of JSON that may be tokens."""
    kind, text = _kind_and_text(response)
    return [str(value) for _, value, _ in _leaves(text) if _may_be_token(value)] if "json" in kind else []


def _may_be_token(value: str | int) -> bool:
    return isinstance(value, str) and len(value) >= _LEAST_TOKEN


def _kind_and_text(response: Mapping[str, Any]) -> tuple[str, str]:
    """The content type of an answer in small letters, and its text."""
    content = response.get("content")
    content = content if isinstance(content, dict) else {}
    kind, text = str(content.get("mimeType") or "").lower(), str(content.get("text") or "")
    if content.get("encoding") != "base64":
        return kind, text
    try:
        return kind, b64decode(text).decode("utf-8", "replace")
    except ValueError:
        return kind, ""


def _location(response: Mapping[str, Any]) -> str:
    headers = response.get("headers")
    several = [each for each in headers if isinstance(each, dict)] if isinstance(headers, list) else []
    found = (str(each.get("value") or "") for each in several if str(each.get("name")).lower() == "location")
    return next(found, "")


def _leaves(text: str) -> Iterator[tuple[str, str | int, str]]:
    """The texts and whole numbers of a JSON text, each with its name and its JSONPath; of a list those of its first item."""
    try:
        left = [("", json.loads(text), "$", 0)]
    except (ValueError, RecursionError):
        return
    for _ in range(_MOST_VALUES):
        if not left:
            return
        name, value, path, depth = left.pop(0)
        if isinstance(value, dict) and depth < _DEEPEST:
            left += [(key, inner, child(path, key), depth + 1) for key, inner in value.items() if "'" not in key]
        elif isinstance(value, list) and depth < _DEEPEST:
            left += [(name, value[0], f"{path}[0]", depth + 1)] if value else []
        elif isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            yield name, value, path


def _hidden(page: str) -> Iterator[tuple[str, str, str, str]]:
    """The tokens of a page: name, value, CSS selector, and the attribute that has the value."""
    from loadgen.language.selectors import parse_page  # noqa: PLC0415 - lxml is large, and few recordings need it

    try:
        root = parse_page(page)
    except (LimitExceeded, ValueError, SyntaxError):
        return
    for tag, attribute in (("input", "value"), ("meta", "content")):
        for element in root.iter(tag):
            name, value = str(element.get("name") or ""), str(element.get(attribute) or "")
            is_hidden = str(element.get("type")).lower() == "hidden" or _TOKEN.search(name)
            if is_hidden and _IN_A_SELECTOR.fullmatch(name) and len(value) >= _LEAST_TOKEN:
                yield name, value, f'{tag}[name="{name}"]', attribute
