"""What the processes of a user's own application have seen, read from the files that `attached.py` writes, and what a user can
do about a database that was not used.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the server's processes have written down."""

    events: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Everything written so far."""
        lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines(keepends=True)]
        return cls([json.loads(line) for line in lines if line.endswith("\n")])

    def of(self, event: str) -> Iterator[Mapping[str, Any]]:
        """The events of one kind."""
        return (each for each in self.events if each["event"] == event)

    @property
    def lent(self) -> bool:
        """Whether an engine with the plugin has lent a connection to the database given."""
        return any(each["given"] for each in self.of("lent"))

    @property
    def explains(self) -> bool:
        """Whether something was seen for which the given database cannot be used, whatever comes later."""
        return any(each["event"] in {"asgi", "function", "elsewhere", "library", "exits"} for each in self.events)

    @property
    def missed(self) -> bool:
        """Whether only other databases than the one given were asked for, and one could not be reached."""
        used = self.lent or any(self.of("connected"))
        return not used and any(self.of("unreachable"))

    @property
    def read_variables(self) -> tuple[str, ...]:
        """Names of the variables read that may name a database."""
        return tuple(dict.fromkeys(str(each["name"]) for each in self.of("read")))

    @property
    def is_factory(self) -> bool:
        """Whether the application had to be made by calling it."""
        return any(self.of("factory"))

    @property
    def foreign(self) -> str:
        """The address of an engine for another kind of database than PostgreSQL that keeps what is written; "" without one."""
        urls = (str(each["url"]) for each in self.of("engine"))
        return next((url for url in urls if not url.startswith("postgresql") and url not in _IN_MEMORY), "")

    @property
    def has_engine(self) -> bool:
        """Whether an engine is for a PostgreSQL."""
        return any(str(each["url"]).startswith("postgresql") for each in self.of("engine"))

    @property
    def is_open(self) -> bool:
        """Whether the library is attached, and nothing speaks against the database given but an engine for another kind."""
        return any(self.of("attached")) and not (self.explains or self.missed)

    @property
    def may_lend(self) -> bool:
        """Whether the library is attached, and nothing speaks against the database given."""
        return self.is_open and not self.foreign

    def is_foreign_only(self, given: Sequence[str]) -> bool:
        """Whether its engines are for other kinds of databases alone, and it has not read where the one given is.

        One that has read it may make the engine for it when that is first needed.
        """
        read = {text.partition("=")[0] for text in given} & set(self.read_variables)
        return bool(self.foreign) and not read and not self.has_engine

    def fault(self, given: Sequence[str]) -> str | None:
        """Why the database given was not used, in a sentence; None if it was. `given`: the variables that had its URL."""
        given = [text.partition("=")[0] for text in given]
        named = " and ".join(given)
        in_code = f'let it read a variable while you compare, such as os.environ["{given[0]}"]'
        read = self._read_besides(given, in_code)
        if any(self.of("asgi")):
            return "it is an ASGI application; loadgen runs WSGI applications"
        for each in self.of("function"):
            return (
                f"it is a function of {each['parameters']}, not a WSGI application: if it is a factory, give its"
                " arguments, as in --app 'MODULE:FACTORY(\"testing\")'"
            )
        for each in self.of("library"):
            return f"poolbench cannot be imported by it: {each['error']}"
        for each in self.of("exits"):
            return f"it ended its process while it was loaded: {' '.join(str(each['said']).split())}"
        asked = next(self.of("elsewhere"), next(self.of("unreachable"), {}) if self.missed else {})
        by = self._named_by(asked, given) if asked else ""
        if asked.get("unquoted"):
            by = ": the password in the URL that it makes has an @, which must be written as %40"
        if asked and not by:
            others = [name for name in self.read_variables if name not in given]
            by = f". {read}" if others else f", set in its code or a file: {in_code}"
        if asked:
            return f"it connects to {asked['url']}, not to the database given in {named}{by}. Nothing was loaded there"
        if self.lent:
            return None
        if any(self.of("kept")):
            return "its engine is one for asyncio, which can have no other pool than its own: --strategies own"
        if not any(self.of("attached")):
            return "no Python of its server found the library on its path: does the command run Python with -I or -E?"
        for each in self.of("engine"):
            if not str(each["url"]).startswith("postgresql"):
                return f"it uses {each['url']}, not the database given in {named}. {read}"
        for each in self.of("connected"):
            return f"it connects with {each['driver']} itself: without an SQLAlchemy engine there is no pool to replace"
        script = "do the script's requests use the database?"
        if any(each.get("given") for each in self.of("engine")):
            return f"its engine is for the database given, but lent no connection: {script}"
        if any(self.of("engine")):
            return f"its engine lent no connection: {script} {read}"
        return f"it made no SQLAlchemy engine, so it did not use the database given in {named}: {script} {read}"

    def unset(self, error: str, given: Sequence[str]) -> str:
        """What to do about an error that names a variable which may name a database, or Flask's setting for one.

        In a sentence with a space before it; "" for other errors. `given`: the variables that had the database's URL.
        """
        given = [text.partition("=")[0] for text in given]
        read = [name for name in self.read_variables if name not in given and not _NAMES_OF_SETTINGS.search(name)]
        named = [name for name in read if _mentions(error, name)]
        if not named and _OF_NOTHING.search(error):
            named = read
        if not named or "--url-variable" in error:
            return ""
        if (part := _part_of(named[0])) is not None and not _WHOLE.search(named[0]):
            option = _templates({named[0]: part})
            return f" If {named[0]} is a part of the database's address, give it, and the other parts alike: {option}"
        return f" If {' or '.join(named[:_MOST_NAMED])} names the database, give it: --url-variable {named[0]}"

    def _read_besides(self, given: Sequence[str], in_code: str) -> str:
        """Which variables it read that may name a database, in a sentence."""
        if changed := self._changed(given):
            return f"{changed[0].upper()}{changed[1:]}"
        others = [name for name in self.read_variables if name not in given]
        known = [name for name in given if name in self.read_variables]
        if {"host", "scheme"} & set(map(_part_of, others)) and not any(map(_URL.search, others)):
            options = _templates({name: part for name in others if (part := _part_of(name))})
            return f"Variables it read that may name a database: {', '.join(others)}. If they do, give {options}"
        if others:
            also = f"Besides {' and '.join(known)}, it read" if known else "Variables it read that may name a database:"
            which = "it names" if len(others) == 1 else "one of these names"
            return f"{also} {', '.join(others)}. If {which} the database, give it: --url-variable {others[0]}"
        if known:
            return f"It read {' and '.join(known)}, and no other variable that may name a database"
        return f"It read no variable that may name a database: {in_code}"

    def _changed(self, given: Sequence[str]) -> str:
        """Which of the variables that had the URL the application's own code has changed, in a sentence; "" for none."""
        changed = [name for name in given if name in {each["name"] for each in self.of("changed")}]
        if not changed:
            return ""
        return (
            f"its own code gave {' and '.join(changed)} another value, as load_dotenv(override=True) does: leave that out"
            " while you compare"
        )

    def _named_by(self, elsewhere: Mapping[str, Any], given: Sequence[str]) -> str:
        """Which variables name the other database, and what to do about it; "" where none does."""
        if changed := self._changed(given):
            return f": {changed}"
        variables = [name for name in elsewhere["variables"] if name not in given]
        # Others may have the same value by chance.
        variables = [name for name in variables if name in self.read_variables] or variables
        if variables:
            name = "name" if len(variables) > 1 else "names"
            return f", which {' and '.join(variables)} {name}: give --url-variable {variables[0]}"
        parts = dict(elsewhere.get("parts", {}))
        if "database" not in parts.values():
            return ""
        needed = dict(parts)
        for part in ("host", "port"):
            if part not in parts.values():
                read = [name for name in self.read_variables if part in name.lower() and name not in needed]
                # One that was read but is not set, or else libpq's own.
                needed[read[0] if read else f"PG{part.upper()}"] = part
        options = _templates(needed)
        name = f"{', '.join(parts)} name together" if len(parts) > 1 else f"{next(iter(parts))} names"
        return f", which {name}: give {options}"


_IN_MEMORY = {"sqlite:///", "sqlite:///:memory:"}
_URL = re.compile("UR[IL]|DSN", re.IGNORECASE)
_NAMES_OF_SETTINGS = re.compile("SETTINGS|CONFIG", re.IGNORECASE)
"""Variables that name a module or a file with settings."""
_OF_NOTHING = re.compile(
    r"SQLALCHEMY_DATABASE_URI|from given URL string|from string 'None'"
    r"|(?i:(URL|URI|DSN)\b.{0,30}\b(got None|NoneType)|got None(Type)?\b.{0,30}(URL|URI|DSN)\b)"
)
"""Errors of applications that have gone on without the URL of their database."""
_MOST_NAMED = 2
_PARTS = {
    "host": "HOST|SERVER|ADDR",
    "port": "PORT",
    "password": "PASS|PWD|SECRET",
    "user": "USER|ROLE",
    "scheme": "ENGINE|DIALECT|DRIVER|SCHEME|(DB|DATABASE|SQL)_?(TYPE|KIND)",
    "database": "NAME|DATABASE|_DB$|^DB$",
}
"""The parts of a database's address, and what the names of variables have that hold them; the first that fits counts."""


_WHOLE = re.compile("UR[IL]|DSN|DATABASE$|(_|^)DB$", re.IGNORECASE)
"""Variables that hold a whole address, or the name of a database: their names do not tell."""


def _part_of(name: str) -> str | None:
    """Which part of a database's address a variable of this name may hold; None where the name says none."""
    return next((part for part, pattern in _PARTS.items() if re.search(pattern, name, re.IGNORECASE)), None)


def _templates(parts: Mapping[str, str]) -> str:
    """The options that give variables the parts of an address. `parts`: names of variables, and the part of each."""
    return " ".join(f"--url-variable '{name}={{{part}}}'" for name, part in parts.items())


def hint(error: str, evidence: Evidence, folder: Path, given: Sequence[str], *, has_dotenv: bool) -> str:
    """What to do about an error for want of a variable, in a sentence with a space before it; "" for other errors.

    `folder`: the application's. `given`: the variables that had the database's URL. `has_dotenv`: a .env file is used.
    """
    if not has_dotenv:
        # None that can be read is as good as none.
        with contextlib.suppress(OSError):
            file = folder / ".env"
            text = file.read_text(errors="replace") if file.is_file() else ""
            if text and (_OF_NOTHING.search(error) or _names_one(error, text)):
                return " Unless the application reads its .env itself: --dotenv .env sets the variables"
        if advice := evidence.unset(error, given):
            return advice
        for name in _EXAMPLES:
            with contextlib.suppress(OSError):
                if _names_one(error, (folder / name).read_text(errors="replace")):
                    return f" {name} has it: give a copy with your values, --dotenv .env"
    return evidence.unset(error, given)


_EXAMPLES = (
    ".env.example",
    ".env.sample",
    ".env.template",
    ".env.dist",
    "env.example",
    "env.sample",
    "dot-env-example",
)
"""Files that applications come with, to be copied to .env."""


def _names_one(error: str, text: str) -> bool:
    """Whether an error names one of the variables that the text of a file sets."""
    names = re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)
    # Flask asks for SECRET_KEY as "the secret_key".
    return any(_mentions(error.upper(), name.upper()) for name in names)


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None
