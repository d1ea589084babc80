"""A limit of the memory of some processes, by a control group of our own (Linux, cgroup v1 or v2, where we may make one).

What the kernel counts for the group is all that its processes touch first: private memory, shared buffers, page cache of the
files they read and write, and kernel memory. Cache is given up before a process is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_NAME = "poolbench-lab-"
_MB = 2**20
_LEAVE_PATIENCE_S = 5.0


class NoMemoryLimit(Exception):
    """No limit of memory can be set on this machine; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Home:
    """Folders of the kernel where a control group can be made, and where this process belongs."""

    version: int
    base: Path
    """Folder in which the new group's folder is made."""
    own: Path
    """Folder of the group that this process is in."""


@dataclass(frozen=True, slots=True)
class MemoryCounts:
    """What the kernel has counted for a group so far."""

    limit_hits: int
    """Allocations that met the limit, so that memory (of the cache, as a rule) had to be taken back first."""
    oom_kills: int
    """Processes killed because nothing could be taken back."""


class MemoryLimit:
    """A group whose processes may use `limit_mb` together, swap excluded. Entering makes it, leaving removes it.

    Raises NoMemoryLimit on entering.
    """

    def __init__(self, limit_mb: int) -> None:
        self.limit_mb = limit_mb

    def __enter__(self) -> Self:
        try:
            self._home = find_home(Path("/proc/self/cgroup").read_text(), Path("/sys/fs/cgroup"))
            _remove_left_over(self._home.base)
            self._folder = self._home.base / f"{_NAME}{os.getpid()}"
            self._folder.mkdir()
            self._set_limit()
        except OSError as error:
            raise NoMemoryLimit(f"{error.filename}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        # A process that has just ended may be in the group for a moment more.
        deadline = time.monotonic() + _LEAVE_PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.02)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Processes started in the block belong to the group, and so does what they start. This one only visits."""
        pid = str(os.getpid())
        (self._folder / "cgroup.procs").write_text(pid)
        try:
            yield
        finally:
            (self._home.own / "cgroup.procs").write_text(pid)

    def counts(self) -> MemoryCounts:
        """The kernel's counters of the group."""
        if self._home.version == 1:
            hits = int((self._folder / "memory.failcnt").read_text())
            return MemoryCounts(hits, _field((self._folder / "memory.oom_control").read_text(), "oom_kill"))
        events = (self._folder / "memory.events").read_text()
        return MemoryCounts(_field(events, "max"), _field(events, "oom_kill"))

    def peak_mb(self) -> float | None:
        """Most memory used at once since `forget_peak`, or ever where the kernel cannot forget; None before Linux 5.19
        with cgroup v2.
        """
        with contextlib.suppress(OSError):
            return int(self._peak.read_text()) / _MB
        return None

    def forget_peak(self) -> None:
        """Begins to measure the peak anew, where the kernel can."""
        with contextlib.suppress(OSError):
            self._peak.write_text("0")

    @property
    def _peak(self) -> Path:
        return self._folder / ("memory.max_usage_in_bytes" if self._home.version == 1 else "memory.peak")

    def _set_limit(self) -> None:
        limit = str(self.limit_mb * _MB)
        if self._home.version == 1:
            (self._folder / "memory.limit_in_bytes").write_text(limit)
            # No swapping. A limit of memory and swap together would do the same, but what meets it is not counted.
            (self._folder / "memory.swappiness").write_text("0")
        else:
            (self._folder / "memory.max").write_text(limit)
            with contextlib.suppress(OSError):
                (self._folder / "memory.swap.max").write_text("0")


def find_home(groups: str, root: Path) -> Home:
    """From the text of /proc/self/cgroup, where a limiting group can be made below `root`. Raises NoMemoryLimit.

    v1 (and hybrid) allows it in our own group. v2 allows it where the controller is handed down, which is no group that holds
    processes itself: the nearest one above ours. (Linux: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst)
    """
    lines = [line.split(":", 2) for line in groups.splitlines() if line.count(":") >= 2]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            own = root / "memory" / path.lstrip("/")
            # A container sees its own group as the root.
            own = own if own.exists() else root / "memory"
            return Home(1, _writable(own), own)
    for number, controllers, path in lines:
        if number == "0" and not controllers:
            own = root / path.lstrip("/")
            for base in (own, *own.parents):
                handed_down = base / "cgroup.subtree_control"
                if handed_down.exists() and "memory" in handed_down.read_text().split():
                    return Home(2, _writable(base), own)
    raise NoMemoryLimit("the memory controller is not handed down to this process")


def _writable(folder: Path) -> Path:
    if not os.access(folder, os.W_OK):
        raise NoMemoryLimit(f"{folder} is not writable")
    return folder


def _remove_left_over(base: Path) -> None:
    """Removes groups left by processes that were killed before they could remove them."""
    for folder in base.glob(f"{_NAME}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(_NAME))):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0
