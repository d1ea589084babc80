"""Rules that a comparison must not break, as `--fail-on` takes them: `p99 > +10%`, `errors > 0.1%`, `p99 worse`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Final

from reports import names
from reports.blocks import decimal, percentage
from reports.compare.diff import Change, Diff
from reports.compare.figures import ERRORS, Kind
from reports.model import ReportError

ROWS: Final = ("min", "max", "mean", "median", "p50", "p75", "p90", "p95", "p99", "p999")
"""The figures of a distribution that a rule may name."""
COUNTERS: Final = (
    *(names.REQUESTS, names.RESPONSES, names.DOWNLOADED_BYTES, names.VUSERS_CREATED, names.VUSERS_SKIPPED),
    *(names.VUSERS_COMPLETED, names.VUSERS_FAILED, names.EXPECT_OK, names.EXPECT_FAILED, names.LATE, *names.APDEX),
)
"""The counters of our own runs, but for those of errors, statuses and names: 0 in a run that does not write them."""
_TIMES = (
    *(names.RESPONSE_TIME, names.INTENDED, names.SESSION_LENGTH, names.START_LAG),
    *(names.DNS_TIME, names.TCP_TIME, names.TLS_TIME, names.TOTAL_TIME),
    *(names.status_class(hundreds * 100) for hundreds in range(2, 6)),
)
_RATES = ("rps", names.REQUEST_RATE)
_SIMPLE = (ERRORS, *_RATES, *ROWS, *COUNTERS, *(f"{time}.{row}" for time in _TIMES for row in ROWS))
_ANY_OF = re.compile(
    rf"{re.escape(names.ERRORS)}.+|{re.escape(names.CODES)}[1-5]\d\d|{re.escape(names.VUSERS_CREATED_BY_NAME)}.+"
    rf"|plugins\..+|{re.escape(names.SERVER)}.+\.(?:{'|'.join(ROWS)})"
)
_RULE = re.compile(
    r"(?P<name>\S.*?)\s*(?P<operator><=|>=|<|>)\s*(?P<sign>[+-]?)(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>%|ms|s)?"
)
NOTHING_ANSWERED: Final = "nothing was answered"
"""Why a rule does not pass on a run all of whose requests failed without an answer, whatever its figures."""

_EXAMPLES = "'p99 > +10%', 'errors > 0.1%', 'http.response_time.p95 > 250', 'p99 worse' or 'worse'"
_WORSE = re.compile(r"(?:(?P<name>\S.*?)\s+)?worse")


@dataclass(frozen=True, slots=True)
class GateResult:
    """The result of one rule, check or other condition that a command's exit code depends on."""

    rule: str
    met: bool
    """False: the rule says to fail, or it goes by a verdict and there is none."""
    line: str
    """For a reader: `FAILED`, `NOT JUDGED` or `passed`, the rule and the figures it was decided by."""
    optional: bool = False
    """Whether the exit code is 0 even if the rule is not met."""
    unknown: bool = False
    """The rule cannot be judged: the run has no such figure, or too few samples of it. Then it is not met."""


def not_judged(rule: str, why: str) -> GateResult:
    """The result of a rule that cannot be judged."""
    return GateResult(rule, False, f"NOT JUDGED: {rule} ({why})", unknown=True)


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule. It fails where the comparison holds."""

    text: str
    name: str
    """The figure; empty: any of them."""
    operator: str
    """Empty: where the verdict is worse."""
    limit: float = 0.0
    of_change: bool = False
    """A signed limit is one of the change, an unsigned one of the new figure."""
    percent: bool = False

    @classmethod
    def parse(cls, text: str, option: str = "--fail-on", examples: str = _EXAMPLES) -> Gate:
        """Raises ReportError, one line that names the option and has the examples, for what is no rule."""
        wanted = text.strip()
        if found := _WORSE.fullmatch(wanted):
            return cls(wanted, found["name"] or "", "")
        found = _RULE.fullmatch(wanted)
        if found is None:
            raise ReportError(f"{option} {text!r} is no rule; rules are like {examples}")
        limit = float(found["value"]) * (-1 if found["sign"] == "-" else 1)
        limit *= {"%": 0.01, "s": 1000.0}.get(found["unit"] or "", 1.0)
        if found["name"] == ERRORS and found["unit"] != "%" and abs(limit) >= 1:
            raise ReportError(f"{option} {text!r}: errors is a share; write '{ERRORS} {found['operator']} ...%'")
        return cls(wanted, found["name"], found["operator"], limit, bool(found["sign"]), found["unit"] == "%")

    def check(self, diff: Diff) -> GateResult:
        """Raises ReportError for a figure that no run has, or a limit in a unit that is not the figure's.

        A rule that cannot be judged does not pass: one about a verdict where there is no verdict, and one about a number that
        the runs do not have.
        """
        if not self.name:
            unknown = _unjudged(diff) or _unanswered(diff)
            return self._outcome([row for row in diff.rows if row.verdict == "worse"], unknown=unknown)
        row = _find(self.name, diff)
        self._check_unit(row)
        if not self.operator:
            unknown = _unanswered(diff) if row.verdict in _JUDGED else row.verdict
            return self._outcome([row] if row.verdict == "worse" else [], row, unknown=unknown)
        measured = self._measured(row)
        broken = measured is not None and holds(self.operator, measured, self.limit)
        unknown = _unanswered(diff) if measured is not None else "not known"
        return self._outcome([row] if broken else [], row, unknown=unknown)

    def _check_unit(self, row: Change) -> None:
        """Raises ReportError for a share of what is no share, and a time of what is no time."""
        if self.percent and not self.of_change and row.kind != "share":
            raise ReportError(
                f"--fail-on {self.text!r}: {row.name} is no share; a change is written with its sign, as in '> +10%'"
            )
        if self.text.endswith("s") and row.kind not in ("summary", "ab"):
            raise ReportError(f"--fail-on {self.text!r}: {row.name} is no time")

    def _measured(self, row: Change) -> float | None:
        """The amount that is compared with the limit: the new figure or its change; None where a side lacks the figure."""
        if not self.of_change:
            return row.new
        if row.change is None or not self.percent:
            return row.change
        return row.relative if row.relative is not None else inf if row.change > 0 else -inf

    def _outcome(self, broken_by: list[Change], looked_at: Change | None = None, *, unknown: str) -> GateResult:
        """The result of a rule that these figures break; `unknown`: why nobody knows whether any does, else empty."""
        rows = broken_by or ([] if looked_at is None else [looked_at])
        told = "; ".join(_told(row) for row in rows[:5]) or unknown or "no figure is worse"
        if looked_at is not None and unknown == NOTHING_ANSWERED:
            told += f"; {unknown}"
        more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
        if broken_by:
            return GateResult(self.text, False, f"FAILED: {self.text} ({told}{more})")
        if unknown:
            return not_judged(self.text, told)
        return GateResult(self.text, True, f"passed: {self.text} ({told})")


_JUDGED: Final = ("better", "worse", "no clear change")


def _unjudged(diff: Diff) -> str:
    """Why it is not known whether any figure is worse: none could be judged, or no time; else empty."""
    if not any(row.verdict in _JUDGED for row in diff.rows):
        return "no figure could be judged"
    times = [row for row in diff.rows if row.kind in ("summary", "ab")]
    if any(row.p is not None and row.verdict in _JUDGED for row in times):
        return ""
    # Reports of some tools have no times; one that counts no requests either says nothing of a service.
    asked = any(row.name == ERRORS and row.verdict in _JUDGED for row in diff.rows)
    return "" if asked and all(row.verdict != "cannot be judged" for row in times) else "no time could be judged"


def _unanswered(diff: Diff) -> str:
    """`NOTHING_ANSWERED` where every request of the new side failed, and none has a time; else empty."""
    failed = any(row.name == ERRORS and row.new == 1.0 for row in diff.rows)
    timed = any(row.kind in ("summary", "ab") and row.new is not None and _of_answers(row.name) for row in diff.rows)
    return NOTHING_ANSWERED if failed and not timed else ""


def _of_answers(name: str) -> bool:
    return name.startswith((names.RESPONSE_TIME, "ab.percentile", "ab.total"))


def holds(operator: str, measured: float, limit: float) -> bool:
    """Whether `measured OPERATOR limit` is true; equal numbers may differ by a rounding error."""
    # +10 % of 100 is 110, whatever a double makes of it
    slack = 1e-9 * max(abs(limit), 1e-3)
    return {
        ">": measured > limit + slack,
        "<": measured < limit - slack,
        ">=": measured >= limit - slack,
        "<=": measured <= limit + slack,
    }[operator]


def _find(name: str, diff: Diff) -> Change:
    """By its name; `p99` and the like are of `http.response_time`, or of ab's; `rps` is the rate of requests."""
    rows: Mapping[str, Change] = {row.name: row for row in reversed(diff.rows)}
    for candidate in (name, *long_names(name)):
        if candidate in rows:
            return rows[candidate]
    counted = name.startswith((names.ERRORS, names.CODES)) or name in COUNTERS
    if counted and (requests := rows.get(names.REQUESTS)) is not None:
        if not diff.counts_all and not (name.startswith(names.CODES) and _count_statuses(rows.values())):
            return Change(name, "counter", None, None, reason="not every tool here counts it")
        # A run that counted requests, and has no such counter, had none of what it counts.
        old, new = (None if side is None else 0.0 for side in (requests.old, requests.new))
        if old is not None and new is not None:
            return Change(name, "counter", old, new, "no clear change")
        return Change(name, "counter", old, new, reason="on one side only")
    if not unknown_figure(name):
        kind: Kind = "share" if name == ERRORS else "rate" if name in _RATES else "counter" if counted else "summary"
        return Change((long_names(name) or [name])[0], kind, None, None, reason="on neither side")
    near = get_close_matches(name.lower(), [*rows, *ROWS], n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ReportError(f"--fail-on: neither side has a figure called {name!r}{hint}")


def _count_statuses(rows: Iterable[Change]) -> bool:
    """Whether both sides have counters of statuses, among which one that is missing was none."""
    codes = [row for row in rows if row.name.startswith(names.CODES)]
    return any(row.old is not None for row in codes) and any(row.new is not None for row in codes)


def unknown_figure(name: str) -> str:
    """Why no run of ours has a figure of this name, with the name that may be meant; "" for what a run may have."""
    if name in _SIMPLE or _ANY_OF.fullmatch(name):
        return ""
    near = get_close_matches(name.lower(), _SIMPLE, n=1, cutoff=0.65)
    hint = f" (did you mean {near[0]}?)" if near else f"; there are {ERRORS}, rps, p50 to p999, http.codes.503 ..."
    return f"no run has a figure called {name!r}{hint}"


def long_names(name: str) -> list[str]:
    """The names that a short name such as `p99` or `rps` may stand for in a report, the usual one first."""
    if name == "rps":
        return [names.REQUEST_RATE, "ab.requests_per_second"]
    if name.endswith(".p50"):
        return [f"{name.removesuffix('p50')}median"]
    if name not in ROWS:
        return []
    row = "median" if name == "p50" else name
    percentile = "50" if row == "median" else row.removeprefix("p")
    return [f"{names.RESPONSE_TIME}.{row}", f"ab.percentile.{percentile}", f"ab.total.{row}"]


def _told(row: Change) -> str:
    old, new = (
        "-" if v is None else percentage(v) if row.kind == "share" else f"{decimal(v)}" for v in (row.old, row.new)
    )
    relative = "" if row.relative is None else f", {row.relative:+.1%}"
    reason = f": {row.reason}" if row.reason and row.verdict in ("cannot be judged", "not comparable") else ""
    return f"{row.name} {old} -> {new}{relative}, {row.verdict}{reason}"
