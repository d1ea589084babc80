"""The cloud-sized plan: its tables are what the script computes, its costs what the other documents say."""

import re

import pytest

from benchmarks import scale
from tests.support.paths import ROOT


def test_the_document_says_what_the_script_computes():
    text = scale.DOCUMENT.read_text()
    assert scale.filled(text) == text, "run: python -m benchmarks.scale"


def test_the_costs_are_those_of_the_lab_and_the_benchmarks():
    lines = [
        [cell.strip() for cell in line.split("|")] for line in (ROOT / "docs/lab-example.md").read_text().splitlines()
    ]
    at = next(i for i, cells in enumerate(lines) if "A.pool10.fair" in cells)
    headings = next(cells for cells in reversed(lines[:at]) if "database CPU" in cells)
    row = dict(zip(headings, lines[at], strict=True))
    rate = float(row.get("good answers/s") or row["good/s"])
    database, servers = (float(row[name].strip(" %")) for name in ("database CPU", "servers' CPU"))
    assert scale.M["app_us"] == pytest.approx(servers / 100 / rate * 1e6, rel=0.01)
    assert scale.M["db_us"] == pytest.approx(database / 100 / rate * 1e6, rel=0.01)
    readme = (ROOT / "benchmarks/README.md").read_text()
    assert scale.M["kept_us"] == float(re.search(r"DB_POOL=fair \|[^|]*\|[^|]*\| (\d+)", readme)[1])
    assert scale.M["cached_us"] == pytest.approx(1e6 / float(re.search(r"`/live`\): (\d+)", readme)[1]), abs=1)


def test_needs_grow_with_the_rate_and_no_design_needs_more_than_the_one_before():
    for design in scale.DESIGNS:
        assert design.app_cores(2000) <= 2 * design.app_cores(1000) and design.connections(2000) >= design.connections(
            1000
        )
    limits = [design.breaks_at()[0] for design in scale.DESIGNS]
    assert limits == sorted(limits)


def test_a_design_breaks_where_its_fullest_part_is_full():
    for design in scale.DESIGNS:
        rate, part = design.breaks_at()
        assert max(load(rate) for load in design.loads().values()) <= 1
        assert design.loads()[part](rate + 200) > 1


def test_little_says_how_many_connections_are_used():
    used = scale.POOLED.connections(10_000)
    assert used == pytest.approx(10_000 * scale.CLICKS * scale.M["hold_ms"] / 1000 / scale.A["busy"], abs=1)
