"""HTTP/1.1 requests as bytes: addresses, header fields, and bodies of every kind. No I/O."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urljoin, urlsplit

from loadgen.http.route import Origin
from loadgen.language.values import UNDEFINED, text

FRAMING = frozenset(("content-length", "transfer-encoding"))
"""Header fields that say how long a body is."""
DEFAULT_PORTS = {"http": 80, "https": 443}

# These are not encoded in a path, nor are letters, digits and `-._` (WHATWG URL, 1.3).
_KEPT = "!$%&'()*+,/:;=@[\\]^|~"
_KEPT_IN_QUERY = _KEPT.replace("'", "") + "?`{}"
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


class BadRequestError(Exception):
    """A request cannot be sent. `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Address:
    """An absolute URL taken apart: where to connect, and what to ask for."""

    origin: Origin
    target: str
    """Path and query, percent-encoded."""
    host: str
    """The value of the Host field, with the port where that is not the scheme's default."""
    userinfo: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """The whole URL, without user and password."""
        return f"{self.origin.scheme}://{self.host}{self.target}"


@lru_cache(maxsize=4096)
def address_of(url: str) -> Address:
    """The address that an http or https URL names. Spaces and non-ASCII letters are encoded; a fragment is dropped.

    Raises BadRequestError: ERR_INVALID_URL, or ERR_UNSUPPORTED_PROTOCOL for another scheme.
    """
    try:
        return _address_of(url)
    except ValueError:
        # Brackets without an IPv6 address, a port beyond 65535, a name that IDNA refuses, half a surrogate pair.
        raise BadRequestError("ERR_INVALID_URL") from None


def _address_of(url: str) -> Address:
    """The same as `address_of`. Raises ValueError as well."""
    parts = urlsplit(url.strip())
    host, port = parts.hostname, parts.port
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise BadRequestError("ERR_UNSUPPORTED_PROTOCOL")
    if not host or " " in host or "{" in host:
        raise BadRequestError("ERR_INVALID_URL")
    host = host if host.isascii() else host.encode("idna").decode()
    shown = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[scheme]:
        shown += f":{port}"
    path = quote(_without_dots(parts.path.replace("\\", "/")) or "/", safe=_KEPT)
    query = f"?{quote(parts.query, safe=_KEPT_IN_QUERY)}" if parts.query else ""
    userinfo = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Address(Origin(scheme, host, DEFAULT_PORTS[scheme] if port is None else port), path + query, shown, userinfo)


def _without_dots(path: str) -> str:
    """A path with its `.` and `..` segments resolved (RFC 3986, 5.2.4)."""
    if "/." not in path:
        return path
    out: list[str] = []
    segments = path.split("/")
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment in {".", ".."}:
            if segment == ".." and len(out) > 1:
                out.pop()
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/".join(out)


def redirected(address: Address, location: str) -> Address:
    """The address that a Location field leads to, which may be relative to `address`. Raises BadRequestError.

    `location` is the field as it is read, a character for each byte; bytes beyond ASCII are UTF-8 as a rule.
    """
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        url = urljoin(address.url, location)
    except ValueError:
        raise BadRequestError("ERR_INVALID_URL") from None
    return address_of(url)


def with_query(address: Address, query: str) -> Address:
    """The same address with another query."""
    path = address.target.partition("?")[0]
    return Address(address.origin, f"{path}?{query}" if query else path, address.host, address.userinfo)


@dataclass(slots=True)
class Outgoing:
    """A request about to be sent. `fields` are lower-case, without cookie; with a host only if the script sets one."""

    asked: str
    """The URL as the script has it, with its templates filled in; it stays the same after redirects."""
    method: str
    address: Address
    fields: list[tuple[str, str]]
    body: bytes | None = None
    cookie: str = ""
    """The value of a Cookie field that the script sets; cookies from the jar replace it."""
    framed: bool = False
    """Whether the script itself says how long the body is: `fields` have a content-length or a transfer-encoding."""

    id: str = ""
    """An id that the functions before and after the request are given."""
    response_ns: int = 0
    """The longest time from the request written to the head of the answer, in ns; 0 for that of the script."""

    def encoded(self, cookie: str = "") -> bytes:
        """The bytes to send, with this value of the Cookie field, if any. Raises UnicodeEncodeError."""
        address = self.address
        lines, named = [f"{self.method} {address.target} HTTP/1.1"], [name for name, _ in self.fields]
        # A script may ask for another host at this address, and for the connection to be closed.
        if "host" not in named:
            lines.append(f"host: {address.host}")
        if "connection" not in named:
            lines.append("connection: keep-alive")
        lines += [f"{name}: {value}" for name, value in self.fields]
        if cookie or self.cookie:
            lines.append(f"cookie: {cookie or self.cookie}")
        if self.framed:
            return self._encoded_as_scripted(lines)
        if self.body is not None:
            lines.append(f"content-length: {len(self.body)}")
        elif self.method in {"POST", "PUT", "PATCH"}:
            lines.append("content-length: 0")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head + self.body if self.body else head

    def _encoded_as_scripted(self, lines: list[str]) -> bytes:
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = self.body or b""
        if dict(self.fields).get("transfer-encoding", "").lower() != "chunked":
            return head + body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + chunk + b"0\r\n\r\n"

    def followed(self, address: Address, status: int) -> Outgoing:
        """The request that follows a redirect with this status to this address.

        Method and body are kept, except after 303; Authorization, Cookie and the script's own Host do not go to another host.
        """
        moved = (address.origin.host, address.origin.port) != (self.address.origin.host, self.address.origin.port)
        method, body, dropped = self.method, self.body, {"authorization", "host"} if moved else set()
        framed = self.framed
        if status == 303 and method != "HEAD":
            method, body, framed = "GET", None, False
            dropped |= FRAMING
        fields = [(name, value) for name, value in self.fields if name not in dropped]
        cookie = "" if moved else self.cookie
        return Outgoing(self.asked, method, address, fields, body, cookie, framed, self.id, self.response_ns)


def is_field(name: str, value: str) -> bool:
    """Whether a header field may have this name and value (RFC 9110, 5)."""
    return bool(_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value))


def field_lines(name: str, value: Any) -> list[tuple[str, str]]:
    """The lines of a header field: no line for an undefined value, one for each element of a list.

    Raises BadRequestError for null, and for a name or value that no field may have.
    """
    if type(value) is str and is_field(name, value):
        return [(name, value)]
    if value is UNDEFINED:
        return []
    if value is None:
        raise BadRequestError("ERR_GOT_REQUEST_ERROR")
    values = [text(v) for v in value] if isinstance(value, list) else [text(value)]
    if not _FIELD_NAME.fullmatch(name):
        raise BadRequestError("ERR_INVALID_HTTP_TOKEN")
    if not all(_FIELD_VALUE.fullmatch(v) for v in values):
        raise BadRequestError("ERR_INVALID_CHAR")
    return [(name, v) for v in values]


def basic(user: Any, password: Any) -> str:
    """The value of the Authorization field for a user and a password (RFC 7617)."""
    return "Basic " + b64encode(f"{text(user)}:{text(password)}".encode()).decode()


def form_text(fields: Iterable[tuple[str, Any]]) -> str:
    """Fields as application/x-www-form-urlencoded: values as text, a space as `+`."""
    return "&".join(f"{_form(name)}={_form(text(value))}" for name, value in fields)


def query_text(fields: Iterable[tuple[str, Any]]) -> str:
    """Fields as the query of a URL. A list repeats its key; a value other than a text, number or boolean is empty."""
    pairs: list[tuple[str, Any]] = []
    for name, value in fields:
        pairs += [(name, item) for item in value] if isinstance(value, list) else [(name, value)]
    return form_text((name, value if isinstance(value, str | int | float) else "") for name, value in pairs)


def _form(value: str) -> str:
    return quote_plus(value, safe="*", errors="replace").replace("~", "%7E")


def multipart(parts: Iterable[FormPart], boundary: str) -> bytes:
    """A multipart/form-data body (RFC 7578) of parts whose values have been filled in."""
    out = bytearray()
    for part in parts:
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(part.name)}"'.encode()
        if part.file_name is not None:
            out += f'; filename="{_quoted(part.file_name)}"'.encode()
        if part.content_type:
            out += f"\r\nContent-Type: {text(part.content_type)}".encode()
        content = text(part.value).encode() if part.content is None else part.content
        out += b"\r\n\r\n" + content + b"\r\n"
    return bytes(out) + f"--{boundary}--\r\n".encode()


def _quoted(value: str) -> str:
    return value.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


@dataclass(frozen=True, slots=True)
class FormPart:
    """A part of a multipart body: a value, or the bytes of a file."""

    name: str
    value: Any
    content_type: Any = None
    file_name: Any = None
    content: bytes | None = None
    read: Callable[[str], bytes] | None = None
    """Reads the content of a file whose name holds a template, and so is known only when the request is made. Raises OSError."""
