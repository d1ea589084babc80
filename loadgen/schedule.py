"""The plan of arrivals: when each virtual user is to start. Pure: it reads no clock and has no effects.

Artillery 2.0's laws, counted from the start of a phase:

- uniform: one arrival per interval, the first after one interval. The interval (1 s / rate, or duration / count) is floored
  to whole microseconds and floor(duration / interval) arrivals are made. The phase ends at the last one.
- ramp: for each whole second i of D, n_i = round-half-up(A + (B - A) * i / (D - 1)) arrivals spaced floor(1000 / n_i) ms,
  the first after one such space; above 1000 a second, where that would be 0, the space is floored to microseconds.
  For D = 1, round((A + B) / 2) arrivals at once. The phase ends after D.
- poisson: exponential gaps of mean 1 / rate until D has passed.

A smooth ramp, which `--arrivals` asks for, climbs by the instant instead of by the second. If it is uniform, its k-th arrival
comes when the integral of the rate is k; if it is poisson, gaps in that integral are exponential with mean 1. It ends after D.

A closed phase (`concurrency`) has a length and no arrivals of the plan: its users start when others end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, floor, sqrt
from random import Random

from loadgen.language.values import number_text
from loadgen.script.model import Phase

_S_IN_NS = 1_000_000_000
_MANY = 100
_BURST = 1.5


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """When a phase runs, in nanoseconds from the start of the run."""

    phase: Phase
    start_ns: int
    end_ns: int


def arrivals(phases: Iterable[Phase], rng: Random) -> Iterator[tuple[int, int]]:
    """Yield every arrival as (offset from the start of the run in ns, index of its phase).

    Offsets never go back. Only poisson phases use `rng`.
    """
    for span in spans(phases):
        for offset_ns in _offsets(span.phase, rng):
            yield span.start_ns + offset_ns, span.phase.index


def spans(phases: Iterable[Phase]) -> tuple[PhaseSpan, ...]:
    """When each phase starts and ends, in the order of the phases."""
    out: list[PhaseSpan] = []
    start_ns = 0
    for phase in phases:
        out.append(PhaseSpan(phase, start_ns, start_ns + _length_ns(phase)))
        start_ns = out[-1].end_ns
    return tuple(out)


def lasting(phases: Sequence[Phase], seconds: float) -> tuple[Phase, ...]:
    """The phases made longer or shorter in proportion, so that all together take `seconds` or a little less; rates stay.

    Their ramps become smooth, for Artillery's stairs need whole seconds. Phases that take `seconds` already stay as they are.
    Raises ValueError where the phases take no time.
    """
    # A phase of no arrivals ends at once, however long it is.
    whole_s = sum(phase.duration_s for phase in phases if phase.arrival_count != 0)
    if not whole_s:
        raise ValueError("the script's phases take no time")
    factor = seconds / whole_s
    return tuple(phases) if factor == 1 else tuple(_stretched(phase, factor) for phase in phases)


def _stretched(phase: Phase, factor: float) -> Phase:
    duration_s = phase.duration_s * factor
    count = phase.arrival_count and max(1, round(phase.arrival_count * factor))
    text = f"{number_text(round(duration_s, 3))}s"
    return replace(phase, duration_s=duration_s, duration_text=text, arrival_count=count, smooth=True)


def expected_users(phases: Iterable[Phase]) -> int:
    """About how many arrivals the phases plan, before any limit of active users; of a closed phase, its users at one time."""
    total = 0.0
    for phase in phases:
        if phase.concurrency is not None:
            total += phase.concurrency
        elif phase.arrival_count is not None:
            total += phase.arrival_count
        elif not phase.pause:
            last = phase.arrival_rate if phase.ramp_to is None else phase.ramp_to
            total += phase.duration_s * (phase.arrival_rate + last) / 2
    return round(total)


def highest_rate(phases: Iterable[Phase]) -> float:
    """The most users a second that any phase plans; closed phases, which have no rate, count as 0."""
    return max((_rate(phase) for phase in phases), default=0.0)


def _rate(phase: Phase) -> float:
    if phase.concurrency is not None or phase.pause:
        return 0.0
    if phase.arrival_count is not None:
        # A crowd that comes at once is over before it could be too much.
        return phase.arrival_count / max(1.0, phase.duration_s)
    return max(phase.arrival_rate, phase.ramp_to or 0.0)


def _is_ramp(phase: Phase) -> bool:
    return phase.arrival_count is None and phase.ramp_to is not None


def distortion(phases: Iterable[Phase]) -> str | None:
    """A sentence on the worst second of Artillery's ramps: its arrivals come at once, in bursts with silence after them.

    None where none comes at half as much again as its rate.
    """
    worst: tuple[float, int, float] | None = None
    at_once = 0
    for phase in phases:
        if _is_ramp(phase) and not phase.smooth and not phase.pause and phase.concurrency is None:
            for n, space_us in _stairs(phase):
                if n >= _MANY and not space_us:
                    at_once = max(at_once, n)
                burst = 1_000_000 / space_us / n if space_us and n >= _MANY else 0.0
                if burst >= _BURST and (worst is None or burst > worst[0]):
                    worst = burst, n, 1 - n * space_us / 1e6
    if at_once:
        return f"the ramp of one second is Artillery's: its {at_once} arrivals come all at once; --arrivals uniform is even"
    if worst is None:
        return None
    burst, n, silent_s = worst
    return (
        f"the ramp has Artillery's whole milliseconds: its second of {n} arrivals sends them at {burst * n:.0f} per second,"
        f" and then nothing for {silent_s:.1f} s; --arrivals uniform is even"
    )


def _is_poisson(phase: Phase) -> bool:
    return phase.poisson and phase.arrival_count is None


def _interval_us(phase: Phase) -> int:
    """Microseconds between two arrivals of a uniform phase; 0 if it has no arrivals.

    The result is floored, so the order of the divisions matters: it is Artillery's.
    """
    if phase.arrival_count is not None:
        each_ms = phase.duration_s * 1000 / phase.arrival_count if phase.arrival_count else 0.0
    else:
        each_ms = 1000 / phase.arrival_rate if phase.arrival_rate else 0.0
    return max(1, floor(each_ms * 1000)) if each_ms else 0


def _uniform_count(phase: Phase) -> int:
    interval_us = _interval_us(phase)
    return floor(phase.duration_s * 1000 * 1000 / interval_us) if interval_us else 0


def _stairs(phase: Phase) -> Iterator[tuple[int, int]]:
    """For each second of a ramp: the number of arrivals, and the microseconds between two of them."""
    low, high = phase.arrival_rate, phase.ramp_to or 0.0
    if phase.duration_s == 1:
        yield floor((low + high) / 2 + 0.5), 0
        return
    for i in range(ceil(phase.duration_s)):
        # A ramp whose duration is no whole number of seconds goes beyond `rampTo` in its last, shorter second.
        climbed = i / (phase.duration_s - 1) if i else 0.0
        n = max(0, floor(low + (high - low) * climbed + 0.5))
        yield n, (1000 // n * 1000 or 1_000_000 // n) if n else 0


def _length_ns(phase: Phase) -> int:
    if phase.pause or phase.concurrency is not None or _is_poisson(phase):
        return round(phase.duration_s * _S_IN_NS)
    if _is_ramp(phase) and phase.smooth:
        return round(phase.duration_s * _S_IN_NS)
    if _is_ramp(phase):
        return ceil(phase.duration_s) * _S_IN_NS
    count = _uniform_count(phase)
    # Where the rate is 0, or not one interval fits, the phase is a pause.
    if not count:
        return 0 if phase.arrival_count == 0 else round(phase.duration_s * _S_IN_NS)
    return count * _interval_us(phase) * 1000


def _offsets(phase: Phase, rng: Random) -> Iterator[int]:
    """The arrivals of one phase, in ns from its start."""
    if phase.pause or phase.concurrency is not None:
        return
    if _is_ramp(phase) and phase.smooth:
        yield from _smooth_offsets(phase, rng)
    elif _is_ramp(phase):
        for second, (n, space_us) in enumerate(_stairs(phase)):
            for k in range(1, n + 1):
                yield second * _S_IN_NS + k * space_us * 1000
    elif _is_poisson(phase):
        yield from _poisson_offsets(phase, rng)
    else:
        interval_ns = _interval_us(phase) * 1000
        for k in range(1, _uniform_count(phase) + 1):
            yield k * interval_ns


def _smooth_offsets(phase: Phase, rng: Random) -> Iterator[int]:
    """The arrivals of a ramp whose rate changes evenly, in ns from its start."""
    low, high, duration_s = phase.arrival_rate, phase.ramp_to or 0.0, phase.duration_s
    whole = (low + high) / 2 * duration_s
    due = 0.0
    while True:
        due += rng.expovariate(1.0) if phase.poisson else 1.0
        # A thousandth, for the last arrival of an even ramp is due just when it ends.
        if due > whole + (0.0 if phase.poisson else 1e-3):
            return
        # The instant at which the rate's integral, low * t + (high - low) * t^2 / (2 * duration), is `due`.
        root = sqrt(max(0.0, low * low + 2 * (high - low) * due / duration_s))
        at_s = 2 * due / (low + root) if low + root else duration_s
        yield round(min(at_s, duration_s) * _S_IN_NS)


def _poisson_offsets(phase: Phase, rng: Random) -> Iterator[int]:
    if not phase.arrival_rate:
        return
    at_s = rng.expovariate(phase.arrival_rate)
    while at_s < phase.duration_s:
        yield round(at_s * _S_IN_NS)
        at_s += rng.expovariate(phase.arrival_rate)


@dataclass(frozen=True, slots=True)
class Share:
    """One generator's part of a plan that `of` generators carry out: every `of`-th arrival from number `index` on."""

    index: int = 0
    of: int = 1
    beside: tuple[int, int] = (0, 1)
    """The generator's number among those on its machine, with which it shares the ports, and how many those are."""

    def part(self, total: int) -> int:
        """This generator's part of a number that is split fairly; all parts add up to the number."""
        return total // self.of + (self.index < total % self.of)

    def arrivals(self, plan: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """This generator's arrivals of the plan."""
        return islice(plan, self.index, None, self.of)


@dataclass(frozen=True, slots=True)
class DealtShare(Share):
    """One side's part of a duel: each side has one of any two arrivals in a row, and a coin says which.

    The same seed makes the shares of both sides fit together. A limit is halved, rounded up: the sides are alike.
    """

    of: int = 2
    seed: str = ""

    def part(self, total: int) -> int:
        """Half of a number, rounded up."""
        return (total + 1) // 2

    def arrivals(self, plan: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """This side's arrivals of the plan."""
        coin = Random(self.seed)
        first = 0
        for number, arrival in enumerate(plan):
            if number % 2 == 0:
                first = coin.randrange(2)
            if (first + number) % 2 == self.index:
                yield arrival


def most_shares(wanted: int, phases: Iterable[Phase]) -> int:
    """The number of shares into which a plan can be split, at most `wanted`: each needs a part of every phase's
    `maxVusers` and `concurrency`.
    """
    limits = (limit for phase in phases for limit in (phase.max_vusers, phase.concurrency) if limit is not None)
    return max(1, min([wanted, *limits]))
