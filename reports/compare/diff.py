"""Two sides compared: each figure of both, by how much it changed, and whether that is better, worse or chance.

The statistics are those of `reports.compare.statistics` and `reports.compare.estimates`; docs/statistics.md tells them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np

from reports import names
from reports.compare import statistics
from reports.compare.estimates import Basis, Estimate, RunEstimates, ab_estimates
from reports.formats.apachebench import DOING_WHAT, PERCENTILES, AbReport
from reports.model import Extras, Period, Rate, Report, Summary

Kind = Literal["share", "counter", "rate", "summary", "ab"]
Verdict = Literal["better", "worse", "no clear change", "not comparable"]

ERRORS = "errors"
"""The share of requests that failed: those without an answer (`errors.*`) and those answered by a status of 500 or more. Of
ab's report without other metrics, its failed requests."""

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
_AB_HIGHER = ("ab.requests_per_second", "ab.transfer_rate_kbytes_s")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides; None where a side does not have it, which is not the same as zero.

    Of several runs a side, `old` and `new` are the means over them.
    """

    name: str
    """The metric; of a distribution with the row: `http.response_time.p95`. Figures of ab: `ab.total.mean`."""
    kind: Kind
    old: float | None
    new: float | None
    verdict: Verdict = "not comparable"
    low: float | None = None
    """Of the change's 95 % interval: in the figure's unit; of counters that are judged as a share, in shares."""
    high: float | None = None
    p: float | None = None
    """How likely a change like this is by chance alone, corrected for the number of figures that were judged."""
    basis: Basis | Literal["runs"] | None = None
    """What the verdict rests on: variation between "runs" or "periods", or "totals" and an assumed variation."""
    reason: str = ""
    """Why there is no verdict of better or worse, where that is not for lack of change."""

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

    def mirrored(self) -> Change:
        """The same, seen from the other side."""
        swapped: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
        low, high = None if self.high is None else -self.high, None if self.low is None else -self.low
        verdict = swapped.get(self.verdict, self.verdict)
        return replace(self, old=self.new, new=self.old, verdict=verdict, low=low, high=high)


@dataclass(frozen=True, slots=True)
class Diff:
    """Every figure that either side has: the share of errors, counters, rates, distributions, then ab's."""

    rows: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know of the verdicts, a sentence each."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """Those that differ."""
        return tuple(row for row in self.rows if row.differs)

    def mirrored(self) -> Diff:
        """`compare(new, old)`, given `compare(old, new)`."""
        return Diff(tuple(row.mirrored() for row in self.rows), self.notes)


def compare(old: Report, new: Report) -> Diff:
    """One run a side. Figures of ab's report are compared where both have one; else what they say in others' terms."""
    old, new = _in_same_terms(old, new)
    pairs = _pairs([_figures(old)], [_figures(new)], zeros=_same_tool([old], [new]))
    estimates = _Estimates(old), _Estimates(new)
    rows: list[Change] = []
    for change in pairs:
        try:
            row = _unjudged(change) or _judged(change, *(estimate(change.name, change.kind) for estimate in estimates))
        except OverflowError:
            row = replace(change, reason="numbers too large to judge")
        rows.append(row)
    return Diff(tuple(_decided(rows, statistics.adjusted)), tuple(_notes([old], [new], rows)))


def compare_runs(old: Sequence[Report], new: Sequence[Report]) -> Diff:
    """Several runs a side (or one against several): judged by the variation between runs alone.

    A permutation test where there are enough runs for it, else Student's t with the spread of both sides pooled.
    """
    if len(old) == len(new) == 1:
        return compare(old[0], new[0])
    sides = [[_figures(report) for report in side] for side in (old, new)]
    zeros = _same_tool(old, new)
    rows = [_unjudged(change) or change for change in _pairs(*sides, zeros=zeros)]
    judged = [i for i, row in enumerate(rows) if row.verdict == "not comparable" and not row.reason]
    values = [np.array([[_scaled(rows[i], run) for i in judged] for run in side]) for side in sides]
    usable = np.isfinite(values[0]).all(0) & np.isfinite(values[1]).all(0)
    for i, ok in zip(judged, usable, strict=True):
        if not ok:
            rows[i] = replace(rows[i], reason="not in every run")
    kept = [i for i, ok in zip(judged, usable, strict=True) if ok]
    requests = [_denominator(rows[i], [*sides[0], *sides[1]]) for i in kept]
    judged_rows = _judged_runs([rows[i] for i in kept], requests, *(v[:, usable] for v in values))
    for i, row in zip(kept, judged_rows, strict=True):
        rows[i] = row
    return Diff(tuple(rows), tuple(_notes(old, new, rows)))


# Figures

_Figures = Mapping[tuple[Kind, str], float]


def _figures(report: Report) -> _Figures:
    total = report.aggregate
    found: dict[tuple[Kind, str], float] = {}
    if total.counters.get(names.REQUESTS):
        failed = sum(total.counters[name] for name in _failures(total))
        found["share", ERRORS] = min(1.0, failed / total.counters[names.REQUESTS])
    found |= {("counter", name): count for name, count in sorted(total.counters.items())}
    found |= {("rate", name): rate.per_second for name, rate in sorted(total.rates.items())}
    for name, summary in sorted(total.summaries.items()):
        rows = ((row, getattr(summary, row)) for row in SUMMARY_ROWS)
        found |= {("summary", f"{name}.{row}"): figure for row, figure in rows if figure is not None}
    if report.extras and report.extras.ab:
        ab = AbReport.from_json(report.extras.ab)
        found |= {("ab", name): figure for name, figure in _ab_figures(ab).items()}
        if ab.complete and ab.failed is not None:
            found.setdefault(("share", ERRORS), min(1.0, ab.failed / ab.complete))
    return found


def _failures(period: Period) -> list[str]:
    return [name for name in period.counters if name.startswith((names.ERRORS, f"{names.CODES}5"))]


def _ab_figures(ab: AbReport) -> dict[str, float]:
    found = {f"ab.{name}": getattr(ab, name) for name in _AB_TOTALS}
    found |= {f"ab.failures.{kind}": getattr(ab.failures, kind, None) for kind in _AB_FAILURES}
    found |= {f"ab.{row}.{column}": getattr(ab.rows.get(row), column, None) for row, column in _AB_TABLE}
    found |= {f"ab.percentile.{percentage}": ab.percentiles.get(percentage) for percentage in PERCENTILES}
    return {name: figure for name, figure in found.items() if figure is not None}


def _pairs(old: Sequence[_Figures], new: Sequence[_Figures], *, zeros: bool) -> Iterator[Change]:
    """In the order of the kinds. `zeros`: failures of a kind that a run did not count were none, if it counts requests.

    So it is among reports of one tool, which writes a counter when it first counts; others may not know such failures.
    """
    known = sorted({key for run in (*old, *new) for key in run}, key=_place)
    for key in known:
        absent = 0.0 if zeros and key[0] == "counter" and better(key[1], key[0]) == "lower" else None
        yield Change(key[1], key[0], _mean(old, key, absent), _mean(new, key, absent))


def _same_tool(old: Sequence[Report], new: Sequence[Report]) -> bool:
    tools = {_tool(report) for report in (*old, *new)}
    return len(tools) == 1 or not tools & _OTHER_TOOLS


_KINDS = ("share", "counter", "rate", "summary", "ab")
_AB_ORDER = {name: i for i, name in enumerate(_AB_NAMES)}
_ROW_ORDER = {row: i for i, row in enumerate(SUMMARY_ROWS)}


def _place(key: tuple[Kind, str]) -> tuple[int, str, int]:
    kind, name = key
    if kind == "summary":
        metric, _, row = name.rpartition(".")
        return _KINDS.index(kind), metric, _ROW_ORDER[row]
    return (_KINDS.index(kind), "", _AB_ORDER[name]) if kind == "ab" else (_KINDS.index(kind), name, 0)


def _mean(runs: Sequence[_Figures], key: tuple[Kind, str], absent: float | None) -> float | None:
    found = (run.get(key, absent if ("counter", names.REQUESTS) in run else None) for run in runs)
    values = [value for value in found if value is not None]
    if not values:
        return None
    return values[0] if len(values) == 1 else sum(values) / len(values)


def _in_same_terms(old: Report, new: Report) -> tuple[Report, Report]:
    """Where only one side has ab's figures, they are told by the names that other tools' readers use."""
    told = [report.extras.ab if report.extras else None for report in (old, new)]
    if all(told) or not any(told):
        return old, new
    ours, theirs = (_from_ab(r, ab) if ab else r for r, ab in zip((old, new), told, strict=True))
    return ours, theirs


def _from_ab(report: Report, figures: Mapping[str, object]) -> Report:
    """Its total time is from the start of the connection to the last byte; what ab alone tells is left out."""
    if report.aggregate.summaries:
        return Report(report.aggregate, report.periods, replace(report.extras, ab=None) if report.extras else None)
    ab = AbReport.from_json(figures)
    total, at = ab.rows.get("total"), {p: float(ms) for p, ms in ab.percentiles.items()}
    shape = {} if total is None else {"min": float(total.min), "mean": float(total.mean), "max": float(total.max)}
    shape |= {f"p{p}": at[p] for p in (50, 75, 90, 95, 99) if p in at}
    counters = {names.REQUESTS: ab.complete, f"{names.ERRORS}failed": ab.failed}
    period = Period(
        start_ms=0,
        counters={name: count for name, count in counters.items() if count is not None},
        rates={} if ab.requests_per_second is None else {names.REQUEST_RATE: Rate(ab.requests_per_second)},
        summaries={names.RESPONSE_TIME: Summary(**shape, count=ab.complete)} if shape else {},
    )
    return Report(period, extras=Extras("ApacheBench 2.3", "closed"))


# Verdicts


def better(name: str, kind: Kind) -> names.Direction | None:
    """Which way a figure is better; None where neither is."""
    if kind == "ab":
        neutral = name in ("ab.concurrency", "ab.complete", "ab.keep_alive", "ab.time_taken_s") or name.endswith(
            "_bytes"
        )
        return None if neutral else "higher" if name in _AB_HIGHER else "lower"
    if kind == "share":
        return "lower"
    return None if kind == "summary" and name.endswith(".count") else names.better(name)


def _unjudged(change: Change) -> Change | None:
    """The row of what no test can judge; None for what one can."""
    if change.old is None or change.new is None:
        return replace(change, reason="on one side only")
    if not (isfinite(change.old) and isfinite(change.new)):
        return replace(change, reason="not a finite number")
    if better(change.name, change.kind) is None:
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


class _Estimates:
    """Looks up the estimate that a row of a diff needs."""

    def __init__(self, report: Report) -> None:
        self._total = report.aggregate
        self._run = RunEstimates(report)
        self._quantiles: dict[str, Mapping[str, Estimate]] = {}
        ab = report.extras.ab if report.extras else None
        self._ab = ab_estimates(AbReport.from_json(ab)) if ab else {}

    def __call__(self, name: str, kind: Kind) -> Estimate | None:
        if kind == "ab":
            return self._ab.get(name)
        if kind == "rate":
            return self._run.rate(name)
        if kind == "share":
            return self._run.share(_failures(self._total), (names.REQUESTS,)) or self._ab.get("ab.failed")
        if kind == "counter":
            return self._run.share((name,), names.share_of(name))
        metric, _, row = name.rpartition(".")
        if row == "mean":
            return self._run.mean(metric)
        if metric not in self._quantiles:
            self._quantiles[metric] = self._run.quantiles(metric)
        return self._quantiles[metric].get(row)


def _judged(change: Change, old: Estimate | None, new: Estimate | None) -> Change:
    """With the interval and the p-value of this figure alone."""
    if old is None or new is None:
        whole = " or ".join(names.share_of(change.name)) if change.kind == "counter" else "enough samples"
        return replace(change, reason=f"too little data: no {whole} to judge it by", verdict="no clear change")
    if old.interval is None or new.interval is None:
        return replace(change, reason=old.lacking or new.lacking, verdict="no clear change")
    found = statistics.difference(old.interval, new.interval)
    basis: Basis = "periods" if old.basis == new.basis == "periods" else "totals"
    return replace(change, low=found.low, high=found.high, p=found.p, basis=basis)


def _decided(rows: list[Change], adjust: Callable[[list[float]], list[float]]) -> Iterator[Change]:
    """With p-values corrected for how many there are, and verdicts by them."""
    corrected = iter(adjust([row.p for row in rows if row.p is not None]))
    for row in rows:
        yield row if row.p is None else _with_verdict(replace(row, p=next(corrected)))


def _with_verdict(row: Change) -> Change:
    if row.p is None or row.low is None or row.high is None or not row.p <= statistics.LEVEL:
        return replace(row, verdict="no clear change")
    rose = row.low + row.high > 0
    return replace(row, verdict="better" if rose == (better(row.name, row.kind) == "higher") else "worse")


def _scaled(change: Change, run: _Figures) -> float:
    """What is tested of a run: a counter as a share; NaN where the run does not have it."""
    value = run.get((change.kind, change.name))
    if change.kind != "counter":
        return float("nan") if value is None else value
    whole = sum(run.get(("counter", name), 0) for name in names.share_of(change.name))
    return (value or 0) / whole if whole else float("nan")


def _denominator(change: Change, runs: Sequence[_Figures]) -> float:
    """What a run's shares are shares of, on average over runs; at least 1."""
    whole = names.share_of(change.name)
    return max(1.0, sum(run.get(("counter", name), 0) for run in runs for name in whole) / len(runs))


def _least_spread(change: Change, requests: float, share: float) -> float:
    """Standard deviation that chance or rounding alone gives a figure: of a share that of independent failures."""
    if change.kind in ("share", "counter"):
        return float(np.sqrt(max(share * (1 - share), 1 / requests) / requests))
    return 0.03 if change.kind == "summary" else 0.3  # rounded to 0.1 ms; to whole events per second or ms


def _judged_runs(
    rows: list[Change], requests: list[float], old: statistics.Floats, new: statistics.Floats
) -> Iterator[Change]:
    """Times and rates by their logarithms where all are positive: runs vary by factors rather than by sums."""
    if not rows:
        return
    by_log = (old > 0).all(0) & (new > 0).all(0) & np.array([row.kind not in ("share", "counter") for row in rows])
    before, after = (np.where(by_log, np.log(np.where(by_log, side, 1.0)), side) for side in (old, new))
    middle = np.concatenate([old, new]).mean(0)
    given = zip(rows, requests, middle.tolist(), strict=True)
    least = np.array([_least_spread(row, of, share) for row, of, share in given])
    t, _ = statistics.pooled_t(before, after, least / np.where(by_log, middle, 1.0))
    df = len(old) + len(new) - 2
    if statistics.permutation_can_tell(len(old), len(new)):
        ps = statistics.permutation_p(before, after).tolist()
    else:
        ps = statistics.adjusted([statistics.student_p(value, df) for value in t.tolist()])
    _, error = statistics.pooled_t(old, new, least)
    reach = error * statistics.student_critical(df)
    with np.errstate(all="ignore"):
        change = new.mean(0) - old.mean(0)
    for row, p, by, half in zip(rows, ps, change.tolist(), reach.tolist(), strict=True):
        yield _with_verdict(replace(row, low=by - half, high=by + half, p=p, basis="runs"))


# Notes


def _notes(old: Sequence[Report], new: Sequence[Report], rows: Iterable[Change]) -> Iterator[str]:
    bases = {row.basis for row in rows}
    if "runs" in bases:
        test = "a permutation test" if statistics.permutation_can_tell(len(old), len(new)) else "Student's t test"
        yield f"Judged by the variation between {len(old)} and {len(new)} runs, by {test}."
    if "periods" in bases:
        yield "Judged by the variation between periods of one run a side; other runs may differ by more."
    if "totals" in bases:
        yield (
            f"Too few periods to measure variation in some figures: runs are supposed to vary by 10 % there, so that "
            f"changes under some 30 % are not told from chance ({statistics.LEAST_PERIODS} periods a side are needed)."
        )
    partial = [side for side, runs in (("old", old), ("new", new)) if any(r.extras and r.extras.partial for r in runs)]
    if partial:
        yield f"Partial: {' and '.join(partial)} did not reach the planned end."
    tools = [sorted({_tool(report) for report in runs}) for runs in (old, new)]
    if not _same_tool(old, new):
        sides = f"Old is of {', '.join(tools[0])}, new of {', '.join(tools[1])}"
        yield f"{sides}: tools start and stop their clocks at different instants."


def _tool(report: Report) -> str:
    return report.extras.tool_version if report.extras else "Artillery"


_OTHER_TOOLS = {"ApacheBench 2.3", "Artillery 1", "Locust", "hey", "k6", "wrk", "wrk2"}
"""What readers of other tools' reports put into `Extras.tool_version`; ours write Poolbench's version there."""
