"""The options by which a command runs the user's own application; several commands have them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loadgen.commands.exits import SIGNALLED, CouldNotRun
from loadgen.commands.script_options import variables_of
from reports.cli import BadInput, show
from reports.printable import without_credentials

if TYPE_CHECKING:
    from loadgen.lab.own_server import OwnApplication
    from loadgen.watch.progress import LiveLine
    from reports.blocks import Page

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--app",
        "application",
        metavar="MODULE:APP",
        help="Run your own WSGI application, found from the current folder.",
    ),
    click.option("--script", metavar="FILE", help="Artillery script to load your own application with."),
    click.option(
        "--python",
        metavar="PATH",
        help="Python that has your application's packages (default: of $VIRTUAL_ENV, then of ./.venv or ./venv, then our own).",
    ),
    click.option(
        "--server",
        metavar="COMMAND",
        help="Command that serves your application, with {host} and {port}, in place of gunicorn as loadgen configures it.",
    ),
    click.option(
        "--setup",
        metavar="COMMAND",
        multiple=True,
        help="Command to run first, with the database's URL in its environment, such as migrations; repeatable.",
    ),
    click.option(
        "--url-variable",
        metavar="NAME",
        multiple=True,
        help="Variable from which your application reads the database's URL (default: DATABASE_URL), or a part of it, as in"
        " DB_HOST={host} (url, scheme, user, password, host, port, database); repeatable.",
    ),
    click.option(
        "--dotenv",
        metavar="FILE",
        help="File with variables for your application, as NAME=VALUE; those of the environment win.",
    ),
)
APPLICATION = ("application", "python", "server", "setup", "url_variable", "dotenv")
"""Names under which the options arrive, besides `script`."""
_ONLY_WITH_APP = APPLICATION[1:]


def application_options(command: _Command) -> _Command:
    """Add the options to a command. They arrive under the names in APPLICATION, and `script`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def application_options_of_script(command: _Command) -> _Command:
    """As `application_options`, for a command whose argument is the script."""
    for option in reversed((_OPTIONS[0], *_OPTIONS[2:])):
        command = option(command)
    return command


def own_application(given: Mapping[str, Any]) -> OwnApplication | None:
    """The application that the options name; None without --app. Raises BadInput."""
    from loadgen.lab.own_server import OwnApplication, chosen_python, shown_command, shown_variable, url_variables
    from loadgen.lab.stack import StackError

    name = given["application"]
    if name is None:
        alone = [option for option in _ONLY_WITH_APP if given.get(option)]
        if alone:
            raise BadInput(f"--{alone[0].replace('_', '-')} goes with --app")
        return None
    if not given["script"]:
        raise BadInput("--app and --script go together")
    module, colon, attribute = name.partition(":")
    if not module or (colon and not attribute):
        raise BadInput(f"--app {without_credentials(name)!r}: must be MODULE:APP or MODULE:FACTORY()")
    server = given["server"]
    if server is not None and "{port}" not in server:
        raise BadInput(f"--server {shown_command(server)!r}: needs {{port}} where the port belongs")
    try:
        shlex.split(server or "")
    except ValueError as error:
        raise BadInput(f"--server {shown_command(server or '')!r}: {error}") from None
    for variable in given["url_variable"]:
        if not variable.partition("=")[0].isidentifier():
            raise BadInput(f"--url-variable {shown_variable(variable)!r} is no name of a variable")
    try:
        url_variables(given["url_variable"], "postgresql://")
    except ValueError as error:
        raise BadInput(str(error)) from None
    folder = Path.cwd()
    try:
        python = chosen_python(given["python"], os.environ, folder, sys.executable)
    except StackError as error:
        raise BadInput(str(error)) from None
    variables = tuple(given["url_variable"]) or ("DATABASE_URL",)
    more = variables_of(given["dotenv"]) if given["dotenv"] else {}
    return OwnApplication(name, folder, python, server, tuple(given["setup"]), variables, more)


def sayer(live: LiveLine) -> Callable[[str], None]:
    """A function that writes a line to stderr without mixing it with the live line."""

    def say(text: str) -> None:
        live.clear()
        click.echo(text, err=True)

    return say


def finish(page: Page, style: str | None, output: str | None, out: Path, more: str = "") -> None:
    """Write the page as the user asked, and say on stderr where the files of the run are; and, unless stdout is a terminal that
    shows the page, what the result is: its title, and `more`.
    """
    show(page, style, output)
    told = [] if output is None and sys.stdout.isatty() else [f"{page.title}{more}"]
    if output is not None:
        told.append(f"The result is in {output}")
    click.echo("\n" + "\n".join([*told, f"Everything is in {out}"]), err=True)


def asker(*, yes: bool) -> Callable[[str], bool]:
    """A function that asks the user a question on a terminal; `yes` answers all of them, and without a terminal all are no."""
    return lambda question: yes or (sys.stdin.isatty() and click.confirm(question, err=True))


class NothingGood(click.ClickException):
    """No request was answered well; ends the command with one line on stderr and exit code 1."""

    exit_code = 1


@contextmanager
def one_line_errors(database_url: str | None, unanswered: type[click.ClickException] = CouldNotRun) -> Iterator[None]:
    """Turn what may go wrong while an application is run into one line without the password of this URL.

    The exit code is 2 for what the user gave, the application included, and 3 for what kept the run from being carried out.
    Where no request was answered well, `unanswered` is raised. Ends the program where a signal did so before there was
    anything to show.
    """
    import psycopg2

    from db.binaries import EmbeddedPostgresError
    from loadgen.lab.own_app import NothingAnsweredError, RefusedError
    from loadgen.lab.own_database import DatabaseError, masking, shown
    from loadgen.lab.stack import PartError, StackError
    from loadgen.runner import Interrupted, SectionFailed
    from loadgen.script.model import ScriptErrors

    try:
        masked = masking(*([database_url] if database_url is not None else []))
        yield
    except Interrupted as interrupted:
        click.echo("Interrupted", err=True)
        sys.exit(SIGNALLED + interrupted.number)
    except ScriptErrors as errors:
        raise BadInput("\n".join(str(problem) for problem in errors.problems)) from None
    except NothingAnsweredError as error:
        raise unanswered(str(error)) from None
    except (PartError, EmbeddedPostgresError) as error:
        raise CouldNotRun(" ".join(str(error).split())) from None
    except (StackError, RefusedError, DatabaseError) as error:
        raise BadInput(" ".join(str(error).split())) from None
    except SectionFailed as error:
        raise CouldNotRun(masked(" ".join(str(error).split()))) from None
    except psycopg2.Error as error:
        said = masked(" ".join(str(error).split()))
        if database_url is None:
            raise CouldNotRun(said) from None
        raise BadInput(f"{shown(database_url)}: {said}") from None
    except OSError as error:
        # An error of our own, such as a folder that cannot be written, has a message and no name of a file.
        raise BadInput(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
