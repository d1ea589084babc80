"""Texts for the values of parameters, as the styles of OpenAPI and Swagger write them (RFC 6570). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

_SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "|", "tabDelimited": "%09"}
_SAFE_IN_A_QUERY = ",:/@"


def query_pairs(name: str, value: Any, style: str, *, explode: bool) -> Iterator[str]:
    """The pairs `name=value` of a query for one parameter, percent-encoded."""
    key = quote(name, safe="[]")
    if style == "json":
        yield f"{key}={quote(json.dumps(value), safe=_SAFE_IN_A_QUERY)}"
    elif isinstance(value, dict) and style == "deepObject":
        for inner, each in value.items():
            yield f"{key}[{_encoded(inner)}]={_encoded(as_text(each))}"
    elif isinstance(value, dict) and explode:
        yield from (f"{_encoded(inner)}={_encoded(as_text(each))}" for inner, each in value.items())
    elif isinstance(value, list) and explode and style not in _SEPARATORS:
        yield from (f"{key}={_encoded(as_text(each))}" for each in value)
    else:
        texts = [text for pair in value.items() for text in pair] if isinstance(value, dict) else value
        several = texts if isinstance(texts, list) else [texts]
        yield f"{key}={_SEPARATORS.get(style, ',').join(_encoded(as_text(each)) for each in several)}"


def path_text(name: str, value: Any, style: str, *, explode: bool) -> str:
    """The text of a parameter in a path, percent-encoded: `3,4`, or `.3.4` and `;id=3,4` where its style is such."""
    if isinstance(value, dict):
        value = [f"{inner}={as_text(each)}" if explode else f"{inner},{as_text(each)}" for inner, each in value.items()]
    texts = [quote(as_text(each), safe="=," if isinstance(value, list) else "") for each in _listed(value)]
    if style == "label":
        return "." + (".".join(texts) if explode else ",".join(texts))
    if style == "matrix":
        return "".join(f";{name}={text}" for text in texts) if explode else f";{name}={','.join(texts)}"
    return ",".join(texts)


def as_text(value: Any) -> str:
    """A value as it stands in a URL or a header."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(as_text, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _encoded(text: str) -> str:
    return quote(text, safe=_SAFE_IN_A_QUERY)
