"""Benchmarks find their places in the documentation, and put their figures there."""

import re
import shutil

import pytest

from benchmarks import league, pages
from loadgen.lab.league import POOLS
from tests.support.paths import ROOT

MARKS = ("benchmarks/league.py", "benchmarks/pool.py", "benchmarks/pool.py --url")


@pytest.fixture
def docs(tmp_path, monkeypatch):
    shutil.copy(pages.DOCS / "fair-pool.md", tmp_path)
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    return tmp_path / "fair-pool.md"


@pytest.mark.parametrize("mark", MARKS)
def test_figures_replace_those_of_before_and_nothing_else(docs, mark):
    before = docs.read_text()
    pages.put("fair-pool.md", mark, "| first |")
    pages.put("fair-pool.md", mark, "| second |")
    above, _, rest = before.partition(f"<!-- {mark} -->\n")
    below = rest.partition(f"<!-- end of {mark} -->\n")[2]
    assert docs.read_text() == f"{above}<!-- {mark} -->\n\n| second |\n\n<!-- end of {mark} -->\n{below}"


def test_a_page_without_the_place_is_left_alone(docs):
    before = docs.read_text()
    with pytest.raises(ValueError, match="must stand there once each"):
        pages.put("fair-pool.md", "benchmarks/nothing.py", "text")
    assert docs.read_text() == before


def test_the_leagues_tables_say_how_they_were_measured():
    figures = {("threads", "free", name): {"free_us": 2.0} for name in POOLS}
    text = "\n\n".join(league.tables(figures, 2, "a machine"))
    assert text.startswith("Medians of 2 rounds on a machine.\n\n### In threads\n\n| figure |")
    assert "### In greenlets" not in text
    assert text.count("goal: FairPool reached") == 1


def test_the_page_has_the_headings_of_the_tables_that_the_benchmarks_write():
    page = (pages.DOCS / "fair-pool.md").read_text()
    figures = {("threads", "free", name): {"free_us": 2.0} for name in POOLS}
    [heading] = [line for text in league.tables(figures, 2, "") for line in text.splitlines() if "| figure" in line]
    assert page.count(heading) == 4
    # It patches the process where it is imported, so its text is looked at.
    [heading] = re.findall(r'"(\| figure \|[^"]+)"', (ROOT / "benchmarks" / "pool.py").read_text())
    assert page.count(heading) == 2
