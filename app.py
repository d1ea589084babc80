"""The service: short links, redirects that count their clicks, and analytics of the clicks.

`create_app(settings)` makes the Flask application: endpoints, error answers and the Server-Timing header, on a
`db.database.Database`. It knows nothing of the server that runs it, and importing this module does no work.
"""

import hashlib
import hmac
import logging
import os
import re
import socket
import traceback
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil
from flask import Flask, Response, g, render_template, request
from markupsafe import Markup
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import Map, UnicodeConverter

from db import links, queries
from db.commands import links_commands
from db.database import Database
from db.embedded import development_server
from db.errors import (
    DatabaseDown,
    DatabaseFailure,
    DiskFull,
    PoolQueueFull,
    PoolTimeout,
    StatementTimeout,
    TooManyClients,
)
from db.folding import Folder
from db.settings import DatabaseSettings, database_url, read, seconds, whole
from db.telemetry import Metrics
from db.visitor import visitor
from poolbench import LoanCost, server_timing_header

LARGEST_BODY = 16 * 1024
"""Largest body of a request, in bytes."""

RETRY_AFTER_S = 1
"""Seconds that a client should wait after a 503."""

_OPENAPI = Path(__file__).with_name("openapi.json")
_TEMPLATES = Path(__file__).with_name("templates")
# Random codes that are tried before a new link is refused.
_NEW_CODES = 10

log = logging.getLogger("poolbench.app")


@dataclass(frozen=True)
class Settings:
    """Settings of the service."""

    database: DatabaseSettings
    api_token: str | None = None
    """Token that creating links and reading analytics need; None: they need none."""
    health_timeout_s: float = 0.0
    """Longest time that `/health` takes to answer, in seconds; 0: as long as any request."""
    public_url: str | None = None
    """URL that short URLs begin with, with a slash at its end; None: the address that the client has used."""
    click_retention_days: int = 0
    """Days for which single clicks are kept; their counts stay. 0: for ever."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "Settings":
        """Read the settings under their environment names. Raises SettingError."""
        return cls(
            DatabaseSettings.from_mapping(mapping),
            mapping.get("API_TOKEN", "").strip() or None,
            read(mapping, "HEALTH_TIMEOUT", seconds, 0.0),
            read(mapping, "PUBLIC_URL", links.base_url, None),
            read(mapping, "CLICK_RETENTION_DAYS", whole(0), 0),
        )


class HttpProblem(Exception):
    """An error answer as defined by RFC 9457. `kind` is the last part of its `type`; all of one kind have the same `title`."""

    def __init__(
        self, status: int, kind: str, title: str, detail: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail or title)
        self.status, self.kind, self.title, self.detail, self.headers = status, kind, title, detail, headers or {}

    def response(self) -> Response:
        """The answer as application/problem+json."""
        body = {"type": f"urn:poolbench:problem:{self.kind}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        answer = Response(orjson.dumps(body), self.status, mimetype="application/problem+json")
        answer.headers.update(self.headers)
        return answer


_FAILURES: dict[type[DatabaseFailure], tuple[int, str, str]] = {
    PoolTimeout: (503, "pool-timeout", "No database connection came free in time"),
    PoolQueueFull: (503, "queue-full", "Too many requests wait for a database connection"),
    TooManyClients: (503, "too-many-clients", "The database takes no more connections"),
    DatabaseDown: (503, "database-down", "The database is down"),
    StatementTimeout: (504, "statement-timeout", "The database took too long"),
    DiskFull: (507, "disk-full", "The database has no room for more"),
}
"""Status, kind and title of the answer to each failure of the database."""


class _Application(Flask):
    """Flask without coroutines: looking at each call whether a function is one takes several microseconds."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is."""
        return func


def create_app(settings: Settings | Mapping[str, str]) -> Flask:
    """Make the application, ready to be served; its `Database` is `extensions["database"]`.

    Whoever serves it for long runs `extensions["folder"].run` in a greenlet, which folds clicks into the roll-ups.

    Opens no connection. `settings` may be a mapping of their environment names; without DATABASE_URL in it, the embedded
    server of this checkout is started when a connection is first needed. Raises SettingError, whose text is one line.
    """
    locate = None
    if not isinstance(settings, Settings):
        if not settings.get("DATABASE_URL", "").strip():
            settings = {**settings, "DATABASE_URL": "postgresql://"}
            locate = _start_embedded
        settings = Settings.from_mapping(settings)
    app = _Application(__name__, static_folder=None)
    # One more than the largest, since what is longer is cut off there without an error.
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY + 1
    database = Database(settings.database, locate)
    metrics = Metrics()
    folder = Folder(database, settings.click_retention_days)
    app.extensions |= {"database": database, "metrics": metrics, "folder": folder}
    Service(database, metrics, folder, settings).register(app)
    app.cli.add_command(links_commands(database))
    # The parser of user agents compiles its patterns when first used. That takes 0.1 s, and should not in a request.
    visitor("", "")
    return app


def _start_embedded() -> URL:
    return database_url(development_server(Path(__file__).parent).url)


class Service:
    """The endpoints, and what is done before and after each request."""

    def __init__(self, database: Database, metrics: Metrics, folder: Folder, settings: Settings) -> None:
        self._database = database
        self._folder = folder
        self._page = _Page()
        self._metrics = metrics
        self._authorization = None if settings.api_token is None else f"Bearer {settings.api_token}".encode()
        self._public_url = settings.public_url
        self._lend_for_health = database.connection
        if settings.health_timeout_s:
            self._lend_for_health = partial(database.connection_within, settings.health_timeout_s)

    def register(self, app: Flask) -> None:
        """Put the endpoints and the handlers around each request on the application."""
        app.url_map.converters["code"] = _CodeInPath
        # A path with two slashes is not redirected: nobody has given such an address out.
        app.url_map.merge_slashes = False
        for rule, view, methods in (
            ("/", self.home, ["GET"]),
            ("/favicon.ico", self.favicon, ["GET"]),
            ("/health", self.health, ["GET"]),
            ("/live", self.live, ["GET"]),
            ("/pool", self.pool, ["GET"]),
            ("/metrics", self.metrics, ["GET"]),
            ("/openapi.json", self.openapi, ["GET"]),
            ("/links", self.create_link, ["POST"]),
            ("/links/<code>", self.read_link, ["GET"]),
            ("/links/<code>/analytics", self.analytics, ["GET"]),
            ("/<code:code>", self.follow, ["GET"]),
        ):
            app.add_url_rule(rule, view.__name__, view, methods=methods)
        app.before_request(self._begin)
        app.after_request(self._finish)
        app.register_error_handler(Exception, self._answer_error)

    def home(self) -> Response:
        """Show what this is, and the pools of all workers, as a page for a browser; give others the addresses as JSON."""
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            pool, all_pools = self._database.status(), self._metrics.all_pools(self._database)
            base = self._public_url or request.host_url
            answer = Response(
                render_template("home.html", page=self._page, pool=pool, all_pools=all_pools, base=base),
                content_type="text/html; charset=utf-8",
            )
            answer.headers["Content-Security-Policy"] = self._page.policy
        else:
            page = self._page
            answer = _json({"name": page.title, "description": page.text, "addresses": page.addresses})
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Vary"] = "Accept"
        return answer

    def favicon(self) -> Response:
        """Give the icon of the service's page. Browsers ask for it unasked, and it must not be looked up as a code."""
        answer = Response(self._page.icon, mimetype="image/x-icon")
        answer.headers["Cache-Control"] = "public, max-age=86400"
        return answer

    def health(self) -> Response:
        """Say whether the database answers through the strategy in force, within HEALTH_TIMEOUT if that is set."""
        with self._lend_for_health(_checkout()) as connection:
            queries.ping(connection)
        return _json({"status": "ok", "database": "up"})

    def live(self) -> Response:
        """Say that the process is serving; does not use the database."""
        return _json({"status": "ok"})

    def pool(self) -> Response:
        """Show this worker's pool of connections, and the pools of all workers added up."""
        all_pools = self._metrics.all_pools(self._database)
        return _json(
            {
                "pid": os.getpid(),
                **asdict(self._database.status()),
                "all_workers": asdict(all_pools),
                **self._database.watched(),
            }
        )

    def metrics(self) -> Response:
        """Give the metrics of all workers together, in Prometheus's text format."""
        self._metrics.publish(self._database)
        return Response(self._metrics.text(), content_type=self._metrics.content_type)

    def openapi(self) -> Response:
        """Describe the endpoints, as an OpenAPI document."""
        return Response(self._page.document, mimetype="application/json")

    def create_link(self) -> Response:
        """Make a link to a URL, under the code asked for or a random one."""
        self._authorize()
        url, wanted = _link_request(self._own_addresses())
        with self._database.connection(_checkout()) as connection:
            for code in [wanted] if wanted else (links.random_code() for _ in range(_NEW_CODES)):
                if link := queries.add_link(connection, code, url):
                    break
            else:
                raise HttpProblem(409, "code-taken", "The code is taken", f"There is a link with the code {code!r}")
        short_url = (self._public_url or request.host_url) + link.code
        answer = _json({"code": link.code, "url": link.url, "short_url": short_url}, 201)
        answer.headers["Location"] = urlsplit(short_url).path
        return answer

    def follow(self, code: str) -> Response:
        """Redirect to the link's URL and record the click. A HEAD request must have no effect, so it is no click."""
        _check_code(code)
        headers = request.environ
        who = visitor(headers.get("HTTP_USER_AGENT", ""), headers.get("HTTP_REFERER", ""))
        with self._database.connection(_checkout()) as connection:
            head = request.method == "HEAD"
            url = queries.read_url(connection, code) if head else queries.follow(connection, code, who)
        if url is None:
            raise _no_link(code)
        self._folder.wake()
        answer = Response(status=301)
        answer.headers["Location"] = url
        # A browser that keeps a redirect does not ask again, and its later clicks would not be counted.
        answer.headers["Cache-Control"] = "private, no-store"
        return answer

    def read_link(self, code: str) -> Response:
        """Show the link and the number of its clicks."""
        _check_code(code)
        with self._database.connection(_checkout()) as connection:
            link = queries.read_link(connection, code)
        if link is None:
            raise _no_link(code)
        self._folder.wake()
        return _json({"code": link.code, "url": link.url, "created": link.created_text, "clicks": link.clicks})

    def analytics(self, code: str) -> Response:
        """Show everything that is known about the link's clicks."""
        self._authorize()
        _check_code(code)
        with self._database.connection(_checkout(), slow=True) as connection:
            text = queries.analytics(connection, code)
        if text is None:
            raise _no_link(code)
        self._folder.wake()
        return Response(text, mimetype="application/json")

    def _authorize(self) -> None:
        if self._authorization is None:
            return
        # WSGI gives the bytes of a header as the characters of Latin-1.
        given = request.headers.get("Authorization", "").encode("latin-1", "replace")
        # The case of a scheme's name means nothing (RFC 9110, 11.1).
        if given[:7].lower() == b"bearer ":
            given = b"Bearer " + given[7:]
        if not hmac.compare_digest(given, self._authorization):
            headers = {"WWW-Authenticate": 'Bearer realm="poolbench"'}
            raise HttpProblem(401, "unauthorized", "A valid token is needed", headers=headers)

    def _own_addresses(self) -> set[tuple[str, int]]:
        """Host and port of this service as the client calls it, as it is bound, and as the public knows it."""
        host, port = request.environ.get("SERVER_NAME", ""), int(request.environ.get("SERVER_PORT") or 0)
        bound = {host, *(_names_of_this_machine() if links.is_wildcard(host) else ())}
        asked = (links.address_of(url) for url in (request.host_url, self._public_url) if url)
        return {*((name, port) for name in bound), *asked}

    def _begin(self) -> None:
        g.started_ns = perf_counter_ns()

    def _finish(self, answer: Response) -> Response:
        total_ns = _elapsed_ns()
        cost: LoanCost | None = g.get("checkout")
        if cost is not None:
            answer.headers["Server-Timing"] = server_timing_header(cost, total_ns)
            self._metrics.observe_loan(cost)
        self._metrics.observe_request(request.endpoint or "none", answer.status_code, total_ns)
        return answer

    def _answer_error(self, error: Exception) -> Response:
        if isinstance(error, HttpProblem):
            return error.response()
        if isinstance(error, HTTPException):
            return _http_problem(error)
        if isinstance(error, DatabaseFailure):
            status, kind, title = _FAILURES[type(error)]
            if request.endpoint == "health":
                # Whoever asks takes any other status for a fault of the service.
                status = 503
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
            problem, trace = HttpProblem(status, kind, title, headers=headers), f"{type(error).__name__}: {error}"
        else:
            problem, trace = HttpProblem(500, "internal-error", "The service failed"), _trace(error)
        log.error(
            problem.title,
            extra={
                "trace": trace,
                "method": request.method,
                "url": request.url,
                "remote_addr": request.remote_addr,
                "duration_ms": round(_elapsed_ns() / 1e6, 3),
            },
        )
        return problem.response()


@dataclass(frozen=True)
class _Address:
    """One address of the service, as its OpenAPI document tells it."""

    method: str
    path: str
    summary: str


class _Page:
    """What the service's own page is made of, read from the files beside this module once."""

    def __init__(self) -> None:
        self.document = _OPENAPI.read_bytes()
        """The OpenAPI document."""
        told = orjson.loads(self.document)
        self.title, self.text = told["info"]["title"], told["info"]["description"]
        self.addresses = [
            _Address(method.upper(), path, operation["summary"])
            for path, operations in told["paths"].items()
            for method, operation in operations.items()
            if isinstance(operation, dict)
        ]
        self.icon = (_TEMPLATES / "favicon.ico").read_bytes()
        self.style, self.script = ((_TEMPLATES / name).read_text("utf-8") for name in ("home.css", "home.js"))
        self.policy = (
            f"default-src 'none'; script-src {_digest(self.script)}; style-src {_digest(self.style)}; "
            "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        """Its Content-Security-Policy: its own style and script, and the answers of this service, and nothing else."""
        # Both are ours, and hold nothing that would end their elements.
        self.style, self.script = Markup(self.style), Markup(self.script)  # noqa: S704


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Requests


def _link_request(own_addresses: set[tuple[str, int]]) -> tuple[str, str | None]:
    """URL and code (None: any) of a request to create a link. Raises HttpProblem and HTTPException."""
    if not request.is_json:
        raise HttpProblem(415, "not-json", "The body must be application/json")
    text = request.get_data(cache=False)
    if len(text) > LARGEST_BODY:
        raise RequestEntityTooLarge
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, "invalid-json", "The body is not JSON", str(error)) from None
    url, code = (body.get("url"), body.get("code")) if isinstance(body, dict) else (None, None)
    if not isinstance(url, str):
        raise _bad_url('The body must be an object with a string "url"')
    if problem := links.url_problem(url, own_addresses):
        raise _bad_url(f"The URL {problem}")
    if code is None:
        return url, None
    if not isinstance(code, str) or not links.is_code(code):
        raise HttpProblem(422, "invalid-code", "The code is not acceptable", links.CODE_RULE)
    if code.lower() in links.RESERVED_CODES:
        raise HttpProblem(422, "reserved-code", "The code is reserved", f"{code!r} is an address of the service")
    return url, code


@cache
def _names_of_this_machine() -> set[str]:
    """Its name, and the addresses that its network interfaces had when this was first asked."""
    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    return {socket.gethostname(), *(each.address for found in interfaces for each in found if each.family in families)}


def _bad_url(detail: str) -> HttpProblem:
    return HttpProblem(422, "invalid-url", "The URL is not acceptable", detail)


class _CodeInPath(UnicodeConverter):
    """One part of a path, except /links, which has only a POST: a GET of it is a 405, not a look-up of a code."""

    def __init__(self, map: Map) -> None:  # noqa: A002 - werkzeug's name
        super().__init__(map)
        self.regex = r"(?!links\Z)" + self.regex


def _check_code(code: str) -> None:
    """Answer 404 to a text that cannot be a code, without asking the database: some texts could not even be sent to it."""
    if not links.is_code(code):
        raise _no_link(code)


def _no_link(code: str) -> HttpProblem:
    return HttpProblem(404, "no-such-link", "There is no such link", f"There is no link with the code {code[:64]!r}")


# Answers


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype="application/json")


def _http_problem(error: HTTPException) -> Response:
    """One of Werkzeug's own errors (404, 405, 413 and others) in our form, with its own headers, such as Allow."""
    name = error.name
    headers = {key: value for key, value in error.get_headers() if key.lower() != "content-type"}
    kind = re.sub(r"[^a-z]+", "-", name.lower())
    return HttpProblem(error.code or 500, kind, name, error.description or "", headers).response()


def _checkout() -> LoanCost:
    """The cost of the request's loans, filled in by the database, for the Server-Timing header."""
    cost: LoanCost = g.setdefault("checkout", LoanCost())
    return cost


def _elapsed_ns() -> int:
    now = perf_counter_ns()
    return now - int(g.get("started_ns", now))


def _trace(error: Exception) -> str:
    """The traceback for the log, after the SQLSTATE if there is one."""
    sqlstate = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    text = "".join(traceback.format_exception(error))
    return f"SQLSTATE {sqlstate}: {text}" if sqlstate else text
