"""`python -m loadgen`, and the console script `loadgen`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Without an SQLAlchemy that it can use, it says so in one line and exits with 2."""
    from loadgen.cli import cli  # noqa: PLC0415 - nothing heavy before the command is known

    try:
        cli()
    except ImportError:
        import click  # noqa: PLC0415

        from loadgen.environment import installed  # noqa: PLC0415

        found = installed("SQLAlchemy")
        if found is not None and int(found.partition(".")[0]) >= 2:
            raise
        click.echo(f"Error: this needs SQLAlchemy 2.0 or newer; here is {found or 'none'}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
