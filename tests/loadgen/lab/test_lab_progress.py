"""How long a session may take is told before each turn."""

from random import Random

from loadgen.lab.experiments import BRIEF, FULL, expected_s, experiments
from loadgen.lab.rounds import turns


def test_a_brief_session_of_three_rounds_is_expected_to_take_a_minute_and_a_half_at_most():
    brief = turns((e for e in experiments() if not e.only_full), BRIEF, Random(1))
    assert BRIEF.rounds == 3
    assert sum(expected_s(turn, BRIEF) for turn in brief) < 85


def test_a_full_one_is_expected_to_take_longer_than_a_brief_one():
    for experiment in experiments():
        assert expected_s((experiment,), FULL) > expected_s((experiment,), BRIEF)
