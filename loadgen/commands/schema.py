"""The command `loadgen schema`: the JSON Schema of scripts."""

from __future__ import annotations

import json

import click

from loadgen.script.schema import schema as script_schema
from reports.cli import BadInput
from reports.files import WriteError
from reports.writers.output import put


@click.command()
@click.option("-o", "--output", type=click.Path(), help="Write the schema to this file instead of stdout.")
def schema(output: str | None) -> None:
    """Print the JSON Schema (draft 2020-12) of scripts, so that editors complete and check them.

    Editors with the YAML language server read it where a script begins with
    `# yaml-language-server: $schema=artillery.schema.json`.
    """
    try:
        put(json.dumps(script_schema(), indent=2) + "\n", output)
    except WriteError as error:
        raise BadInput(str(error)) from None
