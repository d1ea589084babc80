"""The option `--dask`: from an address to the workers of a run, or one line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from loadgen.crew.crew import CrewError
from loadgen.script.model import Script

if TYPE_CHECKING:
    from loadgen.crew.distributed import Crews

_BAD_INPUT, _COULD_NOT_RUN, _INTERRUPTED = 1, 3, 130


@contextmanager
def crews_at(address: str, script: Script, workers: int) -> Iterator[Crews]:
    """What makes the workers of a run, while inside.

    Exits with 1 for what cannot be run there, with 3 where the cluster fails, and with 130 on a Ctrl-C before the start.
    """
    try:
        try:
            from loadgen.crew.distributed import crews, problems
        except ModuleNotFoundError as error:
            _end(_BAD_INPUT, f"--dask needs {error.name}, which is not installed: pip install '.[distributed]'")
        wrong = problems(address, script) + (["--workers and --dask exclude each other"] if workers > 1 else [])
        if wrong:
            _end(_BAD_INPUT, *wrong)
        with crews(address, script, _say) as made:
            yield made
    except CrewError as error:
        _end(_COULD_NOT_RUN, str(error))
    except KeyboardInterrupt:
        _end(_INTERRUPTED, "interrupted before the start")


def _say(line: str) -> None:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # of the line that shows the progress
    click.echo(f"{clear}{line}", err=True)


def _end(code: int, *messages: str) -> NoReturn:
    for message in messages:
        click.echo(f"Error: {message}", err=True)
    sys.exit(code)
