"""What D.rtt found, as values for JSON and as Markdown: every arrangement beside a connection per request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadgen.lab.evidence import Crossing, Distance
from reports.formats.markdown import table

TITLE = "D.rtt: what pooling gains, by the distance to the database"


def to_document(crossing: Crossing, cells: Sequence[Distance]) -> dict[str, Any]:
    """Times in ms. `gain`: good answers a second, as a multiple of those of a connection per request."""
    return {
        "crossing": crossing_document(crossing),
        "cells": [
            {
                "users": cell.users,
                "round_trip_ms": cell.round_trip_ms,
                "arrangement": cell.arrangement,
                "good_per_second": cell.good_per_second,
                "gain": _gain(cell, cells),
                "p50_ms": cell.total_ms.quantile(0.5),
                "p99_ms": cell.total_ms.quantile(0.99),
                "failed_share": cell.failed_share,
            }
            for cell in cells
        ],
    }


def crossing_document(crossing: Crossing) -> dict[str, Any]:
    """What the delay was measured to be."""
    return {
        "direct_ms": crossing.direct_ms,
        "added_ms": crossing.added_ms,
        "through_ms": [{"asked_ms": asked, "measured_ms": ms} for asked, ms in crossing.through_ms.items()],
    }


def to_markdown(crossing: Crossing, cells: Sequence[Distance]) -> str:
    """A table for each number of users: a row for each arrangement, a column for each distance."""
    parts = [f"{crossing_text(crossing)}\n"]
    for users in dict.fromkeys(cell.users for cell in cells):
        some = [cell for cell in cells if cell.users == users]
        far = sorted({cell.round_trip_ms for cell in some})
        rows = [
            (name, *(_cell_text(_find(some, name, ms), some) for ms in far))
            for name in dict.fromkeys(cell.arrangement for cell in some)
        ]
        people = "1 user" if users == 1 else f"{users} users at once"
        parts.append(f"{people}, round trip to the database:\n\n{table(('', *(f'{ms:g} ms' for ms in far)), rows)}")
    parts.append(
        "Good answers a second (as a multiple of `null`'s at that distance), p50 / p99 in ms from the start of a request to its"
        " last byte. GET /health, one round trip for a connection that is open; one server; all took turns in one session.\n"
    )
    return "\n".join(parts)


def crossing_text(crossing: Crossing) -> str:
    """One paragraph: what the delay process adds of its own, and what each delay asked for came to."""
    asked = ", ".join(f"{way:g} ms: {ms:.3f} ms" for way, ms in crossing.through_ms.items() if way)
    return (
        f"`select 1` on an open connection took {crossing.direct_ms:.3f} ms to the database itself, and"
        f" {crossing.through_ms[0.0]:.3f} ms through the delay process with no delay: {crossing.added_ms:.3f} ms are its own"
        f" and in every figure here. With a delay ({asked}); medians, idle."
    )


def _cell_text(cell: Distance | None, cells: Sequence[Distance]) -> str:
    if cell is None:
        return "-"
    gain = _gain(cell, cells)
    failed = f", {cell.failed_share:.1%} failed" if cell.failed_share else ""
    times = f"{cell.total_ms.quantile(0.5):.1f} / {cell.total_ms.quantile(0.99):.1f}"
    return f"{cell.good_per_second:.0f} ({'-' if gain is None else f'{gain:.1f}x'}), {times}{failed}"


def _gain(cell: Distance, cells: Sequence[Distance]) -> float | None:
    null = _find([c for c in cells if c.users == cell.users], "null", cell.round_trip_ms)
    return cell.good_per_second / null.good_per_second if null is not None and null.good_per_second else None


def _find(cells: Sequence[Distance], arrangement: str, round_trip_ms: float) -> Distance | None:
    return next((c for c in cells if (c.arrangement, c.round_trip_ms) == (arrangement, round_trip_ms)), None)
