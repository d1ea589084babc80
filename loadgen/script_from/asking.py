"""Asks the service while a script is made: its documents, and each GET once, with the client that makes the load later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import gevent

from loadgen.clock import now_ns
from loadgen.language.limits import LimitExceeded
from loadgen.language.values import text
from loadgen.ping import PingFailed, send_ping
from loadgen.runner import agent, read_bytes
from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions, parse_script
from loadgen.script_from.draft import Unusable
from loadgen.script_from.from_openapi import Asked
from reports.blocks import decimal

_LONGEST_S = 5.0
_DOCUMENT_S = 60.0
_REDIRECTS_MAX = 5
DOCUMENTS_ARE_AT = (
    # FastAPI and Flask, Swagger's own tools, Spring, .NET, Django, NestJS, Go's swag, Quarkus, Fastify, flasgger.
    "openapi.json", "swagger.json", "v3/api-docs", "openapi.yaml", "swagger/v1/swagger.json", "api-docs", "v2/api-docs",
    "api/openapi.json", "swagger.yaml", "openapi/v1.json", "api/schema/", "api-json", "swagger/doc.json", "docs/openapi.json",
    "api/v1/openapi.json", "api/docs-json", "docs-json", "q/openapi", "openapi", "documentation/json", "apispec_1.json",
    "spec.json", "api/swagger.json", "api-docs.json",
)  # fmt: skip
"""Where services have their OpenAPI document, below the URL or below the root of its host; the commonest first."""


class Unreachable(Exception):
    """Raised where nothing answers at a URL. The message is one line."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of the service."""

    url: str
    """Where it came from, after redirects within the same host."""
    status: int
    content: bytes
    location: str
    ms: float


class Service:
    """A service that can be asked, with a limit on the time that all questions take together."""

    def __init__(self, base: str, *, insecure: bool = False, budget_s: float = 60.0) -> None:
        self.base = base
        self.insecure = insecure
        self._until_ns = now_ns() + int(budget_s * 1e9)
        self.gave_up = False
        """Whether questions were not asked because the time was over."""

    def ask(self, path: str, headers: Mapping[str, str]) -> Asked | None:
        """The answer to one GET; None once the time is over. Redirects are not followed."""
        if now_ns() > self._until_ns:
            self.gave_up = True
            return None
        try:
            page = get(self.base + path, headers, insecure=self.insecure)
        except Unreachable as failed:
            return Asked(error=str(failed))
        try:
            body = json.loads(page.content)
        except (ValueError, RecursionError):
            body = None
        return Asked(page.status, body, page.location, page.ms)


def get(
    url: str, headers: Mapping[str, str] | None = None, *, insecure: bool = False, longest_s: float = _LONGEST_S
) -> Page:
    """Send one GET. Raises Unreachable, whose message is the error's name, such as ECONNREFUSED."""
    spec = {"url": url, "headers": {"Accept": "application/json, */*", **(headers or {})}, "followRedirect": False}
    source = json.dumps({"config": {"target": url}, "scenarios": [{"flow": [{"get": spec}]}]})
    try:
        script = parse_script([("init.json", source)], RunOptions(insecure=insecure), read_bytes)
        with gevent.Timeout(longest_s):
            ping = send_ping(script, (), agent())
    except gevent.Timeout:
        raise Unreachable(f"no whole answer within {decimal(longest_s)} s") from None
    except PingFailed as failed:
        raise Unreachable(failed.name) from None
    except ScriptErrors as errors:
        raise Unusable(f"{url}: {errors.problems[0].message}") from None
    try:
        content = ping.answer.plain_body()
    except LimitExceeded as exceeded:
        raise Unreachable(exceeded.name) from None
    location = text(ping.answer.headers.get("location", ""))
    return Page(url, ping.answer.status, content, location, ping.times.total)


def get_document(url: str, *, insecure: bool = False) -> Page:
    """The answer to a GET of a document, after redirects that stay with the host or go on to its https. Raises Unreachable."""
    for _ in range(_REDIRECTS_MAX):
        page = get(url, insecure=insecure, longest_s=_DOCUMENT_S)
        if not 300 <= page.status < 400 or not page.location:
            return page
        to = urljoin(url, page.location)
        if urlsplit(to).hostname != urlsplit(url).hostname:
            return page
        url = to
    return page


def places(url: str) -> list[str]:
    """The URLs at which the document of the service at `url` may be: below the URL itself, and below its host."""
    root = "{0.scheme}://{0.netloc}/".format(urlsplit(url))
    below = url.partition("?")[0].rstrip("/") + "/"
    return list(dict.fromkeys(base + place for base in (below, root) for place in DOCUMENTS_ARE_AT))


def is_url(source: str) -> bool:
    """Whether a source is a URL, and no file."""
    return source.lower().startswith(("http://", "https://"))


def same_host(one: str, other: str) -> bool:
    """Whether two URLs have the same host and port."""
    return _host(one) == _host(other)


def _host(url: str) -> tuple[Any, ...]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
