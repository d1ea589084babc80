"""Where requests go: origins, their addresses, and the handshakes of a connection before its first request."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from gevent import get_hub


class Origin(NamedTuple):
    """The target of a connection: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @property
    def place(self) -> str:
        """Host and port as a URL has them: `[::1]:80` for an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Ended(Exception):
    """A wait or a system call ended the exchange. `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def error_name(error: OSError) -> str:
    """The name that Node.js gives to a system error."""
    if isinstance(error, socket.gaierror):
        return "EAI_AGAIN" if error.errno == socket.EAI_AGAIN else "ENOTFOUND"
    if error.errno == errno.EPIPE:
        return "EPIPE"
    return errno.errorcode.get(error.errno or 0, "EIO")


def addresses_of(host: str, port: int) -> list[Any]:
    """The addresses of a host as `socket.getaddrinfo` lists them for TCP. Raises socket.gaierror.

    A name is looked up by the threads of gevent's resolver, so that other greenlets go on.
    """
    bare = host.strip("[]")
    try:
        try:
            return _numeric(bare, port)
        except socket.gaierror:
            # Here and not in the resolver's threads, where gevent would print what is raised.
            if not bare.isascii():
                bare = bare.encode("idna").decode()
            if not all(0 < len(label) < 64 for label in bare.removesuffix(".").split(".")):
                raise ValueError("an empty or too long label") from None
            return get_hub().resolver.getaddrinfo(bare, port, 0, socket.SOCK_STREAM)  # type: ignore[no-any-return]
    except ValueError:
        # A name with an empty label, one of more than 63 letters, or a zero byte: no name server can have it.
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None


def _numeric(bare: str, port: int) -> list[Any]:
    """What `addresses_of` gives for an address. Raises socket.gaierror for a name, ValueError."""
    # Bytes are taken as they are; for a text Python would first load its tables of international names.
    return socket.getaddrinfo(
        bare.encode() if bare.isascii() else bare, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
    )


def prepare_lookup(host: str) -> None:
    """Load what `addresses_of` needs to look up this host, and start its threads; nothing is looked up."""
    try:
        _numeric(host.strip("[]"), 0)
    except (socket.gaierror, ValueError):
        get_hub().resolver.getaddrinfo("127.0.0.1", 0)


class Handshake(Protocol):
    """A step of a new connection before its first request, such as TLS or a proxy's tunnel."""

    def advance(self) -> Any | None:
        """Go on. Returns the socket to use from now on, or None while the peer has yet to answer. Raises OSError, Ended."""


class Route:
    """Reaches origins directly and without TLS. Routes that do more are in tls.py and proxy.py."""

    def door(self, origin: Origin) -> tuple[str, int]:
        """The host and the port to connect to."""
        return origin.host, origin.port

    def handshakes(self, origin: Origin) -> Sequence[Callable[[Any], Handshake]]:
        """The handshakes on the connected socket, in order. Each is made with the socket that the one before it returned."""
        if origin.scheme == "https":
            raise Ended("ERR_INVALID_PROTOCOL")
        return ()


DIRECT = Route()
