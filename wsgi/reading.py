"""Reads requests strictly and in bounded time; gevent.pywsgi leaves both to a proxy in front of it.

The head of a request is read whole, within limits, and parsed by httptools, which is llhttp, the parser of Node.js. The
parser of pywsgi ignores what follows a malformed header line, and accepts bare line feeds, folded lines, repeated and odd
Content-Lengths, unknown transfer codings and HTTP/0.9: each is a way to hide a request from a balancer in the body of
another. It also takes ten times as long. Bodies are read by the classes that gunicorn's other workers use.

Clients that send or read slowly are found once a second, by checking the deadlines of all connections that are being waited
for. A timer for each request would cost more than parsing it.
"""

import contextlib
import errno
import io
import logging
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from http import HTTPStatus
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
import httptools
import orjson
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import Unreader
from gunicorn.workers.ggevent import PyWSGIHandler, PyWSGIServer
from werkzeug.sansio.utils import host_is_trusted

IDLE_S = 75.0
"""Seconds to wait for a request line. Balancers keep idle connections for less, so it is they that close them."""
HEAD_S = 10.0
"""Seconds for the rest of a head to arrive."""
BODY_S = 30.0
"""Seconds for a body to arrive, including the application's work on it."""
ANSWER_S = 30.0
"""Seconds for the client to take an answer."""
LINGER_S = 2.0
"""Seconds to go on reading data that is not used, so that its sender comes to read the answer."""
LARGEST_HEAD = 32 * 1024
"""Largest head, in bytes."""
LARGEST_LINE = 8 * 1024
"""Largest request line, trailer, or line with the size of a chunk, in bytes."""

# Bytes that are read without being used before the connection is given up, and the most that is read at a time.
_MOST_DISCARDED = 256 * 1024
_PIECE = 64 * 1024
# Longest texts that the caches below keep, in characters: a host name has at most 253, and a port.
_LONGEST_HOST = 260
_LONGEST_CACHED_NAME = 64

log = logging.getLogger("poolbench.wsgi")


class Refused(Exception):
    """The request cannot be accepted; it is answered with `status` instead of being handed to the application."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestHead:
    """The parsed head of a request. `fields` has its header fields under their names in WSGI's environ, repeated ones joined.

    Raises Refused for a malformed head, and for one whose body or address could be understood in two ways. A field with a
    `_` in its name is left out: in the environ it would pass for another one.
    """

    __slots__ = ("chunked", "fields", "keep_alive", "length", "method", "target", "version")

    def __init__(self, raw: bytes) -> None:
        self.target = ""
        self.fields: dict[str, str] = {}
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            # An offer to change the protocol, which is declined by answering in HTTP/1.1.
            pass
        except httptools.HttpParserError as error:
            raise Refused(400, str(error)) from None
        self.method: str = parser.get_method().decode()
        self.version: str = parser.get_http_version()
        coding = self.fields.get("HTTP_TRANSFER_ENCODING")
        self.chunked = coding is not None
        self.length = int(self.fields.get("CONTENT_LENGTH", 0))
        wish = self.fields.get("HTTP_CONNECTION", "").lower()
        self.keep_alive = "close" not in wish and (self.version == "1.1" or "keep-alive" in wish)
        self._check(coding)

    def _check(self, coding: str | None) -> None:
        if self.version not in ("1.1", "1.0"):
            raise Refused(505, f"HTTP/{self.version}")
        if coding is not None and (coding.lower() != "chunked" or self.version == "1.0"):
            raise Refused(501, "a transfer coding other than chunked")
        if not self.target.startswith("/") and self.target != "*":
            self._split_absolute_form()
        host = self.fields.get("HTTP_HOST")
        if host is None and self.version == "1.1":
            raise Refused(400, "no Host")
        if host is not None and not _is_host(host):
            raise Refused(400, "a Host that is not valid, or several")
        if self.fields.get("HTTP_EXPECT", "100-continue").lower() != "100-continue":
            raise Refused(417, "an expectation other than 100-continue")

    def _split_absolute_form(self) -> None:
        """Accept a whole URL as the target (RFC 9112, 3.2.2): its host replaces the Host field, which must still be there."""
        scheme, mark, rest = self.target.partition("://")
        if not mark or scheme.lower() not in ("http", "https"):
            raise Refused(400, "a target that is neither a path nor a URL")
        authority, slash, path = rest.partition("/")
        if "HTTP_HOST" in self.fields:
            self.fields["HTTP_HOST"] = authority
        self.target = slash + path or "/"

    def on_url(self, piece: bytes) -> None:
        """Take the target, or a piece of it, from httptools."""
        self.target += piece.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field from httptools."""
        key = _environ_key(name)
        if key is not None:
            text = value.decode("latin-1").strip(" \t")
            known = self.fields.get(key)
            self.fields[key] = text if known is None else f"{known}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"


# Without a list of trusted names, this says whether a text is a host name at all.
_is_short_host = lru_cache(maxsize=1024)(host_is_trusted)


def _is_host(text: str) -> bool:
    return len(text) <= _LONGEST_HOST and _is_short_host(text)


def _environ_key(name: bytes) -> str | None:
    """Name of a header field in WSGI's environ; None where it must be left out. Clients invent long ones: not cached."""
    return _short_environ_key(name) if len(name) <= _LONGEST_CACHED_NAME else _make_environ_key(name)


def _make_environ_key(name: bytes) -> str | None:
    key = name.decode("ascii").upper()
    if "_" in key:
        return None
    return key.replace("-", "_") if key in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_" + key.replace("-", "_")


_short_environ_key = lru_cache(maxsize=1024)(_make_environ_key)


class StrictServer(PyWSGIServer):  # type: ignore[misc]
    """A listening socket; the time that its connections may be waited for is limited."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deadlines: dict[StrictHandler, float] = {}
        """The time by the monotonic clock, in seconds, at which each handler that waits for its client gives up."""

    def start(self) -> None:
        """Begin to listen, and to watch the deadlines."""
        super().start()
        gevent.spawn(self._watch_deadlines)

    def _watch_deadlines(self) -> None:
        while True:
            gevent.sleep(1.0)
            now = monotonic()
            for handler in [each for each, deadline in self.deadlines.items() if deadline < now]:
                handler.give_up()


class StrictHandler(PyWSGIHandler):  # type: ignore[misc]
    """One connection and its requests."""

    server: StrictServer
    socket: Any
    rfile: Any
    close_connection: bool
    headers_sent: bool
    response_use_chunked: bool
    # EBADF is what a greenlet that waits for a socket gets when the socket is given up.
    ignored_socket_errors = (*PyWSGIHandler.ignored_socket_errors, errno.EBADF)
    wsgi_input: "Input | _EmptyInput"
    _late = False
    _held: bytearray | None = None

    def handle(self) -> None:
        """Answer the connection's requests until it ends."""
        try:
            super().handle()
        finally:
            self.server.deadlines.pop(self, None)

    def handle_one_request(self) -> bool | None:
        """Read and answer one request; returns True to go on with the connection, None to close it."""
        self.headers_sent = False
        self.allow(IDLE_S)
        try:
            line = self.read_requestline()
            if not line:
                return None
            self._head = self._read_head(line.encode("latin-1"))
        except Refused as refused:
            self._refuse(refused)
            return None
        except OSError:
            # The client is gone, or was given up before it sent anything.
            return None
        self._begin()
        self.handle_one_response()
        return None if self.close_connection else True

    def give_up(self) -> None:
        """End the wait for a slow client: reading ends as if the client had closed, an answer that it does not take is cut."""
        self._late = True
        self.server.deadlines.pop(self, None)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR if self.headers_sent else socket.SHUT_RD)

    def get_environ(self) -> dict[str, Any]:
        """Make WSGI's environ for the current request."""
        head, (path, _, query) = self._head, self.path.partition("?")
        environ: dict[str, Any] = self.server.get_environ()
        environ |= head.fields
        remote_addr, remote_port = self._client()
        environ |= {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
            "QUERY_STRING": query,
            "RAW_URI": self.path,
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": remote_addr,
            "REMOTE_PORT": remote_port,
            "wsgi.input": self.wsgi_input,
            "wsgi.input_terminated": True,
        }
        return environ

    def _client(self) -> tuple[str, str]:
        """Address and port of the client; both are empty where it came by a socket in the file system, which has neither."""
        if isinstance(self.client_address, tuple):
            return str(self.client_address[0]), str(self.client_address[1])
        return "", ""

    def finalize_headers(self) -> None:
        """Complete the headers of the answer, which the client then has ANSWER_S to take."""
        self.allow(ANSWER_S)
        super().finalize_headers()

    def _write_with_headers(self, data: bytes) -> None:
        """Send the head of an answer and the first piece of its body at once: pywsgi sends two packets, which cost more."""
        whole = self._held = bytearray()
        try:
            super()._write_with_headers(data)
        except BaseException:
            # Nothing was sent, so the answer to the failure needs a head of its own.
            self.headers_sent = self.response_use_chunked = False
            raise
        finally:
            self._held = None
        self._sendall(whole)

    def _sendall(self, data: bytes | bytearray) -> None:
        if self._held is None:
            super()._sendall(data)
        else:
            self._held += data

    def allow(self, seconds: float) -> None:
        """Set the deadline for the client to the given number of seconds from now."""
        self.server.deadlines[self] = monotonic() + seconds

    def _read_head(self, line: bytes) -> RequestHead:
        """Read the rest of a head that begins with `line`, and parse it. Raises Refused."""
        self.allow(HEAD_S)
        head, read_line = line, self.rfile.readline
        if len(line) >= LARGEST_LINE:
            raise Refused(414, "the request line is too long")
        while not head.endswith(b"\r\n\r\n"):
            try:
                line = read_line(LARGEST_HEAD)
            except OSError:
                line = b""
            if not line:
                raise Refused(408 if self._late else 400, "the head does not end")
            head += line
            if len(head) > LARGEST_HEAD:
                raise Refused(431, "the head is too long")
        self.server.deadlines.pop(self, None)
        return RequestHead(head)

    def _begin(self) -> None:
        """Set the attributes by which pywsgi answers the current request."""
        head = self._head
        # The access log at most counts them.
        self.headers = head.fields
        self.command, self.path = head.method, head.target
        self.request_version = f"HTTP/{head.version}"
        self.requestline = f"{head.method} {head.target} {self.request_version}"
        self.close_connection = not head.keep_alive
        if head.chunked or head.length:
            self.allow(BODY_S)
            self.wsgi_input = Input(self, head)
        else:
            self.wsgi_input = _EMPTY_INPUT
        self.application = self.server.application
        self.environ = self.get_environ()

    def _refuse(self, refused: Refused) -> None:
        """Answer a request that is not accepted, and close. Nothing that the client sent goes into the log."""
        log.info("refused: %s", refused, extra={"status": refused.status, "remote_addr": self._client()[0]})
        self.allow(LINGER_S)
        with contextlib.suppress(OSError):
            self.socket.sendall(_ANSWERS[refused.status])
        self.hang_up()

    def hang_up(self) -> None:
        """End the answers, and read on until the client has finished, so that no reset overtakes the last answer."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            _exhaust(self.rfile.read1)


def _exhaust(read: Callable[[int], bytes]) -> bool:
    """Read data that is not used, and return whether it came to an end within the limit.

    A connection that is closed with data unread is reset, and the answer may be lost with it.
    """
    discarded = 0
    while piece := read(_PIECE):
        discarded += len(piece)
        if discarded > _MOST_DISCARDED:
            return False
    return True


class _Framing:
    """The attributes of a request that gunicorn's reader of chunks needs."""

    limit_request_field_size = LARGEST_LINE
    max_buffer_headers = LARGEST_LINE

    @staticmethod
    def parse_headers(_: bytes, *, from_trailer: bool) -> list[tuple[str, str]]:  # noqa: ARG004 - gunicorn's name
        """Ignore the trailers, which have been read."""
        return []


class Input:
    """The body of a request as a file. Its methods raise OSError where the body is cut short or malformed."""

    def __init__(self, handler: StrictHandler, head: RequestHead) -> None:
        self._handler = handler
        source = _RequestSource(handler.rfile)
        self._body = Body(ChunkedReader(_Framing(), source) if head.chunked else LengthReader(source, head.length))
        self._malformed = False
        self._expects_continue = head.version == "1.1" and "HTTP_EXPECT" in head.fields

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, fewer only at the end; without a size, everything."""
        return self._guarded(self._body.read, size)

    def readline(self, size: int = -1) -> bytes:
        """Read a line."""
        return self._guarded(self._body.readline, size)

    def readlines(self, _hint: int = -1) -> list[bytes]:
        """Read all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _guarded(self, read: Callable[[int], bytes], size: int) -> bytes:
        if self._expects_continue:
            self._expects_continue = False
            self._handler.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return read(size)
        except (ParseException, OSError) as error:
            # Where the next request begins cannot be known any more.
            self._malformed = self._handler.close_connection = True
            raise OSError("the body is cut short or malformed") from error

    def _discard(self) -> None:
        """Read what is left of the body, within limits; pywsgi calls this after the answer."""
        if self._expects_continue:
            # The client was never told to go on, and may now send the body or not.
            self._handler.close_connection = True
            return
        self._handler.allow(LINGER_S)
        with contextlib.suppress(OSError):
            if not self._malformed and _exhaust(self.read):
                return
            self._handler.close_connection = True
        self._handler.hang_up()


class _RequestSource(Unreader):  # type: ignore[misc]
    """A connection's file for gunicorn's readers. It reads no more than they use, since the next request follows."""

    def __init__(self, rfile: Any) -> None:
        super().__init__()
        self._rfile = rfile

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Read up to `size_hint` bytes; without it a line, as the sizes of chunks and the trailers are."""
        data: bytes = self._rfile.read1(min(size_hint, _PIECE)) if size_hint else self._rfile.readline(LARGEST_LINE + 1)
        if not data:
            raise OSError("the body ends too early")
        return data


class _EmptyInput(io.BytesIO):
    """The empty body, shared by all requests without a body."""

    def close(self) -> None:
        """Stay open, since other requests share this object."""

    def _discard(self) -> None:
        pass


_EMPTY_INPUT = _EmptyInput()


def _answer(status: int) -> bytes:
    title = HTTPStatus(status).phrase
    kind = title.lower().replace(" ", "-")
    body = orjson.dumps({"type": f"urn:poolbench:problem:{kind}", "title": title, "status": status})
    head = f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


_ANSWERS = {status: _answer(status) for status in (400, 408, 414, 417, 431, 501, 505)}
