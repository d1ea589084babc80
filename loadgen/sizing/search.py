"""Decides which pool size `loadgen sweep` measures next, and which it recommends. Pure: nothing is measured here.

A *run* is one size under one offered rate for some seconds. Sizes are compared by two figures: good answers per second, and
the p99 of response times. Both are compared on logarithms, so that 10 % counts the same at 5 ms and at 500 ms.

How much the runs of a size vary is estimated from its own runs and from those of all sizes (the moderated variance of Smyth,
Stat. Appl. Genet. Mol. Biol. 3, 2004, with a prior worth `_PRIOR_RUNS` runs), because two runs may agree by
chance. Sizes are compared by `reports.compare.statistics.difference`: one is *measurably worse* than another if the
difference is more than chance (5 %, two-sided) and more than the precision asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Literal

from reports.compare.statistics import LEVEL, Interval, difference, student_critical

LEAST_RUNS = 2
"""Runs of each size of the ladder before anything is decided."""

_PRIOR_RUNS = 4.0
# Assumed deviation between runs, of a logarithm, while no size has been run twice.
_SUPPOSED_DEVIATION = 0.1
# Least deviation, of a logarithm: the accuracy of a sketch.
_LEAST_DEVIATION = 0.01
# Least share of lost answers that counts, whatever precision is asked for.
LEAST_LOSS = 0.01
# Stands for zero, which has no logarithm.
_NOTHING = 1e-3


@dataclass(frozen=True, slots=True)
class SizeRun:
    """One run of one size at the offered rate. CPU shares are in cores."""

    size: int
    good_per_s: float
    """Answers with 2xx and 3xx per second, from the first request to the last answer."""
    failed_share: float
    """Share of all requests sent that had no such answer."""
    p99_ms: float | None
    """p99 of the response times of all answers; None without answers."""
    wait_p99_ms: float | None
    """p99 of the wait for a connection, as reported by the servers; None if they do not report it."""
    database_cpu: float | None
    servers_cpu: float
    requests: int
    peak_backends: int


Runs = Mapping[int, Sequence[SizeRun]]
"""All runs at one rate, by size."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The question: the smallest size for this rate (new virtual users per second) whose p99 is at most `p99_ms`."""

    rate: float
    p99_ms: float | None = None
    precision: float = 0.1
    """Relative half width that the intervals are to reach; also the smallest difference that counts."""
    max_rounds: int = 8
    """Most runs of one size."""


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """The figures of one size with 95 % intervals on logarithms; `p99` is None if no run had an answer."""

    size: int
    runs: int
    good: Interval
    p99: Interval | None
    failed_share: float = 0.0
    """Share of failed requests in all runs of this size."""

    @property
    def half_width(self) -> float:
        """Half the width of the wider interval, relative to its figure."""
        return max(_half_width(i) for i in (self.good, self.p99) if i is not None)

    def is_known(self, goal: Goal) -> bool:
        """Whether the intervals are as narrow as asked. A p99 whose whole interval meets the target is precise enough."""
        within = self.p99 is not None and goal.p99_ms is not None and self.p99.high <= log(goal.p99_ms)
        return (_half_width(self.good) if within else self.half_width) <= goal.precision


Reason = Literal["meets the target", "as good as the best", "nothing meets the target", "nothing answers"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommended size, the size with the best figures, and the reason."""

    size: int
    best: int
    reason: Reason


def ladder(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes to begin with: the smallest, the largest, and between them each about twice the one before."""
    steps, wanted = [], min(sizes)
    while wanted < max(sizes):
        steps.append(min((s for s in sizes if s >= wanted), default=wanted))
        wanted = 2 * steps[-1]
    return tuple(dict.fromkeys((*steps, max(sizes))))


def next_sizes(runs: Runs, sizes: Sequence[int], goal: Goal) -> tuple[int, ...]:
    """Return the sizes to measure next, once each; empty when the answer is as precise as asked or the runs are used up.

    First comes the ladder. Then the gap below the smallest good size is halved, with the sizes it is compared with run
    again, until the next smaller size is known to be too small. Then these two and what they are compared with are repeated.
    """
    beginning = tuple(s for s in ladder(sizes) if len(runs.get(s, ())) < min(LEAST_RUNS, goal.max_rounds))
    if beginning:
        return beginning
    known = estimates(runs)
    found = choose(known, goal)
    beside = found.size if found.reason == "meets the target" else found.best
    below = max((s for s in runs if s < found.size), default=None)
    gap = [s for s in sizes if (below or 0) < s < found.size]
    if gap:
        return tuple(s for s in (gap[len(gap) // 2], beside) if _may_repeat(runs, s, goal))
    contenders = {found.size, beside} | ({below} if below is not None else set())
    again = sorted(s for s in contenders if _may_repeat(runs, s, goal))
    return tuple(again) if any(not _settled(known[s], found, goal) for s in again) else ()


def choose(known: Mapping[int, SizeEstimate], goal: Goal) -> Choice:
    """Choose the smallest size that is not measurably worse than the best.

    A size must answer no fewer requests than the one that answers most, nor fail one in a hundred more than the one that fails
    fewest (a rate known to a few per cent does not show that). With a target, all sizes whose p99 meets it are equally good.
    Without one, or if none meets it, the p99 must not be measurably longer than the shortest.
    """
    most = max(known.values(), key=lambda e: e.good.value)
    fewest = min(e.failed_share for e in known.values())
    answering = {
        size: e
        for size, e in known.items()
        if not _worse(_mirrored(e.good), _mirrored(most.good), LEAST_LOSS) and e.failed_share <= fewest + LEAST_LOSS
    }
    if most.good.value < log(2 * _NOTHING):
        return Choice(most.size, most.size, "nothing answers")
    timed = {size: e.p99 for size, e in answering.items() if e.p99 is not None}
    if not timed:
        # One answers fewer, and another one fails more: that which answers most is the best of all.
        return Choice(
            most.size, most.size, "as good as the best" if goal.p99_ms is None else "nothing meets the target"
        )
    best = min(timed, key=lambda size: (timed[size].value, size))
    if goal.p99_ms is not None:
        meeting = [size for size, p99 in timed.items() if exp(p99.value) <= goal.p99_ms]
        if meeting:
            return Choice(min(meeting), best, "meets the target")
    quick = [size for size, p99 in timed.items() if not _worse(p99, timed[best], goal.precision)]
    return Choice(min(quick), best, "as good as the best" if goal.p99_ms is None else "nothing meets the target")


def estimates(runs: Runs) -> dict[int, SizeEstimate]:
    """Return the figures of each size that has a run."""
    good = _moderated({size: [log(max(r.good_per_s, _NOTHING)) for r in some] for size, some in runs.items()})
    timed = {size: [r.p99_ms for r in some if r.p99_ms is not None] for size, some in runs.items()}
    p99 = _moderated({size: [log(max(ms, _NOTHING)) for ms in some] for size, some in timed.items()})
    return {
        size: SizeEstimate(size, len(runs[size]), good[size], p99.get(size), _failed(runs[size]))
        for size in sorted(good)
    }


def _failed(runs: Sequence[SizeRun]) -> float:
    sent = sum(r.requests for r in runs)
    return sum(r.failed_share * r.requests for r in runs) / sent if sent else 0.0


def _moderated(values: Mapping[int, Sequence[float]]) -> dict[int, Interval]:
    """Return means with intervals whose variance is moderated by that of all sizes."""
    squares = {size: _squares(some) for size, some in values.items() if some}
    freedom = sum(len(values[size]) - 1 for size in squares)
    prior = min(_PRIOR_RUNS, freedom or _PRIOR_RUNS)
    shared = sum(squares.values()) / freedom if freedom else _SUPPOSED_DEVIATION**2
    found = {}
    for size, own in squares.items():
        some, df = values[size], len(values[size]) - 1 + prior
        variance = max((own + prior * shared) / df, _LEAST_DEVIATION**2)
        mean, half = sum(some) / len(some), student_critical(df) * sqrt(variance / len(some))
        found[size] = Interval(mean, mean - half, mean + half, df)
    return found


def _squares(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values)


def _worse(figure: Interval, best: Interval, least: float) -> bool:
    """Whether one estimate (logarithms, lower is better) is worse than another by more than chance and by more than `least`."""
    found = difference(best, figure)
    return found.value > log(1 + least) and found.p <= LEVEL


def _half_width(interval: Interval) -> float:
    return exp(interval.high - interval.value) - 1


def _mirrored(interval: Interval) -> Interval:
    return Interval(-interval.value, -interval.high, -interval.low, interval.df)


def _may_repeat(runs: Runs, size: int, goal: Goal) -> bool:
    return len(runs.get(size, ())) < goal.max_rounds


def _settled(estimate: SizeEstimate, found: Choice, goal: Goal) -> bool:
    """Whether a size is known as precisely as asked or, if it was rejected, known to be too slow."""
    p99 = estimate.p99
    if estimate.size < found.size and p99 is not None and goal.p99_ms is not None and p99.low > log(goal.p99_ms):
        return True
    return estimate.is_known(goal)


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits on the size: the connections of all servers must fit into the database's connection limit and memory."""

    servers: int
    max_connections: int
    reserved: int = 0
    """Connections that the database reserves for superusers or privileged roles."""
    memory_mb: float | None = None
    fixed_mb: float = 0.0
    """Memory of the database without connections, in MB: shared memory and its own processes."""
    per_backend_mb: float = 0.0
    usable: int | None = None
    """Connections that may be used of those which a database of the user's own has free; None: all that are not reserved."""

    @property
    def by_connections(self) -> int:
        """The largest size that the connections allow."""
        most = max(0, self.max_connections - self.reserved)
        return (most if self.usable is None else min(most, self.usable)) // self.servers

    @property
    def by_memory(self) -> int | None:
        """The largest size that fits into the memory; None without a limit."""
        if self.memory_mb is None or self.per_backend_mb <= 0:
            return None
        return max(0, int((self.memory_mb - self.fixed_mb) / self.per_backend_mb)) // self.servers

    def allowed(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the sizes that keep both limits."""
        most = self.by_connections if self.by_memory is None else min(self.by_connections, self.by_memory)
        return tuple(size for size in sizes if size <= most)
