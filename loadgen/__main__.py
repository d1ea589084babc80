"""`python -m loadgen`, and the console script `loadgen`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from loadgen.cli import cli  # noqa: PLC0415 - nothing heavy before the command is known

    cli()


if __name__ == "__main__":
    main()
