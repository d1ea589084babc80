"""The answers of what runs by name, a sentence each: the groups C, D, P and M, and publications that are data. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.lab import league
from loadgen.lab.claim import REPRODUCED, counted
from loadgen.lab.distance_findings import distance_gain
from loadgen.lab.evidence import Evidence, ExperimentResult, Fairness
from loadgen.lab.group_findings import beside_queue, throughputs, unanswered
from loadgen.lab.publication_claims import publication_claims
from reports.blocks import Text, Tone, amount, decimal, percent


def group_answers(evidence: Evidence) -> Iterator[Text]:
    """A sentence for each group and publication of which something was measured."""
    runs = evidence.outcomes
    if evidence.fairness:
        yield _fairness(evidence.fairness)
    if evidence.league:
        yield _league(evidence.league)
    if evidence.distance:
        yield _distance(evidence)
    if found := _pgbouncer([run for key, run in runs.items() if key.startswith("P.")]):
        yield found
    if limited := [run for run in runs.values() if run.memory_use is not None]:
        yield _memory(limited)
    yield from _publications(evidence)


def _publications(evidence: Evidence) -> Iterator[Text]:
    """How the claims of each publication fared; of several, first of all of them together."""
    found = [
        (publication, [claim.finding(evidence).verdict for claim in publication_claims(publication)])
        for publication in evidence.publications
    ]
    if len(found) > 1:
        every = [verdict for _, verdicts in found for verdict in verdicts]
        yield Text(f"{len(found)} publications with {len(every)} claims: {counted(every)}.", _tone(every))
    for publication, verdicts in found:
        claims = "1 claim" if len(verdicts) == 1 else f"{len(verdicts)} claims"
        yield Text(f"{publication.title}: {claims}, {counted(verdicts)}.", _tone(verdicts))


def _tone(verdicts: list[str]) -> Tone:
    return "good" if set(verdicts) == {REPRODUCED} else "warn"


def _fairness(cells: tuple[Fairness, ...]) -> Text:
    """Who gets no answer, and who waits longest, with the most users that both pools were measured with."""
    by_users = {(cell.users, cell.strategy): cell for cell in cells}
    both = [users for users, name in by_users if name == "queue" and (users, "fair") in by_users]
    if not both:
        only = cells[-1]
        return Text(
            f"Only {only.strategy} was run: with {only.users} users {unanswered(only)} of them got no answer.", "warn"
        )
    users = max(both)
    queue, fair = by_users[users, "queue"], by_users[users, "fair"]
    lost = (
        f"{unanswered(queue)} of {users} users got no answer with queue, {unanswered(fair)} with fair"
        if queue.unserved or fair.unserved
        else "every user got answers with both"
    )
    waits = f"the longest wait for a connection was {_time(queue.wait_ms.max)} with queue, {_time(fair.wait_ms.max)} with fair"
    verdicts = beside_queue(fair, cells)
    fewer = unanswered(fair) * 1.2 < unanswered(queue)
    lead: str
    tone: Tone
    if "worse" in verdicts and not fewer:
        lead, tone = "Lending connections in order (fair) did not help here", "warn"
    elif fewer or "better" in verdicts:
        lead, tone = "Lend connections in order (fair)", "good"
    else:
        lead, tone = "No clear difference between lending in order (fair) and not (queue)", "warn"
    return Text(f"{lead}: with {users} users on 10 connections, {lost}; {waits}.", tone)


def _time(ms: float) -> str:
    return f"{amount(ms / 1000)} s" if ms >= 1000 else f"{amount(ms)} ms"


def _league(figures: league.Figures) -> Text:
    kept, judged = league.limits_kept(figures)
    tone: Tone = "good" if judged and kept == judged else "warn"
    others = " and ".join(
        name for key, name in league.POOLS.items() if key != "fair" and any(key == k for *_, k in figures)
    )
    return Text(f"FairPool beside {others}: {kept} of {judged} figures keep the limits that were set beforehand.", tone)


def _distance(evidence: Evidence) -> Text:
    """What a pool gains at the shortest and the longest distance, with the most users."""
    cells = evidence.distance
    found = [cell for cell in cells if cell.arrangement == "fair" and distance_gain(cell, cells) is not None]
    if not found:
        return Text(
            "What a pool gains by the distance to the database cannot be said: not enough was measured.", "warn"
        )
    users = max(cell.users for cell in found)
    ends = sorted((cell for cell in found if cell.users == users), key=lambda cell: cell.round_trip_ms)
    told = [
        f"{decimal(distance_gain(cell, cells), 3)} times at {decimal(cell.round_trip_ms)} ms"
        for cell in (ends if len(ends) < 2 else (ends[0], ends[-1]))
    ]
    who = "1 user" if users == 1 else f"{users} users"
    text = f"Good answers of one pool per server process, beside a connection per request, with {who}, by the time of a round"
    return Text(f"{text} trip to the database: {', '.join(told)}.", "good")


def _pgbouncer(runs: list[ExperimentResult]) -> Text | None:
    found = {each.experiment: each for each in throughputs(runs)}
    told = [
        f"{percent(each.of_direct)} with {words}"
        for words, key in (("a connection per request", "P.null.c100"), ("a fair pool", "P.fair.c100"))
        if (each := found.get(key)) is not None and each.of_direct is not None
    ]
    if not told:
        return None
    return Text(
        f"Through PgBouncer, 100 users got this share of a direct fair pool's good answers: {', '.join(told)}.", "good"
    )


def _memory(limited: list[ExperimentResult]) -> Text:
    held: list[str] = []
    lost: list[str] = []
    for run in limited:
        use = run.memory_use
        size = f"{run.experiment.settings['DB_POOL_SIZE']} in {run.experiment.memory_mb} MB"
        (lost if use is None or use.oom_kills or not use.answers_afterwards else held).append(size)
    text = f"The database held with pools of {', '.join(held)}" if held else "The database did not hold with any pool"
    return Text(
        f"{text}{f'; it did not with {chr(44).join(lost)}' if held and lost else ''}.", "warn" if lost else "good"
    )
