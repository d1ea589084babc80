"""What the database of a watched application counts of its statements."""

from dataclasses import replace

import pytest

from loadgen.lab.doctor_database import DatabaseWatch, ahead
from loadgen.lab.own_database import databases
from loadgen.lab.stack import query
from poolbench.surroundings import statement_key


@pytest.mark.slow
def test_an_embedded_server_counts_statements_and_says_so_where_it_does_not():
    with databases(None, None, 1, 20, with_statistics=True) as found, found.fresh() as database:
        query(database.monitor_url, "SELECT count(*) FROM pg_class WHERE relname = %s", ("before",))
        with DatabaseWatch(database) as watch:
            for name in "abc":
                query(database.monitor_url, "SELECT count(*) FROM pg_class WHERE relname = %s", (name,))
            query(found.base.monitor_url, "SELECT 'in another database'")
        counted = watch.statements[statement_key("SELECT count(*) FROM pg_class WHERE relname = %(name)s")]
        assert (counted.calls, counted.rows) == (3, 3)
        assert counted.pages > 0 and counted.total_ms > 0
        assert not any("another" in each.text for each in watch.statements.values())
        assert not watch.statements_missing
        # As a given database without the extension.
        with DatabaseWatch(replace(database, postgres=None)) as watch:
            pass
        assert watch.statements is None and "CREATE EXTENSION pg_stat_statements" in watch.statements_missing


def test_a_queue_for_a_row_is_followed_to_who_has_it():
    assert ahead(4, {4: [3], 3: [2], 2: [1], 1: [], 9: [8]}) == {1, 2, 3}
    assert ahead(1, {1: [2], 2: [1]}) == {1, 2}
