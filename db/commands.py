"""The command group `flask links`, for working on the database by hand."""

import sys

import click

from db import seeding
from db.binaries import EmbeddedPostgresError
from db.database import Database
from db.errors import DatabaseFailure

_MOST = 1_000_000_000


def links_commands(database: Database) -> click.Group:
    """The group, working on `database`, which is connected to when a command needs it."""

    @click.command()
    @click.argument("count", type=click.IntRange(1, _MOST), metavar="N")
    @click.option(
        "--clicks", type=click.IntRange(0, _MOST), default=100, show_default=True, help="Clicks for each link."
    )
    def seed(count: int, clicks: int) -> None:
        """Fill in the links seed1 to seedN, and clicks for each."""
        total = count * clicks
        progress = click.progressbar(length=total, label=f"adding {total:,} clicks", file=sys.stderr)
        try:
            with database.connection() as connection, progress as bar:
                links = seeding.seed_links(connection, count)
                added = seeding.seed_clicks(connection, count, clicks, bar.update)
                seeding.analyze(connection)
        except (DatabaseFailure, EmbeddedPostgresError) as failure:
            raise click.ClickException(str(failure)) from failure
        click.echo(f"added {links} links ({count - links} were there) and {added} clicks: seed1 … seed{count}")

    return click.Group("links", [seed], help="Work on the links.")
