"""Which answers are good, said once for every report, page and command: those of a status 2xx or 3xx."""

from __future__ import annotations

from collections.abc import Mapping

from reports import names

_GOOD = (f"{names.CODES}2", f"{names.CODES}3")


def good_answers(counters: Mapping[str, int]) -> int:
    """How many answers of a status 2xx or 3xx the counters of a run, or of a part of it, have."""
    return sum(count for name, count in counters.items() if name.startswith(_GOOD))


def failed_share(counters: Mapping[str, int]) -> float:
    """The share of requests sent that got no good answer, 0 to 1; 0 where no request was sent."""
    sent = counters.get(names.REQUESTS, 0)
    return 1 - good_answers(counters) / sent if sent else 0.0
