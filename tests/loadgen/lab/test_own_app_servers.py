"""A user's application as it is: its interpreter, its server and driver, its factory, its variables."""

import json
import sys

import psutil
import pytest

from loadgen.lab.own_evidence import Evidence
from loadgen.lab.own_server import Interpreter, chosen_python
from loadgen.lab.stack import StackError
from reports.formats.artillery_json import from_json
from tests.support.own_app import APP, SETUP, errors, lab, own_python, write_app

pytestmark = pytest.mark.long

GIVEN = 'os.environ["DATABASE_URL"]'
PSYCOPG_3 = 'os.environ["DATABASE_URL"].replace("postgresql", "postgresql+psycopg", 1)'
FACTORY = APP.replace("app = Flask(__name__)", "def create_app(testing=False):\n    app = Flask(__name__)")
# The tables are made after gunicorn has loaded the application, so that it may be started on an empty database.


def factory():
    head, _, body = APP.partition("app = Flask(__name__)\n")
    indented = "".join(f"    {line}" if line.strip() else line for line in body.splitlines(keepends=True))
    return f"{head}def create_app(testing=False):\n    app = Flask(__name__)\n{indented}    return app\n"


@pytest.mark.parametrize("url", [GIVEN, PSYCOPG_3], ids=["psycopg2", "psycopg"])
@pytest.mark.parametrize(
    "server",
    [
        None,
        "gunicorn -w 1 -k sync -b {host}:{port} rows_app:app",
        "gunicorn -w 1 -k gthread --threads 4 -b {host}:{port} rows_app:app",
        "gunicorn -w 1 -k gevent -b {host}:{port} rows_app:app",
        "waitress-serve --host {host} --port {port} rows_app:app",
        "flask --app rows_app:app run --host {host} --port {port}",
    ],
    ids=["ours", "sync", "gthread", "gevent", "waitress", "flask run"],
)
def test_each_server_and_driver_runs_under_the_strategies(tmp_path, server, url):
    write_app(tmp_path, url)
    own = () if server is None else ("--server", server)
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "own,fair", *own)
    assert done.returncode == 0, done.stderr
    for strategy in ("own", "fair"):
        total = from_json((tmp_path / "out" / f"{strategy}.json").read_text()).aggregate
        assert total.counters["http.codes.201"] == 10
        for entry in ("pool", "connect", "db", "total", "cpu", "loan-cpu"):
            assert total.summaries[f"server.{entry}"].count == 10
        assert total.summaries["server.cpu"].mean > total.summaries["server.loan-cpu"].mean > 0


def test_under_gevent_statements_of_psycopg2_do_not_stop_each_other(tmp_path):
    write_app(tmp_path, GIVEN, APP.replace("INSERT INTO rows_of_app DEFAULT VALUES", "SELECT pg_sleep(0.3)"))
    server = "SECRET_KEY=abc123 gunicorn -w 1 -k gevent -b {host}:{port} rows_app:app"
    done = lab(tmp_path, "--strategies", "own", "--server", server)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert not [path for path in out.rglob("*.*") if path.is_file() and "abc123" in path.read_text()]
    assert "abc123" not in done.stdout + done.stderr and "SECRET_KEY=… gunicorn" in done.stderr
    assert json.loads((out / "summary.json").read_text())["servers"] is None
    total = from_json((tmp_path / "out" / "own.json").read_text()).aggregate
    # Ten within one second, five at a time of QueuePool's 5 + 10: one after the other would take three seconds.
    assert total.summaries["http.response_time"].p99 < 1000


def test_an_application_runs_on_its_own_interpreter(tmp_path):
    python = own_python(tmp_path)
    said = APP.replace("app = Flask", "import sys\nprint('prefix', sys.prefix)\napp = Flask")
    write_app(tmp_path, GIVEN, said)
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "fair")
    assert done.returncode == 0, done.stderr
    assert str(python) in done.stderr
    (log,) = (tmp_path / "out" / "logs").glob("fair*.log")
    assert f"prefix {tmp_path / '.venv'}" in log.read_text()
    assert not list((tmp_path / ".venv").rglob("poolbench*"))


def test_a_factory_without_parentheses_is_called_and_told(tmp_path):
    write_app(tmp_path, GIVEN, factory())
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "fair", app="rows_app:create_app")
    assert done.returncode == 0, done.stderr
    assert "rows_app:create_app is a factory" in done.stderr


def test_an_asgi_application_is_told_in_one_line(tmp_path):
    source = "async def app(scope, receive, send):\n    pass\n"
    write_app(tmp_path, GIVEN, source)
    done = lab(tmp_path, "--strategies", "fair")
    assert done.returncode == 2
    (error,) = errors(done)
    assert "ASGI" in error


def test_variables_of_the_host_reach_the_application_and_not_our_server(tmp_path):
    said = APP.replace(
        "app = Flask", "print('host has', os.environ['API_TOKEN'], os.environ['DB_POOL_SIZE'], flush=True)\napp = Flask"
    )
    write_app(tmp_path, GIVEN, said)
    host = {"API_TOKEN": "token", "DB_POOL_SIZE": "3", "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --daemon"}
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "fair", **host)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "out" / "logs").glob("fair*.log")
    assert "host has token 3" in log.read_text()
    assert "DB_POOL_SIZE=3" in done.stdout


def test_a_script_has_the_variables_of_the_environment(tmp_path):
    guarded = APP.replace("return {}, 201", "return {}, 201 if request.headers.get('X-Token') == 'abc' else 401")
    write_app(tmp_path, GIVEN, guarded.replace("import Flask", "import Flask, request"))
    script = (tmp_path / "load.yml").read_text()
    token = 'json: {}, headers: {x-token: "{{ $processEnvironment.TOKEN }}"}'
    (tmp_path / "load.yml").write_text(script.replace("json: {}", token))
    # Nothing listens there: a proxy is for other machines.
    given = {"TOKEN": "abc", "HTTP_PROXY": "http://127.0.0.1:1"}
    done = lab(tmp_path, "--setup", SETUP, "--strategies", "own", **given)
    assert done.returncode == 0, done.stderr
    assert from_json((tmp_path / "out" / "own.json").read_text()).aggregate.counters["http.codes.201"] == 10


def test_a_setup_that_fails_is_named(tmp_path):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--setup", "echo no such table; exit 4")
    assert done.returncode == 2
    (error,) = errors(done)
    assert "exit code 4" in error and "no such table" in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--python", "/no/such/python"], "/no/such/python"),
        (["--server", "gunicorn rows_app:app"], "{port}"),
        (["--server", "no-such-server {port}"], "no-such-server"),
        (["--url-variable", "A B"], "A B"),
        (["--strategies", "magic"], "magic"),
        (["--server", "python -I -m http.server {port}"], "no Python of its server"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, arguments, told):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, *arguments)
    assert done.returncode == 2
    (error,) = errors(done)
    assert told in error
    assert "Traceback" not in done.stderr


def test_a_server_in_the_background_is_told_and_ended(tmp_path):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--server", "gunicorn -D -b {host}:{port} rows_app:app")
    assert done.returncode == 2
    (error,) = errors(done)
    assert "foreground" in error
    here = str(tmp_path)
    assert not [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == here]


def test_options_of_an_application_need_one(tmp_path):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--setup", "true", app="")
    assert done.returncode == 2


def test_the_interpreter_is_that_of_the_environment_else_of_the_folder(tmp_path):
    python = own_python(tmp_path)
    assert chosen_python(None, {}, tmp_path, sys.executable) == python
    (tmp_path / "older").mkdir()
    kept = own_python(tmp_path / "older").parents[1].rename(tmp_path / "older" / "venv") / "bin" / "python"
    assert chosen_python(None, {}, tmp_path / "older", sys.executable) == kept
    assert chosen_python(None, {}, tmp_path / "out", sys.executable).samefile(sys.executable)
    other = tmp_path / "other"
    other.mkdir()
    active = own_python(other)
    assert chosen_python(None, {"VIRTUAL_ENV": str(other / ".venv")}, tmp_path, sys.executable) == active
    with pytest.raises(StackError, match="no such program"):
        chosen_python(str(tmp_path / "none"), {}, tmp_path, sys.executable)


@pytest.mark.parametrize(
    ("sqlalchemy", "installed", "driver"),
    [
        ("2.0.40", {"psycopg2": "2.9"}, None),
        ("2.0.40", {"psycopg2-binary": "2.9", "psycopg": "3.2"}, None),
        ("2.0.40", {"psycopg": "3.2"}, "psycopg"),
        ("2.1.9", {"psycopg2-binary": "2.9"}, "psycopg2"),
        ("2.1.9", {"psycopg": "3.2", "psycopg2": "2.9"}, None),
    ],
)
def test_the_url_names_a_driver_where_sqlalchemys_own_choice_is_missing(tmp_path, sqlalchemy, installed, driver):
    assert Interpreter(tmp_path, (3, 12, 1), {"sqlalchemy": sqlalchemy, **installed}).driver == driver


def test_evidence_is_read_up_to_its_last_whole_line(tmp_path):
    (tmp_path / "1.jsonl").write_text(json.dumps({"event": "lent", "given": True}) + '\n{"event": "re')
    assert Evidence.read(tmp_path).lent
