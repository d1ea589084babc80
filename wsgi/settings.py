"""Settings of the server."""

import contextlib
import resource
from collections.abc import Mapping
from dataclasses import dataclass

from db.settings import PoolSettings, read, whole
from wsgi.edge import Network, networks

MOST_CLIENTS = 4096
"""Most connections of clients that a worker holds, where it may open as many files."""

# File descriptors for logs, metrics, listening sockets and the event loop.
_OWN_DESCRIPTORS = 64
# Used if the system has no limit.
_ENOUGH_DESCRIPTORS = 65_536


@dataclass(frozen=True)
class ServerSettings:
    """Address, number of worker processes, and the proxies whose word about the client is trusted."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 4
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose X-Forwarded-... headers are believed; from anywhere else they are ignored."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "ServerSettings":
        """Read HOST, PORT, WEB_CONCURRENCY and TRUSTED_PROXIES. Raises SettingError."""
        return cls(
            host=read(mapping, "HOST", str, "127.0.0.1"),
            port=read(mapping, "PORT", whole(1, 65535), 8000),
            workers=read(mapping, "WEB_CONCURRENCY", whole(1, 1000), 4),
            trusted_proxies=read(mapping, "TRUSTED_PROXIES", networks, ()),
        )

    @property
    def bind(self) -> str:
        """The address in gunicorn's notation, HOST:PORT or [HOST]:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def raise_descriptor_limit() -> int:
    """Let this process and its children open as many files as the system allows, and return that number.

    The limit in force is often 1024, where the system allows far more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, _ENOUGH_DESCRIPTORS) if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def client_limit(descriptors: int, pool: PoolSettings) -> int:
    """How many connections of clients a worker holds at most, when it may have `descriptors` file descriptors.

    The other descriptors are for its connections to the database: those of the pool or, without a bounded pool, as many as
    these clients may need at the same time.
    """
    free = descriptors - _OWN_DESCRIPTORS
    if pool.strategy in ("queue", "fair") and pool.size and pool.max_overflow >= 0:
        clients = free - pool.size - pool.max_overflow
    else:
        clients = free // (1 + max(1, pool.min_size))
    return max(1, min(MOST_CLIENTS, clients))
