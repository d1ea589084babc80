"""Folders of runs: none is left behind empty, and `runs/latest` leads to the last one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from reports.files import WriteError

RUNS = Path("runs")
"""Folder of all runs that were not given one of their own, in the working directory."""

LATEST = "latest"


def run_folder(given: Path | None) -> Path:
    """The folder given, or a new one of `RUNS` named by the time in UTC. Makes nothing."""
    return given or RUNS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """While inside, the folder is there; those made for it that are empty at the end are removed. Raises WriteError.

    If it is a folder of a run in `RUNS` and has files at the end, the link `latest` beside it leads to it.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write into {folder}: {error.strerror or error}") from None
    try:
        yield
    finally:
        inside = [each for each in folder.iterdir() if each.is_dir()] if folder in missing else []
        for each in (*inside, *missing):
            with contextlib.suppress(OSError):
                each.rmdir()
        if folder.parent == RUNS and folder.is_dir():
            _link(folder)


def _link(folder: Path) -> None:
    """Let the link `latest` lead to the folder, in one step; a file or folder of that name, and its owner, are left alone."""
    link = folder.parent / LATEST
    if link.exists() and not link.is_symlink():
        return
    temporary = folder.parent / f".{LATEST}.{os.getpid()}"
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.name, target_is_directory=True)
        temporary.replace(link)
