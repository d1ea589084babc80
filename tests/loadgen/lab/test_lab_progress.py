"""How long a session may take is told before each experiment."""

from loadgen.lab.experiments import BRIEF, FULL, expected_s, experiments


def test_a_brief_session_is_expected_to_take_a_minute_and_a_half_at_most():
    assert sum(expected_s(e, BRIEF) for e in experiments() if not e.only_full) < 90


def test_a_full_one_is_expected_to_take_longer_than_a_brief_one():
    for experiment in experiments():
        assert expected_s(experiment, FULL) > expected_s(experiment, BRIEF)
