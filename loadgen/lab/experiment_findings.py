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
from reports.model import Period
from reports.page.charts import TIME, where_time_goes
from reports.page.sections import headline, notices

_SUMMARY_ROWS = ("min", "max", "mean", "median", "p95", "p99")
_AB_COUNTS = (
    ("Time taken for tests (s)", "time_taken_s"),
    ("Complete requests", "complete"),
    ("Failed requests", "failed"),
    ("Non-2xx responses", "non_2xx"),
    ("Total transferred (bytes)", "total_bytes"),
    ("HTML transferred (bytes)", "html_bytes"),
)
"""Figures that grow with the number of requests."""

_AB_SHARES = (
    ("Failed requests (% of all)", "failed", 100),
    ("Non-2xx responses (% of all)", "non_2xx", 100),
    ("Total transferred (bytes a request)", "total_bytes", 1),
    ("HTML transferred (bytes a request)", "html_bytes", 1),
)
"""What stands in their place where the numbers of requests differ, each with its factor."""

_SAME_SIZE = 1.02
"""Numbers of requests up to this factor apart are alike: Artillery's arrivals vary a little."""

_EXTREMES = ("min", "max")
"""Rows that reach further the more requests there are."""

_AB_FIGURES = (
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
    """The measured report beside the published one, figure by figure.

    Where the numbers of requests differ, as in a brief session, counts become shares, and extremes are left out.
    """
    known = _published(outcome)
    if outcome.ab is not None:
        return _of_ab(known.ab if known else None, outcome.ab)
    return _of_artillery(known, outcome)


def experiment_section(anchor: str, outcome: ExperimentResult) -> Section:
    """The section on one experiment; `anchor` is its id on the page."""
    experiment, report = outcome.experiment, outcome.report
    blocks: list[Block] = [*notices([("", report)]), headline(report)]
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
    title = f"{experiment.title[:1].upper()}{experiment.title[1:]} ({experiment.id})"
    return Section(anchor, title, tuple(blocks), 3, lead, folded=True)


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


def _same_size(old: float | None, new: float | None) -> bool:
    """Whether two numbers of requests are alike; so they are where only one side has any."""
    return not old or not new or max(old, new) <= _SAME_SIZE * min(old, new)


def _of_ab(old: AbReport | None, new: AbReport) -> list[Comparison]:
    # ab prints the line of other answers than 2xx only where there is one.
    new = replace(new, non_2xx=new.non_2xx or 0)
    alike = _same_size(old.complete if old else None, new.complete)
    if alike:
        rows = [Comparison(label, getattr(old, key, None), getattr(new, key)) for label, key in _AB_COUNTS]
    else:
        rows = [
            Comparison(label, _a_request(old, key, factor), _a_request(new, key, factor))
            for label, key, factor in _AB_SHARES
        ]
    rows += [Comparison(label, getattr(old, key, None), getattr(new, key)) for label, key in _AB_FIGURES]
    for name, row in new.rows.items():
        was = old.rows.get(name) if old else None
        for key in ("min", "mean", "sd", "median", "max"):
            if key in _EXTREMES and not alike:
                continue
            label = f"{name.capitalize()}, {'[+/-sd]' if key == 'sd' else key} (ms)"
            rows.append(Comparison(label, getattr(was, key) if was else None, getattr(row, key)))
    for percent, value in new.percentiles.items():
        if percent == 100 and not alike:
            continue
        was_ms = old.percentiles.get(percent) if old else None
        rows.append(Comparison(f"{percent}% within (ms)", was_ms, value, f"{percent}% within"))
    return rows


def _a_request(side: AbReport | None, key: str, factor: float) -> float | None:
    """A count of ab's for each of its requests, times the factor."""
    count, sent = getattr(side, key, None), side.complete if side else None
    return factor * count / sent if count is not None and sent else None


def _of_artillery(known: published.PublishedExperiment | None, outcome: ExperimentResult) -> list[Comparison]:
    total = outcome.report.aggregate
    was = known.report.aggregate if known else None
    counters = sorted({*total.counters, *(was.counters if was else {})})
    compared = [n for n in counters if n.startswith(_COMPARED) and not n.startswith(names.VUSERS_CREATED_BY_NAME)]
    alike = _same_size(_answered(was), _answered(total))
    if alike:
        rows = [Comparison(n, was.counters.get(n) if was else None, total.counters.get(n)) for n in compared]
    else:
        rows = [
            Comparison(f"{n} (% of all answers)", _share_of(was, n), _share_of(total, n))
            for n in compared
            if n.startswith((names.CODES, names.ERRORS))
        ]
    old = was.summaries.get(names.RESPONSE_TIME) if was else None
    new = total.summaries.get(names.RESPONSE_TIME)
    for key in _SUMMARY_ROWS:
        if key in _EXTREMES and not alike:
            continue
        pair = (getattr(old, key) if old else None, getattr(new, key) if new else None)
        rows.append(Comparison(f"{names.RESPONSE_TIME}, {key} (ms)", *pair, drawn=key))
    return rows


def _answered(side: Period | None) -> int:
    """The number of answers of any status."""
    counters = side.counters if side else {}
    return sum(count for name, count in counters.items() if name.startswith(names.CODES))


def _share_of(side: Period | None, name: str) -> float | None:
    """A counter in per cent of all answers; 0 where there are answers, but none of this kind."""
    whole = _answered(side)
    return 100 * side.counters.get(name, 0) / whole if side and whole else None


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
    for chart in (compared, where_time_goes(one)):
        if chart is not None:
            yield replace(chart, id=f"{anchor}-{chart.id}")
