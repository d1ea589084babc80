"""One experiment as blocks: its headline figures, its charts, and each figure beside the published one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadgen.lab.evidence import ExperimentResult
from reports import names
from reports.blocks import ABSENT, Axis, Block, Cell, Chart, Charts, Column, Section, Series, Table, Text, amount_cell
from reports.formats import published
from reports.formats.apachebench import AbReport
from reports.page.charts import TIME, distribution, over_time, where_time_goes
from reports.page.sections import headline, notices

_SUMMARY_ROWS = ("min", "max", "mean", "median", "p95", "p99")
_AB_FIGURES = (
    ("Time taken for tests (s)", "time_taken_s"),
    ("Complete requests", "complete"),
    ("Failed requests", "failed"),
    ("Non-2xx responses", "non_2xx"),
    ("Total transferred (bytes)", "total_bytes"),
    ("HTML transferred (bytes)", "html_bytes"),
    ("Requests per second", "requests_per_second"),
    ("Time per request (ms)", "time_per_request_ms"),
    ("Time per request, across all (ms)", "time_per_request_all_ms"),
    ("Transfer rate (KB/s)", "transfer_rate_kbytes_s"),
)
_COMPARED = (names.CODES, names.DOWNLOADED_BYTES, names.ERRORS, "vusers.")
_FIGURE_COLUMNS = (
    Column("figure"),
    Column("published", "number"),
    Column("measured", "number"),
    Column("ratio", "number"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of an experiment, as published and as measured; None on the side that lacks it."""

    name: str
    published: float | None
    measured: float | None
    drawn: str = ""
    """What it is called in the chart of times; "" for a figure that is not drawn there."""

    @property
    def ratio(self) -> float | None:
        """Measured divided by published."""
        return self.measured / self.published if self.published and self.measured is not None else None


def comparisons(outcome: ExperimentResult) -> list[Comparison]:
    """The measured report beside the published one, figure by figure."""
    known = _published(outcome)
    if outcome.ab is not None:
        return _of_ab(known.ab if known else None, outcome.ab)
    return _of_artillery(known, outcome)


def rates(outcome: ExperimentResult) -> Comparison:
    """Requests per second by ab's count; both sides are None for an experiment that is not like a test of ab's."""
    known = _published(outcome)
    was = known.ab.requests_per_second if known and known.ab else None
    now = outcome.ab.requests_per_second if outcome.ab else None
    label = f"{outcome.experiment.id}: {outcome.experiment.title}"
    return Comparison("Requests per second", was, now, label)


def experiment_section(anchor: str, outcome: ExperimentResult) -> Section:
    """The section on one experiment; `anchor` is its id on the page."""
    experiment, report = outcome.experiment, outcome.report
    blocks: list[Block] = [*notices("", report), headline(report)]
    if charts := tuple(_charts(anchor, outcome)):
        blocks.append(Charts(charts))
    blocks.append(_table(anchor, comparisons(outcome)))
    if outcome.ab is not None:
        blocks.append(
            Text(
                "Failed requests are counted as ab does: an answer not as long as the first one is a failure (Length)."
            )
        )
    if outcome.unhonoured:
        blocks.append(
            Text(f"Settings of the source that this strategy has no use for: {', '.join(outcome.unhonoured)}.")
        )
    settings = "".join(f", {name}={value}" for name, value in experiment.settings.items())
    servers = "1 server" if experiment.servers == 1 else f"{experiment.servers} servers"
    lead = f"Strategy {experiment.strategy}, {servers}{settings}."
    return Section(anchor, f"{experiment.id}: {experiment.title}", tuple(blocks), 3, lead, menu=experiment.id)


def experiment_values(outcome: ExperimentResult) -> dict[str, Any]:
    """Everything known about one experiment except its report, for JSON."""
    experiment = outcome.experiment
    return {
        "title": experiment.title,
        "strategy": experiment.strategy,
        "servers": experiment.servers,
        "settings": experiment.settings,
        "settings_without_effect": outcome.unhonoured,
        "partial": outcome.partial,
        "requests": outcome.requests,
        "seconds": round(outcome.wall_s, 3),
        "failed_share": outcome.failed_share,
        "good_per_second": outcome.good_per_second,
        "peak_backends": outcome.peak_backends,
        "database_cpu_s": outcome.database_cpu_s,
        "servers_cpu_s": outcome.servers_cpu_s,
        "other_programs_cpu_share": outcome.others_share,
        "failures": outcome.failures.by_kind,
        "clicks_recorded": outcome.clicks_recorded,
        "pgbouncer_cpu_s": outcome.pgbouncer_cpu_s,
        "memory_use": None if outcome.memory_use is None else asdict(outcome.memory_use),
        "figures": [
            {"name": c.name, "published": c.published, "measured": c.measured, "ratio": c.ratio}
            for c in comparisons(outcome)
        ],
    }


def experiment_round(run: ExperimentResult) -> dict[str, Any]:
    """The headline figures of one round of an experiment, for JSON."""
    times = run.report.aggregate.summaries.get(names.RESPONSE_TIME)
    return {
        "requests": run.requests,
        "seconds": round(run.wall_s, 3),
        "failed_share": run.failed_share,
        "good_per_second": run.good_per_second,
        "p50_ms": times.p50 if times else None,
        "p99_ms": times.p99 if times else None,
        "other_programs_cpu_share": run.others_share,
    }


def dots(chart_id: str, title: str, x: Axis, found: Sequence[Comparison]) -> Chart | None:
    """A chart with a row for each figure that both sides have, and a dot for each side; None without such figures."""
    both = [c for c in found if c.drawn and c.published and c.measured]
    if not both:
        return None
    rows = tuple(float(row) for row in range(len(both)))
    return Chart(
        chart_id,
        title,
        "dot",
        x,
        Axis("", "", "category", tuple(c.drawn for c in both)),
        (
            Series("published", tuple(float(c.published or 0) for c in both), rows, 7, "dash"),
            Series("measured here", tuple(float(c.measured or 0) for c in both), rows, 0),
        ),
    )


def _published(outcome: ExperimentResult) -> published.PublishedExperiment | None:
    key = outcome.experiment.published
    return published.experiments().get(key) if key else None


def _of_ab(old: AbReport | None, new: AbReport) -> list[Comparison]:
    rows = [Comparison(label, getattr(old, key) if old else None, getattr(new, key)) for label, key in _AB_FIGURES]
    if new.non_2xx is None:
        # ab prints this line only where there is such an answer.
        rows = [replace(row, measured=0) if row.name.startswith("Non-2xx") else row for row in rows]
    for name, row in new.rows.items():
        was = old.rows.get(name) if old else None
        for key in ("min", "mean", "sd", "median", "max"):
            label = f"{name.capitalize()}, {'[+/-sd]' if key == 'sd' else key} (ms)"
            rows.append(Comparison(label, getattr(was, key) if was else None, getattr(row, key)))
    for percent, value in new.percentiles.items():
        was_ms = old.percentiles.get(percent) if old else None
        rows.append(Comparison(f"{percent}% within (ms)", was_ms, value, f"{percent}% within"))
    return rows


def _of_artillery(known: published.PublishedExperiment | None, outcome: ExperimentResult) -> list[Comparison]:
    total = outcome.report.aggregate
    was = known.report.aggregate if known else None
    counters = sorted({*total.counters, *(was.counters if was else {})})
    rows = [
        Comparison(name, was.counters.get(name) if was else None, total.counters.get(name))
        for name in counters
        if name.startswith(_COMPARED) and not name.startswith(names.VUSERS_CREATED_BY_NAME)
    ]
    old = was.summaries.get(names.RESPONSE_TIME) if was else None
    new = total.summaries.get(names.RESPONSE_TIME)
    for key in _SUMMARY_ROWS:
        pair = (getattr(old, key) if old else None, getattr(new, key) if new else None)
        rows.append(Comparison(f"{names.RESPONSE_TIME}, {key} (ms)", *pair, drawn=key))
    return rows


def _table(anchor: str, found: Sequence[Comparison]) -> Table:
    rows = tuple(
        (
            Cell(c.name),
            amount_cell(c.published),
            amount_cell(c.measured),
            Cell(ABSENT if c.ratio is None else f"{c.ratio:.2f}", c.ratio),
        )
        for c in found
    )
    return Table(f"{anchor}-figures", "Published beside measured", _FIGURE_COLUMNS, rows)


def _charts(anchor: str, outcome: ExperimentResult) -> Iterator[Chart]:
    one = [("", outcome.report)]
    compared = dots(
        "compared", "Times, published and measured", Axis(TIME.title, TIME.unit, "log"), comparisons(outcome)
    )
    for chart in (compared, *distribution(one), *over_time(one), where_time_goes(one)):
        if chart is not None:
            yield replace(chart, id=f"{anchor}-{chart.id}")
