"""Rules that a comparison must not break, as `--fail-on` takes them: `p99 > +10%`, `errors > 0.1%`, `p99 worse`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from typing import Final

from reports import names
from reports.blocks import decimal
from reports.compare.diff import Change, Diff
from reports.compare.figures import ERRORS
from reports.model import ReportError

ROWS: Final = ("min", "max", "mean", "median", "p50", "p75", "p90", "p95", "p99", "p999")
"""The figures of a distribution that a rule may name."""
_RULE = re.compile(
    r"(?P<name>\S.*?)\s*(?P<operator><=|>=|<|>)\s*(?P<sign>[+-]?)(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>%|ms|s)?"
)
_EXAMPLES = "'p99 > +10%', 'errors > 0.1%', 'http.response_time.p95 > 250', 'p99 worse' or 'worse'"
_WORSE = re.compile(r"(?:(?P<name>\S.*)\s+)?worse")


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
        """Raises ReportError where the comparison has no such figure, or not what the rule needs of it.

        A rule that goes by the verdict does not pass where nothing could be judged: nobody knows whether it holds.
        """
        if not self.name:
            verdicts = {row.verdict for row in diff.rows}
            unknown = "cannot be judged" in verdicts and not verdicts & {"better", "worse", "no clear change"}
            return self._outcome([row for row in diff.rows if row.verdict == "worse"], unknown=unknown)
        row = _find(self.name, diff)
        if not self.operator:
            unknown = row.verdict == "cannot be judged" or (row.new is None and row.old is not None)
            return self._outcome([row] if row.verdict == "worse" else [], row, unknown=unknown)
        return self._outcome([row] if holds(self.operator, self._measured(row), self.limit) else [], row)

    def _measured(self, row: Change) -> float:
        if row.new is None:
            raise ReportError(f"--fail-on {self.text!r}: the new side has no {row.name}")
        if not self.of_change:
            if self.percent and row.kind != "share":
                raise ReportError(
                    f"--fail-on {self.text!r}: {row.name} is no share; a change is written with its sign, as in '> +10%'"
                )
            return row.new
        if row.change is None or row.old is None:
            raise ReportError(f"--fail-on {self.text!r}: the old side has no {row.name}")
        if not self.percent:
            return row.change
        return row.relative if row.relative is not None else inf if row.change > 0 else -inf

    def _outcome(
        self, broken_by: list[Change], looked_at: Change | None = None, *, unknown: bool = False
    ) -> GateResult:
        rows = broken_by or ([] if looked_at is None else [looked_at])
        nothing = "no figure could be judged" if unknown else "no figure is worse"
        told = "; ".join(_told(row) for row in rows[:5]) or nothing
        more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
        outcome = "FAILED" if broken_by else "NOT JUDGED" if unknown else "passed"
        return GateResult(self.text, outcome == "passed", f"{outcome}: {self.text} ({told}{more})")


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
    if name.startswith((names.ERRORS, names.CODES)) and names.REQUESTS in rows:
        return Change(name, "counter", 0, 0, "no clear change")
    near = get_close_matches(name, rows, n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ReportError(f"--fail-on: neither side has a figure called {name!r}{hint}")


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
        "-" if v is None else f"{v:.2%}" if row.kind == "share" else f"{decimal(v)}" for v in (row.old, row.new)
    )
    relative = "" if row.relative is None else f", {row.relative:+.1%}"
    reason = f": {row.reason}" if row.verdict == "cannot be judged" else ""
    return f"{row.name} {old} -> {new}{relative}, {row.verdict}{reason}"
