"""What commands with gates leave for a CI system: a JUnit file (`--junit`), and a summary for GitHub's page of a job."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from reports import names
from reports.answers import failures
from reports.blocks import Block, Cell, Column, Items, Page, Section, Table, Text, amount_cell, decimal, number_cell
from reports.compare.gates import GateResult
from reports.compare.rates import measured_rate
from reports.files import write_text
from reports.formats.markdown import escaped
from reports.model import Report
from reports.writers.junit import to_junit
from reports.writers.markdown import to_markdown


def leave(
    command: str,
    results: Sequence[GateResult],
    page: Page,
    junit: str | None,
    step_summary: str | None,
    *,
    name: str = "",
    seconds: float = 0.0,
) -> None:
    """Write the JUnit file `junit`, and append the page to the Markdown file `step_summary`; None: not wanted.

    `name` is what the command ran, for the summary's heading. Raises WriteError where the JUnit file cannot be written. A
    summary that cannot be written is one line on stderr.
    """
    if junit is not None:
        write_text(junit, to_junit(command, results, seconds))
    if step_summary is not None:
        try:
            _append(step_summary, f"## {_heading(command, name, results)}\n\n{to_markdown(page)}\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            click.echo(f"Warning: cannot append to GITHUB_STEP_SUMMARY ({step_summary}): {reason}", err=True)


def run_summary(report: Report, results: Sequence[GateResult]) -> Page:
    """The summary of a run: its gates, requests, times and errors by kind, and the report's warnings."""
    total = report.aggregate
    times, rate = total.summaries.get(names.RESPONSE_TIME), measured_rate(report, names.REQUEST_RATE)
    failed = {name: total.counters[name] for name in sorted(failures(total.counters)) if total.counters[name]}
    headings = ("requests", "requests/s", "p50 ms", "p95 ms", "p99 ms", "failed")
    cells = (
        number_cell(total.counters.get(names.REQUESTS, 0)),
        amount_cell(rate.per_second if rate else None),
        *(_time_cell(report, getattr(times, row, None)) for row in ("p50", "p95", "p99")),
        number_cell(sum(failed.values())),
    )
    blocks: list[Block] = [Table("run", "The run", tuple(Column(label, "number") for label in headings), (cells,))]
    if failed:
        rows = tuple((Cell(name), number_cell(count)) for name, count in failed.items())
        blocks.append(Table("errors", "Errors by kind", (Column("error"), Column("requests", "number")), rows))
    if results:
        blocks.append(Items(tuple(Text(result.line, "good" if result.met else "bad") for result in results)))
    blocks += [Text(f"Warning: {warning}", "warn") for warning in (report.extras.warnings if report.extras else ())]
    return Page("loadgen run", "", (Section("run", "The run", tuple(blocks)),))


def _time_cell(report: Report, ms: float | None) -> Cell:
    """A response time; a bound such as "< 0.2" where the generator could not tell so short a time."""
    bound = report.bound_ms(names.RESPONSE_TIME, ms)
    return amount_cell(ms) if bound is None else Cell(f"< {decimal(bound)}", ms)


def _heading(command: str, name: str, results: Sequence[GateResult]) -> str:
    wanting = [result for result in results if not result.met and not result.optional]
    unknown = sum(result.unknown for result in wanting)
    what = f"{command} {escaped(name)}".strip()
    if not results:
        return what
    parts = [(len(wanting) - unknown, "failed"), (unknown, "could not be judged")]
    told = " and ".join(f"{count} of {len(results)} gates {outcome}" for count, outcome in parts if count)
    return f"{what}: {told or 'passed'}"


def _append(path: str, text: str) -> None:
    # Not blocking: a pipe that nobody reads must not hold up the command.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
