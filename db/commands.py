"""The command group `flask links`, for working on the database by hand."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from db import rollups, seeding
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
        with _told(), database.connection() as connection, progress as bar:
            links = seeding.seed_links(connection, count)
            added = seeding.seed_clicks(connection, count, clicks, bar.update)
            seeding.analyze(connection)
        click.echo(f"added {links} links ({count - links} were there) and {added} clicks: seed1 … seed{count}")

    @click.command()
    def fold() -> None:
        """Count the clicks that are not in the roll-ups yet, in batches; the service may go on meanwhile."""
        with _told(), database.connection() as connection:
            click.echo(f"folded {rollups.fold_all(connection)} clicks")

    @click.command()
    def check() -> None:
        """Compare the roll-ups with the clicks. Exit code 1: they differ."""
        with _told(), database.connection() as connection:
            found = rollups.check(connection)
        click.echo(
            f"{found.clicks} clicks, {found.unfolded} of them not folded yet, {found.dropped} more in dropped partitions; "
            f"{found.rolled_up} in the roll-ups, {found.differences} counts differ"
        )
        if not found.holds:
            raise click.ClickException("the roll-ups differ from the clicks: see the view click_differences")

    return click.Group("links", [seed, fold, check], help="Work on the links and their clicks.")


@contextmanager
def _told() -> Iterator[None]:
    """Turn a failure of the database into one line."""
    try:
        yield
    except (DatabaseFailure, EmbeddedPostgresError) as failure:
        raise click.ClickException(str(failure)) from failure
