"""What `loadgen capacity` says: the answer in a sentence, and a table of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.sizing.capacity import Capacity, Step, Target, missed_near
from reports.blocks import Cell, Column, Page, Section, Table, Text, amount, amount_cell, decimal, percent

_LIMITS = {
    "service": "Beyond it the service falls behind: its queue grows for as long as the load lasts.",
    "target": "Beyond it the service still keeps up, but no longer within the target: {why}.",
    "generator": "The generator could not start users in time at a higher rate: the service may hold more.",
    "time": "The search ended before any rate was known to miss the target.",
}
_UNFINISHED = "The search ended before the answer was as precise as asked."

_PARTIAL = (
    "Users think for {} s or more, so a step saw only a part of what they ask for, and the service may hold less. Shorten the"
    " script's think times for this search."
)
_UNANSWERED = "Nothing was answered: this says nothing about what the service holds."


def target_text(target: Target) -> str:
    """The target in words."""
    return f"p99 within {amount(target.p99_ms)} ms and at most {percent(target.error_share)} errors"


def step_line(step: Step, target: Target) -> str:
    """One line about a step that is over."""
    p99 = "no answers" if step.p99_ms is None else f"p99 {amount(step.p99_ms)} ms"
    verdict = f"meets {target_text(target)}" if step.met else f"misses the target: {_why(step)}"
    return f"{decimal(step.rate, 4)} users/s for {step.seconds} s: {p99}, {percent(step.error_share)} errors, {verdict}"


def was_not_learnt(found: Capacity) -> bool:
    """Whether the search learnt nothing, because the generator was late even at the lowest rate."""
    return found.rate is None and found.limit == "generator"


def capacity_page(found: Capacity, target: Target, data: Mapping[str, Any]) -> Page:
    """The result. `data` is what JSON has."""
    steps = Table(
        "steps",
        "Steps, in the order in which they were run",
        (
            Column("users/s", "number"),
            Column("seconds", "number"),
            Column("answers", "number"),
            Column("p99, ms", "number"),
            Column("errors", "number"),
            Column("verdict"),
        ),
        tuple(_row(step) for step in found.steps),
        note="Each step is judged without its first seconds, in which the service warms up.",
    )
    limit = _limit(found)
    said = Text(answer(found, target), "good" if found.rate else "bad")
    texts = [said, *_doubts([found])] + ([Text(limit)] if limit else [])
    blocks: tuple[Text | Table, ...] = (*texts, steps)
    section = Section("capacity", "The answer", blocks, menu="Answer", data={"answer": answer(found, target)})
    return Page("Capacity", target_text(target), (section,), data)


def _doubts(found: Sequence[Capacity]) -> list[Text]:
    thinking_s = max((step.thinking_s for each in found for step in each.steps if step.is_partial), default=None)
    return [] if thinking_s is None else [Text(_PARTIAL.format(decimal(thinking_s)), "warn")]


@dataclass(frozen=True, slots=True)
class Found:
    """The capacity of one arrangement of an application, which `name` names."""

    name: str
    capacity: Capacity


def capacities_page(found: Sequence[Found], target: Target, data: Mapping[str, Any], error: str = "") -> Page:
    """The capacities of an application in several arrangements, the highest first. `data` is what JSON has.

    `error`: why the other arrangements were not searched.
    """
    ordered = sorted(found, key=lambda each: -(each.capacity.rate or 0.0))
    rows = tuple(
        (
            Cell(each.name),
            amount_cell(each.capacity.rate),
            amount_cell(each.capacity.low),
            amount_cell(each.capacity.high),
            Cell(_limit(each.capacity)),
        )
        for each in ordered
    )
    table = Table(
        "capacities",
        "New users per second that are held",
        (
            Column("arrangement"),
            Column("rate", "number"),
            Column("at least", "number"),
            Column("less than", "number"),
            Column("what limits it"),
        ),
        rows,
        prose=True,
    )
    said = _compared(ordered, target)
    ended = (Text(f"Partial: not all arrangements were searched. {error}", "warn"),) if error else ()
    blocks = (
        *ended,
        Text(said, "good" if ordered[0].capacity.rate else "bad"),
        *_doubts([c.capacity for c in found]),
        table,
    )
    section = Section("capacity", "The answer", blocks, menu="Answer")
    return Page("Capacity", target_text(target), (section,), {"answer": said, **data})


def _compared(ordered: Sequence[Found], target: Target) -> str:
    best = ordered[0]
    unknown = [each.name for each in ordered if was_not_learnt(each.capacity)]
    if len(unknown) == len(ordered):
        return "Nothing was learnt about the arrangements: the generator was late even at the lowest rate."
    late = f" Nothing was learnt about {', '.join(unknown)}: the generator was late." if unknown else ""
    if best.capacity.rate is None:
        return f"No arrangement met the target ({target_text(target)}) at any rate that was tried.{late}"
    said = f"{best.name} holds the most: {amount(best.capacity.rate)} new users per second with {target_text(target)}."
    alike = [
        each.name
        for each in ordered[1:]
        if each.capacity.rate and (each.capacity.high is None or each.capacity.high >= best.capacity.low)
    ]
    return (f"{said} Not told apart from it: {', '.join(alike)}." if alike else said) + late


def answer(found: Capacity, target: Target) -> str:
    """The answer in one sentence."""
    if not found.steps:
        return "The search ended before its first step was over."
    if found.rate is None:
        lowest = min(step.rate for step in found.steps)
        if was_not_learnt(found):
            return f"Nothing was learnt about the service: the generator was late even at {amount(lowest)} new users per second."
        return f"No rate met the target ({target_text(target)}), not even {amount(lowest)} new users per second."
    if found.high is None or found.low == found.rate:
        return f"{amount(found.rate)} new users per second were held with {target_text(target)}, and perhaps more."
    between = f"between {amount(found.low)} and {amount(found.high)}"
    return f"The service holds about {amount(found.rate)} new users per second ({between}) with {target_text(target)}."


def _limit(found: Capacity) -> str:
    """What keeps the service from more; empty where no rate met the target, as the steps say why."""
    if found.steps and not any(step.answers for step in found.steps):
        return _UNANSWERED
    if found.rate is None:
        return "The search ended before all lower rates were tried." if found.limit == "time" and found.steps else ""
    near = missed_near(found.steps, found.high)
    missed = [step for step in near if step.rate == found.high] or near
    said = _LIMITS[found.limit].format(why=_why(missed[-1]) if missed else "")
    if found.limit == "service" and {step.why for step in missed} == {"no answers"}:
        said = "Beyond it the service stands still: nothing was answered."
    return said if found.finished or found.limit in ("time", "generator") else f"{said} {_UNFINISHED}"


def _row(step: Step) -> tuple[Cell, ...]:
    verdict = "meets the target" if step.met else f"misses it: {_why(step)}"
    return (
        amount_cell(step.rate),
        amount_cell(step.seconds),
        amount_cell(step.answers),
        amount_cell(step.p99_ms),
        Cell(percent(step.error_share), step.error_share),
        Cell(
            verdict if step.decided else f"{verdict} (by its figures, not beyond chance)",
            tone="" if step.met else "bad",
        ),
    )


def _why(step: Step) -> str:
    return {
        "p99": "answers are too slow",
        "errors": "too many errors",
        "no answers": "nothing was answered",
        "the queue grows": "the queue grows",
        "generator": "the generator was late",
    }.get(step.why, "too few answers")
