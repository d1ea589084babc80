"""The league: QueuePool, FairPool and psycopg_pool side by side, in greenlets and in threads, each figure with its limit.

Each measurement is a turn in a process of its own (`league_turn`). In each round the three pools run one measurement
right after each other, in random order, so that other work of the machine affects all alike; figures are medians.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

from loadgen.lab.turn_process import figures_of
from reports.blocks import ABSENT, Axis, Cell, Chart, Charts, Column, Page, Section, Series, Table, Text, Tone, decimal

ID = "C.league"
POOLS = {"queue": "QueuePool", "fair": "FairPool", "psycopg_pool": "psycopg_pool"}
MODES = ("threads", "greenlets")
_LONGEST_TURN_S = 90
NOTE = (
    "goal: FairPool reached what it aims at; met: it kept the limit set beforehand. 100 borrowers on 10 connections, queries"
    " of 10 ms. Spike: 50 borrowers at once, 5 idle connections of 50, opening one"
    " takes 150 ms more. Goodput: answers within nine holds and a half, by what the connections could serve."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One measurement of `league_turn` and its arguments; `key` tells it from others of the same kind."""

    key: str
    measure: str
    arguments: tuple[float, ...]
    expected_s: float


TURNS = (
    Turn("fairness", "fairness", (3.0,), 4),
    Turn("free", "free", (), 2),
    Turn("spike", "spike", (0.002,), 3),
    Turn("slow-spike", "spike", (1.0,), 6),
    *(
        Turn(
            f"overload {decimal(factor)}x {hold_s * 1e3:.0f} ms", "overload", (factor, hold_s, max(3.0, 20 * hold_s)), 6
        )
        for hold_s in (0.005, 0.1)
        for factor in (1.5, 3.0, 10.0)
    ),
    Turn("outage", "outage", (2.0,), 7),
)
BRIEF_TURNS = (
    Turn("fairness", "fairness", (2.0,), 3),
    *TURNS[1:4],
    Turn("overload 3x 100 ms", "overload", (3.0, 0.1, 3.0), 5),
    Turn("outage", "outage", (1.0,), 6),
)
"""Those of `loadgen lab` without --full."""

LONG_TURNS = tuple(Turn(f"overload {decimal(f)}x 1000 ms", "overload", (f, 1.0, 20.0), 32) for f in (1.5, 3.0, 10.0))
"""Overload with holds of a second, which takes minutes."""

Figures = Mapping[tuple[str, str, str], Mapping[str, float]]
"""Medians by mode, key of the turn, and pool; then by name."""


def pools() -> tuple[str, ...]:
    """The pools that can be measured here; none if psycopg 3 is missing, which all of them use in the league."""
    if find_spec("psycopg") is None:
        return ()
    return tuple(name for name in POOLS if name != "psycopg_pool" or find_spec("psycopg_pool") is not None)


def expected_s(rounds: int, turns: Sequence[Turn], modes: Sequence[str] = MODES) -> float:
    """About how long `run` takes, in s."""
    return rounds * len(modes) * len(pools()) * sum(turn.expected_s for turn in turns)


def run(
    url: str, rounds: int, say: Callable[[str], None], turns: Sequence[Turn] = TURNS, modes: Sequence[str] = MODES
) -> Figures:
    """Measure all turns on the database at `url`; a turn that fails is reported through `say` and has no figures."""
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    rng = random.Random()
    for number in range(rounds):
        order = [(mode, turn) for mode in modes for turn in turns]
        rng.shuffle(order)
        for mode, turn in order:
            names = list(pools())
            rng.shuffle(names)
            for name in names:
                settings = {
                    "pool": name,
                    "mode": mode,
                    "measure": turn.measure,
                    "url": url,
                    "arguments": turn.arguments,
                }
                figures = figures_of("loadgen.lab.league_turn", settings, _LONGEST_TURN_S)
                if isinstance(figures, str):
                    say(f"{POOLS[name]}, {mode}, {turn.key}: {figures}")
                else:
                    found.setdefault((mode, turn.key, name), []).append(figures)
        say(f"round {number + 1} of {rounds} done")
    return {place: {name: median(each[name] for each in runs) for name in runs[0]} for place, runs in found.items()}


@dataclass(frozen=True, slots=True)
class Judged:
    """A figure that FairPool is judged by: its own value, or its ratio to `beside`'s; at most `limit`, or at least."""

    key: str
    name: str
    title: str
    limit: float
    goal: float
    beside: str | None = None
    at_least: bool = False
    unit: str = ""


def judged_figures(mode: str, keys: tuple[str, ...]) -> Iterator[Judged]:
    """The figures with a limit, in the order of the table."""
    yield Judged("fairness", "jain", "Jain's index", 0.998, 0.9999, at_least=True)
    yield Judged("fairness", "spread", "p99/p50 of wait", 1.1, 1.0, "psycopg_pool")
    yield Judged("fairness", "max_ms", "longest wait", 1.1, 1.0, "psycopg_pool", unit=" ms")
    yield Judged("fairness", "unserved", "borrowers never served", 0, 0)
    yield Judged("fairness", "cpu_us", "CPU per loan", 1.2, 0.8, "psycopg_pool", unit=" us")
    limit, goal = (0.6, 0.45) if mode == "greenlets" else (0.8, 0.6)
    yield Judged("free", "free_us", "connect() + close(), nobody waits", limit, goal, "queue", unit=" us")
    yield Judged("spike", "spike_ms", "spike, queries of 2 ms: time", 1.2, 1.0, "psycopg_pool", unit=" ms")
    yield Judged("spike", "opened", "spike, queries of 2 ms: opened", 5, 2)
    yield Judged("slow-spike", "spike_ms", "spike, queries of 1 s: time", 1.2, 1.0, "psycopg_pool", unit=" ms")
    for key in keys:
        if key.startswith("overload"):
            yield Judged(key, "goodput", f"{key}: goodput", 0.9, 0.95, at_least=True)
            yield Judged(key, "late", f"{key}: late", 0.01, 0.0)
            yield Judged(key, "refusal_ms", f"{key}: time to a refusal", 5, 1, unit=" ms")
    yield Judged("outage", "attempts_per_s", "attempts a second while refused", 50, 10)
    yield Judged("outage", "recovery_s", "recovery after the return", 0.5, 0.1, unit=" s")


def page(figures: Figures, environment: str) -> Page:
    """The league's table, a section for each mode, as a result to be written."""
    found = tuple(sections(figures))
    if not found:
        why = "psycopg 3 is not installed" if not pools() else "nothing was measured"
        found = (Section("league", "The league", (Text(f"There are no figures: {why}."),)),)
    return Page("The league of pools", environment, found)


def sections(figures: Figures) -> Iterator[Section]:
    """A section for each mode that was measured."""
    drawn = charts(figures)
    for mode in MODES:
        if _keys(mode, figures):
            mine = tuple(chart for chart in drawn if chart.id == f"league-{mode}")
            data = [
                {"turn": key, "pool": POOLS[name], **values}
                for (each, key, name), values in figures.items()
                if each == mode
            ]
            blocks = (table(mode, figures), *((Charts(mine),) if mine else ()))
            yield Section(
                f"league-{mode}", f"{ID}: three pools side by side, in {mode}", blocks, menu=f"{ID} {mode}", data=data
            )


def table(mode: str, figures: Figures) -> Table:
    """All figures of one mode with their limits."""
    keys = _keys(mode, figures)
    rows = tuple(_row(figure, mode, figures) for figure in judged_figures(mode, keys) if figure.key in keys)
    note = (
        NOTE if any(place[2] == "psycopg_pool" for place in figures) else f"{NOTE} psycopg_pool is not installed here."
    )
    columns = (
        Column("figure"),
        *(Column(title, "number") for title in POOLS.values()),
        Column("ratio", "number"),
        Column("limit"),
        Column("verdict", "mark"),
    )
    quiet = "of the figures, the same for all pools"
    return Table(f"league-{mode}-table", f"Medians, in {mode}", columns, rows, note=note, quiet=quiet)


def limits_kept(figures: Figures) -> tuple[int, int]:
    """How many of FairPool's figures keep their limits, and how many were measured, in all modes."""
    signs = [row[-1].text for mode in MODES for row in table(mode, figures).rows]
    return sum(sign in ("goal", "met") for sign in signs), sum(sign != ABSENT for sign in signs)


def charts(figures: Figures) -> tuple[Chart, ...]:
    """FairPool's ratio to its peer, for each figure that has one, by mode."""
    drawn = []
    for mode in MODES:
        compared = [
            figure
            for figure in judged_figures(mode, _keys(mode, figures))
            if figure.beside and _ratio(figure, mode, figures) is not None
        ]
        if compared:
            names = tuple(f"{figure.title} (limit {decimal(figure.limit)})" for figure in compared)
            ratios = tuple(_ratio(figure, mode, figures) for figure in compared)
            series = Series("FairPool / its peer", tuple(map(float, range(len(ratios)))), ratios)
            drawn.append(
                Chart(f"league-{mode}", f"FairPool beside its peer, in {mode}", "hbar", Axis("ratio, smaller is better"),
                      Axis("", "", "category", names), (series,))
            )  # fmt: skip
    return tuple(drawn)


def _keys(mode: str, figures: Figures) -> tuple[str, ...]:
    return tuple(sorted({key for each, key, _ in figures if each == mode}))


def _value(figure: Judged, mode: str, name: str, figures: Figures) -> float | None:
    return figures.get((mode, figure.key, name), {}).get(figure.name)


def _ratio(figure: Judged, mode: str, figures: Figures) -> float | None:
    ours = _value(figure, mode, "fair", figures)
    theirs = None if figure.beside is None else _value(figure, mode, figure.beside, figures)
    return None if ours is None or not theirs else ours / theirs


def _row(figure: Judged, mode: str, figures: Figures) -> tuple[Cell, ...]:
    ratio = _ratio(figure, mode, figures)
    value = ratio if figure.beside else _value(figure, mode, "fair", figures)
    sign = "at least" if figure.at_least else "at most"
    verdict, tone = _verdict(value, figure)
    against = f" x {POOLS[figure.beside]}" if figure.beside else figure.unit
    shown = tuple(_cell(_value(figure, mode, name, figures), figure.unit) for name in POOLS)
    if verdict != "missed" and len({cell.text for cell in shown} - {ABSENT}) == 1:
        tone = ""
    return (
        Cell(figure.title),
        *shown,
        _cell(ratio, ""),
        Cell(f"{sign} {decimal(figure.limit)}{against}"),
        Cell(verdict, tone=tone),
    )


def _verdict(value: float | None, figure: Judged) -> tuple[str, Tone]:
    def met(limit: float) -> bool:
        return value is not None and (value >= limit if figure.at_least else value <= limit)

    if value is None:
        return ABSENT, ""
    return ("goal", "good") if met(figure.goal) else ("met", "good") if met(figure.limit) else ("missed", "bad")


def _cell(value: float | None, unit: str) -> Cell:
    if value is None:
        return Cell(ABSENT)
    shown = f"{value:,.0f}" if abs(value) >= 1000 else decimal(value, 4) if abs(value) >= 1e-3 else f"{value:.4f}"
    return Cell(f"{shown}{unit}", value)
