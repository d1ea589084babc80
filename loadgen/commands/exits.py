"""How the commands that produce load begin and end: calibration, exit codes, the report's file, warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reports import names
from reports.cli import BadInput
from reports.files import WriteError, write_text
from reports.printable import printable

if TYPE_CHECKING:
    from loadgen.calibration import Calibration
    from reports.model import Report

_Command = TypeVar("_Command", bound=Callable[..., Any])

EXPECTATION_FAILED = 21
"""Some expectation of the script did not hold (Artillery's exit code)."""
COULD_NOT_RUN = 3
"""The run itself could not be carried out."""
_WHY_UNANSWERED = {
    "ECONNREFUSED": "nothing listens at {where}",
    "ENOTFOUND": "the name of {where} is not known",
    "EAI_AGAIN": "the name of {where} cannot be looked up now",
    "ETIMEDOUT": "{where} did not answer in time",
    "ECONNRESET": "{where} closes the connections",
}
SIGNALLED = 128
"""To be added to the number of the signal that ended the run."""


class CouldNotRun(BadInput):
    """What kept a run from being carried out; ends the command with one line on stderr and exit code 3."""

    exit_code = COULD_NOT_RUN


def write_json(path: str, finished: Report) -> None:
    """Write the report as JSON to this file. Raises BadInput where that fails."""
    # Only a run with -o needs the writer.
    from reports.formats.artillery_json import to_json

    try:
        write_text(path, to_json(finished) + "\n")
    except WriteError as error:
        raise BadInput(str(error)) from None


def calibration_option(default: str = "if the run is planned to take 5 s or more") -> Callable[[_Command], _Command]:
    """The option --calibration/--no-calibration, whose default None leaves it to the length of the run: `default`, in words."""
    return click.option(
        "--calibration/--no-calibration",
        "calibrates",
        default=None,
        help=f"Before the run, measure in half a second what this generator can do on this machine (default: {default}).",
    )


def calibrate_for(wanted: bool | None, seconds: float, *, quiet: bool = False) -> Calibration | None:
    """The calibration for a run that is planned to take `seconds`, also printed on stderr; None if none is wanted or possible."""
    from loadgen.calibration import LONG_ENOUGH_S, calibrate

    if not (seconds >= LONG_ENOUGH_S if wanted is None else wanted):
        return None
    found = calibrate()
    if not quiet:
        click.echo("not calibrated: this machine is too busy" if found is None else found.sentence, err=True)
    return found


def warn(report: Report) -> None:
    """Print the report's warnings on stderr, a line each."""
    for warning in report.extras.warnings if report.extras else ():
        click.echo(f"Warning: {printable(warning)}", err=True)
    if said := _unanswered(report) or refused(report):
        click.echo(f"Warning: {said}", err=True)


def _unanswered(report: Report) -> str | None:
    """One line for a run in which no request was answered, or none was sent; None for any other run."""
    counters = report.aggregate.counters
    failures = {
        name.removeprefix(names.ERRORS): n for name, n in counters.items() if name.startswith(names.ERRORS) and n
    }
    if counters.get(names.RESPONSES) or not failures:
        return None
    target = str(report.extras.environment.get("target", "")) if report.extras else ""
    most = max(failures, key=lambda name: failures[name])
    if not counters.get(names.REQUESTS):
        return f"no request was sent: the most frequent error was {most}" + (f" (target: {target})" if target else "")
    where = target.partition("://")[2].partition("/")[0] or target or "the target"
    why = _WHY_UNANSWERED.get(most, f"the most frequent error was {most}")
    return f"no request was answered: {why.format(where=where)}"


def refused(report: Report) -> str | None:
    """One line for a run in which all answers were errors of the client or the server; None for any other run."""
    counters = report.aggregate.counters
    codes = {name.removeprefix(names.CODES): n for name, n in counters.items() if name.startswith(names.CODES) and n}
    if not codes or any(code < "400" for code in codes):
        return None
    most = max(codes, key=lambda code: codes[code])
    return f"every answer was an error: {codes[most]:,} of {sum(codes.values()):,} were {most}"
