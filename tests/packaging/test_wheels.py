"""Both wheels in fresh environments: beside an application that has modules of our names, and on their own.

The application's environment holds the lowest version of everything that the tool asks for, on this Python; the tool's own holds
the newest versions, on the newest Python that is here. So both ends of the ranges are tried.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement

from db.child import Child
from tests.support.paths import ROOT
from tests.support.server_process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
import os, sys
from pathlib import Path
from flask import Flask
import db.engine, reports

app = Flask(__name__)

@app.get("/")
def seen():
    with db.engine.engine.connect() as connection:
        lent = connection.exec_driver_sql("SELECT 1").scalar()
    files = [__file__, db.engine.__file__, reports.__file__]
    own = all(Path(file).is_relative_to(Path(__file__).parent) for file in files)
    way_to_tool = "poolbench_tool" in str(sys.path) + os.environ.get("PYTHONPATH", "")
    pools = [kind.__name__ for kind in type(db.engine.engine.pool).__mro__]
    return dict(files=files, path=sys.path, pools=pools, lent=lent), 200 if own and not way_to_tool else 500
"""
"""Answers 500 where a module is not its own, or where it could have found one of the tool's."""

ENGINE = """
import os
from sqlalchemy import create_engine

engine = create_engine(os.environ["DATABASE_URL"])
"""
SCRIPT = """
config:
  target: http://127.0.0.1:1
  phases: [{duration: 1, arrivalRate: 20}]
scenarios:
  - flow: [get: {url: /}]
"""


LENDING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import create_engine

engine = create_engine(sys.argv[1])

def borrow(_):
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid(), pg_sleep(0.05)").scalar()

with ThreadPoolExecutor(8) as threads:
    pids = list(threads.map(borrow, range(8)))
print(f"{len(pids)} loans, {len(set(pids))} connections")
"""
VERSIONS = """
import json
from importlib.metadata import distributions

print(json.dumps({found.name.lower(): found.version for found in distributions()}))
"""
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


class Environment:
    """A fresh virtual environment. The checkout's pip installs into it, so none has to be put there first."""

    def __init__(self, folder: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        self.folder = folder
        self.bin = folder / "bin"
        self.packages = next(folder.glob("lib/python3*/site-packages"))

    def pip(self, *arguments: object) -> str:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.bin / "python",
            "--disable-pip-version-check",
            *arguments,
        ]
        done = subprocess.run(command, env=outside(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *what: object) -> None:
        self.pip("install", "--quiet", "--no-compile", *what)

    def versions(self) -> dict[str, str]:
        return json.loads(self.run("python", "-c", VERSIONS, folder=self.folder).stdout)

    def run(
        self, *command: object, folder: Path, code: int = 0, **settings: object
    ) -> subprocess.CompletedProcess[str]:
        """A command of this environment, run in a folder that is no checkout."""
        done = subprocess.run(
            [self.bin / str(command[0]), *map(str, command[1:])], cwd=folder, env=outside(**settings),
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done


def outside(**settings: object) -> dict[str, str]:
    """The environment of a user who has no checkout and is in no virtual environment."""
    ours = ("PYTHON", "VIRTUAL_ENV", "DB_", "DATABASE_URL", "FLASK", "PIP_PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {name: str(value) for name, value in settings.items()}


def lowest() -> list[str]:
    """The lowest version of each package that the tool or the library asks for."""
    asked = [
        Requirement(each)
        for project in (ROOT, ROOT / "poolbench")
        for each in tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    return [f"{each.name}=={bound.version}" for each in asked for bound in each.specifier if bound.operator == ">="]


def newest_python() -> str:
    """The newest Python 3 on the path, or among pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [Path(folder) for folder in os.environ["PATH"].split(":")]
    found = {tuple(sys.version_info[:2]): sys.executable}
    for python in [*pyenv.glob("3.*/bin/python3"), *(p for folder in folders for p in folder.glob("python3.[0-9]*"))]:
        if re.fullmatch(r"python3(\.\d+)?", python.name):
            asked = [python, "-c", "import sys, venv; print(*sys.version_info[:4])"]
            answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
            if answer and answer[3] == "final":
                found.setdefault((int(answer[0]), int(answer[1])), str(python))
    return found[max(found)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The library's and the tool's."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, ROOT, ROOT / "poolbench"], env=outside(), check=True)
    [library], [tool] = folder.glob("poolbench_pool-*.whl"), folder.glob("poolbench-*.whl")
    return library, tool


def make_host(folder: Path, *, db_has_init: bool) -> Path:
    """An application with an app.py, a db/, a reports/ and a wsgi.py, and a script to load it with."""
    files = {
        "app.py": APP, "wsgi.py": "from app import app\n", "load.yml": SCRIPT, "db/engine.py": ENGINE,
        "reports/__init__.py": "", "loadgen.py": "",
    }  # fmt: skip
    for name, text in (files | ({"db/__init__.py": ""} if db_has_init else {})).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def files_in(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def fair(url: str) -> str:
    return (
        url.replace("postgresql:", "postgresql+psycopg2:", 1) + "?plugin=poolbench&pool=fair&pool_size=2&max_overflow=0"
    )


def what_flask_serves(environment: Environment, folder: Path, url: str) -> dict:
    """What the application in this folder answers when `flask run` is started there."""
    port, seen = free_port(), {}
    command = [environment.bin / "flask", "run", "--port", str(port)]

    def answered() -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            seen.update(json.loads(answer.read()))
        return bool(seen)

    with Child(command, log=folder.parent / "flask.log", cwd=folder, env=outside(DATABASE_URL=url)) as server:
        server.await_ready(answered, 30)
    return seen


@dataclass
class Beside:
    """An application's environment, and what was in it before the wheels were installed into it."""

    environment: Environment
    versions: dict[str, str]
    files: set[Path]


@pytest.fixture(scope="module")
def beside(tmp_path_factory, wheels):
    """Everything is pinned to the lowest version before both wheels are installed, as anybody would, with what they need."""
    environment = Environment(tmp_path_factory.mktemp("beside") / "env", sys.executable)
    environment.install(*lowest())
    before = environment.versions(), set(files_in(environment.packages))
    environment.install(*wheels)
    yield Beside(environment, *before)
    shutil.rmtree(environment.folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, wheels):
    """The tool in an environment of its own: the newest versions, on the newest Python."""
    environment = Environment(tmp_path_factory.mktemp("alone") / "env", newest_python())
    environment.install(wheels[1])
    yield environment
    shutil.rmtree(environment.folder)


@pytest.fixture
def target(tmp_path):
    """The address of a server that answers 200."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def old_sqlalchemy(tmp_path_factory):
    """A folder with SQLAlchemy 1.4, to be put before the one that is installed."""
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, "SQLAlchemy==1.4.54"], check=True)
    return folder


def test_an_applications_pins_stay_as_they_are(beside):
    assert beside.environment.versions() == beside.versions | {"poolbench": VERSION, "poolbench-pool": VERSION}
    beside.environment.pip("check")


@pytest.mark.parametrize("db_has_init", [True, False])
def test_an_application_with_modules_of_our_names_finds_its_own_and_borrows(beside, tmp_path, postgres, db_has_init):
    host = make_host(tmp_path / "host", db_has_init=db_has_init)
    seen = what_flask_serves(beside.environment, host, fair(postgres.url))
    assert seen["lent"] == 1
    assert "FairPool" in seen["pools"]


@pytest.mark.parametrize("place", ["beside", "alone"])
def test_the_lab_loads_an_application_that_finds_only_its_own_modules(place, request, tmp_path):
    found = request.getfixturevalue(place)
    environment = found.environment if place == "beside" else found
    host = make_host(tmp_path / "host", db_has_init=False)
    lab = ["loadgen", "lab", "--app", "app:app", "--script", "load.yml", "--strategies", "fair", "--out", "../out"]
    environment.run(*lab, "--servers", 1, "--db-rtt", "1ms", folder=host)
    results = json.loads((tmp_path / "out" / "summary.json").read_text())["strategies"]
    assert {name: found["failed"] for name, found in results.items()} == {"fair": 0}


def test_the_tool_runs_the_experiments_from_any_folder(alone, tmp_path):
    """Those of a publication run in processes of their own, which must find the tool's modules, and not the host's."""
    host = make_host(tmp_path, db_has_init=True)
    done = alone.run("loadgen", "lab", "--only", "B.3,hikaricp-spike", "--out", "out", folder=host)
    assert "hikaricp-spike, " not in done.stderr  # begins what is said of a turn that failed
    found = json.loads((host / "out" / "summary.json").read_text())
    assert "B.3.c1" in str(found) and "hikaricp-spike" in str(found)
    assert (host / "out" / "index.html").exists()


def test_the_tool_loads_compares_and_reports_beside_modules_of_its_names(alone, tmp_path, target):
    """In the folder of an application, whose reports/ must not be taken for the tool's."""
    host = make_host(tmp_path / "host", db_has_init=True)
    for name in ("old.json", "new.json"):
        alone.run("loadgen", "run", "load.yml", "--target", target, "-o", name, "--workers", 2, folder=host)
    saved = json.loads((host / "new.json").read_text())
    assert saved["aggregate"]["counters"]["http.codes.200"] == 20
    assert saved["poolbench"]["tool_version"] == VERSION
    assert "p99" in alone.run("poolbench", "diff", "old.json", "new.json", folder=host).stdout
    alone.run("loadgen", "report", "new.json", "-o", "page.html", folder=host)
    assert (host / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["loadgen", "poolbench"])
def test_both_commands_know_their_version(alone, tmp_path, command):
    assert alone.run(command, "--version", folder=tmp_path).stdout == f"loadgen {VERSION}\n"


def test_an_sqlalchemy_that_is_too_old_is_named_in_one_line(beside, old_sqlalchemy, tmp_path):
    environment = beside.environment
    library = environment.run("python", "-c", "import poolbench", folder=tmp_path, code=1, PYTHONPATH=old_sqlalchemy)
    told = library.stderr.splitlines()[-1]
    assert told.startswith("ImportError: poolbench needs SQLAlchemy 2.0 or newer")
    assert "1.4.54" in told
    tool = environment.run("loadgen", "lab", "--only", "B.3", folder=tmp_path, code=2, PYTHONPATH=old_sqlalchemy)
    assert tool.stderr == "Error: this needs SQLAlchemy 2.0 or newer; installed: 1.4.54\n"


@pytest.mark.parametrize("newest", [False, True], ids=["lowest", "newest"])
def test_the_library_lends_where_nothing_else_is_installed(tmp_path, wheels, postgres, newest):
    """Without gevent, in threads, on both ends of the range of SQLAlchemy."""
    environment = Environment(tmp_path / "env", newest_python() if newest else sys.executable)
    pins = {each.partition("==")[0]: each for each in lowest()}
    needed = ["SQLAlchemy", "psycopg2-binary"]
    environment.install(wheels[0], *(needed if newest else [pins[name] for name in needed]))
    assert "gevent" not in environment.versions()
    done = environment.run("python", "-c", LENDING, fair(postgres.url), folder=tmp_path)
    assert done.stdout == "8 loans, 2 connections\n"
    shutil.rmtree(environment.folder)


def test_a_wheel_takes_with_it_what_it_brought_and_nothing_else(beside, tmp_path, postgres):
    """The tool goes first, and the library serves on. The last test here: it leaves the environment without both."""
    host = make_host(tmp_path / "host", db_has_init=False)
    before = files_in(host)
    beside.environment.pip("uninstall", "--yes", "poolbench")
    assert "FairPool" in what_flask_serves(beside.environment, host, fair(postgres.url))["pools"]
    beside.environment.pip("uninstall", "--yes", "poolbench-pool")
    assert beside.environment.versions() == beside.versions
    assert set(files_in(beside.environment.packages)) == beside.files
    assert files_in(host) == before
    assert not (beside.environment.packages / "poolbench_tool").exists()
