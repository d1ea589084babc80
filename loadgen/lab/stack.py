"""The arrangement under test: a PostgreSQL, the service's servers, and what can be seen of both from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol, Self

import psutil
import psycopg2

from db.child import Child, ChildError
from loadgen.environment import TREE
from loadgen.lab.evidence import Connecting, Failures, Memory

_START_PATIENCE_S = 60.0
_CONFIGURING = ("DB_POOL", "API_TOKEN", "GUNICORN_CMD_ARGS")
_FIRST_PORT = 10_000
_PORTS_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The range of the ports that the system gives, on Linux."""
SAMPLE_EVERY_S = 0.05
_CLIENTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL"
    " AND coalesce(backend_type, 'client backend') = 'client backend'"
)
"""Counts the clients' sessions. An ordinary role is not shown the type of another role's session, but its database and user."""
_COUNT_BACKENDS = f"{_CLIENTS} AND datname = current_database() AND pid <> pg_backend_pid()"
_FREE = f"""
SELECT current_setting('max_connections')::int,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int - ({_CLIENTS}),
    CASE WHEN rolconnlimit >= 0 AND NOT rolsuper THEN rolconnlimit - ({_CLIENTS} AND usename = session_user) END,
    CASE WHEN datconnlimit >= 0 AND NOT rolsuper THEN datconnlimit - ({_CLIENTS} AND datname = current_database()) END
FROM pg_roles, pg_database WHERE rolname = session_user AND datname = current_database()
"""  # noqa: S608 - nothing but constants


class StackError(Exception):
    """A program under test could not be started; the message is one line."""


class PartError(StackError):
    """A program that this tool brings along could not be started, or has ended: the user's input is not at fault."""


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A program for gunicorn to serve: its configuration file, the application, the folder to start it in, and a path that
    answers when it is ready. `options`, for gunicorn's command line, override the configuration file.
    """

    configuration: Path
    application: str
    folder: Path | None = None
    ready_path: str = "/live"
    options: tuple[str, ...] = ()

    def command(self, _address: tuple[str, int], _count: int) -> list[str]:
        """The command line that serves the program."""
        # With -P, only gunicorn itself adds to the import path: the program's folder.
        gunicorn = [sys.executable, "-P", "-m", "gunicorn"]
        return [*gunicorn, "-c", str(self.configuration), *self.options, self.application]

    def environment(self, address: tuple[str, int], count: int) -> dict[str, str]:
        """The environment of its processes: the host's, without what would configure the program, and its address."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_CONFIGURING)}
        return {**kept, "WEB_CONCURRENCY": str(count), "HOST": address[0], "PORT": str(address[1])}

    def awaited_workers(self, count: int) -> int:
        """Number of child processes without which it is not ready."""
        return count

    def is_hopeless(self) -> bool:
        """Whether it was seen that it will never be ready."""
        return False


class Program(Protocol):
    """What `Servers` can serve; `ServerProgram` is one."""

    @property
    def folder(self) -> Path | None:
        """The folder to start it in."""

    @property
    def ready_path(self) -> str:
        """A path that answers when it is ready."""

    def command(self, _address: tuple[str, int], _count: int) -> list[str]:
        """As in ServerProgram."""

    def environment(self, address: tuple[str, int], count: int) -> dict[str, str]:
        """As in ServerProgram."""

    def awaited_workers(self, count: int) -> int:
        """As in ServerProgram."""

    def is_hopeless(self) -> bool:
        """As in ServerProgram."""


def service() -> ServerProgram:
    """This project's own service, as a program to serve."""
    return ServerProgram(TREE / "wsgi" / "gunicorn_conf.py", "wsgi:create_app()", TREE)


class Servers:
    """A program that is being served: `count` workers, each a server with its own connections, on one port of loopback."""

    def __init__(
        self,
        program: Program,
        count: int,
        settings: Mapping[str, str],
        log: Path,
        masked: Callable[[str], str] = str,
    ) -> None:
        """`masked` removes passwords from what the log has, before any of it gets into a message."""
        self._program = program
        self._count = count
        self._log = log
        self._masked = masked
        self._child: Child | None = None
        self.port = free_port()
        self._settings = settings

    @property
    def url(self) -> str:
        """URL at which the servers answer."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when every server answers. Raises StackError."""
        program, address = self._program, ("127.0.0.1", self.port)
        try:
            child = self._child = Child(
                program.command(address, self._count),
                log=self._log,
                death_signal=signal.SIGTERM,
                env={**program.environment(address, self._count), **self._settings},
                cwd=program.folder,
            )
        except OSError as error:
            raise PartError(f"the servers did not start: {error.filename}: {error.strerror}") from None
        try:
            child.await_ready(lambda: self._ready(child), _START_PATIENCE_S)
        except ChildError as error:
            self._child = None
            shown = ChildError(error.failure, self._masked(error.output))
            raise PartError(f"the servers did not start: {self._complaint(shown)}") from None
        except BaseException:
            self._child = None
            raise

    def stop(self) -> None:
        """Ends all server processes: SIGTERM to gunicorn, after 15 s SIGKILL to those that are left."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def cpu_s(self) -> float:
        """CPU seconds that all server processes have used so far."""
        return cpu_of_tree(self._child.pid) if self._child else 0.0

    def failures(self) -> Failures:
        """Failed requests so far, as the log has them."""
        kinds: Counter[str] = Counter()
        example = None
        with self._log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                kind = _failure_kind(line)
                if kind is not None:
                    kinds[kind] += 1
                    example = example or line.strip()
        return Failures(dict(kinds), example)

    def answers(self, path: str, beginning: bytes = b"HTTP/1.1 200") -> bool:
        """Whether the answer to a GET of the path begins with the status expected."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(beginning)
        return False

    def _complaint(self, error: ChildError) -> str:
        """The reason why a server did not start: the last exception in its log, else the log's last lines."""
        if reason := last_error(error.output):
            return reason
        if error.failure == "ended with exit code 0":
            return f"the command ended by itself, where a server has to stay in the foreground; {error}"
        if not error.failure.startswith("was not ready"):
            return str(error)
        return f"nothing answered at 127.0.0.1:{self.port} within {_START_PATIENCE_S:.0f} s: it listens elsewhere, or {error}"

    def _ready(self, parent: Child) -> bool:
        """Whether all workers have been forked (they serve only afterwards) and the port answers."""
        if self._program.is_hopeless():
            raise PartError("the servers did not start")
        workers = psutil.Process(parent.pid).children()
        return len(workers) >= self._program.awaited_workers(self._count) and self.answers(
            self._program.ready_path, b"HTTP/1."
        )


def _failure_kind(line: str) -> str | None:
    """SQLSTATE of a failed request's log line, or the kind of failure in its words; None for other lines."""
    if not line.startswith("{") or '"trace"' not in line:
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    trace = str(entry.get("trace", ""))
    for state in ("53300", "57014", "57P01"):
        if state in trace:
            return state
    return str(entry.get("msg", "other"))


class SessionSampler(threading.Thread):
    """Looks at the database's sessions 20 times a second, on a connection of its own, while its block lasts."""

    def __init__(self, monitor_url: str) -> None:
        super().__init__(daemon=True)
        self._url = monitor_url
        self.connection = connect(monitor_url)
        self._done = threading.Event()

    def look(self) -> None:
        """Look once, by a query on `connection`. Subclasses define it; it may raise psycopg2.Error."""
        raise NotImplementedError

    def run(self) -> None:
        """Look until the block is left. A database that ends its sessions to recover is asked again until it answers."""
        while not self._done.wait(SAMPLE_EVERY_S):
            self.try_to_look()

    def try_to_look(self) -> None:
        """Look once, on a new connection if the database has ended the one before; do nothing if it does not answer."""
        with contextlib.suppress(psycopg2.Error):
            if self.connection.closed:
                self.connection = connect(self._url)
            self.look()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        self.connection.close()


class BackendWatch(SessionSampler):
    """Counts the database's client backends, except its own, and keeps the peak."""

    def __init__(self, monitor_url: str) -> None:
        super().__init__(monitor_url)
        self.peak = 0

    def run(self) -> None:
        """Look at once, until the block is left, and once more then: a block may be shorter than the time between two looks."""
        self.try_to_look()
        super().run()
        self.try_to_look()

    def look(self) -> None:
        """Count once."""
        with self.connection.cursor() as cursor:
            cursor.execute(_COUNT_BACKENDS)
            self.peak = max(self.peak, cursor.fetchone()[0])


def connect(url: str) -> Any:
    """A plain autocommitting psycopg2 connection. Raises psycopg2.Error."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def query(url: str, statement: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The rows of one statement on a connection of its own."""
    with contextlib.closing(connect(url)) as connection, connection.cursor() as cursor:
        # Without arguments, a per cent sign stands for itself.
        cursor.execute(statement, arguments or None)
        return list(cursor.fetchall()) if cursor.description else []


def count_backends(monitor_url: str) -> int:
    """Number of the database's client backends, except the one of this query."""
    return int(query(monitor_url, _COUNT_BACKENDS)[0][0])


def free_connections(url: str) -> tuple[int, int]:
    """Connections that a database would still let in for the role of this URL, and those that its server allows in all.

    Reserved ones are not free; the limits of the role and of the database count, too. Raises psycopg2.Error.
    """
    ((most, *free),) = query(url, _FREE)
    return max(0, min(each for each in free if each is not None)), most


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process and of all its children, living or ended, and theirs."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_cpu_s() -> float:
    """CPU seconds that all programs of the machine have used so far, and those taken by other virtual machines (steal)."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "steal"))


def measure_connecting(url: str, times: int = 20) -> Connecting:
    """Opens connections one after the other and takes the median time. Raises psycopg2.Error."""
    took_ms = []
    for _ in range(times):
        started = time.monotonic()
        connect(url).close()
        took_ms.append((time.monotonic() - started) * 1000)
    settings = "current_setting('server_version_num')::int, current_setting('max_connections')::int"
    ((version, max_connections),) = query(url, f"SELECT {settings}")
    authentication = None
    if version >= 160000:
        ((user,),) = query(url, "SELECT system_user")
        authentication = "trust" if user is None else user.partition(":")[0]
    return Connecting(statistics.median(took_ms), authentication, max_connections)


# Page tables, kernel stack and slab, which are not in PSS.
_KERNEL_MB_PER_BACKEND = 0.13


def measure_memory(pid: int, app_url: str, statements: tuple[str, ...], counts: tuple[int, int] = (10, 50)) -> Memory:
    """Opens connections, warms each with `statements`, and takes the slope of summed PSS between two counts.

    The PSS of a single backend would be wrong: whichever touches a buffer first is charged for all of it.
    """
    with contextlib.ExitStack() as opened:
        base_mb = sum(private for private, _ in memory_of_tree(pid))
        connections: list[Any] = []
        sums = []
        for count in counts:
            while len(connections) < count:
                connections.append(opened.enter_context(contextlib.closing(connect(app_url))))
                with connections[-1].cursor() as cursor:
                    for statement in statements:
                        cursor.execute(statement)
            sums.append(sum(pss for _, pss in memory_of_tree(pid)))
        with connections[0].cursor() as cursor:
            cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'shared_memory_size'")
            shared_mb = float(cursor.fetchone()[0])
    slope = (sums[1] - sums[0]) / (counts[1] - counts[0])
    return Memory(slope + _KERNEL_MB_PER_BACKEND, shared_mb, base_mb, counts)


def memory_of_tree(pid: int) -> Iterator[tuple[float, float]]:
    """Memory of the postmaster and of each child, as (private MB, PSS MB)."""
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            yield info.uss / 2**20, info.pss / 2**20


def free_port() -> int:
    """A port of the loopback address on which nothing listens at the moment.

    Where there are some, one that the system gives to no connection and to no program that asks for any port: it would be taken
    before whoever asked for it listens.
    """
    try:
        ends = int(_PORTS_GIVEN.read_text("ascii").split()[0])
    except (OSError, ValueError):
        ends = 0
    candidates = range(_FIRST_PORT, max(_FIRST_PORT, ends))
    for port in (*SystemRandom().sample(candidates, min(100, len(candidates))), 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StackError("no port of 127.0.0.1 is free")


def last_error(log: str) -> str | None:
    """The line of the last exception in a log, or of the last message of a database driver's or of gunicorn's own.

    An error of syntax is told with its place. None where the log has no such line.
    """
    raised = list(_ERROR_LINE.finditer(log))
    if not raised:
        return None
    line = raised[-1].group().strip()
    places = re.findall(r'^ *File "(.+)", line (\d+)$', log[: raised[-1].start()], re.MULTILINE)
    if places and line.startswith(("SyntaxError", "IndentationError", "TabError")):
        line = f"{':'.join(places[-1])}: {line}"
    return line[:300]


_ERROR_LINE = re.compile(
    r"^[ \t]*(?:[\w.]*(?:Error|Exception|DoesNotExist|Undefined\w+)\b.*:.*|\(\w+\.[\w.]+\) .*"
    r"|psycopg2?\.errors\.\w+: .*|(?:psql:\S+ )?(?:ERROR|FATAL):  .*"
    r"|\[.*\] (?:WORKER TIMEOUT .*|Worker \(pid:\d+\) was sent SIG(?:KILL|SEGV|ABRT|BUS).*)"
    r"|Failed to (?:find attribute|find application|parse) .*|Application object must be callable.*)$",
    re.MULTILINE,
)
