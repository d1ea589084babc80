"""Turns in random order, and rounds compared."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from loadgen.lab.turns import Spread, compared, in_turns
from reports.model import Period, Report, Summary
from reports.sketch import Sketch

P50 = "http.response_time.median"


def test_each_round_has_every_item_once():
    turns = list(in_turns("abcd", 5, Random(1)))
    assert [sorted(turns[i : i + 4]) for i in range(0, 20, 4)] == [list("abcd")] * 5


def test_no_order_is_preferred():
    rng = Random(2)
    first = Counter(next(in_turns("ab", 1, rng)) for _ in range(1000))
    assert abs(first["a"] - 500) < 80


def test_a_seed_gives_the_same_order_again():
    assert list(in_turns(range(9), 3, Random(3))) == list(in_turns(range(9), 3, Random(3)))
    assert list(in_turns(range(9), 3, Random(3))) != list(in_turns(range(9), 3, Random(4)))


@pytest.mark.parametrize(
    ("values", "spread"), [([3.0], (3, 3, 3)), ([4.0, 1.0], (1, 2.5, 4)), ([9.0, 1.0, 2.0], (1, 2, 9))]
)
def test_a_spread_is_from_the_lowest_by_the_median_to_the_highest(values, spread):
    found = Spread.of(values)
    assert (found.low, found.median, found.high) == spread


def rounds(mean_ms, count, rng, deviation):
    for _ in range(count):
        sketch = Sketch.of(mean_ms * np.exp(rng.normal(0, deviation)) * np.exp(rng.normal(0, 0.2, 500)))
        total = Period(0, summaries={"http.response_time": Summary.of(sketch)}, sketches={"http.response_time": sketch})
        yield Report.of([total])


def test_a_difference_must_exceed_what_rounds_of_one_arrangement_differ_by():
    rng = np.random.default_rng(1)
    for deviation, verdict in ((0.02, "worse"), (0.5, "no clear change")):
        old, new = (list(rounds(ms, 4, rng, deviation)) for ms in (20, 30))
        assert compared(old, new)[P50].verdict == verdict


def test_one_round_is_no_comparison():
    one, two = (list(rounds(20, count, np.random.default_rng(1), 0.02)) for count in (1, 2))
    with pytest.raises(ValueError, match="two rounds"):
        compared(one, two)
