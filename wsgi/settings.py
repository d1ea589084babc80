"""Settings of the server."""

from collections.abc import Mapping
from dataclasses import dataclass

from db.settings import read, whole
from wsgi.edge import Network, networks


@dataclass(frozen=True)
class ServerSettings:
    """Address, number of worker processes, and the proxies that are believed about the client."""

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
