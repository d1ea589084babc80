"""What `--only` can name: the experiments of the two sources, the groups, and the publications that are data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from loadgen.lab import distance, fairness, league
from loadgen.lab.experiments import Experiment, experiments, more_experiments
from loadgen.lab.findings import PUBLICATIONS
from loadgen.lab.publication_file import GROUP, known
from reports.blocks import Cell, Column, Page, Section, Table

_GROUPS = {
    "P": "loads through PgBouncer and direct",
    "M": "the nested object from a database in 512 MB",
}
_BY_NAME = {
    "C": "pools under saturation",
    fairness.ID: "who waits, and for how long: 10 connections, more users than connections",
    league.ID: "three pools side by side, in threads and in greenlets",
    "D": "distance",
    distance.ID: "what pooling gains, by the distance to the database",
}


def catalogue(servers: int = 4) -> Page:
    """All names, one line each."""
    rows = [*_rows(experiments(servers), PUBLICATIONS), *_BY_NAME.items(), *_rows(more_experiments(servers), _GROUPS)]
    rows.append((GROUP, "all of the following"))
    rows += [(name, f"{publication.title} ({publication.source.year})") for name, publication in known().items()]
    columns = Column("--only"), Column("what it runs")
    cells = tuple((Cell(name), Cell(what)) for name, what in rows)
    data = [{"name": name, "runs": what} for name, what in rows]
    section = Section("names", "Experiments, groups and publications", (Table("names", "", columns, cells),), data=data)
    return Page("What loadgen lab can run", "", (section,))


def _rows(some: Iterable[Experiment], groups: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The groups, and under each its experiments."""
    for letter, words in groups.items():
        yield letter, words
        yield from ((e.id, e.title) for e in some if e.id.startswith(f"{letter}."))
