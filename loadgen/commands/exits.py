"""How the commands that make load end: exit codes, the report's file, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reports.cli import BadInput
from reports.files import WriteError, write_text

if TYPE_CHECKING:
    from reports.model import Report

EXPECTATION_FAILED = 21
"""Some expectation of the script did not hold (Artillery's exit code)."""
COULD_NOT_RUN = 3
"""The run itself could not be carried out."""
SIGNALLED = 128
"""To be added to the number of the signal that ended the run."""


def write_json(path: str, finished: Report) -> None:
    """Write the report as JSON to this file. Raises BadInput where that fails."""
    # Only a run with -o needs the writer.
    from reports.formats.artillery_json import to_json

    try:
        write_text(path, to_json(finished) + "\n")
    except WriteError as error:
        raise BadInput(str(error)) from None


def warn(report: Report) -> None:
    """Print the report's warnings on stderr, a line each."""
    for warning in report.extras.warnings if report.extras else ():
        click.echo(f"Warning: {warning}", err=True)
