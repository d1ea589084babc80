"""What is worked out about a user's application without starting it: its variables, its faults, what must not be shown."""

import asyncio
import json
import os
import re
import shlex
import sys
import types
from pathlib import Path
from urllib.parse import quote_plus

import psutil
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from db.settings import database_url
from loadgen.commands.application import own_application
from loadgen.lab import own_app, own_server
from loadgen.lab.attached import (
    _of_no_application,
    _variables_naming,
    _variables_of_parts,
    _watched_environment,
)
from loadgen.lab.own_app import OwnAppOptions, _leads_to_https, of_another_server, unanswered
from loadgen.lab.own_database import DatabaseError, app_url, libpq_url, mask_file, masking, shown
from loadgen.lab.own_evidence import Evidence
from loadgen.lab.own_server import (
    ATTACHED,
    AppServer,
    Interpreter,
    OwnApplication,
    look_at,
    own_environment,
    set_up,
    shown_command,
    unquoted_password,
    url_variables,
)
from loadgen.lab.stack import ServerProgram, Servers, StackError, last_error, query
from reports.cli import BadInput
from tests.support.own_app import attachment
from tests.support.server_process import lives

URL = "postgresql+psycopg://me:p%40ss@h:5433/d"
ODD = "p@s:s/w%rd'x #?&"
ODD_URL = "postgresql://me:p%40s%3As%2Fw%25rd%27x%20%23%3F%26@h/d"


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["DATABASE_URL"], {"DATABASE_URL": URL}),
        (["A", "B"], {"A": URL, "B": URL}),
        (
            ["DB_USER={user}", "DB_PASS={password}", "DB_HOST={host}", "DB_PORT={port}", "DB_NAME={database}"],
            {"DB_USER": "me", "DB_PASS": "p@ss", "DB_HOST": "h", "DB_PORT": "5433", "DB_NAME": "d"},
        ),
        (["DSN=host={host} dbname={database}", "U"], {"DSN": "host=h dbname=d", "U": URL}),
        (["DB_ENGINE={scheme}", "KIND=postgres"], {"DB_ENGINE": "postgresql+psycopg", "KIND": "postgres"}),
    ],
)
def test_variables_get_the_url_or_the_parts_of_it_that_their_templates_name(names, values):
    assert url_variables(names, URL) == values


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ('File "/a", line 1\n  File "/a/b.py", line 3\nSyntaxError: not closed\nbye', "/a/b.py:3: SyntaxError: not closed"),
        ("Failed to find attribute 'ap' in 'a'.\n[ERROR] Reason: no app", "Failed to find attribute 'ap' in 'a'."),
        ("Failed to find application object: 'app'\n[INFO] bye", "Failed to find application object: 'app'"),
        ("Application object must be callable.\n[INFO] bye", "Application object must be callable."),
        ("  File \"/a.py\", line 2\nKeyError: 'SECRET_KEY'\n(Background on this error at: x)", "KeyError: 'SECRET_KEY'"),
        (
            "psycopg2.errors.InsufficientPrivilege: permission denied to create role\nDETAIL:  Only some may.\n",
            "psycopg2.errors.InsufficientPrivilege: permission denied to create role",
        ),
        ('psql:schema.sql:3: ERROR:  role "shop" does not exist\nbye', 'psql:schema.sql:3: ERROR:  role "shop" does not exist'),
        ("[1] [ERROR] Worker (pid:7) was sent SIGKILL!\n[1] [ERROR] Worker (pid:8) was sent SIGTERM!\n",
         "[1] [ERROR] Worker (pid:7) was sent SIGKILL!"),
        ("[1] [CRITICAL] WORKER TIMEOUT (pid:7)\n[1] [INFO] bye", "[1] [CRITICAL] WORKER TIMEOUT (pid:7)"),
        ("[INFO] bye", None),
    ],
)  # fmt: skip
def test_the_last_error_of_a_log_is_found(log, error):
    assert last_error(log) == error


class Killed(ServerProgram):
    def command(self, _address, _count):
        return ["/bin/sh", "-c", "kill -KILL $$"]


def test_a_server_that_was_killed_is_not_said_to_listen_elsewhere(tmp_path):
    servers = Servers(Killed(tmp_path / "none.py", "none"), 1, {}, tmp_path / "log")
    with pytest.raises(StackError, match="was ended by SIGKILL") as told:
        servers.start()
    assert "elsewhere" not in str(told.value)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("SECRET_KEY=abc gunicorn -b {host}:{port} a:app", "SECRET_KEY=… gunicorn -b {host}:{port} a:app"),
        ("A='b c' B=\"d \\\" e\" C=f\\ g waitress-serve --port={port}", "A=… B=… C=… waitress-serve --port={port}"),
        ("env -i A=b gunicorn --env B=c -e D=e", "env -i A=… gunicorn --env B=… -e D=…"),
        ("(A=b gunicorn 'a:create_app(testing=True)')", "(A=… gunicorn 'a:create_app(testing=True)')"),
        ("sh -c 'A=b; export B=c && gunicorn'", "sh -c 'A=…; export B=… && gunicorn'"),
        ("A=a'b c'd gunicorn", "A=… gunicorn"),
        ("A='b c gunicorn {port}", "A=…"),
        ("A= gunicorn --workers=2", "A= gunicorn --workers=2"),
        ("A=a)b&c|d;e B=&f gunicorn", "A=… B=… gunicorn"),
        ("gunicorn --env=A=b -eC=d", "gunicorn --env=A=… -eC=…"),
        ('sh -c "A=\\"a b\\" gunicorn"', 'sh -c "A=… gunicorn"'),
        ("serve --db postgresql://u:p@h/d --port {port}", "serve --db postgresql://…@h/d --port {port}"),
    ],
)  # fmt: skip
def test_a_command_is_shown_without_the_values_of_its_variables(command, shown):
    assert shown_command(command) == shown


@pytest.mark.parametrize("server", ["SECRET_KEY=abc gunicorn", "SECRET_KEY='abc gunicorn {port}"])
def test_no_value_of_a_refused_command_is_told(server):
    given = {"application": "a:app", "script": "x.yml", "server": server, "url_variable": ()}
    with pytest.raises(BadInput, match="SECRET_KEY=…") as told:
        own_application(given)
    assert "abc" not in str(told.value)


def test_the_name_of_an_application_has_no_password_wherever_it_is_shown(tmp_path):
    given = 'a:create_app("postgresql://u:abc@h/d", testing=True)'
    own = OwnApplication(given, tmp_path, Path(sys.executable))
    assert own.name == 'a:create_app("postgresql://…@h/d", testing=True)'
    command = AppServer(own, Interpreter(own.python, (3, 11), {}), tmp_path, tmp_path, tmp_path).command(("h", 1), 1)
    assert command[-1] == given


@pytest.mark.parametrize(
    ("variable", "shown"),
    [
        ("postgresql://u:abc@h/d", "'postgresql' is no name of a variable"),
        ("u:abc@h/d", "'u' is no name of a variable"),
        ("DB-HOST={host}", "'DB-HOST' is no name of a variable"),
        ("DB=postgresql://u:abc@{hots}/d", "--url-variable 'DB': braces may hold"),
    ],
)
def test_no_password_of_a_refused_variable_is_told(variable, shown):
    given = {"application": "a:app", "script": "x.yml", "server": None, "url_variable": (variable,)}
    with pytest.raises(BadInput, match=re.escape(shown)) as told:
        own_application(given)
    assert "abc" not in str(told.value)


class Talking(ServerProgram):
    def command(self, _address, _count):
        return ["/bin/sh", "-c", f"echo 'ConnectionError: {'x' * 280} {ODD_URL}'; exit 1"]


def test_no_part_of_a_password_is_left_where_a_servers_last_words_are_cut(tmp_path):
    servers = Servers(Talking(tmp_path / "none.py", "none"), 1, {}, tmp_path / "log", masking(ODD_URL))
    with pytest.raises(StackError, match="ConnectionError: xxx") as told:
        servers.start()
    assert "p%40" not in str(told.value)


def quitting(folder, postgres):
    """A run of an application that ends its process with a message that has the URL of its database."""
    (folder / "quits.py").write_text(
        "import os, sys, urllib.parse as u\n"
        "url = os.environ['DATABASE_URL']\n"
        "sys.exit(f'no luck with {url}, {u.unquote(u.urlsplit(url).password)}, {os.environ[\"DB_PASS\"]}')\n"
    )
    (folder / "load.yml").write_text(
        "config: {phases: [{duration: 1, arrivalRate: 1}]}\nscenarios: [{flow: [{get: {url: /}}]}]"
    )
    parts = database_url(postgres.url).set(username="odd", password=ODD)
    variables = ("DATABASE_URL", "DB_PASS={password}")
    application = OwnApplication("quits:app", folder, Path(sys.executable), url_variables=variables)
    return OwnAppOptions(
        application,
        str(folder / "load.yml"),
        folder / "out",
        servers=1,
        database_url=parts.render_as_string(hide_password=False),
        confirm=lambda _: True,
    )


@pytest.mark.slow
def test_no_password_is_told_where_the_application_ends_its_process_with_it(postgres, tmp_path):
    query(postgres.admin_url, "CREATE ROLE odd LOGIN PASSWORD %s", (ODD,))
    try:
        with pytest.raises(StackError) as told:
            own_app.run(quitting(tmp_path, postgres), print, print)
    finally:
        query(postgres.admin_url, "DROP ROLE odd")
    assert str(told.value).startswith("quits:app: it ended its process while it was loaded: no luck with postgresql")
    assert str(told.value).endswith(", ***, ***") and "p%40s" not in str(told.value)
    assert all(
        "p%40s" not in log.read_text() and ODD not in log.read_text() for log in (tmp_path / "out").rglob("*.log")
    )


def test_no_password_is_told_where_a_setup_command_was_kept_from_going_on(tmp_path):
    said = json.dumps({"event": "exits", "said": f"no {ODD_URL} or {ODD}"})
    program = setup_of(tmp_path, f"echo {shlex.quote(said)} > 1.jsonl")
    masked = masking(ODD_URL)
    with pytest.raises(StackError, match="it was loaded") as told, set_up(program, {}, tmp_path / "log", masked, str):
        pass
    assert "p%40" not in str(told.value) and ODD not in str(told.value)


def test_the_address_of_a_host_stands_for_its_name_where_the_application_gets_the_parts():
    url = "postgresql://u@db.example.com:4000/d?hostaddr=127.0.0.1"
    found = url_variables(["DB_HOST={host}", "DB_PORT={port}", "DB_URL={url}"], url)
    assert found == {"DB_HOST": "127.0.0.1", "DB_PORT": "4000", "DB_URL": url}


def test_a_socket_is_a_host():
    found = url_variables(["DB_HOST={host}", "DB_PORT={port}"], "postgresql:///d?host=/tmp/pg&port=5433")
    assert found == {"DB_HOST": "/tmp/pg", "DB_PORT": "5433"}


@pytest.mark.parametrize(
    "template", ["A={hots}", "A={", "A={0}", "A={url.none}", "A={url[a]}", "A={url!r}", "A={url:9}"]
)
def test_a_template_with_anything_else_in_braces_is_refused(template):
    with pytest.raises(ValueError, match="host, port, database"):
        url_variables([template], URL)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("postgresql://h/d?options=-c%20statement_timeout%3D3000", "options=-c%20statement_timeout%3D3000"),
        ("postgresql:///d?host=/tmp/pg&port=5433", "postgresql:///d?host=%2Ftmp%2Fpg&port=5433"),
        ("postgresql://%2Ftmp%2Fpg/d", "host=%2Ftmp%2Fpg"),
        ("host=/tmp/pg dbname=d", "host=%2Ftmp%2Fpg"),
        ("postgresql://h/d?application_name=a%2Bb", "application_name=a%2Bb"),
    ],
)
def test_options_and_sockets_reach_libpq_as_they_were_given(text, rendered):
    for url in (libpq_url(text), app_url(text, "psycopg"), app_url(text, None)):
        assert rendered.removeprefix("postgresql://") in url
        assert database_url(url.replace("+psycopg", "")) == database_url(text)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_url_is_no_database_of_this_machines_user(text):
    with pytest.raises(DatabaseError, match="--database-url is empty"):
        masking(text)


def test_an_address_of_ipv6_is_shown_in_brackets():
    assert shown("postgresql://me:secret@[::1]:5433/d") == "postgresql://[::1]:5433/d"


def test_a_socket_is_shown():
    assert shown("postgresql:///d?host=/tmp/pg&password=secret") == "postgresql:///tmp/pg/d"


@pytest.mark.parametrize(
    "text",
    [
        ODD_URL,
        "postgresql://h/d?user=me&password=p%40s%3As%2Fw%25rd%27x%20%23%3F%26",
        "host=h dbname=d user=me password='p@s:s/w%rd\\'x #?&'",
    ],
)
def test_no_way_of_writing_a_password_is_shown(text, tmp_path):
    masked = masking(text)
    encoded = re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), quote_plus(ODD))
    ways = (ODD, text, encoded, repr(ODD), database_url(text).render_as_string(hide_password=False), libpq_url(text))
    for way in ways:
        said = masked(f"no luck with {way}: refused")
        assert "rd" not in said.replace("word", ""), way
        assert said.startswith("no luck with ") and said.endswith(": refused")
    log = tmp_path / "server.log"
    log.write_bytes(b"caf\xe9 " + ODD.encode())
    mask_file(log, masked)
    assert log.read_bytes() == b"caf\xe9 ***"


def test_what_libpq_takes_for_the_port_is_not_shown():
    """If a password with a slash is in the URL as it is."""
    masked = masking("postgresql://me:abcdef%2Fgh@h/d")
    assert masked('invalid integer value "abcdef" for connection option "port"').startswith(
        'invalid integer value "***" for'
    )


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        (
            "postgresql://postgres:postgres@localhost:5432/app",
            "postgresql://postgres:postgres@localhost:5432/app, password=postgres, 'postgres'",
            "postgresql://postgres:***@localhost:5432/app, password=***, '***'",
        ),
        (
            "postgresql://app:app@h/app",
            "/srv/app/app.py of myapp-2, app:create_app() failed with postgresql+psycopg://app:app@h/app.",
            "/srv/app/app.py of myapp-2, app:create_app() failed with postgresql+psycopg://app:***@h/app.",
        ),
        ("postgresql://me:pw@h/d", "pwd: me:pw@h", "pwd: me:***@h"),
        ("postgresql://me:pass@h/d", "password: pass.", "password: ***."),
        ("postgresql://me:Xk3vQ9@h/d", "aXk3vQ9b", "a***b"),
    ],
    ids=["postgres", "app", "short", "in a usual word", "strong"],
)
def test_a_password_that_is_a_common_word_is_masked_only_where_it_stands_alone(url, text, shown):
    assert masking(url)(text) == shown


def test_no_piece_of_a_password_is_shown_that_was_taken_for_a_port():
    common = "postgresql://me:x%40localhost%3Ashop%2Fmore@localhost/shops"
    assert masking(common)("shop at localhost, more x@localhost:shop/more") == "shop at localhost, *** ***"
    masked = masking("postgresql://me:se%40here%3Asecret%2Fmore@h/d")
    assert masked("invalid literal for int() with base 10: 'secret'") == "invalid literal for int() with base 10: '***'"


@pytest.mark.parametrize(
    ("names", "url", "told"),
    [
        (["A={user}", "B={password}"], URL, "B has the password as it is"),
        (["B={password}"], "postgresql://me:plain-1@h/d", ""),
        (["DATABASE_URL"], URL, ""),
    ],
)
def test_a_password_that_a_url_must_encode_is_told_where_a_variable_has_it_as_it_is(names, url, told):
    found = unquoted_password(names, url)
    assert told in found and bool(found) is bool(told) and "p@ss" not in found


def test_no_variable_names_a_database_without_a_host(monkeypatch):
    monkeypatch.setenv("TEMPLATES", "/srv/shop")
    monkeypatch.setenv("B_URL", "postgresql://db.example/shop")
    assert list(_variables_naming("", "5432", "shop")) == []
    assert list(_variables_naming("db.example", "5432", "shop")) == ["B_URL"]


def test_a_user_called_as_the_database_is_known_by_its_variable(monkeypatch):
    for name, value in {"APP_DB_USER": "shop", "APP_DB_NAME": "shop", "APP_DB_HOST": "h", "APP_DB_PASS": "x"}.items():
        monkeypatch.setenv(name, value)
    found = dict(
        _variables_of_parts({"host": "h", "port": "5432", "database": "shop", "user": "shop", "password": "x"})
    )
    ours = {name: part for name, part in found.items() if name.startswith("APP_")}
    assert ours == {"APP_DB_USER": "user", "APP_DB_NAME": "database", "APP_DB_HOST": "host", "APP_DB_PASS": "password"}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("config", "config"),
        ("a, b, c", "a, b, c"),
        ("environ, start_response", None),
        ("", None),
        ("testing=False, **more", None),
        ("*given", None),
    ],
)
def test_a_function_that_can_be_no_application_is_known_by_its_parameters(parameters, told):
    scope = {}
    exec(f"def function({parameters}): pass", scope)
    assert _of_no_application(scope["function"]) == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo 'Traceback' >&2; echo 'No module named encodings' >&2; exit 1", "No module named encodings"),
        ("exit 3", "it ended with exit code 3, and said nothing"),
        ("echo hello", "its answer is not that of one"),
    ],
)
def test_a_python_that_cannot_start_is_told_with_its_own_last_line(tmp_path, body, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    with pytest.raises(StackError) as error:
        look_at(python)
    assert str(error.value) == f"--python {python}: it is no usable Python: {told}"


class Told:
    def __init__(self):
        self.names = []

    def add(self, event, name):
        assert event == "read"
        self.names.append(name)


def test_variables_count_as_read_where_they_are_asked_for_and_not_where_all_are_copied(monkeypatch):
    told = Told()
    monkeypatch.setenv("MY_DATABASE", "x")
    monkeypatch.setenv("DISABLE_SQLALCHEMY_CEXT_RUNTIME", "1")
    kind = os.environ.__class__
    os.environ.__class__ = _watched_environment(told)
    try:
        assert dict(os.environ)["MY_DATABASE"] == "x"
        assert [value for _, value in os.environ.items()]
        os.environ.copy()
        os.environ.get("DISABLE_SQLALCHEMY_CEXT_RUNTIME")
        assert told.names == []
        assert os.environ["MY_DATABASE"] == os.environ.get("MY_DATABASE") == "x"
        assert told.names == ["MY_DATABASE"] * 2
    finally:
        os.environ.__class__ = kind


def test_a_dotenv_file_that_cannot_be_read_hides_no_error(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / ".env").write_text("SECRET_KEY=x")
    # A mode would not keep root from reading it.
    monkeypatch.setattr(Path, "read_text", refuse)
    own = OwnApplication("a:app", tmp_path, Path(sys.executable))
    assert own.hint("KeyError: 'SECRET_KEY'", Evidence([])) == ""


def test_variables_of_a_dotenv_file_reach_the_application_unless_they_are_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IS_SET", "here")
    (tmp_path / ".env").write_text("NAME=a b\nIS_SET=there\nQUOTED='c d'\n")
    given = {"application": "a:app", "script": "x.yml", "python": sys.executable, "server": None, "setup": ()}
    own = own_application({**given, "url_variable": (), "dotenv": ".env"})
    found = own_environment(own, tmp_path)
    assert (found["NAME"], found["QUOTED"], found["IS_SET"]) == ("a b", "c d", "here")
    with pytest.raises(BadInput, match="--dotenv none: No such file"):
        own_application({**given, "url_variable": (), "dotenv": "none"})


@pytest.mark.parametrize(("identity", "lent"), [(None, True), ("another", False)])
def test_connections_of_any_driver_are_kept_away_from_other_databases(postgres, tmp_path, identity, lent):
    # By another name of the same host, so that the server has to be asked.
    url = postgres.url.replace("postgresql:", "postgresql+asyncpg:").replace("127.0.0.1", "localhost")
    ours = attachment(postgres, tmp_path, **({"identity": identity} if identity else {}))

    async def connect():
        engine = create_async_engine(url)
        ours._observe(engine.sync_engine, engine.url, is_kept=False)
        try:
            async with engine.connect():
                pass
        finally:
            await engine.dispose()

    if lent:
        asyncio.run(connect())
    else:
        with pytest.raises(DBAPIError, match="keeps the application away"):
            asyncio.run(connect())
    found = Evidence.read(tmp_path)
    assert found.lent is lent and found.explains is not lent


def test_no_part_of_a_password_is_taken_for_a_host(postgres, tmp_path):
    told = attachment(postgres, tmp_path)._asked_for_other("elsewhere", "ret@db.example", "5432", "d", "me", "sec")
    assert told == "postgresql://db.example:5432/d"


def test_a_worker_that_exits_while_it_loads_the_application_is_known(postgres, tmp_path):
    class Worker:
        def load_wsgi(self):
            sys.exit("please set SETTINGS")

    module = types.SimpleNamespace(Worker=Worker)
    attachment(postgres, tmp_path).gunicorn(module)
    with pytest.raises(SystemExit):
        module.Worker().load_wsgi()
    assert Evidence.read(tmp_path).explains


def test_a_server_may_be_given_variables_as_in_a_shell(tmp_path):
    own = OwnApplication("a:app", tmp_path, Path(sys.executable), "A=1 'B C' -p {port}")
    program = AppServer(own, None, tmp_path, tmp_path, tmp_path)
    assert program.command(("127.0.0.1", 8000), 1) == ["env", "A=1", "B C", "-p", "8000"]


def test_an_application_that_leads_to_https_is_known_by_its_answers():
    assert _leads_to_https({"http.codes.302": 5, "errors.EPROTO": 5})
    assert not _leads_to_https({"http.codes.302": 5}) and not _leads_to_https({"errors.EPROTO": 5})


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        ('(psycopg2.errors.FeatureNotSupported) extension "vector" is not available', True),
        ('permission denied to create extension "postgis"', True),
        ('UndefinedObject: role "shop" does not exist', True),
        ('collation "en_US.utf8" for encoding "UTF8" does not exist', True),
        ('relation "shop" does not exist', False),
    ],
)
def test_what_the_embedded_server_lacks_is_told(error, is_told):
    assert ("--database-url" in of_another_server(error)) is is_told


def test_a_run_without_answers_is_told_with_the_last_error_or_else_the_last_line(tmp_path):
    log = tmp_path / "own.log"
    log.write_text("start\nValueError: no table for p@ss\nstopped\n")
    masked = masking(URL)
    counters = {"http.codes.500": 3, "errors.ETIMEDOUT": 1, "http.requests": 4}
    told = str(unanswered("a:app with own", log, masked, counters))
    assert told == (
        f"a:app with own: no request was answered well (500: 3, ETIMEDOUT: 1). The last error in {log}:"
        " ValueError: no table for ***"
    )
    log.write_text(
        "ValueError: old\n(psycopg2.errors.UniqueViolation) duplicate key\nDETAIL:  x\n[ERROR] Shutting down: Master\n"
    )
    assert str(unanswered("a:app", log, masked)).endswith(": (psycopg2.errors.UniqueViolation) duplicate key")
    log.write_text('ProgrammingError: relation "rows" does not exist\n')
    assert "does not exist. Run what makes its tables first: --setup" in str(unanswered("a:app", log, masked))
    assert str(unanswered("a:app", log, masked, has_setup=True)).endswith("does not exist")
    log.write_text("start\nstopped\n")
    assert str(unanswered("a:app", log, masked)).endswith(f"The last line in {log}: stopped")
    log.write_text("")
    assert f"{log} has no error" in str(unanswered("a:app", log, masked))


class Setup(AppServer):
    """The setup commands of an application without an interpreter of its own."""

    def environment(self, _address, _count):
        return {"PATH": os.environ["PATH"], ATTACHED: str(self.attached)}


def setup_of(folder, *commands):
    application = OwnApplication("app:app", folder, Path(sys.executable), setup=commands)
    return Setup(application, None, folder, folder / "attached.json", folder)


# Two ways of staying in the background; the second takes all variables away, as servers do that rename themselves.
LEFT = ["sleep 60 & echo $! > pid", "(setsid env -i sleep 60 & echo $! > pid)"]


@pytest.mark.parametrize("command", LEFT)
def test_what_a_setup_command_leaves_running_is_ended_with_the_run(tmp_path, command):
    with set_up(setup_of(tmp_path, command, "true"), {}, tmp_path / "setup.log", str, str):
        pid = int((tmp_path / "pid").read_text())
        assert lives(pid)
    assert not lives(pid)


@pytest.mark.parametrize("command", LEFT)
def test_what_a_failed_setup_command_leaves_running_is_ended_at_once(tmp_path, command):
    program = setup_of(tmp_path, f"{command}; exit 3")
    with pytest.raises(StackError, match="exit code 3"), set_up(program, {}, tmp_path / "setup.log", str, str):
        pass
    assert not lives(int((tmp_path / "pid").read_text()))


def test_a_setup_command_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(own_server, "SETUP_PATIENCE_S", 0.3)
    # The number names it: a busy machine may give the shell no time to tell its process id.
    program = setup_of(tmp_path, "setsid sleep 60.0625 & wait")
    with pytest.raises(StackError, match="did not end"), set_up(program, {}, tmp_path / "setup.log", str, str):
        pass
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "60.0625"]]
