"""How many requests a run made, and how many of them went wrong, from the counters of a run or of a part of it. Pure.

There are two meanings of "wrong", and each has its own name everywhere:

- *failures* are requests without an answer (`errors.*`) and those answered by a status of 500 or more. The figure `errors`
  of gates, `--abort-on`, comparisons and histories is their share: a 404 may well be the right answer.
- requests *without a good answer* are all that got no status of 2xx or 3xx. Pages of reports and the lab's figures have these.
"""

from __future__ import annotations

from collections.abc import Mapping

from reports import names

_GOOD = (f"{names.CODES}2", f"{names.CODES}3")
_SERVER_ERROR = f"{names.CODES}5"


def requests(counters: Mapping[str, int]) -> int | None:
    """The number of requests; where they were not counted, of answers and failures; None without any of these."""
    counted = counters.get(names.REQUESTS)
    if counted:
        return counted
    # wrk counts answers, so it has none where every request failed.
    parts = [name for name in counters if name.startswith(names.CODES) or _is_error(name, counters)]
    return sum(counters[name] for name in parts) if parts else counted


def failures(counters: Mapping[str, int]) -> list[str]:
    """The names of the counters of failures: requests without an answer, or with one of status 500 or more.

    What a tool calls a failure is one, too, even if it was answered otherwise; no request is counted twice.
    """
    found = [name for name in counters if name.startswith((names.ERRORS, _SERVER_ERROR))]
    return [name for name in found if _is_error(name, counters) or not name.startswith(f"{names.ERRORS}5")]


def _is_error(name: str, counters: Mapping[str, int]) -> bool:
    """Whether a counter is one of errors, and not of answers that are counted by their status already, as JMeter's errors are."""
    return name.startswith(names.ERRORS) and f"{names.CODES}{name.removeprefix(names.ERRORS)}" not in counters


def good_answers(counters: Mapping[str, int]) -> int:
    """The number of answers with a status of 2xx or 3xx."""
    return sum(count for name, count in counters.items() if name.startswith(_GOOD))


def has_codes(counters: Mapping[str, int]) -> bool:
    """Whether answers were counted by their status. Some tools count only what they call failures."""
    return any(name.startswith(names.CODES) for name in counters)


def failed_share(counters: Mapping[str, int]) -> float:
    """The share of requests without a good answer, 0 to 1; 0 if no request was sent. For runs that count statuses."""
    sent = requests(counters)
    return max(0.0, 1 - good_answers(counters) / sent) if sent else 0.0
