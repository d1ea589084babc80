"""A real PostgreSQL server in a folder: no installation, no container, no configuration.

The server is what a deployment would meet: SCRAM passwords over TCP on loopback, and a role that is no superuser, so that
opening a connection costs what it really costs and the reserved slots stay reserved.

One folder holds one server: `pgdata` (the cluster), `credentials.json` (0600), `server.log`, and `owner.lock`, which is
locked by the process that started the server for as long as that process lives. The kernel frees the lock however the
process ends. So a process that gets the lock while the server runs knows that the server's owner is dead, and takes over.
"""

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import SystemRandom
from typing import IO, Self

from db.binaries import EmbeddedPostgresError, as_server_user, check_private, find_binaries, reachable, server_user
from db.child import Child, ChildError

ROLE = "poolbench"
"""Name of the application's role and of its database."""

_ADMIN = "postgres"
_TEMPORARY = "poolbench-temporary-"
# For a start, recovery included, and for a stop.
_PATIENCE_S = 15.0


class EmbeddedPostgres:
    """A PostgreSQL server whose data live in `data_dir`, on a free port of 127.0.0.1.

    `settings` are server parameters by name; they win over `max_connections` and `shared_buffers`. With `shared`, a server
    that already runs in the folder is used as it is and stopped only by its owner; it survives when its owner is killed,
    and the next process to start it becomes its owner. Without `shared`, the server ends with the process that started it,
    and a folder in use by another process is an error.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        max_connections: int = 100,
        shared_buffers: str = "128MB",
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        shared: bool = False,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or 0
        self.pid = 0
        self._parameters = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": str(max_connections),
            "shared_buffers": shared_buffers,
            # `db.errors` tells refused connections apart by their English text.
            "lc_messages": "C",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **(settings or {}),
        }
        self._shared = shared
        self._fixed_port = port is not None
        self._passwords: dict[str, str] = {}
        self._owner: IO[bytes] | None = None
        self._owner_pid = 0
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """URL for the application, whose role owns its database and is not a superuser."""
        return f"postgresql://{ROLE}:{self._passwords[ROLE]}@127.0.0.1:{self.port}/{ROLE}"

    @property
    def admin_url(self) -> str:
        """URL for monitoring: a superuser, who may use the reserved connections."""
        return f"postgresql://{_ADMIN}:{self._passwords[_ADMIN]}@127.0.0.1:{self.port}/{ROLE}"

    @property
    def owned(self) -> bool:
        """Whether this object is the one that stops the server."""
        return self._owner is not None and self._owner_pid == os.getpid()

    def start(self) -> Self:
        """Create the cluster if it does not exist, start the server, and return once it accepts connections.

        Raises EmbeddedPostgresError.
        """
        try:
            self._prepare_folder()
            if self._become_owner_or_guest():
                self._start_as_owner()
            self._passwords = json.loads((self.data_dir / "credentials.json").read_text())
        except OSError as error:
            self._release()
            raise EmbeddedPostgresError(f"{error.filename or self.data_dir}: {error.strerror or error}") from error
        except BaseException:
            self._release()
            raise
        return self

    def stop(self) -> None:
        """End the server with a "fast" stop, which ends its sessions and keeps its data; does nothing for a guest."""
        if self.owned:
            self._end(signal.SIGINT)
            self._release()

    def kill(self) -> None:
        """End the postmaster with SIGKILL, as a crash would; `start()` then recovers the data."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port."""
        self._end(signal.SIGINT)
        self._start_as_owner()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The folder and its owner

    def _prepare_folder(self) -> None:
        user = server_user()
        if user is not None and not reachable(self.data_dir.parent, user.pw_uid):
            raise EmbeddedPostgresError(f"the server runs as {user.pw_name}, who cannot reach {self.data_dir.parent}")
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(self.data_dir.iterdir()) and not (self.data_dir / "owner.lock").exists():
            raise EmbeddedPostgresError(f"{self.data_dir} holds something other than an embedded server")
        if user is not None:
            os.chown(self.data_dir, user.pw_uid, user.pw_gid)
        self.data_dir.chmod(0o700)

    def _become_owner_or_guest(self) -> bool:
        """Whether this object became the owner, who starts the server; if not, the server of another owner is ready."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._become_owner():
            if not self._shared:
                raise EmbeddedPostgresError(f"{self.data_dir} is in use by another process")
            if self._find_running():
                return False
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"the server in {self.data_dir} is being started by another process")
            time.sleep(0.05)
        return True

    def _become_owner(self) -> bool:
        if self._owner is not None:
            return True
        lock = (self.data_dir / "owner.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._owner, self._owner_pid = lock, os.getpid()
        return True

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    # The cluster

    def _create_cluster(self, binaries: Path) -> None:
        """Create the cluster beside its final place and rename it, so that a half-made one is never started."""
        new, pwfile = self.data_dir / "pgdata.new", self.data_dir / "pwfile"
        shutil.rmtree(new, ignore_errors=True)
        passwords = {_ADMIN: secrets.token_urlsafe(24), ROLE: secrets.token_urlsafe(24)}
        _write_private(self.data_dir / "credentials.json", json.dumps(passwords))
        _write_private(pwfile, passwords[_ADMIN], server_user())
        initdb = [
            *(str(binaries / "initdb"), "--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", "--no-sync"),
            *(f"--username={_ADMIN}", f"--pwfile={pwfile}", f"--pgdata={new}"),
        ]
        statements = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{passwords[ROLE]}'\nCREATE DATABASE {ROLE} OWNER {ROLE}\n"
        try:
            self._run(initdb, "")
            self._run([str(binaries / "postgres"), "--single", "-j", "-D", str(new), _ADMIN], _single_user(statements))
        finally:
            pwfile.unlink(missing_ok=True)
        new.rename(self.data_dir / "pgdata")

    def _run(self, command: list[str], text: str) -> None:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, check=False, cwd=self.data_dir, **as_server_user()
        )
        output = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode or "ERROR:" in output:
            raise EmbeddedPostgresError(f"{Path(command[0]).name} failed: {_last_complaint(output)}")

    # The server process

    def _start_as_owner(self) -> None:
        if self._child is not None and not self._child.running:
            self._forget_child()
        if self._find_running():
            if self._shared:
                # Its owner was killed: it is adopted as it is.
                return
            self._end(signal.SIGINT)
        elif self._child is not None:
            # Somebody else has told it to stop, and it has not ended yet.
            self._end(signal.SIGINT)
        binaries = find_binaries()
        if not (self.data_dir / "pgdata" / "PG_VERSION").exists():
            self._create_cluster(binaries)
        deadline = time.monotonic() + _PATIENCE_S
        while (complaint := self._launch(binaries)) is not None:
            # Another process may have taken the port after we looked for a free one.
            port_taken = "Address already in use" in complaint and not self._fixed_port
            # After a kill, backends of the old server may live on for some seconds and hold its shared memory, and an old
            # server that was told to stop may still be at it.
            passes = (
                port_taken or "pre-existing shared memory" in complaint or 'lock file "postmaster.pid"' in complaint
            )
            if not passes or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {complaint} (see {self.data_dir}/server.log)")
            if port_taken:
                self.port = 0
            time.sleep(0.1)
        # The URL that was handed out stays right when the server is restarted.
        self._fixed_port = not self._shared

    def _launch(self, binaries: Path) -> str | None:
        """Start the server and wait until it is ready; returns None, or the reason why it is not."""
        self.port = self.port or _free_port()
        command = [str(binaries / "postgres"), "-D", str(self.data_dir / "pgdata"), "-p", str(self.port)]
        for name, value in self._parameters.items():
            command += ["-c", f"{name}={value}"]
        child = self._child = Child(
            command,
            log=self.data_dir / "server.log",
            stop_signals=(signal.SIGINT, signal.SIGQUIT),
            patience_s=_PATIENCE_S,
            death_signal=None if self._shared else signal.SIGINT,
            cwd=self.data_dir,
            **as_server_user(),
        )
        self.pid = child.pid
        try:
            # The ready server of this folder may also be an old one that has not ended yet.
            child.await_ready(lambda: self._ready_server() == (child.pid, self.port), _PATIENCE_S, every_s=0.01)
        except ChildError as error:
            self._forget_child()
            return f"it {error.failure}: {_last_complaint(error.output, child.pid)}"
        return None

    def _find_running(self) -> bool:
        """Whether the folder's server runs and is ready; `pid` and `port` are then its own."""
        found = self._ready_server()
        if found is None:
            return False
        if self._child is not None and self._child.pid != found[0]:
            # The folder has another server, so ours has refused to start.
            self._forget_child()
        self.pid, self.port = found
        return True

    def _ready_server(self) -> tuple[int, int] | None:
        """Pid and port of the folder's server; None if it is not running, or not ready."""
        try:
            lines = (self.data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return None
        # The server itself writes this word; pg_ctl reads it, too.
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        pid = int(lines[0])
        runs = self._child.running if self._child is not None and self._child.pid == pid else self._is_server(pid)
        return (pid, int(lines[3])) if runs else None

    def _is_server(self, pid: int) -> bool:
        """Whether a process, which we have not started, is this folder's server: an old file may name a later process."""
        # Other systems than Linux do not show a process's folder there.
        if Path("/proc/self/cwd").is_symlink():
            try:
                if Path(f"/proc/{pid}/cwd").readlink() != (self.data_dir / "pgdata").resolve():
                    return False
            except OSError:
                # It has ended, or belongs to another user.
                return False
        return _lives(pid)

    def _end(self, how: signal.Signals) -> None:
        if self._child is not None:
            if how == signal.SIGKILL:
                self._child.kill()
            else:
                self._child.stop(how, signal.SIGQUIT)
        elif self.pid:
            self._end_adopted(how)
        self._forget_child()

    def _end_adopted(self, how: signal.Signals) -> None:
        """End a server that another process started."""
        for each in (how, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, each)
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline:
                if not _lives(self.pid):
                    return
                time.sleep(0.005)
        raise EmbeddedPostgresError(f"the server process {self.pid} does not end")

    def _forget_child(self) -> None:
        if self._child is not None:
            self._child.kill()
        self.pid, self._child = 0, None


@contextlib.contextmanager
def temporary_postgres(
    *, max_connections: int = 100, shared_buffers: str = "128MB", settings: Mapping[str, str] | None = None
) -> Iterator[EmbeddedPostgres]:
    """Run a server in a temporary folder while inside; server and folder are gone afterwards.

    Temporary folders that killed processes left behind are removed as well. Raises EmbeddedPostgresError.
    """
    parent = Path("/var/tmp" if server_user() else tempfile.gettempdir())  # noqa: S108
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
    try:
        with EmbeddedPostgres(
            folder, max_connections=max_connections, shared_buffers=shared_buffers, settings=settings
        ) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove the temporary folders whose owner is dead: the lock is free, and the server ended with its owner."""
    for folder in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError), (folder / "owner.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def development_server(checkout: Path) -> EmbeddedPostgres:
    """Start the server of a checkout, which all its processes share; it is stopped when the process that owns it exits.

    Raises EmbeddedPostgresError.
    """
    try:
        folder = _development_folder(checkout)
    except OSError as error:
        raise EmbeddedPostgresError(f"{error.filename}: {error.strerror}") from error
    server = EmbeddedPostgres(folder, shared=True).start()
    atexit.register(server.stop)
    return server


def _development_folder(checkout: Path) -> Path:
    home = checkout / ".data"
    home.mkdir(exist_ok=True)
    user = server_user()
    if user is None or reachable(home, user.pw_uid):
        return home / "postgres"
    name = hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:12]
    folder = Path("/var/tmp") / f"poolbench-{name}"  # noqa: S108
    if folder.exists():
        check_private(folder, 0, user.pw_uid)
    (home / "postgres.location").write_text(f"{folder}\n")
    return folder


# Small parts


def _lives(pid: int) -> bool:
    """Whether a process exists and is not a zombie: an orphan may stay one for a long time."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _single_user(statements: str) -> str:
    """Lines of SQL as `postgres --single -j` reads them: a statement ends with a semicolon and an empty line."""
    return "".join(f"{each};\n\n" for each in statements.splitlines())


def _write_private(path: Path, text: str, owner: pwd.struct_passwd | None = None) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if owner is not None:
            os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        file.write(text)


def _free_port() -> int:
    """A port of 127.0.0.1 that is free now. Raises EmbeddedPostgresError.

    It is below 32768, where Linux's ports for outgoing connections begin, so that none of those takes it during a restart.
    """
    for port in SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedPostgresError("no free port between 20000 and 32000 on 127.0.0.1")


def _last_complaint(output: str, pid: int | None = None) -> str:
    """The line of a program's output that says why it failed.

    `pid` picks the lines of one process out of a log that several have written: an old server also logs its own end.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if f"[{pid}]" in line] or lines
    for level in ("could not bind", "FATAL:", "ERROR:", "error:"):
        for line in lines:
            if level in line:
                return line[line.index(level) :]
    return lines[-1] if lines else "it wrote no message"
