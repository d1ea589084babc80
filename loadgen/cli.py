"""The command line: flags in, one call, the chosen format out. Files and terminal are opened here, not below."""

from __future__ import annotations

import click

from loadgen.commands.ab import ab
from loadgen.commands.lab import lab
from loadgen.commands.plan import plan
from loadgen.commands.run import quick, run
from loadgen.commands.sweep import sweep
from reports.cli import diff, report


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from loadgen.environment import version

        click.echo(f"loadgen {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Put load on an HTTP service and tell, with measurements, how it held."""


cli.add_command(run)
cli.add_command(quick)
cli.add_command(ab)
cli.add_command(diff)
cli.add_command(report)
cli.add_command(lab)
cli.add_command(sweep)
cli.add_command(plan)
