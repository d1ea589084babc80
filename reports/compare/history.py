"""Many reports in order of time: where the level of a figure changed, between which two reports, and by how much. Pure.

The change points are those of `reports.compare.change_points`; docs/history.md says how often they are false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from math import exp, hypot, isfinite, sin, sqrt
from typing import Final

import numpy as np

from reports import names
from reports.compare import figures
from reports.compare.cautions import LATE_MS, start_lag_ms
from reports.compare.change_points import LEAST_VALUES, change_points, drift_p
from reports.compare.diff import LEAST_SPREAD, Change, Criteria, Diff, Verdict
from reports.compare.figures import ERRORS, Figures, Kind
from reports.compare.gates import long_names
from reports.compare.scales import OFFSET, on_angle, on_log
from reports.compare.statistics import LEVEL, Floats
from reports.model import Report, ReportError

USUAL: Final = (ERRORS, "rps", "p50", "p95", "p99")
"""The figures that are looked at unless others are named; and p95 of each endpoint."""

_AMOUNTS: Final = (names.REQUESTS, names.RESPONSES, names.DOWNLOADED_BYTES, names.VUSERS_CREATED)
"""Counters that are compared as they are; others as a share."""

CRITERIA: Final = Criteria()
"""What a change must exceed, unless said otherwise."""

_ENDPOINT: Final = f"{names.ENDPOINT}{names.ENDPOINT_TIME}"
_BESIDES: Final[Mapping[str, tuple[str, ...]]] = {
    "script": ("script",),
    "target": ("target",),
    "machine": ("cpu", "cores", "memory_mb", "system"),
    "Python": ("python",),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One report of a history: its name, when it was made (epoch ms), and a commit or label where the report has one."""

    name: str
    report: Report
    at_ms: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of a figure's level, or with `gradual` a drift from the first report to the last.

    `before` and `after` are the means of the two levels, in the figure's unit (ms, per second, a share); geometric ones of
    times and rates. `last_old` and `first_new` are the numbers of the reports between which the level changed, from 0.
    """

    name: str
    kind: Kind
    last_old: int
    first_new: int
    before: float
    after: float
    p: float
    """How likely a change like this is by chance anywhere in the history, corrected for the number of figures."""
    verdict: Verdict
    gradual: bool = False
    besides: tuple[str, ...] = ()
    """What else differs between the two reports: "script", "target", "machine", "Python", "tool"."""

    @property
    def relative(self) -> float | None:
        """The change as a share of the level before; None where that is 0."""
        return (self.after - self.before) / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class Track:
    """One figure over all reports: its value in each (None where a report lacks it), its level there, and its changes."""

    name: str
    kind: Kind
    values: tuple[float | None, ...]
    levels: tuple[float | None, ...] = ()
    shifts: tuple[Shift, ...] = ()
    lacking: str = ""
    """Why the figure cannot be judged; "" where it was."""


@dataclass(frozen=True, slots=True)
class History:
    """Reports in order of time, and the figures that were looked at in them."""

    entries: tuple[Entry, ...]
    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = ()

    @property
    def shifts(self) -> tuple[Shift, ...]:
        """All changes, the latest first; of one instant the worse ones first, in the order of the figures."""
        found = (shift for track in self.tracks for shift in track.shifts)
        return tuple(sorted(found, key=lambda s: (s.gradual, -s.first_new, s.verdict != "worse")))

    def last_changes(self) -> Diff:
        """The last change of each figure as a comparison, which `Gate` judges: the level before it and the present one."""
        return Diff(tuple(_as_change(track) for track in self.tracks))


def history(entries: Sequence[Entry], metrics: Sequence[str] = (), criteria: Criteria = CRITERIA) -> History:
    """Look for changes of these figures (of none: of the USUAL ones) in the reports, which are in order of time.

    Reports of runs that did not reach their end, or whose generator was late, are left out; a note says so. Of the
    criteria, only the least change of a time is used. Raises ReportError where no report has a figure that was named.
    """
    kept = [entry for entry in entries if not _unfit(entry.report)]
    notes = [*_left_out(entries), *_tools(kept)]
    runs = [dict(found) for found in figures.figures_of([entry.report for entry in kept])]
    chosen = [_find(metric, runs) for metric in dict.fromkeys(metrics)] or _usual(runs, kept)
    level = LEVEL / max(1, len(chosen))
    tracks = [_track(kind, name, runs, kept, level, criteria) for kind, name in dict.fromkeys(chosen)]
    return History(tuple(kept), tuple(tracks), tuple(notes))


def compared_as_share(name: str, kind: Kind) -> bool:
    """Whether a figure is compared as a share, 0 to 1: of requests, of users, or of what `names.share_of` says."""
    return kind == "share" or name in figures.AB_SHARES or (kind == "counter" and not name.startswith(_AMOUNTS))


def _unfit(report: Report) -> str:
    """Why a report says nothing of the service's level; "" where it does."""
    if report.extras is not None and report.extras.partial:
        return "did not reach the planned end"
    lag = start_lag_ms(report)
    return "started arrivals late" if lag is not None and lag > LATE_MS else ""


def _left_out(entries: Sequence[Entry]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        if reason := _unfit(entry.report):
            by_reason.setdefault(reason, []).append(entry.name)
    return [
        f"Left out, because the run {reason}: {', '.join(some[:5])}"
        f"{f' and {len(some) - 5} more' if len(some) > 5 else ''}."
        for reason, some in by_reason.items()
    ]


def _tools(entries: Sequence[Entry]) -> list[str]:
    reports = [entry.report for entry in entries]
    if not reports or figures.same_tool(reports):
        return []
    tools = sorted({figures.tool(report) for report in reports})
    return [f"The reports are of several tools ({', '.join(tools)}), which measure times between different instants."]


def _find(metric: str, runs: Sequence[Figures]) -> tuple[Kind, str]:
    """The figure of a name or short name. Raises ReportError."""
    known = {name: kind for run in runs for kind, name in run}
    for name in (metric, *long_names(metric)):
        if name in known:
            return known[name], name
    if metric.startswith((names.ERRORS, names.CODES)) and any(figures.whole_of(metric, run) for run in runs):
        return "counter", metric
    if not runs:
        return "summary", metric
    near = get_close_matches(metric, known, n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise ReportError(f"--metric: no report has a figure called {metric!r}{hint}")


def _usual(runs: Sequence[Figures], entries: Sequence[Entry]) -> list[tuple[Kind, str]]:
    """The usual figures that some report has. The rate of an open workload is the plan's, and says nothing of the service."""
    known = {name: kind for run in runs for kind, name in run}
    planned = all(entry.report.extras is not None and entry.report.extras.model == "open" for entry in entries)
    wanted = [name for name in USUAL if not (planned and name == "rps")]
    found = [next((n for n in (name, *long_names(name)) if n in known), "") for name in wanted]
    found += sorted(n for n in known if n.startswith(_ENDPOINT) and n.endswith(".p95"))
    return [(known[name], name) for name in found if name]


def _track(
    kind: Kind, name: str, runs: Sequence[Figures], entries: Sequence[Entry], level: float, criteria: Criteria
) -> Track:
    is_share = compared_as_share(name, kind)
    wholes = [_whole(name, kind, run) if is_share else 0.0 for run in runs]
    raw = [_value(name, kind, run, whole, is_share=is_share) for run, whole in zip(runs, wholes, strict=True)]
    values = tuple(raw)
    having = [i for i, value in enumerate(values) if value is not None]
    if len(having) < LEAST_VALUES:
        lacking = f"{len(having)} report{'s' * (len(having) != 1)}; {LEAST_VALUES} are needed"
        return Track(name, kind, values, lacking=lacking)
    known = np.array([values[i] for i in having], np.float64)
    series = np.array([on_angle(v) if is_share else on_log(v) for v in known])
    if is_share:
        spread = 1 / sqrt(max(1.0, sum(wholes[i] for i in having) / len(having)))
    else:
        middle = float(np.median(known))
        spread = hypot(LEAST_SPREAD * middle, 0.3 if kind == "ab" else 0.03) / (middle + OFFSET)
    points = change_points(series, spread, level)
    drifting = drift_p(series, points, spread)
    gradual = drifting <= level
    edges = [0, *(point.at for point in points), len(having)]
    means = [float(known[a:b].mean()) if is_share else _mean(series[a:b]) for a, b in pairwise(edges)]
    shifts = []
    for i, point in enumerate(points):
        places = having[point.at - 1], having[point.at]
        besides = _besides(entries[places[0]].report, entries[places[1]].report)
        found = Shift(name, kind, *places, means[i], means[i + 1], 0.0, "no clear change", besides=besides)
        shifts.append(_judged(found, point.p * LEVEL / level))
    if gradual:
        shifts = [_drift(name, kind, series, having, drifting * LEVEL / level, is_share=is_share)]
    shifts = [shift for shift in shifts if is_share or _matters(shift, criteria)]
    levels: list[float | None] = [None] * len(values)
    for k, i in enumerate(having):
        part = sum(point.at <= k for point in points)
        # A drift that is too small to matter is no change.
        levels[i] = None if gradual and shifts else means[part]
    return Track(name, kind, values, tuple(levels), tuple(shifts))


def _value(name: str, kind: Kind, run: Figures, whole: float, *, is_share: bool) -> float | None:
    value = run.get((kind, name))
    if kind == "counter" and is_share and value is None and whole:
        value = 0.0
    if value is None or not isfinite(value) or value < 0:
        return None
    if not is_share or kind == "share":
        return value
    return min(1.0, value / whole) if whole else None


def _whole(name: str, kind: Kind, run: Figures) -> float:
    """The count that a figure is a share of: requests, or ab's complete ones."""
    if kind == "counter":
        return figures.whole_of(name, run)
    return figures.whole_of(names.REQUESTS, run) or run.get(("ab", "ab.complete"), 0.0)


def _mean(logs: Floats) -> float:
    """The geometric mean of times or rates, given on the scale that they are compared on."""
    return max(0.0, exp(float(logs.mean())) - OFFSET)


def _judged(shift: Shift, p: float) -> Shift:
    good = figures.better(shift.name, shift.kind)
    verdict: Verdict = "not comparable"
    if good is not None:
        verdict = "worse" if (shift.after > shift.before) == (good == "lower") else "better"
    return replace(shift, p=min(1.0, p), verdict=verdict)


def _drift(name: str, kind: Kind, series: Floats, having: Sequence[int], p: float, *, is_share: bool) -> Shift:
    """The drift of a series from the first report to the last, by the straight line through it."""
    at = np.arange(len(series))
    slope, start = (float(each) for each in np.polyfit(at, series, 1))
    ends = (start, start + slope * (len(series) - 1))
    before, after = (sin(end / 2) ** 2 if is_share else max(0.0, exp(end) - OFFSET) for end in ends)
    drift = Shift(name, kind, having[0], having[-1], before, after, 0.0, "no clear change", gradual=True)
    return _judged(drift, p)


def _matters(shift: Shift, criteria: Criteria) -> bool:
    by = abs(shift.after - shift.before)
    is_time = shift.kind == "summary" or (shift.kind == "ab" and not shift.name.endswith(("_s", "_second")))
    return by >= criteria.least_share * shift.before and (not is_time or by >= criteria.least_ms)


def _besides(old: Report, new: Report) -> tuple[str, ...]:
    before, after = (report.extras.environment if report.extras else {} for report in (old, new))
    found = [
        what
        for what, keys in _BESIDES.items()
        if any(before.get(k) is not None and after.get(k) is not None and before[k] != after[k] for k in keys)
    ]
    return tuple(found) if figures.same_tool([old, new]) else (*found, "tool")


def _as_change(track: Track) -> Change:
    if track.lacking:
        return Change(track.name, track.kind, None, None, "cannot be judged", reason=track.lacking)
    if track.shifts:
        last = track.shifts[-1]
        return Change(track.name, track.kind, last.before, last.after, last.verdict, p=last.p)
    present = next((v for v in reversed(track.levels) if v is not None), None)
    return Change(track.name, track.kind, present, present, "no clear change", p=1.0)
