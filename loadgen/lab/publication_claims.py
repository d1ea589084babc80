"""Turns the claims of a publication's file into Claims of the lab, each with its criterion in words, and judges them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from loadgen.lab.claim import NOT, NOT_JUDGED, PARTLY, REPRODUCED, Claim, Finding
from loadgen.lab.evidence import Evidence
from loadgen.lab.publication import Check, Publication, PublishedClaim, Quantity
from reports.blocks import decimal

_ORDER = (REPRODUCED, PARTLY, NOT)


def publication_claims(publication: Publication) -> Iterator[Claim]:
    """The claims of one publication, in the order of its file."""
    for claim in publication.claims:
        yield _claim(publication, claim)


def key(publication: Publication, experiment: str) -> str:
    """The id of one of the publication's experiments in the evidence, such as hikaricp-spike.queue."""
    return f"{publication.name}.{experiment}"


def value_of(quantity: Quantity, publication: Publication, evidence: Evidence) -> float | None:
    """The measured value of a quantity; None for a ratio whose second figure is 0. Raises KeyError if it was not measured."""
    over = evidence.measurements[key(publication, quantity.of)].figures[quantity.figure]
    if not quantity.against:
        return over
    under = evidence.measurements[key(publication, quantity.against)].figures[quantity.figure]
    return over / under if under else None


def verdict_on(check: Check, value: float | None) -> str:
    """The verdict of one check on the value of its quantity; "not judged" for None."""
    if value is None:
        return NOT_JUDGED
    if check.reproduced[0] <= value <= check.reproduced[1]:
        return REPRODUCED
    return PARTLY if check.partly[0] <= value <= check.partly[1] else NOT


def _claim(publication: Publication, claim: PublishedClaim) -> Claim:
    quantities = [*(each.quantity for each in claim.checks), *(each.quantity for each in claim.judged_if)]
    needs = dict.fromkeys(name for quantity in quantities for name in (quantity.of, quantity.against) if name)
    first = claim.checks[0].quantity

    def judge(evidence: Evidence) -> Finding:
        return _judged(publication, claim, evidence)

    return Claim(
        f"{publication.name}.{claim.id}",
        publication.name,
        claim.text,
        claim.published,
        _criterion(publication, claim),
        tuple(key(publication, name) for name in needs),
        judge,
        about_load=claim.about_load,
        figure=(
            _words(first, publication),
            "{:,.3f}" if first.against else "{:.0%}" if first.figure == "failed" else "{:,.1f}",
            lambda evidence: value_of(first, publication, evidence),
        ),
    )


def _judged(publication: Publication, claim: PublishedClaim, evidence: Evidence) -> Finding:
    values = [value_of(check.quantity, publication, evidence) for check in claim.checks]
    verdicts = [verdict_on(check, value) for check, value in zip(claim.checks, values, strict=True)]
    told = [_told(check.quantity, value, publication) for check, value in zip(claim.checks, values, strict=True)]
    measured = "; ".join(told)
    brief = _shown(claim.checks[0].quantity, values[0])
    for condition in claim.judged_if:
        value = value_of(condition.quantity, publication, evidence)
        if value is None or not condition.between[0] <= value <= condition.between[1]:
            found = _told(condition.quantity, value, publication)
            return Finding(
                measured,
                NOT_JUDGED,
                f"{found}; it is judged only if {_within(condition.between, condition.quantity)}",
                brief,
            )
    if NOT_JUDGED in verdicts:
        return Finding(measured, NOT_JUDGED, "there is nothing to compare with: a figure is 0", brief)
    worst = max(verdicts, key=_ORDER.index)
    return Finding(measured, worst, _why(publication, claim, evidence), brief)


def _why(publication: Publication, claim: PublishedClaim, evidence: Evidence) -> str:
    """The figures behind the verdict, in words: for a ratio, both sides; for a single figure, that of every experiment."""
    told = []
    for quantity in dict.fromkeys(check.quantity for check in claim.checks):
        sides = (quantity.of, quantity.against)
        shown = [
            f"{experiment.title} {_shown(replace(quantity, against=''), measured.figures[quantity.figure])}"
            for experiment in publication.experiments
            if (experiment.name in sides or not quantity.against)
            and (measured := evidence.measurements.get(key(publication, experiment.name))) is not None
            and quantity.figure in measured.figures
        ]
        told.append(f"{_words(quantity, publication)}: {', '.join(shown)}")
    return "; ".join(told)


def _words(quantity: Quantity, publication: Publication) -> str:
    """The figure of a quantity in words, without its unit."""
    experiment = next(each for each in publication.experiments if each.name == quantity.of)
    return experiment.figures[quantity.figure].removesuffix(", ms")


def _named(quantity: Quantity, publication: Publication) -> str:
    """A quantity in words: its figure, and the experiments that it belongs to."""
    titles = {experiment.name: experiment.title for experiment in publication.experiments}
    against = f" beside {titles[quantity.against]}" if quantity.against else ""
    return f"{_words(quantity, publication)}, {titles[quantity.of]}{against}"


def _told(quantity: Quantity, value: float | None, publication: Publication) -> str:
    """A quantity in words, with its value."""
    return f"{_named(quantity, publication)}: {_shown(quantity, value)}"


def _shown(quantity: Quantity, value: float | None) -> str:
    """A value in a few words, with its unit."""
    if value is None:
        return "none"
    if quantity.against:
        return f"{decimal(value, 3)} times"
    if quantity.figure == "failed":
        return f"{decimal(100 * value, 3)} %"
    text = f"{value:,.0f}" if abs(value) >= 1000 else decimal(value, 3)
    return f"{text} ms" if quantity.figure.endswith("_ms") else text


def _criterion(publication: Publication, claim: PublishedClaim) -> str:
    """The ranges and conditions of a claim, in words."""
    parts = []
    for check in claim.checks:
        partly = f"; partly if {_within(check.partly, check.quantity)}" if check.partly != check.reproduced else ""
        reproduced = f"reproduced if {_within(check.reproduced, check.quantity)}"
        parts.append(f"{_named(check.quantity, publication)}: {reproduced}{partly}; else not reproduced")
    parts += [
        f"{_named(condition.quantity, publication)}: judged only if {_within(condition.between, condition.quantity)}"
        for condition in claim.judged_if
    ]
    text = ". ".join(part[:1].upper() + part[1:] for part in parts)
    return f"{text}. The worst of these verdicts counts" if len(claim.checks) > 1 else text


def _within(ends: tuple[float, float], quantity: Quantity) -> str:
    """A range in words: 5 to 7.5, 0.95 times or more."""
    low, high = (_shown(quantity, end) for end in ends)
    if ends[0] == ends[1]:
        return low
    if ends[1] == inf:
        return f"{low} or more"
    # Figures and ratios are never negative.
    return f"{high} or less" if ends[0] <= 0 else f"{low} to {high}"
