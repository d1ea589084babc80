"""The command `loadgen lab`: turns flags into one session, and writes its result."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from loadgen.commands.application import (
    NothingGood,
    application_options,
    asker,
    finish,
    one_line_errors,
    own_application,
    sayer,
)
from loadgen.commands.exits import SIGNALLED, CouldNotRun
from reports.cli import BadInput, check_output, output_options, show, step_summary
from reports.files import read_text

if TYPE_CHECKING:
    from loadgen.lab.evidence import Evidence
    from loadgen.lab.own_server import OwnApplication
    from loadgen.lab.publication import Publication
    from loadgen.lab.run import LabOptions
    from reports.blocks import Page

_OF_EXPERIMENTS = ("full", "only", "clicks")
"""Options that say which experiments are run, and how."""


@click.command()
@click.option("--full", is_flag=True, help="Run the published sizes, which takes many minutes.")
@click.option(
    "--only",
    metavar="NAME,...",
    default="",
    help="Run only the experiments, groups and publications named (--list shows them), or a publication's file.",
)
@click.option("--list", "listed", is_flag=True, help="Show what --only can name, and run nothing.")
@click.option(
    "--strategies",
    metavar="NAME,...",
    default="",
    help="Run only experiments with these strategies: null, per-request, queue, fair; with --app also own.",
)
@click.option("--servers", type=click.IntRange(1, 64), default=4, show_default=True, help="Number of server processes.")
@click.option(
    "--clicks",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Clicks that each link of the built-in service has at the start.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for all files (default runs/<UTC stamp>).")
@click.option(
    "--database-url",
    help="PostgreSQL to use instead of the embedded one: in a schema of its own, or in your application's tables (--app).",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask before experiments that may use up the database's connections, or before your application writes to the"
    " database of --database-url.",
)
@click.option("--db-rtt", metavar="DURATION", help="Round-trip time to add on the way to the database: 5ms.")
@application_options
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=2,
    show_default=True,
    help="With --app: how often each strategy is run; each round has an order of its own.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="With --app: seed of the order of the runs.")
@output_options
def lab(
    full: bool,
    only: str,
    listed: bool,
    strategies: str,
    servers: int,
    clicks: int,
    out: Path | None,
    database_url: str | None,
    yes: bool,
    db_rtt: str | None,
    rounds: int,
    seed: int,
    style: str | None,
    output: str | None,
    **given: Any,
) -> None:
    """Run the experiments of two publications again, and judge their claims on how a service should connect to PostgreSQL.

    Experiments whose names begin with A are those of notes on a URL shortener on four servers, measured with Artillery;
    those with B, of an article on pooling for a Go and PostgreSQL API, measured with ApacheBench.

    A terminal shows the answer in about 20 lines; in a pipe or a file, the result is Markdown. All files of the run are in
    runs/latest.

    More can be run by name (--list shows all names): --only C compares pools under saturation; D measures what pooling
    gains by the distance to the database; P goes through PgBouncer; M gives the database 512 MB. --only publications runs
    seven more publications again (docs/publications.md), and --only ./mine.yml one of your own.

    With --app and --script, the lab runs your own application with each strategy (--strategies own,null,queue,fair; own is
    the pool that it configures itself), each time with a fresh copy of the database that --setup made. With --database-url
    it runs on your own database, and changes its tables. DB_POOL_SIZE, DB_POOL_MAX_OVERFLOW and DB_POOL_TIMEOUT in the
    environment set the pools (default: 10, 0, 5 s). Exit code 1: nothing was answered well.

    With $GITHUB_STEP_SUMMARY set, the result is also appended to that file, as Markdown.
    """
    from loadgen.lab.folders import run_folder

    check_output(output)
    if listed:
        from loadgen.lab.catalogue import catalogue

        show(catalogue(servers), style or "text", output)
        return
    out = run_folder(out)
    confirm = asker(yes=yes)
    application = _own_application(given)
    if application is not None:
        page, ended_by = _run_own_app(
            application,
            script=given["script"],
            out=out,
            strategies=_listed(strategies),
            servers=servers,
            database_url=database_url,
            round_trip_ms=round_trip_ms(db_rtt),
            rounds=rounds,
            seed=seed,
            confirm=confirm,
        )
        from loadgen.lab.own_app_findings import terminal_page as own_app_end

        _end(page, own_app_end(page, out), style, output, out, ended_by)
    from loadgen.lab.findings import lab_page, terminal_page
    from loadgen.lab.run import LabError, LabFailed

    try:
        evidence, ended_by = _run_lab(
            _options(
                _listed(only),
                _listed(strategies),
                servers,
                full=full,
                out=out,
                clicks=clicks,
                database_url=database_url,
                round_trip_ms=round_trip_ms(db_rtt),
                seed=randbelow(2**32),
                confirm=confirm,
            )
        )
    except LabFailed as error:
        raise CouldNotRun(str(error)) from None
    except (ValueError, LabError) as error:
        raise BadInput(str(error)) from None
    _end(lab_page(evidence), terminal_page(evidence, out), style, output, out, ended_by)


def _own_application(given: dict[str, Any]) -> OwnApplication | None:
    """The user's own application, if one is named. Raises BadInput, also for options that do not go with it, or without."""
    application = own_application(given)
    if application is None and given["script"]:
        raise BadInput("--app and --script go together")
    for name in _OF_EXPERIMENTS if application is not None else ("rounds", "seed"):
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise BadInput(f"--{name} {'goes' if application is None else 'does not go'} with --app")
    return application


def _options(ids: list[str], strategies: list[str], servers: int, *, full: bool, **given: Any) -> LabOptions:
    """What --only names, as the options of a session; `given` are further ones of these. Raises BadInput and ValueError."""
    from loadgen.lab import distance, fairness, league
    from loadgen.lab.experiments import BRIEF, BRIEF_BY_NAME, FULL, chosen, experiments, more_experiments
    from loadgen.lab.publication_file import GROUP
    from loadgen.lab.run import LabOptions

    of_c, of_d = {"C", fairness.ID, league.ID}, {"D", distance.ID}
    publications = _publications(ids)
    of_sources = [name for name in ids if name not in of_c | of_d | publications.keys() | {GROUP}]
    if publications and strategies:
        raise BadInput("--strategies has no effect on publications: leave one of them out")
    known = (*experiments(servers), *(more_experiments(servers) if ids else ()))
    wanted = chosen(known, of_sources, strategies, full=full) if of_sources or not ids else ()
    return LabOptions(
        experiments=wanted,
        sizes=FULL if full else BRIEF_BY_NAME if any(e.rounds for e in wanted) else BRIEF,
        fairness_rounds=5 if {"C", fairness.ID} & set(ids) else 0,
        league_rounds=(5 if full else 3) if {"C", league.ID} & set(ids) else 0,
        distance_rounds=(5 if full else 2) if of_d & set(ids) else 0,
        publications=tuple(publications.values()),
        full=full,
        **given,
    )


def _publications(ids: list[str]) -> dict[str, Publication]:
    """The publications that --only names: the tool's own by their names, a user's by the path of its file. Raises BadInput."""
    from loadgen.lab.publication_file import GROUP, is_file, known, parse
    from loadgen.script.model import ScriptErrors

    own = known()
    found = {name: own[name] for name in (own if GROUP in ids else ids) if name in own}
    for name in filter(is_file, ids):
        try:
            found[name] = parse(name, read_text(name))
        except OSError as error:
            raise BadInput(f"{name}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise BadInput(f"{name}: not a text in UTF-8") from None
        except ScriptErrors as errors:
            raise BadInput(str(errors)) from None
    names = [publication.name for publication in found.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two publications have the name {twice}: change it in your file")
    return found


def _end(page: Page, brief: Page, style: str | None, output: str | None, out: Path, ended_by: int | None) -> None:
    """Show the result, say where the files are, and end the program. A terminal gets the brief result, if none was asked for.

    `ended_by`: the number of the signal that ended the run early.
    """
    asked = style is not None or output is not None
    if not asked and sys.stdout.isatty():
        show(brief, "text", None)
    else:
        finish(page, style if asked else "markdown", output, out)
    if summary := step_summary():
        from reports.ci import leave

        leave("loadgen lab", [], page, None, summary)
    sys.exit(0 if ended_by is None else SIGNALLED + ended_by)


def _run_lab(options: LabOptions) -> tuple[Evidence, int | None]:
    """Run the session. Returns what it measured, and the number of the signal that ended it early.

    Ends the program where it was interrupted before anything was measured.
    """
    from loadgen.lab.run import Lab
    from loadgen.watch.progress import LiveLine

    live = LiveLine()
    session = Lab(options, sayer(live), live)
    evidence = session.run()
    live.clear()
    if evidence.partial and not evidence.is_measured:
        click.echo("Interrupted before anything was measured: no file was written.", err=True)
        sys.exit(SIGNALLED + session.ended_by)
    return evidence, session.ended_by if evidence.partial else None


def _run_own_app(application: OwnApplication, strategies: list[str], **given: Any) -> tuple[Page, int | None]:
    """Run the user's application. Returns the result, and the number of the signal that ended the run early."""
    from loadgen.lab import own_app
    from loadgen.watch.progress import LiveLine

    unknown = [name for name in strategies if name not in own_app.STRATEGIES]
    if unknown:
        raise BadInput(f"no strategy {unknown[0]!r} for an application; there are {', '.join(own_app.STRATEGIES)}")
    chosen = tuple(dict.fromkeys(strategies)) or own_app.STRATEGIES
    live = LiveLine()
    try:
        with one_line_errors(given["database_url"], NothingGood):
            settings = own_app.chosen_settings(os.environ)
            options = own_app.OwnAppOptions(application, strategies=chosen, settings=settings, **given)
            return own_app.run(options, sayer(live), live)
    finally:
        live.clear()


def round_trip_ms(text: str | None) -> float | None:
    """The round trip that --db-rtt asks for, in ms; None without the option. Raises BadInput."""
    from loadgen.script.durations import seconds

    if text is None:
        return None
    found_s = seconds(text)
    if found_s is None or not 0 <= found_s <= 1:
        raise BadInput(f"--db-rtt {text}: a duration from 0 to 1 s, such as 0.5ms")
    return found_s * 1000


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
