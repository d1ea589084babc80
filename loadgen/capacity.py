"""Carries out the search for a service's capacity: steps at one arrival rate each, one script, one process.

The script's sections `before` and `after` run once, and each step has an engine of its own. A step ends when it is decided,
or after its longest time; its users then have a bound to finish, and those left are ended. A service that was left with a
queue is given time to answer again within the target, so that the next step does not pay for the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from random import Random

import gevent

from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Engine, Listener, Progress
from loadgen.health import HealthWatch, undisturbed
from loadgen.recorder import Recorder
from loadgen.runner import Live, ScriptExecution, ScriptRun, SectionFailed, print_debug, stopping
from loadgen.schedule import Share
from loadgen.script.model import Phase, Script
from loadgen.sizing.capacity import (
    LEAST_STEP_S,
    LONGEST_STEP_S,
    Capacity,
    SecondSeen,
    Step,
    Target,
    found,
    is_over,
    judge,
    next_rate,
)
from loadgen.vu.transports import Transports
from loadgen.watch.console import Console, Write
from reports import names
from reports.blocks import decimal
from reports.model import Second
from reports.sketch import Sketch

_DRAIN_S = 5.0
_PAUSE_S = 0.5
_ENDING_S = 2.0
"""Kept back of the whole time, for the users of the last step and the script's section `after`."""
_RECOVERY_SHARE = 0.25
"""The share of the whole time that a service may take to recover after a step."""
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

    Users arrive at even intervals, or at random (Poisson) if those of some phase of the script do.
    `first_rate` None: that of the script's first phase with a rate, else 10. `say` is told each step when it ends. Returns the
    answer, and the run over all steps, among whose failures is that of the section `after`. Raises SectionFailed for `before`.
    """
    if first_rate is None:
        first_rate = next((phase.arrival_rate for phase in script.phases if phase.arrival_rate > 0), 10.0)
    poisson = any(phase.poisson for phase in script.phases)
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
                longest_s = min(LONGEST_STEP_S, int((ends_ns - now_ns()) / 1e9 - _ENDING_S))
                if longest_s < LEAST_STEP_S:
                    break
                engines.append(execution.engine(Share(), (_phase(rate, longest_s, poisson=poisson),)))
                watched = _StepWatch(
                    engines[-1], execution.recorder, wall, target, live, tuple(steps), rate, longest_s, ends_ns
                )
                engines[-1].run(Listener(tick=watched.tick))
                # Their failures would count in the next step.
                engines[-1].end_users()
                watch.sample()
                if signals:
                    break
                steps.append(watched.step())
                say(steps[-1])
                gevent.sleep(_PAUSE_S)
                rate = next_rate(steps, first_rate, precision)
                longest_s = min(int(_RECOVERY_SHARE * max_s), int((ends_ns - now_ns()) / 1e9 - _ENDING_S))
                if rate is not None and watched.left_a_queue and longest_s > 0:
                    engines.append(execution.engine(Share(), (_phase(1.0, longest_s),)))
                    recovery = _RecoveryWatch(engines[-1], execution.recorder, wall, target, live, longest_s)
                    engines[-1].run(Listener(tick=recovery.tick))
                    engines[-1].end_users()
                    gevent.sleep(0)
        run = execution.finished(engines[-1 if signals else 0], watch, signals, engines[1:])
        try:
            run = execution.after(run)
        except SectionFailed as error:
            # What was found holds all the same.
            run = replace(run, failures=(*run.failures, str(error)))
    return found(steps, finished=rate is None), run


def _phase(rate: float, seconds: int, *, poisson: bool = False) -> Phase:
    return Phase(0, f"{decimal(rate, 4)} users/s", seconds, f"{seconds}s", arrival_rate=rate, poisson=poisson)


class _Watch:
    """Looks at the seconds of an engine's run."""

    def __init__(self, engine: Engine, recorder: Recorder, wall: WallOffset, target: Target, live: Live) -> None:
        self._engine, self._recorder, self._target, self._live = engine, recorder, target, live
        self._first_ms = (now_ns() + wall.wall_ns) // 1_000_000
        self._in_flight: list[int] = []
        self._thinking = 0

    def tick(self, now: Progress) -> None:
        """Take the progress of a second that is over."""
        self._live(now)
        if self._engine.interrupted:
            return
        self._in_flight.append(now.active_vus - now.thinking_vus)
        self._thinking = now.thinking_vus
        self._look()

    def _look(self) -> None:
        raise NotImplementedError

    def _seconds(self) -> list[Second]:
        """The seconds in which all users were to start; those without any event are empty."""
        happened = {s.start_ms: s for period in self._recorder.report().periods for s in period.seconds}
        # The first is the whole second of the clock that begins nearest to the step.
        starts_ms = [(self._first_ms + 500) // 1000 * 1000 + 1000 * n for n in range(len(self._in_flight))]
        return [happened.get(start_ms, Second(start_ms)) for start_ms in starts_ms]

    def _seen(self) -> list[SecondSeen]:
        limit_ms = self._target.p99_ms
        # Answers of 429 are errors: a service that limits its rate is quick with them, but they are of no use.
        turned_away = self._recorder.turned_away
        return [
            SecondSeen(
                s.requests,
                s.answers,
                s.response_time.count_above(limit_ms) if s.response_time else 0,
                s.errors + turned_away[s.start_ms // 1000],
                n,
            )
            for s, n in zip(self._seconds(), self._in_flight, strict=True)
        ]

    def _counted(self, name: str) -> int:
        return self._recorder.report().aggregate.counters.get(name, 0)


class _RecoveryWatch(_Watch):
    """Starts one user each second until one is answered well, within the target, or for `longest_s` seconds."""

    def __init__(
        self, engine: Engine, recorder: Recorder, wall: WallOffset, target: Target, live: Live, longest_s: int
    ) -> None:
        super().__init__(engine, recorder, wall, target, live)
        self._longest_s = longest_s

    def _look(self) -> None:
        if len(self._in_flight) >= self._longest_s or any(s.answers - s.errors > s.slow for s in self._seen()):
            self._engine.stop()
            gevent.spawn_later(_PAUSE_S, self._engine.stop)


class _StepWatch(_Watch):
    """Looks at a step second by second, and ends it when it is decided."""

    left_a_queue = False
    """Whether users were still waiting when the step had to end."""

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        wall: WallOffset,
        target: Target,
        live: Live,
        before: Sequence[Step],
        rate: float,
        longest_s: int,
        ends_ns: int,
    ) -> None:
        super().__init__(engine, recorder, wall, target, live)
        self._before, self._rate, self._longest_s, self._ends_ns = before, rate, longest_s, ends_ns
        self._late, self._created = self._counted(names.LATE), self._counted(names.VUSERS_CREATED)
        self._is_done = False

    def _look(self) -> None:
        seen = self._seen()
        if len(self._in_flight) >= self._longest_s or is_over(seen, self._target, self._rate, self._before):
            self._engine.stop()
            left_s = (self._ends_ns - now_ns()) / 1e9 - _PAUSE_S
            gevent.spawn_later(max(_PAUSE_S, min(_DRAIN_S, left_s)), self._give_up)

    def _give_up(self) -> None:
        if not self._is_done:
            self.left_a_queue = any(step.answers for step in self._before) or any(s.answers for s in self._seen())
            self._engine.stop()

    def step(self) -> Step:
        """What the step showed, once it is over."""
        self._is_done = True
        seen = self._seen()
        judgement = judge(seen, self._target)
        times = Sketch.merged(
            [s.response_time for s in self._seconds() if s.response_time is not None] or [Sketch.of([])]
        )
        requests = sum(s.requests for s in seen)
        late, users = self._counted(names.LATE) - self._late, self._counted(names.VUSERS_CREATED) - self._created
        behind = late > _LATE_SHARE * max(1, users)
        return Step(
            self._rate,
            len(seen),
            times.count,
            times.quantile(0.99) if times.count else None,
            sum(s.errors for s in seen) / requests if requests else 1.0,
            judgement.met and not behind,
            judgement.decided,
            "generator" if behind else judgement.why,
            self._thinking / self._rate,
        )
