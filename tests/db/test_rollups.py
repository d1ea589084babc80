"""Roll-ups and clicks always agree: in any order of commits, through kills, migrations, restores and dropped partitions."""

import io
import json
import subprocess
from contextlib import closing

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

import app
from db import folding, migrations, queries, rollups, seeding
from db.binaries import as_server_user, find_binaries
from db.database import Database
from db.embedded import temporary_postgres
from db.errors import DatabaseFailure
from db.settings import DatabaseSettings, database_url
from db.visitor import Visitor

CHROME = Visitor("Chrome", "Linux", "www.example.org")
FIREFOX = Visitor("Firefox", "Windows", None)
INSERT = (
    "INSERT INTO clicks (link_id, browser, platform, referrer)"
    " SELECT id, 'Edge', 'Windows', 'a.example' FROM links, generate_series(1, %s) WHERE code = %s"
)


def database_at(url):
    return Database(DatabaseSettings.from_mapping({"DATABASE_URL": url}))


@pytest.fixture(scope="module")
def server():
    with temporary_postgres(shared_buffers="64MB", settings={"fsync": "off"}) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def database(server):
    database = database_at(server.url)
    yield database
    database.close()


@pytest.fixture
def connection(database):
    """With the links seed1 to seed3, and no click."""
    with database.connection() as connection:
        seeding.seed_links(connection, 3)
        connection.exec_driver_sql("TRUNCATE clicks")
        yield connection


@pytest.fixture
def another(server):
    """Sessions in transactions: `another()`; closed at the end."""
    opened = []

    def connect():
        opened.append(psycopg2.connect(server.url))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def told(connection, code="seed1"):
    return json.loads(queries.analytics(connection, code))


def test_folding_changes_nothing_that_is_told(connection):
    for visitor in (CHROME, FIREFOX, CHROME, Visitor("Chrome", "Windows", "direct")):
        queries.follow(connection, "seed1", visitor)
    before = told(connection)
    assert rollups.fold(connection) == 4
    assert told(connection) == before
    assert before["totals"]["clicks"] == 4 == queries.read_link(connection, "seed1").clicks
    assert before["totals"]["referrers"] == 2
    assert before["referrers"] == {"www.example.org": 2, "direct": 2}
    assert before["browsers"] == {"Chrome": {"Linux": 2, "Windows": 1}, "Firefox": {"Windows": 1}}
    assert before["platforms"] == {"Linux": {"Chrome": 2}, "Windows": {"Chrome": 1, "Firefox": 1}}
    assert rollups.fold(connection) == 0
    assert rollups.check(connection).holds


def test_the_latest_clicks_are_the_latest_whenever_they_were_folded(connection):
    for hours in (5, 1, 30, 2):
        connection.exec_driver_sql(
            "INSERT INTO clicks (link_id, at, browser, platform)"
            " SELECT links.id, now() - interval '1 hour' * (%s + n), 'B', n::text"
            " FROM links, generate_series(1, 8) AS n WHERE code = 'seed1'",
            (hours,),
        )
        if hours != 2:
            rollups.fold(connection)
    latest = (
        connection.exec_driver_sql("SELECT platform FROM clicks ORDER BY at DESC, id DESC LIMIT 10").scalars().all()
    )
    shown = told(connection)["recent_clicks"]
    assert [click["platform"] for click in shown] == latest and sorted(shown[0]) == [
        "at",
        "browser",
        "platform",
        "referrer",
    ]
    rollups.fold(connection)
    assert told(connection)["recent_clicks"] == shown


def test_a_transaction_that_commits_late_is_neither_lost_nor_counted_twice(connection, another):
    late, early = another(), another()
    late.cursor().execute(INSERT, (1, "seed1"))
    early.cursor().execute(INSERT, (2, "seed1"))
    early.commit()
    assert rollups.fold(connection) == 0, "a transaction with a lower number still runs"
    assert queries.read_link(connection, "seed1").clicks == 2, "a click that was acknowledged is seen at once"
    late.commit()
    assert queries.read_link(connection, "seed1").clicks == 3
    assert rollups.fold(connection) == 3
    assert rollups.check(connection) == rollups.Check(clicks=3, unfolded=0, dropped=0, rolled_up=3, differences=0)


def test_one_folds_and_the_others_go_on(connection, another):
    folding = another()
    queries.follow(connection, "seed1", CHROME)
    folding.cursor().execute("SELECT fold_clicks(10)")
    assert rollups.fold(connection) is None
    assert queries.read_link(connection, "seed1").clicks == 1
    folding.rollback()
    assert rollups.fold(connection) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.sampled_from(["seed1", "seed2"])),
        st.tuples(st.sampled_from(["commit", "rollback", "kill", "fold"]), st.integers(0, 3), st.just("")),
        st.tuples(st.just("fold and"), st.integers(0, 3), st.sampled_from(["commit", "rollback", "kill"])),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(STEPS)
def test_any_order_of_commits_folds_and_kills_leaves_the_roll_ups_right(server, database, steps):
    """Four sessions that add clicks and fold them in transactions, and may be killed by the server at any step."""
    with database.connection() as connection, closing(psycopg2.connect(server.admin_url)) as admin:
        admin.autocommit = True
        seeding.seed_links(connection, 3)
        connection.exec_driver_sql("TRUNCATE clicks")
        sessions = [psycopg2.connect(server.url) for _ in range(4)]

        def end(place, how):
            if how != "kill":
                getattr(sessions[place], how)()
                return
            admin.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (sessions[place].info.backend_pid,))
            sessions[place].close()
            sessions[place] = psycopg2.connect(server.url)

        for what, place, which in steps:
            if what == "add":
                sessions[place].cursor().execute(INSERT, (1 + place, which))
            elif what == "fold":
                rollups.fold(connection)
            elif what == "fold and":
                sessions[place].cursor().execute("SET LOCAL lock_timeout = '1s'; SELECT fold_clicks(2)")
                end(place, which)
            else:
                end(place, what)
            rows = connection.exec_driver_sql(
                "SELECT count(*) FROM clicks JOIN links ON links.id = link_id WHERE code = 'seed1'"
            ).scalar_one()
            assert queries.read_link(connection, "seed1").clicks == rows == told(connection)["totals"]["clicks"]
            assert rollups.check(connection).holds
        for session in sessions:
            # The server would notice a mere close later.
            session.rollback()
            session.close()
        while rollups.fold(connection) != 0:
            pass
        found = rollups.check(connection)
        assert found.holds and not found.unfolded


def test_a_transaction_with_more_clicks_than_a_batch_is_folded_whole(connection, another, monkeypatch):
    monkeypatch.setattr(rollups, "BATCH_CLICKS", 10)
    session = another()
    for count in (25, 3, 3, 3, 30):
        session.cursor().execute(INSERT, (count, "seed1"))
        session.commit()
    folded = []
    assert rollups.fold_all(connection, folded.append) == 64
    assert folded[0] == 25 and max(folded) == 30 and len(folded) > 2
    assert rollups.check(connection).holds


def test_a_reader_who_had_much_to_count_spares_the_next(connection):
    connection.exec_driver_sql(INSERT, (1001, "seed2"))
    assert queries.read_link(connection, "seed2").clicks == 1001
    assert rollups.check(connection).unfolded == 0


def buffers(connection, statement, code):
    """Pages that a statement touches; the second time, when the session's caches are filled."""
    for _ in range(2):
        text = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", (code,)).scalar_one()
    plan = text[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.mark.parametrize("statement", [queries._READ_LINK, queries._ANALYTICS, queries._READ_URL])
@pytest.mark.parametrize("analyzed", [True, False])
def test_a_read_touches_as_many_pages_for_many_clicks_as_for_few(connection, statement, analyzed):
    seeding.seed_clicks(connection, 2, 1000)
    seeding.seed_clicks(connection, 1, 59_000)
    if analyzed:
        seeding.analyze(connection)
    few, many = (buffers(connection, statement, code) for code in ("seed2", "seed1"))
    assert many <= few + 5 and few < 150


def migrate_to(url, revision):
    engine = create_engine(database_url(url))
    config = Config()
    config.set_main_option("script_location", migrations._FOLDER)
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


OLD_COUNT = "SELECT code, (SELECT count(*) FROM clicks WHERE link_id = links.id) FROM links WHERE code = %s"


def test_clicks_from_before_are_folded_in_batches_while_old_and_new_programs_run(server, another, monkeypatch):
    monkeypatch.setattr(rollups, "BATCH_CLICKS", 700)
    with closing(psycopg2.connect(server.url)) as admin:
        admin.autocommit = True
        admin.cursor().execute("CREATE SCHEMA before")
    url = f"{server.url}?options=-csearch_path%3Dbefore"
    migrate_to(url, "0001")
    with closing(psycopg2.connect(url)) as old:
        old.autocommit = True
        cursor = old.cursor()
        cursor.execute("INSERT INTO links (code, url) VALUES ('a', 'http://a/'), ('b', 'http://b/')")
        cursor.execute(INSERT, (3000, "a"))
        database = database_at(url)
        database.migrate()
        cursor.execute(INSERT, (5, "b"))
        with database.connection() as connection:
            while rollups.fold(connection) != 0:
                # Each of the two counts with the statement it knows.
                cursor.execute(INSERT, (1, "a"))
                queries.follow(connection, "a", CHROME)
                cursor.execute(OLD_COUNT, ("a",))
                count = cursor.fetchone()[1]
                assert count == queries.read_link(connection, "a").clicks == told(connection, "a")["totals"]["clicks"]
                assert rollups.check(connection).holds
                if count > 3050:
                    break
            rollups.fold_all(connection)
            found = rollups.check(connection)
            assert found.holds and not found.unfolded and found.clicks > 3005
    database.close()
    engine = create_engine(database_url(url))
    config = Config()
    config.set_main_option("script_location", migrations._FOLDER)
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.exec_driver_sql("SELECT count(*) FROM clicks").scalar_one() == found.clicks
    engine.dispose()


def fill(connection, length, clicks):
    """Add partitions of a few transactions, and clicks to them, each a transaction of its own."""
    for _ in range(clicks):
        rollups.keep_partitions(connection, 0, length)
        queries.follow(connection, "seed1", CHROME)


def test_old_partitions_are_dropped_and_their_clicks_stay_counted():
    with temporary_postgres(settings={"fsync": "off"}) as postgres:
        database = database_at(postgres.url)
        with database.connection() as connection:
            seeding.seed_links(connection, 1)
            connection.exec_driver_sql("DELETE FROM click_partitions WHERE ends > 1")
            for (name,) in connection.exec_driver_sql(
                "SELECT relname FROM pg_class WHERE relname LIKE 'clicks_from_%%' AND relkind = 'r'"
            ).all():
                connection.exec_driver_sql(f"DROP TABLE {name}")
            fill(connection, 20, 60)
            queries.follow(connection, "seed1", FIREFOX)
            connection.exec_driver_sql("UPDATE clicks SET at = at - interval '40 days' WHERE browser = 'Chrome'")
            before = told(connection)
            assert rollups.keep_partitions(connection, 30, 20) == ["clicks_before_rollups"], "others are not folded"
            rollups.fold_all(connection)
            dropped = rollups.keep_partitions(connection, 30, 20)
            assert len(dropped) > 2
            assert rollups.keep_partitions(connection, 30, 20) == []
            assert told(connection) == before and queries.read_link(connection, "seed1").clicks == 61
            found = rollups.check(connection)
            assert found.holds and found.dropped > 20 and found.clicks + found.dropped == 61
            connection.exec_driver_sql("UPDATE click_counts SET clicks = clicks - 1 WHERE value = 'Firefox'")
            assert not rollups.check(connection).holds
        database.close()


def test_clicks_for_which_no_partition_was_made_are_kept_elsewhere_and_folded(connection):
    with closing(
        psycopg2.connect(connection.connection.dbapi_connection.dsn, password=password(connection))
    ) as session:
        cursor = session.cursor()
        # Undone at the end: numbers far beyond all partitions.
        cursor.execute("UPDATE click_folding SET added = 10 * (SELECT max(ends) FROM click_partitions)")
        cursor.execute(
            "INSERT INTO clicks (link_id, browser, platform, transaction_id)"
            " SELECT links.id, 'B', 'P', txid_current() + added FROM links, click_folding"
            " WHERE code = 'seed3'"
        )
        cursor.execute("SELECT tableoid::regclass::text FROM clicks WHERE browser = 'B'")
        assert cursor.fetchall() == [("clicks_elsewhere",)]
        engine = create_engine("postgresql+psycopg2://", creator=lambda: session)
        with engine.connect() as there:
            rollups.prepare(there)
            assert there.exec_driver_sql("SELECT count(*) FROM unfolded_clicks(3)").scalar_one() <= 1
            last = there.exec_driver_sql("SELECT max(ends) FROM click_partitions").scalar_one()
            assert last > there.exec_driver_sql("SELECT added FROM click_folding").scalar_one()


def password(connection):
    return connection.connection.dbapi_connection.info.password


@pytest.mark.slow
def test_a_dump_restored_on_a_young_server_goes_on_counting():
    """Transaction numbers begin anew there, below those of the clicks that were folded."""
    binaries = find_binaries()
    with temporary_postgres(settings={"fsync": "off"}) as old, temporary_postgres(settings={"fsync": "off"}) as young:
        database = database_at(old.url)
        with database.connection() as connection:
            seeding.seed_links(connection, 1)
            for _ in range(300):
                queries.follow(connection, "seed1", CHROME)
            rollups.fold_all(connection)
            for _ in range(3):
                queries.follow(connection, "seed1", CHROME)
        database.close()
        dump = subprocess.run(
            [binaries / "pg_dump", "--dbname", old.url], capture_output=True, check=True, **as_server_user()
        )
        restore(young.url, dump.stdout.decode())
        database = database_at(young.url)
        with database.connection() as connection:
            assert rollups.check(connection).unfolded == 3
            for n in range(5):
                queries.follow(connection, "seed1", FIREFOX)
                assert queries.read_link(connection, "seed1").clicks == 304 + n
            while rollups.fold(connection):
                pass
            found = rollups.check(connection)
            assert found.holds and found.unfolded == 0 and found.clicks == 308
        database.close()


def restore(url, dump):
    """Run what pg_dump wrote, as psql would."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        statement = []
        lines = iter(dump.splitlines(keepends=True))
        for line in lines:
            if line.startswith("\\"):
                continue
            if line.startswith("COPY "):
                data = []
                while (row := next(lines)) != "\\.\n":
                    data.append(row)
                cursor.copy_expert(line, io.StringIO("".join(data)))
                continue
            statement.append(line)
            text = "".join(statement)
            if line.rstrip().endswith(";") and text.count("$$") % 2 == 0:
                cursor.execute(text)
                statement.clear()


@pytest.mark.parametrize("folded", [True, False])
def test_a_link_with_clicks_cannot_be_removed(connection, folded):
    queries.add_link(connection, "removed", "https://example.com/")
    queries.follow(connection, "removed", CHROME)
    if folded:
        rollups.fold_all(connection)
    with pytest.raises(IntegrityError, match="the link removed has clicks"):
        connection.exec_driver_sql("DELETE FROM links WHERE code = 'removed'")
    connection.exec_driver_sql("TRUNCATE clicks; DELETE FROM links WHERE code = 'removed'")


def test_emptying_the_table_empties_the_roll_ups(connection):
    seeding.seed_clicks(connection, 2, 100)
    connection.exec_driver_sql("TRUNCATE clicks")
    assert queries.read_link(connection, "seed1").clicks == 0
    assert rollups.check(connection) == rollups.Check(0, 0, 0, 0, 0)


def test_the_commands_fold_and_check(server, connection):
    runner = app.create_app({"DATABASE_URL": server.url}).test_cli_runner()
    queries.follow(connection, "seed1", CHROME)
    assert "1 clicks, 1 of them not folded yet" in runner.invoke(args=["links", "check"]).stdout
    assert runner.invoke(args=["links", "fold"]).stdout == "folded 1 clicks\n"
    connection.exec_driver_sql("UPDATE click_totals SET clicks = clicks + 1")
    done = runner.invoke(args=["links", "check"])
    assert done.exit_code == 1 and "click_differences" in done.stderr
    connection.exec_driver_sql("TRUNCATE clicks")


def test_a_failure_of_the_folder_is_tried_again(server, monkeypatch):
    database = database_at(server.url)
    folder = folding.Folder(database, 0)
    monkeypatch.setattr(folding, "FOLDING_PAUSE_S", 0.01)
    attempts = []

    def fail():
        attempts.append(1)
        if len(attempts) < 3:
            raise DatabaseFailure("down")
        raise SystemExit

    monkeypatch.setattr(folder, "_work", fail)
    folder.wake()
    with pytest.raises(SystemExit):
        folder.run()
    assert len(attempts) == 3


def test_a_link_has_a_thousand_names_and_counts_the_others_together(connection):
    """Of the first link, names come in three batches, in two of which some are new; the other's thousand are all kept."""
    add = """
        INSERT INTO clicks (link_id, browser, platform, referrer)
        SELECT links.id, 'b' || n, 'p', 'h' || n FROM links, generate_series(%s, %s) AS n WHERE code = %s
    """
    for first, last, code in ((1, 1500, "seed1"), (900, 2500, "seed1"), (1, 100, "seed1"), (1, 1000, "seed2")):
        connection.exec_driver_sql(add, (first, last, code))
        rollups.fold_all(connection)
        assert rollups.check(connection).holds
    found = told(connection)
    assert (found["totals"]["clicks"], found["totals"]["referrers"]) == (3201, 1000)
    assert sum(found["referrers"].values()) == 3201 and len(found["referrers"]) == 1001
    assert sum(sum(each.values()) for each in found["browsers"].values()) == 3201 and len(found["browsers"]) == 1001
    assert found["referrers"]["others"] == found["browsers"]["Other"]["Other"] > 1000
    whole = told(connection, "seed2")
    assert len(whole["referrers"]) == len(whole["browsers"]) == 1000 and "others" not in whole["referrers"]
