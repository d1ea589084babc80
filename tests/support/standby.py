"""A second PostgreSQL server that follows an embedded one by streaming replication, and may be promoted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg2

from db.binaries import as_server_user, find_binaries, server_user
from db.child import Child
from tests.support.server_process import free_port, wait_until

if TYPE_CHECKING:
    from db.embedded import EmbeddedPostgres


class Standby:
    """The server, started from a base backup of `primary`; every commit there waits for it from then on.

    `url` and `admin_url` are as those of the primary, at this server's own port.
    """

    def __init__(self, primary: EmbeddedPostgres) -> None:
        self._primary = primary
        self.port = free_port()
        self.url, self.admin_url = (
            url.replace(f":{primary.port}/", f":{self.port}/") for url in (primary.url, primary.admin_url)
        )
        self.folder = Path(tempfile.mkdtemp(prefix="poolbench-standby-", dir="/var/tmp" if server_user() else None))
        if user := server_user():
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def __enter__(self) -> Self:
        binaries, data = find_binaries(), self.folder / "pgdata"
        backup = [
            binaries / "pg_basebackup",
            "-d",
            self._primary.admin_url,
            "-D",
            data,
            "-R",
            "-c",
            "fast",
            "--no-sync",
        ]
        done = subprocess.run(
            backup, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False, **as_server_user()
        )
        assert done.returncode == 0, done.stderr
        command = [binaries / "postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "shared_buffers=32MB", "-c", "lc_messages=C"]
        self._child = Child(command, log=self.folder / "server.log", cwd=self.folder, **as_server_user())
        self._child.await_ready(self.follows, 30)
        with closing(psycopg2.connect(self._primary.admin_url)) as admin:
            admin.autocommit = True
            admin.cursor().execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.cursor().execute("SELECT pg_reload_conf()")
        wait_until(lambda: self._asked(self._primary.admin_url, "SELECT sync_state FROM pg_stat_replication") == "sync")
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def follows(self) -> bool:
        """Whether it answers, and is a standby."""
        return self._asked(self.admin_url, "SELECT pg_is_in_recovery()") is True

    def promote(self) -> None:
        """Make it a primary; returns once it takes writes."""
        assert self._asked(self.admin_url, "SELECT pg_promote()") is True
        wait_until(lambda: self._asked(self.admin_url, "SELECT pg_is_in_recovery()") is False)

    @staticmethod
    def _asked(url: str, question: str) -> object:
        try:
            with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
                cursor.execute(question)
                row = cursor.fetchone()
                return row[0] if row else None
        except psycopg2.OperationalError:
            return None
