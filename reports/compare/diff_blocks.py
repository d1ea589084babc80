"""A diff as blocks: every figure of both sides with its verdict, and the rules that it had to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite

from reports.blocks import ABSENT, Block, Cell, Column, Items, Page, Section, Table, Text, Tone, decimal
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
_SHORT_COLUMNS = _COLUMNS[:-1]
"""Without the reason, which a table of every figure has."""
_VERDICT = 6
_WORDS: Mapping[str, str] = {
    "errors": "failed requests",
    "http.request_rate": "requests per second",
    "ab.requests_per_second": "requests per second",
    "http.response_time.median": "response time, median",
    "http.response_time.p95": "response time, p95",
    "http.response_time.p99": "response time, p99",
    "http.response_time.intended.p99": "response time, p99 from the planned start",
    "ab.percentile.50": "response time, median",
    "ab.percentile.95": "response time, p95",
    "ab.percentile.99": "response time, p99",
    "server.pool.p95": "p95 of waiting for a connection",
    "server.db.p95": "p95 of the database",
    "server.total.p95": "p95 inside the service",
}
"""The figures that matter most, by the words that they are shown with, in the order in which they are shown."""
_RESPONSE_TIME = "response time, "
_OF_ENDPOINTS = (".median", ".p95", ".p99", *(f".codes.{status}" for status in range(400, 600)))
_MOST_NAMED = 6
_MOST_ROWS = 20
_LEAST_ROUNDED = 0.0005
"""Smaller figures would be rounded to 0."""
_TONES: Mapping[Verdict, Tone] = {"worse": "bad", "better": "good"}
_VERDICTS: tuple[Verdict, ...] = ("worse", "better", "no clear change", "cannot be judged", "not comparable")
_KEYS = ("name", "kind", "old", "new", "change", "relative", "low", "high", "p", "verdict", "basis", "reason")


def comparison(
    diff: Diff,
    outcomes: Sequence[GateResult] = (),
    *,
    everything: bool = False,
    rules_last: bool = False,
) -> Page:
    """The diff as a result of one section. `rules_last` is for a terminal, whose reader sees the last lines first.

    Shown are a headline, warnings, the figures that matter most, and what became better or worse; with `everything`, all
    figures in one table. JSON has them all: `{"metrics": [{"name", "old", "new", "change", "verdict", …}], "checks":
    [{"rule", "met", "line"}], "headline", "warnings": […], "notes": […]}`, with null where a side lacks the figure;
    `change` is new minus old, `relative` the same as a share of old, `low` and `high` are the change's 95 % interval, and
    `p` is corrected for the number of figures.
    """
    matter = () if everything else _figures_that_matter(diff)
    shown = (*matter, Text("--all shows every figure.")) if matter else (_all_figures(diff),)
    section = _section(diff, outcomes, shown, rules_last=rules_last)
    checks = [{"rule": outcome.rule, "met": outcome.met, "line": outcome.line} for outcome in outcomes]
    told = {"headline": headline(diff), "warnings": diff.warnings, "notes": (*diff.notes, *diff.warnings)}
    return Page("Comparison of load tests", "", (section,), {"checks": checks, **told})


def changes(diff: Diff, outcomes: Sequence[GateResult] = ()) -> Section:
    """The section of a page on what changed: as `comparison`, with every figure to unfold."""
    matter = _figures_that_matter(diff)
    every = replace(_all_figures(diff), folded=bool(matter))
    return _section(diff, outcomes, (*matter, every), rules_last=False)


def headline(diff: Diff) -> str:
    """What changed beyond chance, in a sentence or two."""
    sides = {verdict: _in_words(row for row in diff.rows if row.verdict == verdict) for verdict in _TONES}
    if sides["worse"] or sides["better"]:
        said = [f"{verdict.capitalize()}, beyond chance: {names}." for verdict, names in sides.items() if names]
        return " ".join(said if len(said) > 1 else [*said, f"Nothing {'better' if sides['worse'] else 'worse'}."])
    judged = [row for row in diff.rows if row.verdict == "no clear change" and row.basis]
    if judged:
        return "No clear change: every difference that can be judged may be chance."
    unjudged = any(row.verdict == "cannot be judged" for row in diff.rows)
    return "Nothing can be judged." if unjudged else "Nothing can be compared."


def _section(diff: Diff, outcomes: Sequence[GateResult], shown: Sequence[Block], *, rules_last: bool) -> Section:
    tone: Tone = "bad" if any(row.verdict == "worse" for row in diff.rows) else ""
    counts = ", ".join(f"{sum(row.verdict == v for row in diff.rows)} {v}" for v in _VERDICTS)
    rules = (
        (Items(tuple(Text(outcome.line, "good" if outcome.met else "bad") for outcome in outcomes)),)
        if outcomes
        else ()
    )
    blocks = (
        Text(headline(diff), tone),
        *(Text(warning, "warn") for warning in diff.warnings),
        *(() if rules_last else rules),
        *shown,
        Text(f"{len(diff.rows)} figures in all: {counts}. Times are in ms."),
        *(Text(note) for note in diff.notes),
        *(rules if rules_last else ()),
    )
    data = [{key: getattr(row, key) for key in _KEYS} for row in diff.rows]
    return Section("metrics", "What changed", blocks, menu="Verdicts", data=data)


def _all_figures(diff: Diff) -> Table:
    return Table(
        "verdicts",
        "Every figure of both sides",
        _COLUMNS,
        tuple(_cells(row, row.name) for row in diff.rows),
        tools=True,
        choices=_VERDICT,
        quiet="figures without a clear change",
    )


def _figures_that_matter(diff: Diff) -> tuple[Block, ...]:
    """The figures that a reader looks for first, in words, if there are any; errors and endpoints that became better or worse."""
    by_name = {row.name: row for row in diff.rows}
    found = [(by_name[name], words) for name, words in _WORDS.items() if name in by_name]
    if not found:
        return ()
    changed = [row for row in diff.rows if row.verdict in _TONES]
    kinds = [row for row in changed if row.kind == "counter" and ENDPOINT not in row.name]
    ends = [row for row in changed if ENDPOINT in row.name and row.name.endswith(_OF_ENDPOINTS)]
    blocks: list[Block] = [
        Table(
            "matters",
            "The figures that matter most",
            _SHORT_COLUMNS,
            tuple(_cells(row, words)[:-1] for row, words in found),
        )
    ]
    for id_, caption, rows in (
        ("errors", "Errors and statuses, what changed", kinds),
        ("endpoints", "By endpoint, what changed", ends),
    ):
        if rows:
            cells = tuple(_cells(row, row.name.removeprefix(f"{ENDPOINT}."))[:-1] for row in rows[:_MOST_ROWS])
            note = f"{len(rows) - _MOST_ROWS} more with --all." if len(rows) > _MOST_ROWS else ""
            blocks.append(Table(id_, caption, _SHORT_COLUMNS, cells, note=note))
    return tuple(blocks)


def _in_words(rows: Iterable[Change]) -> str:
    """The figures by their words where they matter most, else by name; a few of them, and the number of the others."""
    names = [row.name for row in rows]
    told = [words for name, words in _WORDS.items() if name in names] or names
    some = [words.removeprefix(_RESPONSE_TIME) for words in told[:_MOST_NAMED]]
    if others := len(names) - len(some):
        some.append(f"{others} other figure{'s' if others > 1 else ''}")
    return f"{', '.join(some[:-1])} and {some[-1]}" if len(some) > 1 else "".join(some)


def _cells(row: Change, words: str) -> tuple[Cell, ...]:
    verdict = f"{row.verdict} (too little data)" if row.reason.startswith("too little data") else row.verdict
    share = row.kind == "share"
    return (
        Cell(words),
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
        rounded = round_half_up(100 * value, 4)
        return f"{js_number(rounded)}%" if rounded or not value else f"{'-' if value < 0 else ''}<0.0001%"
    if value and abs(value) < _LEAST_ROUNDED:
        return decimal(value, 3)
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
