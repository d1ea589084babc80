"""How long a loop took for each of its statements."""

from poolbench.repeats import Group, loop_times_ns


def test_a_loop_of_one_statement_takes_from_its_first_to_the_end_of_its_last():
    assert loop_times_ns([Group(10, 500, 10, 100, 1100)]) == [1000]


def test_statements_of_one_loop_share_its_time_by_their_own():
    times_ns = loop_times_ns([Group(10, 300, 10, 100, 1100), Group(10, 100, 10, 120, 1120)])
    assert times_ns == [765, 255]


def test_two_loops_one_after_the_other_have_a_time_each():
    assert loop_times_ns([Group(5, 50, 5, 0, 100), Group(5, 50, 5, 200, 600)]) == [100, 400]


def test_a_statement_that_runs_once_within_a_loop_is_not_part_of_it():
    assert loop_times_ns([Group(6, 60, 6, 0, 1000), Group(1, 700, 1, 100, 800)]) == [300, 0]


def test_writes_and_batches_and_few_executions_are_no_loop():
    assert loop_times_ns(
        [Group(9, 9, 9, 0, 100, has_written=True), Group(9, 9, 9000, 0, 100), Group(4, 9, 4, 0, 100)]
    ) == [0, 0, 0]
    assert loop_times_ns([]) == []
