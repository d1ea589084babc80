"""The commands on saved reports, for the `loadgen` program to mount: flags in, one call, the chosen format out."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reports.diff import Diff
    from reports.model import Report


class BadInput(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
)
def diff(old: str, new: str, style: str) -> None:
    """Compare two reports: Artillery JSON (ours or Artillery's own), ApacheBench text, or published:ID.

    Shows each figure of both sides with its absolute and relative change; a dash where a side lacks the figure.
    """
    from reports.diff import compare
    from reports.model import ReportError

    try:
        click.echo(_diff_text(compare(_load(old), _load(new)), style), nl=False)
    except ReportError as error:
        raise BadInput(str(error)) from None


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--format", "style", type=click.Choice(["text", "json", "ab", "markdown"]), help="Default: text.")
@click.option("--periods", is_flag=True, help="With text: the periodic reports too.")
@click.option("-o", "--output", type=click.Path(), help="Write to this file instead of stdout.")
def report(files: tuple[str, ...], style: str | None, periods: bool, output: str | None) -> None:
    """Show a saved report, or several merged into one: by default as Artillery's console summary.

    Merging is exact; it needs the sketches that our own reports carry.
    """
    from reports.files import WriteError, write_text
    from reports.merge import merge
    from reports.model import ReportError

    try:
        merged = merge([_load(name) for name in files])
        text = _report_text(merged, style or _usual_style(merged), periods, colour=output is None and _colour())
        if output is None:
            click.echo(text, nl=False)
        else:
            write_text(output, text)
    except (ReportError, WriteError) as error:
        raise BadInput(str(error)) from None


def _load(spec: str) -> Report:
    from reports.read import load

    return load(spec)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _diff_text(found: Diff, style: str) -> str:
    from reports.diff import to_json, to_markdown, to_text

    if style == "json":
        return to_json(found)
    return to_markdown(found) if style == "markdown" else to_text(found, colour=_colour())


def _usual_style(shown: Report) -> str:
    """That of ab for what came from ab's text alone: it has no metrics of Artillery's."""
    total = shown.aggregate
    bare = not (total.counters or total.rates or total.summaries)
    return "ab" if bare and shown.extras is not None and shown.extras.ab is not None else "text"


def _report_text(shown: Report, style: str, periods: bool, *, colour: bool) -> str:
    from reports import apachebench, artillery_json, artillery_text, markdown
    from reports.model import ReportError

    if style == "json":
        return artillery_json.to_json(shown) + "\n"
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
