"""The machine and versions that a run was made with, for the reader of its report, and the command for another Python."""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[1]
"""The folder that holds this project's modules: a checkout, or the folder `tree` of the installed tool."""

_RUN_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); del sys.argv[0];"
    " runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
_RECORD = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info")
"""The name of the folder in which an installed distribution is recorded."""
_PACKAGES = ("poolbench", "gevent", "numpy", "SQLAlchemy", "psycopg2-binary", "gunicorn", "Flask")


@cache
def version() -> str:
    """This program's version."""
    found = installed("poolbench")
    if found is not None:
        return found
    from importlib import metadata  # noqa: PLC0415 - it takes longer to load than all else here

    return metadata.version("poolbench")


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module in another Python, with this project's modules first on its import path.

    The path is given to that one process alone. PYTHONPATH would pass it on to every process that it starts, a user's own
    among them, whose modules may have the same names. `-P` keeps the current folder off the path for the same reason.
    """
    return [sys.executable, "-P", "-c", _RUN_MODULE, str(TREE), module, *arguments]


def environment(script: str = "", target: str = "") -> dict[str, Any]:
    """CPU, memory, kernel, Python and package versions of this machine, and what was run: a script's text, and its target.

    In a job of GitHub's or GitLab's also the commit. User name and password are left out of the target. Reads /proc where
    there is one.
    """
    found = {
        "cpu": _first_field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := installed(name))},
    }
    commit = os.environ.get("GITHUB_SHA") or os.environ.get("CI_COMMIT_SHA")
    if commit:
        found["commit"] = commit
    if target:
        # By text, since a mistyped target need not be a URL.
        scheme, separator, rest = target.rpartition("://")
        host, slash, path = rest.partition("/")
        found["target"] = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
    return found | {"script": script} if script else found


def installed(package: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    return _recorded().get(_plain(package))


@cache
def _recorded() -> dict[str, str]:
    """The version of each distribution on the import path, by its plain name.

    The names of folders say it, and are read in a tenth of the time that importlib.metadata takes: it parses each record.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208 - quicker by a millisecond
        except OSError:
            # Not a folder, such as a zip file.
            continue
        for entry in entries:
            if entry.endswith("-info") and (record := _RECORD.fullmatch(entry)):
                found.setdefault(_plain(record["name"]), record["version"])
    return found


def _plain(package: str) -> str:
    """A distribution's name as names are compared: in lower case, with one kind of separator."""
    return re.sub(r"[-_.]+", "-", package).lower()


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
