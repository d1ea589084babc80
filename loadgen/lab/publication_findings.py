"""Makes the report's section on a publication: its source, what was published, and what was measured. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.lab.claim import BUSY_SHARE
from loadgen.lab.evidence import Evidence, Measurement
from loadgen.lab.publication import SHARES, Publication, PublicationExperiment
from loadgen.lab.publication_claims import key
from loadgen.lab.turns import Spread
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Facts,
    Section,
    Series,
    Table,
    Text,
    amount,
    percent,
    share_cell,
)

_NOTE = "Medians of all rounds, the lowest and the highest round behind them. Other programs: their share of the machine's CPU."


def publication_section(publication: Publication, evidence: Evidence) -> Section:
    """The section on one publication, with the experiments that the evidence has."""
    ran = [e for e in publication.experiments if key(publication, e.name) in evidence.measurements]
    source = publication.source
    blocks: list[Block] = []
    if charts := tuple(_charts(publication, ran, evidence)):
        blocks.append(Charts(charts))
    kinds = dict.fromkeys(experiment.kind for experiment in ran)
    blocks += [_table(publication, [e for e in ran if e.kind == kind], evidence) for kind in kinds]
    blocks += [
        Facts(f"Published: {source.author}, {source.title}, {source.year}", tuple(_published(publication))),
        Text(f"Scale: {publication.scale}"),
    ]
    data = {
        "source": source,
        "published": publication.published,
        "scale": publication.scale,
        "experiments": {
            experiment.name: {
                "title": experiment.title,
                "kind": experiment.kind,
                **_values(evidence, key(publication, experiment.name)),
            }
            for experiment in ran
        },
    }
    return Section(
        f"publication-{publication.name}", publication.title, tuple(blocks), menu=publication.name, data=data
    )


def _values(evidence: Evidence, place: str) -> dict[str, object]:
    rounds = evidence.measurement_rounds.get(place, ())
    return {
        "figures": evidence.measurements[place].figures,
        "other_programs_cpu_share": evidence.measurements[place].others_share,
        "rounds": [each.figures for each in rounds],
    }


def _published(publication: Publication) -> Iterator[tuple[str, str]]:
    for figure in publication.published:
        yield figure.figure, f"{figure.words} ({figure.address})" if figure.address else figure.words
    yield "address", publication.source.address


def _judged(publication: Publication) -> dict[str, None]:
    """The names of the figures that claims are judged by, in the order of the claims; the values mean nothing."""
    return dict.fromkeys(check.quantity.figure for claim in publication.claims for check in claim.checks)


def _table(publication: Publication, experiments: list[PublicationExperiment], evidence: Evidence) -> Table:
    """A table of experiments of one kind: a row each, with all figures of that kind; figures of claims come first."""
    kind = experiments[0].kind
    known = {name: words for experiment in experiments for name, words in experiment.figures.items()}
    judged = [name for name in _judged(publication) if name in known]
    names = [*judged, *(name for name in known if name not in judged)]
    columns = (
        Column("experiment"),
        *(Column(known[name], "number", aside=name not in judged) for name in names),
        Column("other programs", "number"),
    )
    rows = []
    for experiment in experiments:
        place = key(publication, experiment.name)
        measured, rounds = evidence.measurements[place], evidence.measurement_rounds.get(place, ())
        rows.append(
            (
                Cell(experiment.title),
                *(_cell(name, measured, rounds) for name in names),
                share_cell(measured.others_share, bad=(measured.others_share or 0) > BUSY_SHARE),
            )
        )
    return Table(f"{publication.name}-{kind}", "Measured here", columns, tuple(rows), _NOTE)


def _cell(name: str, measured: Measurement, rounds: tuple[Measurement, ...]) -> Cell:
    """A cell with a figure's median, followed by its lowest and highest round if these differ."""
    value = measured.figures.get(name)
    if value is None:
        return Cell(ABSENT)
    values = [each.figures[name] for each in rounds if name in each.figures]
    spread = Spread.of(values) if values else Spread(value, value, value)
    shown, low, high = (_shown(name, figure) for figure in (value, spread.low, spread.high))
    return Cell(shown if low == high else f"{shown} ({low} to {high})", value)


def _shown(name: str, value: float) -> str:
    if name in SHARES:
        return percent(value)
    return amount(int(value) if value == int(value) else value)


def _charts(publication: Publication, experiments: list[PublicationExperiment], evidence: Evidence) -> Iterator[Chart]:
    """A chart for each figure that a claim is judged by, with a bar for each experiment that measured it."""
    for name in _judged(publication):
        having = [
            (e, evidence.measurements[key(publication, e.name)].figures[name])
            for e in experiments
            if name in evidence.measurements[key(publication, e.name)].figures
        ]
        if len(having) < 2:
            continue
        words = having[0][0].figures[name]
        values = tuple(100 * value if name in SHARES else value for _, value in having)
        yield Chart(
            f"{publication.name}-{name}",
            words.capitalize(),
            "bars",
            Axis(f"{words}, in per cent" if name in SHARES else words),
            Axis("", "", "category", tuple(experiment.title for experiment, _ in having)),
            (
                Series(
                    "measured here",
                    tuple(map(float, range(len(having)))),
                    values,
                    0,
                    words=tuple(Text(_shown(name, value)) for _, value in having),
                ),
            ),
            wide=True,
        )
