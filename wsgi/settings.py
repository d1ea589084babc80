"""What the server is told."""

from collections.abc import Mapping
from dataclasses import dataclass

from db.settings import read, whole


@dataclass(frozen=True)
class ServerSettings:
    """Address, and number of worker processes."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 4

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "ServerSettings":
        """Read HOST, PORT and WEB_CONCURRENCY. Raises SettingError."""
        return cls(
            host=read(mapping, "HOST", str, "127.0.0.1"),
            port=read(mapping, "PORT", whole(1, 65535), 8000),
            workers=read(mapping, "WEB_CONCURRENCY", whole(1, 1000), 4),
        )

    @property
    def bind(self) -> str:
        """Address as gunicorn writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
