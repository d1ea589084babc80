"""Invented links and clicks: the same for the same numbers, whatever the batches, and any number of them."""

import subprocess

import pytest

import app
from db import queries, seeding
from db.database import Database
from db.embedded import temporary_postgres
from db.settings import DatabaseSettings
from tests.support.paths import BIN, ROOT


@pytest.fixture(scope="module")
def database():
    with temporary_postgres(shared_buffers="64MB", settings={"fsync": "off"}) as postgres:
        yield Database(DatabaseSettings.from_mapping({"DATABASE_URL": postgres.url}))


@pytest.fixture
def connection(database):
    with database.connection() as connection:
        connection.exec_driver_sql("TRUNCATE clicks")
        yield connection


def clicks(connection):
    return connection.exec_driver_sql(
        "SELECT link_id, browser, platform, referrer, count(*) FROM clicks GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    ).all()


def test_seeding_twice_adds_links_once_and_clicks_twice(connection):
    assert seeding.seed_links(connection, 3) in {0, 3}
    assert seeding.seed_links(connection, 3) == 0
    assert seeding.seed_clicks(connection, 3, 50) == 150
    assert seeding.seed_clicks(connection, 3, 50) == 150
    assert [queries.read_link(connection, f"seed{n}").clicks for n in (1, 2, 3)] == [100, 100, 100]


def test_the_size_of_a_batch_changes_no_click(connection, monkeypatch):
    seeding.seed_links(connection, 7)
    told = []
    assert seeding.seed_clicks(connection, 7, 100, told.append) == 700
    assert told == [700]
    whole = clicks(connection)
    for size in (1000, 100, 50, 3):
        connection.exec_driver_sql("TRUNCATE clicks")
        monkeypatch.setattr(seeding, "_BATCH_ROWS", size)
        told.clear()
        assert seeding.seed_clicks(connection, 7, 100, told.append) == 700 == sum(told)
        assert max(told) <= size
        assert clicks(connection) == whole


@pytest.mark.slow
def test_a_link_may_have_more_clicks_than_a_32_bit_product_can_hold(database):
    runner = app.create_app(
        {"DATABASE_URL": database.settings.url.render_as_string(hide_password=False)}
    ).test_cli_runner()
    with database.connection() as connection:
        connection.exec_driver_sql("TRUNCATE clicks")
    done = runner.invoke(args=["links", "seed", "1", "--clicks", "300000"])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("and 300000 clicks: seed1 … seed1\n") and "adding 300,000 clicks" in done.stderr
    with database.connection() as connection:
        assert queries.read_link(connection, "seed1").clicks == 300_000


def test_the_last_of_ten_million_clicks_can_be_added(connection):
    seeding.seed_links(connection, 1)
    batch = (9_999_001, 10_000_000, 1, 1)
    assert connection.exec_driver_sql(seeding._SEED_CLICKS, batch).rowcount == 1000


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["0"], "1<=x<="), (["x"], "not a valid integer"), (["1", "--clicks", "-1"], "0<=x<="),
    (["1", "--clicks", "9" * 12], "0<=x<="),
])  # fmt: skip
def test_numbers_that_are_not_possible_are_refused(arguments, complaint):
    done = (
        app.create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/x"})
        .test_cli_runner()
        .invoke(args=["links", "seed", *arguments])
    )
    assert done.exit_code == 2 and complaint in done.stderr


def test_a_database_that_is_down_is_told_in_one_line():
    environment = {"PATH": "/usr/bin:/bin", "DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    command = [str(BIN / "flask"), "links", "seed", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("Error: SQLSTATE") and "Traceback" not in done.stderr
