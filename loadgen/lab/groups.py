"""What groups P (PgBouncer) and M (memory) found, row by row, a figure for each heading. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.lab.evidence import Evidence, ExperimentResult, MemoryUse
from reports import names

Row = Mapping[str, str | float | None]
"""Values by heading; None where there is none."""

PGBOUNCER_TITLE = "P: through PgBouncer and direct"
PGBOUNCER_NOTE = (
    "The three arrangements of each load took turns in one session, three rounds each. Times run from the intended start of a"
    " request to its last byte. CPU is in per cent of one core; PgBouncer has one thread, so 100 is all it can use. A click may"
    " be recorded for an answer that nobody waited for any more; fewer clicks than answers would be lost ones."
)
MEMORY_TITLE = "M: the nested object from a database with a limit of memory"


def pgbouncer_rows(evidence: Evidence) -> list[Row]:
    """Group P, in the order of running."""
    of_p = [outcome for key, outcome in evidence.outcomes.items() if key.startswith("P.")]
    return [_through(outcome, _direct(outcome, of_p)) for outcome in of_p]


def _direct(outcome: ExperimentResult, of_p: Sequence[ExperimentResult]) -> ExperimentResult | None:
    """The same load without PgBouncer."""
    same = (outcome.experiment.users, outcome.experiment.script)
    return next(
        (o for o in of_p if not o.experiment.pgbouncer and (o.experiment.users, o.experiment.script) == same), None
    )


def _through(outcome: ExperimentResult, direct: ExperimentResult | None) -> Row:
    rate = direct.good_per_second if direct is not None else 0.0
    recorded = outcome.clicks_recorded
    return {
        "experiment": outcome.experiment.id,
        "good/s": round(outcome.good_per_second, 1),
        "of direct": round(outcome.good_per_second / rate, 3) if rate else None,
        "failed": round(outcome.failed_share, 4),
        **_times(outcome),
        "server connections at peak": outcome.peak_backends,
        "servers' CPU": _core(outcome.servers_cpu_s, outcome),
        "PgBouncer's CPU": _core(outcome.pgbouncer_cpu_s, outcome),
        "database's CPU": _core(outcome.database_cpu_s, outcome),
        "clicks of 301 answers": None if recorded is None else f"{recorded} of {outcome.answers(301)}",
    }


def memory_rows(evidence: Evidence) -> list[Row]:
    """Group M, in the order of running."""
    return [
        {
            "experiment": outcome.experiment.id,
            "answered": round(1 - outcome.failed_share, 4),
            "good/s": round(outcome.good_per_second, 1),
            **_times(outcome),
            "connections": use.connections,
            "PSS, MB": round(use.pss_mb, 1),
            "peak, MB": None if use.peak_mb is None else round(use.peak_mb, 1),
            "limit met, times": use.limit_hits,
            "killed for memory": use.oom_kills,
            "answers afterwards": "yes" if use.answers_afterwards else "no",
        }
        for outcome, use in _limited(evidence)
    ]


def memory_note(evidence: Evidence) -> str:
    """How to read the table, and the slope of PSS over its rows where there are two of different connections."""
    text = (
        "Peak is the kernel's count for all processes of the database, page cache of its files included; cache is given up"
        " when the limit is met, and a process is killed when there is none left. PSS is measured at the end of the load, all"
        " connections still open."
    )
    whole = [(use.connections, use.pss_mb) for _, use in _limited(evidence) if use.connections and not use.oom_kills]
    slope = pss_slope_mb(whole)
    return text if slope is None else f"{text} Where nothing was killed it grows by {slope:.2f} MB a connection."


def pss_slope_mb(points: Sequence[tuple[float, float]]) -> float | None:
    """Least squares of summed PSS over the number of connections; None for fewer than two different numbers."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True)) if points else (0.0, 0.0)
    squares = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / squares if squares else None


def _limited(evidence: Evidence) -> list[tuple[ExperimentResult, MemoryUse]]:
    return [(o, o.memory_use) for o in evidence.outcomes.values() if o.memory_use is not None]


def _times(outcome: ExperimentResult) -> Row:
    sketch = outcome.report.aggregate.sketches.get(names.INTENDED)
    return {
        heading: None if sketch is None else round(sketch.quantile(q), 2)
        for heading, q in (("p50, ms", 0.5), ("p99, ms", 0.99))
    }


def _core(cpu_s: float | None, outcome: ExperimentResult) -> float | None:
    return None if cpu_s is None else round(100 * cpu_s / outcome.wall_s, 1)
