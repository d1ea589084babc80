"""Reads files that may have no end, and writes files atomically: a reader finds the old text or the new one, never a part."""

from __future__ import annotations

import errno
import os
from io import BytesIO, TextIOWrapper
from pathlib import Path

_MOST_BYTES = 64_000_000


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


def read_bytes(path: Path | str, most_bytes: int = _MOST_BYTES) -> bytes:
    """The content of a file, device or pipe. Raises ValueError for an invalid path, and OSError, also for what is larger than
    this: it may have no end.
    """
    with Path(path).open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes // 1_000_000} MB", str(path))
    return content


def read_text(path: Path | str) -> str:
    """The same, as UTF-8 with or without a byte order mark, with line feeds alone. Raises UnicodeDecodeError, too."""
    return TextIOWrapper(BytesIO(read_bytes(path)), "utf-8-sig").read()


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
