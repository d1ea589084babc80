"""The findings of a sweep as blocks: the answer in a sentence, charts, and a table of all sizes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from loadgen.sizing.search import LEAST_LOSS, Choice, Goal, Runs, SizeEstimate, SizeLimits, SizeRun, choose, estimates
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Series,
    Table,
    Text,
    amount,
    amount_cell,
    decimal,
    number_cell,
    share_cell,
)
from reports.compare.statistics import Interval
from reports.page.charts import RATE, TIME
from reports.page.sections import flattened

_HOW_TO_READ = (
    "Good answers are 2xx and 3xx. p99 is that of the response time, over all answers. Figures are means over the runs (good"
    " answers/s and p99: geometric, with their 95 % intervals). CPU is in shares of one core."
)


@dataclass(frozen=True, slots=True)
class Curve:
    """All runs of the sweep under one rate."""

    goal: Goal
    runs: Runs = field(default_factory=dict)
    ended: str = ""
    """Why the search stopped early; empty if it did not."""
    by_chance: bool = False
    """Whether users arrive by chance (Poisson), rather than at even distances."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A whole sweep, or the part of it that was run before it was interrupted."""

    subject: str
    """The application that was loaded, and the script."""
    strategy: str
    limits: SizeLimits
    sizes: Sequence[int]
    """Pool sizes asked for."""
    seconds: float
    """Duration of each run."""
    curves: Sequence[Curve] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    partial: bool = False
    error: str = ""
    """What ended it early, other than a signal; it is `partial` then."""


@dataclass(frozen=True, slots=True)
class EstimatedFigure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SizeResult:
    """One pool size under one rate: means over its runs. Times in ms, CPU in cores, memory in MB; None: not known."""

    size: int
    connections: int
    """Connections at all servers together."""
    runs: int
    good_per_s: EstimatedFigure
    p99_ms: EstimatedFigure | None
    failed_share: float | None
    wait_p99_ms: float | None
    database_cpu: float | None
    servers_cpu: float | None
    peak_backends: int
    requests: int
    needed_mb: float | None
    """Memory that the database needs with all connections open."""


_FEW = 100
"""Of fewer values, the p99 is the greatest."""
_NO_WAIT_MS = 1.0
"""A p99 of waits below which nobody is said to have waited."""

_SIZE = Axis("connections kept by each server", "")
_DRAWN: tuple[tuple[str, str, Axis, Callable[[SizeResult], float | None]], ...] = (
    ("good", "Good answers per second", RATE, lambda s: s.good_per_s.value),
    ("p99", "p99 of response times", TIME, lambda s: s.p99_ms.value if s.p99_ms else None),
    ("wait", "p99 of waiting for a connection", TIME, lambda s: s.wait_p99_ms),
    (
        "cpu",
        "Database CPU",
        Axis("per cent of a core", "%"),
        lambda s: None if s.database_cpu is None else s.database_cpu * 100,
    ),
)


def sentence(curve: Curve, limits: SizeLimits) -> str:
    """The answer for one rate and the reason, in sentences."""
    if not curve.runs:
        return f"{decimal(curve.goal.rate)} users/s: nothing was measured."
    known = estimates(curve.runs)
    found = answer(curve)
    if found is None:
        ((size, only),) = known.items()
        told = "No answer: one size was run in the time given (--max-seconds)."
        return f"{decimal(curve.goal.rate)} users/s: {told} A pool of {size}: {_figures(only)}."
    if found.reason == "nothing answers":
        return (
            f"{decimal(curve.goal.rate)} users/s: no request was answered well at any size. Does the script fit"
            " the application?"
        )
    chosen, below = known[found.size], max((s for s in known if s < found.size), default=None)
    begins = "use" if settled(curve) else "not settled, but so far"
    connections = f"connections: {found.size * limits.servers}, servers: {limits.servers}"
    parts = [
        f"{decimal(curve.goal.rate)} users/s: {begins} a pool of {found.size} ({connections}).",
        _reason(found, chosen, known, curve.goal),
    ]
    if below is not None:
        verb = "is" if _clearly_worse(known[below], chosen, found, curve.goal) else "seems"
        parts.append(f"{below} {verb} too small: {_figures(known[below])}.")
    parts += _doubts(found, known, curve, limits)
    return " ".join(parts)


def answer(curve: Curve) -> Choice | None:
    """The size to use under one rate; None where nothing was run, or only one of several sizes before the time was up."""
    if not curve.runs or (len(curve.runs) == 1 and curve.ended):
        return None
    return choose(estimates(curve.runs), curve.goal)


def settled(curve: Curve) -> bool:
    """Whether there is an answer that is as precise as was asked."""
    found = answer(curve)
    if found is None:
        return False
    known = estimates(curve.runs)
    return found.reason != "nothing answers" and known[found.size].is_known(curve.goal)


def meets_targets(sweep: Sweep) -> bool:
    """Whether every rate has an answer, and one that meets the target where there is one."""
    found = [choice.reason for curve in sweep.curves if (choice := answer(curve)) is not None]
    return len(found) == len(sweep.curves) and not {"nothing meets the target", "nothing answers"} & set(found)


def sweep_page(sweep: Sweep) -> Page:
    """The whole result: the answer for each rate, then charts and a table of all sizes."""
    limits = sweep.limits
    blocks: list[Block] = []
    if sweep.partial:
        ended = "it was ended by an error" if sweep.error else "the sweep was interrupted"
        blocks.append(Text(f"Partial: {ended}. What follows was measured until then.", "warn"))
    if sweep.error:
        blocks.append(Text(sweep.error, "warn"))
    blocks += [Text(sentence(curve, limits), "good" if settled(curve) else "warn") for curve in sweep.curves]
    arrangement = (
        f"{sweep.subject}; strategy {sweep.strategy}, servers: {limits.servers}, {decimal(sweep.seconds)} s a run"
    )
    blocks.append(Items(tuple(map(Text, (arrangement, limits_text(limits), *sweep.notes)))))
    facts = Facts("Machine and versions", tuple(flattened(sweep.environment)))
    charts = sweep_charts(sweep)
    sections = (
        Section("answer", "The answer", tuple(blocks), menu="Answer"),
        Section(
            "curves",
            "Against pool size",
            (*([Charts(charts)] if charts else []), Text(_HOW_TO_READ)),
            menu="Charts",
            data=[_curve_values(curve, limits) for curve in sweep.curves],
        ),
        *(
            Section(f"rate-{number}", f"{decimal(curve.goal.rate)} users/s", (_table(number, curve, limits),), 3)
            for number, curve in enumerate(sweep.curves)
            if curve.runs
        ),
        Section("environment", "Environment", (facts,), menu="Environment", data=sweep.environment),
    )
    data = {
        "partial": sweep.partial,
        "error": sweep.error or None,
        "subject": sweep.subject,
        "strategy": sweep.strategy,
        "servers": limits.servers,
        "seconds": sweep.seconds,
        "sizes": sweep.sizes,
        "limits": {
            "max_connections": limits.max_connections,
            "reserved": limits.reserved,
            "usable": limits.usable,
            "size_by_connections": limits.by_connections,
            "memory_mb": limits.memory_mb,
            "fixed_mb": limits.fixed_mb,
            "per_backend_mb": limits.per_backend_mb,
            "size_by_memory": limits.by_memory,
        },
        "notes": sweep.notes,
    }
    return Page("How big should the pool be?", f"{sweep.subject}, {sweep.strategy}", sections, data)


def sweep_charts(sweep: Sweep) -> tuple[Chart, ...]:
    """Charts of what was measured against pool size: one for each figure, with a line for each rate. One size alone has none."""
    measured = [(curve.goal.rate, size_results(curve, sweep.limits)) for curve in sweep.curves if curve.runs]
    charts = []
    for key, title, axis, figure in _DRAWN:
        series = tuple(
            Series(f"{decimal(rate)} users/s", tuple(float(s.size) for s in sizes), tuple(map(figure, sizes)), colour)
            for colour, (rate, sizes) in enumerate(measured)
        )
        if any(sum(y is not None for y in line.y) > 1 for line in series):
            charts.append(Chart(key, title, "line", _SIZE, axis, series))
    return tuple(charts)


def limits_text(limits: SizeLimits) -> str:
    """The limits of the pool size, in a sentence."""
    usable = "" if limits.usable is None else f" and {limits.usable} may be used"
    text = (
        f"{limits.max_connections} connections, of which {limits.reserved} are reserved{usable}, allow pools of up to"
        f" {limits.by_connections}"
    )
    if limits.by_memory is not None:
        text += (
            f"; {decimal(limits.memory_mb)} MB of memory, up to {limits.by_memory}: a connection costs "
            f"{limits.per_backend_mb:.2f} MB"
            f" here, and the database without connections {limits.fixed_mb:.0f} MB"
        )
    return text


def _reason(found: Choice, chosen: SizeEstimate, known: Mapping[int, SizeEstimate], goal: Goal) -> str:
    best = (
        "" if found.best == found.size else f"; the best of those measured, {found.best}: {_figures(known[found.best])}"
    )
    if found.reason == "meets the target":
        return (
            f"It is the smallest that meets the target, a p99 of {decimal(goal.p99_ms)} ms: {_figures(chosen)}{best}."
        )
    missed = (
        f"No size meets the target of {decimal(goal.p99_ms)} ms. " if found.reason == "nothing meets the target" else ""
    )
    return f"{missed}It is the smallest that is not measurably worse than the best: {_figures(chosen)}{best}."


def _clearly_worse(below: SizeEstimate, chosen: SizeEstimate, found: Choice, goal: Goal) -> bool:
    """Whether a rejected size is worse by more than chance. With a target, its p99 alone is reason enough."""
    if found.reason != "meets the target" or goal.p99_ms is None or below.p99 is None:
        return True
    if below.failed_share > chosen.failed_share + LEAST_LOSS:
        return True
    return exp(below.p99.low) > goal.p99_ms or below.good.high < chosen.good.low


def _doubts(found: Choice, known: Mapping[int, SizeEstimate], curve: Curve, limits: SizeLimits) -> Iterator[str]:
    chosen, goal = known[found.size], curve.goal
    if all(e.runs == 1 for e in known.values()):
        yield "No size was run twice: how much runs vary was assumed, not measured."
    if not chosen.is_known(goal):
        known_to = f"known to ±{chosen.half_width:.0%}, not to the ±{goal.precision:.0%} asked for"
        yield f"More runs may change that: its figures are {known_to}."
    if chosen.p99 is not None and found.reason == "meets the target" and exp(chosen.p99.high) > (goal.p99_ms or 0.0):
        yield f"Its p99 may be as long as {amount(exp(chosen.p99.high))} ms, which is beyond the target."
    if found.size == max(known) and found.size > min(known):
        greatest = min(m for m in (limits.by_connections, limits.by_memory) if m is not None)
        why = "the limits allow" if found.size == greatest else "was asked for"
        yield f"That is the largest size that {why}: a larger one may be better."
    fewest = min(run.requests for run in curve.runs[found.size])
    if chosen.p99 is not None and fewest < _FEW:
        yield f"The p99 of so few requests ({fewest}) is the time of the slowest one: give more --seconds."
    waits = [run.wait_p99_ms for run in curve.runs[found.size] if run.wait_p99_ms is not None]
    if not curve.by_chance and found.size == min(known) and waits and max(waits) < _NO_WAIT_MS:
        yield (
            f"No request waited for a connection, but users came exactly every {amount(1000 / goal.rate)} ms. Real ones come by"
            " chance, several at a time, and may need more: try it with `mode: poisson` in the script's `config`."
        )
    if curve.ended:
        yield f"The search stopped early: {curve.ended}."


def _figures(estimate: SizeEstimate) -> str:
    failed = f", {estimate.failed_share:.2%} failed" if estimate.failed_share else ""
    good = f"{amount(exp(estimate.good.value))} good answers/s{failed}"
    if estimate.p99 is None:
        return good
    low, value, high = (exp(at) for at in (estimate.p99.low, estimate.p99.value, estimate.p99.high))
    return f"p99 {amount(value)} ms ({amount(low)} to {amount(high)}), {good}"


def size_results(curve: Curve, limits: SizeLimits) -> list[SizeResult]:
    """The figures of each size that was run under one rate, in ascending order of size."""
    return [
        _size_result(estimate, curve.runs[size], size * limits.servers, limits)
        for size, estimate in estimates(curve.runs).items()
    ]


def _size_result(estimate: SizeEstimate, runs: Sequence[SizeRun], connections: int, limits: SizeLimits) -> SizeResult:
    return SizeResult(
        size=runs[0].size,
        connections=connections,
        runs=len(runs),
        good_per_s=_span(estimate.good),
        p99_ms=None if estimate.p99 is None else _span(estimate.p99),
        failed_share=_mean([r.failed_share for r in runs]),
        wait_p99_ms=_mean([r.wait_p99_ms for r in runs]),
        database_cpu=_mean([r.database_cpu for r in runs]),
        servers_cpu=_mean([r.servers_cpu for r in runs]),
        peak_backends=max(r.peak_backends for r in runs),
        requests=sum(r.requests for r in runs),
        needed_mb=limits.fixed_mb + connections * limits.per_backend_mb if limits.per_backend_mb else None,
    )


def _curve_values(curve: Curve, limits: SizeLimits) -> dict[str, Any]:
    found = answer(curve)
    return {
        "rate": curve.goal.rate,
        "target_p99_ms": curve.goal.p99_ms,
        "precision": curve.goal.precision,
        "ended": curve.ended,
        "answer": None if found is None else {"size": found.size, "best": found.best, "reason": found.reason},
        "settled": settled(curve),
        "sentence": sentence(curve, limits),
        "sizes": size_results(curve, limits),
        "runs": [run for runs in curve.runs.values() for run in runs],
    }


def _span(interval: Interval) -> EstimatedFigure:
    return EstimatedFigure(exp(interval.value), exp(interval.low), exp(interval.high))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _table(number: int, curve: Curve, limits: SizeLimits) -> Table:
    found = answer(curve)
    best = None if found is None else found.size
    rows = tuple(
        (
            Cell(f"{s.size} (the answer)", s.size, "good") if s.size == best else Cell(f"{s.size}", s.size),
            number_cell(s.connections),
            number_cell(s.runs),
            _span_cell(s.good_per_s),
            share_cell(s.failed_share, bad=True),
            _span_cell(s.p99_ms),
            amount_cell(s.wait_p99_ms),
            share_cell(s.database_cpu),
            share_cell(s.servers_cpu),
            number_cell(s.needed_mb),
        )
        for s in size_results(curve, limits)
    )
    headings = (
        "connections",
        "runs",
        "good answers/s",
        "failed",
        "p99, ms",
        "wait for a connection p99, ms",
        "database CPU",
        "servers' CPU",
        "memory, MB",
    )
    columns = (Column("pool size", "mark"), *(Column(heading, "number") for heading in headings))
    return Table(f"sizes-{number}", f"Each size at {decimal(curve.goal.rate)} users/s", columns, rows)


def _span_cell(span: EstimatedFigure | None) -> Cell:
    if span is None:
        return Cell(ABSENT)
    return Cell(f"{amount(span.value)} ({amount(span.low)} to {amount(span.high)})", span.value)
