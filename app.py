"""The service: short links, redirects that count their clicks, and what the clicks tell.

`create_app` puts the endpoints, the error answers and the Server-Timing header on a `db.database.Database`; it knows
nothing of the server that runs it. Importing this module does no work.
"""

import hmac
import logging
import os
import re
import secrets
import string
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from socket import inet_aton, inet_ntoa
from time import perf_counter_ns
from typing import Any
from urllib.parse import urlsplit

import click
import orjson
from flask import Flask, Response, g, request
from flask.cli import AppGroup
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import Map, UnicodeConverter

from db import queries
from db.binaries import EmbeddedPostgresError
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
from db.settings import DatabaseSettings, database_url, read, seconds
from db.telemetry import Metrics
from db.visitor import visitor
from poolbench import LoanCost, server_timing_header

RESERVED = frozenset({
    "health", "live", "links", "pool", "metrics", "openapi", "static", "admin", "api", "favicon", "robots",
})  # fmt: skip
"""Words that are, or may become, addresses of the service itself, and so cannot be codes."""

LONGEST_URL = 2048
LARGEST_BODY = 16 * 1024
RETRY_AFTER_S = 1

_OPENAPI = Path(__file__).with_name("openapi.json")
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_CODE_ALPHABET = string.ascii_letters + string.digits
_CODE_LENGTH = 7
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = {"localhost", "127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1"}

log = logging.getLogger("poolbench.app")


@dataclass(frozen=True)
class Settings:
    """What the service is told."""

    database: DatabaseSettings
    api_token: str | None = None
    """Needed to create links and to read analytics; None: nobody is asked."""
    health_timeout_s: float = 0.0
    """Longest time for `/health` to answer; 0: as long as any request."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "Settings":
        """Read the settings by their environment names. Raises SettingError."""
        return cls(
            DatabaseSettings.from_mapping(mapping),
            mapping.get("API_TOKEN", "").strip() or None,
            read(mapping, "HEALTH_TIMEOUT", seconds, 0.0),
        )


class HttpProblem(Exception):
    """An error answer (RFC 9457): `kind` is the last part of its `type`, `title` goes for all of its kind."""

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


def create_app(settings: Settings | Mapping[str, str]) -> Flask:
    """The service, ready to be served; its `Database` is in `extensions["database"]`.

    Opens no connection. Settings may come as a mapping of their environment names; without DATABASE_URL, the checkout's
    embedded server is started when a connection is first needed. Raises SettingError, whose text is one line.
    """
    locate = None
    if not isinstance(settings, Settings):
        if not settings.get("DATABASE_URL", "").strip():
            settings = {**settings, "DATABASE_URL": "postgresql://"}
            locate = _start_embedded
        settings = Settings.from_mapping(settings)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    database = Database(settings.database, locate)
    metrics = Metrics()
    app.extensions |= {"database": database, "metrics": metrics}
    Service(database, metrics, settings).register(app)
    app.cli.add_command(_links_commands(database))
    visitor("", "")  # the parser compiles its patterns when first used, which takes 0.1 s: now, not in a request
    return app


def _start_embedded() -> URL:
    return database_url(development_server(Path(__file__).parent).url)


class Service:
    """The endpoints."""

    def __init__(self, database: Database, metrics: "Metrics", settings: Settings) -> None:
        self._database = database
        self._metrics = metrics
        self._authorization = None if settings.api_token is None else f"Bearer {settings.api_token}".encode()
        self._lend_for_health = database.connection
        if settings.health_timeout_s:
            self._lend_for_health = partial(database.connection_within, settings.health_timeout_s)

    def register(self, app: Flask) -> None:
        """Put the endpoints, and what surrounds each request, on the application."""
        app.url_map.converters["code"] = _CodeInPath
        app.url_map.merge_slashes = False  # what nobody has given out leads nowhere
        for rule, view, methods in (
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

    def health(self) -> Response:
        """Whether the database answers, asked through the strategy in force; within HEALTH_TIMEOUT, where that is set."""
        with self._lend_for_health(_checkout()) as connection:
            queries.ping(connection)
        return _json({"status": "ok", "database": "up"})

    def live(self) -> Response:
        """Whether the process serves; touches no database."""
        return _json({"status": "ok"})

    def pool(self) -> Response:
        """This worker's connections."""
        return _json({"pid": os.getpid(), **asdict(self._database.status())})

    def metrics(self) -> Response:
        """All workers together, in Prometheus's text format."""
        self._metrics.publish(self._database)
        return Response(self._metrics.text(), content_type=CONTENT_TYPE_LATEST)

    def openapi(self) -> Response:
        """What the endpoints take and give, as an OpenAPI document."""
        return Response(_OPENAPI.read_bytes(), mimetype="application/json")

    def create_link(self) -> Response:
        """Shorten a URL, to the code asked for or to a random one."""
        self._authorize()
        url, wanted = _link_request()
        with self._database.connection(_checkout()) as connection:
            for code in [wanted] if wanted else (_random_code() for _ in range(10)):
                if link := queries.add_link(connection, code, url):
                    break
            else:
                raise HttpProblem(409, "code-taken", "The code is taken", f"There is a link with the code {code!r}")
        answer = _json({"code": link.code, "url": link.url, "short_url": request.host_url + link.code}, 201)
        answer.headers["Location"] = f"/{link.code}"
        return answer

    def follow(self, code: str) -> Response:
        """Redirect to the link's URL, the click recorded. A HEAD request, which must have no effect, is no click."""
        _check_code(code)
        headers = request.environ
        who = visitor(headers.get("HTTP_USER_AGENT", ""), headers.get("HTTP_REFERER", ""))
        with self._database.connection(_checkout()) as connection:
            if request.method == "HEAD":
                link = queries.read_link(connection, code)
                url = link and link.url
            else:
                url = queries.follow(connection, code, who)
        if url is None:
            raise _no_link(code)
        answer = Response(status=301)
        answer.headers["Location"] = url
        answer.headers["Cache-Control"] = "private, no-store"  # a cached redirect would hide the clicks that follow
        return answer

    def read_link(self, code: str) -> Response:
        """The link and the number of its clicks."""
        _check_code(code)
        with self._database.connection(_checkout()) as connection:
            link = queries.read_link(connection, code)
        if link is None:
            raise _no_link(code)
        return _json({"code": link.code, "url": link.url, "created": link.created_text, "clicks": link.clicks})

    def analytics(self, code: str) -> Response:
        """What is known about the link's clicks."""
        self._authorize()
        _check_code(code)
        with self._database.connection(_checkout(), slow=True) as connection:
            text = queries.analytics(connection, code)
        if text is None:
            raise _no_link(code)
        return Response(text, mimetype="application/json")

    def _authorize(self) -> None:
        if self._authorization is None:
            return
        given = request.headers.get("Authorization", "").encode("latin-1", "replace")  # WSGI's way of giving bytes
        if not hmac.compare_digest(given, self._authorization):
            headers = {"WWW-Authenticate": 'Bearer realm="poolbench"'}
            raise HttpProblem(401, "unauthorized", "A valid token is needed", headers=headers)

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


def _links_commands(database: Database) -> AppGroup:
    group = AppGroup("links", help="Work on the links.")

    @group.command("seed")
    @click.argument("count", type=click.IntRange(min=1), metavar="N")
    @click.option("--clicks", type=click.IntRange(min=0), default=100, show_default=True, help="Clicks per link.")
    def seed(count: int, clicks: int) -> None:
        """Fill in the links seed1 … seedN, and clicks for each."""
        try:
            with database.connection() as connection:
                links = queries.seed_links(connection, count)
                added = queries.seed_clicks(connection, count, clicks)
                queries.analyze(connection)
        except (DatabaseFailure, EmbeddedPostgresError) as failure:
            raise click.ClickException(str(failure)) from failure
        click.echo(f"added {links} links ({count - links} were there) and {added} clicks: seed1 … seed{count}")

    return group


# What clients send


def _link_request() -> tuple[str, str | None]:
    """URL and code (None: any) of a request to create a link. Raises Problem and HTTPException."""
    if not request.is_json:
        raise HttpProblem(415, "not-json", "The body must be application/json")
    text = request.get_data(cache=False)
    if len(text) >= LARGEST_BODY:  # a chunked body is cut off at the limit, without a word
        raise RequestEntityTooLarge
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, "invalid-json", "The body is not JSON", str(error)) from None
    url, code = (body.get("url"), body.get("code")) if isinstance(body, dict) else (None, None)
    if not isinstance(url, str):
        raise HttpProblem(
            422, "invalid-url", "The URL is not acceptable", 'The body must be an object with a string "url"'
        )
    if complaint := _complaint_about(url):
        raise HttpProblem(422, "invalid-url", "The URL is not acceptable", complaint)
    if code is None:
        return url, None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise HttpProblem(422, "invalid-code", "The code is not acceptable", "1 to 64 letters, digits, - and _")
    if code.lower() in RESERVED:
        raise HttpProblem(422, "reserved-code", "The code is reserved", f"{code!r} is an address of the service")
    return url, code


def _complaint_about(url: str) -> str | None:
    if len(url) > LONGEST_URL:
        return f"longer than {LONGEST_URL} characters"
    if not url.isprintable() or " " in url or "\\" in url:
        return "holds a space, a backslash or a control character"
    try:
        parts = urlsplit(url)
        # As the redirect will have it: what cannot be encoded could be stored, and never followed.
        host, port = (parts.hostname or "").encode("idna").decode().rstrip("."), parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return "must begin with http:// or https:// and a host"
    # %6c, say, is an l to a browser, and not to us
    if not _HOST.fullmatch(host) or ("[" in parts.netloc) != (":" in host):
        return "holds a host that is none"
    if "@" in parts.netloc:
        return "holds credentials"
    if _is_own(host, port or _DEFAULT_PORTS[parts.scheme]):
        return "points at this service"
    return None


def _is_own(host: str, port: int) -> bool:
    """Whether an address is this service's, as the client calls it or as it is bound."""
    asked = urlsplit(f"//{request.host}")
    bound = request.environ.get("SERVER_NAME", ""), int(request.environ.get("SERVER_PORT") or 0)
    own = {(asked.hostname or "", asked.port or _DEFAULT_PORTS.get(request.scheme, 0)), bound}
    with suppress(OSError):  # 127.1, 0x7f000001 and 2130706433 are 127.0.0.1 to a browser
        host = inet_ntoa(inet_aton(host))
    names = _LOOPBACK if host in _LOOPBACK or host.startswith("127.") else {host}
    return any((name, port) in own for name in names)


class _CodeInPath(UnicodeConverter):
    """Any one part of a path, but not an address of the service that is asked by another method only."""

    def __init__(self, map: Map) -> None:  # noqa: A002 - werkzeug's name
        super().__init__(map)
        self.regex = r"(?!links\Z)" + self.regex


def _check_code(code: str) -> None:
    """Codes that cannot exist are not looked up; some could not even be sent to the database."""
    if not _CODE.fullmatch(code):
        raise _no_link(code)


def _no_link(code: str) -> HttpProblem:
    return HttpProblem(404, "no-such-link", "There is no such link", f"There is no link with the code {code[:64]!r}")


def _random_code() -> str:
    return "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH))


# What they get


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype="application/json")


def _http_problem(error: HTTPException) -> Response:
    """Werkzeug's own errors (404, 405, 413, …) in our form; what headers they bring (Allow) are kept."""
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
    """The traceback, headed by the SQLSTATE where there is one."""
    sqlstate = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    text = "".join(traceback.format_exception(error))
    return f"SQLSTATE {sqlstate}: {text}" if sqlstate else text
