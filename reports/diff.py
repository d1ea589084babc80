"""Two reports side by side: what each says, and by how much they differ.

Nothing here judges whether a difference is more than chance: that needs statistics over periods and runs, and a verdict
without them would be a guess. A verdict is therefore "not comparable" (one side lacks the figure) or None: not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from reports import markdown
from reports.apachebench import DOING_WHAT, PERCENTILES, AbReport
from reports.artillery_text import js_number
from reports.model import Period, Report, Summary, round_half_up
from reports.names import ENDPOINT

Kind = Literal["counter", "rate", "summary", "ab"]

SUMMARY_ROWS = ("count", "min", "mean", "median", "p75", "p90", "p95", "p99", "p999", "max")
"""What is compared of a distribution."""

_AB_TOTALS = (
    "concurrency",
    "time_taken_s",
    "complete",
    "failed",
    "write_errors",
    "non_2xx",
    "keep_alive",
    "total_bytes",
    "body_sent_bytes",
    "html_bytes",
    "requests_per_second",
    "time_per_request_ms",
    "time_per_request_all_ms",
    "transfer_rate_kbytes_s",
)
_AB_FAILURES = ("connect", "receive", "length", "exceptions")
_AB_TABLE = tuple((row, column) for row in DOING_WHAT for column in ("min", "mean", "sd", "median", "max"))
_AB_NAMES = (
    *(f"ab.{name}" for name in _AB_TOTALS),
    *(f"ab.failures.{kind}" for kind in _AB_FAILURES),
    *(f"ab.{row}.{column}" for row, column in _AB_TABLE),
    *(f"ab.percentile.{percentage}" for percentage in PERCENTILES),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides; None where a side does not have it, which is not the same as zero."""

    name: str
    """The metric; of a distribution with the row: `http.response_time.p95`. Figures of ab: `ab.total.mean`."""
    kind: Kind
    old: float | None
    new: float | None

    @property
    def change(self) -> float | None:
        """New minus old."""
        return None if self.old is None or self.new is None else self.new - self.old

    @property
    def relative(self) -> float | None:
        """Change as a share of old. None where a side is missing, or old is 0 and new is not."""
        change = self.change
        if change is None or self.old is None or (self.old == 0 and change):
            return None
        return change / abs(self.old) if self.old else 0.0

    @property
    def differs(self) -> bool:
        """Whether the sides do not say the same."""
        return self.old != self.new

    @property
    def verdict(self) -> str | None:
        """None: not judged."""
        return "not comparable" if self.old is None or self.new is None else None

    def mirrored(self) -> Change:
        """The same, seen from the other side."""
        return Change(self.name, self.kind, self.new, self.old)


@dataclass(frozen=True, slots=True)
class Diff:
    """Every figure that either report has: counters, rates, distributions, then ab's, each group by name."""

    rows: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """Those that differ."""
        return tuple(row for row in self.rows if row.differs)

    def mirrored(self) -> Diff:
        """`compare(new, old)`, given `compare(old, new)`."""
        return Diff(tuple(row.mirrored() for row in self.rows))


def compare(old: Report, new: Report) -> Diff:
    """The aggregates' figures; those of ab's report only where both have one."""
    return Diff(tuple(_rows(old, new)))


def _rows(old: Report, new: Report) -> Iterator[Change]:
    before, after = old.aggregate, new.aggregate
    yield from _pairs("counter", before.counters, after.counters)
    yield from _pairs("rate", _rates(before), _rates(after))
    for name in sorted({*before.summaries, *after.summaries}):
        a, b = _figures(name, before.summaries.get(name)), _figures(name, after.summaries.get(name))
        yield from _pairs("summary", a, b, order=[f"{name}.{row}" for row in SUMMARY_ROWS])
    if old.extras and new.extras and old.extras.ab and new.extras.ab:
        a, b = _ab_figures(AbReport.from_json(old.extras.ab)), _ab_figures(AbReport.from_json(new.extras.ab))
        yield from _pairs("ab", a, b, order=_AB_NAMES)


def _pairs(
    kind: Kind, old: Mapping[str, float], new: Mapping[str, float], order: Iterable[str] | None = None
) -> Iterator[Change]:
    names = {*old, *new}
    for name in sorted(names) if order is None else (n for n in order if n in names):
        yield Change(name, kind, old.get(name), new.get(name))


def _rates(period: Period) -> dict[str, float]:
    return {name: rate.per_second for name, rate in period.rates.items()}


def _figures(name: str, summary: Summary | None) -> dict[str, float]:
    figures = {} if summary is None else {row: getattr(summary, row) for row in SUMMARY_ROWS}
    return {f"{name}.{row}": figure for row, figure in figures.items() if figure is not None}


def _ab_figures(ab: AbReport) -> dict[str, float]:
    found = {f"ab.{name}": getattr(ab, name) for name in _AB_TOTALS}
    found |= {f"ab.failures.{kind}": getattr(ab.failures, kind, None) for kind in _AB_FAILURES}
    found |= {f"ab.{row}.{column}": getattr(ab.rows.get(row), column, None) for row, column in _AB_TABLE}
    found |= {f"ab.percentile.{percentage}": ab.percentiles.get(percentage) for percentage in PERCENTILES}
    return {name: figure for name, figure in found.items() if figure is not None}


# Writers

_HEADINGS = ("metric", "old", "new", "change", "relative")
_ABSENT = "-"


def to_text(diff: Diff, *, hidden: tuple[str, ...] = (ENDPOINT,), colour: bool = False) -> str:
    """An aligned table, a dash where a side lacks the figure, and a few words; with `colour`, equal rows are grey.

    Metrics whose names contain one of `hidden` are only counted there.
    """
    shown = _shown(diff, hidden)
    lines = [_HEADINGS, *(_cells(row) for row in shown)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    grey = [False, *(colour and not row.differs for row in shown)]
    painted = [f"\x1b[90m{line}\x1b[39m" if dim else line for line, dim in zip(text, grey, strict=True)]
    return "\n".join([*painted, "", *_notes(diff, len(shown))]) + "\n"


def to_markdown(diff: Diff, *, hidden: tuple[str, ...] = (ENDPOINT,)) -> str:
    """As `to_text`, as a table for a pull request's comment."""
    shown = _shown(diff, hidden)
    return markdown.table(_HEADINGS, map(_cells, shown)) + "\n" + "  \n".join(_notes(diff, len(shown))) + "\n"


def to_json(diff: Diff) -> str:
    """`{"metrics": [{"name", "kind", "old", "new", "change", "relative", "verdict"}]}`.

    Null stands where a side lacks the figure; `change` is new minus old, `relative` the same as a share of
    old; the verdict is null where nothing was judged.
    """
    keys = ("name", "kind", "old", "new", "change", "relative", "verdict")
    rows: list[dict[str, Any]] = [{key: getattr(row, key) for key in keys} for row in diff.rows]
    return orjson.dumps({"metrics": rows}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _shown(diff: Diff, hidden: tuple[str, ...]) -> list[Change]:
    return [row for row in diff.rows if not any(part in row.name for part in hidden)]


def _cells(row: Change) -> tuple[str, ...]:
    relative = row.relative
    return (
        row.name,
        _figure(row.old),
        _figure(row.new),
        _signed(row.change),
        _ABSENT if relative is None else f"{relative:+.1%}" if relative else "0%",
    )


def _figure(value: float | None) -> str:
    return _ABSENT if value is None else js_number(value if isinstance(value, int) else round_half_up(value, 3))


def _signed(change: float | None) -> str:
    return f"+{_figure(change)}" if change is not None and change > 0 else _figure(change)


def _notes(diff: Diff, shown: int) -> list[str]:
    hidden, one_sided = len(diff.rows) - shown, sum(row.verdict is not None for row in diff.rows)
    notes = [f"{len(diff.changes)} of {len(diff.rows)} figures differ; {one_sided} are on one side only."]
    if hidden:
        notes.append(f"{hidden} figures by endpoint are not shown; JSON has them.")
    return [*notes, "Times are in ms. Whether a change is more than chance is not judged."]
