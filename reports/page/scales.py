"""Axes of charts: the position of a value between the ends of its axis, and which values are labelled. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

from reports.blocks import Axis, clock, decimal

Tick = tuple[float, str]
"""A value to label, and its label."""

_PERCENTILES: tuple[Tick, ...] = (
    (1, "0"),
    (2, "50"),
    (4, "75"),
    (10, "90"),
    (20, "95"),
    (100, "99"),
    (1000, "99.9"),
)
_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TIME_STEPS = 7
_FEWEST_DECADES = 0.3
"""A logarithmic axis spans at least a factor of two, so that its ticks can be told apart."""


@dataclass(frozen=True, slots=True)
class AxisScale:
    """An axis from `low` to `high`, both in its unit; on a logarithmic one both are above zero."""

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """The position of a value: 0 at `low`, 1 at `high`. Values beyond an end are put at that end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)


def axis_scale(axis: Axis, values: Iterable[float], *, rounded: bool = True) -> AxisScale:
    """The scale that has room for all `values`. Linear axes include zero.

    `rounded`: both ends are moved out to round figures, for an axis that values are read from. An axis of time or of
    percentiles always ends where its values do.
    """
    found = list(values)
    if axis.scale == "tail":
        high = max(found, default=2.0)
        return _logarithmic(axis, 1.0, max(high, 2.0))
    if axis.scale == "log":
        above = [v for v in found if v > 0] or [1.0]
        low, high = min(above), max(above)
        if log10(high) - log10(low) < _FEWEST_DECADES:
            low, high = low / 1.5, high * 1.5
        return _logarithmic(axis, *(_rounded_log(low, high) if rounded else (low, high)))
    low, high = min(0.0, *found, 0.0), max(0.0, *found, 0.0)
    high = high if high > low else low + 1.0
    if axis.scale == "linear" and rounded:
        step = _step(high - low)
        low, high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return AxisScale(low, high, log=False, ticks=ticks(axis, low, high))


def ticks(axis: Axis, low: float, high: float) -> tuple[Tick, ...]:
    """The labelled values of an axis from `low` to `high`, with their labels."""
    if axis.scale == "tail":
        return tuple((at, text) for at, text in _PERCENTILES if low <= at <= high * 1.001)
    if axis.scale == "elapsed":
        return tuple((at, clock(at)) for at in _multiples(max(0.0, low), high, _time_step(high - low)))
    if axis.scale == "log":
        return tuple((at, _short(at)) for at in _log_ticks(low, high))
    return tuple((at, _short(at)) for at in _multiples(low, high, _step(high - low)))


def _logarithmic(axis: Axis, low: float, high: float) -> AxisScale:
    return AxisScale(low, high, log=True, ticks=ticks(axis, low, high))


def _rounded_log(low: float, high: float) -> tuple[float, float]:
    """The nearest 1, 2 or 5 times a power of ten below and above."""
    down, up = 10.0 ** floor(log10(low)), 10.0 ** floor(log10(high))
    return (
        max(m * down for m in (1.0, 2.0, 5.0) if m * down <= low * (1 + 1e-9)),
        min(m * up for m in (1.0, 2.0, 5.0, 10.0) if m * up >= high * (1 - 1e-9)),
    )


def _short(tick: float) -> str:
    """A tick's label; beyond what anybody measures, as a multiple of a power of ten, which an axis has room for."""
    if abs(tick) >= 1e12:
        power = floor(log10(abs(tick)))
        return f"{tick / 10.0**power:.1f} x 10^{power}"
    return f"{tick:,.0f}" if abs(tick) >= 10 else decimal(tick)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five ticks fit into `span`."""
    rough = (span or 1.0) / 5
    power: float = 10.0 ** floor(log10(rough))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.999)


def _time_step(span_s: float) -> float:
    return next((float(s) for s in _TIME_STEPS_S if span_s / s <= _MOST_TIME_STEPS), float(_TIME_STEPS_S[-1]))


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    decades = log10(high) - log10(low)
    few = (1, 2, 5) if decades < 3.2 else (1,)
    every = max(1, ceil(decades / 8))
    return [m * 10.0**p for p in powers if p % every == 0 for m in few if low * 0.999 <= m * 10.0**p <= high * 1.001]
