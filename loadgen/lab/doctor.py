"""Runs a user's own application, watched from inside and in its database, to say what holds it back."""

from __future__ import annotations

import ast
import json
import linecache
import os
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from loadgen.environment import environment
from loadgen.lab.doctor_database import DatabaseWatch
from loadgen.lab.doctor_findings import doctor_page, reasons_to_doubt
from loadgen.lab.folders import made
from loadgen.lab.own_app import (
    Arrangement,
    NothingAnsweredError,
    OwnAppOptions,
    Served,
    arranged,
    judge,
    own_script,
    prove,
    unanswered,
)
from loadgen.lab.own_app_findings import refusal
from loadgen.lab.own_evidence import Evidence
from loadgen.lab.stack import StackError
from loadgen.runner import Live, ScriptRun, run_script, stopping
from loadgen.schedule import lasting
from loadgen.script.model import Script
from loadgen.watch.console import Console
from poolbench.diagnosis import diagnose
from poolbench.findings import Diagnosis
from poolbench.observed import Observed, at_one_time, total
from poolbench.surroundings import Server
from reports.answers import good_answers
from reports.blocks import Page, decimal
from reports.files import write_text
from reports.formats import artillery_json
from reports.writers.output import write_summaries

_AFTERMATH_S = 1.5
"""Time after the last answer in which connections that are never given back show."""
_PATIENCE_S = 60.0
_MOST_BEGIN_S = 10.0
"""Longest wait before the load for processes to forget what was before it; one that is late forgets it later."""
_MOST_LINES = 10


class NothingSeenError(Exception):
    """The load was applied, but no process of the application said what it saw; the message is one line."""


def run(
    options: OwnAppOptions, seconds: float, say: Callable[[str], None], live: Live
) -> tuple[Page, Diagnosis, int | None]:
    """Run the application for `seconds`. Returns the page, the diagnosis, and the number of the signal that ended the run.

    Raises as `own_app.run` does, and NothingSeenError.
    """
    script = own_script(options, "http://127.0.0.1:1")
    try:
        script = replace(script, phases=lasting(script.phases, seconds))
    except ValueError as problem:
        raise StackError(f"{options.script}: {problem}") from None
    with made(options.out), ExitStack() as held:
        options = replace(options, with_statistics=True)
        with arranged(options, say) as arrangement:
            say(f"{options.application.name}: {decimal(seconds)} s under {options.script}, watched")
            done, observed, server, processes, lost = _watched(arrangement, script, say, live, held)
            notes, masked = arrangement.notes, arrangement.masked
        diagnosis = diagnose(observed, server)
        counters, log = done.report.aggregate.counters, options.out / "logs" / "doctor.log"
        if done.signal is None and not good_answers(counters):
            error = unanswered(
                options.application.name, log, masked, counters, has_setup=bool(options.application.setup)
            )
            if not diagnosis.findings:
                raise error
            notes = [*notes, str(error)]
        elif refused := refusal([done.report]):
            say(refused)
            notes = [*notes, refused]
        given = {
            "application": options.application.name,
            "script": options.script,
            "servers": processes if options.application.server else options.servers,
            "seconds": seconds,
        }
        code = code_at((finding.where for finding in diagnosis.findings), options.application.folder)
        code = {place: masked(line) for place, line in code.items()}
        for doubt in reasons_to_doubt(done.report, lost, partial=False):
            say(doubt)
        page = doctor_page(given, diagnosis, done.report, notes, code, partial=done.signal is not None, lost=lost)
        write_summaries(page, options.out, environment(), given)
    return page, diagnosis, done.signal


def code_at(places: Iterable[str | None], folder: Path) -> dict[str, str]:
    """The code at these places (`file:line`, relative to `folder`), where their files can be read: the line's whole statement."""
    found = {}
    for place in {each for each in places if each}:
        name, _, number = place.rpartition(":")
        lines = linecache.getlines(str(folder / name)) if number.isdecimal() else []
        first, last = _statement_at(lines, int(number)) if lines else (0, 0)
        code = textwrap.dedent("".join(lines[first - 1 : last])).rstrip() if first else ""
        if code:
            found[place] = code
    return found


def _statement_at(lines: Sequence[str], number: int) -> tuple[int, int]:
    """The first and the last line of the statement that line `number` is part of, which is at most `_MOST_LINES` long.

    Of one that contains others, such as a loop, only its own lines count. The line alone where that is not known: in a template,
    in a longer statement, or in Python that is newer than ours.
    """
    try:
        # Its warnings, such as of an invalid escape, are about the user's code, and no matter of ours.
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return number, number
    best = number, number
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        inner = getattr(node, "body", None)
        first = getattr(node, "lineno", number)
        last = inner[0].lineno - 1 if inner else getattr(node, "end_lineno", first)
        if first <= number <= max(first, last):
            best = first, max(first, last)
    return best if best[1] - best[0] < _MOST_LINES else (number, number)


def _watched(
    arrangement: Arrangement, script: Script, say: Callable[[str], None], live: Live, held: ExitStack
) -> tuple[ScriptRun, Observed, Server, int, int]:
    """Run the script against the application, and write its report.

    Returns the run, what was seen inside the application and the database, the number of processes that served at one time, and
    the number of those that ended without saying what they saw. From the end of the load until `held` is closed, a signal only
    ends waiting: what has been measured is not lost by it.
    """
    options = arrangement.options
    log = options.out / "logs" / "doctor.log"
    with arrangement.served("own", {}, log, watch=True) as served:
        is_proved = _prove(served, options, live, log, arrangement.masked)
        reads = ", ".join(Evidence.read(served.program.evidence).read_variables) or "none"
        used = "The database given is used" if is_proved else "The first users did not need the database"
        say(f"{used}. Variables read: {reads}.")
        target = replace(own_script(options, served.servers.url), phases=script.phases)
        load_began_ns = _begun(served.program.evidence)
        before, began_s = served.cpu_s(), time.monotonic()
        psutil.cpu_percent()
        with DatabaseWatch(served.database) as watch:
            done = run_script(target, Console(lambda _: None), live)
            lasted_s, after = time.monotonic() - began_s, served.cpu_s()
            machine_cpu = psutil.cpu_percent() / 100
            signals = held.enter_context(stopping(_go_on))
            if done.signal is None:
                _wait(_AFTERMATH_S, signals, 0)
        # Now, so that it is there whatever can be said about the application.
        write_text(options.out / "doctor.report.json", artillery_json.to_json(done.report) + "\n")
        if not is_proved and done.signal is None:
            with _also_without_an_engine(served):
                judge(served, options, done.report.aggregate.counters)
        parts = _collected(served.program.evidence, load_began_ns, signals, whole=done.signal is None)
        lost = _count_lost(served.program.evidence)
        done = replace(done, signal=done.signal or next(iter(signals), None))
        observed = total(parts)
        serving = _count_serving(parts)
        database_s = None if after[1] is None or before[1] is None else after[1] - before[1]
        cores = os.cpu_count() or 1
        server = Server(
            database_cpu=None if database_s is None else database_s / lasted_s / cores,
            worker_cpu=observed.worker_cpu,
            worker_used=(after[0] - before[0]) / lasted_s / max(1, serving),
            machine_cpu=None if database_s is None else machine_cpu,
            database_queued_s=watch.queued_s,
            cores=None if database_s is None else cores,
            max_connections=watch.max_connections,
            mean_active=watch.mean_active,
            trivial_ms=watch.trivial_ms,
            lock_waits=watch.lock_waits(),
            active_s={key: looks * watch.look_every_s for key, looks in watch.active.items()},
            waits_for_idle_s=watch.waits_for_idle * watch.look_every_s,
            statements=watch.statements,
            statements_missing=watch.statements_missing,
            indexes=watch.indexes,
        )
    return done, observed, server, serving, lost


def _count_lost(folder: Path) -> int:
    """The number of processes that were there under load, and have ended without writing what they saw."""
    ended = {path.stem for path in folder.glob("*.begun")} - _watching(folder)
    return len(ended - {path.stem for path in folder.glob("*.observed")})


def _count_serving(parts: Sequence[Observed]) -> int:
    """The most processes that served at one time: those that answered requests, or where no server's requests are seen, that
    used a pool.

    With requests seen, a process that only used a pool served nothing, such as one that looked at the tables at the start.
    """
    return at_one_time(life for each in parts if each.requests for life in each.lives) or at_one_time(
        life for each in parts if each.loans for life in each.lives
    )


def _prove(served: Served, options: OwnAppOptions, live: Live, log: Path, masked: Callable[[str], str]) -> bool:
    """Whether the application was seen to use the database given, with an engine or without one. Raises StackError."""
    try:
        with _also_without_an_engine(served):
            return prove(served, options, live)
    except NothingAnsweredError as error:
        has_setup = bool(options.application.setup)
        raise unanswered(options.application.name, log, masked, error.counters, has_setup=has_setup) from None
    return True


@contextmanager
def _also_without_an_engine(served: Served) -> Iterator[None]:
    """While inside, a StackError counts only if the application did not use the database given without an engine, either."""
    try:
        yield
    except StackError:
        evidence = Evidence.read(served.program.evidence)
        if any(evidence.of("elsewhere")) or not any(evidence.of("connected")):
            raise


def _go_on() -> None:
    """Nothing: whoever waits looks at the signals that came."""


def _wait(most_s: float, signals: Sequence[int], heeded: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Wait for `most_s`, or until `is_over`, or there are more `signals` than the `heeded` ones, which ended a wait before."""
    until_s = time.monotonic() + most_s
    while time.monotonic() < until_s and len(signals) <= heeded and not is_over():
        time.sleep(0.05)


def _watching(folder: Path) -> set[str]:
    """The processes that watch and have not ended."""
    names = {path.stem for path in folder.glob("*.watching")}
    return {name for name in names if name.isdecimal() and psutil.pid_exists(int(name))}


def _begun(folder: Path) -> int:
    """Let each process forget what it has seen, by a file in the folder that they look for. Returns the instant, in ns of
    perf_counter_ns(), from which on everything counts.

    What lasts, such as a connection that one of the first users was lent and did not give back, is still seen.
    """
    awaited, began_ns = _watching(folder), time.perf_counter_ns()
    written = folder / "load.writing"
    written.write_text(str(began_ns))
    written.rename(folder / "load")
    _wait(_MOST_BEGIN_S, (), 0, lambda: awaited & _watching(folder) <= {path.stem for path in folder.glob("*.begun")})
    return began_ns


def _collected(folder: Path, since_ns: int, signals: Sequence[int], *, whole: bool) -> list[Observed]:
    """What each process has seen, asked for by a file in the folder that they look for; so far as it is there when a number is
    added to `signals`. Not of processes that had ended at the instant `since_ns`.

    Raises NothingSeenError if none has seen anything in a `whole` run, one that no signal ended.
    """

    def is_complete() -> bool:
        return _watching(folder) <= {path.stem for path in folder.glob("*.observed")}

    (folder / "report").touch()
    _wait(_PATIENCE_S, signals, len(signals), is_complete)
    parts = [Observed.from_json(json.loads(path.read_text())) for path in sorted(folder.glob("*.observed"))]
    # A process that uses another one's connection says so at once, and not for how long it has lived.
    found = [part for part in parts if not part.lives or any(end >= since_ns for _, end in part.lives)]
    if whole and not signals and not any(each.loans or each.requests for each in found):
        raise NothingSeenError("the application's processes ended, or did not answer, before they said what they saw")
    return found
