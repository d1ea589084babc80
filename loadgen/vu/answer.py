"""A finished response as scripts see it: decompressed text, JSON, headers by lower-case name. No I/O."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import Any

import brotli

from loadgen.http.response import MAX_BODY_BYTES, parse_headers
from loadgen.language.limits import LimitExceeded
from loadgen.language.values import json_value
from loadgen.script.processor import Timings

ENCODINGS = "gzip, deflate, br"
"""The content codings that `decoded` can undo, as the value of Accept-Encoding."""

_ONCE = frozenset((
    "age", "authorization", "content-length", "content-type", "etag", "expires", "from", "host", "if-modified-since",
    "if-unmodified-since", "last-modified", "location", "max-forwards", "proxy-authorization", "referer", "retry-after",
    "server", "user-agent",
))  # fmt: skip
"""Header fields of which only the first counts, as in Node.js. Fields of other names are joined by commas."""


_GZIP = b"\x1f\x8b"
"""What a member of gzip begins with."""
_MEMBERS_MAX = 10_000
_PIECE = 16_384


class Answer:
    """A response: its `status`, its `headers`, and its body as `text` or parsed as `json`. Each is worked out when asked for."""

    def __init__(
        self,
        status: int,
        head: bytes,
        body: bytes,
        *,
        decode: bool,
        too_large: bool = False,
        largest_bytes: int = MAX_BODY_BYTES,
        timings: Timings | None = None,
    ) -> None:
        """`head` and `body` are as received; with `decode`, a content coding of the body is undone.

        A body that is `too_large` was not kept. One that has more than `largest_bytes` is too large, too: a few compressed
        KB can stand for gigabytes. Asking for such a body raises LimitExceeded (ERR_BODY_TOO_LARGE).
        """
        self.timings = timings
        self._too_large = too_large
        self._largest_bytes = largest_bytes
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
        """The body, decompressed. Raises LimitExceeded."""
        if self._too_large or len(self._body) > self._largest_bytes:
            raise LimitExceeded("ERR_BODY_TOO_LARGE")
        if not self._decode:
            return self._body
        plain = decoded(self._body, self.headers["content-encoding"].lower(), self._largest_bytes)
        if len(plain) > self._largest_bytes:
            raise LimitExceeded("ERR_BODY_TOO_LARGE")
        return plain

    @cached_property
    def json(self) -> Any:
        """The body parsed as JSON. Raises ValueError where it is not JSON."""
        return json_value(self.plain_body())


def decoded(body: bytes, coding: str, largest_bytes: int = MAX_BODY_BYTES) -> bytes:
    """A body without its content coding (gzip, deflate or br); unchanged where that cannot be undone.

    A body that would be longer than `largest_bytes` is cut off one byte later.
    """
    most = largest_bytes + 1
    try:
        if coding in {"gzip", "x-gzip"}:
            return _inflated(body, zlib.MAX_WBITS | 16, most)
        if coding == "deflate":
            try:
                return _inflated(body, zlib.MAX_WBITS, most)
            except zlib.error:
                # Some servers send deflate without the zlib wrapper.
                return _inflated(body, -zlib.MAX_WBITS, most)
        if coding == "br":
            return _unpacked(body, most)
    except (zlib.error, brotli.error):
        pass
    return body


def _inflated(body: bytes, window_bits: int, most: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    plain = inflater.decompress(body, most)
    if inflater.unused_data.startswith(_GZIP):
        return plain + _members(body, len(body) - len(inflater.unused_data), most - len(plain))
    return plain


def _members(body: bytes, at: int, most: int) -> bytes:
    """What the members of gzip after the first hold (RFC 1952, 2.2), of which the first begins at `at`. Raises zlib.error."""
    out = bytearray()
    for _ in range(_MEMBERS_MAX):
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        # A piece at a time, so that what is left over need not be copied for each member.
        while not inflater.eof and at < len(body) and len(out) < most:
            piece = body[at : at + _PIECE]
            out += inflater.decompress(piece, most - len(out))
            at += len(piece) - len(inflater.unused_data) - len(inflater.unconsumed_tail)
        if len(out) >= most or not body.startswith(_GZIP, at):
            return bytes(out)
    raise zlib.error("too many members")


def _unpacked(body: bytes, most: int) -> bytes:
    decompressor = brotli.Decompressor()
    out = bytearray(decompressor.process(body, output_buffer_limit=most))
    while len(out) < most and not decompressor.can_accept_more_data():
        out += decompressor.process(b"", output_buffer_limit=most - len(out))
    return bytes(out[:most])
