"""Both wheels in fresh environments: beside an application that has modules of our names, and on their own.

The application's environment holds the lowest version of everything that the tool asks for, on this Python; the tool's own holds
the newest versions, on the newest Python that is here. So both ends of the ranges are tried.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement

from tests.support.paths import ROOT
from tests.support.server_process import free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
import sys
from flask import Flask, jsonify
import db, db.engine, reports

app = Flask(__name__)

@app.get("/")
def seen():
    with db.engine.engine.connect() as connection:
        lent = connection.exec_driver_sql("SELECT 1").scalar()
    modules = {name: list(sys.modules[name].__path__)[0] for name in ("db", "reports")}
    pools = [kind.__name__ for kind in type(db.engine.engine.pool).__mro__]
    return jsonify(app=__file__, modules=modules, path=sys.path, pools=pools, lent=lent)
"""
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


class Environment:
    """A fresh virtual environment. The checkout's pip installs into it, so none has to be put there first."""

    def __init__(self, folder: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
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
        return {found["name"].lower(): found["version"] for found in json.loads(self.pip("list", "--format", "json"))}

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
    return url.replace("postgresql:", "postgresql+psycopg2:", 1) + "?plugin=poolbench&pool=fair&pool_size=2"


def what_flask_serves(environment: Environment, folder: Path, url: str) -> dict:
    """What the application in this folder answers when `flask run` is started there."""
    port, seen = free_port(), {}
    command = [environment.bin / "flask", "run", "--port", str(port)]

    def answered() -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            seen.update(json.loads(answer.read()))
        return bool(seen)

    with (folder.parent / "flask.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=outside(DATABASE_URL=url), stdout=log, stderr=log)
    try:
        wait_until(answered, "flask serves", 30)
    finally:
        server.terminate()
        server.wait(10)
    return seen


def found_only_its_own(seen: dict, folder: Path) -> bool:
    """Whether the application's modules are its own, and the tool's are not on its path."""
    ours = [entry for entry in seen["path"] if "poolbench_tool" in entry or Path(entry or ".") == ROOT]
    modules = {name: str(folder / name) for name in ("db", "reports")}
    return not ours and seen["app"] == str(folder / "app.py") and seen["modules"] == modules


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
    return Beside(environment, *before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, wheels):
    """The tool in an environment of its own: the newest versions, on the newest Python."""
    environment = Environment(tmp_path_factory.mktemp("alone") / "env", newest_python())
    environment.install(wheels[1])
    return environment


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
    assert found_only_its_own(seen, host)
    assert seen["lent"] == 1
    assert "FairPool" in seen["pools"]


@pytest.mark.parametrize("python", ["beside", "alone"])
def test_the_lab_loads_an_application_that_finds_only_its_own_modules(python, request, tmp_path):
    found = request.getfixturevalue(python)
    environment = getattr(found, "environment", found)
    host = make_host(tmp_path / "host", db_has_init=False)
    lab = ["loadgen", "lab", "--app", "app:app", "--script", "load.yml", "--strategies", "null,fair", "--out", "../out"]
    environment.run(*lab, "--servers", 1, folder=host)
    results = json.loads((tmp_path / "out" / "summary.json").read_text())["strategies"]
    assert [results[name]["failed"] for name in ("null", "fair")] == [0, 0]
    for name in ("null", "fair"):
        [captured] = (
            json.loads((tmp_path / "out" / f"{name}.json").read_text())["aggregate"]["counters"].items() & set()
        )
