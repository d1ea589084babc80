"""How the commands that make load end: exit codes, the report's file, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reports.cli import BadInput

if TYPE_CHECKING:
    from reports.model import Report

EXPECTATION_FAILED = 21
"""Artillery's, where some expectation of the script did not hold."""
COULD_NOT_RUN = 3
"""The run itself could not be carried out."""
SIGNALLED = 128
"""Added to the number of the signal that ended the run."""


def write_json(path: str, finished: Report) -> None:
    """Write the report to this file. Raises BadInput."""
    from reports.files import WriteError, write_text
    from reports.formats.artillery_json import to_json

    try:
        write_text(path, to_json(finished) + "\n")
    except WriteError as error:
        raise BadInput(str(error)) from None


def warn(report: Report) -> None:
    """Tell on stderr what the report warns of."""
    for warning in report.extras.warnings if report.extras else ():
        click.echo(f"Warning: {warning}", err=True)
