"""A finished response as scripts see it: decompressed text, JSON, headers by lower-case name. Pure; worked out when asked."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import Any

import brotli

from loadgen.http.response import parse_headers
from loadgen.language.values import json_value

ENCODINGS = "gzip, deflate, br"
"""What `decoded` undoes: the Accept-Encoding to ask with."""

LARGEST_BYTES = 16 * 1024 * 1024
"""How much of a compressed body is looked at, decompressed."""

_ONCE = frozenset((
    "age", "authorization", "content-length", "content-type", "etag", "expires", "from", "host", "if-modified-since",
    "if-unmodified-since", "last-modified", "location", "max-forwards", "proxy-authorization", "referer", "retry-after",
    "server", "user-agent",
))  # fmt: skip
"""Fields of which only the first counts, as in Node.js; others are joined by commas."""


class Answer:
    """`status`, `headers`, and the body as `text` or parsed (`json`: raises ValueError where it is none)."""

    def __init__(self, status: int, head: bytes, body: bytes, *, decode: bool) -> None:
        """`head` and `body` as received; `decode`: undo a content coding."""
        self.status = status
        self._head = head
        self._body = body
        self._decode = decode and b"\ncontent-encoding:" in head.lower()

    @cached_property
    def headers(self) -> dict[str, Any]:
        """Values by lower-case name; `set-cookie` is a list of texts, as in Node.js, every other value a text."""
        out: dict[str, Any] = {}
        for name, value in parse_headers(self._head):
            key = name.lower()
            if key == "set-cookie":
                out.setdefault(key, []).append(value)
            elif key not in out:
                out[key] = value
            elif key not in _ONCE:
                out[key] += f", {value}"
        return out

    @cached_property
    def text(self) -> str:
        """The body as UTF-8, bad bytes replaced."""
        return self._plain_body().decode("utf-8", "replace")

    def _plain_body(self) -> bytes:
        return decoded(self._body, self.headers["content-encoding"].lower()) if self._decode else self._body

    @cached_property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json_value(self._plain_body())


def decoded(body: bytes, coding: str) -> bytes:
    """A body without its content coding (gzip, deflate or br); as it is where that cannot be undone.

    Of one that would be more than LARGEST_BYTES, the beginning: a few KB can stand for gigabytes.
    """
    try:
        if coding in {"gzip", "x-gzip"}:
            return _inflated(body, zlib.MAX_WBITS | 16)
        if coding == "deflate":
            try:
                return _inflated(body, zlib.MAX_WBITS)
            except zlib.error:  # some servers send it without the zlib wrapper
                return _inflated(body, -zlib.MAX_WBITS)
        if coding == "br":
            return _unpacked(body)
    except (zlib.error, brotli.error):
        pass
    return body


def _inflated(body: bytes, window_bits: int) -> bytes:
    return zlib.decompressobj(window_bits).decompress(body, LARGEST_BYTES)


def _unpacked(body: bytes) -> bytes:
    decompressor = brotli.Decompressor()
    out = bytearray(decompressor.process(body, output_buffer_limit=LARGEST_BYTES))
    while len(out) < LARGEST_BYTES and not decompressor.can_accept_more_data():
        out += decompressor.process(b"", output_buffer_limit=LARGEST_BYTES - len(out))
    return bytes(out[:LARGEST_BYTES])
