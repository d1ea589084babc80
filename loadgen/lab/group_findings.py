"""The findings of the groups that run only by name, as blocks: C (fairness), P (PgBouncer) and M (memory). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from loadgen.lab.evidence import ExperimentResult, Fairness, MemoryUse
from loadgen.lab.turns import compared
from reports import names
from reports.blocks import ABSENT, Block, Cell, Charts, Column, Section, Table, amount_cell, number_cell, share_cell
from reports.model import Report
from reports.page.charts import distribution

_FAIRNESS_NOTE = (
    "queue is SQLAlchemy's QueuePool, fair lends in order of arrival. Both took turns in random order, one server each;"
    " verdicts are on fair beside queue, by the variation between the rounds. Without an answer: users who got none in a round"
    " of 3 s, the mean of all rounds. Times are in ms, from the start of a request to its last byte; waits are for a"
    " connection, as the server tells. Evenness is Jain's index of the users' numbers of answers: 1 if all got the same."
)
_PGBOUNCER_NOTE = (
    "The three arrangements of each load took turns in one session, three rounds each. Times are in ms from the intended start"
    " of a request to its last byte. CPU is in shares of one core; PgBouncer has one thread, so it can use 100 % at most. A click"
    " may be recorded for an answer that nobody waited for any more; fewer clicks than answers would be lost ones."
)
_MEMORY_NOTE = (
    "Peak is the kernel's count for all processes of the database, page cache of its files included; cache is given up when the"
    " limit is met, and a process is killed when no cache is left. PSS is measured at the end of the load, all connections"
    " still open."
)


@dataclass(frozen=True, slots=True)
class Throughput:
    """The figures of one load through PgBouncer, or direct. Times in ms, CPU in cores; None where it is not known."""

    experiment: str
    good_per_second: float
    of_direct: float | None
    """Good answers a second as a multiple of those of the same load without PgBouncer."""
    failed_share: float
    p50_ms: float | None
    p99_ms: float | None
    peak_backends: int
    servers_cpu: float | None
    pgbouncer_cpu: float | None
    database_cpu: float | None
    clicks_recorded: int | None
    redirects: int
    """Answers 301, each of which stands for a click."""


def fairness_section(cells: Sequence[Fairness]) -> Section:
    """Group C: the time, the wait and the share of answers of each user under saturation, by strategy."""
    numbers = ("requests/s", "without an answer", "longest wait", "median wait", "p99 of waits", "median time", "p99 of times",
               "longest time", "evenness")  # fmt: skip
    beside = ("median time", "p99 of times", "longest time")
    verdicts = ("median beside queue", "p99 beside queue")
    columns = (
        *(Column("users"), Column("strategy"), *(Column(name, "number", aside=name in beside) for name in numbers)),
        *(Column(name, "mark") for name in verdicts),
    )
    rows = tuple(
        (
            number_cell(cell.users),
            Cell(cell.strategy),
            amount_cell(cell.requests_per_second),
            Cell(f"{unanswered(cell)} of {cell.users}", cell.unserved, "bad" if cell.unserved else ""),
            amount_cell(cell.wait_ms.max),
            *(amount_cell(cell.wait_ms.quantile(q)) for q in (0.5, 0.99)),
            *(amount_cell(cell.total_ms.quantile(q)) for q in (0.5, 0.99)),
            amount_cell(cell.total_ms.max),
            number_cell(cell.jain, 4),
            *(Cell(verdict or ABSENT) for verdict in beside_queue(cell, cells)),
        )
        for cell in cells
    )
    charts = []
    for users in dict.fromkeys(cell.users for cell in cells):
        reports = [(cell.strategy, cell.report) for cell in cells if cell.users == users]
        charts += [
            replace(chart, id=f"fairness-{users}-{chart.id}", title=f"{chart.title}, {users} users")
            for chart in distribution(reports)
        ]
    table = Table("fairness-cells", "Each strategy under each number of users", columns, rows, _FAIRNESS_NOTE)
    data = [
        {
            "users": c.users,
            "strategy": c.strategy,
            "requests_per_second": c.requests_per_second,
            "p50_ms": c.total_ms.quantile(0.5),
            "p99_ms": c.total_ms.quantile(0.99),
            "max_ms": c.total_ms.max,
            "wait_p50_ms": c.wait_ms.quantile(0.5),
            "wait_p99_ms": c.wait_ms.quantile(0.99),
            "wait_max_ms": c.wait_ms.max,
            "jain": c.jain,
            "unserved": c.unserved,
            **dict(zip(("p50_verdict", "p99_verdict"), beside_queue(c, cells), strict=True)),
            "rounds": [_round_ms(report) for report in c.rounds],
        }
        for c in cells
    ]
    blocks: tuple[Block, ...] = (table, *([Charts(tuple(charts))] if charts else []))
    title = "C.fairness: 10 connections, a query of 5 ms, more users than connections"
    return Section("fairness", title, blocks, menu="C.fairness", data=data)


def unanswered(cell: Fairness) -> int:
    """Users without an answer in a round, the mean of all rounds."""
    return round(cell.unserved / max(1, len(cell.served) / cell.users))


def beside_queue(cell: Fairness, cells: Sequence[Fairness]) -> tuple[str | None, str | None]:
    """Verdicts on median and p99 of the time to the last byte, against queue's rounds; None where there is no comparison."""
    queue = next((c for c in cells if c.users == cell.users and c.strategy == "queue" and c is not cell), None)
    if queue is None or min(len(queue.rounds), len(cell.rounds)) < 2:
        return None, None
    found = compared(queue.rounds, cell.rounds)
    median, p99 = (found.get(f"{names.INTENDED}.{row}") for row in ("median", "p99"))
    return median.verdict if median else None, p99.verdict if p99 else None


def _round_ms(report: Report) -> dict[str, float | None]:
    times = report.aggregate.sketches.get(names.INTENDED)
    return {f"p{round(100 * q)}_ms": times.quantile(q) if times else None for q in (0.5, 0.99)}


def _titles(outcomes: Sequence[ExperimentResult]) -> dict[str, str]:
    """What each experiment is, by its id."""
    return {outcome.experiment.id: outcome.experiment.title for outcome in outcomes}


def throughputs(outcomes: Sequence[ExperimentResult]) -> list[Throughput]:
    """The experiments of group P, each beside the same load without PgBouncer."""
    return [_throughput(outcome, _direct(outcome, outcomes)) for outcome in outcomes]


def pgbouncer_section(outcomes: Sequence[ExperimentResult]) -> Section:
    """The section on group P; experiments stand in the order in which they ran."""
    found = throughputs(outcomes)
    numbers = (
        "good answers/s",
        "of direct",
        "failed",
        "p50, ms",
        "p99, ms",
        "peak connections",
        "servers' CPU",
        "PgBouncer's CPU",
        "database's CPU",
        "clicks recorded",
        "answers 301",
    )
    columns = (Column("experiment"), *(Column(name, "number") for name in numbers))
    rows = tuple(
        (
            Cell(_titles(outcomes).get(t.experiment, t.experiment)),
            amount_cell(t.good_per_second),
            Cell(ABSENT if t.of_direct is None else f"{t.of_direct:.3f}", t.of_direct),
            share_cell(t.failed_share, bad=True),
            amount_cell(t.p50_ms),
            amount_cell(t.p99_ms),
            number_cell(t.peak_backends),
            *(share_cell(share) for share in (t.servers_cpu, t.pgbouncer_cpu, t.database_cpu)),
            number_cell(t.clicks_recorded),
            number_cell(None if t.clicks_recorded is None else t.redirects),
        )
        for t in found
    )
    title = "P: through PgBouncer and direct"
    table = Table("pgbouncer-rows", title, columns, rows, _PGBOUNCER_NOTE)
    return Section("pgbouncer", title, (table,), menu="P", data=found)


def memory_section(outcomes: Sequence[ExperimentResult]) -> Section:
    """The section on group M; experiments stand in the order in which they ran."""
    limited = [(outcome, outcome.memory_use) for outcome in outcomes if outcome.memory_use is not None]
    numbers = (
        "failed",
        "good answers/s",
        "p50, ms",
        "p99, ms",
        "connections",
        "memory (PSS), MB",
        "peak, MB",
        "limit met, times",
        "killed for memory",
        "answers afterwards",
    )
    columns = (Column("experiment"), *(Column(name, "number") for name in numbers))
    rows = tuple(
        (
            Cell(outcome.experiment.title),
            share_cell(outcome.failed_share, bad=True),
            amount_cell(outcome.good_per_second),
            *(amount_cell(_quantile_ms(outcome, q)) for q in (0.5, 0.99)),
            number_cell(use.connections),
            number_cell(use.pss_mb, 1),
            number_cell(use.peak_mb, 1),
            number_cell(use.limit_hits),
            number_cell(use.oom_kills, tone="bad" if use.oom_kills else ""),
            Cell("yes") if use.answers_afterwards else Cell("no", tone="bad"),
        )
        for outcome, use in limited
    )
    title = "M: the nested object from a database with a limit of memory"
    table = Table("memory-limit-rows", title, columns, rows, memory_note([use for _, use in limited]))
    data = [
        {
            "experiment": o.experiment.id,
            "failed_share": o.failed_share,
            "good_per_second": o.good_per_second,
            **asdict(use),
        }
        for o, use in limited
    ]
    return Section("memory_limit", title, (table,), menu="M", data=data)


def memory_note(uses: Sequence[MemoryUse]) -> str:
    """How to read the table, and how much PSS each further connection adds if rows have different numbers of them."""
    slope = pss_slope_mb([(use.connections, use.pss_mb) for use in uses if use.connections and not use.oom_kills])
    if slope is None:
        return _MEMORY_NOTE
    return f"{_MEMORY_NOTE} Where nothing was killed it grows by {slope:.2f} MB a connection."


def pss_slope_mb(points: Sequence[tuple[float, float]]) -> float | None:
    """PSS of each further connection, in MB, by least squares; None for fewer than two different numbers of connections."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True)) if points else (0.0, 0.0)
    squares = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / squares if squares else None


def _throughput(outcome: ExperimentResult, direct: ExperimentResult | None) -> Throughput:
    rate = direct.good_per_second if direct is not None else 0.0
    return Throughput(
        experiment=outcome.experiment.id,
        good_per_second=outcome.good_per_second,
        of_direct=outcome.good_per_second / rate if rate else None,
        failed_share=outcome.failed_share,
        p50_ms=_quantile_ms(outcome, 0.5),
        p99_ms=_quantile_ms(outcome, 0.99),
        peak_backends=outcome.peak_backends,
        servers_cpu=outcome.cores(outcome.servers_cpu_s),
        pgbouncer_cpu=outcome.cores(outcome.pgbouncer_cpu_s),
        database_cpu=outcome.cores(outcome.database_cpu_s),
        clicks_recorded=outcome.clicks_recorded,
        redirects=outcome.answers(301),
    )


def _direct(outcome: ExperimentResult, others: Sequence[ExperimentResult]) -> ExperimentResult | None:
    """The experiment with the same load but without PgBouncer."""
    wanted = (0, outcome.experiment.users, outcome.experiment.script)
    return next(
        (o for o in others if (o.experiment.pgbouncer, o.experiment.users, o.experiment.script) == wanted), None
    )


def _quantile_ms(outcome: ExperimentResult, q: float) -> float | None:
    sketch = outcome.report.aggregate.sketches.get(names.INTENDED)
    return None if sketch is None else sketch.quantile(q)
