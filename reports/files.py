"""Writes files atomically: a reader finds the old text or the new one, never a part of it."""

from __future__ import annotations

import os
from pathlib import Path


class WriteError(OSError):
    """Raised if a file cannot be written. The message is one line that names the file and the reason."""

    def __str__(self) -> str:
        return str(self.args[0])


def exists(path: Path | str) -> bool:
    """Whether there is a file or a folder. Path.exists raises OSError for a name that is too long for one."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: Path | str) -> bool:
    """Whether there is a folder. Path.is_dir raises OSError for a name that is too long for one."""
    return os.path.isdir(path)  # noqa: PTH112


def check_writable(path: Path) -> None:
    """Raise WriteError if `path` is a folder or cannot be created; to be called before a long run."""
    try:
        found = _obstacle(path)
    except OSError as error:
        # A name that is too long cannot even be looked for.
        found = error.strerror or str(error)
    if found:
        raise WriteError(f"cannot write {path}: {found}")


def _obstacle(path: Path) -> str:
    """What keeps a file from being written, "" if nothing does. Raises OSError."""
    folder = path.resolve().parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"no permission to write in {folder}"


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 to a temporary file beside `path`, then rename it to `path`. Raises WriteError.

    A pipe or device (/dev/stdout) is written to directly; a symbolic link stays, and its target is replaced.
    """
    path = Path(path)
    content = text.encode("utf-8", "replace")
    if exists(path) and not path.is_file() and not path.is_dir():
        try:
            path.write_bytes(content)
        except OSError as error:
            raise _failure(path, error) from None
        return
    check_writable(path)
    target = path.resolve()
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _failure(path, error) from None
        raise


def _failure(path: Path, error: OSError) -> WriteError:
    return WriteError(f"cannot write {path}: {error.strerror or error}")
