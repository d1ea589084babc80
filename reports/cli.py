"""The commands on saved reports, which `loadgen` includes: turn flags into one call, and write the chosen format."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from reports.blocks import Page
    from reports.compare.diff import Diff
    from reports.compare.gates import GateResult
    from reports.model import Report

_EXPLAIN = "reports.explain"
_Command = TypeVar("_Command", bound=Callable[..., Any])


class BadInput(click.ClickException):
    """An input that cannot be used; ends the command with one line on stderr and exit code 2."""

    exit_code = 2

    def format_message(self) -> str:
        """The message, which may quote a file, without characters that a terminal would obey."""
        from reports.printable import printable

        return printable(self.message, "\n")


def remember_explain(context: click.Context, _: click.Parameter, explain: bool) -> bool:
    """The callback of an option --explain: `refused` honours the option."""
    context.meta[_EXPLAIN] = explain
    return explain


def explain_option(command: _Command) -> _Command:
    """Add --explain to a command that reads reports."""
    return click.option(
        "--explain",
        is_flag=True,
        expose_value=False,
        callback=remember_explain,
        help="For a file that cannot be read, say for each format why not.",
    )(command)


def refused(error: Exception) -> BadInput:
    """The end of a command for which an input could not be used; with --explain, each reader's reason has a line."""
    from reports.formats.read import UnreadableReport

    message, context = str(error), click.get_current_context(silent=True)
    if isinstance(error, UnreadableReport) and context is not None and _EXPLAIN in context.meta:
        if context.meta[_EXPLAIN]:
            message += "".join(f"\n  {kind}: {reason}" for kind, reason in error.reasons.items())
        else:
            message += " (--explain: what each format misses)"
    return BadInput(message)


class FiniteRange(click.FloatRange):
    """A range of numbers. It refuses infinity, and nan, which passes click's comparisons."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """As click's types do. Fails for a number that is not finite."""
        number: float = super().convert(value, parameter, context)
        if not isfinite(number):
            self.fail(f"{value!r} is not a finite number.", parameter, context)
        return number


class PercentRange(FiniteRange):
    """A range of percentages: `3%`; a bare `3` is the same."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """As click's types do."""
        return super().convert(value.removesuffix("%") if isinstance(value, str) else value, parameter, context)


def output_options(command: _Command) -> _Command:
    """Add the options of every command that has a result: --format, as `style`, and -o, as `output`."""
    style = click.option(
        "--format",
        "style",
        type=click.Choice(["text", "markdown", "json", "html"]),
        help="Format of the result (default: the one that the output file's ending names, else text).",
    )
    output = click.option(
        "-o",
        "--output",
        type=click.Path(),
        help="Write the result to this file (.txt, .md, .json, .html) instead of stdout.",
    )
    return style(output(command))


def junit_option(command: _Command) -> _Command:
    """Add the option of every command that has gates: --junit, as `junit`."""
    text = "Write what became of each gate to this file, as JUnit XML for a CI system."
    return click.option("--junit", type=click.Path(), metavar="FILE", help=text)(command)


def step_summary() -> str | None:
    """The file that a job of GitHub's wants a summary of this step in, as Markdown; None without one."""
    return os.environ.get("GITHUB_STEP_SUMMARY") or None


def tell_ci(command: str, found: Diff, outcomes: Sequence[GateResult], junit: str | None) -> None:
    """Write the JUnit file and the step's summary of a comparison, where they are wanted. Raises BadInput."""
    summary = step_summary()
    if junit is None and summary is None:
        return
    from reports.ci import leave
    from reports.compare.diff_blocks import comparison
    from reports.files import WriteError

    try:
        leave(command, outcomes, comparison(found, outcomes), junit, summary)
    except WriteError as error:
        raise BadInput(str(error)) from None


def check_output(output: str | None) -> None:
    """Check that the file `output` can be written; called before a long run. Raises BadInput."""
    from reports.files import WriteError, check_writable

    try:
        if output is not None:
            check_writable(Path(output))
    except WriteError as error:
        raise BadInput(str(error)) from None


def show(page: Page, style: str | None, output: str | None) -> None:
    """Write a result to the file `output`, or to stdout if that is None. Raises BadInput."""
    from reports.files import WriteError
    from reports.writers.output import coloured, put, style_of, terminal_width, written

    chosen = style_of(style, output)
    on_stdout = output is None
    try:
        put(
            written(page, chosen, colour=on_stdout and coloured(), width=terminal_width() if on_stdout else None),
            output,
        )
    except WriteError as error:
        raise BadInput(str(error)) from None


@click.command()
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--old", "olds", multiple=True, metavar="REPORT", help="Report of the old side; may be repeated.")
@click.option("--new", "news", multiple=True, metavar="REPORT", help="Report of the new side; may be repeated.")
@click.option(
    "--fail-on", "rules", multiple=True, metavar="RULE", help="Exit with 1 if this rule holds; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Show every figure, not only those that matter most.")
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
@junit_option
@explain_option
@output_options
def diff(
    old: str | None,
    new: str | None,
    olds: tuple[str, ...],
    news: tuple[str, ...],
    rules: tuple[str, ...],
    run_deviation: str,
    least_effect: str,
    everything: bool,
    junit: str | None,
    style: str | None,
    output: str | None,
) -> None:
    """Compare two reports, or several on each side, and say which figures got better or worse by more than chance.

    OLD and NEW are files of Artillery (JSON or console text of 2.x or 1.x), ApacheBench, wrk, wrk2, hey, oha, vegeta,
    autocannon, k6, Locust (CSV) or JMeter (CSV or XML); FILE#N is the Nth report in a text. published:ID is what was
    published of an experiment of `loadgen lab`, such as published:B.3.c1.

    A RULE is like 'p99 > +10%' (a signed limit is one of the change), 'errors > 0.1%', 'http.response_time.p95 > 250',
    'p99 worse' (by the verdict), or 'worse' (of any figure).

    With $GITHUB_STEP_SUMMARY set, the comparison is also appended to that file, as Markdown.
    """
    from reports.compare.diff import Criteria, compare_runs
    from reports.compare.diff_blocks import changes, comparison
    from reports.compare.gates import Gate, GateResult
    from reports.model import ReportError
    from reports.writers.output import style_of

    before, after = [*([old] if old else []), *olds], [*([new] if new else []), *news]
    if not before or not after:
        raise click.UsageError("two reports are needed: OLD NEW, or --old and --new")
    chosen = style_of(style, output)
    check_output(junit)
    try:
        gates = [Gate.parse(rule) for rule in rules]
        criteria = Criteria.parse(run_deviation, least_effect)
        runs = [[(spec, _load(spec)) for spec in side] for side in (before, after)]
        old_runs, new_runs = ([report for _, report in side] for side in runs)
        found = compare_runs(old_runs, new_runs, criteria)
        outcomes = [gate.check(found) for gate in gates]
        page = comparison(found, outcomes, everything=everything, rules_last=chosen == "text")
        if chosen == "html":
            # A page has room for what both sides are, and for figures by endpoint.
            from reports.page.page import report_page

            page = report_page([*runs[0], *runs[1]], changes(found, outcomes), title=page.title)
    except ReportError as error:
        raise refused(error) from None
    show(page, chosen, output)
    compared = [GateResult("the reports were compared", True, "passed: no rule was given (--fail-on)")]
    tell_ci("loadgen diff", found, outcomes or compared, junit)
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
    help="Format of the report (default: the one that the output file's ending names, else text; for a report of "
    "ApacheBench, ab instead of text).",
)
@explain_option
@click.option("--periods", is_flag=True, help="Also show each reporting period (formats text and csv).")
@click.option(
    "-o", "--output", type=click.Path(), help="Write to this file (.txt, .md, .json, .csv, .html) instead of stdout."
)
def report(files: tuple[str, ...], style: str | None, periods: bool, output: str | None) -> None:
    """Show a saved report, or several merged into one: by default as Artillery's console summary, and what ab printed as ab does.

    FILE may be - for standard input, FILE#N for the Nth report in a text, or published:ID for what was published of an
    experiment of `loadgen lab`, such as published:B.3.c1. Merging is exact; it needs the sketches that our own reports carry.
    """
    from reports import names
    from reports.compare.cautions import distinct
    from reports.compare.figures import is_of_another_tool, is_only_ab
    from reports.files import WriteError
    from reports.merge import merge
    from reports.model import ReportError
    from reports.writers.output import coloured, put, style_of

    try:
        loaded = [_load(name) for name in files]
        merged = merge(loaded)
        chosen = style_of(style, output, ("text", "json", "markdown", "csv", "html"))
        if style is None and chosen == "text" and is_only_ab(merged):
            chosen = "ab"
        label = ", ".join(Path(name).name for name in files)
        put(_report_text(merged, label, chosen, periods, colour=output is None and coloured()), output)
        if merged.extras is not None and merged.extras.partial:
            click.echo("The report is partial: the run did not reach its planned end.", err=True)
        if again := len(loaded) - len(distinct(loaded)):
            click.echo(f"{again} of {len(loaded)} reports are there a second time, and are counted again.", err=True)
        if names.INTENDED in merged.aggregate.summaries and is_of_another_tool(merged):
            click.echo(f"{names.INTENDED} is wrk2's corrected latency: from the planned start of a request.", err=True)
    except (ReportError, WriteError) as error:
        raise refused(error) from None


def _load(spec: str) -> Report:
    from reports.formats.read import load

    # A large document is a million objects, none of them garbage: looking for it takes longer than reading them.
    gc.disable()
    try:
        return load(spec, lambda note: click.echo(note, err=True))
    finally:
        gc.freeze()
        gc.enable()


def _report_text(shown: Report, label: str, style: str, periods: bool, *, colour: bool) -> str:
    from reports.compare.figures import is_of_another_tool, is_only_ab, without_ab
    from reports.formats import apachebench, artillery_json, artillery_text, csv_text, markdown

    if style == "html":
        from reports.page.page import render, report_page

        return render(report_page([(label, shown)], title=label))
    if style == "json":
        return artillery_json.to_json(shown) + "\n"
    if style == "ab":
        extras = shown.extras
        if extras is not None and extras.ab is not None:
            return apachebench.to_text(apachebench.AbReport.from_json(extras.ab))
        target = str((extras.environment if extras else {}).get("target", ""))
        return apachebench.to_text(apachebench.AbReport.of_script(shown, target))
    if is_only_ab(shown):
        shown = without_ab(shown)
    if style == "csv":
        return csv_text.to_csv(shown, periods=periods)
    if style == "markdown":
        return markdown.report_text(shown)
    parts = shown.periods if periods else ()
    return "".join(artillery_text.period_text(p, colour=colour) for p in parts) + artillery_text.summary_text(
        shown, colour=colour, everything=is_of_another_tool(shown)
    )
