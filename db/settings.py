"""The settings of the database room, read once from a mapping (the environment) that the caller passes in."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL

from poolbench.settings import PoolSetting, Switch, Whole
from poolbench.settings import read as read_pool_settings
from poolbench.settings import seconds as seconds_up_to

T = TypeVar("T")

STRATEGY_NAMES = ("null", "per-request", "queue", "fair")
"""The values of DB_POOL; `strategies.STRATEGIES` holds the recipes."""

DEFAULT_STRATEGY = "fair"

LONGEST_STATEMENT_S = 2_147_483
"""PostgreSQL counts its time limits in ms, in 32 bits."""


class SettingError(ValueError):
    """A setting has an invalid value; the message is one line that names it."""


@dataclass(frozen=True)
class PoolSettings:
    """How connections are lent. The fields after `strategy` are those of `poolbench.settings.POOL_SETTINGS`, where each is
    explained; not every strategy can honour every field (see `strategies.unhonoured`). Durations are in s.
    """

    strategy: str = DEFAULT_STRATEGY
    size: int = 10
    max_overflow: int = 0
    timeout_s: float = 5.0
    min_size: int = 0
    recycle_s: float = 3600.0
    max_lifetime_s: float = 3600.0
    lifetime_jitter: float = 0.1
    idle_s: float = 1800.0
    warm_up: bool = False
    openers: int | None = None
    """None: as many as the queue needs."""
    pre_ping: bool = False
    ping_idle_s: float = 30.0
    use_lifo: bool | None = None
    """None: the best value for the strategy."""
    max_waiting: int | None = None
    """None: no limit."""
    max_wait_s: float | None = None
    """None: no limit."""
    leak_threshold_s: float = 0.0
    maintenance_interval_s: float = 1.0
    detect_deadlock: bool = False
    reserve: int = 0
    """Connections that slow statements must leave to the others."""
    given: frozenset[str] = frozenset()
    """Names of the settings that were set explicitly."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "PoolSettings":
        """Read the DB_POOL… settings. Raises SettingError."""

        def given(setting: PoolSetting) -> Any:
            return read(mapping, setting.variable, setting.kind, None)

        strategy = read(mapping, "DB_POOL", choice(STRATEGY_NAMES), DEFAULT_STRATEGY)
        values = read_pool_settings(given, strategy)
        size, max_overflow = values["size"], values["max_overflow"]
        most = size + max_overflow - 1 if size and max_overflow >= 0 else None
        return cls(
            strategy=strategy,
            **values,
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
    watch: bool = False
    """Whether it is watched who holds connections, and doing what (see `poolbench.watching`)."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "DatabaseSettings":
        """Read DATABASE_URL, the DB_POOL… settings, DB_POOL_WATCH and STATEMENT_TIMEOUT. Raises SettingError."""
        if not mapping.get("DATABASE_URL", "").strip():
            raise SettingError("DATABASE_URL is not set")
        return cls(
            url=read(mapping, "DATABASE_URL", database_url, URL.create("postgresql+psycopg2")),
            pool=PoolSettings.from_mapping(mapping),
            statement_timeout_s=read(mapping, "STATEMENT_TIMEOUT", seconds_up_to(LONGEST_STATEMENT_S), 10.0),
            watch=read(mapping, "DB_POOL_WATCH", Switch(), False),
        )


def read(mapping: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    """The named setting, parsed; the default if it is missing or empty. Raises SettingError."""
    text = mapping.get(name, "").strip()
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        # A URL may hold a password.
        shown = "" if name == "DATABASE_URL" else f" not {text!r}"
        raise SettingError(f"{name} must be {error},{shown}".rstrip(",")) from None


whole = Whole
"""A parser of whole numbers from `least` to `most`."""

seconds = seconds_up_to()
"""A parser of durations in s, 0 or more."""


def choice(names: Collection[str]) -> Callable[[str], str]:
    """Make a parser that accepts only these names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return parse


def libpq_url(url: URL) -> str:
    """The URL as text, with its password, as libpq reads it: without a driver, and with %20 for a space in its query."""
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    place, mark, query = text.partition("?") if url.query else (text, "", "")
    return f"{place}{mark}{query.replace('+', '%20')}"


def _with_hosts_together(url: str) -> str:
    """The URL with SQLAlchemy's way to write hosts in the query, `host=A:1&host=B:2`, replaced by libpq's, `host=A,B&port=1,2`.

    Raises ValueError for what is the engine plugin's.
    """
    place, _, query = url.partition("?")
    given = [part.partition("=")[::2] for part in query.split("&") if part]
    if any(unquote(name) == "plugin" for name, _ in given):
        raise ValueError("a URL without plugin=: which pool the service has is said by DB_POOL and its settings")
    hosts = [re.fullmatch(r"([^:]*)(?::(\d*))?", unquote(value)) for name, value in given if name == "host"]
    found = [host for host in hosts if host is not None]
    if len(found) < len(hosts) or not any(host[2] for host in found):
        return url
    # A port of the query is that of the hosts without one: of all, or each of its own.
    rest = next((unquote(value) for name, value in reversed(given) if name == "port"), "").split(",")
    rest = rest if len(rest) == len(found) else rest[:1] * len(found)
    names = ",".join(quote(host[1]) for host in found)
    ports = ",".join(host[2] or port for host, port in zip(found, rest, strict=True))
    others = [f"{name}={value}" for name, value in given if name not in {"host", "port"}]
    return f"{place}?{'&'.join((f'host={names}', f'port={ports}', *others))}"


def database_url(text: str) -> URL:
    """SQLAlchemy's URL of a PostgreSQL database, from SQLAlchemy's or libpq's notation (URL, or `key=value` pairs).

    libpq itself reads the text, so all that libpq knows is understood; what has no other place in a URL goes into its query.
    Raises ValueError, whose text never shows a part of the URL.
    """
    scheme, colon, rest = text.partition("://")
    if colon and scheme in {"postgresql+psycopg2", "postgresql+psycopg", "postgres", "postgresql"}:
        text = _with_hosts_together(f"postgresql://{rest}")
    elif colon and "=" not in scheme:
        raise ValueError("a postgresql:// URL or a libpq connection string")
    try:
        parts: dict[str, str] = parse_dsn(text)
    except (psycopg2.Error, ValueError):
        raise ValueError("a postgresql:// URL or a libpq connection string") from None
    port = parts.get("port", "")
    if not all(each.isdecimal() and 0 < int(each) < 65536 for each in port.split(",") if each):
        raise ValueError("a URL whose port is a number from 1 to 65535")
    try:
        limited = isfinite(float(parts.get("connect_timeout", "0")))
    except ValueError:
        limited = False
    if not limited:
        raise ValueError("a URL whose connect_timeout is a number of seconds")
    query = {key: value for key, value in parts.items() if key not in {"user", "password", "host", "port", "dbname"}}
    host = parts.get("host", "")
    single = not any("," in each for each in (host, parts.get("hostaddr", ""), port)) and not host.startswith(
        ("/", "@")
    )
    if not single:
        # A list of several hosts, or the folder of a socket, which stand for themselves only in the query.
        query |= {key: parts[key] for key in ("host", "port") if key in parts}
    return URL.create(
        "postgresql+psycopg2",
        username=parts.get("user"),
        password=parts.get("password"),
        host=host or None if single else None,
        port=int(port) if port and single else None,
        database=parts.get("dbname"),
        query=query,
    )
