"""Requests read strictly and in bounded time, both of which gevent.pywsgi leaves to a proxy in front of it.

A head is read whole, within limits, and parsed by httptools, which is llhttp, the parser of Node.js. pywsgi's overlooks
what follows a malformed header line, and takes bare line feeds, folded lines, repeated and odd Content-Lengths, unknown
transfer codings and HTTP/0.9: each a way to hide a request from a balancer in the body of another. It also takes ten
times as long. Bodies are read by gunicorn's readers, those of its other workers.

Those who send or read slowly are found by one look a second at the connections that are waited for: a timer per request
would cost more than its parsing.
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
"""Longest wait for a request line: longer than balancers keep idle connections, so that they are the ones to close."""
HEAD_S = 10.0
"""Longest time for the rest of a head."""
BODY_S = 30.0
"""Longest time for a body, the application's work on it included."""
ANSWER_S = 30.0
"""Longest time for an answer to be taken."""
LINGER_S = 2.0
"""Longest time to go on reading what is of no use, so that its sender gets to read the answer."""
LARGEST_HEAD = 32 * 1024
LARGEST_LINE = 8 * 1024
"""Of the request line; a trailer or the size of a chunk has as much."""

_DISCARDED = 256 * 1024  # of what is of no use
_PIECE = 64 * 1024

log = logging.getLogger("poolbench.wsgi")


class Refused(Exception):
    """What came is no request that may be answered; `status` says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestHead:
    """A request's head, parsed. `fields` are by their names in WSGI's environ, repeated ones joined.

    Raises Refused for what is malformed, and for what could be framed or addressed in two ways. A field whose name holds a
    `_` is left out: in environ it would pass for another.
    """

    __slots__ = ("chunked", "fields", "keep_alive", "length", "method", "target", "version")

    def __init__(self, raw: bytes) -> None:
        self.target = ""
        self.fields: dict[str, str] = {}
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # an offer, which is declined by answering in HTTP/1.1
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
            raise Refused(400, "a Host that is none, or several")
        if self.fields.get("HTTP_EXPECT", "100-continue").lower() != "100-continue":
            raise Refused(417, "an expectation other than 100-continue")

    def _split_absolute_form(self) -> None:
        """RFC 9112, 3.2.2: it must be taken, and the host in it replaces the Host field (which must be there all the same)."""
        scheme, mark, rest = self.target.partition("://")
        if not mark or scheme.lower() not in ("http", "https"):
            raise Refused(400, "a target that is no path")
        authority, slash, path = rest.partition("/")
        if "HTTP_HOST" in self.fields:
            self.fields["HTTP_HOST"] = authority
        self.target = slash + path or "/"

    def on_url(self, piece: bytes) -> None:
        """httptools: the target, or a piece of it."""
        self.target += piece.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a field."""
        key = _environ_key(name)
        if key is not None:
            text = value.decode("latin-1").strip(" \t")
            known = self.fields.get(key)
            self.fields[key] = text if known is None else f"{known}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"


_is_host = lru_cache(maxsize=1024)(host_is_trusted)  # without a list of names: whether it is one at all


@lru_cache(maxsize=1024)
def _environ_key(name: bytes) -> str | None:
    key = name.decode("ascii").upper()
    if "_" in key:
        return None
    return key.replace("-", "_") if key in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_" + key.replace("-", "_")


class StrictServer(PyWSGIServer):  # type: ignore[misc]
    """A listening socket whose connections are waited for in bounded time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deadlines: dict[StrictHandler, float] = {}
        """When those that wait for their client give up, by the monotonic clock."""

    def start(self) -> None:
        """Listen."""
        super().start()
        gevent.spawn(self._end_the_late)

    def _end_the_late(self) -> None:
        while True:
            gevent.sleep(1.0)
            now = monotonic()
            for handler in [each for each, deadline in self.deadlines.items() if deadline < now]:
                handler.give_up()


class StrictHandler(PyWSGIHandler):  # type: ignore[misc]
    """One connection."""

    server: StrictServer
    socket: Any
    rfile: Any
    close_connection: bool
    headers_sent: bool
    ignored_socket_errors = (*PyWSGIHandler.ignored_socket_errors, errno.EBADF)  # what giving up tells those who wait
    wsgi_input: "Input | _Nothing"
    _late = False

    def handle(self) -> None:
        """Answer the connection's requests, until it ends."""
        try:
            super().handle()
        finally:
            self.server.deadlines.pop(self, None)

    def handle_one_request(self) -> bool | None:
        """Answer a request; True to go on with the connection, None to close it."""
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
        except OSError:  # the client is gone, or was given up before it began
            return None
        self._begin()
        self.handle_one_response()
        return None if self.close_connection else True

    def give_up(self) -> None:
        """The client took too long: reading ends as if it had closed; an answer that it does not take is cut off."""
        self._late = True
        self.server.deadlines.pop(self, None)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR if self.headers_sent else socket.SHUT_RD)

    def get_environ(self) -> dict[str, Any]:
        """The request as WSGI has it."""
        head, (path, _, query) = self._head, self.path.partition("?")
        environ: dict[str, Any] = self.server.get_environ()
        environ |= head.fields
        environ |= {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
            "QUERY_STRING": query,
            "RAW_URI": self.path,
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": str(self.client_address[0]),
            "REMOTE_PORT": str(self.client_address[1]),
            "wsgi.input": self.wsgi_input,
            "wsgi.input_terminated": True,
        }
        return environ

    def finalize_headers(self) -> None:
        """Before the answer is sent."""
        self.allow(ANSWER_S)
        super().finalize_headers()

    def allow(self, seconds: float) -> None:
        """Wait for the client for so long, from now on."""
        self.server.deadlines[self] = monotonic() + seconds

    def _read_head(self, line: bytes) -> RequestHead:
        """Raises Refused."""
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
        """Make the request the one to be answered."""
        head = self._head
        self.headers = head.fields  # for the access log, which is told their number at most
        self.command, self.path = head.method, head.target
        self.request_version = f"HTTP/{head.version}"
        self.requestline = f"{head.method} {head.target} {self.request_version}"
        self.close_connection = not head.keep_alive
        if head.chunked or head.length:
            self.allow(BODY_S)
            self.wsgi_input = Input(self, head)
        else:
            self.wsgi_input = _NOTHING
        self.application = self.server.application
        self.environ = self.get_environ()

    def _refuse(self, refused: Refused) -> None:
        """Answer what is no request. Nothing that the client sent goes into the log."""
        log.info("refused: %s", refused, extra={"status": refused.status, "remote_addr": str(self.client_address[0])})
        self.allow(LINGER_S)
        with contextlib.suppress(OSError):
            self.socket.sendall(_ANSWERS[refused.status])
        self.hang_up()

    def hang_up(self) -> None:
        """Say that this was all, and let the client finish, so that no reset overtakes the answer."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            _drop(self.rfile.read1)


def _drop(read: Callable[[int], bytes]) -> bool:
    """Whether what comes is read to its end: a connection that is closed before it is reset, and its answer lost."""
    dropped = 0
    while piece := read(_PIECE):
        dropped += len(piece)
        if dropped > _DISCARDED:
            return False
    return True


class _Framing:
    """What gunicorn's reader of chunks asks of a request."""

    limit_request_field_size = LARGEST_LINE
    max_buffer_headers = LARGEST_LINE

    @staticmethod
    def parse_headers(_: bytes, *, from_trailer: bool) -> list[tuple[str, str]]:  # noqa: ARG004 - gunicorn's name
        """Trailers are read, and mean nothing."""
        return []


class Input:
    """A request's body as the application reads it. Raises OSError where it is cut short or malformed."""

    def __init__(self, handler: StrictHandler, head: RequestHead) -> None:
        self._handler = handler
        source = _RequestSource(handler.rfile)
        self._body = Body(ChunkedReader(_Framing(), source) if head.chunked else LengthReader(source, head.length))
        self._malformed = False
        self._waits_for_word = head.version == "1.1" and "HTTP_EXPECT" in head.fields

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end; without a size, the whole."""
        return self._guarded(self._body.read, size)

    def readline(self, size: int = -1) -> bytes:
        """A line."""
        return self._guarded(self._body.readline, size)

    def readlines(self, _hint: int = -1) -> list[bytes]:
        """All lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _guarded(self, read: Callable[[int], bytes], size: int) -> bytes:
        if self._waits_for_word:
            self._waits_for_word = False
            self._handler.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return read(size)
        except (ParseException, OSError) as error:
            self._malformed = self._handler.close_connection = True  # nobody knows where the next request begins
            raise OSError("the body is cut short or malformed") from error

    def _discard(self) -> None:
        """pywsgi, after the answer: read what is left, but not without end."""
        if self._waits_for_word:  # the client may send the body or not
            self._handler.close_connection = True
            return
        self._handler.allow(LINGER_S)
        with contextlib.suppress(OSError):
            if not self._malformed and _drop(self.read):
                return
            self._handler.close_connection = True
        self._handler.hang_up()


class _RequestSource(Unreader):  # type: ignore[misc]
    """A connection's file for gunicorn's readers: never read beyond what they use, since the next request follows."""

    def __init__(self, rfile: Any) -> None:
        super().__init__()
        self._rfile = rfile

    def chunk(self, size_hint: int | None = None) -> bytes:
        """So many bytes at most; without a hint, to the end of a line: sizes of chunks and trailers are lines."""
        data: bytes = self._rfile.read1(min(size_hint, _PIECE)) if size_hint else self._rfile.readline(LARGEST_LINE + 1)
        if not data:
            raise OSError("the body ends too early")
        return data


class _Nothing(io.BytesIO):
    """The body of a request that has none; shared, since there is nothing in it to be used up."""

    def close(self) -> None:
        """Others read it."""

    def _discard(self) -> None:
        pass


_NOTHING = _Nothing()


def _answer(status: int) -> bytes:
    title = HTTPStatus(status).phrase
    kind = title.lower().replace(" ", "-")
    body = orjson.dumps({"type": f"urn:poolbench:problem:{kind}", "title": title, "status": status})
    head = f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


_ANSWERS = {status: _answer(status) for status in (400, 408, 414, 417, 431, 501, 505)}
