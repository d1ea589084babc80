"""Whether a measured run can support a plan at all, and what a reader must know of it first. Pure."""

from __future__ import annotations

from loadgen.sizing.measured import MeasuredWorkload
from reports.compare.cautions import lateness
from reports.compare.estimates import requests
from reports.compare.figures import failures
from reports.model import Report, ReportError

_MOST_FAILED = 0.5
_WAIT_MS = 5.0
"""Mean waits for a connection below this are the event loop's, not a queue."""


def grounds(report: Report, measured: MeasuredWorkload) -> tuple[str, ...]:
    """What must be known of a measured run before a plan made from it is believed: its own warnings, a sentence each.

    Raises ReportError where the run does not show how the service works: its arrivals were late, most requests failed, or
    requests waited longer for a connection than they held it, so that the hold times are those of an overloaded database.
    """
    refused = "no plan can be made from this run"
    if late := lateness([report], []):
        raise ReportError(f"{refused}: {late}")
    total = report.aggregate
    sent, failed = requests(total) or 0, sum(total.counters[name] for name in failures(total))
    if failed > _MOST_FAILED * sent:
        raise ReportError(f"{refused}: {failed:,} of {sent:,} requests failed")
    waited_ms, held_ms = measured.waits.mean, measured.holds.mean
    if waited_ms > max(_WAIT_MS, held_ms):
        raise ReportError(
            f"{refused}: requests waited {waited_ms:.4g} ms for a connection and held it for {held_ms:.3g} ms (means), "
            "so the service was overloaded; measure at a lower rate or with a larger pool"
        )
    extras = report.extras
    partial = ["the run did not reach its planned end"] if extras and extras.partial else []
    warnings = dict.fromkeys(extras.warnings if extras else ())
    return (*partial, *(f"the report warns: {' '.join(warning.split())}" for warning in warnings))
