"""A real PostgreSQL server in a folder: no installation, no container, no configuration.

The server is what a deployment would meet: SCRAM passwords over TCP on loopback, and a role that is no superuser, so that
opening a connection costs what it really costs and the reserved slots stay reserved.

One folder holds one server: `pgdata` (the cluster), `credentials.json` (0600), `server.log`, and `owner.lock`, which is
locked by the process that started the server for as long as that process lives. The kernel frees the lock however the
process ends, so whoever gets the lock beside a running server knows that its owner is dead, and takes over.
"""

import atexit
import contextlib
import ctypes
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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import IO, Self

from db.binaries import EmbeddedPostgresError, as_server_user, check_private, find_binaries, reachable, server_user

ROLE = "poolbench"
"""Name of the application's role and of its database."""

_ADMIN = "postgres"
_TEMPORARY = "poolbench-temporary-"
_PATIENCE_S = 15.0  # for a start (with recovery) or a stop
_PR_SET_PDEATHSIG = 1


class EmbeddedPostgres:
    """A PostgreSQL server whose data live in `data_dir`, on a free port of 127.0.0.1.

    `settings` are server parameters by name and win over the two that have an argument. With `shared`, a server that runs
    already is used as it is (and stopped only by its owner), and it outlives a killed owner until somebody adopts it;
    without, it dies with the process that started it, and a folder in use by another process is an error.
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
            "lc_messages": "C",  # refusals are told apart by their English text
            "timezone": "UTC",
            "log_timezone": "UTC",
            **(settings or {}),
        }
        self._shared = shared
        self._fixed_port = port is not None
        self._passwords: dict[str, str] = {}
        self._owner: IO[bytes] | None = None
        self._owner_pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the application: owner of its database, no superuser."""
        return f"postgresql://{ROLE}:{self._passwords[ROLE]}@127.0.0.1:{self.port}/{ROLE}"

    @property
    def admin_url(self) -> str:
        """For monitoring: a superuser, who may use the reserved connections."""
        return f"postgresql://{_ADMIN}:{self._passwords[_ADMIN]}@127.0.0.1:{self.port}/{ROLE}"

    @property
    def owned(self) -> bool:
        """Whether this object is the one that stops the server."""
        return self._owner is not None and self._owner_pid == os.getpid()

    def start(self) -> Self:
        """Return once the server accepts connections, having created the cluster if there was none.

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
        """End the server cleanly (a "fast" stop: sessions are ended, data are safe); only its owner does so."""
        if self.owned:
            self._end(signal.SIGINT)
            self._release()

    def kill(self) -> None:
        """End the postmaster with SIGKILL, as a crash would. `start()` recovers the data."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port."""
        self._end(signal.SIGINT)
        self._start_as_owner()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
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
        """True: the owner, who starts the server; False: a guest, and the server is ready."""
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
        """Initialise beside the final place and rename, so that a half-made cluster is never started."""
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
        if self._process is not None and self._process.poll() is not None:
            self.pid, self._process = 0, None  # it ended by itself
        if self._find_running():
            if self._shared:
                return  # its owner was killed: adopted as it is
            self._end(signal.SIGINT)
        elif self._process is not None:
            self._end(signal.SIGINT)  # told to stop by somebody else, and on its way out
        binaries = find_binaries()
        if not (self.data_dir / "pgdata" / "PG_VERSION").exists():
            self._create_cluster(binaries)
        deadline = time.monotonic() + _PATIENCE_S
        while (complaint := self._launch(binaries)) is not None:
            # After a kill, backends of the old server may live on for some seconds and hold its shared memory, and the
            # old server itself may be on its way out. And between our look at the port and the server's bind somebody
            # else may take it.
            port_taken = "Address already in use" in complaint and not self._fixed_port
            passes = (
                port_taken or "pre-existing shared memory" in complaint or 'lock file "postmaster.pid"' in complaint
            )
            if not passes or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {complaint} (see {self.data_dir}/server.log)")
            if port_taken:
                self.port = 0
            time.sleep(0.1)
        self._fixed_port = not self._shared  # the URL handed out stays right across restarts

    def _launch(self, binaries: Path) -> str | None:
        """Start the server and wait until it is ready; None, or what it complained of before it ended."""
        self.port = self.port or _free_port()
        command = [str(binaries / "postgres"), "-D", str(self.data_dir / "pgdata"), "-p", str(self.port)]
        for name, value in self._parameters.items():
            command += ["-c", f"{name}={value}"]
        with (self.data_dir / "server.log").open("ab") as log:
            seen = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,  # Ctrl-C is for the starter, who then stops the server
                preexec_fn=None if self._shared else _die_with_parent(),  # noqa: PLW1509 (one system call, no lock)
                **as_server_user(),
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + _PATIENCE_S
        while (found := self._look()) is None or found[0] != self.pid:  # it may be an old server that is on its way out
            if not self._alive():
                self._process.wait()  # it has ended, perhaps since poll's look: collect its status
                with (self.data_dir / "server.log").open("rb") as log:
                    log.seek(seen)
                    return _last_complaint(log.read().decode(errors="replace"), self.pid)
            if time.monotonic() > deadline:
                self._end(signal.SIGQUIT)
                return f"not ready after {_PATIENCE_S:.0f} s"
            time.sleep(0.01)
        return None

    def _find_running(self) -> bool:
        """Whether the folder's server runs and is ready; then `pid` and `port` are its own."""
        found = self._look()
        if found is None:
            return False
        self.pid, self.port = found
        if self._process is not None and self._process.pid != self.pid:
            self._process.wait()  # ours was refused: the folder has another server
            self._process = None
        return True

    def _look(self) -> tuple[int, int] | None:
        """Pid and port of the folder's server, if it runs and is ready."""
        try:
            lines = (self.data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready":  # the server's own word, as read by pg_ctl
            return None
        pid = int(lines[0])
        if self._process is not None and self._process.pid == pid:
            lives = self._alive()
        else:
            cwd = Path(f"/proc/{pid}/cwd")  # a stale file may name a process that is something else by now
            try:
                lives = not (cwd.is_symlink() and cwd.readlink() != (self.data_dir / "pgdata").resolve()) and _lives(
                    pid
                )
            except FileNotFoundError:
                lives = False
        return (pid, int(lines[3])) if lives else None

    def _alive(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            return False
        return _lives(self.pid)

    def _end(self, how: signal.Signals) -> None:
        if not self.pid:
            return
        for each in (how, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, each)
            deadline = time.monotonic() + _PATIENCE_S
            while self._alive():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.005)
            else:
                break
        else:
            raise EmbeddedPostgresError(f"the server process {self.pid} does not end")
        if self._process is not None:
            self._process.wait()  # it may have ended between poll's look and the one at /proc: collect its status
        self.pid, self._process = 0, None


@contextlib.contextmanager
def temporary_postgres(
    *, max_connections: int = 100, shared_buffers: str = "128MB", settings: Mapping[str, str] | None = None
) -> Iterator[EmbeddedPostgres]:
    """A started server in a folder of its own, where the server's user can reach it; both are gone afterwards.

    So are the folders that killed processes left behind.
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
    """Remove temporary servers' folders whose owner is dead: its lock is free, and its server died with it."""
    for folder in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError), (folder / "owner.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def development_server(checkout: Path) -> EmbeddedPostgres:
    """The server of a checkout, started: shared by all its processes, and stopped at the exit of the one that owns it.

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
    """Whether a process exists and is no zombie (an orphan stays one until somebody takes notice)."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _single_user(statements: str) -> str:
    """With -j, the single-user server takes what stands before a semicolon and an empty line as one statement."""
    return "".join(f"{each};\n\n" for each in statements.splitlines())


def _write_private(path: Path, text: str, owner: pwd.struct_passwd | None = None) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if owner is not None:
            os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        file.write(text)


def _free_port() -> int:
    """A port that is free now.

    Below 32768, where Linux begins to number outgoing connections: one of those must not take it during a restart.
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


def _die_with_parent() -> Callable[[], object] | None:
    """For the child, after its change of user (which would clear it): a fast stop when the starter is gone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _last_complaint(output: str, pid: int | None = None) -> str:
    """Why a program ended; of what several processes wrote, the words of this one (an old server ends noisily)."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if f"[{pid}]" in line] or lines
    for level in ("could not bind", "FATAL:", "ERROR:", "error:"):
        for line in lines:
            if level in line:
                return line[line.index(level) :]
    return lines[-1] if lines else "it said nothing"
