"""What D.rtt found as blocks: what pooling gains, by the distance to the database. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from loadgen.lab.evidence import Crossing, Distance
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Section,
    Series,
    Table,
    Text,
    amount_cell,
    decimal,
    share_cell,
)
from reports.page.charts import RATE, TIME

_FAR = Axis("round trip to the database, ms", "ms")
_DRAWN: tuple[tuple[str, str, Axis, Callable[[Distance], float]], ...] = (
    ("rate", "Good answers per second", RATE, lambda cell: cell.good_per_second),
    ("p50", "Median time", TIME, lambda cell: cell.total_ms.quantile(0.5)),
    ("p99", "p99", TIME, lambda cell: cell.total_ms.quantile(0.99)),
)
_COLUMNS = (
    Column("round trip"),
    Column("arrangement"),
    Column("good answers/s", "number"),
    Column("times those of a connection per request", "number"),
    Column("good answers/s, lowest round", "number"),
    Column("highest round", "number"),
    Column("p50, ms", "number"),
    Column("p99, ms", "number"),
    Column("failed", "number"),
)
_NOTE = (
    "Good answers a second of all rounds together, also as a multiple of a connection per request (null) at the same distance,"
    " and of the lowest and the highest round; times in ms from the start of a request to its last byte. GET /health, one round"
    " trip for a connection that is open; one server; all took turns in one session."
)


def distance_section(crossing: Crossing, cells: Sequence[Distance]) -> Section:
    """Every arrangement beside a connection per request, at every distance: a table for each number of users."""
    blocks: list[Block] = [Text(crossing_text(crossing))]
    if cells:
        blocks.append(Charts(distance_charts(cells)))
    for users in dict.fromkeys(cell.users for cell in cells):
        some = [cell for cell in cells if cell.users == users]
        rows = tuple(_row(cell, cells) for cell in sorted(some, key=lambda cell: cell.round_trip_ms))
        blocks.append(Table(f"distance-{users}", _people(users).capitalize(), _COLUMNS, rows, tools=True))
    if cells:
        blocks.append(Text(_NOTE))
    data = {"crossing": crossing_values(crossing), "cells": [_values(cell, cells) for cell in cells]}
    return Section(
        "distance",
        "D.rtt: what pooling gains, by the distance to the database",
        tuple(blocks),
        menu="Distance",
        data=data,
    )


def distance_charts(cells: Sequence[Distance]) -> tuple[Chart, ...]:
    """Rates and times against the distance, a line for each arrangement; empty where D.rtt was not run."""
    return tuple(_charts(cells))


def crossing_values(crossing: Crossing) -> dict[str, Any]:
    """The measured delays, for JSON; times in ms."""
    return {
        "direct_ms": crossing.direct_ms,
        "added_ms": crossing.added_ms,
        "through_ms": [{"asked_ms": asked, "measured_ms": ms} for asked, ms in crossing.through_ms.items()],
    }


def crossing_text(crossing: Crossing) -> str:
    """One paragraph: the time that the delay process itself adds, and the measured round trip of each delay."""
    asked = ", ".join(f"{decimal(way)} ms: {ms:.3f} ms" for way, ms in crossing.through_ms.items() if way)
    return (
        f"`select 1` on an open connection took {crossing.direct_ms:.3f} ms to the database itself, and"
        f" {crossing.through_ms[0.0]:.3f} ms through the delay process with no delay: {crossing.added_ms:.3f} ms are its own"
        f" and in every figure here. With a delay ({asked}); medians, idle."
    )


def _charts(cells: Sequence[Distance]) -> Iterator[Chart]:
    for users in dict.fromkeys(cell.users for cell in cells):
        for key, title, axis, figure in _DRAWN:
            series = []
            for colour, name in enumerate(dict.fromkeys(cell.arrangement for cell in cells)):
                line = [cell for cell in cells if cell.users == users and cell.arrangement == name]
                far = tuple(cell.round_trip_ms for cell in line)
                series.append(Series(name, far, tuple(map(figure, line)), colour))
            yield Chart(f"distance-{users}-{key}", f"{title}, {_people(users)}", "line", _FAR, axis, tuple(series))


def _row(cell: Distance, cells: Sequence[Distance]) -> tuple[Cell, ...]:
    gain, spread = distance_gain(cell, cells), cell.spread
    return (
        Cell(f"{decimal(cell.round_trip_ms)} ms"),
        Cell(cell.arrangement),
        amount_cell(cell.good_per_second),
        Cell(ABSENT if gain is None else f"{gain:.1f}", gain),
        *((Cell(ABSENT),) * 2 if spread is None else map(amount_cell, (spread.low, spread.high))),
        amount_cell(cell.total_ms.quantile(0.5)),
        amount_cell(cell.total_ms.quantile(0.99)),
        share_cell(cell.failed_share, bad=True),
    )


def _values(cell: Distance, cells: Sequence[Distance]) -> Mapping[str, Any]:
    return {
        "users": cell.users,
        "round_trip_ms": cell.round_trip_ms,
        "arrangement": cell.arrangement,
        "good_per_second": cell.good_per_second,
        "rounds": [{"good_per_second": rate} for rate in cell.rounds],
        "gain": distance_gain(cell, cells),
        "p50_ms": cell.total_ms.quantile(0.5),
        "p99_ms": cell.total_ms.quantile(0.99),
        "failed_share": cell.failed_share,
    }


def distance_gain(cell: Distance, cells: Sequence[Distance]) -> float | None:
    """Good answers a second as a multiple of those of a connection per request, with the same users and distance."""
    like = (cell.users, cell.round_trip_ms, "null")
    null = next((c for c in cells if (c.users, c.round_trip_ms, c.arrangement) == like), None)
    return cell.good_per_second / null.good_per_second if null is not None and null.good_per_second else None


def _people(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users at once"
