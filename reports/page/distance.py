"""The lab's D.rtt as a section of its page: what pooling gains, by the distance to the database. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.blocks import ABSENT, Axis, Cell, Chart, Charts, Column, Section, Series, Table, Text, amount_cell, percent
from reports.page.charts import RATE, TIME

_FAR = Axis("round trip to the database, ms", "ms")
_DRAWN = (
    ("good_per_second", "Good answers per second", RATE),
    ("p50_ms", "Median time", TIME),
    ("p99_ms", "p99", TIME),
)


def distance_section(document: Mapping[str, Any]) -> Section | None:
    """The section on the lab's `summary.json` (as decoded); None where D.rtt was not run."""
    found = document.get("distance")
    if not found or not found.get("cells"):
        return None
    crossing, cells = found["crossing"], found["cells"]
    said = Text(
        f"A round trip on an open connection took {crossing['direct_ms']:.3f} ms to the database itself;"
        f" the process that stands for the distance adds {crossing['added_ms']:.3f} ms of its own to every figure here."
    )
    return Section("distance", "D.rtt: distance to the database", (said, Charts(distance_charts(document)), _table(cells)),
                   menu="Distance")  # fmt: skip


def distance_charts(document: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Rates and times against the distance, a line for each arrangement; empty where D.rtt was not run."""
    found = document.get("distance")
    return tuple(_charts(found["cells"])) if found else ()


def _charts(cells: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    for users in dict.fromkeys(cell["users"] for cell in cells):
        for key, title, axis in _DRAWN:
            series = []
            for colour, name in enumerate(dict.fromkeys(cell["arrangement"] for cell in cells)):
                line = [c for c in cells if c["users"] == users and c["arrangement"] == name]
                far = tuple(float(c["round_trip_ms"]) for c in line)
                series.append(Series(name, far, tuple(c[key] for c in line), colour))
            yield Chart(f"distance-{users}-{key}", f"{title}, {_people(users)}", "line", _FAR, axis, tuple(series))


def _table(cells: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            Cell(f"{_people(cell['users'])}, {cell['round_trip_ms']:g} ms, {cell['arrangement']}"),
            amount_cell(cell["good_per_second"]),
            Cell(ABSENT if cell["gain"] is None else f"{cell['gain']:.2f}", cell["gain"]),
            amount_cell(cell["p50_ms"]),
            amount_cell(cell["p99_ms"]),
            Cell(percent(cell["failed_share"]), cell["failed_share"], "bad" if cell["failed_share"] else ""),
        )
        for cell in cells
    )
    columns = (Column("users, round trip, arrangement"), Column("good/s", "number"), Column("times null's", "number"),
               Column("p50, ms", "number"), Column("p99, ms", "number"), Column("failed", "number"))  # fmt: skip
    return Table("distance-cells", "Every arrangement at every distance", columns, rows, tools=True)


def _people(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users"
