"""Watches the generator itself, to tell whether the figures of a run are the server's or the generator's own.

CPU time is that of this process, set against CLOCK_MONOTONIC. Open files and local ports are looked at once a second: the
lowest free descriptor tells how many files are open, and /proc/net/sockstat how many TCP ports of this machine are in use
or in TIME_WAIT.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.clock import KERNEL_STAMPS, now_ns
from loadgen.http.ports import ports_here
from loadgen.recorder import Recorder
from reports import names
from reports.model import Period

BUSY_SHARE = 0.85
"""Share of a core from which on a generator is too busy for its figures to be the server's alone."""
_NEAR_SHARE = 0.9
# A shorter run is mostly start-up, so its share of CPU says nothing.
_JUDGED_FROM_S = 1.0
_LAG_BOUND_MS = 10.0
_COLLECT_AFTER = (50_000, 20, 100)
_SUMMED = ("cpu_s", "kernel_stamped", "first_bytes_examined", "first_bytes_of_later_segment", "responses")
_GREATEST = ("wall_s", "cpu_share", "open_files", "ports_taken")


@contextmanager
def undisturbed() -> Iterator[None]:
    """While inside, as many files may be open as the hard limit allows, and garbage is collected rarely.

    The collector never looks at objects that exist already: a pause of some ten milliseconds would delay arrivals.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems have a limit of their own below the hard one.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@dataclass(slots=True)
class HealthWatch:
    """Watches this process from the moment it is created. Call `sample` about once a second."""

    started_ns: int = field(default_factory=now_ns)
    cpu_s: float = field(default_factory=time.process_time)
    open_files: int = 0
    """The most files that were open at one time."""
    ports_taken: int = 0
    """The most local ports that were taken at one time, by all programs of this machine."""

    def sample(self) -> None:
        """Look how many files are open and how many ports are taken."""
        with suppress(OSError):
            descriptor = os.dup(2)
            os.close(descriptor)
            self.open_files = max(self.open_files, descriptor)
        self.ports_taken = max(self.ports_taken, _ports_taken())

    def figures(self, recorder: Recorder) -> dict[str, Any]:
        """The figures on this process for the report: times, clocks, files, ports."""
        self.sample()
        wall_s = (now_ns() - self.started_ns) / 1e9
        cpu_s = time.process_time() - self.cpu_s
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return {
            "wall_s": round(wall_s, 3),
            "cpu_s": round(cpu_s, 3),
            "cpu_share": round(cpu_s / wall_s if wall_s else 0.0, 3),
            "clock": "CLOCK_MONOTONIC; first byte: " + _STAMP_TEXT[KERNEL_STAMPS],
            "kernel_stamped": recorder.stamped,
            "first_bytes_examined": recorder.examined,
            "first_bytes_of_later_segment": recorder.later_segment,
            "responses": recorder.responses,
            "open_files": self.open_files,
            "open_files_limit": limit,
            "ports_taken": self.ports_taken,
            "ports": len(ports_here() or ()),
        }

    def health(self, recorder: Recorder) -> tuple[dict[str, Any], tuple[str, ...]]:
        """For a run in one process: the figures for the report, and warnings if they partly measure the generator."""
        total = recorder.report().aggregate
        return health([self.figures(recorder)], total)


_STAMP_TEXT = {True: "kernel receive stamp where stamped", False: "the clock after the read, this system stamps none"}


def health(processes: Sequence[Mapping[str, Any]], total: Period) -> tuple[dict[str, Any], tuple[str, ...]]:
    """For a run in several processes, each with its figures: those of all together (sums, or the largest share), and warnings."""
    lag = total.sketches.get(names.START_LAG)
    lag_p99_ms = lag.quantile(0.99) if lag else None
    figures = dict(processes[0]) if processes else {}
    if len(processes) > 1:
        figures |= {key: round(sum(p.get(key, 0) for p in processes), 3) for key in _SUMMED}
        figures |= {key: max(p[key] for p in processes) for key in _GREATEST}
        figures |= {"workers": len(processes), "processes": [dict(p) for p in processes]}
    if examined := figures.get("first_bytes_examined", 0):
        figures["first_byte"] = _first_bytes(examined, figures.get("first_bytes_of_later_segment", 0))
    figures |= {
        "start_lag_p99_ms": None if lag_p99_ms is None else round(lag_p99_ms, 3),
        "late_starts": total.counters.get(names.LATE, 0),
        "skipped": total.counters.get(names.VUSERS_SKIPPED, 0),
    }
    return figures, tuple(_warnings(figures, total, lag_p99_ms))


def _first_bytes(examined: int, later: int) -> str:
    """A sentence on the answers whose stamp may be too late, because several segments of them were read at once."""
    share = f"{later:,} ({later / examined:.1%})"
    return f"of {examined:,} answers examined (one in 16), {share} were read in several segments and dated by the last of them"


def _warnings(figures: Mapping[str, Any], total: Period, lag_p99_ms: float | None) -> Iterator[str]:
    share, wall_s = figures.get("cpu_share", 0.0), figures.get("wall_s", 0.0)
    if share > BUSY_SHARE and wall_s > _JUDGED_FROM_S:
        yield f"the generator used {share:.0%} of a core: these figures partly measure the generator"
    if lag_p99_ms is not None and lag_p99_ms > _LAG_BOUND_MS:
        yield f"arrivals started late (p99 {lag_p99_ms:.1f} ms): the load was not the one planned"
    dropped = total.counters.get(names.DROPPED, 0)
    if dropped:
        yield f"{dropped:,} figures were not recorded: their names, which the server or the script makes, were too many"
    files, limit = figures.get("open_files", 0), figures.get("open_files_limit", 0)
    refused = total.counters.get(f"{names.ERRORS}EMFILE", 0)
    if refused or (limit > 0 and files > _NEAR_SHARE * limit):
        yield f"{files} files were open of {limit} allowed (ulimit -n); {refused} connections failed for want of one"
    taken, ports = figures.get("ports_taken", 0), figures.get("ports", 0)
    refused = total.counters.get(f"{names.ERRORS}EADDRNOTAVAIL", 0)
    if refused or (ports and taken > _NEAR_SHARE * ports):
        yield f"{taken} of {ports} local ports were taken; {refused} connections failed for want of one"


def _ports_taken() -> int:
    try:
        text = Path("/proc/net/sockstat").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^TCP: inuse (\d+) orphan \d+ tw (\d+)", text, re.MULTILINE)
    return int(found[1]) + int(found[2]) if found else 0
