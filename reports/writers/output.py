"""Chooses the format that a command writes, and writes it. The only place that chooses among the writers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.blocks import Page
from reports.files import WriteError, write_text

STYLES = ("text", "markdown", "json", "html")
_ENDINGS = {"txt": "text", "md": "markdown", "htm": "html"}


def written(page: Page, style: str, *, colour: bool = False, width: int | None = None) -> str:
    """Write the result in one of the STYLES. `colour` and `width`, in characters, are for text on a terminal."""
    # A command needs one writer; the template engine and the charts take a while to load.
    match style:
        case "html":
            from reports.page.page import render

            return render(page)
        case "json":
            from reports.writers.json_text import to_json

            return to_json(page)
        case "markdown":
            from reports.writers.markdown import to_markdown

            return to_markdown(page)
        case _:
            from reports.writers.text import to_text

            return to_text(page, colour=colour, width=width)


def style_of(style: str | None, output: str | None, known: Sequence[str] = STYLES) -> str:
    """The style asked for; else the one that the ending of the output's name stands for; else text."""
    if style is not None:
        return style
    ending = Path(output).suffix.lower().removeprefix(".") if output else ""
    found = _ENDINGS.get(ending, ending)
    return found if found in known else "text"


def write_summaries(page: Page, out: Path, environment: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Writes summary.json, summary.md, index.html and environment.json into the folder `out`. Raises WriteError.

    `settings`: what was run, and how; for environment.json, beside the machine and the versions.
    """
    write_text(out / "summary.json", written(page, "json"))
    write_text(out / "summary.md", written(page, "markdown"))
    write_text(out / "index.html", written(page, "html"))
    write_text(out / "environment.json", json.dumps({**environment, "settings": dict(settings)}, indent=2) + "\n")


def put(text: str, output: str | None) -> None:
    """Writes text to the file `output`, or to stdout where that is None. Raises WriteError."""
    if output is not None:
        write_text(output, text)
        return
    # `sys.stdout` may be a stream that the program has put in place of one that it was started without.
    if sys.__stdout__ is None:
        raise WriteError("cannot write the result: standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer would fail again at the end of the program.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"cannot write the result to standard output: {error.strerror}") from None


def coloured() -> bool:
    """Whether stdout is a terminal whose reader wants colours (https://no-color.org)."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def terminal_width() -> int | None:
    """The width of the terminal that stdout is, in characters; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
