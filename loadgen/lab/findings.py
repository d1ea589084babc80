"""The lab's findings as blocks: the claims and their verdicts, every experiment, and what the groups found. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from loadgen.lab import league
from loadgen.lab.claims import BUSY_SHARE, NOT, NOT_JUDGED, PARTLY, REPRODUCED, UNMEASURED, claims_on
from loadgen.lab.distance_findings import distance_section
from loadgen.lab.evidence import Evidence, Memory, Restart
from loadgen.lab.experiment_findings import dots, experiment_round, experiment_section, experiment_values, rates
from loadgen.lab.group_findings import fairness_section, memory_section, pgbouncer_section
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Charts,
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
    share_cell,
)
from reports.formats import published
from reports.formats.apachebench import AbReport
from reports.page.sections import flattened

TITLE = "Two published experiments, run again"

_TONES: Mapping[str, Tone] = {REPRODUCED: "good", PARTLY: "warn", NOT: "bad", NOT_JUDGED: ""}
_CLAIM_COLUMNS = (
    Column("claim"),
    Column("verdict", "mark"),
    Column("published"),
    Column("measured here"),
    Column("why"),
    Column("criterion, set beforehand"),
)
_OVERVIEW_COLUMNS = (
    Column("id"),
    Column("arrangement", aside=True),
    Column("requests", "number"),
    Column("seconds", "number"),
    Column("failed", "number"),
    Column("good/s", "number"),
    Column("by round: median", "number"),
    Column("lowest", "number"),
    Column("highest", "number"),
    Column("backends", "number"),
    Column("database CPU", "number"),
    Column("servers' CPU", "number"),
    Column("other programs", "number"),
    Column("failures logged"),
)
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
    """A row of source B's table of gains: a figure before and after the shared pool."""

    users: str
    """"single" or "concurrent"."""
    figure: str
    published: tuple[float, float]
    printed: str
    """The gain as the source prints it."""
    measured: tuple[float, float]


def lab_page(evidence: Evidence) -> Page:
    """The whole result of a session."""
    verdicts = [claim.finding(evidence).verdict for claim in claims_on(evidence)]
    counted = ", ".join(
        f"{verdicts.count(v)} {v}" for v in (REPRODUCED, PARTLY, NOT, NOT_JUDGED, UNMEASURED) if v in verdicts
    )
    data = {"partial": evidence.partial, "notes": evidence.notes}
    return Page(TITLE, f"{len(verdicts)} claims: {counted}", findings(evidence), data)


def findings(evidence: Evidence) -> tuple[Section, ...]:
    """One section for each kind of measurement that was made."""
    return tuple(_sections(evidence))


def gains(evidence: Evidence) -> Iterator[MeasuredGain]:
    """The rows of source B's table of gains whose experiments were run."""
    for gain in published.gains():
        users = "c1" if gain.group == "single" else "c100"
        old, new = evidence.outcomes.get(f"B.1.{users}"), evidence.outcomes.get(f"B.3.{users}")
        if old is not None and new is not None and old.ab is not None and new.ab is not None:
            measured = _gain_figure(old.ab, gain.figure), _gain_figure(new.ab, gain.figure)
            yield MeasuredGain(gain.group, gain.figure, (gain.old, gain.new), gain.printed, measured)


def _sections(evidence: Evidence) -> Iterator[Section]:
    yield _claims(evidence)
    if evidence.outcomes:
        yield _overview(evidence)
    for number, outcome in enumerate(evidence.outcomes.values()):
        yield experiment_section(f"x{number}", outcome)
    if evidence.fairness:
        yield fairness_section(evidence.fairness)
    yield from league.sections(evidence.league)
    if evidence.crossing is not None:
        yield distance_section(evidence.crossing, evidence.distance)
    if of_p := [o for o in evidence.outcomes.values() if o.experiment.id.startswith("P.")]:
        yield pgbouncer_section(of_p)
    if of_m := [o for o in evidence.outcomes.values() if o.memory_use is not None]:
        yield memory_section(of_m)
    if found := list(gains(evidence)):
        yield _gains(found)
    if evidence.memory is not None:
        yield _memory(evidence.memory)
    if evidence.restart is not None:
        yield _restart(evidence.restart)
    facts = Facts("Machine and versions", tuple(flattened(evidence.environment)))
    yield Section("environment", "Environment", (facts,), menu="Environment", data=evidence.environment)


def _claims(evidence: Evidence) -> Section:
    """The claims that could be judged as a table, the others as a list."""
    judged = [(claim, claim.finding(evidence)) for claim in claims_on(evidence)]
    rows = tuple(
        (
            Cell(claim.text),
            Cell(found.verdict, tone=_TONES[found.verdict]),
            Cell(claim.published),
            Cell(found.measured),
            Cell(found.why),
            Cell(claim.criterion),
        )
        for claim, found in judged
        if found.verdict != UNMEASURED
    )
    blocks: list[Block] = []
    if evidence.partial:
        blocks.append(Text("Partial: the session was interrupted. What follows was measured until then.", "warn"))
    if rows:
        caption = "What the sources claim, and what was measured here"
        note = (
            f"Where other programs used more than {BUSY_SHARE:.0%} of the machine's CPU during an experiment, what it shows of"
            " speed and failures is not judged."
        )
        blocks.append(Table("claims-judged", caption, _CLAIM_COLUMNS, rows, note, prose=True))
    unmeasured = tuple(Text(f"{c.text}: {f.why}") for c, f in judged if f.verdict == UNMEASURED)
    if unmeasured and evidence.outcomes:
        blocks += [Text("Not measured, because experiments were not run to their end:"), Items(unmeasured)]
    elif not rows:
        blocks.append(Text("No claim is judged: none of the experiments behind the claims was run."))
    if evidence.notes:
        blocks += [Text("To know when comparing:"), Items(tuple(map(Text, evidence.notes)))]
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
    return Section("claims", "Claims", tuple(blocks), menu="Claims", data=data)


def _spread_cells(evidence: Evidence, key: str) -> tuple[Cell, ...]:
    """Median, lowest and highest good answers a second of the rounds; empty where there was one round."""
    spread = evidence.spread(key, lambda run: run.good_per_second) if key in evidence.rounds else None
    if spread is None or len(evidence.rounds[key]) < 2:
        return (Cell(ABSENT),) * 3
    return tuple(number_cell(value, 1) for value in (spread.median, spread.low, spread.high))


def _overview(evidence: Evidence) -> Section:
    outcomes = evidence.outcomes
    rows = tuple(
        (
            Cell(key, link=f"x{number}"),
            Cell(o.experiment.title),
            number_cell(o.requests),
            number_cell(o.wall_s, 1),
            share_cell(o.failed_share, bad=True),
            number_cell(o.good_per_second, 1),
            *_spread_cells(evidence, key),
            number_cell(o.peak_backends),
            share_cell(o.cores(o.database_cpu_s)),
            share_cell(o.cores(o.servers_cpu_s)),
            share_cell(o.others_share, bad=(o.others_share or 0) > BUSY_SHARE),
            Cell(", ".join(f"{kind}: {n}" for kind, n in sorted(o.failures.by_kind.items())) or ABSENT),
        )
        for number, (key, o) in enumerate(outcomes.items())
    )
    note = (
        "Good/s: good answers a second of all rounds together, then of single rounds. Backends: most at once. CPU is in shares of"
        " one core; other programs: their share of the whole machine's CPU. Failed: without a 2xx or 3xx answer."
    )
    blocks: list[Block] = [Table("overview", "Seen from outside", _OVERVIEW_COLUMNS, rows, note, tools=True)]
    title = "Requests per second, published and measured"
    if chart := dots("rates", title, Axis("requests per second", "/s", "log"), [rates(o) for o in outcomes.values()]):
        blocks.insert(0, Charts((replace(chart, wide=True),)))
    if example := next((o.failures.example for o in outcomes.values() if o.failures.example), None):
        blocks.append(Code("A failure as the service logs it", example))
    data = {
        key: {**experiment_values(outcome), "rounds": [experiment_round(run) for run in evidence.rounds.get(key, ())]}
        for key, outcome in outcomes.items()
    }
    return Section("experiments", "Experiments", tuple(blocks), menu="Experiments", data=data)


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
        "The source prints most of its ratios as percentages: +584.09% stands for 5.84 times as many, which is 484 % more."
        " A gain in time is the old time divided by the new."
    )
    table = Table("gains-rows", "A connection per request, then one shared pool", _GAIN_COLUMNS, rows, note)
    return Section("gains", "Source B's table of gains, recomputed", (table,), menu="Gains", data=found)


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
    return Section("memory", "Memory of the backends", (facts,), menu="Memory", data=memory)


def _restart(restart: Restart) -> Section:
    columns = Column("rows"), Column("before", "number"), Column("after", "number")
    rows = tuple(
        (Cell(name), number_cell(before), number_cell(after))
        for name, before, after in zip(("links", "clicks"), restart.before, restart.after, strict=True)
    )
    table = Table("restart-rows", "Rows before and after", columns, rows)
    title = "Restart of the database and every server"
    return Section("restart", title, (table,), menu="Restart", data=restart)
