"""Carries out the search for a service's capacity: steps at one arrival rate each, one script, one process.

The script's sections `before` and `after` run once, and each step has an engine of its own. A step ends when it is decided,
or after its longest time; its users then have a bound to finish, so that the next step begins with an idle service.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from random import Random

import gevent

from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Engine, Listener, Progress
from loadgen.health import HealthWatch, undisturbed
from loadgen.recorder import Recorder
from loadgen.runner import Live, ScriptExecution, ScriptRun, print_debug, stopping
from loadgen.schedule import Share
from loadgen.script.model import Phase, Script
from loadgen.sizing.capacity import LEAST_STEP_S, Capacity, SecondSeen, Step, Target, found, judge, next_rate
from loadgen.vu.transports import Transports
from loadgen.watch.console import Console, Write
from reports import names
from reports.blocks import decimal
from reports.model import Second
from reports.sketch import Sketch

_CLIMBING_S = 6
"""Longest step while rates still double."""
_NEAR_S = 20
"""Longest step between a rate that met the target and one that missed it."""
_DRAIN_S = 5.0
_PAUSE_S = 0.5
_LATE_SHARE = 0.05
"""The share of users that may start late; from there on the generator is what limits the rate."""


def find_capacity(
    script: Script,
    target: Target,
    live: Live,
    write: Write,
    say: Callable[[Step], None],
    *,
    first_rate: float | None,
    precision: float,
    max_s: float,
    seed: int,
) -> tuple[Capacity, ScriptRun]:
    """Search until the answer is known to `precision` or `max_s` seconds have passed, or until a signal.

    `first_rate` None: that of the script's first phase with a rate, else 10. `say` is told each step when it ends. Returns the
    answer, and the run over all steps. Raises SectionFailed.
    """
    if first_rate is None:
        first_rate = next((phase.arrival_rate for phase in script.phases if phase.arrival_rate > 0), 10.0)
    wall, watch = WallOffset(), HealthWatch()
    ends_ns = now_ns() + int(max_s * 1e9)
    steps: list[Step] = []
    with closing(Transports(script, wall, print_debug)) as transports, undisturbed():
        execution = ScriptExecution(script, Console(write, quiet=True), live, wall, transports, Random(seed), ())
        execution.before()
        # The first one never runs: it stands for a run that was not interrupted.
        engines = [execution.engine(Share())]

        def stop() -> None:
            for engine in engines[-1:]:
                engine.stop()

        with stopping(stop) as signals:
            rate: float | None = first_rate
            while rate is not None and not signals:
                climbing = all(step.met for step in steps)
                longest_s = min(_CLIMBING_S if climbing else _NEAR_S, int((ends_ns - now_ns()) / 1e9))
                if longest_s < LEAST_STEP_S:
                    break
                engines.append(execution.engine(Share(), (_phase(rate, longest_s),)))
                watched = _StepWatch(engines[-1], execution.recorder, wall, target, live)
                engines[-1].run(Listener(tick=watched.tick))
                watch.sample()
                if signals:
                    break
                steps.append(watched.step(rate))
                say(steps[-1])
                gevent.sleep(_PAUSE_S)
                rate = next_rate(steps, first_rate, precision)
        run = execution.after(execution.finished(engines[-1 if signals else 0], watch, signals))
    return found(steps), run


def _phase(rate: float, seconds: int) -> Phase:
    return Phase(0, f"{decimal(rate, 4)} users/s", seconds, f"{seconds}s", arrival_rate=rate)


class _StepWatch:
    """Looks at a step second by second, and ends it when it is decided."""

    def __init__(self, engine: Engine, recorder: Recorder, wall: WallOffset, target: Target, live: Live) -> None:
        self._engine, self._recorder, self._target, self._live = engine, recorder, target, live
        self._first_ms = (now_ns() + wall.wall_ns) // 1_000_000
        self._in_flight: list[int] = []
        self._late = self._counted(names.LATE)

    def tick(self, now: Progress) -> None:
        """Take the progress of a second that is over."""
        self._live(now)
        if self._engine.interrupted:
            return
        self._in_flight.append(now.active_vus)
        if judge(self._seen(), self._target).decided:
            self._engine.stop()
            gevent.spawn_later(_DRAIN_S, self._engine.stop)

    def step(self, rate: float) -> Step:
        """What the step showed, once it is over."""
        seen, judgement = self._seen(), judge(self._seen(), self._target)
        times = Sketch.merged(
            [s.response_time for s in self._seconds() if s.response_time is not None] or [Sketch.of([])]
        )
        requests = sum(s.requests for s in seen)
        late = self._counted(names.LATE) - self._late
        behind = late > _LATE_SHARE * max(1, requests)
        return Step(
            rate,
            len(seen),
            times.count,
            times.quantile(0.99) if times.count else None,
            sum(s.errors for s in seen) / requests if requests else 1.0,
            judgement.met and not behind,
            judgement.decided,
            "generator" if behind else judgement.why,
        )

    def _counted(self, name: str) -> int:
        return self._recorder.report().aggregate.counters.get(name, 0)

    def _seconds(self) -> list[Second]:
        """The seconds of the step in which all users were to start."""
        periods = self._recorder.report().periods
        seconds = [s for period in periods for s in period.seconds if s.start_ms >= self._first_ms - 500]
        return seconds[: len(self._in_flight)]

    def _seen(self) -> list[SecondSeen]:
        limit_ms = self._target.p99_ms
        return [
            SecondSeen(
                s.requests, s.answers, s.response_time.count_above(limit_ms) if s.response_time else 0, s.errors, n
            )
            for s, n in zip(self._seconds(), self._in_flight, strict=False)
        ]
