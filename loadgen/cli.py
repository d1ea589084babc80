"""The command line `loadgen`: which commands there are. Each command is imported when it is called, not before."""

from __future__ import annotations

import gc
from functools import partial
from importlib import import_module
from typing import Any

import click

from loadgen.help import format_options

_COMMANDS = {
    "init": ("loadgen.commands.init", "Write a first script, from an OpenAPI document or a HAR file."),
    "run": ("loadgen.commands.run", "Run Artillery scripts."),
    "quick": ("loadgen.commands.run", "Send GETs to one URL from a number of virtual users."),
    "ab": ("loadgen.commands.ab", "Send requests as ApacheBench does, and print its report."),
    "ping": ("loadgen.commands.ping", "Send one request, and show how long each part of it takes."),
    "schema": ("loadgen.commands.schema", "Print the JSON Schema of scripts, for editors."),
    "diff": ("reports.cli", "Compare two reports, or several runs a side."),
    "history": ("loadgen.commands.history", "Find in which of many reports a figure changed."),
    "duel": ("loadgen.commands.duel", "Compare two services under load at the same time."),
    "report": ("reports.cli", "Show a saved report, or several merged into one."),
    "lab": ("loadgen.commands.lab", "Repeat the published experiments on this machine."),
    "doctor": ("loadgen.commands.doctor", "Say what holds back your own application's connections."),
    "sweep": ("loadgen.commands.sweep", "Measure which pool size is best."),
    "capacity": ("loadgen.commands.capacity", "Find the highest arrival rate that meets a target."),
    "plan": ("loadgen.commands.plan", "Predict which pool size is best."),
}
"""Each command's name: the module that has a click command of that name, and its line in `loadgen --help`."""


_INTERRUPTED = 130


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for, as click's documentation suggests.

    The help of the group is made from the table above: it needs no module at all, and so takes a tenth of a second.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        # Imports make many objects and hardly any garbage, so collecting would only take time. Frozen, they are not looked at
        # later either, when a collection would hold up users for 10 ms or more.
        gc.disable()
        try:
            module = import_module(_COMMANDS[cmd_name][0])
        finally:
            gc.freeze()
            gc.enable()
        command: click.Command = getattr(module, cmd_name)
        command.format_options = partial(format_options, command)  # type: ignore[method-assign]
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A Ctrl-C that it does not handle gives one line and exit code 130; click's own code would be 1."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            raise SystemExit(_INTERRUPTED) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from loadgen.environment import version

        click.echo(f"loadgen {version()}")
        context.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """Put load on an HTTP service, and measure how well it copes."""
