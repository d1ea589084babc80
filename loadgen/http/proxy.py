"""HTTP proxies: every connection to an origin, also for plain HTTP, goes through a tunnel (CONNECT), as in Artillery."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from loadgen.http.route import Ended, Handshake, Origin, Route
from reports.printable import shown_url, url_fault

_PORTS = {"http": 80, "https": 443}
VARIABLES = {"http": ("HTTP_PROXY",), "https": ("HTTPS_PROXY", "HTTP_PROXY")}
"""The variables that name the proxy of a scheme; the first that is set counts."""
_HEAD_BYTES_MAX = 16 * 1024


class ProxyError(ValueError):
    """A proxy variable names no proxy; the message says which variable."""


class ProxyRoute(Route):
    """Reaches origins through the proxy of their scheme, and origins without one in the way that `direct` does."""

    def __init__(self, environment: Mapping[str, str], direct: Route) -> None:
        """`environment` may set HTTP_PROXY and HTTPS_PROXY, in upper case; NO_PROXY has no effect, as in Artillery.

        Raises ProxyError.
        """
        self._direct = direct
        self._proxies = {}
        for scheme, names in VARIABLES.items():
            name = next((name for name in names if environment.get(name)), None)
            if name is not None:
                self._proxies[scheme] = _proxy(name, environment[name])

    def door(self, origin: Origin) -> tuple[str, int]:
        """Host and port of the proxy, where there is one for this origin."""
        proxy = self._proxies.get(origin.scheme)
        return self._direct.door(origin) if proxy is None else proxy[0][1:]

    def handshakes(self, origin: Origin) -> Sequence[Callable[[Any], Handshake]]:
        """The handshakes with the proxy (TLS if it has an https URL), then the tunnel, then those with the origin."""
        proxy = self._proxies.get(origin.scheme)
        if proxy is None:
            return self._direct.handshakes(origin)
        tunnel = partial(Tunnel, origin=origin, credentials=proxy[1])
        return (*self._direct.handshakes(proxy[0]), tunnel, *self._direct.handshakes(origin))


def _proxy(name: str, url: str) -> tuple[Origin, str]:
    """The proxy that a URL names, and the credentials in it ("" without any). Raises ProxyError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ProxyError(f"{name}: {url_fault(error, url)}") from None
    if parts.scheme not in _PORTS or not host:
        raise ProxyError(f"{name}: not a proxy's URL, such as http://host:3128: {shown_url(url)!r}")
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return Origin(parts.scheme, host, port or _PORTS[parts.scheme]), credentials


class Tunnel:
    """The CONNECT of one connection (RFC 9110, 9.3.6). A status other than 200 is the error `Bad response: <status>`."""

    def __init__(self, sock: Any, *, origin: Origin, credentials: str) -> None:
        self._sock = sock
        lines = [f"CONNECT {origin.place} HTTP/1.1", f"host: {origin.place}", "connection: keep-alive"]
        if credentials:
            lines.append(f"proxy-authorization: Basic {b64encode(credentials.encode()).decode()}")
        self._request = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        self._answer = b""

    def advance(self) -> Any | None:
        """The socket once the tunnel is open; None while the proxy has yet to answer. Raises OSError, Ended."""
        try:
            while self._request:
                self._request = self._request[self._sock.send(self._request) :]
            data = self._sock.recv(_HEAD_BYTES_MAX)
        except BlockingIOError:
            return None
        self._answer += data
        if not data or len(self._answer) > _HEAD_BYTES_MAX:
            raise Ended("ECONNRESET")
        if b"\r\n\r\n" not in self._answer:
            return None
        status = self._answer.split(b" ", 2)[1][:3].decode("latin-1") if b" " in self._answer else ""
        if status != "200":
            raise Ended(f"Bad response: {status}")
        return self._sock
