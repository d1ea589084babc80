"""What a pool counts: histograms of durations, counters, and the snapshot that shows them. All durations are in ns."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

BOUNDS_NS = (0, *(round(1000 * 2 ** (step / 4)) for step in range(109)))
"""Upper bounds of the histograms' buckets: 0, then 1 us to 134 s, four to the octave (a quantile is within 19 %)."""

SMOOTHING = 1 / 16
"""Weight of the newest duration in a smoothed mean: after 16 of a new length it is 64 % of the way there, after 48 95 %."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations counted in the buckets of `BOUNDS_NS`; the last count is for what is longer than all of them."""

    counts: tuple[int, ...]
    total_ns: int

    @property
    def count(self) -> int:
        """Number of durations recorded."""
        return sum(self.counts)

    @property
    def mean_ns(self) -> float:
        """The exact mean in ns; 0 when empty."""
        return self.total_ns / max(1, self.count)

    def quantile_ns(self, q: float) -> int:
        """The bucket bound at or above quantile `q` (0..1), in ns: too large by at most 19 %; 0 when empty."""
        rank = q * self.count
        for bound_ns, count in zip(BOUNDS_NS, self.counts, strict=False):
            rank -= count
            if rank <= 0:
                return bound_ns
        return BOUNDS_NS[-1]


class OldLoan(NamedTuple):
    """A loan that has not ended: its age in ns, and the line (`file:line`) that borrowed the connection."""

    age_ns: int
    borrowed_at: str


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at one moment: gauges, counters since the pool was made (or the process forked), histograms.

    limit is pool_size + max_overflow, None when unlimited. in_use counts slots whose connection is lent, being opened
    or being closed; connecting is the part being opened. idle counts open connections that nobody has borrowed.
    estimated_wait_ns: see `FairPool.estimated_wait_ns`.
    wait counts every request that was made of the pool: those that had a connection at once and those that were refused at
    once (rejected, deadlocks) with 0, those that ended in a timeout or a kill with the time that they waited in vain.
    oldest_loans: the ten loans that have lasted longest, oldest first, where `leak_threshold` is on; else empty.
    closed counts by reason: overflow, idle, lifetime, stale, disposed, resized, and invalidated for all that SQLAlchemy
    itself closes (invalidation, recycle, a failed listener).
    """

    size: int
    min_size: int
    limit: int | None
    in_use: int
    idle: int
    waiting: int
    connecting: int
    estimated_wait_ns: int
    checkouts: int
    handed_over: int
    created: int
    connect_errors: int
    timeouts: int
    cancelled: int
    rejected: int
    deadlocks: int
    closed: Mapping[str, int]
    oldest_loans: tuple[OldLoan, ...]
    wait: Histogram
    connect: Histogram
    hold: Histogram


class HistogramRecorder:
    """A histogram being filled: one bisection and two additions a duration."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.total_ns += duration_ns

    def freeze(self, zeros: int = 0) -> Histogram:
        """The finished histogram, with `zeros` more durations of 0 ns."""
        return Histogram((self.counts[0] + zeros, *self.counts[1:]), self.total_ns)


class PoolStatistics:
    """What a pool counts while it works. `rare` holds the counters that are not touched by every loan.

    hold_mean_ns, gap_ns: smoothed means of how long a loan lasts, and of how long it takes from handing a connection over
    until its new borrower runs. expected_hold_ns, oldest_ns: how long a loan was expected to last, and the age of the
    oldest one, at looked_at_ns. unserved: number of waits that ended without a connection.
    """

    __slots__ = (
        "checkouts", "closed", "closed_in_all", "connect", "expected_hold_ns", "gap_ns", "hold", "hold_mean_ns", "looked_at_ns",
        "oldest_ns", "rare", "unserved", "wait",
    )  # fmt: skip

    def __init__(self) -> None:
        self.checkouts = self.closed_in_all = self.unserved = 0
        names = ("created", "connect_errors", "timeouts", "cancelled", "rejected", "deadlocks")
        self.rare = dict.fromkeys(names, 0)
        # Closed for the pool's own reasons; all others were closed by SQLAlchemy.
        self.closed: Counter[str] = Counter()
        self.wait, self.connect, self.hold = HistogramRecorder(), HistogramRecorder(), HistogramRecorder()
        self.hold_mean_ns = self.gap_ns = self.expected_hold_ns = 0.0
        self.oldest_ns, self.looked_at_ns = 0, -(10**9)

    def add_unserved(self, wait_ns: int) -> None:
        """Count a wait that ended without a connection, after `wait_ns`."""
        self.unserved += 1
        self.wait.add(wait_ns)

    def recent_hold_ns(self, lent: int) -> float:
        """Mean duration of the last few tens of loans, in ns; 0 before the first has ended.

        `lent`: the number of loans that have not ended.
        """
        # The smoothed mean began at 0, so that the first few loans have only this share in it.
        ended = min(self.checkouts - lent, 1000)
        return self.hold_mean_ns / (1 - (1 - SMOOTHING) ** ended) if ended > 0 else 0.0
