"""What a sweep found, as a sentence, a table, and values for JSON and for the page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from loadgen.sizing.search import LEAST_LOSS, Choice, Goal, Runs, SizeEstimate, SizeLimits, SizeRun, choose, estimates
from reports.blocks import amount
from reports.compare.statistics import Interval
from reports.formats.markdown import table


@dataclass(frozen=True, slots=True)
class Curve:
    """All runs under one rate."""

    goal: Goal
    runs: Runs = field(default_factory=dict)
    ended: str = ""
    """Why the search stopped, where it was not for knowing enough."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A whole sweep, or what there was of it when it was interrupted."""

    subject: str
    """What was loaded, and with which script."""
    strategy: str
    limits: SizeLimits
    sizes: Sequence[int]
    """As asked for."""
    seconds: float
    """Of a run."""
    curves: Sequence[Curve] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    partial: bool = False


def sentence(curve: Curve, limits: SizeLimits) -> str:
    """The answer for one rate, with why."""
    if not curve.runs:
        return f"{curve.goal.rate:g} users/s: nothing was measured."
    known = estimates(curve.runs)
    found = choose(known, curve.goal)
    if found.reason == "nothing answers":
        return f"{curve.goal.rate:g} users/s: no request was answered well at any size. Does the script fit the application?"
    chosen, below = known[found.size], max((s for s in known if s < found.size), default=None)
    begins = "use" if settled(curve) else "not settled, but so far"
    connections = f"connections: {found.size * limits.servers}, servers: {limits.servers}"
    parts = [
        f"{curve.goal.rate:g} users/s: {begins} a pool of {found.size} ({connections}).",
        _reason(found, chosen, known, curve.goal),
    ]
    if below is not None:
        verb = "is" if _clearly_worse(known[below], chosen, found, curve.goal) else "seems"
        parts.append(f"{below} {verb} too small: {_figures(known[below])}.")
    parts += _doubts(found, known, curve, limits)
    return " ".join(parts)


def settled(curve: Curve) -> bool:
    """Whether there is an answer, and it is known as precisely as asked."""
    if not curve.runs:
        return False
    known = estimates(curve.runs)
    found = choose(known, curve.goal)
    return found.reason != "nothing answers" and known[found.size].is_known(curve.goal)


def meets_targets(sweep: Sweep) -> bool:
    """Whether every rate has an answer, and one that meets the target where there is one."""
    found = [choose(estimates(curve.runs), curve.goal).reason for curve in sweep.curves if curve.runs]
    return len(found) == len(sweep.curves) and not {"nothing meets the target", "nothing answers"} & set(found)


def to_document(sweep: Sweep) -> dict[str, Any]:
    """Everything as plain values; times in ms, memory in MB, CPU in cores."""
    limits = sweep.limits
    return {
        "partial": sweep.partial,
        "subject": sweep.subject,
        "strategy": sweep.strategy,
        "servers": limits.servers,
        "seconds": sweep.seconds,
        "sizes": list(sweep.sizes),
        "limits": {
            "max_connections": limits.max_connections,
            "reserved": limits.reserved,
            "size_by_connections": limits.by_connections,
            "memory_mb": limits.memory_mb,
            "fixed_mb": limits.fixed_mb,
            "per_backend_mb": limits.per_backend_mb,
            "size_by_memory": limits.by_memory,
        },
        "notes": list(sweep.notes),
        "curves": [_curve_document(curve, limits) for curve in sweep.curves],
        "environment": dict(sweep.environment),
    }


def to_markdown(sweep: Sweep) -> str:
    """The answer first, then the table for each rate."""
    parts = ["# How big should the pool be?\n"]
    if sweep.partial:
        parts.append("**Partial: the sweep was interrupted. What follows was measured until then.**\n")
    parts += [f"**{sentence(curve, sweep.limits)}**\n" for curve in sweep.curves]
    e = sweep.environment
    lines = [
        f"{sweep.subject}; strategy {sweep.strategy}, servers: {sweep.limits.servers}, {sweep.seconds:g} s a run",
        limits_text(sweep.limits),
        f"{e.get('cpu')}, {e.get('cores')} cores, {e.get('memory_mb')} MB, {e.get('system')}, Python {e.get('python')}",
        *sweep.notes,
    ]
    parts.append("".join(f"- {line}\n" for line in lines))
    for curve in sweep.curves:
        parts += [f"## {curve.goal.rate:g} users/s\n", _table(curve, sweep.limits)]
    parts.append(
        "Good answers are 2xx and 3xx. p99 is http.response_time's, over all answers. Figures are means over the runs (good/s"
        " and p99: geometric, with their 95 % intervals). CPU in per cent of one core.\n"
    )
    return "\n".join(parts)


def limits_text(limits: SizeLimits) -> str:
    """What bounds the size."""
    text = (
        f"{limits.max_connections} connections, of which {limits.reserved} are reserved, allow pools of up to"
        f" {limits.by_connections}"
    )
    if limits.by_memory is not None:
        text += (
            f"; {limits.memory_mb:g} MB of memory, up to {limits.by_memory}: a connection costs {limits.per_backend_mb:.2f} MB"
            f" here, and the database without any {limits.fixed_mb:.0f} MB"
        )
    return text


def _reason(found: Choice, chosen: SizeEstimate, known: Mapping[int, SizeEstimate], goal: Goal) -> str:
    best = (
        "" if found.best == found.size else f"; the best of those measured, {found.best}: {_figures(known[found.best])}"
    )
    if found.reason == "meets the target":
        return f"It is the smallest that meets the target, a p99 of {goal.p99_ms:g} ms: {_figures(chosen)}{best}."
    missed = f"No size meets the target of {goal.p99_ms:g} ms. " if found.reason == "nothing meets the target" else ""
    return f"{missed}It is the smallest that is not measurably worse than the best: {_figures(chosen)}{best}."


def _clearly_worse(below: SizeEstimate, chosen: SizeEstimate, found: Choice, goal: Goal) -> bool:
    """Whether more than chance speaks against a size that was left out. With a target, its p99 as such was enough for that."""
    if found.reason != "meets the target" or goal.p99_ms is None or below.p99 is None:
        return True
    if below.failed_share > chosen.failed_share + LEAST_LOSS:
        return True
    return exp(below.p99.low) > goal.p99_ms or below.good.high < chosen.good.low


def _doubts(found: Choice, known: Mapping[int, SizeEstimate], curve: Curve, limits: SizeLimits) -> Iterator[str]:
    chosen, goal = known[found.size], curve.goal
    if all(e.runs == 1 for e in known.values()):
        yield "No size was run twice: how much runs vary was supposed, not measured."
    if not chosen.is_known(goal):
        known_to = f"known to ±{chosen.half_width:.0%}, not to the ±{goal.precision:.0%} asked for"
        yield f"More runs may change that: its figures are {known_to}."
    if chosen.p99 is not None and found.reason == "meets the target" and exp(chosen.p99.high) > (goal.p99_ms or 0.0):
        yield f"Its p99 may be as long as {amount(exp(chosen.p99.high))} ms, which is beyond the target."
    if found.size == max(known) and found.size > min(known):
        greatest = min(m for m in (limits.by_connections, limits.by_memory) if m is not None)
        why = "the limits allow" if found.size == greatest else "was asked for"
        yield f"That is the greatest size that {why}: a greater one may be better."
    if curve.ended:
        yield f"The search stopped early: {curve.ended}."


def _figures(estimate: SizeEstimate) -> str:
    failed = f", {estimate.failed_share:.2%} failed" if estimate.failed_share else ""
    good = f"{amount(exp(estimate.good.value))} good answers/s{failed}"
    if estimate.p99 is None:
        return good
    low, value, high = (exp(at) for at in (estimate.p99.low, estimate.p99.value, estimate.p99.high))
    return f"p99 {amount(value)} ms ({amount(low)} to {amount(high)}), {good}"


def rows(curve: Curve, limits: SizeLimits) -> Iterator[dict[str, Any]]:
    """Each size's figures: means over its runs; good answers and p99 with their intervals."""
    known = estimates(curve.runs)
    for size, estimate in known.items():
        runs = curve.runs[size]
        yield {
            "size": size,
            "connections": size * limits.servers,
            "runs": len(runs),
            "good_per_s": _interval_document(estimate.good),
            "p99_ms": None if estimate.p99 is None else _interval_document(estimate.p99),
            "failed_share": _mean([r.failed_share for r in runs]),
            "wait_p99_ms": _mean([r.wait_p99_ms for r in runs]),
            "database_cpu": _mean([r.database_cpu for r in runs]),
            "servers_cpu": _mean([r.servers_cpu for r in runs]),
            "peak_backends": max(r.peak_backends for r in runs),
            "requests": sum(r.requests for r in runs),
            "needed_mb": (
                limits.fixed_mb + size * limits.servers * limits.per_backend_mb if limits.per_backend_mb else None
            ),
        }


def _curve_document(curve: Curve, limits: SizeLimits) -> dict[str, Any]:
    found = choose(estimates(curve.runs), curve.goal) if curve.runs else None
    return {
        "rate": curve.goal.rate,
        "target_p99_ms": curve.goal.p99_ms,
        "precision": curve.goal.precision,
        "ended": curve.ended,
        "answer": None if found is None else {"size": found.size, "best": found.best, "reason": found.reason},
        "settled": settled(curve),
        "sentence": sentence(curve, limits),
        "sizes": list(rows(curve, limits)),
        "runs": [_run_document(run) for runs in curve.runs.values() for run in runs],
    }


def _run_document(run: SizeRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in run.__slots__}


def _interval_document(interval: Interval) -> dict[str, float]:
    return {"value": exp(interval.value), "low": exp(interval.low), "high": exp(interval.high)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _table(curve: Curve, limits: SizeLimits) -> str:
    headings = ("pool size", "connections", "runs", "good/s", "failed", "p99, ms", "pool wait p99, ms", "database CPU",
                "servers' CPU", "memory, MB")  # fmt: skip
    found = choose(estimates(curve.runs), curve.goal).size if curve.runs else None
    return table(headings, [
        (
            f"{row['size']} (the answer)" if row["size"] == found else str(row["size"]),
            str(row["connections"]),
            str(row["runs"]),
            _span(row["good_per_s"]),
            f"{row['failed_share']:.2%}",
            _span(row["p99_ms"]),
            _shown(row["wait_p99_ms"], ".1f"),
            _shown(row["database_cpu"], ".0%"),
            _shown(row["servers_cpu"], ".0%"),
            _shown(row["needed_mb"], ".0f"),
        )
        for row in rows(curve, limits)
    ])  # fmt: skip


def _span(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "-"
    return f"{amount(interval['value'])} ({amount(interval['low'])} to {amount(interval['high'])})"


def _shown(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
