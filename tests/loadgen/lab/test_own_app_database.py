"""A user's application uses the database given and no other, and its data are handled with care."""

import json
import sys

import psycopg2
import pytest

from db.embedded import ROLE, temporary_postgres
from loadgen.lab.own_database import DatabaseError, UsersDatabase, app_url, libpq_url, masking, shown
from loadgen.lab.stack import query
from tests.support.own_app import APP, SCRIPT, SETUP, errors, lab, write_app
from tests.support.server_process import wait_until

pytestmark = pytest.mark.long

GIVEN = 'os.environ["DATABASE_URL"]'
WITH_SETUP = ("--setup", SETUP)


def count(postgres, table="rows_of_app"):
    with psycopg2.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", (table,))
        if cursor.fetchone()[0] is None:
            return None
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


@pytest.fixture
def own_table(postgres):
    with psycopg2.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS rows_of_app; CREATE TABLE rows_of_app (id serial)")
    connection.close()
    yield postgres
    with psycopg2.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE rows_of_app")
    connection.close()


@pytest.mark.parametrize("strategy", ["own", "fair"])
def test_a_hard_coded_sqlite_is_one_clear_line(tmp_path, strategy):
    write_app(tmp_path, '"sqlite:///rows.db"')
    done = lab(tmp_path, "--strategies", strategy)
    assert done.returncode == 2
    (error,) = errors(done)
    assert "sqlite:///rows.db" in error and "DATABASE_URL" in error
    assert "No user was sent to sqlite:///rows.db" in error
    assert not done.stdout and not (tmp_path / "rows.db").exists()


def test_users_that_were_sent_to_another_kind_of_database_are_told(tmp_path):
    write_app(tmp_path, '(os.environ["DATABASE_URL"], "sqlite:///rows.db")[1]')
    done = lab(tmp_path, "--strategies", "own")
    assert done.returncode == 2
    (error,) = errors(done)
    assert "5 users were sent to sqlite:///rows.db" in error


LAZY = """
import os
from flask import Flask
from sqlalchemy import create_engine, text

cache = create_engine("sqlite:///cache.db")
url = URL
engines = []
app = Flask(__name__)

@app.get("/")
def home():
    return "rows"

@app.post("/rows")
def add():
    if not engines:
        engines.append(create_engine(url))
    with engines[0].begin() as connection:
        connection.execute(text("INSERT INTO rows_of_app DEFAULT VALUES"))
    return {}, 201
"""


def test_an_engine_that_only_a_rare_scenario_makes_is_found(tmp_path):
    write_app(tmp_path, GIVEN, LAZY)
    (tmp_path / "load.yml").write_text(
        "config: {target: http://h, phases: [{duration: 1, arrivalCount: 10}]}\n"
        "scenarios:\n"
        "  - {weight: 100000, flow: [{get: {url: /}}]}\n"
        "  - {weight: 1, flow: [{post: {url: /rows}}]}\n"
    )
    done = lab(tmp_path, *WITH_SETUP, "--strategies", "own")
    assert done.returncode == 0, done.stderr
    assert "The database given is used" in done.stderr


@pytest.mark.parametrize(("needed_from", "code"), [(8, 0), (99, 2)])
def test_where_the_first_users_do_not_need_the_database_the_whole_load_decides(tmp_path, needed_from, code):
    counting = APP.replace("def add():", "def add():\n    calls.append(1)\n    if len(calls) < FROM: return {}, 201")
    write_app(tmp_path, GIVEN, f"{counting}\ncalls = []\n".replace("FROM", str(needed_from)))
    done = lab(tmp_path, *WITH_SETUP, "--strategies", "own")
    assert done.returncode == code, done.stderr
    assert "whether others do is judged after the run" in done.stderr
    assert ("The database given is used" in done.stderr) is (code == 0)
    assert ["do the script's requests use the database?" in error for error in errors(done)] == [True] * bool(code)


@pytest.mark.parametrize("driver", ["", "+psycopg"])
def test_a_developers_default_in_another_variable_is_never_loaded(tmp_path, own_table, driver):
    default = own_table.url.replace("postgresql", f"postgresql{driver}", 1)
    write_app(tmp_path, 'os.environ["MY_DB"]')
    done = lab(tmp_path, MY_DB=default)
    assert done.returncode == 2
    (error,) = errors(done)
    assert "MY_DB" in error and "--url-variable MY_DB" in error
    assert count(own_table) == 0
    assert own_table.url.split(":")[2].split("@")[0] not in done.stdout + done.stderr


def test_a_setup_command_is_kept_away_from_other_databases(tmp_path, own_table):
    write_app(tmp_path, GIVEN)
    insert = "import os, psycopg2; c = psycopg2.connect(os.environ['MY_DB']); c.autocommit = True;"
    command = f"{sys.executable} -c \"{insert} c.cursor().execute('INSERT INTO rows_of_app DEFAULT VALUES')\" || true"
    done = lab(tmp_path, "--setup", command, MY_DB=own_table.url)
    assert done.returncode == 2
    (error,) = errors(done)
    assert "--setup" in error and "--url-variable MY_DB" in error
    assert count(own_table) == 0
    assert own_table.url.split(":")[2].split("@")[0] not in done.stdout + done.stderr


@pytest.mark.parametrize("driver", ["", "+psycopg"])
def test_an_address_that_refuses_is_named_with_the_variables_that_were_read(tmp_path, driver):
    write_app(tmp_path, f'os.environ.get("DATABASE_URI", "postgresql{driver}://me:geheim@localhost:1/mine")')
    source = (tmp_path / "rows_app.py").read_text()
    # It connects while it is imported, as many applications do to make their tables.
    (tmp_path / "rows_app.py").write_text(source + "\nengine.connect()\n")
    done = lab(tmp_path, "--strategies", "fair")
    assert done.returncode == 2
    (error,) = errors(done)
    assert "postgresql://localhost:1/mine" in error and "--url-variable DATABASE_URI" in error
    assert "geheim" not in done.stdout + done.stderr


def test_a_connection_without_sqlalchemy_is_kept_away_from_other_databases(tmp_path, own_table):
    source = APP.replace("engine = create_engine(URL)", "import psycopg2; connection = psycopg2.connect(URL)").replace(
        "with engine.begin() as connection:\n        connection.execute(text(", "if True:\n        (print("
    )
    write_app(tmp_path, repr(own_table.url), source)
    done = lab(tmp_path)
    assert done.returncode == 2
    (error,) = errors(done)
    assert f"127.0.0.1:{own_table.port}" in error and "Nothing was loaded" in error


def test_without_its_tables_the_last_error_of_the_log_is_shown(tmp_path):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--strategies", "queue,fair")
    assert done.returncode == 1
    (error,) = errors(done)
    assert "UndefinedTable" in error and "rows_of_app" in error and "500" in error
    assert "Traceback" not in done.stderr
    (log,) = (tmp_path / "out" / "logs").glob("*.1.log")
    assert "UndefinedTable" in log.read_text()


def test_where_some_requests_fail_the_last_error_of_the_log_is_told_and_kept(tmp_path):
    write_app(
        tmp_path, GIVEN, APP + "\n@app.get('/broken')\ndef broken():\n    raise ValueError('broken on purpose')\n"
    )
    (tmp_path / "load.yml").write_text(SCRIPT + "      - get: {url: /broken}\n")
    done = lab(tmp_path, *WITH_SETUP, "--strategies", "own")
    assert done.returncode == 0, done.stderr
    assert "own.1.log: ValueError: broken on purpose" in done.stderr
    assert "ValueError: broken on purpose" in (tmp_path / "out" / "index.html").read_text()


def test_variables_for_the_way_to_another_server_do_not_disturb_the_embedded_one(tmp_path):
    write_app(tmp_path, GIVEN)
    done = lab(
        tmp_path, *WITH_SETUP, "--strategies", "own", PGSSLMODE="require", PGSERVICE="mine", PGHOSTADDR="127.0.0.9"
    )
    assert done.returncode == 0, done.stderr
    assert "another server than theirs: PGHOSTADDR, PGSERVICE, PGSSLMODE." in done.stderr


def test_each_turn_begins_with_the_data_of_the_setup(tmp_path):
    counting = APP.replace(
        "return {}, 201", "return {'rows': connection.scalar(text('SELECT count(*) FROM rows_of_app'))}"
    )
    counting = counting.replace("    return {'rows'", "        return {'rows'")
    write_app(tmp_path, GIVEN, counting)
    (tmp_path / "load.yml").write_text(
        "config: {target: http://h, phases: [{duration: 1, arrivalCount: 5}], ensure: {maxErrorRate: 0}}\n"
        "scenarios:\n"
        "  - flow:\n"
        "      - post: {url: /rows, json: {}, capture: {json: $.rows, as: rows}}\n"
        "      - log: 'seen {{ rows }}'\n"
    )
    done = lab(tmp_path, *WITH_SETUP, "--strategies", "queue,fair", "--rounds", 2)
    assert done.returncode == 0, done.stderr
    told = [(tmp_path / "out" / f"{run}.txt").read_text() for run in ("queue.1", "fair.1", "queue.2", "fair.2")]
    highest = [max(int(line.split("seen ")[1]) for line in text.splitlines() if "seen " in line) for text in told]
    # Five users before the run prove that the database is used.
    assert highest == [10, 10, 10, 10]


def test_ones_own_database_is_not_written_to_unasked(tmp_path, own_table):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--database-url", own_table.url)
    assert done.returncode == 2
    (error,) = errors(done)
    assert "--yes" in error and "rows_of_app" in error
    assert count(own_table) == 0


def test_tables_of_the_same_name_in_two_schemas_are_told_apart(own_table):
    with psycopg2.connect(own_table.admin_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA other AUTHORIZATION {ROLE}; CREATE TABLE other.rows_of_app (id serial)")
    connection.close()
    try:
        database = UsersDatabase(own_table.url, None, 1)
        assert {"rows_of_app", "other.rows_of_app"} <= set(database.tables())
        query(own_table.admin_url, "INSERT INTO rows_of_app DEFAULT VALUES")
        query(own_table.admin_url, "INSERT INTO other.rows_of_app SELECT generate_series(1, 3)")
        told = {"rows_of_app: 1 rows added", "other.rows_of_app: 3 rows added"}
        wait_until(lambda: told <= set(database.written()), "the statistics show both")
    finally:
        query(own_table.admin_url, "DROP SCHEMA other CASCADE")


def key_value(url):
    user, _, place = url.removeprefix("postgresql://").partition("@")
    name, password = user.split(":")
    host, _, database = place.partition("/")
    return f"host={host.split(':')[0]} port={host.split(':')[1]} user={name} password={password} dbname={database}"


@pytest.mark.parametrize(
    "notation",
    [
        lambda url: url.replace("postgresql", "postgresql+psycopg2", 1),
        lambda url: url.replace("postgresql", "postgresql+psycopg", 1),
        lambda url: url.replace("postgresql", "postgres", 1),
        key_value,
    ],
    ids=["psycopg2", "psycopg", "postgres", "key-value"],
)
def test_every_notation_is_understood_and_no_output_has_the_password(tmp_path, own_table, notation):
    url = notation(own_table.url)
    password = own_table.url.split(":")[2].split("@")[0]
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--database-url", url, "--yes", "--strategies", "fair")
    assert done.returncode == 0, done.stderr
    assert count(own_table) == 10 or count(own_table) == 15
    assert f"rows_of_app: {count(own_table)} rows added" in done.stdout
    files = [file.read_text(errors="replace") for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not [text for text in (done.stdout, done.stderr, *files) if password in text]


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@127.0.0.1:1/d", "postgresql+psycopg2://u:geheim@h h/d", "mysql://u:geheim@h/d"]
)
def test_an_unusable_database_is_one_line_without_the_password(tmp_path, url):
    write_app(tmp_path, GIVEN)
    done = lab(tmp_path, "--database-url", url, "--yes")
    assert done.returncode == 2
    assert len(errors(done)) == 1
    assert "geheim" not in done.stdout + done.stderr


def test_the_users_database_keeps_half_of_its_free_connections(tmp_path, own_table):
    slow = APP.replace("INSERT INTO rows_of_app DEFAULT VALUES", "SELECT pg_sleep(0.5)")
    write_app(tmp_path, GIVEN, slow)
    (tmp_path / "load.yml").write_text(
        "config: {target: http://h, phases: [{duration: 1, arrivalCount: 90}]}\nscenarios: [{flow: [{post: {url: /rows}}]}]\n"
    )
    done = lab(tmp_path, "--database-url", own_table.url, "--yes", "--strategies", "null", "--servers", 2)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "summary.json").read_text())["strategies"]["null"]
    assert figures["backends at peak"] <= 50
    assert figures["failed"] > 0


def test_an_application_that_gets_the_parts_of_the_address_reaches_the_database_at_a_distance(tmp_path):
    parts = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "database"}
    variables = [word for name, part in parts.items() for word in ("--url-variable", f"APP_DB_{name}={{{part}}}")]
    named = ", ".join(f'{part}=os.environ["APP_DB_{name}"]' for name, part in parts.items())
    address = f'"postgresql://{{user}}:{{password}}@{{host}}:{{port}}/{{database}}".format({named})'
    write_app(tmp_path, address, APP.replace("INSERT INTO rows_of_app DEFAULT VALUES", "SELECT 1"))
    # The delay listens at another address than that of the server.
    with temporary_postgres(settings={"listen_addresses": "127.0.0.1,127.0.0.2"}) as server:
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        done = lab(tmp_path, "--database-url", url, "--yes", "--db-rtt", "5ms", "--strategies", "own", *variables)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "summary.json").read_text())["strategies"]["own"]
    assert figures["held mean (ms)"] > 5


def test_names_of_databases():
    text = "postgresql+psycopg://me:p%40ss@h:5433/d?sslmode=disable"
    assert libpq_url(text) == "postgresql://me:p%40ss@h:5433/d?sslmode=disable"
    assert app_url(text, None) == text
    assert app_url("postgres://h/d", None) == "postgresql://h/d"
    assert app_url("host=h dbname=d", "psycopg2") == "postgresql+psycopg2://h/d"
    assert shown(text) == "postgresql://h:5433/d"
    assert masking(text)("p@ss p%40ss") == "*** ***"
    with pytest.raises(DatabaseError) as error:
        libpq_url("mysql://me:secret@h/d")
    assert "secret" not in str(error.value)
