"""A diff written out: for a terminal, for a pull request's comment, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any

import orjson

from reports.compare.diff import Change, Diff
from reports.compare.gates import GateResult
from reports.formats import markdown
from reports.formats.artillery_text import js_number
from reports.model import round_half_up
from reports.names import ENDPOINT

_HEADINGS = ("metric", "old", "new", "change", "relative", "95 % interval", "verdict")
_ABSENT = "-"
_COLOURS = {"better": 32, "worse": 31, "no clear change": 90, "cannot be judged": 33, "not comparable": 90}
_VERDICTS = ("worse", "better", "no clear change", "cannot be judged", "not comparable")
_KEYS = ("name", "kind", "old", "new", "change", "relative", "low", "high", "p", "verdict", "basis", "reason")


def to_text(
    diff: Diff, outcomes: Sequence[GateResult] = (), *, hidden: tuple[str, ...] = (ENDPOINT,), colour: bool = False
) -> str:
    """An aligned table, a dash where a side lacks the figure, then notes, then a line per gate.

    Metrics whose names contain one of `hidden` are only counted, unless they became better or worse. With `colour`,
    red is worse, green is better and grey is neither.
    """
    shown = _shown(diff, hidden)
    lines = [_HEADINGS, *(_cells(row) for row in shown)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:-1], widths[1:-1], strict=True)), line[-1]]
        )
        for line in lines
    ]
    codes = [0, *(_COLOURS[row.verdict] for row in shown)]
    painted = [_painted(line, code if colour else 0) for line, code in zip(text, codes, strict=True)]
    gates = [_painted(o.line, (32 if o.met else 31) if colour else 0) for o in outcomes]
    return "\n".join([*painted, "", *_notes(diff, shown), *([""] if gates else []), *gates]) + "\n"


def to_markdown(diff: Diff, outcomes: Sequence[GateResult] = (), *, hidden: tuple[str, ...] = (ENDPOINT,)) -> str:
    """As `to_text`, for a pull request's comment: gates first, what changed as a table, the rest folded away."""
    shown = _shown(diff, hidden)
    clear = [row for row in shown if row.verdict in ("better", "worse")]
    rest = [row for row in shown if row not in clear]
    parts = [f"- {markdown.escaped(outcome.line)}\n" for outcome in outcomes]
    parts += ["\n"] if outcomes else []
    if clear:
        parts += [markdown.table(_HEADINGS, map(_cells, clear)), "\n"]
    if rest:
        table = markdown.table(_HEADINGS, map(_cells, rest))
        parts += [f"<details><summary>{len(rest)} figures without a clear change</summary>\n\n{table}\n</details>\n\n"]
    return "".join(parts) + "  \n".join(map(markdown.escaped, _notes(diff, shown))) + "\n"


def to_json(diff: Diff, outcomes: Sequence[GateResult] = ()) -> str:
    """`{"metrics": [{"name", "old", "new", "change", "verdict", …}], "checks": [{"rule", "met", "line"}], "notes": […]}`.

    Null stands where a side lacks the figure; `change` is new minus old, `relative` the same as a share of old, `low` and
    `high` are the change's 95 % interval, `p` is corrected for the number of figures.
    """
    rows: list[dict[str, Any]] = [{key: _finite(getattr(row, key)) for key in _KEYS} for row in diff.rows]
    checks = [{"rule": outcome.rule, "met": outcome.met, "line": outcome.line} for outcome in outcomes]
    document = {"metrics": rows, "checks": checks, "notes": diff.notes}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _finite(value: Any) -> Any:
    """What JSON has no word for is null; half a surrogate pair is a question mark."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _shown(diff: Diff, hidden: tuple[str, ...]) -> list[Change]:
    judged = ("better", "worse")
    return [row for row in diff.rows if row.verdict in judged or not any(part in row.name for part in hidden)]


def _cells(row: Change) -> tuple[str, ...]:
    verdict = f"{row.verdict} (too little data)" if row.reason.startswith("too little data") else row.verdict
    share = row.kind == "share"
    return (
        row.name,
        _figure(row.old, share=share),
        _figure(row.new, share=share),
        _signed(row.change, share=share),
        _percent(row.relative),
        _interval(row),
        verdict,
    )


def _figure(value: float | None, *, share: bool = False) -> str:
    if value is None:
        return _ABSENT
    if not isfinite(value):
        return js_number(float(value))
    if share:
        return f"{js_number(round_half_up(100 * value, 4))}%"
    return js_number(value if isinstance(value, int) or abs(value) > 1e12 else round_half_up(value, 3))


def _signed(change: float | None, *, share: bool) -> str:
    return f"+{_figure(change, share=share)}" if change is not None and change > 0 else _figure(change, share=share)


def _percent(share: float | None) -> str:
    return _ABSENT if share is None or not isfinite(share) else f"{share:+.1%}" if share else "0%"


def _interval(row: Change) -> str:
    """Of the relative change; a count's is that of its share, which the row does not show."""
    of_share = row.kind == "counter" or row.name in ("ab.failed", "ab.non_2xx", "ab.write_errors")
    if row.low is None or row.high is None or not row.old or of_share:
        return ""
    least = -1.0 if row.old > 0 and row.new is not None and row.new >= 0 else -inf  # a time cannot fall by more
    return f"{_percent(max(least, row.low / abs(row.old)))} to {_percent(row.high / abs(row.old))}"


def _notes(diff: Diff, shown: list[Change]) -> list[str]:
    counts = [f"{sum(row.verdict == verdict for row in diff.rows)} {verdict}" for verdict in _VERDICTS]
    notes = [f"{', '.join(counts)}. Times are in ms."]
    if hidden := len(diff.rows) - len(shown):
        notes.append(f"{hidden} figures by endpoint are not shown; JSON has them.")
    return [*notes, *diff.notes]


def _painted(line: str, code: int) -> str:
    return f"\x1b[{code}m{line}\x1b[39m" if code else line
