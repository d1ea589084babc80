"""A sweep of pool sizes as a page: the answer, and throughput, p99, pool wait and database CPU against size. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Facts,
    Page,
    Section,
    Series,
    Table,
    Text,
    amount,
    amount_cell,
    number_cell,
    percent,
)
from reports.page.charts import RATE, TIME
from reports.page.page import render
from reports.page.sections import flattened

_SIZE = Axis("connections kept by each server", "")
_Row = Mapping[str, Any]
_DRAWN: tuple[tuple[str, str, Axis, Callable[[_Row], float | None]], ...] = (
    ("good", "Good answers per second", RATE, lambda row: row["good_per_s"]["value"]),
    ("p99", "p99 of response times", TIME, lambda row: row["p99_ms"] and row["p99_ms"]["value"]),
    ("wait", "p99 of waiting for a connection", TIME, lambda row: row["wait_p99_ms"]),
    ("cpu", "Database CPU", Axis("per cent of a core", "%"),
     lambda row: None if row["database_cpu"] is None else row["database_cpu"] * 100),
)  # fmt: skip


def sweep_page(document: Mapping[str, Any]) -> str:
    """The page on a `sweep.json` (as decoded)."""
    curves = [curve for curve in document["curves"] if curve["sizes"]]
    blocks: list[Block] = []
    if document["partial"]:
        blocks.append(Text("The sweep was interrupted; what follows was measured until then.", "warn"))
    blocks += [Text(curve["sentence"], "good" if curve["settled"] else "warn") for curve in document["curves"]]
    blocks += [Text(str(note)) for note in document["notes"]]
    charts = Charts(sweep_charts(document))
    machine = Facts("Machine and versions", tuple(flattened(document["environment"])))
    sections = (
        Section("answer", "The answer", tuple(blocks), menu="Answer"),
        Section("curves", "Against pool size", (charts,), menu="Charts"),
        *(Section(f"t{i}", f"{curve['rate']:g} users/s", (_table(i, curve),), 3) for i, curve in enumerate(curves)),
        Section("machine", "Environment", (machine,), menu="Environment"),
    )
    return render(Page("How big should the pool be?", f"{document['subject']}, {document['strategy']}", sections))


def sweep_charts(document: Mapping[str, Any]) -> tuple[Chart, ...]:
    """What was measured against pool size, a chart for each figure and a line for each rate."""
    return tuple(_charts([curve for curve in document["curves"] if curve["sizes"]]))


def _charts(curves: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    for key, title, axis, figure in _DRAWN:
        series = tuple(
            Series(
                f"{curve['rate']:g} users/s",
                tuple(float(row["size"]) for row in curve["sizes"]),
                tuple(figure(row) for row in curve["sizes"]),
                colour,
            )
            for colour, curve in enumerate(curves)
        )
        if any(y is not None for line in series for y in line.y):
            yield Chart(key, title, "line", _SIZE, axis, series)


def _table(number: int, curve: Mapping[str, Any]) -> Table:
    answer = curve["answer"]["size"] if curve["answer"] else None
    rows = tuple(
        (
            Cell(str(row["size"]), row["size"], "good" if row["size"] == answer else ""),
            number_cell(row["connections"]),
            number_cell(row["runs"]),
            _interval(row["good_per_s"]),
            Cell(percent(row["failed_share"]), row["failed_share"], "bad" if row["failed_share"] else ""),
            _interval(row["p99_ms"]),
            amount_cell(row["wait_p99_ms"]),
            Cell(percent(row["database_cpu"]), row["database_cpu"]),
            Cell(percent(row["servers_cpu"]), row["servers_cpu"]),
            number_cell(row["needed_mb"]),
        )
        for row in curve["sizes"]
    )
    headings = ("connections", "runs", "good/s", "failed", "p99, ms", "pool wait p99, ms", "database CPU", "servers' CPU",
                "memory, MB")  # fmt: skip
    columns = (Column("pool size", "mark"), *(Column(heading, "number") for heading in headings))
    note = "Intervals are 95 % ones. CPU is in shares of one core."
    return Table(f"sizes-{number}", f"Each size at {curve['rate']:g} users/s", columns, rows, note)


def _interval(interval: Mapping[str, float] | None) -> Cell:
    if interval is None:
        return Cell(ABSENT)
    return Cell(
        f"{amount(interval['value'])} ({amount(interval['low'])} to {amount(interval['high'])})", interval["value"]
    )
