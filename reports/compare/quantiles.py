"""Quantiles of a sketch, finer than its bins."""

from __future__ import annotations

import numpy as np

from reports.sketch import Sketch


def interpolated(total: Sketch, share: float) -> float:
    """The value that a share (0..1) of the samples is under: linear inside a bin, within min and max, 0 up to zero.

    So a change of less than a bin does not vanish. Samples up to zero count as zero: nothing that is timed takes less.
    """
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
