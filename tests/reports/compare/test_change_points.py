"""Change points of series whose truth is known."""

import numpy as np
import pytest

from benchmarks.history import WORLDS, found_in
from reports.compare.change_points import LEAST_VALUES, change_points, drift_p, energies


def noise(count, spread=0.05, seed=1):
    return np.random.default_rng(seed).normal(0, spread, count)


@pytest.mark.parametrize("count", [LEAST_VALUES, 12, 30, 120])
@pytest.mark.parametrize("rise", [0.3, -0.3])
def test_a_step_is_found_where_it_is(count, rise):
    values = noise(count)
    values[count // 2 :] += rise
    found = change_points(values)
    assert [point.at for point in found] == [count // 2] and found[0].p < 0.05
    assert drift_p(values, found) == 1


def test_a_level_that_comes_and_goes_has_two_change_points():
    values = noise(40)
    values[20:25] += 0.4
    assert [point.at for point in change_points(values)] == [20, 25]


def test_the_last_three_values_are_enough_for_a_large_change():
    values = noise(30)
    values[-3:] += 0.4
    assert [point.at for point in change_points(values)] == [27]


@pytest.mark.parametrize("at", [0, 1, 10, 28, 29])
def test_one_outlier_is_no_change(at):
    values = noise(30)
    values[at] += 2.0
    assert change_points(values) == []


def test_values_that_are_all_the_same_have_no_change():
    assert change_points(np.full(20, 3.7)) == []


def test_a_change_smaller_than_the_least_spread_is_none():
    values = np.repeat([1.0, 1.005], 10)
    assert [point.at for point in change_points(values)] == [10]
    assert change_points(values, least_spread=0.01) == []


def test_a_shorter_series_is_not_judged():
    assert change_points(np.repeat([0.0, 1.0], [3, LEAST_VALUES - 4])) == []


def test_a_straight_line_is_gradual_and_a_staircase_is_not():
    line = noise(40, 0.02) + np.linspace(0, 1, 40)
    stairs = noise(40, 0.02) + np.repeat([0.0, 0.5, 1.0, 1.5], 10)
    assert drift_p(line, change_points(line)) < 0.001
    assert drift_p(np.linspace(0, 1, 40), []) < 0.001
    found = change_points(stairs)
    assert [point.at for point in found] == [10, 20, 30] and drift_p(stairs, found) == 1


def test_the_energy_statistic_is_that_of_its_definition():
    values = noise(9)
    a, b = 2, 6
    inside, rest = values[a:b], np.concatenate([values[:a], values[b:]])
    means = [np.abs(x[:, None] - y[None, :]).mean() for x, y in ((inside, rest), (inside, inside), (rest, rest))]
    expected = len(inside) * len(rest) / 9 * (2 * means[0] - means[1] - means[2])
    assert energies(values)[a, b] == pytest.approx(expected)


@pytest.mark.parametrize("world", [world for world in WORLDS if world.most is not None], ids=lambda world: world.name)
def test_false_alarms_are_as_rare_as_the_documentation_says(world):
    share = sum(found_in(world, 20, seed) != "" for seed in range(100)) / 100
    # Three standard errors above what is claimed.
    assert share <= world.most + 3 * (max(world.most, 0.01) / 100) ** 0.5
