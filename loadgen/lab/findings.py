"""The lab's findings as blocks: the claims and their verdicts, every experiment, and what the groups found. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loadgen.lab import league
from loadgen.lab.answer import answer, answer_section, busy_words, figures_table, strategy_figures
from loadgen.lab.claim import BUSY_SHARE, NOT, NOT_JUDGED, PARTLY, REPRODUCED, UNMEASURED, Claim, counted
from loadgen.lab.claims import claims_on
from loadgen.lab.distance_findings import distance_section
from loadgen.lab.evidence import Evidence, Memory, Restart
from loadgen.lab.experiment_findings import experiment_round, experiment_section, experiment_values
from loadgen.lab.group_findings import fairness_section, memory_section, pgbouncer_section
from loadgen.lab.publication_claims import publication_claims
from loadgen.lab.publication_findings import publication_section
from reports.blocks import (
    ABSENT,
    Block,
    Cell,
    Code,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Table,
    Text,
    Tone,
    amount_cell,
    number_cell,
    percent,
    share_cell,
)
from reports.formats import published
from reports.formats.apachebench import AbReport
from reports.page.sections import flattened

TITLE = "Two published experiments, run again"

PUBLICATIONS = {
    "A": "notes on a URL shortener on four servers, measured with Artillery",
    "B": "an article on pooling for a Go and PostgreSQL API, measured with ApacheBench (ab)",
}
"""The two publications in words, by the letter that ids of experiments begin with."""

_SHORT = 8
"""Most rows of a table of a group at the end of a session on a terminal."""

_TONES: Mapping[str, Tone] = {REPRODUCED: "good", PARTLY: "warn", NOT: "bad", NOT_JUDGED: ""}
_CLAIM_COLUMNS = (
    Column("verdict", "mark"),
    Column("claim"),
    Column("published"),
    Column("here"),
    Column("measured", folded=True),
    Column("why", folded=True),
    Column("criterion, set beforehand", folded=True),
    Column("published in", folded=True),
)
_OVERVIEW_COLUMNS = (
    Column("arrangement and load"),
    Column("files"),
    Column("requests", "number"),
    Column("seconds", "number"),
    Column("failed", "number"),
    Column("good answers/s", "number"),
    Column("by round: median", "number"),
    Column("lowest", "number"),
    Column("highest", "number"),
    Column("connections", "number"),
    Column("database CPU", "number"),
    Column("servers' CPU", "number"),
    Column("other programs", "number"),
    Column("failures logged"),
)
_LOGGED = {"53300": "too many clients, SQLSTATE 53300", "PoolTimeout": "no connection came free, PoolTimeout"}
"""Kinds of failure that the service logs, in words."""

_GAIN_COLUMNS = (
    Column("users: figure"),
    Column("published before", "number"),
    Column("published after", "number"),
    Column("as printed", "number"),
    Column("as a ratio", "number"),
    Column("measured before", "number"),
    Column("measured after", "number"),
    Column("as a ratio", "number"),
)
_GAINS = {
    "processed": "requests without a failure, of 10000",
    "rps": "requests per second",
    "time_per_request_ms": "time per request, across all (ms)",
}


@dataclass(frozen=True, slots=True)
class MeasuredGain:
    """A row of the article's (B's) table of gains: a figure before and after the shared pool."""

    users: str
    """"single" or "concurrent"."""
    figure: str
    published: tuple[float, float]
    printed: str
    """The gain as the source prints it."""
    measured: tuple[float, float]


def lab_page(evidence: Evidence, *, in_folder: bool = False) -> Page:
    """The whole result of a session. Its title is the answer. `in_folder`: it lies beside the page of each experiment."""
    data = {"partial": evidence.partial, "notes": evidence.notes}
    # The answer of publications that are data counts their claims already.
    subtitle = _subtitle(evidence) if evidence.outcomes or not evidence.publications else _what_was_run(evidence)
    return Page(answer(evidence)[0].text, subtitle, findings(evidence, in_folder=in_folder), data)


def terminal_page(evidence: Evidence, out: Path) -> Page:
    """What a terminal shows at the end of a session, in some 20 lines; `out` is the folder with everything else."""
    blocks: list[Block] = [*answer(evidence)]
    if figures := strategy_figures(evidence):
        blocks.append(figures_table(figures))
    else:
        # A terminal has no room for notes.
        blocks += [
            replace(block, note="")
            for section in _groups(replace(evidence, publications=()))
            for block in section.blocks
            if isinstance(block, Table) and len(block.rows) <= _SHORT
        ]
    if evidence.publications:
        blocks.append(_brief_claims(evidence))
    items = []
    if any(claim.finding(evidence).verdict != UNMEASURED for claim in claims_on(evidence)):
        items.append(("Claims", f"{_subtitle(evidence)}."))
    if evidence.outcomes or evidence.measurements:
        items.append(("This machine", busy_words(evidence)))
    items += [
        ("The page", (out / "index.html").resolve().as_uri()),
        ("Your application", "loadgen lab --app app:app --script load.yml"),
    ]
    return Page("", "", (Section("end", "", (*blocks, Facts("", tuple(items)))),))


def _brief_claims(evidence: Evidence) -> Table:
    """The claims of publications that are data, as a terminal shows them at the end of a session."""
    columns = Column("verdict", "mark"), Column("claim"), Column("published"), Column("here")
    judged = [(c, c.finding(evidence)) for each in evidence.publications for c in publication_claims(each)]
    rows = tuple(
        (
            Cell(found.verdict, tone=_TONES.get(found.verdict, "")),
            Cell(claim.text),
            Cell(claim.published),
            Cell(found.brief),
        )
        for claim, found in judged
    )
    return Table("claims-brief", "Claims", columns, rows)


def _subtitle(evidence: Evidence) -> str:
    """What was run, and the claims by verdict, such as "... run again: 11 claims, 5 reproduced, 6 not measured"."""
    verdicts = [claim.finding(evidence).verdict for claim in claims_on(evidence)]
    if set(verdicts) == {UNMEASURED}:
        count = _publications(evidence)
        whose = "one publication" if count == 1 else f"{count} publications"
        return f"{len(verdicts)} claims of {whose}, none measured in this session"
    return f"{_what_was_run(evidence)}: {len(verdicts)} claims, {counted(verdicts)}"


def _what_was_run(evidence: Evidence) -> str:
    """Whose experiments the session ran, in words."""
    count = _publications(evidence)
    if not evidence.publications:
        return TITLE
    return "A published experiment, run again" if count == 1 else f"{count} published experiments, run again"


def _publications(evidence: Evidence) -> int:
    """How many publications' experiments were chosen: the two that the lab is built on, and those that are data."""
    return len(evidence.publications) + (len(PUBLICATIONS) if evidence.outcomes or not evidence.publications else 0)


def findings(evidence: Evidence, *, in_folder: bool = False) -> tuple[Section, ...]:
    """One section for each kind of measurement that was made."""
    return tuple(_sections(evidence, in_folder=in_folder))


def gains(evidence: Evidence) -> Iterator[MeasuredGain]:
    """The rows of the article's (B's) table of gains whose experiments were run."""
    for gain in published.gains():
        users = "c1" if gain.group == "single" else "c100"
        old, new = evidence.outcomes.get(f"B.1.{users}"), evidence.outcomes.get(f"B.3.{users}")
        if old is not None and new is not None and old.ab is not None and new.ab is not None:
            measured = _gain_figure(old.ab, gain.figure), _gain_figure(new.ab, gain.figure)
            yield MeasuredGain(gain.group, gain.figure, (gain.old, gain.new), gain.printed, measured)


def _sections(evidence: Evidence, *, in_folder: bool) -> Iterator[Section]:
    folded = bool(evidence.outcomes) or len(evidence.publications) > 1
    yield answer_section(evidence)
    yield _claims(evidence)
    if evidence.outcomes:
        yield _overview(evidence, in_folder=in_folder)
    for number, outcome in enumerate(evidence.outcomes.values()):
        yield experiment_section(f"x{number}", outcome)
    for section in _groups(evidence):
        yield replace(section, folded=folded)
    if found := list(gains(evidence)):
        yield _gains(found)
    if evidence.memory is not None:
        yield _memory(evidence.memory)
    if evidence.restart is not None:
        yield _restart(evidence.restart)
    yield _environment(evidence)


def _groups(evidence: Evidence) -> Iterator[Section]:
    """The sections of the groups and publications that run by name."""
    if evidence.fairness:
        yield fairness_section(evidence.fairness)
    yield from league.sections(evidence.league)
    if evidence.crossing is not None:
        yield distance_section(evidence.crossing, evidence.distance)
    if of_p := [o for o in evidence.outcomes.values() if o.experiment.id.startswith("P.")]:
        yield pgbouncer_section(of_p)
    if of_m := [o for o in evidence.outcomes.values() if o.memory_use is not None]:
        yield memory_section(of_m)
    for publication in evidence.publications:
        yield publication_section(publication, evidence)


def _claims(evidence: Evidence) -> Section:
    """The claims that could be judged as a table, the others as a list."""
    judged = [(claim, claim.finding(evidence)) for claim in claims_on(evidence)]
    rows = tuple(
        (
            Cell(found.verdict, tone=_TONES[found.verdict]),
            Cell(claim.text),
            Cell(claim.published),
            Cell(found.brief),
            Cell(found.measured),
            Cell(found.why),
            Cell(claim.criterion),
            Cell(_published_in(claim, evidence)),
        )
        for claim, found in judged
        if found.verdict != UNMEASURED
    )
    blocks: list[Block] = []
    if evidence.partial:
        blocks.append(Text("Partial: the session was interrupted. What follows was measured until then.", "warn"))
    if rows:
        caption = "What was published, and what was measured here"
        note = (
            f"Where other programs used more than {percent(BUSY_SHARE)} of the machine's CPU during an experiment, what it shows"
            " of speed and failures is not judged."
        )
        blocks.append(Table("claims-judged", caption, _CLAIM_COLUMNS, rows, note, prose=True))
    unmeasured = tuple(Text(f"{c.text}: {f.why}") for c, f in judged if f.verdict == UNMEASURED)
    if unmeasured and (evidence.outcomes or evidence.publications):
        blocks += [Text("Not measured, because experiments were not run to their end:"), Items(unmeasured)]
    elif not rows:
        blocks.append(Text("No claim is judged: none of the experiments behind the claims was run."))
    data = [
        {
            "id": c.id,
            "source": c.source,
            "claim": c.text,
            "published": c.published,
            "criterion": c.criterion,
            **asdict(f),
        }
        for c, f in judged
    ]
    title = "Published claims" if evidence.publications else "Claims of the two publications"
    return Section("claims", title, tuple(blocks), menu="Claims", data=data)


def _published_in(claim: Claim, evidence: Evidence) -> str:
    """The claim's publication in words."""
    of_data = {
        each.name: f"{each.source.author}, {each.source.title}, {each.source.year}" for each in evidence.publications
    }
    return of_data.get(claim.source) or PUBLICATIONS[claim.source]


def _spread_cells(evidence: Evidence, key: str) -> tuple[Cell, ...]:
    """Median, lowest and highest good answers a second of the rounds; empty where there was one round."""
    spread = evidence.spread(key, lambda run: run.good_per_second) if key in evidence.rounds else None
    if spread is None or len(evidence.rounds[key]) < 2:
        return (Cell(ABSENT),) * 3
    return tuple(number_cell(value, 1) for value in (spread.median, spread.low, spread.high))


def _overview(evidence: Evidence, *, in_folder: bool) -> Section:
    outcomes = evidence.outcomes
    rows = tuple(
        (
            Cell(o.experiment.title, link=f"#x{number}"),
            Cell(key, link=f"{key}.html" if in_folder else ""),
            number_cell(o.requests),
            number_cell(o.wall_s, 1),
            share_cell(o.failed_share, bad=True),
            number_cell(o.good_per_second, 1),
            *_spread_cells(evidence, key),
            number_cell(o.peak_backends),
            share_cell(o.cores(o.database_cpu_s)),
            share_cell(o.cores(o.servers_cpu_s)),
            share_cell(o.others_share, bad=(o.others_share or 0) > BUSY_SHARE),
            Cell(", ".join(f"{_LOGGED.get(k, k)}: {n}" for k, n in sorted(o.failures.by_kind.items())) or ABSENT),
        )
        for number, (key, o) in enumerate(outcomes.items())
    )
    note = (
        "Good answers (2xx and 3xx) a second are of all rounds together, then of single rounds. Failed: without such an answer."
        " Connections: most open at PostgreSQL at once. CPU is in shares of one core; other programs: their share of the whole"
        " machine's CPU. Files: what the names of each experiment's files begin with."
    )
    table = Table("overview", "Requests, failures and CPU", _OVERVIEW_COLUMNS, rows, note, tools=True)
    blocks: list[Block] = [table]
    if example := next((o.failures.example for o in outcomes.values() if o.failures.example), None):
        blocks.append(Code("A failure as the service logs it", example))
    data = {
        key: {**experiment_values(outcome), "rounds": [experiment_round(run) for run in evidence.rounds.get(key, ())]}
        for key, outcome in outcomes.items()
    }
    title = "Experiments, each beside the published figures"
    return Section("experiments", title, tuple(blocks), menu="Experiments", folded=True, data=data)


def _gain_figure(report: AbReport, figure: str) -> float:
    if figure == "processed":
        # Scaled to 10,000 requests, however many were made. Any answer other than 2xx is a failure, as is no answer.
        broken = report.failures.total - report.failures.length if report.failures else 0
        bad = (report.non_2xx or 0) + broken
        return round(10_000 * (1 - bad / report.complete)) if report.complete else 0.0
    return (report.requests_per_second if figure == "rps" else report.time_per_request_all_ms) or 0.0


def _gains(found: list[MeasuredGain]) -> Section:
    rows = tuple(
        (
            Cell(f"{gain.users}: {_GAINS[gain.figure]}"),
            *map(amount_cell, gain.published),
            Cell(gain.printed),
            _ratio(*gain.published, less=gain.figure == "time_per_request_ms"),
            *map(amount_cell, gain.measured),
            _ratio(*gain.measured, less=gain.figure == "time_per_request_ms"),
        )
        for gain in found
    )
    note = (
        "The article prints most of its ratios as percentages: +584.09% stands for 5.84 times as many, which is 484 % more."
        " A gain in time is the old time divided by the new."
    )
    table = Table("gains-rows", "A connection per request, then one shared pool", _GAIN_COLUMNS, rows, note)
    title = "The article's own table of gains, recomputed"
    return Section("gains", title, (table,), menu="Gains", folded=True, data=found)


def _ratio(old: float, new: float, *, less: bool) -> Cell:
    over, under = (old, new) if less else (new, old)
    return Cell(f"{over / under:.2f}x (+{(over / under - 1) * 100:.0f} %)", over / under) if under else Cell(ABSENT)


def _memory(memory: Memory) -> Section:
    low, high = memory.counts
    items = (
        (
            "One more connection, warm",
            (
                f"{memory.per_backend_mb:.2f} MB: the slope of the summed proportional set size between {low} and {high}"
                " connections, and 0.13 MB of page tables and kernel memory"
            ),
        ),
        ("Shared memory", f"{memory.shared_mb:.0f} MB"),
        ("The server's own processes", f"{memory.base_mb:.1f} MB"),
        *((f"{n} connections need", f"{memory.needed_mb(n):.0f} MB") for n in (40, 80, 100, 200)),
    )
    facts = Facts("What connections cost", items)
    title = "Memory that connections cost PostgreSQL"
    return Section("memory", title, (facts,), menu="Memory", folded=True, data=memory)


def _environment(evidence: Evidence) -> Section:
    """How and where everything was measured."""
    notes = (Items(tuple(map(Text, evidence.notes))),) if evidence.notes else ()
    blocks = (*notes, Facts("Machine and versions", tuple(flattened(evidence.environment))))
    title = "How it was measured, and on which machine"
    return Section("environment", title, blocks, menu="Environment", folded=True, data=evidence.environment)


def _restart(restart: Restart) -> Section:
    columns = Column("rows"), Column("before", "number"), Column("after", "number")
    rows = tuple(
        (Cell(name), number_cell(before), number_cell(after))
        for name, before, after in zip(("links", "clicks"), restart.before, restart.after, strict=True)
    )
    table = Table("restart-rows", "Rows before and after", columns, rows)
    title = "Restart of the database and every server"
    return Section("restart", title, (table,), menu="Restart", folded=True, data=restart)
