"""The scales that figures are compared on: runs differ on them by about as much wherever the figures lie.

Times and rates by their logarithm, shares by the angle 2 asin sqrt(share), whose standard error is 1 / sqrt(count).
"""

from __future__ import annotations

from math import asin, log, sqrt
from typing import Final

OFFSET: Final = 0.1
"""Added before a logarithm is taken, in ms or per second: zeros have none, and reports are rounded to this."""


def on_log(value: float) -> float:
    """A time in ms or a rate per second, at least 0, on the scale it is compared on."""
    return log(value + OFFSET)


def on_angle(share: float) -> float:
    """A share, 0 to 1, on the scale it is compared on."""
    return 2 * asin(sqrt(min(max(share, 0.0), 1.0)))


def assumed_angle(share: float, relative: float) -> float:
    """Standard error on the angle's scale of a share, or of what is left of it to 1, that varies by a part of itself."""
    rare = min(share, 1 - share)
    return relative * sqrt(rare / (1 - rare)) if rare > 0 else 0.0
