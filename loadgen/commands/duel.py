"""The command `loadgen duel`: one script against two targets at once, and which of them is better."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import click

from loadgen.commands.exits import COULD_NOT_RUN, SIGNALLED, calibrate_for, calibration_option, write_json
from loadgen.commands.script_options import check_url, read_script_with, script_options
from reports.cli import BadInput, FiniteRange, check_output, junit_option, show, tell_ci
from reports.files import WriteError, check_writable
from reports.printable import shown_url

if TYPE_CHECKING:
    from loadgen.duel import DuelRuns
    from loadgen.script.model import Script
    from reports.blocks import Page
    from reports.compare.diff import Diff
    from reports.compare.gates import Gate, GateResult

_MOST_MINUTES = 24 * 60


@click.command()
@click.argument("url_a")
@click.argument("url_b")
@click.argument("script", type=click.Path())
@click.option(
    "--minutes",
    type=FiniteRange(0, _MOST_MINUTES, min_open=True),
    help="Stretch the script's phases, at their rates, to this length in all. Default: as long as the script says.",
)
@click.option(
    "--fail-on", "rules", multiple=True, metavar="RULE", help="Exit with 1 where this rule holds; repeatable."
)
@click.option(
    "--least-effect",
    default="1ms,1%",
    show_default=True,
    metavar="MS,PERCENT",
    help="Changes of a time below either bound are not called better or worse; 0 calls any that is not chance.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "json", "html"]),
    default="text",
    show_default=True,
    help="Format of the comparison on stdout.",
)
@junit_option
@click.option(
    "-o", "--output", type=click.Path(), help="Write both sides' reports into this folder: a.json and b.json."
)
@script_options
@calibration_option()
@click.option("--seed", type=int, help="Seed of all random choices: the same seed deals the same plan in the same way.")
def duel(
    url_a: str,
    url_b: str,
    script: str,
    minutes: float | None,
    rules: tuple[str, ...],
    least_effect: str,
    junit: str | None,
    style: str,
    output: str | None,
    seed: int | None,
    calibrates: bool | None,
    **given: Any,
) -> None:
    """Run one Artillery script against two targets at once, and say which is better beyond chance.

    Of any two arrivals in a row, one goes to URL_A and the other to URL_B; chance decides which. So each side has half of
    the script's load, and what disturbs the machine disturbs both. The verdicts say whether URL_B is better or worse than
    URL_A: in errors, requests per second, and the median, p95 and p99 of response times. Of duels between two equal
    targets, at most one in 20 finds a difference.

    A RULE is as of `loadgen diff`: 'p99 worse' (by the verdict), 'p99 > +10%' (a signed limit is one of the change),
    'errors > 0.1%', or 'worse' (of any figure).

    With $GITHUB_STEP_SUMMARY set, the comparison is also appended to that file, as Markdown.
    """
    from loadgen.duel import planned_seconds, run_duel
    from loadgen.runner import SectionFailed
    from loadgen.watch.progress import LiveLine
    from reports.compare.diff import Criteria, compare_paired
    from reports.compare.gates import Gate
    from reports.model import ReportError

    seed = randbelow(2**32) if seed is None else seed
    try:
        gates = [Gate.parse(rule) for rule in rules]
        criteria = Criteria.parse(least_effect=least_effect)
    except ReportError as error:
        raise BadInput(str(error)) from None
    scripts = (_script(url_a, script, minutes, seed, given), _script(url_b, script, minutes, seed, given))
    _check_rules(gates, custom=scripts[0].processor is not None)
    for warning in scripts[0].warnings:
        click.echo(f"Warning: {warning}", err=True)
    paths = _report_paths(output)
    check_output(junit)
    live = LiveLine(plain=False)
    try:
        calibration = calibrate_for(calibrates, planned_seconds(scripts[0]))
        runs = run_duel(scripts, live, _on_stderr, seed, calibration)
    except SectionFailed as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_RUN)
    live.clear()
    shown = shown_url(url_a), shown_url(url_b)
    facts = _facts(shown, runs, seed)
    found = compare_paired(runs.a.report, runs.b.report, criteria)
    found = replace(found, notes=(_sentence(facts), *found.notes))
    outcomes, unknown = _checked(gates, found)
    show(_page(found, outcomes, facts, style, runs), style, None)
    if style in ("json", "html"):
        for outcome in outcomes:
            click.echo(outcome.line, err=True)
    wrong = _failures(runs, shown)
    tell_ci("loadgen duel", _judged(found), [_whole(runs, (*wrong, unknown)), *outcomes], junit)
    # Last: what was found is shown also if these cannot be written.
    for path, run in zip(paths, (runs.a, runs.b), strict=False):
        write_json(str(path), run.report)
    for message in filter(None, (*wrong, unknown)):
        click.echo(f"Error: {message}", err=True)
    if runs.a.signal is not None:
        sys.exit(SIGNALLED + runs.a.signal)
    sys.exit(COULD_NOT_RUN if wrong else BadInput.exit_code if unknown else 0 if all(o.met for o in outcomes) else 1)


def _script(url: str, path: str, minutes: float | None, seed: int, given: dict[str, Any]) -> Script:
    """The script for one side. Raises BadInput."""
    from loadgen.schedule import lasting

    check_url(url)
    found = read_script_with(given, path, seed, url)
    try:
        return found if minutes is None else replace(found, phases=lasting(found.phases, 60 * minutes))
    except ValueError as error:
        raise BadInput(f"--minutes: {error}") from None


def _check_rules(gates: list[Gate], *, custom: bool) -> None:
    """Refuse rules on figures that no run has, unless some are `custom`, and on verdicts that no duel gives. Raises BadInput."""
    from reports.compare.diff import JUDGED_IN_DUELS
    from reports.compare.gates import long_names, unknown_figure

    for gate in gates:
        if gate.name and not gate.operator and not {gate.name, *long_names(gate.name)} & {*JUDGED_IN_DUELS}:
            raise BadInput(
                f"--fail-on {gate.text!r}: a duel judges errors, rps, median, p95 and p99 only; a limit may be on any figure, "
                "as in 'p75 > +10%'"
            )
        if gate.name and not custom and (unknown := unknown_figure(gate.name)):
            raise BadInput(f"--fail-on {gate.text!r}: {unknown}")


def _checked(gates: list[Gate], found: Diff) -> tuple[list[GateResult], str]:
    """What became of the rules, and why they could not be looked at, if so."""
    from reports.model import ReportError

    try:
        return [gate.check(found) for gate in gates], ""
    except ReportError as error:
        return [], str(error)


def _report_paths(output: str | None) -> tuple[Path, ...]:
    """Where the reports go. Raises BadInput where nothing can be written there."""
    if output is None:
        return ()
    paths = Path(output) / "a.json", Path(output) / "b.json"
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        for path in paths:
            check_writable(path)
    except WriteError as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        raise BadInput(f"cannot write {output}: {error.strerror}") from None
    return paths


def _on_stderr(text: str) -> None:
    click.echo(text, nl=False, err=True)


def _facts(urls: tuple[str, str], runs: DuelRuns, seed: int) -> dict[str, Any]:
    """What a duel was, for a reader of its JSON."""
    from reports import names

    users = [run.report.aggregate.counters.get(names.VUSERS_CREATED, 0) for run in (runs.a, runs.b)]
    seconds = [
        second.start_ms for run in (runs.a, runs.b) for period in run.report.periods for second in period.seconds
    ]
    return {
        "a": urls[0],
        "b": urls[1],
        "seconds": (max(seconds) - min(seconds)) // 1000 + 1 if seconds else 0,
        "arrivals": {"a": users[0], "b": users[1]},
        "seed": seed,
        "partial": any(run.report.extras is None or run.report.extras.partial for run in (runs.a, runs.b)),
    }


def _sentence(facts: dict[str, Any]) -> str:
    a, b = facts["arrivals"].values()
    return (
        f"Old is A, {facts['a']}; new is B, {facts['b']}. Over {facts['seconds']} s, {a:,} arrivals were dealt to A and "
        f"{b:,} to B (--seed {facts['seed']})."
    )


def _page(found: Diff, outcomes: list[GateResult], facts: dict[str, Any], style: str, runs: DuelRuns) -> Page:
    """The comparison as a result; JSON has the facts on the duel, too, under `duel`.

    Text and Markdown leave out what a duel does not judge.
    """
    from reports.compare.diff_blocks import changes, comparison

    if style == "html":
        from reports.page.page import report_page

        return report_page([("A", runs.a.report), ("B", runs.b.report)], changes(found, outcomes), title="Duel")
    page = comparison(found if style == "json" else _judged(found), outcomes, rules_last=style == "text")
    return replace(page, title="Duel", data={**page.data, "duel": facts})


def _judged(found: Diff) -> Diff:
    """The comparison without the figures that a duel does not judge."""
    from reports.compare.diff import JUDGED_IN_DUELS

    judged = tuple(row for row in found.rows if row.name in JUDGED_IN_DUELS)
    others = f"{len(found.rows) - len(judged)} figures that a duel does not judge are in JSON and HTML."
    return replace(found, rows=judged, notes=(*found.notes, others))


def _whole(runs: DuelRuns, reasons: Iterable[str]) -> GateResult:
    """Whether the duel was carried out as planned, as the first of its gates."""
    from reports.compare.gates import GateResult

    rule = "the duel reached its planned end"
    why = [reason for reason in reasons if reason]
    if runs.a.signal is not None:
        why.append(f"it was ended by signal {runs.a.signal}")
    return GateResult(rule, not why, f"FAILED: {rule} ({'; '.join(why)})" if why else f"passed: {rule}")


def _failures(runs: DuelRuns, urls: tuple[str, str]) -> list[str]:
    """Why the duel could not be carried out as planned, a sentence each."""
    from reports import names

    sides = list(zip((runs.a, runs.b), urls, strict=True))
    silent = [
        f"{url} gave no answer at all" for run, url in sides if not run.report.aggregate.counters.get(names.RESPONSES)
    ]
    return [*silent, *(message for run, _ in sides for message in run.failures), *filter(None, [runs.failed])]
