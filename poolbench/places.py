"""Where an application is: the innermost line of its own code on a stack, not of a library.

Code of the application is every file outside the interpreter's library, site-packages, packages that pip installed into a
folder of their own (`pip install --target`), and this package. What pip installed there from a project's folder is the
application's, and so is a line of a Jinja template.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

_OURS = str(Path(__file__).resolve().parent) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{os.sep}poolbench_tool{os.sep}")
_ATTACHED = ("sitecustomize.py", "gunicorn_of_loadgen.py")
_INTERPRETER = tuple(
    {
        os.path.join(path, "")  # noqa: PTH118 - a prefix that ends in a separator
        for path in (
            sysconfig.get_path("stdlib"),
            sysconfig.get_path("platstdlib"),
            sysconfig.get_path("scripts"),
            str(Path(os.__file__).resolve().parent),
            f"{sys.prefix}/bin",
            os.path.realpath(f"{sys.prefix}/bin"),
        )
        if path
    }
)
_DATABASE = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("sqlalchemy", "psycopg", "psycopg2", "psycogreen", "psycopg_pool")
)

FILES: dict[str, int] = {}
"""File names seen so far, and what they are: 0 a library, 1 the application, 2 a database's library, 3 this package."""

LIBRARY, APPLICATION, DATABASE, OURS = range(4)

_MOST_KNOWN = 10_000
"""Files and places remembered: a program that makes its code while it runs has any number of them."""

_texts: dict[tuple[int, int, int], tuple[CodeType, str]] = {}
"""Places as they are shown."""


class Place(NamedTuple):
    """A place in a program, cheap to take: its code, and the offset of the instruction being run.

    `line` is the line where it is known already, as in a template; else it is found when it is shown.
    """

    code: CodeType
    instruction: int
    line: int = 0

    @property
    def number(self) -> int:
        """The line's number."""
        return self.line or _found_line(self.code, self.instruction)

    def __str__(self) -> str:
        """`file:line`, the file relative to the working directory where it lies in there."""
        key = id(self.code), self.instruction, self.line
        known = _texts.get(key)
        if known is None:
            if len(_texts) >= _MOST_KNOWN:
                _texts.clear()
            # The code is kept, so that no other can have its number.
            known = _texts[key] = self.code, f"{_shown(self.code.co_filename)}:{self.number}"
        return known[1]


def kind_of(code: CodeType) -> int:
    """Whether code is of the APPLICATION, a LIBRARY, a DATABASE's library, or OURS."""
    name = code.co_filename
    kind = FILES.get(name)
    if kind is None:
        if len(FILES) >= _MOST_KNOWN:
            FILES.clear()
        kind = FILES[name] = _kind(name)
    return kind


def application_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the application on the stack of `frame`; None without one."""
    files = FILES
    while frame is not None:
        code = frame.f_code
        kind = files.get(code.co_filename)
        if kind is None:
            kind = kind_of(code)
        if kind == APPLICATION:
            return frame
        frame = frame.f_back
    return None


def place_of(frame: FrameType | None) -> Place | None:
    """The innermost place of the application on the stack of `frame`; None without one."""
    code, instruction = at(application_frame(frame))
    return None if code is None else place_at(code, instruction)


def at(frame: FrameType | None) -> tuple[CodeType | None, int]:
    """The code of a frame and the offset of its instruction, which together say where that is, at the least cost; in a template,
    minus the number of its line. (None, 0) for None.
    """
    if frame is None:
        return None, 0
    code = frame.f_code
    return code, frame.f_lasti if code.co_filename.endswith(".py") else -_template_line(frame)


def place_at(code: CodeType, instruction: int) -> Place:
    """The place of what `at` has returned."""
    return Place(code, instruction) if instruction >= 0 else Place(code, 0, -instruction)


def _kind(name: str) -> int:
    """As `kind_of`, of a file's name. A library is one by its name, or by the file behind symbolic links."""
    path = os.path.abspath(name)  # noqa: PTH100 - symbolic links are kept
    kind = _kind_at(name, path)
    return _kind_at(name, os.path.realpath(path)) if kind == APPLICATION else kind


def _kind_at(name: str, path: str) -> int:
    if path.startswith(_OURS):
        return OURS
    if any(part in path for part in _DATABASE) and any(part in path for part in _INSTALLED):
        return DATABASE
    if name.startswith("<") or path.endswith(_ATTACHED):
        return LIBRARY
    if path.startswith(_INTERPRETER) or any(part in path for part in _INSTALLED) or _is_installed(path):
        return LIBRARY
    return APPLICATION


def _is_installed(path: str) -> bool:
    """Whether a file belongs to a package that pip installed into a folder of the import path: its record names it."""
    for folder in {os.path.join(os.path.abspath(each), "") for each in sys.path}:  # noqa: PTH100, PTH118 - a prefix
        if path.startswith(folder) and path.removeprefix(folder).partition(os.sep)[0] in _installed_in(folder):
            return True
    return False


@cache
def _installed_in(folder: str) -> frozenset[str]:
    """Names of the folders and files at the top of `folder` that pip put there; those of site-packages are known without.

    What it put there from a folder of this machine (`pip install --target DIR .`) is the application.
    """
    names: set[str] = set()
    for record in Path(folder).glob("*.dist-info/RECORD"):
        try:
            if _is_of_a_folder(record.with_name("direct_url.json")):
                continue
            names.update(line.split(",")[0].split("/")[0] for line in record.read_text("utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            continue
    return frozenset(names)


def _is_of_a_folder(direct_url: Path) -> bool:
    """Whether a distribution's direct_url.json says that it was installed from a folder; most have no such file."""
    try:
        found = json.loads(direct_url.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "dir_info" in found


def _found_line(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def _template_line(frame: FrameType) -> int:
    """The line of the template that Jinja made the frame's code from; the code's own line for anything else."""
    template = frame.f_globals.get("__jinja_template__")
    try:
        return int(template.get_corresponding_lineno(frame.f_lineno))  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001 - it is not Jinja's, or of a version that differs
        return frame.f_lineno or 0


def _shown(name: str) -> str:
    path = os.path.abspath(name)  # noqa: PTH100
    here = os.getcwd() + os.sep  # noqa: PTH109
    return path.removeprefix(here)
