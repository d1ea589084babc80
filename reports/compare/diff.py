"""Two sides compared: each figure of both, by how much it changed, and whether that is better, worse or chance.

The statistics are those of `reports.compare.statistics` and `reports.compare.estimates`; docs/statistics.md explains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, comb, exp, expm1, hypot, inf, isfinite, log, nan, pi, sin, sqrt
from typing import Final, Literal

import numpy as np

from reports import names
from reports.answers import failures, requests
from reports.blocks import decimal
from reports.compare import figures, paired, statistics, tracks
from reports.compare.cautions import cautions, distinct, lateness, repeated
from reports.compare.estimates import (
    ASSUMED_BETWEEN,
    ASSUMED_WITHIN,
    Basis,
    Estimate,
    RunEstimates,
    ab_estimates,
    too_few,
)
from reports.compare.figures import AB_SHARES, Figures, Kind
from reports.compare.quantiles import interpolated
from reports.compare.scales import assumed_angle, on_angle, on_log
from reports.compare.statistics import Interval
from reports.formats.apachebench import AbReport
from reports.model import QUANTILES, Report, ReportError
from reports.sketch import Sketch

Verdict = Literal["better", "worse", "no clear change", "cannot be judged", "not comparable"]

LEAST_SPREAD: Final = 0.01
"""Standard deviation between runs, as a share of a time or rate, that is never undercut, however well runs agree."""

_LARGEST: Final = 700.0

SEPARATE_BLOCKS: Final = 5
"""Number of independent stretches assumed in a run where every period of one run is above all of another."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a change must exceed to be called better or worse, besides chance within the runs."""

    run_deviation: float = 0.05
    """Standard deviation between runs of one version, as a share of a figure; assumed where one side has one run only."""
    least_ms: float = 1.0
    """Times: the least change that matters, in ms."""
    least_share: float = 0.01
    """Times and rates: the least change that matters, as a share of the figure, or of the response time if that is more."""

    @classmethod
    def parse(cls, run_deviation: str = "5%", least_effect: str = "1ms,1%") -> Criteria:
        """Criteria from texts like `5%` and `1ms,1%`; of the least effect either part alone, or 0, will do.

        Raises ReportError, one line, for anything else.
        """
        deviation = _amounts("--run-deviation", run_deviation, {"%": 0.01}, "5%")
        least = _amounts("--least-effect", least_effect, {"ms": 1.0, "%": 0.01}, "1ms,1%")
        if deviation.get("%", 0.0) >= 1:
            raise ReportError(f"--run-deviation {run_deviation!r} is not under 100%")
        return cls(deviation.get("%", 0.0), least.get("ms", 0.0), least.get("%", 0.0))


def _amounts(option: str, text: str, units: dict[str, float], example: str) -> dict[str, float]:
    """Amounts by unit in a text such as `1ms,1%`. Raises ReportError."""
    found: dict[str, float] = {}
    for part in text.replace(" ", "").split(","):
        unit = next((u for u in units if part.endswith(u)), "")
        amount = part.removesuffix(unit)
        if not amount.replace(".", "", 1).isdecimal() or not (unit or not float(amount)) or unit in found:
            raise ReportError(f"{option} {text!r} is not an amount such as {example}")
        found[unit] = float(amount) * units.get(unit, 1.0)
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """A change's interval on the scale of `reports.compare.scales`, and where between old and new it lies (for shares)."""

    low: float
    high: float
    middle: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides; None where a side does not have it, which is not the same as zero.

    Where a side has several runs, `old` and `new` are the means over them.
    """

    name: str
    """The metric; of a distribution with the row: `http.response_time.p95`. Figures of ab: `ab.total.mean`."""
    kind: Kind
    old: float | None
    new: float | None
    verdict: Verdict = "not comparable"
    span: Span | None = None
    """The change's 95 % interval on the scale that the figure is compared on."""
    p: float | None = None
    """How likely a change like this is by chance alone, corrected for the number of figures that were judged."""
    basis: Basis | Literal["runs", "pairs"] | None = None
    """What the verdict rests on: variation between "runs" or "periods", "pairs" of arrivals in a duel, or "totals" and an
    assumed variation."""
    reason: str = ""
    """Why there is no verdict of better or worse, where that is not for lack of change."""
    runs_differ: bool = False
    """One run a side: the two runs differ by more than chance within them, which need not be for another version."""

    @property
    def low(self) -> float | None:
        """Lower end of the change's 95 % interval, in the figure's unit; of counters that are judged as a share, in shares."""
        return None if self.span is None else self._in_units(self.span.low, self.span)

    @property
    def high(self) -> float | None:
        """Upper end of the change's 95 % interval, as `low`."""
        return None if self.span is None else self._in_units(self.span.high, self.span)

    def _in_units(self, by: float, span: Span) -> float:
        if _is_share(self):
            return sin(max(span.middle, abs(by) / 2)) * sin(by / 2)
        return exp(on_log(self.old or 0.0)) * expm1(min(by, _LARGEST))

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
        """Whether the two sides differ."""
        return self.old != self.new

    def mirrored(self) -> Change:
        """The same, seen from the other side."""
        swapped: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
        span = None if self.span is None else Span(-self.span.high, -self.span.low, self.span.middle)
        return replace(self, old=self.new, new=self.old, verdict=swapped.get(self.verdict, self.verdict), span=span)


@dataclass(frozen=True, slots=True)
class Diff:
    """Every figure that either side has: the share of errors, counters, rates, distributions, then ab's."""

    rows: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    """How the verdicts were reached, a sentence each."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing any verdict, a sentence each."""
    counts_all: bool = True  # a failure that a report does not name did not happen; other tools count fewer kinds

    @property
    def changes(self) -> tuple[Change, ...]:
        """Those that differ."""
        return tuple(row for row in self.rows if row.differs)

    def mirrored(self) -> Diff:
        """`compare(new, old)`, given `compare(old, new)`; the notes stay as they are."""
        return replace(self, rows=tuple(row.mirrored() for row in self.rows))


def compare(old: Report, new: Report, criteria: Criteria = Criteria()) -> Diff:
    """Compares one run a side. Figures of ab's report are compared where both have one, else under other tools' names."""
    old, new = figures.in_same_terms(old, new)
    return _finished([old], [new], _compared_runs_alone(old, new, criteria), criteria)


def compare_runs(old: Sequence[Report], new: Sequence[Report], criteria: Criteria = Criteria()) -> Diff:
    """Compares several runs a side (or one with several): judged by the variation between runs alone, by a rotation test."""
    again = tuple(repeated(old, new))
    old, new = distinct(old), distinct(new)
    if len(old) == len(new) == 1:
        found = compare(old[0], new[0], criteria)
    else:
        found = _finished(old, new, _compared_by_runs(old, new, criteria), criteria)
    return replace(found, warnings=(*again, *found.warnings))


def _finished(old: Sequence[Report], new: Sequence[Report], rows: Sequence[Change], criteria: Criteria) -> Diff:
    late = lateness(old, new)
    if late:
        judged = ("better", "worse", "no clear change")
        rows = [
            replace(row, verdict="cannot be judged", reason=late, runs_differ=False) if row.verdict in judged else row
            for row in rows
        ]
    warnings = (*([f"Cannot be judged: {late}."] if late else ()), *cautions(old, new))
    tools = {figures.is_of_another_tool(each) for each in (*old, *new)}
    return Diff(tuple(rows), () if late else tuple(_notes(old, new, rows, criteria)), warnings, tools == {False})


def _pairs(old: Sequence[Figures], new: Sequence[Figures], *, zeros: bool) -> Iterator[Change]:
    """A row per figure in the order of the kinds. `zeros`: a run that counts requests had none of a failure it does not name.

    So it is among reports of one tool, which writes a counter when it first counts; others may not know such failures.
    """
    known = sorted({key for run in (*old, *new) for key in run}, key=figures.place)
    for key in known:
        absent = 0.0 if zeros and key[0] == "counter" and figures.better(key[1], key[0]) == "lower" else None
        yield Change(key[1], key[0], figures.mean_of(old, key, absent), figures.mean_of(new, key, absent))


def _unjudged(change: Change) -> Change | None:
    """The row of what no test can judge; None for what one can."""
    if change.old is None or change.new is None:
        return replace(change, reason="on one side only")
    if not (isfinite(change.old) and isfinite(change.new)):
        return replace(change, reason="not a finite number")
    if change.name.startswith("loadgen."):
        reason = "the generator's own figure: it says nothing of the service"
    elif figures.better(change.name, change.kind) is None:
        reason = "neither more nor less of it is better"
    elif change.kind in ("summary", "ab") and change.name.endswith((".min", ".max", ".sd", ".percentile.100")):
        reason = "an extreme or a spread: it says little of the rest, and grows with the number of samples"
    elif change.name.startswith("ab.failures."):
        reason = "judged with ab.failed"
    else:
        return None
    return (
        replace(change, reason=reason) if change.differs else replace(change, verdict="no clear change", reason=reason)
    )


def _cannot(change: Change, reason: str) -> Change:
    """The row of a figure that lacks what a verdict needs; where both sides say the same, there is no clear change."""
    return replace(change, verdict="cannot be judged" if change.differs else "no clear change", reason=reason)


def _either(one: str, other: str) -> str:
    """The reason of either side, the same one whichever is the old side; empty without one."""
    return min(filter(None, (one, other)), default="")


def _is_share(change: Change) -> bool:
    return change.kind in ("share", "counter") or change.name in AB_SHARES


# One run a side


@dataclass(frozen=True, slots=True)
class _Test:
    """A figure's change with its p-values, not yet corrected for other figures."""

    row: Change
    within: float = nan
    """By the variation within the two runs alone."""
    rose: bool = False


def _compared_runs_alone(old: Report, new: Report, criteria: Criteria) -> list[Change]:
    pairs = _pairs(*([f] for f in figures.figures_of([old, new])), zeros=figures.same_tool([old, new]))
    estimates = _Estimates(old), _Estimates(new)
    tests: list[_Test] = []
    for change in pairs:
        try:
            done = _unjudged(change)
            tests.append(_Test(done) if done else _tested(change, *_looked_up(change, estimates), criteria))
        except (OverflowError, ZeroDivisionError):
            tests.append(_Test(_cannot(change, "numbers too large to judge")))
    response_ms = _response_ms([test.row for test in tests])
    of = [i for i, test in enumerate(tests) if test.row.p is not None]
    versions = statistics.adjusted([tests[i].row.p or 0.0 for i in of])
    runs = statistics.adjusted([tests[i].within for i in of])
    rows = [test.row for test in tests]
    for i, p, within in zip(of, versions, runs, strict=True):
        row = _with_verdict(replace(rows[i], p=p), tests[i].rose, response_ms, criteria)
        differ = within <= statistics.LEVEL and _matters(row, response_ms, criteria)
        if differ and row.verdict == "no clear change":
            if row.basis == "totals":
                row = replace(row, verdict="cannot be judged", reason=_ONLY_THE_RUNS)
            else:
                row = replace(row, reason="these two runs differ, but by no more than runs of one version may")
        rows[i] = replace(row, runs_differ=differ)
    return rows


_ONLY_THE_RUNS: Final = "these two runs differ; with so few periods it cannot be told from a burst in one of them"


class _Estimates:
    """Looks up the estimate that a row of a diff needs."""

    def __init__(self, report: Report) -> None:
        self._total = report.aggregate
        self._run = RunEstimates(report)
        ab = report.extras.ab if report.extras else None
        self._ab = ab_estimates(AbReport.from_json(ab)) if ab else {}
        self._quantiles: dict[str, dict[str, Estimate]] = {}

    def __call__(self, name: str, kind: Kind) -> Estimate | None:
        if kind == "ab":
            return self._ab.get(name)
        if kind == "rate":
            return self._run.rate(name)
        if kind == "share":
            failed = self._run.share(failures(self._total.counters), (names.REQUESTS,))
            return failed or self._ab.get("ab.failed")
        if kind == "counter":
            return self._run.share((name,), names.share_of(name))
        metric, _, row = name.rpartition(".")
        if row == "mean":
            return self._run.mean(metric)
        if metric not in self._quantiles:
            self._quantiles[metric] = dict(self._run.quantiles(metric))
        return self._quantiles[metric].get(row)


def _looked_up(change: Change, estimates: tuple[_Estimates, _Estimates]) -> tuple[Estimate | None, Estimate | None]:
    old, new = (side(change.name, change.kind) for side in estimates)
    return old, new


def _tested(change: Change, old: Estimate | None, new: Estimate | None, criteria: Criteria) -> _Test:
    """The change with its interval and p-values; without, where the runs do not let it be judged."""
    if old is None or new is None:
        whole = " or ".join(names.share_of(change.name)) if change.kind == "counter" else "enough samples"
        return _Test(_cannot(change, f"too little data: no {whole} to judge it by"))
    if lacking := _either(old.lacking, new.lacking):
        return _Test(_cannot(change, lacking))
    deviations = _deviations(change, old, new, criteria)
    if change.kind in ("summary", "ab") and not _is_share(change):
        one, other = (
            hypot(deviation, ASSUMED_BETWEEN) if side.few_periods else deviation
            for side, deviation in zip((old, new), deviations, strict=True)
        )
        deviations = one, other
    few_periods = old.few_periods or new.few_periods
    basis: Basis = "periods" if old.basis == new.basis == "periods" else "totals"
    if old.track is not None and new.track is not None:
        found = tracks.changed(old.track, new.track, old.q)
        if found.interval is None or (found.lacking and not found.apart):
            return _Test(_cannot(change, found.lacking))
        versions = found.interval.widened(hypot(*deviations))
        by, p_within, p_versions = found.interval.value, _p(found.interval), _p(versions)
        basis = "totals" if few_periods else "periods"
        if found.apart:
            # so many independent stretches stand apart by chance once in 126 times
            alone = 2 / comb(2 * SEPARATE_BLOCKS, SEPARATE_BLOCKS)
            beyond_runs = statistics.student_p(abs(by) / hypot(*deviations), inf) if any(deviations) else 0.0
            p_within, p_versions = min(p_within, alone), min(p_versions, max(alone, beyond_runs))
        low, high = versions.low, versions.high
    elif old.interval is not None and new.interval is not None:
        p_within = statistics.difference(old.interval, new.interval).p
        joint = statistics.difference(old.interval.widened(deviations[0]), new.interval.widened(deviations[1]))
        by, p_versions, low, high = joint.value, joint.p, joint.low, joint.high
    else:
        return _Test(_cannot(change, "too little data"))
    if not all(isfinite(value) for value in (p_within, p_versions, low, high)):
        return _Test(_cannot(change, "numbers too large to judge"))
    middle = (old.interval.value + new.interval.value) / 2 if old.interval and new.interval else 0.0
    # an interval on both sides of zero is not what the verdict of runs that stand apart rests on
    span = None if p_versions <= statistics.LEVEL and low < 0 < high else Span(low, high, middle)
    if by * ((change.new or 0.0) - (change.old or 0.0)) < 0 and change.kind != "counter":
        # the typical stretch of time and the whole run say the opposite: a burst decides one of them
        p_within = p_versions = 1.0
    return _Test(replace(change, span=span, p=p_versions, basis=basis), p_within, by > 0)


def _p(interval: Interval) -> float:
    """How likely a difference as large as this one is where there is none."""
    if not interval.value:
        return 1.0
    facing = interval.value - interval.low if interval.value > 0 else interval.high - interval.value
    error = facing / statistics.student_critical(interval.df)
    return statistics.student_p(interval.value / error if error else inf, interval.df)


def _deviations(change: Change, old: Estimate, new: Estimate, criteria: Criteria) -> tuple[float, float]:
    """By how much runs of one version are assumed to differ: the standard error of each side, on the figure's scale."""
    if _is_share(change):
        shares = (sin(side.interval.value / 2) ** 2 if side.interval else 0.0 for side in (old, new))
        one, other = (assumed_angle(share, criteria.run_deviation) for share in shares)
    else:
        values = (value or 0.0 for value in (change.old, change.new))
        one, other = (criteria.run_deviation * value / exp(on_log(value)) for value in values)
    return one, other


# Verdicts


def _with_verdict(row: Change, rose: bool, response_ms: float, criteria: Criteria) -> Change:
    level = statistics.RUNS_LEVEL if row.basis == "runs" else statistics.LEVEL
    if row.p is None or not row.p <= level:
        return replace(row, verdict="no clear change")
    if not _matters(row, response_ms, criteria):
        least = f"{decimal(criteria.least_ms)} ms and {decimal(criteria.least_share, 3)} of the response time"
        return replace(row, verdict="no clear change", reason=f"a change, but of less than matters ({least})")
    return replace(row, verdict="better" if rose == (figures.better(row.name, row.kind) == "higher") else "worse")


def _matters(row: Change, response_ms: float, criteria: Criteria) -> bool:
    """Whether a change is large enough to mind, be it chance or not. Shares of failures matter however small they are."""
    if _is_share(row) or row.old is None or row.new is None:
        return True
    by, least = abs(row.new - row.old), min(row.old, row.new)
    if row.kind == "rate" or figures.better(row.name, row.kind) == "higher":
        return by >= criteria.least_share * least
    of = least if row.name.startswith((names.RESPONSE_TIME, "ab.")) else max(least, response_ms)
    return by >= criteria.least_ms and by >= criteria.least_share * of


def _response_ms(rows: Iterable[Change]) -> float:
    """The lesser of both sides' mean response times, in ms; 0 where a side has none."""
    row = next((row for row in rows if row.name == f"{names.RESPONSE_TIME}.mean"), None)
    return 0.0 if row is None or row.old is None or row.new is None else min(row.old, row.new)


# Several runs a side


def _compared_by_runs(old: Sequence[Report], new: Sequence[Report], criteria: Criteria) -> list[Change]:
    runs = [*old, *new]
    known = figures.figures_of(runs)
    sides = known[: len(old)], known[len(old) :]
    zeros = figures.same_tool(runs)
    rows = [_unjudged(change) or change for change in _pairs(*sides, zeros=zeros)]
    values = _RunValues(runs, known)
    kept: list[int] = []
    columns = []
    for i, row in enumerate(rows):
        if row.verdict != "not comparable" or row.reason:
            continue
        column = values.column(row)
        lacking = _either(_lacking(row, old), _lacking(row, new))
        if not np.isfinite(column).all():
            rows[i] = replace(row, reason="not in every run")
        elif lacking:
            rows[i] = _cannot(row, lacking)
        else:
            kept.append(i)
            columns.append(column)
    if not kept:
        return rows
    table = np.stack(columns, axis=1)
    before, after = table[: len(old)], table[len(old) :]
    least = np.array([values.least_spread(rows[i]) for i in kept])
    ps = statistics.rotation_p(before, after, least).tolist()
    _, error = statistics.pooled_t(before, after, least)
    reach = (error * statistics.student_critical(len(runs) - 2)).tolist()
    means = zip(before.mean(0).tolist(), after.mean(0).tolist(), strict=True)
    response_ms = _response_ms(rows)
    for i, p, half, (one, other) in zip(kept, ps, reach, means, strict=True):
        by, middle = other - one, (one + other) / 2
        row = replace(rows[i], span=Span(by - half, by + half, middle), p=p, basis="runs")
        rows[i] = _with_verdict(row, by > 0, response_ms, criteria)
    return rows


class _RunValues:
    """The value of each run that is tested, on the figure's scale."""

    def __init__(self, runs: Sequence[Report], known: Sequence[Figures]) -> None:
        self._runs = runs
        self._known = known

    def column(self, row: Change) -> statistics.Floats:
        """One value per run; NaN where a run does not have the figure, or one that no scale has a place for."""
        return np.array([self._value(row, run, known) for run, known in zip(self._runs, self._known, strict=True)])

    def least_spread(self, row: Change) -> float:
        """Standard deviation on the scale that chance or rounding alone gives: a share's of independent failures."""
        if _is_share(row):
            wholes = [self._whole(row, run, known) for run, known in zip(self._runs, self._known, strict=True)]
            return 1 / sqrt(max(1.0, sum(wholes) / len(wholes)))
        value = ((row.old or 0.0) + (row.new or 0.0)) / 2
        rounded = 0.3 if row.kind == "ab" else 0.03
        return hypot(LEAST_SPREAD * value, rounded) / exp(on_log(value))

    def _value(self, row: Change, run: Report, known: Figures) -> float:
        value = known.get((row.kind, row.name))
        if _is_share(row):
            whole = self._whole(row, run, known)
            share = value if row.kind == "share" else (value or 0.0) / whole if whole else None
            return nan if share is None else on_angle(share)
        if row.kind == "summary" and value is not None:
            metric, _, q = row.name.rpartition(".")
            value = _unrounded(run.aggregate.sketches.get(metric), q, value)
        return nan if value is None or not 0 <= value < inf else on_log(value)

    @staticmethod
    def _whole(row: Change, run: Report, known: Figures) -> float:
        if row.kind == "ab":
            return known.get(("ab", "ab.complete"), 0.0)
        if row.kind == "counter":
            return figures.whole_of(row.name, known)
        return requests(run.aggregate.counters) or known.get(("ab", "ab.complete"), 0.0)


def _unrounded(sketch: Sketch | None, row: str, value: float) -> float:
    """A row of a distribution by its sketch, finer than a bin; as it stands in the report where there is no sketch."""
    if sketch is None or not sketch.count:
        return value
    if row == "mean":
        return sketch.mean
    return interpolated(sketch, QUANTILES[row]) if row in QUANTILES else value


def _lacking(row: Change, runs: Sequence[Report]) -> str:
    """Why a quantile cannot be judged by these runs: all together have too few samples beyond it; else empty."""
    metric, _, name = row.name.rpartition(".")
    if row.kind != "summary" or name not in QUANTILES:
        return ""
    counts = [s.count for run in runs if (s := run.aggregate.summaries.get(metric)) is not None]
    return too_few(None if None in counts else sum(c or 0 for c in counts), QUANTILES[name], name)


# Both sides at once


def compare_paired(old: Report, new: Report, criteria: Criteria = Criteria()) -> Diff:
    """Compares the two sides of a duel, which were under load in the same seconds, by the statistics of `paired`.

    Response times (median, p95, p99), failures and the rate of requests are judged; `criteria` says what change matters.
    """
    rows = list(_pairs(*([f] for f in figures.figures_of([old, new])), zeros=True))
    duel = paired.Duel(old, new)
    questions = _questions(duel)
    judged: dict[int, paired.Paired] = {}
    for i, row in enumerate(rows):
        ask = questions.get(row.name)
        done = _unjudged(row)
        if done is not None or ask is None:
            rows[i] = done or replace(row, reason=_NOT_IN_DUELS)
            continue
        if row.kind == "share" and not row.old and not row.new:
            # Where nothing failed there is nothing to test, and one figure fewer to correct for.
            rows[i] = replace(row, verdict="no clear change", basis="pairs")
            continue
        found = ask()
        if found.lacking:
            rows[i] = _cannot(row, found.lacking)
        else:
            judged[i] = found
    response_ms = _response_ms(rows)
    ps = paired.holm([found.p for found in judged.values()])
    for (i, found), p in zip(judged.items(), ps, strict=True):
        # The seconds and the whole may say the opposite where a burst on one side decides the whole: then nothing is said.
        agreed = found.value * (rows[i].change or 0.0) > 0
        span = Span(found.low, found.high, pi / 2) if isfinite(found.low) and isfinite(found.high) else None
        row = replace(rows[i], span=span, p=p if agreed else 1.0, basis="pairs")
        row = _with_verdict(row, found.value > 0, response_ms, criteria)
        alone = found.p <= statistics.LEVEL and row.verdict == "no clear change" and not row.reason
        rows[i] = replace(row, reason=_ONE_OF_SEVERAL) if alone else row
    notes = (_OF_DUELS, *_longer(rows, duel.seconds))
    return Diff(tuple(rows), notes, tuple(cautions([old], [new], one_target=False)))


def _longer(rows: Sequence[Change], seconds: int) -> Iterator[str]:
    """The minutes that a duel needs to decide what this one left open, in a sentence; nothing if it was long enough."""
    needed = {
        row.name.rpartition(".")[2]: minutes
        for row in rows
        if row.basis == "pairs" and row.kind == "summary" and row.verdict == "no clear change" and row.span is not None
        if (minutes := paired.minutes_needed(row.span.high - row.span.low, seconds)) * 60 > seconds
    }
    if needed:
        told = ", ".join(f"{name} about {ceil(minutes)} min" for name, minutes in needed.items())
        yield (
            f"Would need, to find a change of {paired.SOUGHT:.0%} nine times in ten, under conditions like these: {told}; this"
            f" duel had {seconds / 60:.1f} min."
        )


JUDGED_IN_DUELS: Final = (
    *(figures.ERRORS, names.REQUEST_RATE),
    *(f"{names.RESPONSE_TIME}.{row}" for row in ("median", "p95", "p99")),
)
_ONE_OF_SEVERAL: Final = "its interval leaves out zero, but of several figures judged at once one does so by chance"
_NOT_IN_DUELS: Final = "not judged in a duel"
_OF_DUELS: Final = (
    "Judged second by second, as both sides were under load at once: an interval is that of the change within the same "
    "seconds, and what disturbed both sides is in neither verdict nor interval. Verdicts allow for several figures being "
    "judged at once; intervals do not."
)


def _questions(duel: paired.Duel) -> dict[str, Callable[[], paired.Paired]]:
    """How each figure that a duel judges is tested."""
    quantiles = (partial(duel.quantile, q) for q in (0.5, 0.95, 0.99))
    asked: list[Callable[[], paired.Paired]] = [duel.failures, duel.rate, *quantiles]
    return dict(zip(JUDGED_IN_DUELS, asked, strict=True))


# Notes


def _notes(old: Sequence[Report], new: Sequence[Report], rows: Sequence[Change], criteria: Criteria) -> Iterator[str]:
    bases = {row.basis for row in rows}
    if "runs" in bases:
        yield f"Judged by the variation between {len(old)} and {len(new)} runs, by a rotation test."
    if bases & {"periods", "totals"}:
        yield from _of_single_runs(rows, criteria)
    if "totals" in bases:
        yield (
            f"Too few periods to measure variation in some figures ({statistics.LEAST_PERIODS} a side are needed): runs are "
            f"supposed to vary by {ASSUMED_WITHIN:.0%} within themselves there, times of two runs by {ASSUMED_BETWEEN:.0%}, and "
            f"only changes of several times are said to be of the versions."
        )


def _of_single_runs(rows: Sequence[Change], criteria: Criteria) -> Iterator[str]:
    """The two sentences that one run a side allows: whether the runs differ, and whether the versions do."""
    deviation = criteria.run_deviation
    if not deviation:
        yield (
            "One run a side: that runs of one version do not differ was taken for granted (--run-deviation 0); better and "
            "worse are said of these two runs."
        )
        return
    yield (
        f"One run a side: better and worse are said where a change exceeds what runs of one version are supposed to differ by, "
        f"a standard deviation of {decimal(100 * deviation, 3)} % (--run-deviation). "
        f"{_runs_text(log(1.1), deviation)} would tell a change of 10 %."
    )
    unsure = [row for row in rows if row.runs_differ and row.verdict not in ("better", "worse")]
    if unsure:
        some = ", ".join(row.name for row in unsure[:3]) + (f" and {len(unsure) - 3} more" if len(unsure) > 3 else "")
        yield (
            f"These two runs differ by more than chance within them ({some}); whether the versions differ, one run a side "
            f"cannot say."
        )
    times = [(abs(on_log(row.new or 0.0) - on_log(row.old or 0.0)), row.name) for row in unsure if not _is_share(row)]
    if times:
        by, name = max(times)
        yield f"{_runs_text(by, deviation)} would tell a change like that of {name}."


def _runs_text(change: float, deviation: float) -> str:
    runs = statistics.runs_needed(change, deviation)
    return f"{runs} runs a side" if runs else "More than 100 runs a side"
