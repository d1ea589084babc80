"""One distribution's sketches over the periods of a run, as arrays: how many samples of each period lie under a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.sketch import Sketch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PeriodBins:
    """Bins of all periods end to end. Samples up to zero count as zero: what is timed takes no less."""

    offsets: Ints
    """The first bin of each period."""
    starts: Ints
    """Where each period's bins start in `counts`; one more at the end."""
    counts: Floats
    zeros: Floats
    """Samples up to zero, by period."""
    sums: Floats
    """Sum of the samples, by period."""
    total: Sketch
    """Of all periods; its quantiles are interpolated here, so that a change less than a bin wide does not vanish."""

    @classmethod
    def of(cls, sketches: Sequence[Sketch]) -> PeriodBins:
        """One sketch per period, at least one; all of the same relative accuracy, or ValueError."""
        lengths = np.array([len(s.positive.counts) for s in sketches])
        return cls(
            offsets=np.array([s.positive.offset for s in sketches]),
            starts=np.concatenate([[0], lengths.cumsum()]),
            counts=np.concatenate([s.positive.counts for s in sketches]).astype(np.float64),
            zeros=np.array([s.zero_count + s.negative.total for s in sketches], np.float64),
            sums=np.array([s.sum for s in sketches], np.float64),
            total=Sketch.merged(sketches),
        )

    @property
    def sizes(self) -> Floats:
        """Samples of each period."""
        cumulative = np.concatenate([[0.0], self.counts.cumsum()])
        sizes: Floats = self.zeros + np.diff(cumulative[self.starts])
        return sizes

    def under(self, shares: Sequence[float]) -> Floats:
        """A row per period, a column per share: its samples up to the value that this share of all samples is under."""
        cumulative = np.concatenate([[0.0], self.counts.cumsum()])
        first, last = self.starts[:-1], self.starts[1:]
        columns = []
        for share in shares:
            at, part = _bin_of(self.total, share)
            index = np.clip(at - self.offsets, 0, last - first) + first
            there = (at >= self.offsets) & (index < last)
            within = np.where(there, self.counts[np.minimum(index, len(self.counts) - 1)] if len(self.counts) else 0, 0)
            columns.append(self.zeros + cumulative[index] - cumulative[first] + max(part, 0) * within)
        return np.stack(columns, axis=1)


def interpolated(total: Sketch, share: float) -> float:
    """The value that a share (0..1) of the samples is under: linear inside a bin, within min and max, 0 up to zero."""
    at, part = _bin_of(total, share)
    if part < 0:
        return min(0.0, max(total.min, 0.0))
    gamma = (1 + total.relative_accuracy) / (1 - total.relative_accuracy)
    upper = float(gamma**at)
    value = upper / gamma + part * (upper - upper / gamma)
    return min(max(value, total.min), total.max)


def _bin_of(total: Sketch, share: float) -> tuple[int, float]:
    """The bin, and how much of it, that a share of the samples reaches; part -1 where it ends up to zero."""
    zeros = total.zero_count + total.negative.total
    wanted = min(max(share, 0.0), 1.0) * total.count - zeros
    bins = total.positive
    if wanted <= 0 or not len(bins.counts):
        return bins.offset, -1.0 if zeros else 0.0
    cumulative = bins.counts.cumsum()
    index = min(int(np.searchsorted(cumulative, wanted)), len(cumulative) - 1)
    inside = float(bins.counts[index])
    return bins.offset + index, (wanted - (float(cumulative[index]) - inside)) / inside
