"""The arithmetic of verdicts against known values, brute force, and simulation."""

from math import comb, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.compare.statistics import (
    Interval,
    adjusted,
    beta_cdf,
    difference,
    pooled_t,
    ratio_over_periods,
    rotation_p,
    runs_needed,
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


def test_a_means_error_is_that_of_independent_batches_where_neighbours_are_unlike():
    values = np.array([1.0, 9.0] * 10)

    found = ratio_over_periods(values)

    assert found.value == 5
    # neighbours are opposite: no positive correlation is left, even with a margin
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    assert (found.df, found.trending) == (19, False)


def test_a_run_with_a_trend_is_too_short_beside_its_own_swings():
    assert ratio_over_periods(np.arange(30.0)).trending


def test_the_error_of_a_correlated_run_covers_its_truth():
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(200):
        values = np.zeros(30)
        for i in range(1, 30):
            values[i] = 0.6 * values[i - 1] + rng.normal()
        found = ratio_over_periods(values)
        missed += abs(found.value) > student_critical(found.df) * found.error

    assert missed <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_a_short_period_counts_for_as_little_as_it_measured():
    counts, seconds = np.array([1.0, 100.0, 100.0]), np.array([0.01, 10.0, 10.0])

    assert ratio_over_periods(counts, seconds).value == pytest.approx(201 / 20.01)


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


@pytest.mark.parametrize(("old", "new"), [(2, 2), (3, 3), (5, 5), (1, 4)])
def test_a_rotation_test_of_one_figure_is_students_t(old, new):
    rng = np.random.default_rng(old)
    a, b = rng.normal(size=(old, 1)), rng.normal(1.5, size=(new, 1))
    t, _ = pooled_t(a, b)

    assert rotation_p(a, b)[0] == pytest.approx(student_p(float(t[0]), old + new - 2), abs=0.02)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_a_rotation_test_holds_all_figures_together_to_the_level(runs):
    rng = np.random.default_rng(3)
    wrong = [rotation_p(*rng.normal(size=(2, runs, 15))).min() <= 0.05 for _ in range(100)]

    assert sum(wrong) <= 100 * 0.05 + 3 * np.sqrt(100 * 0.05 * 0.95)


@pytest.mark.parametrize("runs", [4, 5, 6])
def test_a_figure_that_is_the_same_in_all_runs_hides_no_other(runs):
    rng = np.random.default_rng(runs)
    old, new = rng.normal(0, 0.01, size=(2, runs, 3))
    new[:, 1] += 0.7
    # equal but for the last digit, as sums are
    old[:, 2], new[:, 2] = 0.1, 0.1 * (1 + 1e-16)

    found = rotation_p(old, new, least_spread=0.01)

    assert found[1] <= 0.01
    assert found[2] > 0.9


def test_neither_the_order_of_runs_nor_of_sides_matters():
    rng = np.random.default_rng(4)
    old, new = rng.normal(size=(5, 3)), rng.normal([0, 3, 1], size=(4, 3))

    assert rotation_p(old, new).tolist() == rotation_p(new[::-1], old).tolist()


def test_how_many_runs_would_tell():
    assert [runs_needed(by, 0.05) for by in (1.0, 0.18, 0.095, 0.02)] == [2, 3, 6, 99]
    assert runs_needed(0.001, 0.05) is None


def test_students_t_of_runs_that_are_all_alike_is_zero_or_infinite():
    t, _ = pooled_t(np.array([[1.0, 1.0]] * 2), np.array([[1.0, 2.0]] * 2))

    assert t.tolist() == [0.0, inf]
