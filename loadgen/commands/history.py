"""`loadgen history`: in which of many reports the level of a figure changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import click

from reports.ci import leave
from reports.cli import (
    BadInput,
    check_output,
    explain_option,
    junit_option,
    output_options,
    refused,
    show,
    step_summary,
)
from reports.compare.diff import Criteria
from reports.compare.gates import Gate, GateResult
from reports.compare.history import Entry
from reports.compare.history import history as look
from reports.compare.history_blocks import history_page
from reports.files import WriteError, exists, is_folder, read_bytes
from reports.formats.plain_text import decoded
from reports.formats.read import MOST_BYTES, load, read
from reports.model import ReportError
from reports.printable import printable


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="DIR|FILE...")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Look at this figure only; may be repeated.")
@click.option(
    "--order",
    type=click.Choice(["time", "name"]),
    default="time",
    show_default=True,
    help="Order of the reports: by when they were made (where a report does not say, by its file's time), or by file name.",
)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Look at the last N reports only.")
@click.option(
    "--least-effect",
    default="1ms,1%",
    show_default=True,
    metavar="MS,PERCENT",
    help="Changes of a time below either bound are left out; 0 shows any that is not chance.",
)
@click.option(
    "--fail-on",
    "rules",
    multiple=True,
    metavar="RULE",
    help="Exit with 1 if this rule holds for the last change of a figure: 'worse', 'p99 worse', 'p99 > +10%'; may be repeated.",
)
@junit_option
@explain_option
@output_options
def history(
    paths: tuple[str, ...],
    metrics: tuple[str, ...],
    order: str,
    last: int | None,
    least_effect: str,
    rules: tuple[str, ...],
    junit: str | None,
    style: str | None,
    output: str | None,
) -> None:
    """Find change points over many reports: which figure changed its level, between which two reports, and by how much.

    Reports are files, or folders with all files in them, of any format that `loadgen report` reads. Looked at are failed
    requests, the rate of requests, the median, p95 and p99, and p95 of each endpoint; 8 reports are needed.

    A file in a folder that is not a report is named on stderr and left out.

    With $GITHUB_STEP_SUMMARY set, the result is also appended to that file, as Markdown.
    """
    check_output(junit)
    check_output(output)
    try:
        gates = [Gate.parse(rule) for rule in rules]
        criteria = Criteria.parse(least_effect=least_effect)
        entries = _in_order(_read(paths), order)
        found = look(entries[-last:] if last else entries, metrics, criteria)
        diff = found.last_changes()
        outcomes = [gate.check(diff) for gate in gates]
    except ReportError as error:
        raise refused(error) from None
    page = history_page(found, outcomes)
    show(page, style, output)
    try:
        judged = GateResult("the reports were read", True, "passed: no rule was given (--fail-on)")
        leave("loadgen history", outcomes or [judged], page, junit, step_summary())
    except WriteError as error:
        raise BadInput(str(error)) from None
    if not all(outcome.met for outcome in outcomes):
        if output is not None or style in ("json", "html"):
            for outcome in outcomes:
                click.echo(outcome.line, err=True)
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class _Found:
    """A report, and whether it says itself when it was made."""

    entry: Entry
    timed: bool


def _read(paths: Sequence[str]) -> list[_Found]:
    """The reports of these files and folders.

    A file in a folder that holds no report is named on stderr. Raises ReportError if one that was named itself holds none,
    after a line on stderr for each other such file, or if there is no report at all.
    """
    found: list[_Found] = []
    wrong: list[ReportError] = []
    for path, named in _files(paths):
        try:
            found += _reports_in(path)
        except ReportError as error:
            if named:
                wrong.append(error)
            else:
                click.echo(f"Left out: {printable(str(error))}", err=True)
    for other in wrong[:-1]:
        click.echo(f"Error: {printable(str(other))}", err=True)
    if wrong:
        raise wrong[-1]
    if not found:
        raise ReportError(f"{', '.join(paths)}: there is no report in it")
    return found


def _files(paths: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each file once, and whether it was named itself; of folders all files in them, except hidden ones."""
    seen: set[Path] = set()
    for path in paths:
        # What the shell left as it is, because it was quoted.
        pattern = has_magic(path) and not exists(path)
        expanded = sorted(glob(path, recursive=True)) if pattern else [path]  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not expanded:
            raise ReportError(f"{path}: no file matches")
        for each in expanded:
            if is_folder(each):
                inside = (file for file in Path(each).rglob("*") if not _hidden(file.relative_to(each)))
                files = [(str(file), False) for file in sorted(inside) if file.is_file()]
            else:
                files = [(each, True)]
            for file, named in files:
                if (known := Path(file).resolve()) not in seen:
                    seen.add(known)
                    yield file, named


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _reports_in(path: str) -> Iterator[_Found]:
    """All reports in a file, or the one of FILE#N. Raises ReportError."""
    file = Path(path)
    if exists(file):
        try:
            text, made_ms = decoded(read_bytes(file, MOST_BYTES)), 1000 * file.stat().st_mtime
        except (OSError, ValueError) as error:
            raise ReportError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        reports = read(text, path)
    else:
        reports = [load(path)]
        made_ms = 1000 * Path(path.rpartition("#")[0]).stat().st_mtime if "#" in path else 0.0
    for number, report in enumerate(reports, 1):
        start_ms = report.aggregate.first_metric_ms or report.aggregate.start_ms
        told = report.extras.environment if report.extras else {}
        label = str(told.get("commit") or told.get("label") or "")
        name = f"{path}#{number}" if len(reports) > 1 else path
        yield _Found(Entry(name, report, start_ms or made_ms, label), bool(start_ms))


def _in_order(found: Sequence[_Found], order: str) -> list[Entry]:
    """The reports by when they were made, or by name, in which numbers count as such: run2 before run10."""
    untimed = [each.entry.name for each in found if not each.timed]
    if untimed and order == "time":
        some = f"{', '.join(untimed[:3])}{f' and {len(untimed) - 3} more' if len(untimed) > 3 else ''}"
        click.echo(f"Ordered by the file's time, as the report has none (--order name): {some}", err=True)
    entries = sorted((each.entry for each in found), key=lambda entry: _natural(entry.name))
    return entries if order == "name" else sorted(entries, key=lambda entry: entry.at_ms)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
