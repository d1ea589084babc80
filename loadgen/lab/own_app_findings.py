"""The comparison of a user's own application under several strategies, as blocks: the verdict first. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadgen.lab.distance_findings import crossing_text, crossing_values
from loadgen.lab.evidence import Crossing
from poolbench.settings import POOL_SETTINGS
from reports import names
from reports.answers import failed_share, good_answers
from reports.blocks import (
    Cell,
    Code,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Table,
    Text,
    amount,
    amount_cell,
    number,
    percent,
    share_cell,
)
from reports.compare.cautions import lateness
from reports.compare.diff import Change, compare_runs
from reports.merge import merge
from reports.model import Report
from reports.page.sections import notices, report_sections

_TIMES = (
    ("response", names.RESPONSE_TIME, ("p50", "p95", "p99", "max")),
    ("pool wait", f"{names.SERVER}pool", ("p50", "p99", "max")),
    ("connect", f"{names.SERVER}connect", ("mean", "p99")),
    ("held", f"{names.SERVER}db", ("mean",)),
    ("worker CPU", f"{names.SERVER}cpu", ("mean",)),
    ("worker CPU in a loan", f"{names.SERVER}loan-cpu", ("mean",)),
)
"""Distributions to compare: the name for a reader, the metric, and fields of its summary."""

_SETTINGS = {setting.variable: setting for setting in POOL_SETTINGS}

_SHOWN_FAILURES = 3
_SOME, _MOST = 0.05, 0.5
"""Shares of requests that are worth a warning, and that leave too few others to compare strategies by."""
_TIMEOUTS = "ERR_SOCKET_TIMEOUT", "ETIMEDOUT"
"""Errors of requests for which the generator waited as long as it was told to."""
_TAIL = f"{names.RESPONSE_TIME}.p99"
_FAILED = "errors"
_REPLACED = ("own", "queue", "null", "fair")
"""What a strategy is compared with: the first of these that was run, which is what the application has today."""


_STRATEGIES = {
    "own": "the pool that the application configures",
    "queue": "QueuePool",
    "null": "a connection per request",
    "fair": "FairPool",
}


@dataclass(frozen=True, slots=True)
class OwnAppRun:
    """One run of one strategy. CPU in seconds; None: not known, as the database is not ours."""

    report: Report
    peak_backends: int
    wall_s: float
    servers_cpu_s: float = 0.0
    database_cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class OwnAppResult:
    """All runs of one strategy."""

    strategy: str
    runs: tuple[OwnAppRun, ...]

    @property
    def report(self) -> Report:
        """All runs as one report."""
        return merge([run.report for run in self.runs])

    @property
    def wall_s(self) -> float:
        """Seconds that all runs took."""
        return sum(run.wall_s for run in self.runs)

    @property
    def servers_cpu(self) -> float:
        """CPU that all servers used, in cores."""
        return sum(run.servers_cpu_s for run in self.runs) / self.wall_s

    @property
    def database_cpu(self) -> float | None:
        """CPU that the database used, in cores."""
        known = [run.database_cpu_s for run in self.runs if run.database_cpu_s is not None]
        return sum(known) / self.wall_s if len(known) == len(self.runs) else None


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """One figure of one strategy; its value is None where the runs do not have it."""

    name: str
    value: float | None
    is_share: bool = False
    """Whether it is a share, 0 to 1."""


def figures(result: OwnAppResult) -> list[ComparedFigure]:
    """The figures that strategies are compared by. Pool wait, connect, held and worker CPU are from Server-Timing."""
    total = result.report.aggregate
    failed = failed_share(total.counters)
    found = [
        ComparedFigure("requests", total.counters.get(names.REQUESTS, 0)),
        ComparedFigure("answered well", round(1 - failed, 4), is_share=True),
        ComparedFigure("failed", round(failed, 4), is_share=True),
        ComparedFigure("good per second", round(good_answers(total.counters) / result.wall_s, 1)),
        ComparedFigure("backends at peak", max(run.peak_backends for run in result.runs)),
        ComparedFigure("servers' CPU", round(result.servers_cpu, 4), is_share=True),
        ComparedFigure("database's CPU", result.database_cpu, is_share=True),
        ComparedFigure("without a connection", _unconnected(result), is_share=True),
    ]
    for label, name, keys in _TIMES:
        summary = total.summaries.get(name)
        found += [ComparedFigure(f"{label} {key} (ms)", getattr(summary, key) if summary else None) for key in keys]
    return found


def own_app_page(
    given: Mapping[str, Any],
    results: Sequence[OwnAppResult],
    notes: Sequence[str],
    crossing: Crossing | None,
    *,
    partial: bool,
    error: str = "",
) -> Page:
    """The comparison as a result: the verdict as its title, a row for each strategy, then all strategies side by side.

    `error`: what ended it early, other than a signal.
    """
    said, best = verdict(results)
    title, *sentences = said.text.split(". ", 1) if said.tone != "warn" else [said.text]
    named = [(result.strategy, result.report) for result in results]
    warned = list(notices(named))
    # Without a good answer, the error tells of the failures.
    silent = error and not any(good_answers(result.report.aggregate.counters) for result in results)
    told = [error, *([] if silent else [*map(_failures, results), *_doubts(results)])]
    warned += [Text(text, "warn") for text in told if text]
    if partial:
        ended = "it was ended by an error" if error else "the run was interrupted"
        warned.insert(0, Text(f"Partial: {ended}. What follows was measured until then.", "warn"))
    late = _late(results)
    line = (
        None
        if late or not best
        else line_for_production(
            best, given["settings"], given.get("url_variables", ("DATABASE_URL",)), given.get("driver", "psycopg2")
        )
    )
    answer = Section(
        "answer",
        "Strategies under the same load",
        (
            *(Text(sentence) for sentence in sentences),
            *warned,
            _answer_table(results, "" if late else best),
            *([line] if line else []),
        ),
        menu="Answer",
        data={"sentence": said.text, "best": best},
    )
    settings = ", ".join(f"{key}={value}" for key, value in given["settings"].items())
    # A command of the user's own has as many processes as it says itself.
    count = "" if given.get("server") else f"Servers: {given['servers']}. "
    remarks = [*notes, f"{count}Settings, where a strategy knows them: {settings}."]
    remarks.append("The servers' logs are in the folder logs, beside this page.")
    if crossing is not None:
        remarks.append(crossing_text(crossing))
    columns = Column("figure"), *(Column(result.strategy, "number") for result in results)
    rows = tuple(
        (Cell(row[0].name), *(_cell(figure) for figure in row)) for row in zip(*map(figures, results), strict=True)
    )
    rounds = max(len(result.runs) for result in results)
    caption = f"The same load under each strategy, in {rounds} round{'s' * (rounds > 1)}"
    note = (
        "Answered well: 2xx and 3xx. Backends: connections to PostgreSQL. CPU is in shares of one core. Without a connection:"
        " answers whose request had used none when they began. Pool wait: for a connection; connect: opening one; held: from"
        " getting a connection to giving it back, as are loans."
    )
    blocks = (Table("strategies-figures", caption, columns, rows, note), Items(tuple(map(Text, remarks))))
    compared = {result.strategy: {each.name: each.value for each in figures(result)} for result in results}
    strategies = Section("strategies", "Every figure", blocks, menu="Every figure", folded=True, data=compared)
    data = {
        **given,
        "partial": partial,
        "error": error or None,
        "verdict": said.text,
        "best": best,
        "notes": list(notes),
        "crossing": None if crossing is None else crossing_values(crossing),
    }
    first, *others = report_sections(named, summary=answer)
    sections = (first, strategies, *(replace(section, folded=True) for section in others))
    subtitle = f"{given['application']} under {given['script']}: {', '.join(result.strategy for result in results)}"
    return Page(f"{title.rstrip('.')}.", subtitle, sections, data)


def terminal_page(page: Page, out: Path) -> Page:
    """What a terminal shows at the end: the verdict, a row for each strategy, and where everything is; `out`: the folder."""
    items = ("Compared", page.subtitle), ("The page", (out / "index.html").resolve().as_uri())
    return Page("", "", (Section("end", "", (Text(page.title), *page.sections[0].blocks, Facts("", items))),))


def _answer_table(results: Sequence[OwnAppResult], best: str) -> Table:
    """A row for each strategy with the figures that decide."""
    shown = (
        "good per second",
        "failed",
        "response p50 (ms)",
        "response p99 (ms)",
        "pool wait p99 (ms)",
        "backends at peak",
    )
    headings = ("good answers/s", "failed", "p50, ms", "p99, ms", "wait for a connection p99, ms", "connections, most")
    rows = []
    for result in results:
        found = {figure.name: figure for figure in figures(result)}
        name = Cell(
            f"{result.strategy}: {_STRATEGIES[result.strategy]}", tone="good" if result.strategy == best else ""
        )
        rows.append((name, *(_cell(found[key]) for key in shown)))
    columns = Column("strategy", "mark"), *(Column(heading, "number") for heading in headings)
    return Table("answer-figures", "The same load under each strategy", columns, tuple(rows))


def _failures(result: OwnAppResult) -> str:
    """How many requests of the strategy failed, and how, in a sentence; "" where none did."""
    total = result.report.aggregate.counters
    failed = total.get(names.REQUESTS, 0) - good_answers(total)
    if failed <= 0:
        return ""
    kinds = what_failed(total)
    how = f" ({kinds})" if kinds else ""
    return f"{result.strategy}: {number(failed)} of {number(total[names.REQUESTS])} requests failed{how}."


def _doubts(results: Sequence[OwnAppResult]) -> Iterator[str]:
    """Why the runs say little about pools, in sentences: the script's requests were refused, or used no connection."""
    yield refusal([result.report for result in results])
    unused = [share for share in map(_unconnected, results) if share is not None]
    if unused and min(unused) > _MOST:
        lead, more = _of_all(len(results), min(unused))
        yield (
            f"{lead}{percent(min(unused))} of the answered requests{more} had used no connection when their answer began: they"
            " tell nothing of the pool. Their pages may come from a cache, or a login failed without an error."
        )


def refusal(reports: Sequence[Report]) -> str:
    """What answers with a status of 4xx say, in a sentence; "" where one of the reports has few of them."""
    share = _refused(reports)
    if share < _SOME:
        return ""
    lead, more = _of_all(len(reports), share)
    return (
        f"{lead}{percent(share)} of the requests{more} were answered with a status of 4xx, which no pool causes: look for a"
        " wrong path or method, a login or CSRF token that failed, or a limit on requests."
    )


def _of_all(count: int, share: float) -> tuple[str, str]:
    """The words before and after the least share, 0 to 1, of `count` strategies."""
    more = " or more" if share < 1 else ""
    return ("Under every strategy, ", more) if count > 1 else ("", "")


def _refused(reports: Sequence[Report]) -> float:
    """The share of requests answered with 4xx, 0 to 1: that of the report which has the fewest."""
    totals = [report.aggregate.counters for report in reports]
    counts = [sum(n for name, n in each.items() if name.startswith(f"{names.CODES}4")) for each in totals]
    return min(
        (n / total[names.REQUESTS] for n, total in zip(counts, totals, strict=True) if total.get(names.REQUESTS)),
        default=0.0,
    )


def _unconnected(result: OwnAppResult) -> float | None:
    """The share of answers whose request had held no connection until then, 0 to 1; None without Server-Timing."""
    held = result.report.aggregate.sketches.get(f"{names.SERVER}db")
    return held.zero_count / held.count if held is not None and held.count else None


def what_failed(total: Mapping[str, int]) -> str:
    """The most frequent failures with the endpoints that had them, such as "500 at /rows: 30"; "" where nothing failed.

    `total`: the counters of a report.
    """
    kinds: Counter[str] = Counter()
    # Not all need be counted by endpoint: the script may leave out requests without a name.
    statuses = Counter({name.removeprefix(names.CODES): n for name, n in total.items() if name.startswith(names.CODES)})
    for name, count in total.items():
        endpoint, separator, status = name.removeprefix(f"{names.ENDPOINT}.").rpartition(names.ENDPOINT_CODES)
        if name.startswith(f"{names.ENDPOINT}.") and separator:
            statuses[status] -= count
            kinds[f"{status} at {endpoint}"] += 0 if _is_good(status) else count
        elif name.startswith(names.ERRORS):
            kinds[name.removeprefix(names.ERRORS)] += count
    kinds.update({status: count for status, count in statuses.items() if not _is_good(status)})
    # Only those that came.
    kinds = +kinds
    most = ", ".join(f"{kind}: {number(count)}" for kind, count in kinds.most_common(_SHOWN_FAILURES))
    others = len(kinds) - _SHOWN_FAILURES
    return f"{most} and {others} other kind{'s' * (others > 1)}" if others > 0 else most


def _is_good(status: str) -> bool:
    return status.startswith(("2", "3"))


def _cell(figure: ComparedFigure) -> Cell:
    return share_cell(figure.value, bad=figure.name == "failed") if figure.is_share else amount_cell(figure.value)


def verdict(results: Sequence[OwnAppResult]) -> tuple[Text, str]:
    """What the runs show, in sentences, and the best strategy: that of today unless another is measurably better.

    The best is "" where nothing was answered well, and where most requests failed under every strategy.
    """
    base = min(results, key=lambda result: _REPLACED.index(result.strategy))
    unanswered = [r.strategy for r in results if not good_answers(r.report.aggregate.counters)]
    if late := _late(results):
        text = f"The strategies cannot be compared: {late}. Lower the script's rate, or free the machine."
        return Text(text, "warn"), base.strategy
    if len(unanswered) == len(results):
        return Text(f"No request was answered well ({', '.join(unanswered)}).", "warn"), ""
    if (refused := _refused([result.report for result in results])) >= _MOST:
        _, more = _of_all(len(results), refused)
        text = (
            f"No comparison is possible: {percent(refused)} of the requests{more} were answered with a status of 4xx."
        )
        return Text(f"{text} Correct the script first.", "warn"), ""
    if len(results) == 1:
        return Text(f"{base.strategy} alone was run: {_told(base)}."), base.strategy
    sentences: list[str] = []
    best = base
    for result in results:
        if result is base or result.strategy in unanswered:
            continue
        changes = {row.name: row for row in _changes(base, result) if row.name in {_TAIL, _FAILED}}
        verdicts = {row.verdict for row in changes.values()}
        parts = [_clause(row) for row in changes.values() if row.verdict in {"better", "worse"}]
        if parts:
            sentences.append(f"{result.strategy} beside {base.strategy}: {' and '.join(parts)}")
        if "better" in verdicts and "worse" not in verdicts and _tail(result) <= _tail_of_better(best, base):
            best = result
    sentences += [f"{name} answered nothing well" for name in unanswered]
    if base.strategy in unanswered and len(unanswered) < len(results):
        best = min((r for r in results if r.strategy not in unanswered), key=_tail)
    if best is base and (failed := min(failed_share(result.report.aggregate.counters) for result in results)) >= _MOST:
        _, more = _of_all(len(results), failed)
        text = f"No comparison is possible: {percent(failed)} of the requests{more} failed under every strategy."
        return Text(" ".join([text, _instead(results), *(f"{each}." for each in sentences)]), "warn"), ""
    if best is base:
        lead = f"No strategy is measurably better than {base.strategy} under this load: {_told(base)}."
    else:
        lead = f"Use {best.strategy}: {_told(best)}; {base.strategy}: {_told(base)}."
    text = f"{lead} {'. '.join(sentences)}." if sentences else lead
    return Text(text, "warn" if unanswered else "good"), best.strategy


def _instead(results: Sequence[OwnAppResult]) -> str:
    """What to do where most requests failed, in a sentence."""
    totals = [result.report.aggregate.counters for result in results]
    failed = sum(total.get(names.REQUESTS, 0) - good_answers(total) for total in totals)
    timeouts = sum(total.get(f"{names.ERRORS}{name}", 0) for total in totals for name in _TIMEOUTS)
    if 2 * timeouts < failed:
        return "Look at the servers' logs, and correct the script or lower its rate."
    return "Most had no answer in the generator's time (`config.http.timeout` of the script): lower the script's rate."


def _late(results: Sequence[OwnAppResult]) -> str:
    """Why the runs cannot be compared, in words: the generator was late; "" where it was not."""
    return lateness([run.report for result in results for run in result.runs], [])


def _changes(base: OwnAppResult, result: OwnAppResult) -> Iterator[Change]:
    old, new = ([run.report for run in each.runs] for each in (base, result))
    yield from compare_runs(old, new).rows


def _clause(row: Change) -> str:
    if row.name == _FAILED:
        return f"failures {percent(row.old)} to {percent(row.new)} ({row.verdict})"
    return f"p99 {amount(row.old)} to {amount(row.new)} ms ({row.verdict})"


def _tail(result: OwnAppResult) -> float:
    summary = result.report.aggregate.summaries.get(names.RESPONSE_TIME)
    return float("inf") if summary is None or summary.p99 is None else summary.p99


def _tail_of_better(best: OwnAppResult, base: OwnAppResult) -> float:
    """The p99 that a strategy must reach to be the best so far; any will do where none was better than today's."""
    return float("inf") if best is base else _tail(best)


def _told(result: OwnAppResult) -> str:
    total = result.report.aggregate
    return f"p99 {amount(_tail(result))} ms, {percent(failed_share(total.counters))} failed"


def parameters(strategy: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The plugin's URL parameters for the settings that the strategy knows."""
    return {_SETTINGS[key].parameters[0]: value for key, value in settings.items() if strategy in _SETTINGS[key].pools}


def line_for_production(
    strategy: str,
    settings: Mapping[str, str],
    url_variables: Sequence[str] = ("DATABASE_URL",),
    driver: str = "psycopg2",
) -> Code | None:
    """What to set in production for a strategy; None for the pool that the application configures itself.

    `url_variables`: where the application has its database's URL from, as in OwnApplication. `driver`: the one that it used.
    """
    if strategy == "own":
        return None
    chosen = {"plugin": "poolbench", "pool": strategy, **parameters(strategy, settings)}
    query = "&".join(f"{name}={value}" for name, value in chosen.items())
    caption = "For production, with poolbench-pool installed beside the application"
    names_of_parts = [text.partition("=")[0] for text in url_variables if "=" in text]
    if names_of_parts:
        return Code(f"{caption}; for the end of the URL that it makes of {', '.join(names_of_parts)}", f"?{query}")
    url = f"postgresql+{driver}://USER:PASSWORD@HOST/DATABASE?{query}"
    return Code(caption, "\n".join(f"{name}='{url}'" for name in url_variables))
