"""What stands in the way of a comparison: runs that were late, warnings of the reports, other scripts, targets, machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reports import names
from reports.compare.figures import same_tool, tool
from reports.model import Period, Report

LATE_MS: Final = 10.0
"""A run whose p99 of start lag is above this did not put the planned load on the service."""

_MACHINE: Final = ("cpu", "cores", "memory_mb", "system")


def lateness(old: Sequence[Report], new: Sequence[Report]) -> str:
    """Why no figure of these runs can be judged, or "" where nothing stands against it."""
    lags = [start_lag_ms(report) for report in (*old, *new)]
    late = [lag for lag in lags if lag is not None and lag > LATE_MS]
    if not late:
        return ""
    which = "every run" if len(late) == len(lags) else f"{len(late)} of {len(lags)} runs"
    return f"{which} started its arrivals late (p99 up to {max(late):.0f} ms): the load was not the one planned"


def distinct(runs: Sequence[Report]) -> list[Report]:
    """The runs, each of them once: a report that is given twice says nothing of how runs differ."""
    found: list[Report] = []
    for run in runs:
        if not any(_same(run, other) for other in found):
            found.append(run)
    return found


def repeated(old: Sequence[Report], new: Sequence[Report]) -> Iterator[str]:
    """A sentence for each side that has a report more than once, and one for a report that is on both sides."""
    for side, runs in (("old", old), ("new", new)):
        if again := len(runs) - len(distinct(runs)):
            yield f"{again} of {len(runs)} {side} reports are there a second time; a run counts once."
    if any(_same(one, other) for one in old for other in new):
        yield "The same report is on both sides: a run compared with itself shows no change."


def _same(one: Report, other: Report) -> bool:
    """Whether two reports are of the same run, as far as their totals tell. Two empty ones are not."""
    a, b = one.aggregate, other.aggregate
    if one is other:
        return True
    told = a.counters or a.summaries
    return (
        bool(told) and (a.counters, a.rates, a.summaries) == (b.counters, b.rates, b.summaries) and _when(a) == _when(b)
    )


def _when(total: Period) -> tuple[int | float | None, ...]:
    return total.start_ms, total.first_counter_ms, total.last_counter_ms


def start_lag_ms(report: Report) -> float | None:
    """p99 of how late a run's arrivals started; None where the report does not say."""
    summary = report.aggregate.summaries.get(names.START_LAG)
    told = report.extras.generator.get("start_lag_p99_ms") if report.extras else None
    known = [lag for lag in (summary.p99 if summary else None, told) if isinstance(lag, int | float)]
    return max(known, default=None)


def cautions(old: Sequence[Report], new: Sequence[Report], *, one_target: bool = True) -> Iterator[str]:
    """What a reader must know of the runs before believing any verdict, a sentence each.

    `one_target` says that runs of different targets are nothing that the reader expects.
    """
    sides = (("old", old), ("new", new))
    partial = [side for side, runs in sides if any(r.extras and r.extras.partial for r in runs)]
    if partial:
        yield f"Partial: {' and '.join(partial)} did not reach the planned end."
    for side, runs in sides:
        yield from _warnings(side, runs)
    if len({script for runs in sides for script in _told(runs[1], ("script",))}) > 1:
        yield "The runs are of different scripts: what changed may be the load, not the service."
    for what, keys in (*((("targets", ("target",)),) if one_target else ()), ("machines", _MACHINE)):
        told = [_told(runs, keys) for _, runs in sides]
        if len({*told[0], *told[1]}) > 1:
            yield f"The runs are of different {what}: old {'; '.join(told[0])}, new {'; '.join(told[1])}."
    if not same_tool([*old, *new]):
        tools = [", ".join(sorted({tool(report) for report in runs})) for _, runs in sides]
        yield f"Old is of {tools[0]}, new of {tools[1]}: tools start and stop their clocks at different instants."


def _warnings(side: str, runs: Sequence[Report]) -> Iterator[str]:
    of: dict[str, int] = {}
    for run in runs:
        for warning in dict.fromkeys(run.extras.warnings if run.extras else ()):
            of[warning] = of.get(warning, 0) + 1
    for warning, count in of.items():
        which = f"the {side} report" if len(runs) == 1 else f"{count} of {len(runs)} {side} reports"
        yield f"Warning of {which}: {' '.join(warning.split())}"


def _told(runs: Sequence[Report], keys: Sequence[str]) -> list[str]:
    """What the runs' environments say under these keys, each answer once; a run that does not say is left out."""
    found = (_of_environment(run.extras.environment if run.extras else {}, keys) for run in runs)
    return sorted({answer for answer in found if answer})


def _of_environment(environment: Mapping[str, Any], keys: Sequence[str]) -> str:
    known = [str(environment[key]) for key in keys if environment.get(key) is not None]
    return ", ".join(known) if len(known) == len(keys) else ""
