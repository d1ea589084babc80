"""One script against two targets at once: a duel. Arrivals are dealt to the sides in pairs of random order.

Both sides run in this process, each with connections, a recorder and an engine of its own, and follow the same plan: of any
two arrivals in a row each side has one. So whatever disturbs the machine or the generator disturbs both alike.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from random import Random

import gevent

from loadgen.calibration import Calibration, calibrated
from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Listener, Progress
from loadgen.health import HealthWatch, undisturbed
from loadgen.runner import Live, ScriptExecution, ScriptRun, SectionFailed, print_debug, stopping
from loadgen.schedule import DealtShare, spans
from loadgen.script.model import Script
from loadgen.vu.transports import Transports
from loadgen.watch.console import Console, Write

_LEAD_NS = 50_000_000
"""How long before the plan's first instant both engines are started, so that none is late."""


def planned_seconds(script: Script) -> float:
    """How long the script's phases take, in seconds."""
    planned = spans(script.phases)
    return planned[-1].end_ns / 1e9 if planned else 0.0


@dataclass(frozen=True, slots=True)
class DuelRuns:
    """What each side of a duel gave. `failed` says which `after` section failed, if one did."""

    a: ScriptRun
    b: ScriptRun
    failed: str = ""


def run_duel(
    scripts: tuple[Script, Script], live: Live, write: Write, seed: int, calibration: Calibration | None = None
) -> DuelRuns:
    """Carry out a duel to its end, or to a signal. The scripts differ in their targets alone.

    `live` is told the progress of both sides together once a second; `write` takes the lines of the script's `log` steps.
    The same seed gives the same plan, dealt in the same way. `calibration` goes into both reports. Raises SectionFailed where
    a `before` section fails.
    """
    wall, watch = WallOffset(), HealthWatch()
    with ExitStack() as opened:
        opened.enter_context(undisturbed())
        sides = []
        for name, script in zip("AB", scripts, strict=True):
            transports = opened.enter_context(closing(Transports(script, wall, print_debug)))
            console, rng = Console(write, quiet=True), Random(f"{seed}/{name}")
            sides.append(ScriptExecution(script, console, live, wall, transports, rng, ()))
            sides[-1].plan_seed = seed
        for side in sides:
            side.before()
        engines = [side.engine(DealtShare(i, seed=f"{seed}/deal")) for i, side in enumerate(sides)]

        def tick(_: Progress) -> None:
            watch.sample()
            live(_together(*(engine.progress() for engine in engines)))

        def stop() -> None:
            for engine in engines:
                engine.stop()

        with stopping(stop) as signals:
            started_ns = now_ns() + _LEAD_NS
            listeners = Listener(tick=tick), Listener()
            running = [gevent.spawn(e.run, told, started_ns) for e, told in zip(engines, listeners, strict=True)]
            try:
                gevent.joinall(running, raise_error=True)
            finally:
                gevent.killall(running)
        runs = [side.finished(engine, watch, signals) for side, engine in zip(sides, engines, strict=True)]
        runs = [replace(run, report=calibrated(run.report, calibration)) for run in runs]
        failed = ""
        for side, run in zip(sides, runs, strict=True):
            try:
                side.after(run)
            except SectionFailed as error:
                failed = str(error)
    return DuelRuns(runs[0], runs[1], failed)


def _together(a: Progress, b: Progress) -> Progress:
    return Progress(
        max(a.elapsed_s, b.elapsed_s),
        a.active_vus + b.active_vus,
        a.requests + b.requests,
        a.responses + b.responses,
        a.errors + b.errors,
        a.stage,
        started_ns=a.started_ns,
    )
