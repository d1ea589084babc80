"""The machine and the versions that a run was made with, for the reader of its report."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("poolbench", "gevent", "numpy", "SQLAlchemy", "psycopg2-binary", "gunicorn", "Flask")


@cache
def version() -> str:
    """This program's version."""
    return metadata.version("poolbench")


def environment(script: str = "") -> dict[str, Any]:
    """CPU, memory, kernel, Python and package versions of this machine, and the name of the script that was run, if any.

    Reads /proc where there is one.
    """
    found = {
        "cpu": _first_field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _installed(name))},
    }
    return found | {"script": script} if script else found


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_field(path: str, name: str) -> str | None:
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        return None
    return None
