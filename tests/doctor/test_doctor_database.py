"""What the database of a watched application counts of its statements."""

import os
from contextlib import ExitStack
from dataclasses import replace

import psycopg2
import pytest

from loadgen.lab.doctor_database import DatabaseWatch, ahead, in_queue_s
from loadgen.lab.own_database import databases
from loadgen.lab.stack import connect, query
from poolbench.surroundings import FETCH, Index, statement_key


@pytest.mark.slow
def test_an_embedded_server_counts_statements_and_says_so_where_it_does_not():
    with databases(None, None, 1, 20, with_statistics=True) as found, found.fresh() as database:
        query(database.monitor_url, "SELECT count(*) FROM pg_class WHERE relname = %s", ("before",))
        query(
            database.monitor_url,
            "CREATE TABLE items (id int PRIMARY KEY, shop int, sku text, UNIQUE (sku, shop));"
            "CREATE INDEX ON items (shop) WHERE id > 3; CREATE INDEX ON items (lower(sku));"
            "CREATE INDEX ON items (shop) INCLUDE (sku); CREATE INDEX ON items USING brin (id)",
        )
        with DatabaseWatch(database) as watch:
            for name in "abc":
                query(database.monitor_url, "SELECT count(*) FROM pg_class WHERE relname = %s", (name,))
            for name in "ab":
                cursor = f"DECLARE c_{name} CURSOR WITH HOLD FOR SELECT oid FROM pg_class"
                query(database.monitor_url, f'{cursor}; FETCH FORWARD 3 FROM "c_{name}"')
            query(found.base.monitor_url, "SELECT 'in another database'")
        counted = watch.statements[statement_key("SELECT count(*) FROM pg_class WHERE relname = %(name)s")]
        assert (counted.calls, counted.rows) == (3, 3)
        assert watch.statements[FETCH].rows == 6, "of all cursors together"
        assert not any("pg_stat_activity" in each.text or "pg_index" in each.text for each in watch.statements.values())
        assert sorted(watch.indexes) == [
            Index("items", ("id",), True, "public"),
            Index("items", ("shop",), False, "public"),
            Index("items", ("sku", "shop"), True, "public"),
        ]
        assert counted.pages > 0 and counted.total_ms > 0
        assert not any("another" in each.text for each in watch.statements.values())
        assert not watch.statements_missing
        # As a given database without the extension.
        with DatabaseWatch(replace(database, postgres=None)) as watch:
            pass
        assert watch.statements is None and "CREATE EXTENSION pg_stat_statements" in watch.statements_missing


@pytest.mark.slow
def test_a_statement_inside_a_function_is_counted_beside_the_same_one_of_a_client():
    with databases(None, None, 1, 20, with_statistics=True) as found, found.fresh() as database:
        query(
            database.monitor_url,
            "CREATE FUNCTION twice() RETURNS bigint LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM count(*) FROM pg_class; RETURN (SELECT count(*) FROM pg_class); END'",
        )
        query(database.monitor_url, "ALTER SYSTEM SET pg_stat_statements.track = 'all'")
        query(database.monitor_url, "SELECT pg_reload_conf()")
        with DatabaseWatch(database) as watch:
            for _ in range(3):
                query(database.monitor_url, "SELECT count(*) FROM pg_class")
                query(database.monitor_url, "SELECT twice()")
        counted = watch.statements[statement_key("SELECT count(*) FROM pg_class")]
        assert (counted.calls, counted.rows) == (6, 6), "three of a client, and three of the function"


@pytest.mark.slow
def test_a_database_without_a_connection_to_spare_is_watched_to_the_end():
    def take_all():
        for _ in range(10):
            opened.callback(connect(database.monitor_url).close)

    with databases(None, None, 1, 8, with_statistics=True) as found, found.fresh() as database, ExitStack() as opened:
        with (
            DatabaseWatch(database) as watch,
            pytest.raises(psycopg2.OperationalError, match=r"too many clients|connection slots"),
        ):
            take_all()
        assert watch.max_connections == 8


def test_a_few_late_looks_do_not_say_how_long_a_trivial_statement_takes():
    watch = DatabaseWatch.__new__(DatabaseWatch)
    watch._took_s = [0.002] * 9 + [3.0, 4.0]
    assert watch.trivial_ms == pytest.approx(2)


def test_a_look_stands_for_the_time_since_the_one_before():
    """Which is longer than planned where looks themselves take long."""
    watch = DatabaseWatch.__new__(DatabaseWatch)
    watch.looks, watch._began_s, watch._looked_s = 5, 100.0, 100.6
    assert watch.look_every_s == pytest.approx(0.15)


def test_a_queue_for_a_row_is_followed_to_who_has_it():
    assert ahead(4, {4: [3], 3: [2], 2: [1], 1: [], 9: [8]}) == {1, 2, 3}
    assert ahead(1, {1: [2], 2: [1]}) == {1, 2}


def test_the_time_of_a_process_in_the_machines_queue_is_read_and_0_of_one_that_has_ended():
    assert in_queue_s(os.getpid()) >= 0
    assert in_queue_s(2**22 + 1) == 0
