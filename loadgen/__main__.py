"""`python -m loadgen`, and the console script `loadgen`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

_INTERRUPTED = 130


def main() -> None:
    """Run the command line, and exit with its code.

    A signal that no command handles ends it with one line on stderr and exit code 130 (SIGINT) or 143 (SIGTERM). If no
    usable SQLAlchemy is installed, one line says so, and the exit code is 2.
    """
    try:
        # Imports are inside, so that an interrupt during one of them is handled, too.
        from signal import SIGTERM, signal  # noqa: PLC0415

        signal(SIGTERM, _terminated)
        _run()
    except KeyboardInterrupt:
        _tell(b"Interrupted\n")
        sys.exit(_INTERRUPTED)


def _run() -> None:
    """Run the command, which ends the program."""
    from loadgen.cli import cli  # noqa: PLC0415 - nothing heavy before the command is known
    from loadgen.commands.outlet import open_all  # noqa: PLC0415

    open_all()
    if isinstance(sys.stdout, TextIOWrapper):
        # What another character set than UTF-8 lacks is printed as a question mark.
        sys.stdout.reconfigure(errors="replace")
    try:
        cli()
    except FileNotFoundError:
        try:
            Path.cwd()
        except OSError:
            _tell(b"Error: the current folder was removed\n")
            sys.exit(2)
        raise
    except ImportError:
        import click  # noqa: PLC0415

        from loadgen.environment import installed  # noqa: PLC0415

        found = installed("SQLAlchemy")
        if found is not None and int(found.partition(".")[0]) >= 2:
            raise
        click.echo(f"Error: this needs SQLAlchemy 2.0 or newer; installed: {found or 'none'}", err=True)
        sys.exit(2)


def _terminated(number: int, _frame: object) -> None:
    _tell(b"Terminated\n")
    raise SystemExit(128 + number)


def _tell(line: bytes) -> None:
    """Write a line to stderr, whose buffer may be in use where a signal came. What cannot be written is lost."""
    with suppress(OSError):
        os.write(2, line)


if __name__ == "__main__":
    main()
