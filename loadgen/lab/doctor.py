"""Runs a user's own application, watched from inside and in its database, to say what holds it back."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import psycopg2

from loadgen.environment import environment
from loadgen.lab.doctor_findings import doctor_page
from loadgen.lab.folders import made
from loadgen.lab.own_app import (
    Arrangement,
    NothingAnsweredError,
    OwnAppOptions,
    Served,
    arranged,
    own_script,
    prove,
    unanswered,
)
from loadgen.lab.own_server import Evidence
from loadgen.lab.stack import StackError, connect, query
from loadgen.runner import Live, ScriptRun, run_script
from loadgen.script.model import Phase, Script
from loadgen.watch.console import Console
from poolbench.diagnosis import Diagnosis, Server, diagnose, statement_key
from poolbench.observed import Observed, total
from reports.blocks import Page, decimal
from reports.files import write_text
from reports.formats import artillery_json
from reports.writers.output import write_summaries

_LOOK_EVERY_S = 0.05
_AFTERMATH_S = 1.5
"""Time after the last answer in which connections that are never given back show."""
_PATIENCE_S = 15.0

_ACTIVITY = """
SELECT pid, state, wait_event_type, query, CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) ELSE '{}' END
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""


def run(options: OwnAppOptions, seconds: float, say: Callable[[str], None], live: Live) -> tuple[Page, Diagnosis, bool]:
    """Run the application for `seconds`. Returns the page, the diagnosis, and whether the run was interrupted.

    Raises as `own_app.run` does.
    """
    script = lasting(own_script(options, "http://127.0.0.1:1"), seconds)
    with made(options.out):
        with arranged(options, say) as arrangement:
            say(f"{options.application.name}: {decimal(seconds)} s under {options.script}, watched")
            done, observed, server = _watched(arrangement, script, say, live)
            notes = arrangement.notes
        diagnosis = diagnose(observed, server)
        write_text(options.out / "doctor.report.json", artillery_json.to_json(done.report) + "\n")
        given = {
            "application": options.application.name,
            "script": options.script,
            "servers": options.servers,
            "seconds": seconds,
        }
        page = doctor_page(given, diagnosis, done.report, notes, partial=done.signal is not None)
        write_summaries(page, options.out, environment())
    return page, diagnosis, done.signal is not None


def lasting(script: Script, seconds: float) -> Script:
    """The script with its phases stretched or shortened so that they last `seconds` together; rates stay."""
    whole_s = sum(phase.duration_s for phase in script.phases)
    if not whole_s:
        return script
    return replace(script, phases=tuple(_stretched(phase, seconds / whole_s) for phase in script.phases))


def _stretched(phase: Phase, factor: float) -> Phase:
    duration_s = phase.duration_s * factor
    count = None if phase.arrival_count is None else max(1, round(phase.arrival_count * factor))
    return replace(phase, duration_s=duration_s, duration_text=f"{decimal(duration_s, 3)}s", arrival_count=count)


def _watched(
    arrangement: Arrangement, script: Script, say: Callable[[str], None], live: Live
) -> tuple[ScriptRun, Observed, Server]:
    """Run the script against the application. Returns the run, and what was seen inside the application and the database."""
    options = arrangement.options
    log = options.out / "logs" / "doctor.log"
    with arrangement.served("own", {}, log, watch=True) as served:
        _prove(served, options, live, log, arrangement.masked)
        reads = ", ".join(Evidence.read(served.program.evidence).read_variables) or "none"
        say(f"The database given is used. Variables read: {reads}.")
        target = replace(script, target=served.servers.url)
        before, began_s = served.cpu_s(), time.monotonic()
        with DatabaseWatch(served.database.monitor_url) as watch:
            done = run_script(target, Console(lambda _: None), live)
            lasted_s, after = time.monotonic() - began_s, served.cpu_s()
            if done.signal is None:
                time.sleep(_AFTERMATH_S)
        observed = total(_collected(served.program.evidence))
        database_s = None if after[1] is None or before[1] is None else after[1] - before[1]
        cores = os.cpu_count() or 1
        server = Server(
            database_cpu=None if database_s is None else database_s / lasted_s / cores,
            worker_cpu=observed.worker_cpu,
            cores=None if database_s is None else cores,
            max_connections=int(query(served.database.monitor_url, "SHOW max_connections")[0][0]),
            mean_active=watch.mean_active,
            trivial_ms=watch.trivial_ms,
            lock_waits=watch.lock_waits(),
            active_s={key: looks * _LOOK_EVERY_S for key, looks in watch.active.items()},
            waits_for_idle_s=watch.waits_for_idle * _LOOK_EVERY_S,
        )
    return done, observed, server


def _prove(served: Served, options: OwnAppOptions, live: Live, log: Path, masked: Callable[[str], str]) -> None:
    """Return if the application uses the database given, with an engine or without one. Raises StackError."""
    try:
        prove(served, options, live)
    except NothingAnsweredError:
        raise unanswered(options.application.name, log, masked) from None
    except StackError:
        evidence = Evidence.read(served.program.evidence)
        if any(evidence.of("elsewhere")) or not any(evidence.of("connected")):
            raise


def _collected(folder: Path) -> list[Observed]:
    """What each process has seen, asked for by a file in the folder that they look for."""
    (folder / "report").touch()
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        awaited = {path.stem for path in folder.glob("*.watching") if Path("/proc", path.stem).exists()}
        if awaited <= {path.stem for path in folder.glob("*.observed")}:
            break
        time.sleep(0.05)
    return [Observed.from_json(json.loads(path.read_text())) for path in sorted(folder.glob("*.observed"))]


class DatabaseWatch(threading.Thread):
    """Looks at the database's sessions twenty times a second while inside: who executes what, and who waits for whom."""

    def __init__(self, monitor_url: str) -> None:
        super().__init__(daemon=True)
        self._connection = connect(monitor_url)
        self._url = monitor_url
        self._done = threading.Event()
        self.looks = self.waits_for_idle = self._sum_active = 0
        self._sum_took_s = 0.0
        self.active: Counter[str] = Counter()
        """Looks in which a statement was being executed, by `statement_key`."""
        self._waiting: Counter[str] = Counter()

    @property
    def mean_active(self) -> float:
        """Mean number of sessions that were executing a statement."""
        return self._sum_active / max(1, self.looks)

    @property
    def trivial_ms(self) -> float:
        """What a look has taken on average."""
        return 1000 * self._sum_took_s / max(1, self.looks)

    def lock_waits(self) -> dict[str, float]:
        """Of each statement, the share of looks in which it waited for a lock."""
        return {key: count / self.active[key] for key, count in self._waiting.items()}

    def run(self) -> None:
        """Look until the block is left."""
        while not self._done.wait(_LOOK_EVERY_S):
            with contextlib.suppress(psycopg2.Error):
                if self._connection.closed:
                    self._connection = connect(self._url)
                self._look()

    def _look(self) -> None:
        began_s = time.monotonic()
        with self._connection.cursor() as cursor:
            cursor.execute(_ACTIVITY)
            rows = cursor.fetchall()
        self._sum_took_s += time.monotonic() - began_s
        self.looks += 1
        states = {pid: state for pid, state, *_ in rows}
        for _pid, state, waits_for, statement, blockers in rows:
            if state != "active":
                continue
            key = statement_key(statement)
            self.active[key] += 1
            self._sum_active += 1
            if waits_for == "Lock":
                self._waiting[key] += 1
                self.waits_for_idle += any(states.get(pid, "").startswith("idle in") for pid in blockers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        self._connection.close()
