"""A user's own application as a program to serve: on its own interpreter and packages, by our gunicorn or its own command.

Nothing is installed. The server's processes find one more folder on their path, made for the time of the run: this project's
library, its entry in SQLAlchemy's list of plugins, and `attached.py` as `sitecustomize.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from urllib.parse import quote

import psutil
from sqlalchemy import make_url

from db.child import Child
from loadgen.environment import TREE
from loadgen.lab.own_database import GivenPlace, mask_file
from loadgen.lab.own_evidence import Evidence, hint
from loadgen.lab.stack import StackError, last_error
from reports.files import exists
from reports.printable import without_credentials

OLDEST_PYTHON = (3, 11)
ATTACHED = "POOLBENCH_ATTACHED"
"""Variable that names the file which tells `attached.py` what to do."""
SETUP_PATIENCE_S = 300.0
_CONFIGURATION = "gunicorn_of_loadgen.py"
_PATIENCE_S = 60.0
_LEAVING_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36

_LOOK = """
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
names = ("SQLAlchemy", "gunicorn", "gevent", "psycopg2", "psycopg2-binary", "psycopg", "Flask")
print(json.dumps({"python": sys.version_info[:3], **{name.lower(): version(name) for name in names}}))
"""

_GUNICORN = '''"""gunicorn's configuration for an application of loadgen lab, in place of the application's own."""

import gc

worker_connections = 4096
graceful_timeout = 5
control_socket_disable = True


def post_worker_init(_worker):
    """What the application loaded stays in memory: collecting it again and again would only make requests wait."""
    gc.collect()
    gc.freeze()
'''


@dataclass(frozen=True, slots=True)
class OwnApplication:
    """A user's application, and how it is started."""

    wsgi: str
    """MODULE:APP or MODULE:FACTORY(), found from `folder` or its `src`."""
    folder: Path
    python: Path
    """The interpreter that has the application's packages."""
    server: str | None = None
    """A command with {host} and {port}; None: our gunicorn."""
    setup: tuple[str, ...] = ()
    """Commands that make the tables and their rows."""
    url_variables: tuple[str, ...] = ("DATABASE_URL",)
    """Names of the variables that get the database's URL, or NAME=TEMPLATE with a part of it, such as DB_HOST={host}."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """More variables of its environment, unless the host has them."""

    @property
    def name(self) -> str:
        """What it is called wherever it is shown: without the password of a URL that its factory gets."""
        return without_credentials(self.wsgi)

    def hint(self, error: str, evidence: Evidence) -> str:
        """What to do about an error for want of a variable, in a sentence with a space before it; "" for other errors."""
        return hint(error, evidence, self.folder, self.url_variables, has_dotenv=bool(self.variables))


def shown_command(command: str) -> str:
    """A command as it may be shown: without user and password of URLs, and without VALUE, maybe a secret, of NAME=VALUE."""
    return without_credentials(_ASSIGNMENT.sub(r"\1=…", command))


_ASSIGNMENT = re.compile(
    r"""(?<![^\s;&|('"])(?<!\w\()((?:--env=|-e)?[A-Za-z_]\w*)="""
    r"""(?:\\"(?:(?!\\").)*(?:\\"|$)|"(?:\\.|[^"\\])*(?:"|$)|'[^']*(?:'|$)|\\.|[^\s"'\\;]|;(?!\s|$))+""",
    re.DOTALL,
)
"""A word NAME=VALUE of a command, its value quoted or not; neither --name=VALUE nor an argument as in factory(name=VALUE)."""


def url_variables(names: Sequence[str], url: str) -> dict[str, str]:
    """The values of the variables that tell an application where its database is.

    `names`: NAME gets the whole URL; NAME=TEMPLATE gets a text in which {url}, {scheme}, {user}, {password}, {host}, {port}
    and {database} stand for the parts of it: {host} for the address of the host (hostaddr) where the URL has one. Raises
    ValueError for a template with anything else in braces.
    """
    parsed = make_url(url)
    host, port = _way(url, by_parts=True)
    parts = {
        "url": url,
        "scheme": parsed.drivername,
        "user": parsed.username or "",
        "password": str(parsed.password or ""),
        "host": host,
        "port": port,
        "database": parsed.database or "",
    }
    values = {}
    for text in names:
        name, _, template = text.partition("=")
        try:
            values[name] = _filled(template or "{url}", parts)
        except (KeyError, ValueError):
            raise ValueError(
                f"--url-variable {shown_variable(text)!r}: braces may hold {', '.join(parts)}, as in DB_HOST={{host}}"
            ) from None
    return values


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with the parts that its braces name. Raises KeyError or ValueError for anything else in braces."""
    found = []
    for literal, name, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError("braces hold only a name")
        found += [literal, "" if name is None else parts[name]]
    return "".join(found)


def shown_variable(text: str) -> str:
    """A --url-variable as it may be shown: its name, which ends where a template, or a URL in its place, begins."""
    return re.split("[=:@]", text, maxsplit=1)[0]


def unquoted_password(names: Sequence[str], url: str) -> str:
    """What an application has to do to a password that it gets as it is, in a sentence; "" where that is nothing."""
    getting = [text.partition("=")[0] for text in names if "{password}" in text]
    password = str(make_url(url).password or "")
    if not getting or quote(password, safe="") == password:
        return ""
    return (
        f"{' and '.join(getting)} has the password as it is. In a URL, some of its characters must be encoded, such as @ as"
        " %40: an application that makes a URL of it without urllib.parse.quote fails."
    )


def _way(url: str, *, by_parts: bool) -> tuple[str, str]:
    """Host (or socket's folder) and port by which an application reaches the database of a URL.

    `by_parts`: it gets the URL's parts, so that the address of a host must stand for its name.
    """
    parsed = make_url(url)
    host, port = (at or parsed.query.get(key) for key, at in (("host", parsed.host), ("port", parsed.port)))
    return str((parsed.query.get("hostaddr") if by_parts else None) or host or ""), str(port or 5432)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What the application's interpreter has installed: versions of the packages of interest, None for one it lacks."""

    path: Path
    version: tuple[int, ...]
    packages: Mapping[str, str | None]

    def has(self, name: str) -> bool:
        """Whether a package is installed."""
        return self.packages.get(name) is not None

    def __str__(self) -> str:
        """Python and the packages that it has, with their versions."""
        installed = [f"{name} {version}" for name, version in self.packages.items() if version is not None]
        return ", ".join((f"Python {_dotted(self.version)}", *installed))

    @property
    def driver(self) -> str | None:
        """The driver that a URL must name, because SQLAlchemy's own choice is not installed; None: a plain URL will do."""
        usual = "psycopg" if _numbers(self.packages["sqlalchemy"]) >= (2, 1) else "psycopg2"
        installed = {"psycopg"} & {name for name in self.packages if self.has(name)}
        if self.has("psycopg2") or self.has("psycopg2-binary"):
            installed.add("psycopg2")
        return None if usual in installed or not installed else installed.pop()


def chosen_python(given: str | None, environ: Mapping[str, str], folder: Path, own: str) -> Path:
    """The application's interpreter: the one given, else that of $VIRTUAL_ENV, else of ./.venv or ./venv, else our own.

    Raises StackError if it is not there.
    """
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise StackError(f"--python {given}: no such program")
        return Path(found).absolute()
    places = [Path(environ["VIRTUAL_ENV"])] if environ.get("VIRTUAL_ENV") else []
    for place in (*places, folder / ".venv", folder / "venv"):
        if exists(place / "bin" / "python"):
            return place / "bin" / "python"
    return Path(own)


def look_at(python: Path) -> Interpreter:
    """Ask an interpreter what it has. Raises StackError if it cannot serve an application."""
    try:
        done = subprocess.run(
            [python, "-c", _LOOK], capture_output=True, text=True, timeout=_PATIENCE_S, check=True, cwd="/"
        )
        found = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        why = said[-1].strip()[:300] if said else f"it ended with exit code {error.returncode}, and said nothing"
        raise StackError(f"--python {python}: it is no usable Python: {why}") from None
    except subprocess.TimeoutExpired:
        raise StackError(f"--python {python}: it is no usable Python: no answer within {_PATIENCE_S:.0f} s") from None
    except ValueError:
        raise StackError(f"--python {python}: it is no usable Python: its answer is not that of one") from None
    except OSError as error:
        raise StackError(f"--python {python}: it is no usable Python: {error.strerror}") from None
    version = tuple(found.pop("python"))
    if version[:2] < OLDEST_PYTHON:
        raise StackError(
            f"--python {python}: Python {_dotted(version)}; poolbench needs {_dotted(OLDEST_PYTHON)} or newer"
        )
    if found["sqlalchemy"] is None:
        raise StackError(
            f"{python} has no SQLAlchemy, so no application on it has a pool to compare: name the right one with --python"
        )
    if _numbers(found["sqlalchemy"]) < (2, 0):
        raise StackError(f"{python} has SQLAlchemy {found['sqlalchemy']}; poolbench needs 2.0 or newer")
    return Interpreter(python, version, found)


@dataclass(frozen=True, slots=True)
class AppServer:
    """The application under one strategy, with a place for what its processes write down. Made by `Attachments`."""

    application: OwnApplication
    interpreter: Interpreter
    library: Path
    attached: Path
    """The file that tells `attached.py` what to do."""
    evidence: Path
    ready_path: str = "/"

    @property
    def folder(self) -> Path:
        """The folder to start it in."""
        return self.application.folder

    def command(self, address: tuple[str, int], count: int) -> list[str]:
        """The command line that serves the application."""
        if self.application.server is not None:
            filled = self.application.server.replace("{host}", address[0]).replace("{port}", str(address[1]))
            words = shlex.split(filled)
            # As a shell would take it.
            return ["env", *words] if re.match(r"\w+=", words[0]) else words
        kind = (
            ["gunicorn.workers.ggevent.GeventPyWSGIWorker"]
            if self.interpreter.has("gevent")
            else ["gthread", "--threads", str(THREADS)]
        )
        return [
            *(str(self.interpreter.path), "-m", "gunicorn", "-c", str(self.library / _CONFIGURATION)),
            *("--bind", f"{address[0]}:{address[1]}", "--workers", str(count), "--worker-class", *kind),
            self.application.wsgi,
        ]

    def environment(self, _address: tuple[str, int], _count: int) -> dict[str, str]:
        """The host's environment, with the library on the path of Python and the interpreter's programs before others."""
        environment = own_environment(self.application, self.library)
        environment[ATTACHED] = str(self.attached)
        return environment

    def awaited_workers(self, count: int) -> int:
        """A command of the user's own may have any number of processes."""
        return count if self.application.server is None else 0

    def is_hopeless(self) -> bool:
        """Whether its processes have seen a reason for which the given database will never be used."""
        return Evidence.read(self.evidence).explains

    def end_strays(self) -> None:
        """End the processes that the server has left behind, such as one that put itself into the background."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(ATTACHED) == str(self.attached):
                    process.kill()


THREADS = 8
"""Threads of each worker where gevent is not installed."""


def own_environment(application: OwnApplication, library: Path) -> dict[str, str]:
    """The environment of the application's processes and of its setup commands."""
    environment = {**application.variables, **os.environ}
    if application.server is None:
        # It would win over our configuration.
        environment.pop("GUNICORN_CMD_ARGS", None)
    sources = application.folder / "src"
    paths = [str(library), *([str(sources)] if sources.is_dir() else []), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["PATH"] = os.pathsep.join((str(application.python.parent), environment.get("PATH", os.defpath)))
    if (application.python.parent / "activate").exists():
        environment["VIRTUAL_ENV"] = str(application.python.parent.parent)
    return environment


@dataclass
class Attachments:
    """The folder that the server's processes find on their path, and a file and a folder of evidence for each start."""

    application: OwnApplication
    interpreter: Interpreter
    folder: Path
    """An empty folder, which lives as long as the servers."""
    _made: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        library = self.library
        shutil.copytree(
            TREE / "poolbench", library / "poolbench", ignore=shutil.ignore_patterns("__pycache__", "*.toml")
        )
        shutil.copy(Path(__file__).with_name("attached.py"), library / "sitecustomize.py")
        (library / _CONFIGURATION).write_text(_GUNICORN)
        about = library / "poolbench_pool-0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: poolbench-pool\nVersion: 0\n")
        (about / "entry_points.txt").write_text("[sqlalchemy.plugins]\npoolbench = poolbench.plugin:PoolbenchPlugin\n")

    @property
    def library(self) -> Path:
        """The folder for the path of Python."""
        return self.folder / "library"

    def server(
        self,
        strategy: str | None,
        parameters: Mapping[str, str],
        place: GivenPlace,
        url: str,
        most: int | None = None,
        *,
        watch: bool = False,
    ) -> AppServer:
        """The application under a strategy; None: its setup commands, whose engines stay as they are.

        `url`: that of the database for the application. `most`: connections that each process may open; None: no limit.
        """
        self._made += 1
        evidence = self.folder / f"evidence-{self._made}"
        evidence.mkdir()
        given = {
            "strategy": strategy,
            "parameters": dict(parameters),
            "host": place.host,
            "port": place.port,
            "database": place.database,
            "identity": place.identity,
            "way": _way(url, by_parts=any("{host}" in text for text in self.application.url_variables)),
            "most": most,
            "evidence": str(evidence),
            "watch": watch,
        }
        attached = self.folder / f"attached-{self._made}.json"
        attached.write_text(json.dumps(given))
        return AppServer(self.application, self.interpreter, self.library, attached, evidence)


@contextmanager
def set_up(
    program: AppServer,
    variables: Mapping[str, str],
    log: Path,
    masked: Callable[[str], str],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Run the setup commands in the application's folder; what they leave running is ended when the block is left.

    Raises StackError, naming the command, if one fails, does not end, or asks for another database than the one given.
    """
    log.unlink(missing_ok=True)
    ours = psutil.Process()
    before, left = ours.children(), []
    try:
        _adopt_orphans(True)
        try:
            for command in program.application.setup:
                _run_setup(command, program, variables, log, masked, say)
        finally:
            _adopt_orphans(False)
            left = [each for each in ours.children() if each not in before]
        yield
    finally:
        for process in left:
            _kill_tree(process)
        psutil.wait_procs(left, timeout=_LEAVING_S)
        program.end_strays()
        mask_file(log, masked)


def _run_setup(
    command: str,
    program: AppServer,
    variables: Mapping[str, str],
    log: Path,
    masked: Callable[[str], str],
    say: Callable[[str], None],
) -> None:
    shown = masked(shown_command(command))
    told = f"--setup {shown!r}"
    say(f"setup: {shown}")
    child = Child(
        ["/bin/sh", "-c", command],
        log=log,
        env={**program.environment(("", 0), 0), **variables},
        cwd=program.folder,
    )
    try:
        code = child.process.wait(SETUP_PATIENCE_S)
    except BaseException as error:
        child.stop()
        if isinstance(error, subprocess.TimeoutExpired):
            raise StackError(f"{told} did not end within {SETUP_PATIENCE_S:.0f} s (see {log})") from None
        raise
    finally:
        mask_file(log, masked)
    evidence = Evidence.read(program.evidence)
    if evidence.explains or (code and evidence.missed):
        raise StackError(masked(f"{told}: {evidence.fault(program.application.url_variables)}"))
    if code:
        # Masked before it is cut, so that no part of a password is left.
        output = masked(child.output())
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        said = (last_error(output) or lines[-1][:300]) if lines else "it said nothing"
        advice = program.application.hint(said, evidence)
        raise StackError(f"{told} ended with exit code {code}: {said} (see {log}).{advice}".removesuffix("."))


def _adopt_orphans(wanted: bool) -> None:
    """Have Linux make this process the parent of those of its descendants whose parent ends, or leave them to init again."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _kill_tree(process: psutil.Process) -> None:
    """Kill a process and its descendants."""
    with contextlib.suppress(psutil.Error):
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                each.kill()


def _numbers(version: str | None) -> tuple[int, ...]:
    parts = (version or "0").split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
