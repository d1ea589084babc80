"""A finished response as scripts see it: decompressed text, JSON, headers by lower-case name. Pure; worked out when asked."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from loadgen.script.values import json_value

ENCODINGS = "gzip, deflate"
"""What `decoded` undoes: the Accept-Encoding to ask with."""

_ONCE = frozenset((
    "age", "authorization", "content-length", "content-type", "etag", "expires", "from", "host", "if-modified-since",
    "if-unmodified-since", "last-modified", "location", "max-forwards", "proxy-authorization", "referer", "retry-after",
    "server", "user-agent",
))  # fmt: skip
"""Fields of which only the first counts, as in Node.js; others are joined by commas."""


class Answer:
    """`status`, `headers`, and the body as `text` or parsed (`json`: raises ValueError where it is none)."""

    def __init__(self, status: int, fields: Iterable[tuple[str, str]], body: bytes, *, decode: bool) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            if key not in self.headers:
                self.headers[key] = value
            elif key not in _ONCE:
                self.headers[key] += f", {value}"
        self._body = body
        self._decode = decode

    @cached_property
    def text(self) -> str:
        """The body as UTF-8, bad bytes replaced."""
        coding = self.headers.get("content-encoding", "").lower()
        body = decoded(self._body, coding) if self._decode and coding else self._body
        return body.decode("utf-8", "replace")

    @cached_property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json_value(self.text)


def decoded(body: bytes, coding: str) -> bytes:
    """A body without its content coding (gzip or deflate); as it is where that cannot be undone."""
    try:
        if coding in {"gzip", "x-gzip"}:
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body)
        if coding == "deflate":
            try:
                return zlib.decompress(body)
            except zlib.error:  # some servers send it without the zlib wrapper
                return zlib.decompress(body, -zlib.MAX_WBITS)
    except zlib.error:
        pass
    return body
