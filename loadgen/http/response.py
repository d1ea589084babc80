"""Reads HTTP/1 responses from bytes, without a socket: a fast path for the common shape, a complete parser for the rest.

The common shape is a whole response in one read, with one Content-Length and nothing else that affects where it ends. It is
recognised without copying the body, and its head is looked up among those seen before, since a server repeats itself. All
other responses go to httptools. That is llhttp, the parser of Node.js and so of Artillery: errors have the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

MAX_HEAD_BYTES = 16 * 1024
"""The largest head of a response, as in Node.js; a larger one is the error HPE_HEADER_OVERFLOW."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The most that is kept of a body unless a run says otherwise, in bytes as sent; the rest is read and counted only."""

_INTERIM_MAX = 100
_BODILESS_MAX_BYTES = MAX_HEAD_BYTES
"""The most that may follow a head without a byte of the body in it, in bytes: sizes and extensions of chunks, trailers."""
_KNOWN_HEADS_MAX = 512
_REGULAR_HEAD = re.compile(
    rb"HTTP/1\.[01] \d{3}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_LENGTH_DIGITS_MAX = 18

_ERROR_NAMES = (
    ("Expected HTTP/", "HPE_INVALID_CONSTANT"),
    ("Transfer-Encoding can't", "HPE_INVALID_TRANSFER_ENCODING"),
    ("Duplicate Content-Length", "HPE_UNEXPECTED_CONTENT_LENGTH"),
    ("expected CR", "HPE_CR_EXPECTED"),
    ("Content-Length", "HPE_INVALID_CONTENT_LENGTH"),
    ("Transfer-Encoding", "HPE_INVALID_TRANSFER_ENCODING"),
    ("header", "HPE_INVALID_HEADER_TOKEN"),
    ("status", "HPE_INVALID_STATUS"),
    ("version", "HPE_INVALID_VERSION"),
)


class BadResponse(Exception):
    """The peer sent something that is not a response. `name` is the error's name in Node.js (HPE_...)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The meaning of a response's head. It is worked out once for each different head."""

    raw: bytes
    """The head as sent, with the empty line at its end."""
    length: int | None
    """The length of the body where one Content-Length alone gives it; None if the complete parser must tell."""
    status: int
    keep_alive: bool
    """Whether the connection may be used again; meaningful only with a `length`."""
    sets_cookie: bool
    server_timing: bool
    """Whether it has a Server-Timing field."""
    plain: bool
    """Whether it has no cookie, no Server-Timing and is no redirect, so that nobody needs to look into it."""

    @classmethod
    def of(cls, raw: bytes) -> ResponseHead:
        """The meaning of these bytes of a head; recent heads are looked up."""
        known = _known_heads.get(raw)
        if known is None:
            if len(_known_heads) >= _KNOWN_HEADS_MAX:
                _known_heads.clear()
            known = _known_heads[raw] = _read_head(raw)
        return known


_known_heads: dict[bytes, ResponseHead] = {}


def _read_head(raw: bytes) -> ResponseHead:
    head = raw.lower()
    digits = head[9:12]
    status = int(digits) if digits.isdigit() else 0
    sets_cookie, timed = b"\nset-cookie:" in head, b"\nserver-timing:" in head
    at = head.find(b"\r\nconnection:")
    connection = head[at + 13 : head.index(b"\r\n", at + 2)] if at >= 0 else b""
    keep_alive = b"keep-alive" in connection if head[:9] == b"http/1.0 " else b"close" not in connection
    plain = not (sets_cookie or timed or 300 <= status < 400)
    regular = len(raw) <= MAX_HEAD_BYTES and _REGULAR_HEAD.fullmatch(raw) is not None
    return ResponseHead(
        raw, _common_length(head, status) if regular else None, status, keep_alive, sets_cookie, timed, plain
    )


def _common_length(head: bytes, status: int) -> int | None:
    """The length of the body that a head in lower case gives, or None if not exactly one Content-Length gives it."""
    if head[:9] not in (b"http/1.1 ", b"http/1.0 ") or status < 200 or status in (204, 304):
        return None
    at = head.find(b"\r\ncontent-length:")
    if at < 0 or b"\r\ncontent-length:" in head[at + 2 :] or b"\r\ntransfer-encoding:" in head:
        return None
    length = head[at + 17 : head.index(b"\r\n", at + 2)].strip()
    return int(length) if length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX else None


_latest: tuple[bytes, ResponseHead | None] = (b"", None)


def parse_common(data: bytes) -> ResponseHead | None:
    """The head of a whole response of the common shape; None for any other bytes. The body begins after `len(head.raw)` bytes."""
    global _latest  # noqa: PLW0603 - answers are often the same bytes as the one before
    if data == _latest[0]:
        return _latest[1]
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = ResponseHead.of(data[:end])
    if head.length is None or len(data) != end + head.length:
        return None
    _latest = data, head
    return head


class ResponseReader:
    """Reads one response, however its bytes are split. Call `feed` until it returns True; then the attributes are final.

    Interim responses (1xx) are skipped, up to a hundred of them. `status` is 0 until a final head has arrived, and `head`
    has its bytes as sent.
    `body` stays empty unless `want_body`; `body_bytes` is its length in either case, without chunks, still compressed.
    A body longer than `max_body_bytes` is read to its end, but not kept: then `too_large` is true and `body` is empty.
    """

    def __init__(
        self, *, head_only: bool = False, want_body: bool = True, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self.status = 0
        self.head = b""
        self.body_bytes = 0
        self.keep_alive = False
        self._head_only = head_only
        self._body: bytearray | None = bytearray() if want_body else None
        self._max_body_bytes = max_body_bytes
        self._bodiless_bytes = 0
        self.too_large = False
        self._interim = 0
        self._pending = b""
        self._parser: httptools.HttpResponseParser | None = None
        self._done = False
        self._framed = False

    @property
    def body(self) -> bytes:
        """The body so far."""
        return bytes(self._body or b"")

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. Returns True once the response is whole. Raises BadResponse."""
        if not self.status:
            data = self._pending + data
            if not self._take_head(data):
                return False
            data = self._pending
            self._pending = b""
        if self._head_only and self.status:
            self.keep_alive = self.keep_alive and not data
            return True
        if data and not self._done:
            known_bytes = self.body_bytes
            self._parse(data)
            self._bodiless_bytes = 0 if self.body_bytes > known_bytes else self._bodiless_bytes + len(data)
            if self._bodiless_bytes > _BODILESS_MAX_BYTES and not self._done:
                raise BadResponse("ECONNRESET")
        elif data:
            self.keep_alive = False
        return self._done

    def eof(self) -> bool:
        """Take the end of the stream. Returns True if it properly ends the response, that is, if nothing else gave its length."""
        self.keep_alive = False
        return bool(self.status) and not self._framed

    def _take_head(self, data: bytes) -> bool:
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > MAX_HEAD_BYTES:
                    raise BadResponse("HPE_HEADER_OVERFLOW")
                if data and not b"HTTP/".startswith(data[:5]):
                    raise BadResponse("HPE_INVALID_CONSTANT")
                if data.count(b"\n") != data.count(b"\r\n"):
                    raise BadResponse("HPE_CR_EXPECTED")
                self._pending = data
                return False
            if end > MAX_HEAD_BYTES:
                raise BadResponse("HPE_HEADER_OVERFLOW")
            head, data = data[:end], data[end:]
            self._parser = httptools.HttpResponseParser(self)
            self._parse(head)
            status = self._parser.get_status_code()
            if status >= 200 or status == 101:
                break
            self._interim += 1
            if self._interim > _INTERIM_MAX:
                raise BadResponse("HPE_HEADER_OVERFLOW")
            self._done = False
        self.status, self.head, self._pending = status, head, data
        lower = head.lower()
        self._framed = b"\r\ncontent-length:" in lower or b"\r\ntransfer-encoding:" in lower
        return True

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserUpgrade:
            self._done = True
        except httptools.HttpParserError as error:
            # Bytes after the end do not spoil this response, but the connection cannot be used any more.
            if self._done:
                self.keep_alive = False
                return
            # Node drops the connection if a response has begun, and gives no other reason.
            raise BadResponse("ECONNRESET" if self.status else _error_name(str(error))) from None

    def on_headers_complete(self) -> None:
        """Called by httptools. Keep-alive is asked for here, since the parser forgets it at the end of the message."""
        # This is another response, which nobody asked for.
        if self._done:
            self.keep_alive = False
            return
        self.keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]

    def on_body(self, data: bytes) -> None:
        """Called by httptools with a piece of the body."""
        if self._done:
            return
        self.body_bytes += len(data)
        if self._body is None:
            return
        if self.body_bytes > self._max_body_bytes:
            self._body, self.too_large = None, True
        else:
            # In a list, pieces of one byte would take a hundred times their size.
            self._body += data

    def on_message_complete(self) -> None:
        """Called by httptools when the response is whole."""
        self._done = True


def _error_name(reason: str) -> str:
    return next((name for part, name in _ERROR_NAMES if part in reason), "HPE_INTERNAL")


def parse_headers(head: bytes) -> list[tuple[str, str]]:
    """The names, as sent, and values of the header fields in these bytes of a head, in order."""
    fields = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    return fields
