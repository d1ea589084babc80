"""The database of a user's own application: an embedded one with a fresh copy for each turn, or one of the user's own."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy import URL

from db import settings
from db.binaries import has_library
from db.embedded import ROLE, EmbeddedPostgres, temporary_postgres
from loadgen.lab.attached import IDENTITY
from loadgen.lab.stack import connect, free_connections, query

_NOTATIONS = ("postgresql+psycopg2", "postgresql+psycopg", "postgresql", "postgres")
_CHANGES = (
    "SELECT CASE schemaname WHEN 'public' THEN relname ELSE schemaname || '.' || relname END,"
    " n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
)
_KEPT_FREE = 0.5
_SHARED = "postgres"
"""The database of an embedded server that is no application's."""
_STATISTICS = "pg_stat_statements"
_SHORTEST_PIECE = 4
_COMMON = ("postgresql", "password", "psycopg2")
"""Words that URLs and messages have of themselves."""
_ALONE = r"(?<![\w./-]){}(?!\w|[./:-]\w)"
"""A word alone: neither in another word, nor in a path, nor in the name of a file, a module or a host."""
_WAYS = (
    *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGREQUIREAUTH", "PGGSSENCMODE"),
    *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGCHANNELBINDING"),
)
"""libpq's variables for how a server is reached, which hold even where a URL names another server."""


class DatabaseError(Exception):
    """The database given cannot be used; the message is one line without a password."""


@dataclass(frozen=True, slots=True)
class GivenPlace:
    """Where the database given is: how its connections are told from all others."""

    host: str
    port: int
    database: str
    identity: str


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """One database for the servers."""

    app_url: str
    """URL for the application, in the notation that it expects."""
    monitor_url: str
    """libpq's URL, for watching it."""
    place: GivenPlace
    postgres: EmbeddedPostgres | None = None

    @property
    def statistics_url(self) -> str:
        """libpq's URL of the database in which pg_stat_statements is installed, if it is."""
        return self.monitor_url if self.postgres is None else _renamed(self.postgres.admin_url, _SHARED)


def libpq_url(text: str) -> str:
    """libpq's URL of a database in any notation. Raises DatabaseError."""
    return settings.libpq_url(_parsed(text)[1])


def _parsed(text: str) -> tuple[str | None, URL]:
    """The driver that a text names (None: it names none), and the URL. Raises DatabaseError, which shows nothing of it."""
    if not text.strip():
        # libpq would take the database of this machine's user, which nobody has named.
        raise DatabaseError("--database-url is empty: leave it out for an embedded PostgreSQL")
    scheme, separator, rest = text.partition("://")
    driver = None
    if separator and scheme in _NOTATIONS:
        driver = scheme.partition("+")[2] or None
        text = f"postgresql://{rest}"
    try:
        return driver, settings.database_url(text)
    except ValueError as error:
        raise DatabaseError(f"--database-url must be {error}") from None


def app_url(text: str, driver: str | None) -> str:
    """The URL for the application: with the driver that the text names, else with `driver`, else with none."""
    named, url = _parsed(text)
    chosen = named or driver
    return settings.libpq_url(url).replace("postgresql", f"postgresql+{chosen}" if chosen else "postgresql", 1)


def shown(text: str) -> str:
    """A database's URL without its password or user. Raises DatabaseError."""
    url = _parsed(text)[1]
    host, port = (at or url.query.get(key) or "" for key, at in (("host", url.host), ("port", url.port)))
    host = f"[{host}]" if ":" in str(url.host) else host
    return f"postgresql://{host}{f':{port}' if port else ''}/{url.database or ''}"


def masking(*urls: str) -> Callable[[str], str]:
    """A function that replaces the passwords of these URLs in a text, in every way in which they may be written there.

    A password that is a common word, such as the name of the database or of its user, is replaced only where it stands alone:
    all other text would be spoiled.
    """
    secrets: set[str] = set()
    places = [_parsed(text)[1] for text in urls]
    # What the rest of a URL says is no secret.
    known = " ".join(
        str(part)
        for url in places
        for part in (*_COMMON, url.username, url.host, url.query.get("host"), url.database)
        if part
    )
    for text, url in zip(urls, places, strict=True):
        password = url.password
        if password:
            secrets |= _written(str(password))
            # As the user has written it.
            written = re.search(r"://[^:/@]*:(.+)@|[?&]password=([^&]+)", text)
            secrets |= {each for each in (written.groups() if written else ()) if each}
            # An application that puts it into a URL as it is takes what comes before a / for a port, and what follows an @
            # for a host, a port or a database.
            first, *rest = re.split("[@:/?#]", str(password))
            pieces = [*([first] if re.search("[/?#]", str(password)) else []), *rest]
            secrets |= {piece for piece in pieces if len(piece) >= _SHORTEST_PIECE and piece not in known}

    patterns = [
        re.compile(_ALONE.format(re.escape(secret)) if _is_common(secret, known) else re.escape(secret))
        for secret in sorted(secrets, key=len, reverse=True)
    ]

    def masked(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub("***", text)
        return text

    return masked


def _is_common(secret: str, known: str) -> bool:
    """Whether a password is a word that other text has, too, so that its place alone tells that it is the password."""
    return len(secret) < _SHORTEST_PIECE or secret in known


def _written(password: str) -> set[str]:
    """The password as it may stand in a URL, in libpq's pairs, and in the text of a Python or JSON string."""
    in_pairs = password.replace("\\", "\\\\").replace("'", "\\'")
    in_urls = {quote(password, safe=safe) for safe in ("/", "", " +")} | {quote_plus(password)}
    # Messages are brought onto one line.
    on_one_line = " ".join(password.split())
    written = {password, on_one_line, in_pairs, repr(password)[1:-1], json.dumps(password)[1:-1]} | in_urls
    # Some programs write %2f, others %2F.
    lower = {re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), each) for each in written}
    return (written | lower) - {""}


def mask_file(path: Path, masked: Callable[[str], str]) -> None:
    """Replace the passwords in a file, if it is there."""
    if path.exists():
        text = path.read_text(errors="surrogateescape")
        if (shown := masked(text)) != text:
            path.write_text(shown, errors="surrogateescape")


def place_of(monitor_url: str) -> GivenPlace:
    """Where a database is. Raises psycopg2.Error."""
    connection = connect(monitor_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(IDENTITY)
            identity = cursor.fetchone()[0]
        info = connection.info
        return GivenPlace(info.host or "", info.port, info.dbname, identity)
    finally:
        connection.close()


class EmbeddedDatabases:
    """Databases of an embedded server: `base`, and a copy of it for each turn."""

    most: int | None = None

    def __init__(self, postgres: EmbeddedPostgres, driver: str | None) -> None:
        self._postgres, self._driver = postgres, driver
        self._numbers = itertools.count(1)

    @property
    def base(self) -> OwnDatabase:
        """The database that setup commands fill."""
        return self._named(ROLE)

    @contextmanager
    def fresh(self) -> Iterator[OwnDatabase]:
        """A copy of `base` as it was set up, gone afterwards."""
        name = f"{ROLE}_{next(self._numbers)}"
        admin = _renamed(self._postgres.admin_url, _SHARED)
        # Only a database without sessions is copied, and a setup command may have left a process with one.
        query(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (ROLE,))
        query(admin, f"CREATE DATABASE {name} TEMPLATE {ROLE} OWNER {ROLE}")
        try:
            yield self._named(name)
        finally:
            query(admin, f"DROP DATABASE {name} WITH (FORCE)")

    def _named(self, name: str) -> OwnDatabase:
        url, monitor = _renamed(self._postgres.url, name), _renamed(self._postgres.admin_url, name)
        return OwnDatabase(app_url(url, self._driver), monitor, place_of(monitor), self._postgres)


def _renamed(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


class UsersDatabase:
    """A database of the user's own: the same one in every turn, with the rows that the turns before left."""

    def __init__(self, text: str, driver: str | None, servers: int) -> None:
        """Raises DatabaseError, psycopg2.Error."""
        monitor = libpq_url(text)
        self.base = OwnDatabase(app_url(text, driver), monitor, place_of(monitor))
        free, self.max_connections = free_connections(monitor)
        self.most: int | None = int(free * _KEPT_FREE) // servers
        if not self.most:
            raise DatabaseError(
                f"{shown(text)} would let in {free} more connections. Half of them stay free, which leaves too few for"
                f" --servers {servers}"
            )
        self._before = table_changes(monitor)

    @contextmanager
    def fresh(self) -> Iterator[OwnDatabase]:
        """The database as it is."""
        yield self.base

    def tables(self) -> tuple[str, ...]:
        """Names of its tables, with the schema's where that is not public."""
        return tuple(sorted(self._before))

    def written(self) -> tuple[str, ...]:
        """What has changed since: a phrase for each table, such as "orders: 120 rows added"."""
        words = ("added", "changed", "deleted")
        told = []
        for name, counts in sorted(table_changes(self.base.monitor_url).items()):
            before = self._before.get(name, (0, 0, 0))
            parts = [f"{a - b} rows {word}" for a, b, word in zip(counts, before, words, strict=True) if a > b]
            told += [f"{name}: {', '.join(parts)}"] if parts else []
        return tuple(told)


def table_changes(url: str) -> Mapping[str, tuple[int, int, int]]:
    """Rows added, changed and deleted so far, by table, with the schema's name where it is not public. Raises psycopg2.Error."""
    return {row[0]: (row[1], row[2], row[3]) for row in query(url, _CHANGES)}


@contextmanager
def hidden_ways() -> Iterator[tuple[str, ...]]:
    """Take the variables that say how another server is reached out of the environment while inside; gives their names."""
    hidden = {name: os.environ.pop(name) for name in _WAYS if name in os.environ}
    try:
        yield tuple(hidden)
    finally:
        os.environ.update(hidden)


@contextmanager
def databases(
    text: str | None, driver: str | None, servers: int, max_connections: int, *, with_statistics: bool = False
) -> Iterator[EmbeddedDatabases | UsersDatabase]:
    """The databases of a run: of an embedded server, or the one that the text names.

    with_statistics: the embedded server counts its statements with pg_stat_statements, where its installation has it.
    Raises EmbeddedPostgresError, DatabaseError, psycopg2.Error.
    """
    if text is not None:
        yield UsersDatabase(text, driver, servers)
        return
    counts = with_statistics and has_library(_STATISTICS)
    settings = {"shared_preload_libraries": _STATISTICS} if counts else None
    with temporary_postgres(max_connections=max_connections, settings=settings) as postgres:
        if counts:
            # Beside the application's databases, which stay as its migrations make them.
            query(_renamed(postgres.admin_url, _SHARED), f"CREATE EXTENSION {_STATISTICS}")
        yield EmbeddedDatabases(postgres, driver)
