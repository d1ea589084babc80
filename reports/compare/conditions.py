"""Conditions on the figures of one run, as `--abort-on` takes them: `errors > 5%`, `p99 > 2000`, `http.codes.503 > 20`.

They are written as the rules of `--fail-on` are, without what needs a second run: a signed limit, or a verdict. A condition
is judged only from a sufficient number of requests, so that a single early error or slow answer decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reports import names
from reports.answers import failures
from reports.blocks import decimal, percentage
from reports.compare.figures import ERRORS, figures_of
from reports.compare.gates import (
    COUNTERS,
    NOTHING_ANSWERED,
    ROWS,
    Gate,
    GateResult,
    holds,
    long_names,
    not_judged,
    unknown_figure,
)
from reports.model import QUANTILES, Period, Report, ReportError

FINISHED_LEAST: Final = 30
"""The number of requests that must have been answered or have failed before a condition is judged."""

BEHIND_LEAST: Final = 10
"""A share of errors needs this number of failed requests, a percentile this number of answers beyond the limit."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one figure of a run."""

    text: str
    name: str
    operator: str
    limit: float
    """As a share where the figure is one, in ms where it is a time."""

    @classmethod
    def parse(cls, text: str, option: str, *, custom: bool = False) -> Condition:
        """Raises ReportError, one line that names the option, for what is no condition or names a figure that no run has.

        With `custom` any name is accepted, since functions of the script's processor may make figures of their own.
        """
        gate = Gate.parse(text, option, "'errors > 5%', 'p99 > 2000' or 'http.codes.503 > 20'")
        if not gate.operator or gate.of_change:
            raise ReportError(
                f"{option} {text!r}: there is nothing to compare this run with; write the limit without a sign, as in "
                "'errors > 5%' or 'p99 > 2000'"
            )
        if gate.percent and gate.name != ERRORS:
            raise ReportError(f"{option} {text!r}: {gate.name} is no share; only {ERRORS} is given in %")
        if gate.text.endswith("s") and gate.name.rpartition(".")[2] not in ROWS:
            raise ReportError(f"{option} {text!r}: {gate.name} is no time")
        if not custom and (unknown := unknown_figure(gate.name)):
            raise ReportError(f"{option} {text!r}: {unknown}")
        return cls(gate.text, gate.name, gate.operator, gate.limit)

    def judge(self, total: Period) -> GateResult:
        """Judge the condition on the totals of a run, as far as it has gone. Met means: the condition does not hold.

        It cannot be judged where the run does not have the figure, as where nothing was answered, nor where it holds for a
        figure of too few requests.
        """
        name, measured = self._measured(total)
        if measured is None:
            return not_judged(self.text, f"the run has no {name}")
        told = f"{name} {percentage(measured)}" if name == ERRORS else f"{name} {decimal(measured)}"
        if not holds(self.operator, measured, self.limit):
            if total.counters.get(names.REQUESTS) and not total.counters.get(names.RESPONSES):
                return not_judged(self.text, f"{told}, but {NOTHING_ANSWERED}")
            return GateResult(self.text, True, f"passed: {self.text} ({told})")
        if lacking := self._lacking(total, name):
            return not_judged(self.text, f"{told}, but {lacking}")
        if doubt := self._doubt(total, name):
            return GateResult(self.text, True, f"passed: {self.text} ({told}, but {doubt})")
        return GateResult(self.text, False, f"FAILED: {self.text} ({told})")

    def _measured(self, total: Period) -> tuple[str, float | None]:
        """The figure's full name and its value; None where the run does not have it."""
        figures = {name: value for (_, name), value in figures_of([Report(total)])[0].items()}
        sent, first_ms, last_ms = total.counters.get(names.REQUESTS), total.first_counter_ms, total.last_counter_ms
        if sent and first_ms is not None and last_ms is not None:
            # Over the seconds so far: the totals' own rate is a mean over periods, of which the first and last are cut.
            figures[names.REQUEST_RATE] = sent / max(1.0, (last_ms - first_ms) / 1000)
        for name in (self.name, *long_names(self.name)):
            if name in figures:
                return name, figures[name]
        counted = self.name.startswith((names.ERRORS, names.CODES)) or self.name in COUNTERS
        known = sent or (self.name.startswith("vusers.") and names.VUSERS_CREATED in total.counters)
        return (self.name, 0.0) if counted and known else ((long_names(self.name) or [self.name])[0], None)

    def _lacking(self, total: Period, name: str) -> str:
        """Why a condition that seems to hold cannot be judged yet, or "" if there are enough requests."""
        failed = sum(count for counter, count in total.counters.items() if counter.startswith(names.ERRORS))
        finished = total.counters.get(names.RESPONSES, 0) + failed
        if finished < FINISHED_LEAST:
            return f"only {finished} requests had finished: it is judged from {FINISHED_LEAST} on"
        metric, _, row = name.rpartition(".")
        sketch = total.sketches.get(metric)
        if sketch is not None and row in QUANTILES and sketch.count < BEHIND_LEAST:
            return f"only {sketch.count} answers have such a time: it is judged from {BEHIND_LEAST} on"
        return ""

    def _doubt(self, total: Period, name: str) -> str:
        """Why a condition that holds is not believed, or "" where enough requests speak for it."""
        if self.operator in ("<", "<="):
            return ""
        metric, _, row = name.rpartition(".")
        sketch = total.sketches.get(metric)
        if name == ERRORS and sum(total.counters[counter] for counter in failures(total.counters)) < BEHIND_LEAST:
            return f"fewer than {BEHIND_LEAST} requests had failed"
        if sketch is not None and row in QUANTILES:
            # The value that BEHIND_LEAST samples reach or exceed.
            rank = (sketch.count - BEHIND_LEAST) / (sketch.count - 1)
            if not holds(self.operator, sketch.quantile(rank), self.limit):
                return f"fewer than {BEHIND_LEAST} answers were beyond the limit"
        return ""
