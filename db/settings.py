"""What the database room is told, read once from a mapping (the environment) that the caller passes in."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL

T = TypeVar("T")

STRATEGY_NAMES = ("null", "per-request", "queue", "fair")
"""What DB_POOL may say; `strategies.STRATEGIES` holds the recipes."""

DEFAULT_STRATEGY = "fair"


class SettingError(ValueError):
    """A setting does not parse; the message is one line that names it."""


@dataclass(frozen=True)
class PoolSettings:
    """How connections are lent; not every strategy can honour every field (see `strategies.unhonoured`)."""

    strategy: str = DEFAULT_STRATEGY
    size: int = 10
    """Connections kept; 0 means no limit."""
    max_overflow: int = 0
    """Connections beyond `size`, closed on return; -1 means no limit."""
    timeout_s: float = 5.0
    """Longest wait for a connection."""
    min_size: int = 0
    """Connections held ready, or, per request, opened at once."""
    recycle_s: float = 3600.0
    """Age at which a connection is replaced."""
    idle_s: float = 1800.0
    """Idleness after which a connection is closed."""
    pre_ping: bool = False
    """Whether each loan begins with a test of the connection."""
    max_waiting: int | None = None
    """Longest queue for a connection; None means no limit."""
    reserve: int = 0
    """Connections that slow statements must leave to the others."""
    given: frozenset[str] = frozenset()
    """Names of the settings that somebody set, as against those left at their defaults."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "PoolSettings":
        """Read the DB_POOL… settings. Raises SettingError."""
        strategy = read(mapping, "DB_POOL", choice(STRATEGY_NAMES), DEFAULT_STRATEGY)
        size = read(mapping, "DB_POOL_SIZE", whole(0), 10)
        max_overflow = read(mapping, "DB_POOL_MAX_OVERFLOW", whole(-1), 0)
        most = size + max_overflow - 1 if size and max_overflow >= 0 else None
        return cls(
            strategy=strategy,
            size=size,
            max_overflow=max_overflow,
            timeout_s=read(mapping, "DB_POOL_TIMEOUT", seconds, 5.0),
            min_size=read(mapping, "DB_POOL_MIN", whole(0), 5 if strategy == "per-request" else 0),
            recycle_s=read(mapping, "DB_POOL_RECYCLE", seconds, 3600.0),
            idle_s=read(mapping, "DB_POOL_IDLE", seconds, 1800.0),
            pre_ping=read(mapping, "DB_POOL_PRE_PING", switch, False),
            max_waiting=read(mapping, "DB_POOL_MAX_WAITING", whole(0), 10 * size if strategy == "fair" else None),
            reserve=read(mapping, "DB_POOL_RESERVE", whole(0, most), 0),
            given=frozenset(name for name, value in mapping.items() if name.startswith("DB_POOL_") and value.strip()),
        )


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database is and how to talk to it."""

    url: URL
    pool: PoolSettings = PoolSettings()
    statement_timeout_s: float = 10.0
    """Limit per statement, enforced by the server; 0 means none."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "DatabaseSettings":
        """Read DATABASE_URL, the DB_POOL… settings and STATEMENT_TIMEOUT. Raises SettingError."""
        if not mapping.get("DATABASE_URL", "").strip():
            raise SettingError("DATABASE_URL is not set")
        return cls(
            url=read(mapping, "DATABASE_URL", database_url, URL.create("postgresql+psycopg2")),
            pool=PoolSettings.from_mapping(mapping),
            statement_timeout_s=read(mapping, "STATEMENT_TIMEOUT", seconds, 10.0),
        )


def read(mapping: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    """The named setting, parsed; the default where it is missing or empty. Raises SettingError."""
    text = mapping.get(name, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        shown = "" if name == "DATABASE_URL" else f" not {text!r}"  # a URL may hold a password
        raise SettingError(f"{name} must be {error},{shown}".rstrip(",")) from None


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        wanted = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        if not text.lstrip("-").isdecimal() or not text.isascii():
            raise ValueError(wanted)
        number = int(text)
        if number < least or (most is not None and number > most):
            raise ValueError(wanted)
        return number

    return parse


def seconds(text: str) -> float:
    """A number of seconds, 0 or more."""
    wanted = "a number of seconds, 0 or more"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or number < 0:
        raise ValueError(wanted)
    return number


def switch(text: str) -> bool:
    """On or off, in any of the usual words."""
    words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("on or off")
    return words[text.lower()]


def choice(names: Collection[str]) -> Callable[[str], str]:
    """A parser that takes one of the names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return parse


def database_url(text: str) -> URL:
    """SQLAlchemy's URL of a PostgreSQL database, from SQLAlchemy's or libpq's notation (URL, or `key=value` pairs).

    libpq itself reads it, so whatever libpq knows is understood; what has no place in a URL goes into its query.
    Raises ValueError, whose text never shows a part of the URL.
    """
    scheme, colon, rest = text.partition("://")
    if colon and scheme in {"postgresql+psycopg2", "postgres", "postgresql"}:
        text = f"postgresql://{rest}"
    elif colon and "=" not in scheme:
        raise ValueError("a postgresql:// URL or a libpq connection string")
    try:
        parts: dict[str, str] = parse_dsn(text)
    except (psycopg2.Error, ValueError):
        raise ValueError("a postgresql:// URL or a libpq connection string") from None
    port = parts.get("port", "")
    if not all(each.isdecimal() and 0 < int(each) < 65536 for each in port.split(",") if each):
        raise ValueError("a URL whose port is a number from 1 to 65535")
    query = {key: value for key, value in parts.items() if key not in {"user", "password", "host", "port", "dbname"}}
    single = "," not in parts.get("host", "")
    if not single:  # several hosts: a list that only libpq understands
        query |= {key: parts[key] for key in ("host", "port") if key in parts}
    return URL.create(
        "postgresql+psycopg2",
        username=parts.get("user"),
        password=parts.get("password"),
        host=parts.get("host") if single else None,
        port=int(port) if port and single else None,
        database=parts.get("dbname"),
        query=query,
    )
