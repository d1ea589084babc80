"""A report, or several side by side, as the sections of a page. Pure: values in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports import names
from reports.answers import has_codes
from reports.blocks import (
    ABSENT,
    Block,
    Cell,
    Charts,
    Code,
    Column,
    Facts,
    Figure,
    Figures,
    Section,
    Table,
    Text,
    Tone,
    amount,
    amount_cell,
    clock,
    decimal,
    number,
    number_cell,
    percent,
    time_digits,
)
from reports.compare.figures import is_of_another_tool, tool
from reports.model import Report
from reports.page.charts import BREAKDOWN_NAMES, Named, distribution, over_time, where_time_goes
from reports.page.measures import (
    ab_of,
    breakdown,
    codes,
    duration_s,
    endpoints,
    errors,
    quantile,
    requests,
    scenarios,
    throughput,
    without_good_answer,
)

_TIMES = (
    (names.RESPONSE_TIME, "response time: request written to first byte"),
    (names.INTENDED, "intended start to last byte"),
    (names.SESSION_LENGTH, "session of a virtual user"),
    (f"{names.SERVER}pool", "server: waiting for a connection"),
    (f"{names.SERVER}connect", "server: opening a connection"),
    (f"{names.SERVER}db", "server: database statements"),
    (f"{names.SERVER}total", "server: whole request"),
    (names.START_LAG, "generator: start lag"),
)
_KEYS = ("count", "min", "mean", "p50", "p75", "p90", "p95", "p99", "p999", "max")
_KEY_LABELS = {"count": "samples", "p999": "p99.9"}
_GOOD = ("HTTP 1", "HTTP 2", "HTTP 3")
_SCRIPT = "script"
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def report_sections(
    reports: Sequence[Named], comparison: Section | None = None, *, summary: Section | None = None
) -> tuple[Section, ...]:
    """All sections for which these reports have data.

    `comparison` comes first, and tells the warnings itself; `summary` is in place of the usual one.
    """
    one = reports[0][1] if len(reports) == 1 else None
    found = [
        comparison,
        summary or _summary(reports, compared=comparison is not None),
        _over_time(reports),
        _distribution(reports),
        _time_goes(reports),
        *([_endpoints(one), _apachebench(one), _answers(one), _metrics(one)] if one else []),
        _machine(reports),
        _script(reports),
    ]
    return tuple(section for section in found if section is not None)


def headline(report: Report) -> Figures:
    """The headline figures of a report, as far as it has them: throughput, failures, response times and virtual users."""
    return Figures(tuple(_headline_items(report)))


def response_times(reports: Sequence[Named], table_id: str = "times") -> Table | None:
    """Percentiles in ms: of every timing of one report that is not of a single endpoint; of several, the response time."""
    if len(reports) == 1:
        rows = [(label, reports[0][1], metric) for metric, label in _TIMES]
        return _timings(table_id, "Percentiles in ms", "timing", rows)
    return _timings(table_id, "Response time in ms", "report", [(name, r, names.RESPONSE_TIME) for name, r in reports])


def notices(reports: Sequence[Named]) -> Iterator[Text]:
    """Warnings that stand before the figures: that a run was cut short, and those of the generator itself."""
    told: list[tuple[str, str]] = []
    for name, report in reports:
        if report.extras is not None and report.extras.partial:
            told.append((name, "The run did not reach its planned end; these figures are of the part that was run."))
        warnings = report.extras.warnings if report.extras is not None else ()
        told += [(name, f"{warning[:1].upper()}{warning[1:]}.") for warning in warnings]
    return _gathered(told, len(reports) > 1)


def _gathered(told: Iterable[tuple[str, str]], several: bool) -> Iterator[Text]:
    """Warnings, given as (name of the report, sentence); sentences that differ in numbers alone once, with their range."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, sentence in told:
        alike.setdefault(_NUMBER.sub("0", sentence), []).append((name, sentence))
    for group in alike.values():
        whose = ", ".join(dict.fromkeys(name for name, _ in group))
        ranges = iter([_range(found) for found in zip(*(_NUMBER.findall(each) for _, each in group), strict=True)])
        sentence = _NUMBER.sub(lambda _: next(ranges), group[0][1])  # noqa: B023 - called at once
        yield Text(f"{whose}: {sentence}" if several else sentence, "warn")


def _range(numbers: Iterable[str]) -> str:
    ordered = sorted(set(numbers), key=lambda number: float(number.replace(",", "")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _summary(reports: Sequence[Named], *, compared: bool) -> Section:
    if len(reports) == 1:
        return Section("summary", "Summary", (*notices(reports), headline(reports[0][1])), menu="Summary")
    title = "Side by side" if compared else "Summary"
    blocks: list[Block] = [*([] if compared else notices(reports)), _side_by_side(reports)]
    return Section("summary", title, tuple(blocks), menu=title)


def _headline_items(report: Report) -> Iterator[Figure]:
    counters = report.aggregate.counters
    asked, lost, rate, seconds = requests(report), without_good_answer(report), throughput(report), duration_s(report)
    if rate is not None:
        yield Figure("Throughput", f"{amount(rate)}/s", _rate_words([report]))
    if asked is not None:
        yield Figure("Requests", number(asked), f"in {_duration(seconds)}" if seconds is not None else "")
    if lost is not None and asked:
        tone: Tone = "bad" if lost else "good"
        label, what = "No good answer", "without a 2xx or 3xx answer"
        if not _has_statuses(report):
            label, what = "Failed", f"by the count of {tool(report)}"
        yield Figure(label, percent(lost / asked), f"{number(lost)} {what}", tone)
    yield from _headline_times(report)
    created = counters.get(names.VUSERS_CREATED)
    if created is not None:
        told = [f"{number(counters.get(names.VUSERS_COMPLETED, 0))} completed"]
        told += [
            f"{number(n)} {word}"
            for name, word in ((names.VUSERS_FAILED, "failed"), (names.VUSERS_SKIPPED, "skipped"))
            if (n := counters.get(name))
        ]
        yield Figure("Virtual users", number(created), ", ".join(told))


def _headline_times(report: Report) -> Iterator[Figure]:
    """Percentiles of the response time, a dash for each of the usual ones that is missing; ApacheBench's, if it has its own."""
    found = {key: quantile(report.aggregate, names.RESPONSE_TIME, key) for key in ("p50", "p95", "p99", "p999")}
    ab = ab_of(report)
    if ab is not None and ab.percentiles and found["p50"] is None:
        for percentage, ms in ab.percentiles.items():
            if percentage in (50, 95, 99):
                yield Figure(f"{percentage} % within", f"{ms} ms", "total time")
        return
    for key, value in found.items():
        if value is not None:
            yield Figure(
                _KEY_LABELS.get(key, key), f"{_time_cell(report, names.RESPONSE_TIME, key).text} ms", "response time"
            )
        elif key != "p999" and requests(report) is not None:
            yield Figure(key, ABSENT, "response time")


def _side_by_side(reports: Sequence[Named]) -> Table:
    columns = (Column("figure"), *(Column(name, "number") for name, _ in reports))
    of = [report for _, report in reports]
    lost = "without a 2xx or 3xx answer"
    if not all(map(_has_statuses, of)):
        lost += ", or failed by the tool's own count"
    rows: list[tuple[Cell, ...]] = [
        (Cell(_rate_words(of)), *(number_cell(throughput(r), 1) for _, r in reports)),
        (Cell("requests"), *(number_cell(requests(r)) for _, r in reports)),
        (Cell(lost), *(_share_cell(without_good_answer(r), requests(r)) for _, r in reports)),
    ]
    for key in ("mean", "p50", "p95", "p99", "p999", "max"):
        values = [quantile(r.aggregate, names.RESPONSE_TIME, key) for _, r in reports]
        if any(v is not None for v in values):
            cells = (_time_cell(r, names.RESPONSE_TIME, key, time_digits(values)) for _, r in reports)
            rows.append((Cell(f"response time {_KEY_LABELS.get(key, key)}, ms"), *cells))
    if any(ab_of(r) for _, r in reports):
        rows += _ab_side_by_side(reports)
    rows.append((Cell("duration, s"), *(number_cell(duration_s(r), 1) for _, r in reports)))
    if len(reports) == 2:
        columns = (*columns, Column("change", "number"))
        rows = [(*row, _relative_cell(row[1].sort, row[2].sort)) for row in rows]
    return Table("headline", "Headline figures", columns, tuple(rows))


def _rate_words(reports: Sequence[Report]) -> str:
    """The unit of `throughput` in these reports. A rate that a tool printed is one of requests, answered or not."""
    printed = any(duration_s(report) is None and throughput(report) is not None for report in reports)
    return f"{'requests' if printed else 'answers'} per second"


def _has_statuses(report: Report) -> bool:
    """Whether a report counts answers by their status. Ours and Artillery's do, even if nothing was answered."""
    return has_codes(report.aggregate.counters) or not is_of_another_tool(report)


def _ab_side_by_side(reports: Sequence[Named]) -> Iterator[tuple[Cell, ...]]:
    for percentage in (50, 95, 99, 100):
        values = [ab.percentiles.get(percentage) if (ab := ab_of(r)) else None for _, r in reports]
        if any(v is not None for v in values):
            yield (Cell(f"total time, {percentage} % within, ms"), *map(amount_cell, values))


def _over_time(reports: Sequence[Named]) -> Section | None:
    charts = over_time(reports)
    if not charts:
        return None
    lead = "Time counts from the run's first event."
    return Section("over-time", "Over time", (Charts(charts),), lead=lead, menu="Over time")


def _distribution(reports: Sequence[Named]) -> Section | None:
    table, charts = response_times(reports), distribution(reports)
    blocks: tuple[Block, ...] = (*([Charts(charts)] if charts else []), *([table] if table else []))
    if not blocks:
        return None
    lead = "Response time runs from the request being fully written to the first byte of its answer."
    if charts:
        lead += " Percentiles are from sketches, within 1 % of the true value."
    return Section("distribution", "Response times", blocks, lead=lead, menu="Response times")


def _time_goes(reports: Sequence[Named]) -> Section | None:
    chart = where_time_goes(reports)
    if chart is None:
        return None
    rows = []
    for name, report in reports:
        shares = breakdown(report.aggregate)
        whole = sum(s.ms for s in shares)
        rows += [
            (
                *([Cell(name)] if len(reports) > 1 else []),
                Cell(BREAKDOWN_NAMES[s.name]),
                amount_cell(s.ms),
                Cell(percent(s.ms / whole if whole else None), s.ms / whole if whole else None),
            )
            for s in shares
        ]
    first = (Column("report"),) if len(reports) > 1 else ()
    columns = (*first, Column("part"), Column("mean, ms", "number"), Column("share", "number"))
    lead = (
        "Mean times, which add up to the mean response time. The service reports all but the last of them in "
        "the Server-Timing header; what remains was spent outside it."
    )
    blocks: tuple[Block, ...] = (
        *_mostly_outside(reports),
        Charts((chart,)),
        Table("parts", "Parts of an answer's time", columns, tuple(rows)),
    )
    return Section("time-goes-section", "Where the time goes", blocks, lead=lead, menu="Where time goes")


def _mostly_outside(reports: Sequence[Named]) -> Iterator[Text]:
    """Names the reports whose answers spent most of their time outside the service."""
    told: list[tuple[str, str]] = []
    for name, report in reports:
        shares = {share.name: share.ms for share in breakdown(report.aggregate)}
        share = shares.get("outside", 0.0) / (sum(shares.values()) or 1.0)
        if share > 0.5:
            sentence = (
                f"Most of an answer's time, {percent(share)} of it, was spent outside the service: waiting until a worker "
                "took the request, and on the network. Neither the pool nor the database can make that shorter."
            )
            told.append((name, sentence))
    return _gathered(told, len(reports) > 1)


def _endpoints(report: Report) -> Section | None:
    total = report.aggregate
    blocks: list[Block] = []
    digits = time_digits(quantile(total, metric, "max") for _, metric, _ in endpoints(total))
    by_endpoint = tuple(
        (
            Cell(endpoint),
            number_cell(quantile(total, metric, "count")),
            *(_time_cell(report, metric, key, digits) for key in ("mean", "p50", "p95", "p99", "max")),
            Cell(", ".join(f"{kind}: {number(n)}" for kind, n in sorted(found.items())) or ABSENT),
        )
        for endpoint, metric, found in endpoints(total)
    )
    if by_endpoint:
        columns = (
            Column("endpoint"),
            *(Column(c, "number") for c in ("answers", "mean", "p50", "p95", "p99", "max")),
            Column("answers and errors by kind"),
        )
        blocks.append(Table("endpoints", "By endpoint, times in ms", columns, by_endpoint, tools=True))
    by_scenario = scenarios(total.counters)
    if by_scenario:
        created = sum(by_scenario.values())
        rows = tuple(
            (Cell(name), number_cell(n), Cell(percent(n / created), n / created)) for name, n in by_scenario.items()
        )
        columns = Column("scenario"), Column("virtual users", "number"), Column("share", "number")
        blocks.append(Table("scenarios", "By scenario", columns, rows))
    return Section("endpoints-section", "Endpoints and scenarios", tuple(blocks), menu="Endpoints") if blocks else None


def _apachebench(report: Report) -> Section | None:
    ab = ab_of(report)
    if ab is None or not ab.rows:
        return None
    columns = (Column("ms"), *(Column(c, "number") for c in ("min", "mean", "sd", "median", "max")))
    rows = tuple(
        (
            Cell(name),
            number_cell(r.min),
            number_cell(r.mean),
            number_cell(r.sd, 1),
            number_cell(r.median),
            number_cell(r.max),
        )
        for name, r in ab.rows.items()
    )
    blocks: list[Block] = [Table("connection-times", "Connection times", columns, rows)]
    if ab.percentiles:
        within = tuple((Cell(f"{p} %"), number_cell(ms)) for p, ms in ab.percentiles.items())
        columns = Column("share"), Column("ms", "number")
        blocks.append(Table("ab-percentiles", "Requests served within", columns, within))
    lead = "By ApacheBench's own definitions."
    return Section("apachebench", "ApacheBench's figures", tuple(blocks), lead=lead, menu="ApacheBench")


def _answers(report: Report) -> Section | None:
    counters = report.aggregate.counters
    found = [(f"HTTP {code}", n) for code, n in codes(counters).items()] + list(errors(counters).items())
    if not found:
        return None
    total = requests(report) or 0
    rows = tuple(
        (Cell(kind, tone="" if kind.startswith(_GOOD) else "bad"), number_cell(n), _share_cell(n, total))
        for kind, n in found
    )
    columns = Column("answer or error", "mark"), Column("count", "number"), Column("of requests", "number")
    table = Table("answers", "By status and kind", columns, rows)
    return Section("answers", "Answers and errors", (table,), menu="Answers")


def _metrics(report: Report) -> Section | None:
    total = report.aggregate
    blocks: list[Block] = []
    plain = [(Cell(name), number_cell(n)) for name, n in sorted(total.counters.items())]
    plain += [
        (Cell(name), Cell(f"{amount(rate.per_second)}/s", rate.per_second))
        for name, rate in sorted(total.rates.items())
    ]
    if plain:
        columns = Column("metric"), Column("value", "number")
        blocks.append(Table("counters", "Counters and rates", columns, tuple(plain), tools=True))
    distributions = _timings(
        "summaries", "Distributions", "metric", [(name, report, name) for name in sorted(total.summaries)]
    )
    if distributions is not None:
        blocks.append(replace(distributions, note="Times are in ms.", tools=True))
    return Section("metrics", "Every metric", tuple(blocks), menu="Metrics") if blocks else None


def _machine(reports: Sequence[Named]) -> Section | None:
    known = [(name, report.extras) for name, report in reports if report.extras is not None]
    several = len(reports) > 1
    blocks: list[Block] = [
        Facts(
            f"Generator: {name}" if several else "Generator", (("workload", extras.model), *_of_runs(extras.generator))
        )
        for name, extras in known
    ]
    machines = [(name, [fact for fact in _of_runs(extras.environment) if fact[0] != _SCRIPT]) for name, extras in known]
    shared = [fact for fact in machines[0][1] if all(fact in facts for _, facts in machines)] if machines else []
    told = [("Environment", shared)]
    told += [(f"Environment: {name}", [fact for fact in facts if fact not in shared]) for name, facts in machines]
    blocks += [Facts(caption, tuple(facts)) for caption, facts in told if facts]
    return Section("machine", "Generator and environment", tuple(blocks), menu="Environment") if blocks else None


def _script(reports: Sequence[Named]) -> Section | None:
    """The script of all reports, or of each where they differ; of merged runs that differ in it, the first one's."""
    scripts: dict[str, str] = {}
    for name, report in reports:
        for run in reversed(_runs(report.extras.environment if report.extras is not None else {})):
            if isinstance(text := run.get(_SCRIPT), str):
                scripts[name] = text
    if len(set(scripts.values())) == 1:
        scripts = {"": next(iter(scripts.values()))}
    blocks = tuple(Code(f"Script: {name}" if name else "Script", text) for name, text in scripts.items())
    return Section("script", "Script", blocks, menu="Script") if blocks else None


def _runs(values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What is told of each of the merged runs where they differ; else of the one run."""
    runs = values.get("runs")
    return runs if isinstance(runs, list) and runs and all(isinstance(run, Mapping) for run in runs) else [values]


def _of_runs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts of a run by name; of merged ones, the values of all of them where they differ."""
    runs = [dict(flattened(run)) for run in _runs(values)]
    for name in dict.fromkeys(name for run in runs for name in run):
        yield name, ", ".join(dict.fromkeys(run.get(name, ABSENT) for run in runs))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (name, text), such as `packages.gevent` and `26.9.0`, or `runs.1.cpu_s` of several."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and value and all(isinstance(each, Mapping) for each in value):
            for number, each in enumerate(value, start=1):
                yield from flattened(each, f"{name}.{number}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(str(v) for v in value) or ABSENT
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            yield name, ABSENT if value is None else str(value)


def _timings(table_id: str, caption: str, first: str, rows: Iterable[tuple[str, Report, str]]) -> Table | None:
    """A table with a row for each (name, report, metric) that has any figure; None where none has."""
    told = [row for row in rows if any(quantile(row[1].aggregate, row[2], key) is not None for key in _KEYS)]
    digits = time_digits(quantile(report.aggregate, metric, "max") for _, report, metric in told)
    cells = tuple(
        (Cell(label), *(_time_cell(report, metric, key, 0 if key == "count" else digits) for key in _KEYS))
        for label, report, metric in told
    )
    columns = (Column(first), *(Column(_KEY_LABELS.get(key, key), "number") for key in _KEYS))
    return Table(table_id, caption, columns, cells) if cells else None


def _time_cell(report: Report, metric: str, key: str, digits: int | None = None) -> Cell:
    """A figure of a distribution of times in ms; a bound such as "< 0.2" where the generator could not tell so short a time."""
    value = quantile(report.aggregate, metric, key)
    if key != "count" and (bound := report.bound_ms(metric, value)) is not None:
        return Cell(f"< {decimal(bound)}", value)
    return amount_cell(value) if digits is None else number_cell(value, digits)


def _share_cell(part: int | None, whole: int | None) -> Cell:
    share = part / whole if part is not None and whole else None
    return Cell(percent(share), share)


def _relative_cell(old: float | None, new: float | None) -> Cell:
    relative = (new - old) / abs(old) if old and new is not None else None
    return Cell(ABSENT if relative is None else f"{relative * 100:+.1f} %", relative)


def _duration(seconds: float) -> str:
    return f"{amount(seconds)} s" if seconds < 60 else clock(seconds)
