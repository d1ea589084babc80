"""The lab's findings as one page: claims, and every experiment with the published figures beside the measured ones. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Facts,
    Page,
    Section,
    Series,
    Table,
    Text,
    Tone,
    amount_cell,
    number_cell,
    percent,
)
from reports.model import Report
from reports.page.charts import TIME, distribution, over_time, where_time_goes
from reports.page.distance import distance_section
from reports.page.page import render
from reports.page.sections import flattened, headline, notices

_VERDICTS: Mapping[str, Tone] = {"reproduced": "good", "partly": "warn", "not reproduced": "bad"}
_RATE = "Requests per second"
_GAINS = {
    "processed": "requests without a failure",
    "rps": "requests per second",
    "time_per_request_ms": "time per request, ms",
}


def lab_page(
    document: Mapping[str, Any],
    reports: Mapping[str, Report],
    environment: Mapping[str, Any] | None = None,
    *,
    title: str = "Two published experiments, run again",
) -> str:
    """The page on the lab's `summary.json` (as decoded) and the reports of its experiments by id.

    An experiment without a report has its figures only; a report that the document does not name is left out.
    """
    experiments: Mapping[str, Mapping[str, Any]] = document.get("experiments", {})
    sections = [_claims(document)]
    if experiments:
        sections.append(_overview(experiments))
        for number, (key, found) in enumerate(experiments.items()):
            sections.append(_experiment(f"x{number}", key, found, reports.get(key)))
    sections += [_group(f"g{number}", group) for number, group in enumerate(document.get("groups", ()))]
    sections += [
        s
        for s in (
            distance_section(document),
            _gains(document),
            _memory(document),
            _restart(document),
            _machine(environment),
        )
        if s is not None
    ]
    verdicts = [claim["verdict"] for claim in document.get("claims", ())]
    told = ", ".join(f"{verdicts.count(v)} {v}" for v in (*_VERDICTS, "not measured") if v in verdicts)
    return render(Page(title, f"{len(verdicts)} claims: {told}", tuple(sections)))


def _claims(document: Mapping[str, Any]) -> Section:
    rows = tuple(
        (
            Cell(claim["claim"]),
            Cell(claim["verdict"], tone=_VERDICTS.get(claim["verdict"], "")),
            Cell(claim["published"].replace("->", "→")),
            Cell(claim["measured"].replace("->", "→")),
            Cell(claim["why"]),
            Cell(claim["criterion"]),
        )
        for claim in document.get("claims", ())
    )
    columns = (Column("claim"), Column("verdict", "mark"), Column("published"), Column("measured here"), Column("why"),
               Column("criterion, set beforehand"))  # fmt: skip
    blocks: list[Block] = []
    if document.get("partial"):
        blocks.append(Text("The session was interrupted; what follows was measured until then.", "warn"))
    blocks.append(Table("claims", "What the sources claim, and what was measured here", columns, rows, prose=True))
    blocks += [Text(str(note)) for note in document.get("notes", ())]
    return Section("claims", "Claims", tuple(blocks), menu="Claims")


def _overview(experiments: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = tuple(
        (
            Cell(key, link=f"x{number}"),
            Cell(str(found.get("title", ""))),
            number_cell(found.get("requests")),
            number_cell(found.get("seconds"), 1),
            Cell(
                percent(found.get("failed_share")),
                found.get("failed_share"),
                "bad" if found.get("failed_share") else "",
            ),
            number_cell(found.get("good_per_second"), 1),
            number_cell(found.get("peak_backends")),
            Cell(*_core(found.get("database_cpu_s"), found.get("seconds"))),
            Cell(*_core(found.get("servers_cpu_s"), found.get("seconds"))),
            Cell(", ".join(f"{kind}: {n}" for kind, n in sorted(found.get("failures", {}).items())) or ABSENT),
        )
        for number, (key, found) in enumerate(experiments.items())
    )
    numbers = ("requests", "seconds", "failed", "good/s", "backends", "database CPU", "servers' CPU")
    columns = (Column("id"), Column("arrangement"), *(Column(n, "number") for n in numbers), Column("failures logged"))
    table = Table(
        "overview",
        "Seen from outside",
        columns,
        rows,
        "Backends: most at once. CPU is in shares of one core.",
        tools=True,
    )
    chart = _rates(experiments)
    return Section("experiments", "Experiments", (*([Charts((chart,))] if chart else []), table), menu="Experiments")


def _core(cpu_s: float | None, seconds: float | None) -> tuple[str, float | None]:
    share = cpu_s / seconds if cpu_s is not None and seconds else None
    return percent(share), share


def _rates(experiments: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """Throughput, published and measured, a row for each experiment that has both."""
    found = [(f"{key}: {e.get('title', '')}", _figure(e, _RATE)) for key, e in experiments.items()]
    return _dots(
        "rates", "Requests per second, published and measured", Axis("requests per second", "/s", "log"), found
    )


def _figure(experiment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((f for f in experiment.get("figures", ()) if f["name"] == name), {})


def _dots(chart_id: str, title: str, x: Axis, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Chart | None:
    both = [(name, figure) for name, figure in found if figure.get("published") and figure.get("measured")]
    if not both:
        return None
    rows = tuple(float(row) for row in range(len(both)))
    return Chart(
        chart_id,
        title,
        "dot",
        x,
        Axis("", "", "category", tuple(name for name, _ in both)),
        (
            Series("published", tuple(float(f["published"]) for _, f in both), rows, 7, "dash"),
            Series("measured here", tuple(float(f["measured"]) for _, f in both), rows, 0),
        ),
        wide=chart_id == "rates",
    )


def _experiment(anchor: str, key: str, found: Mapping[str, Any], report: Report | None) -> Section:
    blocks: list[Block] = []
    if report is not None:
        blocks += [*notices("", report), headline(report)]
    charts = tuple(_charts(anchor, found, report))
    if charts:
        blocks.append(Charts(charts))
    blocks.append(_comparison(anchor, found))
    unused = found.get("settings_without_effect")
    if unused:
        blocks.append(Text(f"Settings that this strategy has no use for: {', '.join(unused)}."))
    settings = " ".join(f"{name}={value}" for name, value in found.get("settings", {}).items())
    lead = f"Strategy {found.get('strategy')}, {found.get('servers')} server(s)" + (
        f", {settings}." if settings else "."
    )
    return Section(anchor, f"{key}: {found.get('title', '')}", tuple(blocks), 3, lead, menu=key)


def _charts(anchor: str, found: Mapping[str, Any], report: Report | None) -> Iterator[Chart]:
    compared = [
        (figure["name"].removesuffix(" (ms)").removeprefix("http.response_time, "), figure)
        for figure in found.get("figures", ())
        if "% within" in figure["name"] or figure["name"].startswith("http.response_time,")
    ]
    dots = _dots("compared", "Times, published and measured", Axis(TIME.title, TIME.unit, "log"), compared)
    drawn = [dots] if dots else []
    if report is not None:
        one = [("", report)]
        goes = where_time_goes(one)
        drawn += [*distribution(one), *over_time(one), *([goes] if goes else [])]
    for chart in drawn:
        yield replace(chart, id=f"{anchor}-{chart.id}")


def _comparison(anchor: str, found: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            Cell(figure["name"]),
            amount_cell(figure["published"]),
            amount_cell(figure["measured"]),
            Cell(ABSENT if figure["ratio"] is None else f"{figure['ratio']:.2f}", figure["ratio"]),
        )
        for figure in found.get("figures", ())
    )
    columns = Column("figure"), Column("published", "number"), Column("measured", "number"), Column("ratio", "number")
    return Table(f"{anchor}-figures", "Published beside measured", columns, rows)


def _group(anchor: str, group: Mapping[str, Any]) -> Section:
    """What a group of experiments found: a row each, a column for each heading."""
    columns = tuple(Column(name, "text" if number == 0 else "number") for number, name in enumerate(group["rows"][0]))
    rows = tuple(tuple(_value_cell(value) for value in row.values()) for row in group["rows"])
    table = Table(f"{anchor}-rows", group["title"], columns, rows, group["note"])
    return Section(anchor, group["title"], (table,), menu=group["title"].partition(":")[0])


def _value_cell(value: str | float | None) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    return Cell(ABSENT if value is None else f"{value:g}", value)


def _gains(document: Mapping[str, Any]) -> Section | None:
    gains = document.get("gains")
    if not gains:
        return None
    rows = []
    for gain in gains:
        less = gain["figure"] == "time_per_request_ms"
        old, new = gain["published"], gain["measured"]
        rows.append(
            (
                Cell(f"{gain['users']}: {_GAINS.get(gain['figure'], gain['figure'])}"),
                amount_cell(old[0]),
                amount_cell(old[1]),
                Cell(gain["printed"]),
                Cell(*_ratio(old, less=less)),
                amount_cell(new[0]),
                amount_cell(new[1]),
                Cell(*_ratio(new, less=less)),
            )
        )
    columns = (Column("users: figure"), Column("published before", "number"), Column("after", "number"),
               Column("as printed", "number"), Column("as a ratio", "number"), Column("measured before", "number"),
               Column("after", "number"), Column("as a ratio", "number"))  # fmt: skip
    note = "The source prints most of its ratios as percentages: +584.09% stands for 5.84 times as many."
    table = Table("gains", "A connection per request, then one shared pool", columns, tuple(rows), note)
    return Section("gains", "Source B's table of gains, recomputed", (table,), menu="Gains")


def _ratio(pair: Sequence[float], *, less: bool) -> tuple[str, float | None]:
    over, under = (pair[0], pair[1]) if less else (pair[1], pair[0])
    return (f"{over / under:.2f}", over / under) if under else (ABSENT, None)


def _memory(document: Mapping[str, Any]) -> Section | None:
    memory = document.get("memory")
    if not memory:
        return None
    low, high = memory["counts"]
    items = (
        (
            "one more connection",
            f"{memory['per_backend_mb']:.2f} MB (slope of summed PSS, {low} to {high} connections)",
        ),
        ("shared memory", f"{memory['shared_mb']:.0f} MB"),
        ("the server's own processes", f"{memory['base_mb']:.1f} MB"),
        *(
            (
                f"{n} connections need",
                f"{memory['shared_mb'] + memory['base_mb'] + n * memory['per_backend_mb']:.0f} MB",
            )
            for n in (40, 80, 100, 200)
        ),
    )
    return Section("memory", "Memory of the backends", (Facts("What connections cost", items),), menu="Memory")


def _restart(document: Mapping[str, Any]) -> Section | None:
    restart = document.get("restart")
    if not restart:
        return None
    before, after = restart["before"], restart["after"]
    columns = Column("rows"), Column("before", "number"), Column("after", "number")
    rows = tuple(
        (Cell(name), number_cell(before[i]), number_cell(after[i])) for i, name in enumerate(("links", "clicks"))
    )
    table = Table("restart", "Rows before and after", columns, rows)
    return Section("restart", "Restart of the database and every server", (table,), menu="Restart")


def _machine(environment: Mapping[str, Any] | None) -> Section | None:
    if not environment:
        return None
    return Section(
        "machine", "Environment", (Facts("Machine and versions", tuple(flattened(environment))),), menu="Environment"
    )
