"""The lab's answer in a sentence, computed from the evidence, with the figures behind it and their picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loadgen.lab.claim import BUSY_SHARE
from loadgen.lab.evidence import Evidence, ExperimentResult
from loadgen.lab.group_answers import group_answers
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Section,
    Series,
    Table,
    Text,
    Tone,
    amount,
    percent,
)
from reports.formats import published

USERS = (1, 100)
"""Numbers of users that the answer is about."""

_STRATEGIES = (
    ("B.1", "a connection per request"),
    ("B.2", "a pool per request"),
    ("B.3", "one pool per server process: QueuePool"),
    ("B.4", "one pool per server process: FairPool"),
)
_CLEAR = 1.2
"""A ratio nearer to 1 than this, either way, is no clear difference."""

_MORE_FAILURES = 0.01
_BESIDE = "as many requests per second as a connection per request"
_RATE = Axis("requests per second", "/s")


@dataclass(frozen=True, slots=True)
class StrategyFigures:
    """Requests per second of one strategy with one number of users; a share is of all requests. None: not known."""

    experiment: str
    strategy: str
    users: int
    published_per_s: float | None
    published_failed: float | None
    here_per_s: float | None
    here_failed: float | None


@dataclass(frozen=True, slots=True)
class _Gain:
    """One pool per server process beside a connection per request, with one number of users."""

    users: int
    without: ExperimentResult
    pooled: ExperimentResult
    ratios: tuple[float, ...]
    """Requests per second as a multiple: of all rounds together, then of each; without rounds that served nothing unpooled."""

    @property
    def kind(self) -> str:
        """Is "more", "fewer", "unclear" if the rounds are not all on one side, "nothing" if nothing was served without it."""
        if not self.ratios:
            return "nothing"
        if all(ratio >= _CLEAR for ratio in self.ratios):
            return "more"
        return "fewer" if all(ratio * _CLEAR <= 1 for ratio in self.ratios) else "unclear"

    @property
    def fails_more(self) -> bool:
        """Whether more requests fail with the pool, beyond a point in a hundred."""
        return self.pooled.failed_share > self.without.failed_share + _MORE_FAILURES


def answer(evidence: Evidence) -> tuple[Text, ...]:
    """The answer: a sentence on the pool, if its experiments were run, and one for each other group that was run."""
    found = [*group_answers(evidence)]
    gains = _gains(evidence)
    if gains or not found:
        found.insert(0, _on_the_pool(gains))
    if evidence.partial:
        found[0] = Text(
            f"{found[0].text} The session was interrupted: this is of what was measured until then.", "warn"
        )
    return tuple(found)


def strategy_figures(evidence: Evidence) -> list[StrategyFigures]:
    """The figures of each strategy of which an experiment was run, for each number of users; published ones beside them."""
    known = published.experiments()
    rows = []
    for group, strategy in _STRATEGIES:
        for users in USERS:
            key = f"{group}.c{users}"
            run, printed = evidence.outcomes.get(key), known[key].ab if key in known else None
            lost = None if printed is None else (printed.non_2xx or printed.failed or 0) / (printed.complete or 1)
            rows.append(
                StrategyFigures(
                    key,
                    strategy,
                    users,
                    None if printed is None else printed.requests_per_second,
                    lost,
                    None if run is None else run.requests_per_second,
                    None if run is None else run.failed_share,
                )
            )
    ran = {row.strategy for row in rows if row.here_per_s is not None}
    return [row for row in rows if row.strategy in ran]


def answer_section(evidence: Evidence) -> Section:
    """The first section: the answer's sentences, the picture, and the figures as a table."""
    said, figures = answer(evidence), strategy_figures(evidence)
    # The page's title says the first sentence.
    blocks: list[Block] = [*said[1:]]
    if figures:
        blocks += [Charts(answer_charts(evidence)), figures_table(figures)]
    data = {"sentence": said[0].text, "others": [text.text for text in said[1:]], "strategies": [*map(asdict, figures)]}
    if not blocks:
        blocks.append(said[0])
    title = "Requests per second, by how the service connects to PostgreSQL" if figures else "The answer"
    return Section("answer", title, tuple(blocks), menu="Answer", data=data)


def answer_charts(evidence: Evidence) -> tuple[Chart, ...]:
    """A chart for each number of users; empty if no strategy was run."""
    figures = strategy_figures(evidence)
    return tuple(_picture(users, figures) for users in USERS) if figures else ()


def figures_table(figures: Sequence[StrategyFigures]) -> Table:
    """A row for each strategy: requests per second and failures with each number of users, published and here."""
    columns = [Column("requests per second")]
    for users in USERS:
        columns += [Column(f"{people(users)}: published", "number"), Column("here", "number")]
    rows = []
    for strategy in dict.fromkeys(row.strategy for row in figures):
        mine = [row for row in figures if row.strategy == strategy]
        cells = [Cell(strategy)]
        for row in mine:
            cells += [_cell(row.published_per_s, row.published_failed), _cell(row.here_per_s, row.here_failed)]
        rows.append(tuple(cells))
    return Table("answer-figures", "The same figures as a table", tuple(columns), tuple(rows), folded=True)


def people(users: int) -> str:
    """A number of users in words."""
    return "1 user" if users == 1 else f"{users} users"


def _gains(evidence: Evidence) -> list[_Gain]:
    """The comparisons whose experiments were both run to their end."""

    def whole(key: str) -> bool:
        return key in evidence.outcomes and not evidence.outcomes[key].partial

    found = []
    for users in USERS:
        old = f"B.1.c{users}"
        new = next((key for group in ("B.3", "B.4") if whole(key := f"{group}.c{users}")), None)
        if new is None or not whole(old):
            continue
        each = [evidence, *evidence.of_each_round((old, new))]
        runs = [(one.outcomes[old].requests_per_second, one.outcomes[new].requests_per_second) for one in each]
        ratios = tuple(fast / slow for slow, fast in runs if slow)
        found.append(_Gain(users, evidence.outcomes[old], evidence.outcomes[new], ratios))
    return found


def _on_the_pool(gains: Sequence[_Gain]) -> Text:
    """The sentence on one pool per server process."""
    if not gains:
        why = "this session did not run both a connection per request and one pool per server process to their end"
        return Text(f"No answer on pooling: {why} (loadgen lab --only B.1,B.3 does).", "warn")
    sentence, tone = _judged(gains)
    busy = max(run.others_share or 0.0 for gain in gains for run in (gain.without, gain.pooled))
    if busy > BUSY_SHARE:
        return Text(
            f"Not judged, because the machine was busy: other programs used up to {percent(busy)} of its CPU."
            f" What was measured meanwhile: {sentence[0].lower()}{sentence[1:]} Run the lab again when the machine is quiet.",
            "warn",
        )
    return Text(sentence, tone)


def _judged(gains: Sequence[_Gain]) -> tuple[str, Tone]:
    """The sentence on these gains, and its tone."""
    if not any(gain.pooled.requests_per_second for gain in gains):
        return "No advice: one pool per server process served no request here.", "warn"
    if worse := [gain for gain in gains if gain.fails_more]:
        told = "; ".join(
            f"with {people(g.users)} {percent(g.pooled.failed_share)}, without the pool {percent(g.without.failed_share)}"
            for g in worse
        )
        return f"No advice: here more requests failed with one pool per server process ({told}).", "warn"
    only = f" (measured with {people(gains[0].users)} only)" if len(gains) == 1 else ""
    kinds = {gain.kind for gain in gains}
    times = _times([gain.ratios[0] for gain in gains if gain.ratios] or [0.0])
    if kinds == {"more"}:
        text = f"Keep one pool per server process: here it served {times} {_BESIDE}"
        return f"{text}, {_failures(gains)}{only}.", "good"
    if kinds == {"fewer"}:
        text = f"One pool per server process was slower here: it served {times} {_BESIDE}"
        return f"{text}, {_failures(gains)}{only}.", "warn"
    if kinds == {"unclear"}:
        all_times = _times([ratio for gain in gains for ratio in gain.ratios])
        text = f"No clear difference here: one pool per server process served {all_times} {_BESIDE}"
        return f"{text}, {_failures(gains)}{only}.", "warn"
    if kinds == {"nothing"}:
        return "Keep one pool per server process: here a connection per request served nothing at all.", "good"
    told = "; ".join(f"{_one(gain)} with {people(gain.users)}" for gain in gains)
    lead = "Keep one pool per server process" if "fewer" not in kinds else "It depends on the load"
    return f"{lead}: beside a connection per request, here {told}, {_failures(gains)}.", "warn"


def _one(gain: _Gain) -> str:
    """One gain among others that differ from it in kind."""
    if gain.kind == "unclear":
        return f"no clear difference ({_times(gain.ratios)})"
    return (
        "without the pool nothing was served"
        if gain.kind == "nothing"
        else f"{_ratio(gain.ratios[0])} times as many requests per second"
    )


def _failures(gains: Sequence[_Gain]) -> str:
    """How many of the pool's requests failed, to end a sentence with."""
    failed = sum(round(gain.pooled.failed_share * gain.pooled.requests) for gain in gains)
    if not failed:
        return "and no request failed"
    sent = sum(gain.pooled.requests for gain in gains)
    before = max(gain.without.failed_share for gain in gains)
    told = f" (without the pool {percent(before)})" if before else " (none without the pool)"
    return f"and {failed:,} of {sent:,} failed{told}"


def _times(ratios: Sequence[float]) -> str:
    """Ratios as one says them: "8.0 to 11.4 times"."""
    low, high = _ratio(min(ratios)), _ratio(max(ratios))
    return f"{low} times" if low == high else f"{low} to {high} times"


def _ratio(ratio: float) -> str:
    """A ratio as the claims show it, too: 1.0, 8.6, 10.4."""
    return f"{ratio:.1f}"


def _cell(per_s: float | None, failed: float | None) -> Cell:
    return Cell(_words(per_s, failed).text, per_s, "bad" if failed else "")


def _words(per_s: float | None, failed: float | None, without: str = ABSENT) -> Text:
    """A rate with its failures in words, in the tone "bad" if there are any; `without`: what stands for no rate."""
    if per_s is None:
        return Text(without)
    rate = amount(round(per_s) if per_s >= 10 else per_s)
    return Text(f"{rate}, {percent(failed)} failed", "bad") if failed else Text(rate)


def _picture(users: int, figures: Sequence[StrategyFigures]) -> Chart:
    """Bars for each strategy: published as an outline, measured here filled; failures in words."""
    mine = [row for row in figures if row.users == users]
    rows = tuple(map(float, range(len(mine))))
    return Chart(
        f"answer-{users}",
        f"Requests per second, {people(users)}",
        "bars",
        _RATE,
        Axis("", "", "category", tuple(row.strategy for row in mine)),
        (
            Series("published", rows, tuple(row.published_per_s for row in mine), 7, "dash",
                   words=tuple(_words(row.published_per_s, row.published_failed, "not published") for row in mine)),
            Series("measured here", rows, tuple(row.here_per_s for row in mine), 0,
                   words=tuple(_words(row.here_per_s, row.here_failed, "not run") for row in mine)),
        ),
    )  # fmt: skip


def busy_words(evidence: Evidence) -> str:
    """How busy other programs kept the machine, in words."""
    told = [run.others_share for run in evidence.outcomes.values()]
    told += [run.others_share for run in evidence.measurements.values()]
    shares = [share for share in told if share is not None]
    if not shares:
        return "how busy other programs kept it was not measured"
    limit = f"above {percent(BUSY_SHARE)}, nothing about speed is judged"
    return f"other programs used at most {percent(max(shares))} of its CPU ({limit})"
