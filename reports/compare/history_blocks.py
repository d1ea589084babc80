"""A history as blocks: what changed and when, in a sentence, in a table and in a chart of each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reports import names
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Items,
    Page,
    Section,
    Series,
    Table,
    Text,
    Tone,
    amount,
    decimal,
    percent,
)
from reports.compare.change_points import LEAST_VALUES
from reports.compare.diff import Verdict
from reports.compare.figures import ERRORS, better
from reports.compare.gates import GateResult
from reports.compare.history import History, Shift, Track, compared_as_share

_COLUMNS = (
    Column("figure"),
    Column("between"),
    Column("and"),
    Column("before", "number"),
    Column("after", "number"),
    Column("change", "number"),
    Column("verdict", "mark"),
    Column("p", "number", aside=True),
    Column("also different", aside=True),
)
_WORDS = {
    ERRORS: "failed requests",
    names.REQUEST_RATE: "requests per second",
    "ab.requests_per_second": "requests per second",
}
_ENDPOINT = f"{names.ENDPOINT}{names.ENDPOINT_TIME}"
_AB_TIMES = ("ab.percentile.", "ab.time_per_request", "ab.connect.", "ab.processing.", "ab.waiting.", "ab.total.")
_TONES: Mapping[Verdict, Tone] = {"worse": "bad", "better": "good"}
_MOST_CHARTS = 40


def history_page(found: History, outcomes: Sequence[GateResult] = ()) -> Page:
    """The history as a result. JSON has `{"headline", "changes": [...], "figures": [...], "reports": [...], "notes": [...]}`."""
    rules = Items(tuple(Text(outcome.line, "good" if outcome.met else "bad") for outcome in outcomes))
    shifts = found.shifts
    tone: Tone = "bad" if any(shift.verdict == "worse" for shift in shifts) else ""
    blocks: list[Block] = [Text(headline(found), tone), *(Text(note, "warn") for note in found.notes)]
    if shifts:
        rows = tuple(_row(shift, found) for shift in shifts)
        blocks.append(Table("changes", "Changes, the latest first", _COLUMNS, rows, tools=True))
    blocks += [
        Text(f"{words(t.name)} cannot be judged: {t.lacking}.") for t in found.tracks if t.lacking and not _short(found)
    ]
    blocks += [rules] if outcomes else []
    sections = [
        Section("changes", "What changed", tuple(blocks), menu="Changes", data=[_data(s, found) for s in shifts])
    ]
    drawn = sorted((t for t in found.tracks if not t.lacking), key=lambda track: not track.shifts)
    if drawn:
        charts = Charts(tuple(_chart(i, track, found) for i, track in enumerate(drawn[:_MOST_CHARTS])))
        lead = "Each point is a report, in order of time. Dashed: the level. An upright line marks a change."
        figures = [{"name": t.name, "values": t.values, "levels": t.levels, "lacking": t.lacking} for t in found.tracks]
        sections.append(Section("figures", "Each figure", (charts,), lead=lead, menu="Figures", data=figures))
    reports = [{"name": e.name, "at": _iso(e.at_ms), "label": e.label} for e in found.entries]
    checks = [{"rule": outcome.rule, "met": outcome.met, "line": outcome.line} for outcome in outcomes]
    data = {"headline": headline(found), "reports": reports, "notes": found.notes, "checks": checks}
    return Page("History of load tests", _extent(found), tuple(sections), data)


def headline(found: History) -> str:
    """The latest change in a sentence, and how many more there are."""
    if _short(found):
        count = len(found.entries)
        return f"Cannot be judged: {count} report{'s' * (count != 1)} ({LEAST_VALUES} are needed)."
    if not found.shifts:
        return f"No change in {len(found.entries)} reports, {_extent(found)}."
    first, *others = found.shifts
    more = f" {len(others)} more change{'s' * (len(others) > 1)}." if others else ""
    return f"{sentence(first, found)}.{more}"


def sentence(shift: Shift, found: History) -> str:
    """A change in words: p95 of GET / rose by 31 % between 2026-03-02 and 2026-03-03 (from 41 to 54 ms)."""
    rose = "rose" if shift.after > shift.before else "fell"
    by = f" by {percent(abs(shift.relative))}" if shift.relative is not None else ""
    old, new = when(shift.last_old, found), when(shift.first_new, found)
    where = f"gradually, from {old} to {new}," if shift.gradual else f"between {old} and {new}"
    name = words(shift.name)
    # Names and percentiles stay as they are: server.pool.p95, p95.
    name = name[:1].upper() + name[1:] if name.partition(" ")[0].isalpha() else name
    levels = f"from {shown(shift.before, shift)} to {shown(shift.after, shift)} {unit_of(shift)}".rstrip()
    return f"{name} {rose}{by} {where} ({levels})"


def words(name: str) -> str:
    """What a figure is called in a sentence."""
    if name in _WORDS:
        return _WORDS[name]
    if name.startswith(names.CODES):
        return f"answers of status {name.removeprefix(names.CODES)}"
    if name.startswith(names.ERRORS):
        return f"requests that failed by {name.removeprefix(names.ERRORS)}"
    metric, _, row = name.rpartition(".")
    if metric == names.RESPONSE_TIME:
        return f"{row} of the response time"
    if metric.startswith(_ENDPOINT):
        return f"{row} of {metric.removeprefix(_ENDPOINT)}"
    if metric == "ab.percentile":
        return f"p{row} of the total time"
    return name


def _is_share(item: Shift | Track) -> bool:
    return compared_as_share(item.name, item.kind)


def unit_of(item: Shift | Track) -> str:
    """The unit of a figure: ms, per second, or none for shares, which are shown in per cent."""
    if _is_share(item):
        return ""
    if item.kind == "rate" or item.name == "ab.requests_per_second":
        return "per second"
    is_time = item.kind == "summary" and not item.name.endswith(".count")
    return "ms" if is_time or item.name.startswith(_AB_TIMES) else ""


def shown(value: float, item: Shift | Track) -> str:
    """A level as a reader sees it."""
    return percent(value) if _is_share(item) else amount(value)


def when(index: int, found: History) -> str:
    """The date of a report (UTC), with the time where another report is of that day too; with its commit or label."""
    entry = found.entries[index]
    day, time = _iso(entry.at_ms)[:10], _iso(entry.at_ms)[11:16]
    shared = sum(_iso(other.at_ms)[:10] == day for other in found.entries) > 1
    is_commit = len(entry.label) >= 12 and set(entry.label) <= set("0123456789abcdef")
    label = f" ({entry.label[: 7 if is_commit else 30]})" if entry.label else ""
    return f"{day} {time}{label}" if shared else f"{day}{label}"


def _iso(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def _short(found: History) -> bool:
    return len(found.entries) < LEAST_VALUES


def _extent(found: History) -> str:
    if not found.entries:
        return "no reports"
    return f"{when(0, found)} to {when(len(found.entries) - 1, found)}"


def _row(shift: Shift, found: History) -> tuple[Cell, ...]:
    relative = ABSENT if shift.relative is None else f"{shift.relative:+.1%}"
    unit = f" {unit_of(shift)}".rstrip()
    verdict = shift.verdict if shift.verdict in ("worse", "better") else "changed"
    return (
        Cell(words(shift.name)),
        Cell(when(shift.last_old, found), shift.last_old),
        Cell(when(shift.first_new, found), shift.first_new),
        Cell(f"{shown(shift.before, shift)}{unit}", shift.before),
        Cell(f"{shown(shift.after, shift)}{unit}", shift.after),
        Cell(relative, shift.relative),
        Cell(f"{verdict}, gradually" if shift.gradual else verdict, tone=_TONES.get(shift.verdict, "")),
        Cell(decimal(shift.p, 2), shift.p),
        Cell(", ".join(shift.besides)),
    )


def _data(shift: Shift, found: History) -> dict[str, Any]:
    old, new = (found.entries[i] for i in (shift.last_old, shift.first_new))
    return {
        "name": shift.name,
        "verdict": shift.verdict if shift.verdict in ("worse", "better") else "changed",
        "gradual": shift.gradual,
        "before": shift.before,
        "after": shift.after,
        "relative": shift.relative,
        "p": shift.p,
        "last_old": {"name": old.name, "at": _iso(old.at_ms), "label": old.label},
        "first_new": {"name": new.name, "at": _iso(new.at_ms), "label": new.label},
        "also_different": shift.besides,
        "sentence": sentence(shift, found),
    }


def _chart(number: int, track: Track, found: History) -> Chart:
    by = 100.0 if _is_share(track) else 1.0
    values = [(i, value) for i, value in enumerate(track.values) if value is not None]
    points = Series(
        "reports",
        tuple(float(i + 1) for i, _ in values),
        tuple(value * by for _, value in values),
        labels=tuple(when(i, found) for i, _ in values),
    )
    series = [points]
    at: list[float] = []
    levels: list[float | None] = []
    for i, _ in values:
        level = track.levels[i]
        if level is None:
            continue
        if levels and levels[-1] is not None and levels[-1] != level * by:
            at.append(at[-1])
            levels.append(None)
        at.append(float(i + 1))
        levels.append(level * by)
    if at:
        series.append(Series("level", tuple(at), tuple(levels), 1, "dash"))
    unit = "%" if _is_share(track) else unit_of(track)
    good = better(track.name, track.kind)
    return Chart(
        f"figure-{number}",
        words(track.name),
        "line",
        Axis("report"),
        Axis(", ".join(filter(None, (unit, f"{good} is better" if good else ""))), unit),
        tuple(series),
        marks=tuple(shift.first_new + 0.5 for shift in track.shifts if not shift.gradual),
    )
