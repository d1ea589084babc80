"""Shows a run in progress on a web page: figures and curves once a second, a stop button, and the report at the end.

The page gets its figures as server-sent events (HTML standard, section 9.2): one each second, numbered, so that a browser
that lost its connection gets the events it missed. With several workers the figures are those of all together. Whoever
reaches the port may read; stopping needs the token, in a POST. On a loopback address only requests that name a loopback
host are answered, so that no foreign page can read the figures through a name that points there.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from itertools import islice
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from loadgen.engine import Progress
from loadgen.http.route import Origin
from loadgen.watch.observer import ObserverError, RunningTotals, Underway
from reports import names
from reports.formats.artillery_json import to_json
from reports.model import Period, Report
from reports.page.measures import endpoints
from reports.page.page import live_files, live_page, to_html
from reports.sketch import Sketch

WINDOW = 300
"""How many past updates a page that is opened late gets."""

_MOST_CONNECTIONS = 64
_MOST_BODY_BYTES = 4096
_MOST_DIGITS = 9
_HEARTBEAT_S = 15.0
_RELOAD_S = 60.0
_MOST_ROWS = 50
_DOCUMENT = "report.json"
_QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_NO_STORE = ("Cache-Control", "no-store")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class LiveError(OSError):
    """The page cannot be served, or its address is invalid. The message is one line."""

    def __str__(self) -> str:
        return str(self.args[0])


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `[HOST:]PORT`; the default host is loopback, and port 0 means any free port. Raises LiveError."""
    host, colon, port = text.rpartition(":")
    if (
        not port.isascii()
        or not port.isdigit()
        or len(port) > _MOST_DIGITS
        or int(port) > 65535
        or (colon and not host)
    ):
        raise LiveError(f"invalid address {text!r}: it must be PORT or HOST:PORT, with a port up to 65535")
    try:
        host.encode("idna")
    except UnicodeError:
        raise LiveError(f"invalid address {text!r}: {host!r} is no name of a host") from None
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def host_allowed(listening: str, environ: dict[str, Any]) -> bool:
    """Whether a request may be answered by a server that listens at this host.

    At a loopback address only under loopback's own names, and the one that was given: a foreign page could otherwise read it
    through a name of its own that it points at this machine.
    """
    asked = ""
    with suppress(ValueError):
        asked = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    return not is_loopback(_bound(listening)) or asked == listening.lower() or is_loopback(asked)


@lru_cache
def _bound(host: str) -> str:
    """The address at which a server listens that is given this host: 127.1 and some names are loopback, too."""
    with suppress(OSError):
        return str(socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)[0][4][0])
    return host


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this machine's own loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def snapshot_of(
    progress: Progress,
    recent: Period | None,
    *,
    planned_s: float | None = None,
    workers: int = 1,
    total: Period | None = None,
) -> dict[str, Any]:
    """The figures that the page shows for one instant: counts from `progress`, percentiles from the period `recent`.

    Both are of all workers together. `planned_s` is how long the phases last, in seconds; `total` has the errors and the
    endpoints since the start. Without samples there are no percentiles.
    """
    counters = {} if total is None else total.counters
    by_kind = [
        (name.removeprefix(names.ERRORS), n) for name, n in counters.items() if name.startswith(names.ERRORS) and n
    ]
    found: dict[str, Any] = {
        "elapsed_s": progress.elapsed_s,
        "planned_s": planned_s,
        "workers": workers,
        "active_vus": progress.active_vus,
        "requests": progress.requests,
        "responses": progress.responses,
        "errors": progress.errors,
        "errors_by_kind": sorted(by_kind, key=lambda each: -each[1])[:_MOST_ROWS],
        "endpoints": [] if total is None else list(islice(_endpoints(total), _MOST_ROWS)),
    }
    if recent is not None:
        for key, metric in (
            ("response_ms", names.RESPONSE_TIME),
            ("start_lag_ms", names.START_LAG),
            ("pool_wait_ms", f"{names.SERVER}pool"),
        ):
            sketch = recent.sketches.get(metric)
            if sketch is not None and sketch.count:
                found[key] = _percentiles(sketch)
    return found


def of_errors_and_endpoints(period: Period) -> Period:
    """What the page shows since the start of the run: errors by name, and answers, errors and times of each endpoint."""
    marks = (names.ENDPOINT_CODES, names.ERRORS)
    counters = {name: n for name, n in period.counters.items() if any(mark in name for mark in marks)}
    sketches = {name: sketch for name, sketch in period.sketches.items() if names.ENDPOINT_TIME in name}
    return Period(period.start_ms, counters, sketches=sketches)


def _endpoints(total: Period) -> Iterator[dict[str, Any]]:
    """Answers, percentiles, and answers and errors by kind of each endpoint, where the script measures by endpoint."""
    for endpoint, metric, kinds in endpoints(total):
        row: dict[str, Any] = {"name": endpoint, "answers": 0, "kinds": sorted(kinds.items())}
        if found := total.sketches.get(metric):
            row |= {"answers": found.count, **_percentiles(found)}
        yield row


def _percentiles(sketch: Sketch) -> dict[str, float]:
    return {label: round(sketch.quantile(q), 3) for label, q in _QUANTILES}


def with_rates(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of a snapshot, with rates per second since the one before."""
    found = dict(now)
    if before is not None and now["elapsed_s"] > before["elapsed_s"]:
        seconds = now["elapsed_s"] - before["elapsed_s"]
        for total in ("requests", "responses", "errors"):
            found[f"{total}_per_s"] = max(0.0, (now[total] - before[total]) / seconds)
    return found


class LivePage:
    """The page of one run: `observe` the run, `finish` with its report, `close`.

    `say` is called with a line that has the page's address and token.
    """

    def __init__(
        self,
        address: str,
        facts: Sequence[tuple[str, str]],
        planned_s: float,
        workers: int,
        say: Callable[[str], None],
    ) -> None:
        """`facts` are names and values for the head of the page. Raises LiveError for an invalid address."""
        self._address = parse_address(address)
        self._facts = facts
        self._planned_s = planned_s
        self._workers = workers
        self._say = say
        self.server: LiveServer | None = None

    @contextmanager
    def observe(self, underway: Underway) -> Iterator[None]:
        """Serve the page of this run. It is served until `close`, also after the run."""
        totals = RunningTotals(of_errors_and_endpoints)
        totals.follow(underway)

        def snapshot() -> dict[str, Any]:
            return snapshot_of(
                underway.progress(),
                underway.latest(),
                planned_s=self._planned_s,
                workers=self._workers,
                total=totals.so_far(underway),
            )

        server = LiveServer(self._address, snapshot, underway.stop, facts=self._facts)
        try:
            server.start()
        except LiveError as error:
            raise ObserverError(str(error)) from None
        self.server = server
        self._say(f"Live: {server.url}#token={server.token}")
        yield

    def finish(self, report: Report) -> None:
        """Show the report on the page from now on."""
        if self.server is not None:
            self.server.finish(report)

    def close(self) -> None:
        """Stop serving. If somebody has seen the page, that is after a minute, in which it may be loaded again, or on Ctrl-C."""
        if self.server is None:
            return
        if self.server.watched:
            self._say(f"The report stays at {self.server.url} for a minute; Ctrl-C ends this now.")
        with suppress(KeyboardInterrupt):
            self.server.close(reload_s=_RELOAD_S)


class LiveServer:
    """Serves the page from `start` until `close`, or inside a `with` block.

    `snapshot` is called once a second and returns what `snapshot_of` makes. `stop` is called in a greenlet of its own when
    somebody stops the run with the right token.
    """

    def __init__(
        self,
        address: tuple[str, int],
        snapshot: Callable[[], dict[str, Any]],
        stop: Callable[[], None],
        token: str | None = None,
        *,
        title: str = "Load test in progress",
        facts: Sequence[tuple[str, str]] = (),
        every_s: float = 1.0,
    ) -> None:
        self.token = token or secrets.token_urlsafe(18)
        """What the body of a POST to /stop must be."""
        self._snapshot = snapshot
        self._stop = stop
        self._title = title
        self._facts = facts
        self._every_s = every_s
        self._host, self._port = address
        self._server: WSGIServer | None = None
        self._history: deque[tuple[int, str]] = deque(maxlen=WINDOW)
        self._last: dict[str, Any] | None = None
        self._changed = Event()
        self._ticker: gevent.Greenlet | None = None
        self._report: bytes | None = None
        self._document = b""
        self._watchers = 0
        self._waiting = 0
        self._opened = False
        self._fetched = Event()
        self._closing = False

    @property
    def url(self) -> str:
        """The address of the page, with the port in use."""
        return f"http://{Origin('http', self._host, self._port).place}/"

    def start(self) -> None:
        """Listen, and begin to ask for snapshots. Raises LiveError if the address is not available."""
        try:
            listener = _listener(self._host, self._port)
        except OSError as error:
            reason, where = error.strerror or error, Origin("http", self._host, self._port).place
            raise LiveError(f"cannot serve the live page on {where}: {reason}") from None
        self._port = listener.getsockname()[1]
        self._server = WSGIServer(listener, self._answer, log=None, error_log=None, spawn=Pool(_MOST_CONNECTIONS))
        self._server.start()
        self._ticker = gevent.spawn(self._watch)

    def finish(self, report: Report, name: str = "this run") -> None:
        """Show the report from now on, also on the pages that are open."""
        self._end_watch()
        self._report = to_html([(name, report)], title="Load test report", download=_DOCUMENT).encode()
        self._document = to_json(report).encode()
        self._waiting = self._watchers
        self._announce()

    @property
    def watched(self) -> bool:
        """Whether somebody has loaded the page during the run, and may load it again."""
        return self._opened

    def close(self, linger_s: float = 10.0, reload_s: float = 0.0) -> None:
        """Stop serving. After `finish`, wait up to `linger_s` seconds for open pages to fetch the report.

        If the page was loaded during the run, go on for `reload_s` seconds, so that it can be loaded again.
        """
        self._end_watch()
        if self._report is not None:
            if self._waiting > 0:
                self._fetched.wait(linger_s)
            if self.watched:
                gevent.sleep(reload_s)
        self._closing = True
        self._announce()
        if self._server is not None:
            self._server.stop(timeout=1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(linger_s=0.0 if kind is not None else 10.0)

    # Watching

    def _watch(self) -> None:
        number = 0
        while True:
            now = self._snapshot()
            if self._last is None or now["elapsed_s"] != self._last["elapsed_s"]:
                number += 1
                self._history.append((number, json.dumps(with_rates(now, self._last), allow_nan=False)))
                self._last = now
                self._announce()
            gevent.sleep(self._every_s)

    def _end_watch(self) -> None:
        if self._ticker is not None:
            self._ticker.kill()
            self._ticker = None

    def _announce(self) -> None:
        self._changed.set()
        self._changed = Event()

    # Answering

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if not host_allowed(self._host, environ):
            return _text(
                start_response, HTTPStatus.MISDIRECTED_REQUEST, "This page is served by its own address only.\n"
            )
        files = live_files()
        if path == "/stop":
            return self._answer_stop(environ, start_response)
        if path == f"/{_DOCUMENT}" and self._report is not None and method in ("GET", "HEAD"):
            return _body(start_response, "application/json", self._document)
        if path not in ("/", "/events") and path not in files:
            return _text(start_response, HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        if method not in ("GET", "HEAD"):
            return _text(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "Only GET.\n", ("Allow", "GET, HEAD"))
        if path == "/events":
            return self._events(environ, start_response)
        if path in files:
            kind, text = files[path]
            return _body(start_response, kind, text.encode())
        return self._page(method, start_response)

    def _page(self, method: str, start_response: StartResponse) -> Iterable[bytes]:
        if self._report is None:
            self._opened = self._opened or method == "GET"
            page = live_page(self._title, self._facts).encode()
            return _body(start_response, "text/html", page, ("Content-Security-Policy", _POLICY))
        if method == "GET":
            self._waiting -= 1
            if self._waiting <= 0:
                # This answer is written after the return; closing waits for open requests to end.
                self._fetched.set()
        return _body(start_response, "text/html", self._report, ("Content-Security-Policy", "frame-ancestors 'none'"))

    def _answer_stop(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return _text(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "Only POST.\n", ("Allow", "POST"))
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or int(length) > _MOST_BODY_BYTES:
            return _text(
                start_response, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is the token and nothing else.\n"
            )
        given = environ["wsgi.input"].read(int(length)).strip()
        if not hmac.compare_digest(given, self.token.encode()):
            return _text(start_response, HTTPStatus.FORBIDDEN, "That is not the token printed at the start.\n")
        if self._report is not None:
            return _text(start_response, HTTPStatus.CONFLICT, "The run is over.\n")
        gevent.spawn(self._stop)
        return _text(start_response, HTTPStatus.ACCEPTED, "Stopping.\n")

    def _events(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), _NO_STORE, ("X-Accel-Buffering", "no")]
        start_response("200 OK", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        last = environ.get("HTTP_LAST_EVENT_ID", "")
        seen = int(last) if last.isascii() and last.isdigit() and len(last) <= _MOST_DIGITS else 0
        return self._stream(seen)

    def _stream(self, seen: int) -> Iterator[bytes]:
        self._watchers += 1
        try:
            yield b"retry: 1000\n\n"
            if self._history and seen > self._history[-1][0]:
                # The id is from another run.
                seen = 0
            while not self._closing:
                changed = self._changed
                missed = [(number, data) for number, data in self._history if number > seen]
                if missed:
                    seen = missed[-1][0]
                    yield "".join(f"id: {number}\ndata: {data}\n\n" for number, data in missed).encode()
                elif self._report is None and not changed.wait(_HEARTBEAT_S):
                    yield b":\n\n"
                if self._report is not None:
                    yield b"event: finished\ndata: {}\n\n"
                    return
        finally:
            self._watchers -= 1


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens at this address. Raises OSError."""
    family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind)
    made.setblocking(False)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_MOST_CONNECTIONS)
    except OSError:
        made.close()
        raise
    return made


def _text(start_response: StartResponse, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    return _body(start_response, "text/plain", text.encode(), *headers, status=status)


def _body(
    start_response: StartResponse, kind: str, body: bytes, *headers: tuple[str, str], status: HTTPStatus = HTTPStatus.OK
) -> Iterable[bytes]:
    always = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        _NO_STORE,
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]
    start_response(f"{status.value} {status.phrase}", [*always, *headers])
    return [body]
