"""Whether a measured run can support a plan at all, and what a reader must know of it first. Pure."""

from __future__ import annotations

from loadgen.sizing.measured import MeasuredWorkload
from reports.blocks import decimal
from reports.compare.cautions import lateness
from reports.compare.estimates import requests
from reports.compare.figures import failures
from reports.model import Report, ReportError

_MOST_FAILED = 0.05
_WAIT_MS = 5.0
"""Mean waits for a connection below this are the event loop's, not a queue."""
_MOST_WAITING = 0.3
_MOST_BUSY = 0.7


def grounds(report: Report, measured: MeasuredWorkload, servers: int) -> tuple[str, ...]:
    """What must be known of a measured run before a plan made from it is believed: its own warnings, a sentence each.

    Raises ReportError where the run does not show how the service works: its arrivals were late, requests failed, or they
    queued for a connection or for the CPU of the `servers`, so that the hold times are those of an overloaded service.
    """
    refused = "no plan can be made from this run"
    if late := lateness([report], []):
        raise ReportError(f"{refused}: {late}")
    total = report.aggregate
    sent, failed = requests(total) or 0, sum(total.counters[name] for name in failures(total))
    if failed > _MOST_FAILED * sent:
        raise ReportError(f"{refused}: {failed:,} of {sent:,} requests failed")
    waited_ms, held_ms = measured.waits.mean, measured.holds.mean
    if waited_ms > max(_WAIT_MS, _MOST_WAITING * held_ms):
        raise ReportError(
            f"{refused}: requests waited {decimal(waited_ms, 4)} ms for a connection and held it for "
            f"{decimal(held_ms, 3)} ms (means), "
            "so the service was overloaded; measure at a lower rate or with a larger pool"
        )
    busy = measured.rate_per_s * measured.cpu.all_ms.mean / 1000 / servers if measured.cpu else 0.0
    if busy > _MOST_BUSY:
        raise ReportError(
            f"{refused}: its workers were busy for {busy:.0%} of the time, so requests queued for their CPU; measure at a"
            " lower rate"
        )
    extras = report.extras
    partial = ["the run did not reach its planned end"] if extras and extras.partial else []
    warnings = dict.fromkeys(extras.warnings if extras else ())
    return (*partial, *(f"the report warns: {' '.join(warning.split())}" for warning in warnings))
