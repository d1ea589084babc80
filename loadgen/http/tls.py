"""The settings of TLS, and the route that reaches origins through it. The encrypted connections are in tls_socket.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loadgen.http.route import Origin, Route

if TYPE_CHECKING:
    import ssl

    from loadgen.http.tls_socket import TlsSocket


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The settings of `config.tls` and of the option -k. Certificates and keys are in PEM."""

    verify: bool = True
    ca: bytes | None = None
    """Certificates to trust besides those of the system."""
    cert: bytes | None = None
    """The client's own certificate."""
    key: bytes | None = None
    """The key of `cert`; None where the same file has both."""
    passphrase: str | None = None
    server_name: str | None = None
    """The server name to ask for and to verify instead of the URL's host."""
    ciphers: str | None = None
    """The ciphers of TLS 1.2 and before to offer, as OpenSSL lists them; None: as OpenSSL does."""
    version: ssl.TLSVersion | None = None
    """The only version of TLS to speak; None: any."""
    names_server: bool = True
    """Whether the server is told the name it was asked by (SNI)."""


class TlsRoute(Route):
    """Reaches https origins through TLS, and http origins without."""

    def __init__(self, settings: TlsSettings = TlsSettings()) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None

    def handshakes(self, origin: Origin) -> Sequence[Callable[[Any], TlsSocket]]:
        """The TLS handshake for an https origin, nothing for http."""
        if origin.scheme != "https":
            return ()
        # Most runs need no TLS, and start quicker without it.
        from loadgen.http import tls_socket  # noqa: PLC0415

        self._context = self._context or tls_socket.client_context(self._settings)
        server_name = self._settings.server_name or origin.host.strip("[]")
        return (
            partial(
                tls_socket.TlsSocket,
                context=self._context,
                server_name=server_name if self._settings.names_server else None,
            ),
        )
