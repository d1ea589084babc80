"""The arithmetic of reports: half-up rounding, rates, and the aggregate's identity with its periods."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.model import Period, Rate, Report, Summary, aggregate, round_half_up
from reports.sketch import Sketch
from tests.support.report_strategies import measured_periods


@pytest.mark.parametrize(("value", "digits", "rounded"), [(0.25, 1, 0.3), (1.5, 0, 2), (2.5, 0, 3), (-0.5, 0, 0)])
def test_halves_are_rounded_up(value, digits, rounded):
    assert round_half_up(value, digits) == rounded


@pytest.mark.parametrize(
    ("count", "seconds", "per_second"),
    [
        (8, 3.5, 2),  # 2.29
        (3, 2.0, 2),  # 1.5, a half goes up
        (5, 0.2, 5),  # less than a second counts as one
        (1, 0.0, 1),
    ],
)
def test_a_rate_is_its_events_over_the_time_between_first_and_last(count, seconds, per_second):
    assert Rate.of(count, 1_000_000, 1_000_000 + int(seconds * 1000)).per_second == per_second


def test_the_aggregate_rate_is_the_mean_over_all_periods_also_those_without_it():
    with_rate = Period(start_ms=0, rates={"r": Rate(6)})
    other = Period(start_ms=10_000, rates={"r": Rate(5)})
    without = Period(start_ms=20_000)

    assert aggregate([with_rate, other]).rates == {"r": Rate(6)}  # 5.5
    assert aggregate([with_rate, other, without]).rates == {"r": Rate(4)}  # 3.67


@settings(max_examples=30)
@given(st.lists(measured_periods(), max_size=4))
def test_the_aggregate_is_the_sum_and_the_merge_of_its_periods(periods):
    total = Report.of(periods).aggregate

    for name in {name for p in periods for name in p.counters}:
        assert total.counters[name] == sum(p.counters.get(name, 0) for p in periods)
    ordered = sorted(periods, key=lambda p: p.start_ms)
    for name in {name for p in periods for name in p.sketches}:
        assert total.sketches[name] == Sketch.merged(p.sketches[name] for p in ordered if name in p.sketches)
        assert total.summaries[name] == Summary.of(total.sketches[name])
    assert total.start_ms == max((p.start_ms for p in periods), default=0)
    assert total.first_metric_ms == min((p.first_metric_ms for p in periods), default=None)
