"""QueuePool, FairPool and psycopg_pool side by side on an embedded PostgreSQL, each figure of FairPool with its limit.

python -m benchmarks.league [--rounds 5] [--mode threads] [--brief] [--long] [--style markdown] [--write]

A round takes about six minutes: `--rounds 1` for every figure once, `--brief --rounds 3` for medians of the main ones in eight.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.pages import DOCS, put
from db.embedded import temporary_postgres
from loadgen.environment import environment
from loadgen.lab import league
from reports.blocks import Page, Section
from reports.page.picture import picture
from reports.writers.output import STYLES, written


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which medians are shown (default %(default)s)"
    )
    parser.add_argument("--mode", choices=league.MODES, help="only this one")
    parser.add_argument("--brief", action="store_true", help="only one turn of overload, and shorter ones")
    parser.add_argument("--long", action="store_true", help="overload with holds of a second, too")
    parser.add_argument("--style", choices=STYLES, default="markdown")
    parser.add_argument("--picture", type=Path, help="file for the picture, SVG")
    parser.add_argument("--write", action="store_true", help="Put tables and picture into docs/fair-pool.md.")
    given = parser.parse_args()
    turns = (league.BRIEF_TURNS if given.brief else league.TURNS) + (league.LONG_TURNS if given.long else ())
    modes = (given.mode,) if given.mode else league.MODES
    with temporary_postgres(settings={"fsync": "off"}) as postgres:
        figures = league.run(postgres.url, given.rounds, lambda line: print(line, file=sys.stderr), turns, modes)
    machine = conditions()
    print(written(league.page(figures, machine), given.style))
    drawn = given.picture or (DOCS / "images" / "league.svg" if given.write else None)
    if drawn and (charts := league.charts(figures)):
        drawn.write_text(picture(charts))
    if given.write:
        put("fair-pool.md", "benchmarks/league.py", "\n\n".join(tables(figures, given.rounds, machine)))


def conditions() -> str:
    """The machine, the version of Python and the date, as a table's caption gives them."""
    return f"{environment().get('cpu', '')}, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}"


def tables(figures: league.Figures, rounds: int, machine: str) -> Iterator[str]:
    """The parts of the page in the documentation, as Markdown: a table for each mode, then its terms."""
    yield f"Medians of {rounds} rounds on {machine}."
    for mode in league.MODES:
        if any(place[0] == mode for place in figures):
            table = replace(league.table(mode, figures), note="")
            yield f"### In {mode}"
            yield written(Page("", "", (Section("", "", (table,)),)), "markdown").strip()
    yield league.NOTE


if __name__ == "__main__":
    main()
