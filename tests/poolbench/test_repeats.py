"""How long a loop took for each of its statements."""

import pytest

from poolbench.repeats import Group, Text, loop_times_ns


def test_a_loop_of_one_statement_takes_from_its_first_to_the_end_of_its_last():
    assert loop_times_ns([Group(10, 500, 10, 100, 1100)]) == [1000]


def test_statements_of_one_loop_share_its_time_by_their_own():
    times_ns = loop_times_ns([Group(10, 300, 10, 100, 1100), Group(10, 100, 10, 120, 1120)])
    assert times_ns == [765, 255]


def test_two_loops_one_after_the_other_have_a_time_each():
    assert loop_times_ns([Group(5, 50, 5, 0, 100), Group(5, 50, 5, 200, 600)]) == [100, 400]


def test_a_statement_that_runs_once_within_a_loop_is_not_part_of_it():
    assert loop_times_ns([Group(6, 60, 6, 0, 1000), Group(1, 700, 1, 100, 800)]) == [300, 0]


@pytest.mark.parametrize(
    ("statement", "executions", "rows", "unknown", "is_repeated"),
    [
        ("SELECT name FROM t WHERE id = %(id)s", 5, 5, 0, True),
        ("SELECT name FROM t WHERE id = %(id)s", 4, 4, 0, False),
        ("SELECT name FROM t WHERE id > %(id)s LIMIT 500", 9, 4500, 0, False),
        # A server-side cursor says nothing of its rows.
        ("SELECT name FROM t WHERE id > %(id)s LIMIT 500", 9, 0, 9, False),
        ("UPDATE t SET n = %(n)s WHERE id = %(id)s", 10, 10, 0, True),
        ("INSERT INTO t (n) VALUES (%(n)s) RETURNING id", 200, 200, 0, True),
        ("UPDATE t SET n = %(n)s WHERE id = %(id)s", 9, 9, 0, False),
        ("DELETE FROM t WHERE at < %(at)s", 10, 300, 0, False),
        # Of executemany(), drivers count other rows.
        ("UPDATE t SET n = %(n)s WHERE id = %(id)s", 10, 10, 10, False),
        # Of two batches, one was of a single row.
        ("INSERT INTO t (n) VALUES (%(n)s)", 12, 12, 1, False),
        ("SELECT n FROM t WHERE id = %(id)s FOR UPDATE", 20, 20, 0, False),
        ("LOCK TABLE t", 20, 0, 20, False),
    ],
)
def test_a_loop_repeats_a_statement_that_fetches_few_rows_or_changes_one(
    statement, executions, rows, unknown, is_repeated
):
    group = Group(executions, 900, rows, 0, 1000, 0, 0, 90, unknown, 0, *Text.of(statement)[2:])
    assert loop_times_ns([group]) == [1000 * is_repeated]


def test_no_statements_are_no_loop():
    assert loop_times_ns([]) == []
