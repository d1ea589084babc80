"""QueuePool, FairPool and psycopg_pool side by side on an embedded PostgreSQL, each figure of FairPool with its bar.

python -m benchmarks.league [--rounds 5] [--mode threads] [--brief] [--long] [--style markdown] [--picture docs/images/league.svg]

A round takes about six minutes: `--rounds 1` for every figure once, `--brief --rounds 3` for medians of the main ones in eight.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from db.embedded import temporary_postgres
from loadgen.environment import environment
from loadgen.lab import league
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
    given = parser.parse_args()
    turns = (league.BRIEF_TURNS if given.brief else league.TURNS) + (league.LONG_TURNS if given.long else ())
    modes = (given.mode,) if given.mode else league.MODES
    with temporary_postgres(settings={"fsync": "off"}) as postgres:
        figures = league.run(postgres.url, given.rounds, lambda line: print(line, file=sys.stderr), turns, modes)
    machine = environment()
    print(written(league.page(figures, f"{machine.get('cpu', '')}, Python {sys.version.split()[0]}"), given.style))
    if given.picture and (charts := league.charts(figures)):
        given.picture.write_text(picture(charts))


if __name__ == "__main__":
    main()
