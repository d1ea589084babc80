"""How many events a run had, and in how many seconds: what rates are compared by.

Artillery's own figure is a mean over slices of the clock, of which the first and the last are cut: 100 requests a second for
a minute read 86 where the run began just after a slice did. Here events are divided by the seconds from the first to the
last of them, without the pauses between runs that were merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from reports import names
from reports.compare.statistics import Floats
from reports.model import PERIOD_MS, Period, Report

_LEAST_SECONDS = 1.0
"""A run shorter than this has no rate worth the name; Artillery counts it as a second, too."""


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """Events of each period and the seconds that it measured, in order of time; at least one period."""

    events: Floats
    seconds: Floats

    @property
    def per_second(self) -> float:
        """Events per second of the whole run."""
        return float(self.events.sum() / self.seconds.sum())


def measured_rate(report: Report, name: str) -> MeasuredRate | None:
    """The events of a rate over its periods; None where the report does not say how many there were, and when."""
    counted = [(period, count) for period in report.periods if (count := _events(period, name))]
    if not counted or any(name in p.rates and _events(p, name) is None for p in report.periods):
        return None
    periods, events = [p for p, _ in counted], np.array([count for _, count in counted], np.float64)
    bounds = np.array([_first_ms(periods[0], name), *(p.start_ms for p in periods[1:]), 0.0])
    # As Python's numbers, too much for one is infinite without a warning.
    bounds[-1] = _last_ms(periods[-1], name, float(bounds[-2]), float(events[-1]), period_ms(report.periods))
    between_runs = [report.paused_ms(start, end) for start, end in pairwise(bounds)]
    seconds = (np.diff(bounds) - between_runs) / 1000
    if not (seconds >= 0).all() or seconds.sum() < _LEAST_SECONDS:
        return None
    # from the first to the last event there is one interval fewer than events
    events[-1] -= 1
    return MeasuredRate(events, np.maximum(seconds, 1e-3))


def period_ms(periods: Sequence[Period]) -> float:
    """Length of a report's slices in ms: the least distance of two of them, at most Artillery's 10 s."""
    distances = (after.start_ms - before.start_ms for before, after in pairwise(periods))
    return min((d for d in distances if d > 0), default=PERIOD_MS) if len(periods) > 1 else PERIOD_MS


def _events(period: Period, name: str) -> int | None:
    rate = period.rates.get(name)
    if rate is not None and rate.count is not None:
        return rate.count
    return period.counters.get(names.REQUESTS) if name == names.REQUEST_RATE else None


def _first_ms(period: Period, name: str) -> float:
    rate = period.rates.get(name)
    known = rate.first_ms if rate is not None else None
    if known is None:
        known = period.first_counter_ms
    return period.start_ms if known is None else known


def _last_ms(period: Period, name: str, from_ms: float, events: float, length_ms: float) -> float:
    """Instant of the last event; where it is not in the report, Artillery's rate of that slice tells how long it was."""
    rate = period.rates.get(name)
    if rate is not None and rate.last_ms is not None:
        return rate.last_ms
    end = period.start_ms + length_ms
    if rate is not None and rate.per_second > 0:
        # a slice's rate is over one second at least, however short the slice was
        return min(from_ms + 1000 * events / rate.per_second, end)
    return end if period.last_counter_ms is None else min(max(period.last_counter_ms, from_ms), end)
