"""Whether a measured run can support a plan at all, and what a reader must know of it first. Pure."""

from __future__ import annotations

from loadgen.sizing.measured import POOL, MeasuredWorkload
from reports.answers import failures, requests
from reports.blocks import decimal
from reports.compare.cautions import lateness
from reports.model import PERIOD_MS, Report, ReportError

_REFUSED = "no plan can be made from this run"
_MOST_FAILED = 0.05
_WAIT_MS = 5.0
"""Mean waits for a connection below this are the event loop's, not a queue."""
_MOST_WAITING = 0.3
_MOST_QUEUED = 0.1
"""Share of the answers that may come from periods in which requests queued for a connection."""
_MOST_BUSY = 0.7


def check_run(report: Report) -> None:
    """Raise ReportError where the run went wrong: nothing was requested, its arrivals were late, or requests failed."""
    if late := lateness([report], []):
        raise ReportError(f"{_REFUSED}: {late}")
    total = report.aggregate
    counters = total.counters
    sent, failed = requests(counters), sum(counters[name] for name in failures(counters))
    if not sent and not (total.sketches or total.summaries or (report.extras and report.extras.ab)):
        raise ReportError(f"{_REFUSED}: it made no requests")
    if failed > _MOST_FAILED * (sent or 0):
        raise ReportError(f"{_REFUSED}: {failed:,} of {sent or 0:,} requests failed")


def grounds(report: Report, measured: MeasuredWorkload, servers: int) -> tuple[str, ...]:
    """What must be known of a measured run before a plan made from it is believed: its own warnings, a sentence each.

    Raises ReportError where the run does not show how the service works: it went wrong, or its requests queued for a
    connection or for the CPU of the `servers`, so that the hold times are those of an overloaded service.
    """
    check_run(report)
    waited_ms, held_ms = measured.waits.mean, measured.holds.mean
    if waited_ms > max(_WAIT_MS, _MOST_WAITING * held_ms):
        raise ReportError(
            f"{_REFUSED}: requests waited {decimal(waited_ms, 4)} ms for a connection and held it for "
            f"{decimal(held_ms, 3)} ms (means), "
            "so the service was overloaded; measure at a lower rate or with a larger pool"
        )
    if queued := _queued_periods(report, held_ms):
        raise ReportError(
            f"{_REFUSED}: for {queued * PERIOD_MS // 1000} s of it, requests waited for a connection for a long time, so the "
            "service was overloaded for a part of the run; measure at a steady lower rate"
        )
    busy = measured.rate_per_s * measured.cpu.mean_ms / 1000 / servers if measured.cpu else 0.0
    if busy > _MOST_BUSY:
        raise ReportError(
            f"{_REFUSED}: its workers were busy for {busy:.0%} of the time, so requests queued for their CPU; measure at a"
            " lower rate"
        )
    extras = report.extras
    partial = ["the run did not reach its planned end"] if extras and extras.partial else []
    warnings = dict.fromkeys(extras.warnings if extras else ())
    return (*partial, *(f"the report warns: {' '.join(warning.split())}" for warning in warnings))


def _queued_periods(report: Report, held_ms: float) -> int:
    """How many periods had requests that queued for a connection; 0 if only few answers are from such periods."""
    waits = [period.sketches[POOL] for period in report.periods if POOL in period.sketches]
    queued = [each for each in waits if each.count and each.mean > max(_WAIT_MS, _MOST_WAITING * held_ms)]
    answers = sum(each.count for each in waits)
    return len(queued) if sum(each.count for each in queued) > _MOST_QUEUED * answers else 0
