"""A diff as blocks: every figure of both sides with its verdict, and the rules that it had to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite

from reports.blocks import ABSENT, Block, Cell, Column, Items, Page, Section, Table, Text, Tone
from reports.compare.diff import Change, Diff, Verdict
from reports.compare.gates import GateResult
from reports.formats.artillery_text import js_number
from reports.model import round_half_up
from reports.names import ENDPOINT

_COLUMNS = (
    Column("metric"),
    Column("old", "number"),
    Column("new", "number"),
    Column("change", "number"),
    Column("relative", "number"),
    Column("95 % interval", "number"),
    Column("verdict", "mark"),
    Column("reason", aside=True),
)
_VERDICT = 6
_TONES: Mapping[Verdict, Tone] = {"worse": "bad", "better": "good"}
_VERDICTS: tuple[Verdict, ...] = ("worse", "better", "no clear change", "cannot be judged", "not comparable")
_KEYS = ("name", "kind", "old", "new", "change", "relative", "low", "high", "p", "verdict", "basis", "reason")


def comparison(
    diff: Diff,
    outcomes: Sequence[GateResult] = (),
    *,
    hidden: tuple[str, ...] = (ENDPOINT,),
    rules_last: bool = False,
) -> Page:
    """The diff as a result of one section. `rules_last` is for a terminal, whose reader sees the last lines first.

    Metrics whose names contain one of `hidden` are only counted, unless they became better or worse. JSON has them all:
    `{"metrics": [{"name", "old", "new", "change", "verdict", …}], "checks": [{"rule", "met", "line"}], "notes": […]}`, with
    null where a side lacks the figure; `change` is new minus old, `relative` the same as a share of old, `low` and `high` are
    the change's 95 % interval, and `p` is corrected for the number of figures.
    """
    section = changes(diff, outcomes, hidden=hidden)
    if outcomes and rules_last:
        section = replace(section, blocks=(*section.blocks[1:], section.blocks[0]))
    checks = [{"rule": outcome.rule, "met": outcome.met, "line": outcome.line} for outcome in outcomes]
    return Page("Comparison of load tests", "", (section,), {"checks": checks, "notes": diff.notes})


def changes(diff: Diff, outcomes: Sequence[GateResult] = (), *, hidden: tuple[str, ...] = ()) -> Section:
    """The section on what changed: a line for each rule, a table of the figures, and notes."""
    rows = [row for row in diff.rows if row.verdict in _TONES or not any(part in row.name for part in hidden)]
    counts = ", ".join(f"{sum(row.verdict == v for row in diff.rows)} {v}" for v in _VERDICTS)
    notes = [f"{counts}. Times are in ms."]
    if len(rows) < len(diff.rows):
        notes.append(f"{len(diff.rows) - len(rows)} figures by endpoint are not shown; JSON has them.")
    table = Table(
        "verdicts",
        "Every figure of both sides",
        _COLUMNS,
        tuple(map(_cells, rows)),
        tools=True,
        choices=_VERDICT,
        quiet="figures without a clear change",
    )
    blocks: list[Block] = [table, *(Text(note) for note in (*notes, *diff.notes))]
    if outcomes:
        blocks.insert(0, Items(tuple(Text(outcome.line, "good" if outcome.met else "bad") for outcome in outcomes)))
    data = [{key: getattr(row, key) for key in _KEYS} for row in diff.rows]
    return Section("metrics", "What changed", tuple(blocks), menu="Verdicts", data=data)


def _cells(row: Change) -> tuple[Cell, ...]:
    verdict = f"{row.verdict} (too little data)" if row.reason.startswith("too little data") else row.verdict
    share = row.kind == "share"
    return (
        Cell(row.name),
        Cell(_figure(row.old, share=share), row.old),
        Cell(_figure(row.new, share=share), row.new),
        Cell(_signed(row.change, share=share), row.change),
        Cell(_percent(row.relative), row.relative),
        Cell(_interval(row), row.low),
        Cell(verdict, tone=_TONES.get(row.verdict, "")),
        Cell(row.reason),
    )


def _figure(value: float | None, *, share: bool = False) -> str:
    if value is None:
        return ABSENT
    if not isfinite(value):
        return js_number(float(value))
    if share:
        return f"{js_number(round_half_up(100 * value, 4))}%"
    return js_number(value if isinstance(value, int) or abs(value) > 1e12 else round_half_up(value, 3))


def _signed(change: float | None, *, share: bool) -> str:
    return f"+{_figure(change, share=share)}" if change is not None and change > 0 else _figure(change, share=share)


def _percent(share: float | None) -> str:
    return ABSENT if share is None or not isfinite(share) else f"{share:+.1%}" if share else "0%"


def _interval(row: Change) -> str:
    """The interval of the relative change; nothing for a count, whose interval is that of a share which the row does not show."""
    of_share = row.kind == "counter" or row.name in ("ab.failed", "ab.non_2xx", "ab.write_errors")
    if row.low is None or row.high is None or not row.old or of_share:
        return ""
    # A time cannot fall by more than all of it.
    least = -1.0 if row.old > 0 and row.new is not None and row.new >= 0 else -inf
    return f"{_percent(max(least, row.low / abs(row.old)))} to {_percent(row.high / abs(row.old))}"
