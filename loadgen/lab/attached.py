"""What runs inside the server processes of a user's own application. It is copied as `sitecustomize.py` into the folder that
these processes find first on their path, so Python runs it before the application.

It puts the strategy's pool into every SQLAlchemy engine for PostgreSQL, adds Server-Timing to the answers, keeps the
application away from any other PostgreSQL than the one given, and writes down what it saw as JSON lines, one file for each
process, from which the lab proves that the given database was used. It imports nothing but the standard library until
the application itself has imported SQLAlchemy, a driver or a server.

It runs in the processes of the setup commands, too, where it only keeps them away from other databases.

The file that `POOLBENCH_ATTACHED` names is JSON: `strategy` (null: of a setup command, whose engines stay as they are),
`parameters` (the plugin's), `host`, `port`, `database` and `identity` of the database given, `way`: host and port by which
the application is to reach it, `most` (connections that each process may open; null: no limit), `evidence`, a folder, and
`watch`: whether loans, statements and requests are watched, for `loadgen doctor`.
"""

from __future__ import annotations

import _thread
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import re
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

IDENTITY = "SELECT extract(epoch FROM pg_postmaster_start_time())::text || ' ' || current_database()"
"""Asks a server for what tells one database from every other, whatever way leads there."""

_NAMES = re.compile(
    r"DATABASE|(^|_)DB(?!US)|POSTGRES|^PG(HOST|DATABASE|SERVICE)$|SQL|DSN|(^|_)(URI|URL)$|SETTINGS|CONFIG",
    re.IGNORECASE,
)
_PARTS = re.compile(r"HOST|PORT|USER|PASS|DATABASE|(^|_)(DB|NAME)(_|$)", re.IGNORECASE)
_LIBRARIES = re.compile(
    r"^(DISABLE_SQLALCHEMY|_?PYTHON|GUNICORN|DJANGO_SETTINGS)|REDIS|CELERY|BROKER|AMQP|RABBIT|KAFKA|MONGO|ELASTIC|SENTRY|MAIL|SMTP"
)
"""Variables that libraries read for themselves, and those that name other servers than databases."""
_OURS = "POOLBENCH_ATTACHED"
_GUARDED = ("psycopg2", "psycopg")
"""Drivers whose connections are looked at when they are opened, whoever does it."""
_WSGI_PARAMETERS = 2


class _Evidence:
    """What this process and its forks have seen, each event once, as a JSON line in a file of the process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._written: set[tuple[int, str]] = set()

    def add(self, event: str, **values: Any) -> None:
        """Write an event down, unless this process has done so."""
        line = json.dumps({"event": event, **values})
        key = (os.getpid(), line)
        if key not in self._written:
            self._written.add(key)
            with Path(self._folder, f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")


class _Attachment:
    """The changes to the modules that the application imports."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.evidence = _Evidence(given["evidence"])
        self._known: dict[tuple[str, str, str], bool] = {
            (given["host"], str(given["port"]), given["database"]): True,
        }
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._opening = 0
        # Held for no longer than it takes to count.
        self._counting = _thread.allocate_lock()
        self._variables = {name: value for name, value in os.environ.items() if _NAMES.search(name)}

    # Engines

    def sqlalchemy(self, module: Any) -> None:
        """Called with sqlalchemy.engine.create: engines for PostgreSQL get the strategy's pool."""
        inner = module.create_engine

        def create_engine(url: Any, **arguments: Any) -> Any:
            from sqlalchemy import make_url  # noqa: PLC0415 - it is being used

            found = make_url(url)
            self._note_changes()
            if found.get_backend_name() != "postgresql":
                at = f"{found.host or ''}{f':{found.port}' if found.port else ''}"
                self.evidence.add("engine", url=f"{found.get_backend_name()}://{at}/{found.database or ''}")
                return inner(url, **arguments)
            began_ns = time.perf_counter_ns()
            strategy = self.given["strategy"]
            # The strategies' pools do not work with asyncio.
            is_kept = bool(arguments.get("_is_async")) and strategy != "own"
            is_plain = strategy is None or self.given.get("watch") or is_kept
            engine = inner(found if is_plain else self._pooled(found), **arguments)
            if self.given.get("watch"):
                self._watch(engine, time.perf_counter_ns() - began_ns)
            self._observe(engine, found, is_kept=is_kept and strategy is not None)
            return engine

        module.create_engine = create_engine

    def _note_changes(self) -> None:
        """Write down which variables that may name a database have another value than at the start of the process."""
        # A copy, as these are not read by the application.
        now = dict(os.environ)
        for name, value in self._variables.items():
            if now.get(name) != value:
                self.evidence.add("changed", name=name)

    def _pooled(self, url: Any) -> Any:
        from poolbench import PoolbenchPlugin  # noqa: PLC0415 - SQLAlchemy is being used

        strategy = self.given["strategy"]
        if strategy == "own" and "poolbench" in (url.query.get("plugin") or ()):
            return url
        bare = url.difference_update_query(["plugin", *PoolbenchPlugin.names])
        return bare.update_query_dict({"plugin": "poolbench", "pool": strategy, **self.given["parameters"]})

    def _watch(self, engine: Any, making_ns: int) -> None:
        """Watch the application's engine; without the plugin, whose times of each loan the doctor does not need."""
        from poolbench.timed import cooperate  # noqa: PLC0415 - SQLAlchemy is being used

        if not engine.dialect.is_async:
            if self.given["strategy"] is not None:
                cooperate(engine)
            self._watched().watch(engine, making_ns=making_ns)

    def _watched(self) -> Any:
        """The library's watching, set to write what it sees into the folder of evidence when it is asked to."""
        from poolbench import watching  # noqa: PLC0415 - SQLAlchemy is being used

        watching.record_all(Path(self.given["evidence"]))
        return watching

    def _observe(self, engine: Any, url: Any, *, is_kept: bool) -> None:
        """Write down the engine and its loans; `is_kept`: it has its own pool, where the strategy is another."""
        from sqlalchemy import event  # noqa: PLC0415

        place = str(url.host or ""), str(url.port or 5432), str(url.database or "")
        where = f"postgresql://{place[0]}:{place[1]}/{place[2]}"
        self.evidence.add("engine", url=where, driver=url.get_driver_name(), given=self._is_named(place))
        if engine.dialect.is_async or engine.dialect.driver not in _GUARDED:
            event.listen(engine, "connect", lambda connection, _record: self._check_other(engine, connection, place))

        def lent(connection: Any, record: Any, _proxy: Any) -> None:
            if record.info.get(_OURS) == os.getpid():
                # Said of this connection already: each loan comes by here.
                return
            record.info[_OURS] = os.getpid()
            opened(connection, record)

        def opened(connection: Any, _record: Any) -> None:
            if is_kept:
                self.evidence.add("kept")
                return
            at = _place(connection) or place
            self.evidence.add("lent", given=self._known.get(at, False), pool=type(engine.pool).__name__.strip("_"))

        # A listener to loans makes each of them slower. A watched pool opens a connection only to lend it, or soon after.
        event.listen(engine, *(("connect", opened) if self.given.get("watch") else ("checkout", lent)))

    # Drivers

    def psycopg2(self, module: Any) -> None:
        """Called with the module psycopg2."""
        module.connect = self._guarded(module.connect, module)

    def psycopg(self, module: Any) -> None:
        """Called with the module psycopg."""
        inner = module.Connection.connect.__func__
        module.Connection.connect = classmethod(self._guarded(inner, module))
        # SQLAlchemy calls the module's function, and psycopg_pool the class's.
        module.connect = module.Connection.connect

    def _guarded(self, inner: Callable[..., Any], module: Any) -> Callable[..., Any]:
        def connect(*given: Any, **named: Any) -> Any:
            most = self.given["most"]
            with self._counting:
                if most is not None and self._opening + sum(not each.closed for each in self._open) >= most:
                    raise module.OperationalError(f"FATAL: too many connections: loadgen lets each process open {most}")
                self._opening += 1
            began_ns, connection = time.perf_counter_ns(), None
            try:
                connection = inner(*given, **named)
            except module.OperationalError:
                self._unreachable(_asked_for(module, given, named))
                raise
            finally:
                with self._counting:
                    self._opening -= 1
                    if connection is not None:
                        self._open.add(connection)
            self._check(connection, module)
            if self.given.get("watch"):
                self._watched().opened_by_driver(connection, time.perf_counter_ns() - began_ns)
            return connection

        return connect

    def _check(self, connection: Any, module: Any) -> None:
        """Close a connection to any other database than the one given, and raise the driver's OperationalError."""
        place = _place(connection)
        if place is None or getattr(connection, "async_", False):
            return
        if self._leads_to_given(place, connection, lambda: _plain_cursor(connection, module)):
            self.evidence.add("connected", driver=module.__name__)
            return
        host, port, database = place
        where = self._asked_for_other("elsewhere", host, port, database, connection.info.user, connection.info.password)
        connection.close()
        raise module.OperationalError(f"loadgen keeps the application away from {where}: it is not the database given")

    def _check_other(self, engine: Any, connection: Any, place: tuple[str, str, str]) -> None:
        """As `_check`, for a connection of an engine whose driver is not guarded itself; `place`: that of the URL."""
        if not self._leads_to_given(place, connection, connection.cursor):
            where = self._asked_for_other("elsewhere", *place, engine.url.username or "", engine.url.password or "")
            connection.close()
            raise engine.dialect.dbapi.Error(
                f"loadgen keeps the application away from {where}: it is not the database given"
            )

    def _unreachable(self, asked: dict[str, str]) -> None:
        """Write down a connection that failed if it was to any other database than the one given.

        It may have been to one that the application can do without, such as a replica.
        """
        host, port, database = (asked[name] for name in ("host", "port", "dbname"))
        way = (_loopback(self.given["way"][0]), str(self.given["way"][1]))
        if self._is_named((host, port, database)) or (_loopback(host), port) == way:
            return
        self._asked_for_other("unreachable", host, port, database, asked["user"], asked["password"])

    def _asked_for_other(self, event: str, host: str, port: str, database: str, user: str, password: str) -> str:
        """Write down that another database was asked for, and which variables name it. Returns its URL."""
        parts = {"host": host, "port": port, "database": database, "user": user, "password": password}
        # The end of a password that has an @ in it, which the application put into a URL as it is.
        _, unquoted, host = host.rpartition("@")
        where = f"postgresql://{host}:{port}/{database}"
        self.evidence.add(
            event,
            url=where,
            variables=sorted(_variables_naming(host, port, database)),
            parts=dict(sorted(_variables_of_parts(parts))),
            unquoted=bool(unquoted),
        )
        return where

    def _is_named(self, place: tuple[str, str, str]) -> bool:
        """Whether this host, port and database are known to be the one given, by whatever way, without asking a server."""
        ways = {(*map(str, self.given["way"]), self.given["database"]), *self._known}
        return (_loopback(place[0]), *place[1:]) in {(_loopback(way[0]), *way[1:]) for way in ways}

    def _leads_to_given(self, place: tuple[str, str, str], connection: Any, cursor: Callable[[], Any]) -> bool:
        """Whether this place is the database given; a new one is asked, with a cursor whose rows are tuples.

        A connection that cannot be asked is closed.
        """
        if place not in self._known:
            try:
                self._known[place] = self._is_given(connection, cursor())
            except BaseException:
                connection.close()
                raise
        return self._known[place]

    def _is_given(self, connection: Any, cursor: Any) -> bool:
        try:
            cursor.execute(IDENTITY)
            return bool(cursor.fetchone()[0] == self.given["identity"])
        finally:
            cursor.close()
            connection.rollback()

    # Servers

    def gunicorn(self, module: Any) -> None:
        """Called with gunicorn.workers.base."""
        inner = module.Worker.load_wsgi

        def load_wsgi(worker: Any) -> None:
            try:
                inner(worker)
            except SystemExit as error:
                # gunicorn would start one worker after the other.
                self.evidence.add(
                    "exits", said=error.code if isinstance(error.code, str) else f"exit code {error.code}"
                )
                raise
            worker.wsgi = self.timed(worker.wsgi)

        module.Worker.load_wsgi = load_wsgi

    def waitress(self, module: Any) -> None:
        """Called with waitress.server."""
        inner = module.create_server
        module.create_server = lambda application, *given, **named: inner(self.timed(application), *given, **named)

    def werkzeug(self, module: Any) -> None:
        """Called with werkzeug.serving."""
        inner = module.BaseWSGIServer.__init__

        def initialise(server: Any, host: str, port: int, app: Any, *given: Any, **named: Any) -> None:
            inner(server, host, port, self.timed(app), *given, **named)

        module.BaseWSGIServer.__init__ = initialise

    def pywsgi(self, module: Any) -> None:
        """Called with gevent.pywsgi."""
        inner = module.WSGIServer.__init__

        def initialise(server: Any, listener: Any, application: Any = None, *given: Any, **named: Any) -> None:
            inner(server, listener, None if application is None else self.timed(application), *given, **named)

        module.WSGIServer.__init__ = initialise

    def timed(self, application: Any) -> Any:
        """The application with Server-Timing in its answers; made by its factory where it is one."""
        if getattr(application, "is_timed_by_poolbench", False):
            return application
        called = type(application).__call__ if not inspect.isfunction(application) else application
        if inspect.iscoroutinefunction(called):
            self.evidence.add("asgi")
            raise TypeError("an ASGI application: loadgen runs WSGI applications")
        if (parameters := _of_no_application(application)) is not None:
            self.evidence.add("function", parameters=parameters)
            raise TypeError(f"a function of {parameters}: WSGI applications take environ and start_response")
        if _is_factory(application):
            self.evidence.add("factory")
            application = application()
        # Imported now, so that it finds gevent's locks where the server's worker has put them in place.
        try:
            from poolbench import server_timing  # noqa: PLC0415
        except ImportError as error:
            self.evidence.add("library", error=str(error))
            raise
        # The doctor does without Server-Timing, which costs CPU in every answer.
        watched = self.given.get("watch")
        timed: Any = self._watched().watched_requests(application) if watched else server_timing(application)
        timed.is_timed_by_poolbench = True
        return timed


def _is_factory(application: Any) -> bool:
    """Whether this is a function that can be called without arguments and so is no WSGI application, which needs two."""
    if not inspect.isfunction(application):
        return False
    parameters = inspect.signature(application).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return False
    return all(each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in parameters)


def _of_no_application(application: Any) -> str | None:
    """The parameters of a function that needs some, but not the two of a WSGI application; None for all others."""
    if not inspect.isfunction(application):
        return None
    parameters = inspect.signature(application).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return None
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    return ", ".join(needed) if needed and len(needed) != _WSGI_PARAMETERS else None


def _place(connection: Any) -> tuple[str, str, str] | None:
    """Host, port and database of a connection of psycopg2 or psycopg; None for other drivers'."""
    info = getattr(connection, "info", None)
    try:
        return (str(info.host or ""), str(info.port), str(info.dbname))  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001 - each driver has its own kind of info, or none
        return None


def _plain_cursor(connection: Any, module: Any) -> Any:
    """A cursor of psycopg2 or psycopg whose rows are tuples, whatever cursors and rows the application has chosen."""
    if module.__name__ == "psycopg2":
        extensions = module.extensions
        return extensions.connection.cursor(connection, cursor_factory=extensions.cursor)
    return module.Cursor(connection, row_factory=module.rows.tuple_row)


def _asked_for(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, str]:
    """Host, port, dbname, user and password of a call of psycopg2's or psycopg's connect, as libpq takes them."""
    texts = [text for text in (*given, named.get("dsn"), named.get("conninfo")) if isinstance(text, str)]
    parse = module.extensions.parse_dsn if module.__name__ == "psycopg2" else module.conninfo.conninfo_to_dict
    asked = {**(parse(texts[0]) if texts else {}), **named}
    # A copy, as these are not the application's to read.
    variables = dict(os.environ)
    user = str(asked.get("user") or variables.get("PGUSER", ""))
    return {
        "host": str(asked.get("host") or variables.get("PGHOST", "")),
        "port": str(asked.get("port") or variables.get("PGPORT", "5432")),
        "dbname": str(asked.get("dbname") or asked.get("database") or variables.get("PGDATABASE", user)),
        "user": user,
        "password": str(asked.get("password") or variables.get("PGPASSWORD", "")),
    }


def _loopback(host: str) -> str:
    """The host, with one name for all those of loopback."""
    return "127.0.0.1" if host in {"localhost", "::1"} else host


def _variables_naming(host: str, port: str, database: str) -> Iterator[str]:
    """Names of the variables whose value names this database; none without a host, which any other's would match."""
    if not host or not database:
        return
    parts = [re.compile(rf"[/=]{re.escape(database)}\b"), re.compile(re.escape(host))]
    parts += [re.compile(rf"[:=]{port}\b")] if port != "5432" else []
    for name, value in os.environ.items():
        if name != _OURS and all(part.search(value) for part in parts):
            yield name


def _variables_of_parts(parts: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Names of the variables whose value is a part of this database's address, and which part."""
    for name, value in os.environ.items():
        if _NAMES.search(name) or _PARTS.search(name):
            same = [part for part, known in parts.items() if known and value == known]
            if same:
                # A user is often called as the database is.
                yield name, next((part for part in same if part[:4] in name.lower()), same[0])


def _watched_environment(evidence: _Evidence) -> type:
    """A class for os.environ that writes down which variables that may name a database are read."""

    class Watched(type(os.environ)):  # type: ignore[misc]
        listed: tuple[str, ...] = ()

        def __iter__(self) -> Iterator[str]:
            self.listed = tuple(super().__iter__())
            return iter(self.listed)

        def __getitem__(self, key: str) -> str:
            # A copy of all variables asks for one after the other, which is not a sign of interest.
            copied = self.listed[:1] == (key,)
            self.listed = self.listed[1:] if copied else ()
            if (
                isinstance(key, str)
                and not copied
                and _NAMES.search(key)
                and not _LIBRARIES.search(key)
                and key != _OURS
            ):
                evidence.add("read", name=key)
            found: str = super().__getitem__(key)
            return found

    return Watched


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with each module of a list, when it has been imported."""

    def __init__(self, told: dict[str, Callable[[Any], None]]) -> None:
        self._told = told

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Called by Python for each import; says nothing of modules that are not on the list."""
        if name not in self._told:
            return None
        spec = next(
            (
                found
                for finder in sys.meta_path
                if finder is not self and (found := finder.find_spec(name, path, target)) is not None
            ),
            None,
        )
        if spec is None or spec.loader is None:
            return spec
        inner = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            inner(module)
            # Only now, as a spec may be asked for without an import; and once, as finders that ask others wrap loaders twice.
            if tell := self._told.pop(module.__name__, None):
                tell(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _run_the_hosts_own() -> None:
    """Run the sitecustomize.py that this one hides, if there is one."""
    here = str(Path(__file__).resolve().parent)
    elsewhere = [folder for folder in sys.path if folder and str(Path(folder).resolve()) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def attach(path: str) -> None:
    """Prepare this process as the file at `path` says."""
    attachment = _Attachment(json.loads(Path(path).read_text(encoding="utf-8")))
    attachment.evidence.add("attached")
    os.environ.__class__ = _watched_environment(attachment.evidence)
    sys.meta_path.insert(
        0,
        _AfterImport(
            {
                "sqlalchemy.engine.create": attachment.sqlalchemy,
                "psycopg2": attachment.psycopg2,
                "psycopg": attachment.psycopg,
                "gunicorn.workers.base": attachment.gunicorn,
                "waitress.server": attachment.waitress,
                "werkzeug.serving": attachment.werkzeug,
                "gevent.pywsgi": attachment.pywsgi,
            }
        ),
    )


if __name__ == "sitecustomize":
    if "POOLBENCH_ATTACHED" in os.environ:
        attach(os.environ["POOLBENCH_ATTACHED"])
    _run_the_hosts_own()
