"""The arithmetic of verdicts against known values, brute force, and simulation."""

from dataclasses import replace
from itertools import product
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import verdicts as study
from reports.compare.statistics import (
    Interval,
    adjusted,
    beta_cdf,
    count_interval,
    difference,
    permutation_can_tell,
    permutation_p,
    pooled_t,
    ratio_over_periods,
    share_interval,
    student_critical,
    student_p,
)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),  # by the beta distribution's quantiles, of SciPy 1.17
    [
        (0, 10, 0.0, 0.3084971078187607),
        (3, 10, 0.06673951117773447, 0.6524528500599973),
        (5, 1000, 0.00162541951756276, 0.011629470559812147),
        (900, 5000, 0.16944021780157936, 0.19093473865629465),
        (500_000, 1_000_000, 0.49901951919531184, 0.5009804808046882),
    ],
)
def test_the_interval_of_a_share_is_clopper_and_pearsons(count, of, low, high):
    found = share_interval(count, of)

    assert (found.value, found.low, found.high) == (count / of, pytest.approx(low, rel=1e-5), pytest.approx(high, 1e-5))


@pytest.mark.parametrize(
    ("count", "low", "high"),  # by the chi-square distribution's quantiles, of SciPy 1.17
    [
        (0, 0.0, 3.6888794541139354),
        (1, 0.025317807984289876, 5.571643390938898),
        (10, 4.7953886961324335, 18.39035604201778),
        (1000, 938.9730184076952, 1063.952136016302),
        (100_000, 99381.15266374472, 100621.74473974388),
    ],
)
def test_the_interval_of_a_count_is_garwoods(count, low, high):
    found = count_interval(count)

    assert (found.low, found.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.01, 0.99))
def test_the_beta_distribution_is_the_binomials_tail(a, b, x):
    n = a + b - 1
    tail = sum(comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))

    assert beta_cdf(x, a, b) == pytest.approx(tail, abs=1e-10)


def test_students_t_is_as_in_the_tables():
    assert [round(student_critical(df), 3) for df in (1, 4, 10, 30, inf)] == [12.706, 2.776, 2.228, 2.042, 1.96]
    assert student_p(2.776445, 4) == pytest.approx(0.05, abs=1e-6)
    assert (student_p(0, 3), student_p(inf, 3)) == (1.0, 0.0)


def test_the_block_bootstraps_error_is_that_of_all_resamples():
    values = np.array([3.0, 5.0, 4.0, 8.0, 6.0, 1.0, 7.0, 2.0, 6.0, 3.0])
    blocks = [np.take(values, range(i, i + 2), mode="wrap") for i in range(10)]  # 10 periods: 5 blocks of 2
    sums = np.array([block.sum() for block in blocks])
    every = [sum(some) / 10 for some in product(sums, repeat=5)]

    found = ratio_over_periods(values[:, None], np.ones((10, 1)))

    assert found.value[0] == values.mean()
    assert found.error[0] >= np.std(every) / np.sqrt(1 - 2 / 10) - 1e-12
    assert found.df == 1.5 * (5 - 1)


def test_the_block_bootstraps_error_is_exactly_the_resamples_where_neighbours_are_alike():
    values = np.array([1.0, 1, 1, 1, 9, 9, 9, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9])  # no positive lag-1 correlation
    sums = np.array([np.take(values, range(i, i + 4), mode="wrap").sum() for i in range(20)])
    rng = np.random.default_rng(1)
    drawn = rng.choice(sums, (200_000, 5)).sum(1) / 20

    found = ratio_over_periods(values[:, None], np.ones((20, 1)))

    autoregressive = np.sqrt(np.square(values - values.mean()).sum() * 20 / 19) / 20
    assert found.error[0] == pytest.approx(max(drawn.std() / np.sqrt(0.8), autoregressive), rel=0.01)


def test_a_short_period_counts_for_as_little_as_it_measured():
    counts, seconds = np.array([[1.0], [100.0], [100.0]]), np.array([[0.01], [10.0], [10.0]])

    assert ratio_over_periods(counts, seconds).value[0] == pytest.approx(201 / 20.01)


def test_a_difference_of_normal_intervals_is_welchs():
    old, new = Interval(10, 8, 12, 4), Interval(16, 15, 17, 9)
    a, b = 2 / student_critical(4), 1 / student_critical(9)
    df = (a**2 + b**2) ** 2 / (a**4 / 4 + b**4 / 9)

    found = difference(old, new)

    assert found.value == 6
    assert found.p == pytest.approx(student_p(6 / np.hypot(a, b), df))
    assert (found.p < 0.05) == (found.low > 0)


@given(*[st.tuples(*[st.floats(0, 1e6)] * 3).map(sorted)] * 2)
def test_a_difference_the_other_way_round_is_its_mirror(a, b):
    old, new = (Interval(middle, low, high, 5) for low, middle, high in (a, b))
    forth, back = difference(old, new), difference(new, old)

    assert (forth.value, forth.low, forth.high, forth.p) == (-back.value, -back.high, -back.low, back.p)


def test_many_p_values_are_corrected_as_benjamini_and_hochberg_do():
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([]) == []


def test_a_permutation_test_counts_the_splits_that_are_as_far_apart():
    old, new = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([[11.0], [12.0], [13.0], [14.0]])

    assert permutation_p(old, new).tolist() == [2 / 70]
    assert permutation_p(old, old).tolist() == [1.0]


def test_a_permutation_test_holds_all_figures_together_to_the_level():
    rng = np.random.default_rng(3)
    wrong = [permutation_p(rng.normal(size=(4, 15)), rng.normal(size=(4, 15))).min() <= 0.05 for _ in range(200)]

    assert sum(wrong) <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_many_runs_are_permuted_by_chance_the_same_each_time():
    rng = np.random.default_rng(4)
    old, new = rng.normal(size=(12, 2)), rng.normal([0, 3], size=(12, 2))

    assert permutation_p(old, new).tolist() == permutation_p(old, new).tolist()
    assert permutation_p(old, new)[1] <= 0.001


@pytest.mark.parametrize(
    ("old", "new", "can"), [(2, 2, False), (3, 3, False), (4, 4, True), (3, 5, True), (1, 9, False)]
)
def test_few_runs_have_too_few_splits_for_a_permutation_test(old, new, can):
    assert permutation_can_tell(old, new) is can


def test_students_t_of_runs_that_are_all_alike_is_zero_or_infinite():
    t, _ = pooled_t(np.array([[1.0, 1.0]] * 2), np.array([[1.0, 2.0]] * 2))

    assert t.tolist() == [0.0, inf]


# Whole comparisons, in a small version of the study whose table docs/statistics.md shows.


P99 = "http.response_time.p99"
REPEATS = 30


def _at_most(share, of):
    """Three standard deviations above: a right program fails one time in 700."""
    return share + 3 * np.sqrt(share * (1 - share) / of)


@pytest.mark.parametrize(
    "world",
    [
        study.World(14, requests=150, correlation=0.3),
        study.World(30, requests=100, correlation=0.6),
        study.World(20, requests=150, correlation=0.3, sketches=False),
        study.World(3, requests=300, run_deviation=0.05, runs=4),
        study.World(3, requests=300, run_deviation=0.05, runs=2),
        study.World(4, requests=500),
    ],
    ids=str,
)
def test_without_a_change_verdicts_are_as_rare_as_the_level_says(world):
    assert study.share_of_verdicts(study.comparisons(world, 1.0, REPEATS)) <= _at_most(0.05, REPEATS)


@pytest.mark.parametrize(
    ("world", "power"),
    [
        (study.World(30, requests=1000, period_deviation=0.0), 0.9),
        (study.World(30, requests=1000), 0.8),
        (study.World(6, requests=500, run_deviation=0.03, runs=8), 0.8),
    ],
    ids=str,
)
def test_a_p99_that_rose_by_a_tenth_is_found_as_often_as_stated(world, power):
    found = study.share_of_verdicts(study.comparisons(world, 1.1, 15), P99)

    assert found >= power - 3 * np.sqrt(power * (1 - power) / 15)


def test_what_is_found_is_called_worse_when_slower_and_better_when_faster():
    world = study.World(20, requests=300)

    for factor, verdict in ((1.4, "worse"), (0.6, "better")):
        rows = {row.name: row for row in next(study.comparisons(world, factor, 1)).rows}
        assert rows[P99].verdict == rows["vusers.session_length.mean"].verdict == verdict
        assert rows[P99].basis == "periods"


def test_one_run_a_side_says_nothing_of_how_runs_differ_and_several_do():
    world = study.World(30, requests=100, run_deviation=0.2, correlation=0.3)
    several = replace(world, periods=3, runs=4)

    one = study.share_of_verdicts(study.comparisons(world, 1.0, 15), "http.response_time.median")
    assert one > 0.3  # these runs do differ: the docs say so
    assert study.share_of_verdicts(study.comparisons(several, 1.0, 30)) <= _at_most(0.05, 30)
