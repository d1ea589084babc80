"""Applications of users, written into a folder, and `loadgen lab --app` run on them."""

import os
import subprocess
import sys
from pathlib import Path

from loadgen.lab.attached import _Attachment
from loadgen.lab.own_database import place_of
from tests.support.paths import BIN

LOADGEN = str(BIN / "loadgen")

SCRIPT = """
config:
  target: http://127.0.0.1:8000
  phases: [{duration: 1, arrivalCount: 10}]
scenarios:
  - flow:
      - post: {url: /rows, json: {}}
"""

APP = """
import os
from flask import Flask
from sqlalchemy import create_engine, text

engine = create_engine(URL)
app = Flask(__name__)

@app.get("/")
def home():
    return "rows"

@app.post("/rows")
def add():
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO rows_of_app DEFAULT VALUES"))
    return {}, 201
"""

SETUP = (
    "python -c \"import os, psycopg2; c = psycopg2.connect(os.environ['DATABASE_URL']); c.autocommit = True;"
    " c.cursor().execute('CREATE TABLE IF NOT EXISTS rows_of_app (id serial)')\""
)


def write_app(folder: Path, url: str, source: str = APP) -> Path:
    """An application that takes its database's URL from an expression, and its script."""
    (folder / "rows_app.py").write_text(source.replace("URL", url, 1))
    (folder / "load.yml").write_text(SCRIPT)
    return folder


def lab(folder: Path, *arguments: object, app: str = "rows_app:app", timeout: float = 100, **environment: str):
    """The finished `loadgen lab --app` in a folder; its files are in `folder`/out."""
    command = [LOADGEN, "lab", "--out", folder / "out"]
    if "--app" not in arguments:
        command += ["--app", app, "--script", "load.yml"]
    if "--servers" not in arguments:
        command += ["--servers", "1"]
    if "--rounds" not in arguments:
        command += ["--rounds", "1"]
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(
        [str(part) for part in (*command, *arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**kept, **environment},
    )


def errors(done) -> list[str]:
    """The lines of stderr that tell of an error."""
    return [line for line in done.stderr.splitlines() if line.startswith("Error: ")]


def attachment(postgres, folder: Path, **given: object) -> _Attachment:
    """What changes an application's modules in its processes, for this database, with its evidence in a folder."""
    place = place_of(postgres.url)
    known = {"host": place.host, "port": place.port, "database": place.database, "identity": place.identity}
    way = [place.host, place.port]
    return _Attachment({"strategy": "fair", "way": way, "evidence": str(folder), "most": None, **known, **given})


def own_python(folder: Path) -> Path:
    """An interpreter of its own, whose packages are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    (packages / "more.pth").write_text(
        str(Path(sys.executable).parent.parent / "lib" / packages.parent.name / packages.name)
    )
    return folder / ".venv" / "bin" / "python"
