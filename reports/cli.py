"""The commands on saved reports, for the `loadgen` program to mount: flags in, one call, the chosen format out."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reports.compare.diff import Diff
    from reports.compare.gates import GateResult
    from reports.model import Report


class BadInput(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


@click.command()
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--old", "olds", multiple=True, metavar="REPORT", help="A run of the old side; repeatable.")
@click.option("--new", "news", multiple=True, metavar="REPORT", help="A run of the new side; repeatable.")
@click.option("--fail-on", "rules", multiple=True, metavar="RULE", help="Exit 1 where this holds; repeatable.")
@click.option(
    "--run-deviation",
    default="5%",
    show_default=True,
    metavar="PERCENT",
    help="By how much runs of one version differ (standard deviation), assumed where both sides are a single run.",
)
@click.option(
    "--least-effect",
    default="1ms,1%",
    show_default=True,
    metavar="MS,PERCENT",
    help="Changes of a time below either bound are not called better or worse; 0 calls any that is not chance.",
)
@click.option("--format", "style", type=click.Choice(["text", "markdown", "json", "html"]), help="Default: text.")
@click.option("-o", "--output", type=click.Path(), help="Write to this file instead of stdout.")
def diff(
    old: str | None,
    new: str | None,
    olds: tuple[str, ...],
    news: tuple[str, ...],
    rules: tuple[str, ...],
    run_deviation: str,
    least_effect: str,
    style: str | None,
    output: str | None,
) -> None:
    """Compare two reports, or several runs a side, and say what got better or worse beyond chance.

    OLD and NEW are files of Artillery (JSON of 2.x or 1.x, console text), ApacheBench, wrk, wrk2, hey, Locust (CSV) or k6
    (summary JSON); FILE#N, the Nth report in a text; or published:ID.

    A RULE is like 'p99 > +10%' (a signed limit is one of the change), 'errors > 0.1%', 'http.response_time.p95 > 250',
    'p99 worse' (by the verdict), or 'worse' (of any figure).
    """
    from reports.compare.diff import Criteria, compare_runs
    from reports.compare.gates import Gate
    from reports.files import WriteError
    from reports.model import ReportError

    before, after = [*([old] if old else []), *olds], [*([new] if new else []), *news]
    if not before or not after:
        raise click.UsageError("two reports are needed: OLD NEW, or --old and --new")
    try:
        gates = [Gate.parse(rule) for rule in rules]
        criteria = Criteria.parse(run_deviation, least_effect)
        runs = [[(spec, _load(spec)) for spec in side] for side in (before, after)]
        old_runs, new_runs = ([report for _, report in side] for side in runs)
        found = compare_runs(old_runs, new_runs, criteria)
        outcomes = [gate.check(found) for gate in gates]
        chosen = style or _style_of(output, ("markdown", "json", "html")) or "text"
        text = _diff_text(found, outcomes, [*runs[0], *runs[1]], chosen, colour=output is None and _colour())
        _write(text, output)
    except (ReportError, WriteError) as error:
        raise BadInput(str(error)) from None
    if chosen in ("json", "html") or output is not None:
        for outcome in outcomes:
            click.echo(outcome.line, err=True)
    if not all(outcome.met for outcome in outcomes):
        sys.exit(1)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "ab", "markdown", "csv", "html"]),
    help="Default: by the ending of the output's name, else text.",
)
@click.option("--periods", is_flag=True, help="With text and csv: the periods too.")
@click.option("-o", "--output", type=click.Path(), help="Write to this file instead of stdout.")
def report(files: tuple[str, ...], style: str | None, periods: bool, output: str | None) -> None:
    """Show a saved report, or several merged into one: by default as Artillery's console summary.

    Merging is exact; it needs the sketches that our own reports carry.
    """
    from reports.files import WriteError
    from reports.merge import merge
    from reports.model import ReportError

    try:
        merged = merge([_load(name) for name in files])
        chosen = style or _style_of(output, ("json", "markdown", "csv", "html")) or _usual_style(merged)
        label = ", ".join(Path(name).name for name in files)
        text = _report_text(merged, label, chosen, periods, colour=output is None and _colour())
        _write(text, output)
    except (ReportError, WriteError) as error:
        raise BadInput(str(error)) from None


def _load(spec: str) -> Report:
    from reports.formats.read import load

    # A large document is a million objects, none of them garbage: looking for it takes longer than reading them.
    gc.disable()
    try:
        return load(spec, lambda note: click.echo(note, err=True))
    finally:
        gc.freeze()
        gc.enable()


def _write(text: str, output: str | None) -> None:
    from reports.files import write_text

    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _style_of(output: str | None, known: tuple[str, ...]) -> str | None:
    """What the ending of a file's name asks for."""
    ending = Path(output).suffix.lower().removeprefix(".") if output else ""
    style = {"md": "markdown", "htm": "html"}.get(ending, ending)
    return style if style in known else None


def _diff_text(
    found: Diff,
    outcomes: list[GateResult],
    reports: list[tuple[str, Report]],
    style: str,
    *,
    colour: bool,
) -> str:
    from reports.compare import diff_text

    if style == "html":
        from reports.page.page import to_html

        return to_html(reports, found, title="Comparison of load tests")
    if style == "json":
        return diff_text.to_json(found, outcomes)
    if style == "markdown":
        return diff_text.to_markdown(found, outcomes)
    return diff_text.to_text(found, outcomes, colour=colour)


def _usual_style(shown: Report) -> str:
    """That of ab for what came from ab's text alone: it has no metrics of Artillery's."""
    total = shown.aggregate
    bare = not (total.counters or total.rates or total.summaries)
    return "ab" if bare and shown.extras is not None and shown.extras.ab is not None else "text"


def _report_text(shown: Report, label: str, style: str, periods: bool, *, colour: bool) -> str:
    from reports.formats import apachebench, artillery_json, artillery_text, csv_text, markdown
    from reports.model import ReportError

    if style == "html":
        from reports.page.page import to_html

        return to_html([(label, shown)], title=label)
    if style == "json":
        return artillery_json.to_json(shown) + "\n"
    if style == "csv":
        return csv_text.to_csv(shown, periods=periods)
    if style == "markdown":
        return markdown.report_text(shown)
    if style == "ab":
        if shown.extras is None or shown.extras.ab is None:
            raise ReportError("no ApacheBench figures in this report: it is not of one ab run")
        return apachebench.to_text(apachebench.AbReport.from_json(shown.extras.ab))
    parts = shown.periods if periods else ()
    return "".join(artillery_text.period_text(p, colour=colour) for p in parts) + artillery_text.summary_text(
        shown, colour=colour
    )
