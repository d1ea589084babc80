"""What the processes of a user's application have seen, and what a user is told to do about it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from loadgen.lab.attached import _of_no_application
from loadgen.lab.own_app import Arrangement
from loadgen.lab.own_evidence import Evidence
from loadgen.lab.own_server import OwnApplication


def elsewhere(**more):
    return Evidence([{"event": "elsewhere", "url": "postgresql://h:5432/mine", "variables": [], **more}])


def test_parts_of_an_address_that_stand_in_variables_are_named():
    fault = elsewhere(parts={"DB_HOST": "host", "DB_NAME": "database"}).fault(["DATABASE_URL"])
    assert "DB_HOST, DB_NAME name together" in fault
    # Without a variable for the port, libpq's own.
    options = "--url-variable 'DB_HOST={host}' --url-variable 'DB_NAME={database}'"
    assert f"{options} --url-variable 'PGPORT={{port}}'" in fault
    fault = elsewhere(parts={"DB_NAME": "database"}).fault(["DATABASE_URL"])
    options = "--url-variable 'DB_NAME={database}' --url-variable 'PGHOST={host}' --url-variable 'PGPORT={port}'"
    assert f"which DB_NAME names: give {options}" in fault


def test_a_variable_that_was_read_without_being_set_is_named():
    evidence = [*elsewhere(parts={"A": "host", "B": "database"}).events, {"event": "read", "name": "DB_PORT"}]
    assert "--url-variable 'DB_PORT={port}'" in Evidence(evidence).fault(["DATABASE_URL"])
    evidence = [*elsewhere(parts={}).events, {"event": "read", "name": "DATABASE_URI"}]
    assert (
        "Variables it read that may name a database: DATABASE_URI. If it names the database, give it:"
        " --url-variable DATABASE_URI"
    ) in Evidence(evidence).fault(["DATABASE_URL"])


def test_a_database_that_the_application_can_do_without_is_no_fault():
    attached, missed = (
        {"event": "attached"},
        {"event": "unreachable", "url": "postgresql://replica:5432/d", "variables": ["B_URL"]},
    )
    lent = {"event": "lent", "given": True}
    assert Evidence([attached, missed, lent]).fault(["DATABASE_URL"]) is None
    alone = Evidence([attached, missed])
    assert not alone.explains and not Evidence([attached, missed, {"event": "connected"}]).missed
    assert "it connects to postgresql://replica:5432/d" in alone.fault(["DATABASE_URL"])


@pytest.mark.parametrize(
    ("events", "may_yet"),
    [
        ([], False),
        (["attached"], True),
        (["attached", {"event": "engine", "url": "postgresql://h:5432/d"}], True),
        (["attached", {"event": "engine", "url": "sqlite:///x.db"}], False),
        (["attached", {"event": "engine", "url": "sqlite:///:memory:"}], True),
        (["attached", {"event": "engine", "url": "postgresql://h:5432/d"}, "elsewhere"], False),
        (["attached", "function"], False),
        (["attached", "unreachable"], False),
    ],
)
def test_without_an_answer_nothing_is_proved_unless_another_database_was_seen(events, may_yet):
    evidence = Evidence([{"event": each} if isinstance(each, str) else each for each in events])
    assert evidence.may_lend == may_yet


@pytest.mark.parametrize(
    ("engines", "variables", "alone"),
    [
        (["mysql:///orders"], [], True),
        (["mysql:///orders"], ["OTHER_URL"], True),
        # It may make its engine for PostgreSQL when that is first needed.
        (["sqlite:///cache.db"], ["DATABASE_URL"], False),
        (["sqlite:///cache.db", "postgresql://h:5432/d"], [], False),
        (["sqlite:///"], [], False),
        ([], [], False),
    ],
)
def test_an_application_of_another_kind_of_database_that_never_read_the_one_given_is_sent_no_user(
    engines, variables, alone
):
    seen = [{"event": "attached"}, *({"event": "engine", "url": url} for url in engines), *read(*variables)]
    assert Evidence(seen).is_foreign_only(["DATABASE_URL={url}"]) is alone


def test_an_engine_for_another_kind_of_database_beside_the_given_one_is_told_once(tmp_path):
    engines = ["postgresql://h:5432/d", "mysql://db.example/shop"]
    lines = [json.dumps({"event": "engine", "url": url}) for url in engines]
    (tmp_path / "1.jsonl").write_text("\n".join([*lines[:1], ""]))
    said = []
    arrangement = Arrangement(None, None, None, "", None, str, [], said.append)
    arrangement._tell_of_others(SimpleNamespace(evidence=tmp_path))
    assert not said
    (tmp_path / "1.jsonl").write_text("\n".join([*lines, ""]))
    for _ in range(2):
        arrangement._tell_of_others(SimpleNamespace(evidence=tmp_path))
    assert (
        said
        == arrangement.notes
        == ["It also has an engine for mysql://db.example/shop, and may write there: only PostgreSQL is guarded."]
    )


def test_an_address_in_code_is_told_with_what_to_do():
    fault = elsewhere(parts={}).fault(["DB_HOST={host}"])
    assert "given in DB_HOST, set in its code or a file" in fault and 'os.environ["DB_HOST"]' in fault


def test_a_function_that_is_no_application_is_told():
    assert _of_no_application(object()) is None
    fault = Evidence([{"event": "function", "parameters": "config"}]).fault(["DATABASE_URL"])
    assert "a function of config" in fault and "FACTORY" in fault


def read(*names):
    return [{"event": "attached"}, *({"event": "read", "name": name} for name in names)]


def test_a_default_made_of_parts_is_told_with_a_template_for_each():
    fault = Evidence(read("DB_USER", "POSTGRES_PASSWORD", "DB_HOST", "DB_PORT", "POSTGRES_DB", "FLASK_CONFIG"))
    assert (
        "--url-variable 'DB_USER={user}' --url-variable 'POSTGRES_PASSWORD={password}' --url-variable 'DB_HOST={host}'"
        " --url-variable 'DB_PORT={port}' --url-variable 'POSTGRES_DB={database}'"
    ) in fault.fault(["DATABASE_URL"])
    without_host = Evidence(read("DB_HOST", "DB_ENGINE")).fault(["DB_HOST={host}"])
    assert "Variables it read that may name a database: DB_ENGINE" in without_host
    assert "--url-variable 'DB_ENGINE={scheme}'" in without_host
    # One with a whole URL comes first.
    assert "give it: --url-variable DB_URI" in Evidence(read("DB_URI", "DB_HOST")).fault(["DATABASE_URL"])


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("KeyError: 'APP_DB'", "APP_DB"),
        ('EnvError: Environment variable "APP_DB" not set', "APP_DB"),
        ("Either 'SQLALCHEMY_DATABASE_URI' or 'SQLALCHEMY_BINDS' must be set.", "APP_DB or DSN"),
        ("ArgumentError: Expected string or URL object, got None", "APP_DB or DSN"),
        ("TypeError: dsn: expected str, got NoneType", "APP_DB or DSN"),
        ("ArgumentError: Could not parse SQLAlchemy URL from given URL string", "APP_DB or DSN"),
        ("AttributeError: 'NoneType' object has no attribute 'id'", None),
        ("AttributeError: 'NoneType' object has no attribute 'url'", None),
        ("ValueError: None is no name", None),
        ("KeyError: 'STRIPE_KEY'", None),
        ("KeyError: 'DATABASE_URL'", None),
        ("it read APP_DB: give it: --url-variable APP_DB", None),
    ],
)
def test_an_error_for_want_of_a_variable_says_which_option_gives_it(error, named):
    hint = Evidence(read("DATABASE_URL", "APP_DB", "DSN", "MORE_DB")).unset(error, ["DATABASE_URL"])
    assert hint == (f" If {named} names the database, give it: --url-variable APP_DB" if named else "")


@pytest.mark.parametrize(
    ("name", "template"), [("PG_USERNAME", "{user}"), ("DATABASE_HOST", "{host}"), ("DB_NAME", "{database}")]
)
def test_an_error_for_want_of_a_part_of_the_address_says_how_parts_are_given(name, template):
    hint = Evidence(read(name)).unset(f"KeyError: '{name}'", ["DATABASE_URL"])
    assert f"give it, and the other parts alike: --url-variable '{name}={template}'" in hint


@pytest.mark.parametrize(
    ("error", "given", "option"),
    [
        ("KeyError: 'SECRET_KEY'", {}, "--dotenv .env"),
        ("Either 'SQLALCHEMY_DATABASE_URI' or 'SQLALCHEMY_BINDS' must be set.", {}, "--dotenv .env"),
        ("KeyError: 'SECRET_KEY'", {"SECRET_KEY": "x"}, ""),
        ("RuntimeError: no secret key was set. Set the secret_key on the application", {}, "--dotenv .env"),
        ("KeyError: 'APP_DB'", {}, "--url-variable APP_DB"),
        ("ModuleNotFoundError: No module named 'x'", {}, ""),
    ],
)
def test_an_application_with_a_dotenv_file_is_told_of_the_option(tmp_path, error, given, option):
    (tmp_path / ".env").write_text("# settings\nexport SECRET_KEY=<a key>\nNAME=a b\n")
    own = OwnApplication("a:app", tmp_path, Path(sys.executable), variables=given)
    advice = own.hint(error, Evidence(read("APP_DB", "APP_SETTINGS")))
    assert option in advice and bool(advice) is bool(option)


def test_an_application_with_an_example_of_a_dotenv_file_is_told_of_it(tmp_path):
    (tmp_path / ".env.example").write_text("export SECRET_KEY=insecure\n")
    own = OwnApplication("a:app", tmp_path, Path(sys.executable))
    told = own.hint("KeyError: 'SECRET_KEY'", Evidence(read("APP_DB")))
    assert told == " .env.example has it: give a copy with your values, --dotenv .env"
    assert own.hint("KeyError: 'STRIPE_KEY'", Evidence(read("APP_DB"))) == ""


def test_an_engine_for_the_database_given_needs_no_other_variable():
    found = Evidence(
        [*read("DATABASE_URL", "OTHER_URL"), {"event": "engine", "url": "postgresql://h:1/d", "given": True}]
    )
    told = found.fault(["DATABASE_URL"])
    assert "its engine is for the database given, but lent no connection" in told and "OTHER_URL" not in told


def test_of_variables_with_the_same_url_that_which_was_read_is_named():
    found = [*elsewhere(variables=["COPY", "MY_DB"]).events, *read("MY_DB")]
    assert "which MY_DB names: give --url-variable MY_DB" in Evidence(found).fault(["DATABASE_URL"])


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"event": "exits", "said": "set\nSETTINGS"}, "while it was loaded: set SETTINGS"),
        ({"event": "kept"}, "asyncio, which can have no other pool than its own: --strategies own"),
        (next(elsewhere(unquoted=True).of("elsewhere")), "%40"),
    ],
)
def test_what_stands_in_the_way_of_a_comparison_is_told(event, told):
    assert told in Evidence([*read(), event]).fault(["DATABASE_URL"])


@pytest.mark.parametrize(
    "event", [elsewhere(variables=["DATABASE_URL"]).events[0], {"event": "engine", "url": "sqlite:///x"}]
)
def test_a_variable_that_the_application_changed_itself_is_told(event):
    found = Evidence([*read("DATABASE_URL"), {"event": "changed", "name": "DATABASE_URL"}, event])
    assert "ts own code gave DATABASE_URL another value, as load_dotenv(override=True)" in found.fault(["DATABASE_URL"])
