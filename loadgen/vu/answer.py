"""A finished response as scripts see it: decompressed text, JSON, headers by lower-case name. No I/O."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import Any

import brotli

from loadgen.http.response import parse_headers
from loadgen.language.values import json_value

ENCODINGS = "gzip, deflate, br"
"""The content codings that `decoded` can undo, as the value of Accept-Encoding."""

LARGEST_BYTES = 16 * 1024 * 1024
"""The largest part of a compressed body that is decompressed, in bytes after that."""

_ONCE = frozenset((
    "age", "authorization", "content-length", "content-type", "etag", "expires", "from", "host", "if-modified-since",
    "if-unmodified-since", "last-modified", "location", "max-forwards", "proxy-authorization", "referer", "retry-after",
    "server", "user-agent",
))  # fmt: skip
"""Header fields of which only the first counts, as in Node.js. Fields of other names are joined by commas."""


class Answer:
    """A response: its `status`, its `headers`, and its body as `text` or parsed as `json`. Each is worked out when asked for."""

    def __init__(self, status: int, head: bytes, body: bytes, *, decode: bool) -> None:
        """`head` and `body` are as received; with `decode`, a content coding of the body is undone."""
        self.status = status
        self._head = head
        self._body = body
        self._decode = decode and b"\ncontent-encoding:" in head.lower()

    @cached_property
    def headers(self) -> dict[str, Any]:
        """Header fields by lower-case name: `set-cookie` is a list of texts, as in Node.js, every other value a text."""
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
        """The body as text in UTF-8, with invalid bytes replaced."""
        return self.plain_body().decode("utf-8", "replace")

    def plain_body(self) -> bytes:
        """The body, decompressed."""
        return decoded(self._body, self.headers["content-encoding"].lower()) if self._decode else self._body

    @cached_property
    def json(self) -> Any:
        """The body parsed as JSON. Raises ValueError where it is not JSON."""
        return json_value(self.plain_body())


def decoded(body: bytes, coding: str) -> bytes:
    """A body without its content coding (gzip, deflate or br); unchanged where that cannot be undone.

    A body that would be longer than LARGEST_BYTES is cut off there: a few KB can stand for gigabytes.
    """
    try:
        if coding in {"gzip", "x-gzip"}:
            return _inflated(body, zlib.MAX_WBITS | 16)
        if coding == "deflate":
            try:
                return _inflated(body, zlib.MAX_WBITS)
            except zlib.error:
                # Some servers send deflate without the zlib wrapper.
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
