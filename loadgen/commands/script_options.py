"""The options of the commands that run an Artillery script for a purpose of their own, and the reading of that script.

Also of the file that --dotenv names, for all commands with that option.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from reports.cli import BadInput
from reports.files import read_text
from reports.printable import shown_url, url_fault

if TYPE_CHECKING:
    from loadgen.script.model import Script

_Command = TypeVar("_Command", bound=Callable[..., Any])


def script_options(command: _Command) -> _Command:
    """Add -e, -v, -p and -k, which `read_script_with` takes by their names."""
    for option in (
        click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate."),
        click.option("-p", "--payload", help="A CSV file to use instead of the script's payload."),
        click.option(
            "-v", "--variables", metavar="JSON", help="Variables that every virtual user has, as a JSON object."
        ),
        click.option("-e", "--environment", help="Name of the script's environment (`config.environments`) to use."),
    ):
        command = option(command)
    return command


def check_url(url: str, before: str = "") -> None:
    """Raises BadInput for what is no URL of a service; `before` begins the message."""
    try:
        parts = urlsplit(url)
        good = parts.scheme.lower() in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError as error:
        raise BadInput(f"{before}invalid URL {shown_url(url)}: {url_fault(error, url)}") from None
    if not good:
        raise BadInput(f"{before}invalid URL {shown_url(url)}: it must begin with http:// or https:// and name a host")


def variables_of(path: str) -> dict[str, str]:
    """The variables that the file given with --dotenv sets. Raises BadInput."""
    # Few runs have such a file.
    from dotenv import dotenv_values

    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise BadInput(f"--dotenv {path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"--dotenv {path}: {getattr(error, 'strerror', None) or error}") from None
    found = {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}
    for name, value in found.items():
        # The system would refuse them for a process.
        if "=" in name or "\0" in name + value:
            raise BadInput(f"--dotenv {path}: {name!r} cannot be set as a variable of the environment")
    return found


def read_script_with(given: dict[str, Any], path: str, seed: int, target: str | None = None) -> Script:
    """Read a script with the options `given`, and a target in place of its own. Raises BadInput."""
    from loadgen.runner import read_script
    from loadgen.script.model import ScriptErrors
    from loadgen.script.parse import RunOptions

    options = RunOptions(target=target, env=os.environ, directory=str(Path.cwd()), **given)
    try:
        return read_script([path], options, seed)
    except ScriptErrors as errors:
        raise BadInput("\n".join(str(problem) for problem in errors.problems)) from None
    except OSError as error:
        raise BadInput(f"cannot read {error.filename}: {error.strerror}") from None
