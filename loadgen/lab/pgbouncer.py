"""A real PgBouncer in transaction mode between servers and an embedded PostgreSQL, with SCRAM passwords on both sides.

It knows the role by PostgreSQL's own secret: PgBouncer checks a client's password with it and, as the secret is the same on
both sides, logs in with the key that the client's login gave it. No password is in its files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Self

from sqlalchemy import make_url

from db.binaries import as_server_user, server_user
from db.child import Child, ChildError
from db.embedded import ROLE, EmbeddedPostgres
from loadgen.lab.stack import PartError, StackError, cpu_of_tree, free_port, query

MAX_CLIENTS = 2000
"""Connections that PgBouncer accepts: more than 4 servers with a connection per request have open at once."""

_SESSION = "SET statement_timeout = 10000; SET client_connection_check_interval = 100"
"""Setting that the service asks for in each session; in transaction mode, PgBouncer owns the sessions."""

_START_PATIENCE_S = 10.0
_STOP_PATIENCE_S = 3.0


class PgBouncer:
    """Started on entering, on a free port of 127.0.0.1; stopped on leaving, and by the death of the process that started it.

    It opens at most `pool_size` server connections, however many clients there are. `server_port` replaces PostgreSQL's own
    port if something else is between the two. Raises StackError if PgBouncer is not installed or does not start.
    """

    def __init__(self, postgres: EmbeddedPostgres, *, pool_size: int = 20, server_port: int | None = None) -> None:
        self._program = find()
        self._postgres = postgres
        self._pool_size = pool_size
        self._server_port = server_port or postgres.port
        self._child: Child | None = None
        self.port = free_port()
        # PgBouncer's user can reach this folder, and it is removed with the database's.
        self._folder = postgres.data_dir / f"pgbouncer-{self.port}"

    @property
    def url(self) -> str:
        """URL for the application: that of its database role, with PgBouncer's port."""
        return make_url(self._postgres.url).set(port=self.port).render_as_string(hide_password=False)

    def cpu_s(self) -> float:
        """CPU seconds that PgBouncer has used so far. It has one thread, so it can use one core at most."""
        return cpu_of_tree(self._child.pid) if self._child else 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when a statement has gone through PgBouncer and back. Raises StackError."""
        secret = query(self._postgres.admin_url, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", (ROLE,))[0][0]
        self._folder.mkdir()
        self._write("users.txt", f'"{ROLE}" "{secret}"\n')
        text = configuration(self.port, self._server_port, self._pool_size, self._folder / "users.txt")
        path = self._write("pgbouncer.ini", text)
        if user := server_user():
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        child = self._child = Child(
            [self._program, path],
            log=self._folder / "pgbouncer.log",
            patience_s=_STOP_PATIENCE_S,
            cwd=self._folder,
            # It refuses to run as root.
            **as_server_user(),
        )
        try:
            child.await_ready(self._answers, _START_PATIENCE_S)
        except ChildError as error:
            self.stop()
            raise PartError(f"PgBouncer did not start: {_complaints(error)}") from None

    def stop(self) -> None:
        """Ends the process, after 3 s with SIGKILL, as it keeps nothing that could be lost, and removes its folder."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return query(f"{self.url}?connect_timeout=2", "SELECT 1") == [(1,)]
        return False

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        if user := server_user():
            os.chown(path, user.pw_uid, user.pw_gid)
        return path


def find() -> str:
    """Path of the installed PgBouncer. Raises StackError if it is not installed."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise StackError(
            "PgBouncer is not installed (Debian and Ubuntu: apt-get install pgbouncer; macOS: brew install pgbouncer)"
        )
    return found


def version() -> str:
    """Version of the installed PgBouncer, such as "PgBouncer 1.18.0". Raises StackError."""
    done = subprocess.run([find(), "--version"], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    return (done.stdout.splitlines() or ["PgBouncer"])[0]


def configuration(port: int, server_port: int, pool_size: int, users: Path) -> str:
    """Text of PgBouncer's configuration file, for 1.14 and later: https://www.pgbouncer.org/config.html."""
    return f"""\
[databases]
{ROLE} = host=127.0.0.1 port={server_port} dbname={ROLE} connect_query='{_SESSION}'

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = {MAX_CLIENTS}
; as DB_POOL_TIMEOUT; its default, two minutes, is how long a request would hang while the database is away
query_wait_timeout = 5
server_login_retry = 1
; a session's limits are set by connect_query: what clients ask for in `options` is not for one client alone
ignore_startup_parameters = options
; a line for each connection would be a cost that a service in production does not have
log_connections = 0
log_disconnections = 0
"""


def _complaints(error: ChildError) -> str:
    """The warnings and errors in PgBouncer's log, without their times; if it has neither, the log's last lines."""
    return "; ".join(re.findall(r"(?:WARNING|ERROR|FATAL) (.+)", error.output))[:300] or str(error)
