"""HTTP/1 responses out of bytes, with no socket in sight: a fast path for the common shape, a complete parser for the rest.

The common shape is a whole response in one read: one Content-Length, nothing else that changes the framing. It is
recognised without copying the body, and its head is looked up among those seen before (a server repeats itself). Everything
else goes to httptools, which is llhttp, the parser of Node.js and so of Artillery: errors carry the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

MAX_HEAD_BYTES = 16 * 1024
"""Node's limit for a response's head; more is HPE_HEADER_OVERFLOW."""

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
    """The peer's bytes are not a response. `name` is the error's name as Node gives it (HPE_...)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response's head says, found out once: a server repeats itself, so that most heads were seen before."""

    raw: bytes
    """As sent, the empty line included."""
    length: int | None
    """Of the body, where one Content-Length alone frames it; None leaves the framing to the complete parser."""
    status: int
    keep_alive: bool
    """Meaningful with a `length`."""
    sets_cookie: bool
    server_timing: bool
    """Whether there is a Server-Timing field."""
    plain: bool
    """No cookie, no Server-Timing and no redirect: nobody needs to look into it."""

    @classmethod
    def of(cls, raw: bytes) -> ResponseHead:
        """Of a head in bytes; those seen lately are looked up."""
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
    """The content length that a lower-cased head gives; None if its framing is any but one Content-Length."""
    if head[:9] not in (b"http/1.1 ", b"http/1.0 ") or status < 200 or status in (204, 304):
        return None
    at = head.find(b"\r\ncontent-length:")
    if at < 0 or b"\r\ncontent-length:" in head[at + 2 :] or b"\r\ntransfer-encoding:" in head:
        return None
    length = head[at + 17 : head.index(b"\r\n", at + 2)].strip()
    return int(length) if length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX else None


_latest: tuple[bytes, ResponseHead | None] = (b"", None)


def parse_common(data: bytes) -> ResponseHead | None:
    """The head of a whole common response; None for any other bytes. The body is what follows `len(head.raw)` bytes."""
    global _latest  # noqa: PLW0603 - one look at the answer before this one saves all others: they are often the same bytes
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
    """One response from any split of its bytes. `feed` until it returns True; then the attributes are final.

    Interim responses (1xx) are passed over. `status` is 0 until a final head has arrived, `head` its bytes as sent.
    `body` stays empty unless `want_body`; `body_bytes` counts in either case (after de-chunking, before decompression).
    """

    def __init__(self, *, head_only: bool = False, want_body: bool = True) -> None:
        self.status = 0
        self.head = b""
        self.body_bytes = 0
        self.keep_alive = False
        self._head_only = head_only
        self._parts: list[bytes] | None = [] if want_body else None
        self._pending = b""
        self._parser: httptools.HttpResponseParser | None = None
        self._done = False
        self._framed = False

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self._parts or ())

    def feed(self, data: bytes) -> bool:
        """Take bytes in; True once the response is whole. Raises BadResponse."""
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
            self._parse(data)
        elif data:
            self.keep_alive = False
        return self._done

    def eof(self) -> bool:
        """The peer has closed: True if that ends the response properly (a body framed by nothing else)."""
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
            if self._done:  # bytes after the end: not ours to judge, but the connection is of no more use
                self.keep_alive = False
                return
            # Node drops the connection under a response that has begun, and tells no more than that.
            raise BadResponse("ECONNRESET" if self.status else _error_name(str(error))) from None

    def on_headers_complete(self) -> None:
        """httptools: asked here, since the parser forgets once the message is complete."""
        if self._done:  # another response, which nobody asked for
            self.keep_alive = False
            return
        self.keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        if self._done:
            return
        self.body_bytes += len(data)
        if self._parts is not None:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """httptools: the response is whole."""
        self._done = True


def _error_name(reason: str) -> str:
    return next((name for part, name in _ERROR_NAMES if part in reason), "HPE_INTERNAL")


def parse_headers(head: bytes) -> list[tuple[str, str]]:
    """The header fields of a head as bytes, in order, names as sent."""
    fields = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    return fields
