"""What the benchmark of planning counts as right, wrong, or not known."""

import numpy as np
import pytest

from benchmarks.arrangements import LOADED, WORKERS, PlannedArrangement, Statements, evenly, workers_of
from benchmarks.planning import ADVISED, CHANGES, Advice, Figure, Tried, drawn, tally, verdict


@pytest.mark.parametrize(
    ("seen", "said", "expected"),
    [
        ((100.0, 104.0), (110.0, 112.0), "met"),
        ((100.0, 104.0), (114.0, 116.0), "missed"),
        # The bar is 10 % of the mean of the two runs; they differ by more, so that even their mean is not known to be right.
        ((100.0, 112.0), (106.0, 106.0), "cannot be judged"),
        ((100.0, 112.0), (300.0, 300.0), "missed"),
        ((106.0, 106.0), (100.0, 112.0), "missed"),
        # Two runs may differ where the prediction knows why.
        ((100.0, 200.0), (102.0, 205.0), "met"),
        ((100.0, 200.0), (120.0, 220.0), "missed"),
        # Less than the smallest difference that counts.
        ((0.1, 0.3), (0.5, 0.7), "met"),
    ],
)
def test_a_prediction_is_judged_only_where_two_runs_agree(seen, said, expected):
    assert Figure("wait", seen, said, 0.10, 0.5).verdict == expected


def test_a_row_says_what_is_wrong_before_what_is_not_known():
    right, open_ = (Figure(name, seen, (10.0,), 0.1) for name, seen in (("wait", (10.0, 10.0)), ("p99", (10.0, 20.0))))
    wrong = Figure("knee", (10.0, 10.0), (20.0,), 0.1)
    assert verdict((right, right)) == "met"
    assert verdict((right, open_)) == "cannot be judged: p99"
    assert verdict((right, open_, wrong)) == "missed: knee"
    assert tally([(right, open_), (right, right)]) == "wait: 2 of 2 met; p99: 1 of 1 met, 1 cannot be judged."


@pytest.mark.parametrize("per_s", [21, 33.3, 80])
def test_a_calm_run_asks_once_for_each_statement_of_their_distribution(per_s):
    asked = evenly(PlannedArrangement("gthread", 1, 1, 40, 8), per_s, 12)
    count = len(asked.ranks)
    assert sorted(asked.ranks) == list(range(count))
    assert asked.times_ms.mean() == pytest.approx(40, rel=0.02)
    assert np.quantile(asked.times_ms, 0.99) == pytest.approx(184, rel=0.05)
    assert asked.times_ms[: count // 2].mean() == pytest.approx(40, rel=0.05)


def test_the_same_number_draws_the_same_thirty_arrangements():
    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 30


def test_a_statement_is_found_among_the_others_by_its_time():
    asked = Statements(5, LOADED)
    shares = asked.shares(asked.times_ms)
    # One millisecond is up to 18 % of this law, and its statements get the share in the middle.
    assert np.abs(shares - (LOADED + 0.5) / len(LOADED)).max() < 0.1
    assert shares.min() > 0
    assert shares.max() < 1


def test_each_request_has_the_worker_that_noted_it(tmp_path):
    (tmp_path / WORKERS).write_text("b,71\na,70\nc,71\n")
    assert workers_of(["a", "b", "c", "lost"], tmp_path) == (1, 0, 0, 0)


def of(advice, **within):
    shares = {"none": [0.5, 0.52], **{change: [0.5] for change in CHANGES}}
    shares.update({change.replace("_", " "): [share] for change, share in within.items()})
    return Advice(advice, Tried(ADVISED[0], None, shares, 0.0)).is_right


def test_advice_is_right_if_the_change_helps_and_no_other_helps_more():
    assert of("more workers", more_workers=0.9)
    assert of("more connections", more_connections=0.9, cheaper_statement=0.91)
    assert not of("more connections", more_connections=0.9, cheaper_statement=0.95)
    assert not of("more workers", more_workers=0.52)
    assert of("smaller pool", smaller_pool=0.5)
    assert not of("smaller pool", smaller_pool=0.4)
    assert not of("nothing", more_workers=0.9)


def test_a_change_keeps_the_connections_in_all_unless_it_is_about_them():
    for advised in ADVISED:
        before, after = advised.arrangement, advised.changed("more workers")
        assert after.workers == 2 * before.workers
        assert after.workers * after.size in (before.workers * before.size, before.workers * (before.size + 1))
