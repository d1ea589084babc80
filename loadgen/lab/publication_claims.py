"""The claims of publications that are data: each becomes a Claim with its criterion in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from loadgen.lab.claim import NOT, NOT_JUDGED, PARTLY, REPRODUCED, Claim, Finding
from loadgen.lab.evidence import Evidence
from loadgen.lab.publication import Check, Condition, Publication, PublishedClaim, Quantity
from reports.blocks import amount, decimal

_ORDER = (REPRODUCED, PARTLY, NOT)


def publication_claims(publication: Publication) -> Iterator[Claim]:
    """The claims of one publication, in its order."""
    for claim in publication.claims:
        yield _claim(publication, claim)


def key(publication: Publication, experiment: str) -> str:
    """The id of one of its experiments in the evidence."""
    return f"{publication.name}.{experiment}"


def value_of(quantity: Quantity, publication: Publication, evidence: Evidence) -> float | None:
    """A quantity as measured; None for a ratio to nothing."""
    over = evidence.measurements[key(publication, quantity.of)].figures[quantity.figure]
    if not quantity.against:
        return over
    under = evidence.measurements[key(publication, quantity.against)].figures[quantity.figure]
    return over / under if under else None


def verdict_on(check: Check, value: float | None) -> str:
    """The verdict of one check on its value."""
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
            "{:,.3f}" if first.against else "{:,.1f}",
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
            return Finding(measured, NOT_JUDGED, f"{found}; it is judged only if {_within(condition)}", brief)
    if NOT_JUDGED in verdicts:
        return Finding(measured, NOT_JUDGED, "there is nothing to compare with: a figure is 0", brief)
    worst = max(verdicts, key=_ORDER.index)
    return Finding(measured, worst, _why(publication, claim, evidence), brief)


def _why(publication: Publication, claim: PublishedClaim, evidence: Evidence) -> str:
    """The figures behind the claim, of each experiment in turn."""
    asked: dict[str, list[str]] = {}
    for quantity in (check.quantity for check in claim.checks):
        for name in filter(None, (quantity.of, quantity.against)):
            if quantity.figure not in asked.setdefault(name, []):
                asked[name].append(quantity.figure)
    titles = {experiment.name: experiment for experiment in publication.experiments}
    told = []
    for name, figures in asked.items():
        measured = evidence.measurements[key(publication, name)].figures
        shown = ", ".join(f"{titles[name].figures[figure]} {amount(measured[figure])}" for figure in figures)
        told.append(f"{titles[name].title}: {shown}")
    return "; ".join(told)


def _words(quantity: Quantity, publication: Publication) -> str:
    """A quantity in words, without its experiment."""
    experiment = next(each for each in publication.experiments if each.name == quantity.of)
    words = experiment.figures[quantity.figure]
    return f"ratio of {words.removesuffix(', ms')}" if quantity.against else words


def _told(quantity: Quantity, value: float | None, publication: Publication) -> str:
    """A quantity with its value in a sentence."""
    titles = {experiment.name: experiment.title for experiment in publication.experiments}
    against = f" beside {titles[quantity.against]}" if quantity.against else ""
    return f"{_words(quantity, publication)}: {_shown(quantity, value)} ({titles[quantity.of]}{against})"


def _shown(quantity: Quantity, value: float | None) -> str:
    """A value in a few words, with its unit."""
    if value is None:
        return "none"
    if quantity.against:
        return f"{decimal(value, 3)} times"
    if quantity.figure == "failed":
        return f"{decimal(100 * value, 3)} %"
    return f"{amount(value)} ms" if quantity.figure.endswith("_ms") else amount(value)


def _criterion(publication: Publication, claim: PublishedClaim) -> str:
    """The criterion in words."""
    names = {experiment.name: experiment.title for experiment in publication.experiments}
    about = [_named(check.quantity, publication, names) for check in claim.checks]
    reproduced = " and ".join(
        f"{words} {_bounds(check.reproduced, check.quantity)}" for words, check in zip(about, claim.checks, strict=True)
    )
    text = f"reproduced if {reproduced}"
    if any(check.partly != check.reproduced for check in claim.checks):
        partly = " and ".join(_bounds(check.partly, check.quantity) for check in claim.checks)
        text += f"; partly if it {partly}"
    text += "; else not reproduced"
    for condition in claim.judged_if:
        text += f"; judged only if {_named(condition.quantity, publication, names)} {_within(condition)}"
    return text


def _named(quantity: Quantity, publication: Publication, names: dict[str, str]) -> str:
    against = f" beside {names[quantity.against]}" if quantity.against else ""
    return f"the {_words(quantity, publication)} ({names[quantity.of]}{against})"


def _within(condition: Condition) -> str:
    return _bounds(condition.between, condition.quantity)


def _bounds(ends: tuple[float, float], quantity: Quantity) -> str:
    """A range in words: is 5 to 7.5, is at least 0.95."""
    low, high = (_shown(quantity, end) for end in ends)
    if ends[0] == ends[1]:
        return f"is {low}"
    if ends[1] == inf:
        return f"is at least {low}"
    # Figures and ratios are never negative.
    return f"is at most {high}" if ends[0] <= 0 else f"is {low} to {high}"
