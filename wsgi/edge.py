"""Prepares each request and answer on its way: which proxies are trusted, which headers protect browsers."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix

Network = IPv4Network | IPv6Network
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_POLICY = "Content-Security-Policy"
_HEADERS = [
    # Most answers are data and redirects. A browser that shows one as a page must not load, run, submit or embed anything.
    (_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    # The target of a link learns which site a visitor came from, never which page.
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
]
_OVER_TLS = [*_HEADERS, ("Strict-Transport-Security", "max-age=31536000")]


def networks(text: str) -> tuple[Network, ...]:
    """Parse addresses and networks, separated by commas. Raises ValueError."""
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError:
        raise ValueError("a list of addresses or networks, such as 10.0.0.2,172.16.0.0/12") from None


class Edge:
    """WSGI middleware that adds the headers above to the answers of `app`; a page with a policy of its own keeps that.

    X-Forwarded-For, -Proto and -Host of one hop are believed if the request comes from a `trusted` network, and ignored
    otherwise. Answers to requests over TLS also get Strict-Transport-Security.
    """

    def __init__(self, app: Wsgi, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._forwarded: Wsgi = ProxyFix(app, x_for=1, x_proto=1, x_host=1)
        self._nobody = not trusted
        self._is_trusted = lru_cache(maxsize=1024)(lambda address: _within(address, trusted))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request, as WSGI wants it."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            added = _OVER_TLS if environ["wsgi.url_scheme"] == "https" else _HEADERS
            headers += [header for header in added if header[0] != _POLICY] if _POLICY in dict(headers) else added
            return start_response(status, headers, *rest)

        if self._nobody or not self._is_trusted(environ.get("REMOTE_ADDR", "")):
            return self._app(environ, start)
        return self._forwarded(environ, start)


def _within(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in trusted)
