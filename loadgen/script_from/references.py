"""An OpenAPI document with its references: read from JSON or YAML, `$ref` followed, also into other files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from loadgen.script_from.draft import Unusable

_MOST_HOPS = 50
_SLOW_YAML_BYTES = 2_000_000
_JSON_STARTS = (b"{", b"[")

Fetch = Callable[[str], bytes]
"""Reads the document at a location, a path or a URL. Raises Unusable."""


def decoded(content: bytes, where: str, tell: Callable[[str], None] = lambda _: None) -> Any:
    """The value of a JSON or YAML text. Raises Unusable, which names the line. `tell` takes a line if it will take long."""
    # PowerShell writes such files.
    wide = content.decode("utf-16", "replace") if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    if wide[:1].isascii() and wide:
        content = wide.encode("utf-8", "replace")
    content = content.removeprefix(b"\xef\xbb\xbf").strip()
    if not content:
        raise Unusable(f"{where}: empty")
    if content[:1] == b"<":
        raise Unusable(f"{where}: HTML or XML, not an OpenAPI document or a HAR file")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    if content.startswith(_JSON_STARTS):
        try:
            return json.loads(text)
        except RecursionError:
            raise Unusable(f"{where}: nested too deeply") from None
        except json.JSONDecodeError as error:
            # YAML knows braces, too; but what ends in a brace was meant as JSON.
            if content.endswith((b"}", b"]")) or where.lower().endswith((".json", ".har")):
                raise Unusable(f"{where}, line {error.lineno}: not JSON: {error.msg}") from None
        except ValueError as error:
            # A number of thousands of digits.
            raise Unusable(f"{where}: not JSON: {error}") from None
    if len(content) > _SLOW_YAML_BYTES:
        tell(f"reading {len(content) / 1e6:.0f} MB of YAML, which takes a while; JSON is read at once")
    return _yaml(text, where)


def _yaml(text: str, where: str) -> Any:
    yaml = YAML(typ="safe")
    yaml.allow_duplicate_keys = True
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise Unusable(f"{where}{line}: not YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError, OverflowError, KeyError) as error:
        # A KeyError is about what a tag cannot stand for, such as !!bool perhaps.
        raise Unusable(f"{where}: not YAML: {str(error).partition(chr(10))[0]}") from None
    except RecursionError:
        raise Unusable(f"{where}: nested too deeply") from None


class References:
    """Documents by location, and what a `$ref` in one of them stands for."""

    def __init__(self, location: str, root: Any, fetch: Fetch) -> None:
        """`root` is the value of the document at `location`; `fetch` reads those that it refers to."""
        self._fetch = fetch
        self._location = location
        self._documents: dict[str, Any] = {location: _absolute(root, location)}

    def resolve(self, node: Any) -> dict[str, Any]:
        """The object that a node is, or that its `$ref` leads to, with the keys beside the `$ref` laid over it.

        Raises Unusable for a reference that leads nowhere or in a circle. Anything but an object counts as an empty one.
        """
        beside: dict[str, Any] = {}
        for _ in range(_MOST_HOPS):
            if not isinstance(node, dict):
                return beside
            reference = node.get("$ref")
            if not isinstance(reference, str):
                return {**node, **beside} if beside else node
            beside = {**{key: value for key, value in node.items() if key != "$ref"}, **beside}
            node = self._at(reference)
        raise Unusable(f"{shown(node['$ref'])} leads in a circle")

    def whole(self, reference: str) -> str:
        """A reference as the first document would write it, made absolute."""
        other, _, pointer = reference.partition("#")
        return f"{beside(self._location, other)}#{pointer}"

    def _at(self, reference: str) -> Any:
        location, _, pointer = reference.partition("#")
        if location not in self._documents:
            self._documents[location] = _absolute(decoded(self._fetch(location), location), location)
        node = self._documents[location]
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and len(key) < 10 and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise Unusable(f"{shown(reference)} leads nowhere")
        return node


def shown(reference: str) -> str:
    """A reference as a document would write it: the part inside the document where it has one, else all of it."""
    location, _, pointer = reference.partition("#")
    return f"$ref #{pointer}" if pointer else f"$ref {location}"


def beside(location: str, reference: str) -> str:
    """The location of what a document at `location` calls `reference`: both are absolute paths, or URLs. Raises Unusable."""
    if not reference:
        return location
    try:
        return _joined(location, reference)
    except ValueError as error:
        raise Unusable(f"$ref {reference}: {error}") from None


def _joined(location: str, reference: str) -> str:
    if urlsplit(location).scheme in ("http", "https"):
        return urljoin(location, reference)
    if urlsplit(reference).scheme in ("http", "https", "file"):
        return reference
    # A path is joined as the path of a URL is.
    return unquote(urlsplit(urljoin(f"file://{quote(location)}", reference)).path)


def _absolute(root: Any, location: str) -> Any:
    """Make every `$ref` of a document whole, every key a text and every date a text, as JSON would have them. In place."""
    seen: set[int] = set()
    root = _plain(root)
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, list):
            node[:] = [_plain(each) for each in node]
            left += [each for each in node if isinstance(each, (dict, list))]
        elif isinstance(node, dict):
            if any(not isinstance(key, str) or not key.isascii() for key in node):
                items = [(_plain(str(key)), value) for key, value in node.items()]
                node.clear()
                node.update(items)
            for key, value in node.items():
                node[key] = _plain(value)
            reference = node.get("$ref")
            if isinstance(reference, str):
                other, _, pointer = reference.partition("#")
                # One that cannot be read is told where it is followed.
                with suppress(Unusable):
                    node["$ref"] = f"{beside(location, other)}#{pointer}"
            left += [each for each in node.values() if isinstance(each, (dict, list))]
    return root


def _plain(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        # Halves of surrogate pairs, which JSON can escape, stand for no sign.
        return value.encode("utf-8", "replace").decode()
    return value.isoformat() if isinstance(value, date) else value
