"""Merging reports: as if one generator had measured everything."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.compare.rates import measured_rate
from reports.formats.artillery_json import from_json, to_json
from reports.merge import merge, merge_periods
from reports.model import Extras, Period, Rate, Report, ReportError, Second, Summary, aggregate
from reports.sketch import NO_BINS, Sketch
from tests.support.report_strategies import measured_periods


def period(start_ms=0, times=(1.0,), count=1):
    sketch = Sketch.of(times)
    return Period(
        start_ms=start_ms,
        counters={"http.requests": count},
        rates={"http.request_rate": Rate.of(count, start_ms, start_ms + 2000)},
        summaries={"http.response_time": Summary.of(sketch)},
        sketches={"http.response_time": sketch},
        first_counter_ms=start_ms,
        last_counter_ms=start_ms + 2000,
    )


@settings(max_examples=30)
@given(st.lists(st.lists(measured_periods(), min_size=1, max_size=3), min_size=2, max_size=3))
def test_merged_counters_and_sketches_are_those_of_all_runs(runs):
    merged = merge([Report.of(periods) for periods in runs])
    everything = aggregate([p for periods in runs for p in periods])

    assert merged.aggregate.counters == everything.counters
    for name, sketch in everything.sketches.items():
        assert merged.aggregate.sketches[name].positive == sketch.positive
        assert merged.aggregate.sketches[name].count == sketch.count
    starts = [p.start_ms for p in merged.periods]
    assert starts == sorted(set(starts))


@settings(max_examples=30)
@given(st.lists(measured_periods(), min_size=2, max_size=6))
def test_merged_seconds_are_those_of_all_parts(parts):
    merged = [second for period in merge_periods(parts) for second in period.seconds]
    given_seconds = [second for part in parts for second in part.seconds]

    assert [s.start_ms for s in merged] == sorted({s.start_ms for s in given_seconds})
    for second in merged:
        same = [s for s in given_seconds if s.start_ms == second.start_ms]
        for count in ("requests", "answers", "errors"):
            assert getattr(second, count) == sum(getattr(s, count) for s in same)
        times = Sketch.merged([s.response_time for s in same if s.response_time is not None])
        assert (second.response_time.positive if second.response_time else NO_BINS) == times.positive
        assert (second.response_time.count if second.response_time else 0) == times.count


def test_there_are_no_seconds_where_one_part_has_events_but_no_seconds():
    """Half of a second's events would look like all of them."""
    with_seconds = replace(period(), seconds=(Second(0, 1, 1, 0, Sketch.of([1.0])),))
    without_events = Period(start_ms=0, counters={"vusers.created": 1})

    assert merge_periods([with_seconds, period()])[0].seconds == ()
    assert merge_periods([with_seconds, without_events])[0].seconds == with_seconds.seconds


def test_slices_of_the_same_time_become_one():
    merged = merge([Report.of([period(0), period(10_000)]), Report.of([period(10_000, [9.0], 5)])])

    assert [(p.start_ms, p.counters["http.requests"]) for p in merged.periods] == [(0, 1), (10_000, 6)]
    assert merged.periods[1].sketches["http.response_time"] == Sketch.of([1.0, 9.0])


def test_a_merged_rate_is_that_of_all_events():
    early = Period(start_ms=0, rates={"r": Rate.of(10, 0, 1000)})
    late = Period(start_ms=0, rates={"r": Rate.of(10, 4000, 5000)})

    assert merge_periods([early, late])[0].rates["r"] == Rate(4, 20, 0, 5000)


def test_rates_of_unknown_counts_add_up():
    parts = [Period(start_ms=0, rates={"r": Rate(3)}), Period(start_ms=0, rates={"r": Rate.of(4, 0, 1000)})]

    assert merge_periods(parts)[0].rates["r"] == Rate(7)


def test_one_report_is_itself():
    report = Report.of([period()])

    assert merge([report]) is report


def test_percentiles_without_sketches_are_not_merged():
    foreign = replace(period(), sketches={})

    with pytest.raises(ReportError, match=r"report 2 cannot be merged: http\.response_time has no sketch"):
        merge([Report.of([period()]), Report(foreign, (foreign,))])


def test_a_report_without_periods_is_not_merged():
    with pytest.raises(ReportError, match="report 1 cannot be merged: it has no periods"):
        merge([Report(Period(start_ms=0, counters={"a": 1})), Report.of([period()])])


def test_the_whole_is_partial_if_a_part_is_and_keeps_every_warning():
    one = Report.of([period()], Extras("0.1.0", "open", environment={"host": "a"}, warnings=("w1", "w2")))
    two = Report.of([period()], Extras("0.1.0", "open", True, environment={"host": "b"}, warnings=("w2", "w3")))

    extras = merge([one, two]).extras

    assert (extras.partial, extras.model, extras.warnings) == (True, "open", ("w1", "w2", "w3"))
    assert extras.environment == {"runs": [{"host": "a"}, {"host": "b"}]}


def test_the_time_between_merged_runs_is_no_part_of_their_rate():
    """Four rounds, of which two overlap: the pauses between them do not count."""
    extras = Extras("0.1.0", "open")
    rounds = [Report.of([steady(start_ms)], extras) for start_ms in (0, 30_000, 31_500, 95_000)]

    merged = from_json(to_json(merge([merge(rounds[:2]), *rounds[2:]])))

    assert merged.extras.pauses == ((2000, 30_000), (33_500, 95_000))
    assert measured_rate(merged, "http.request_rate").per_second == pytest.approx(79 / 7.5)
    assert [merge(rounds[:1]).extras.pauses, merge(rounds[1:3]).extras.pauses] == [(), ()]


@pytest.mark.parametrize(("count", "per_second"), [(10**300, 1e-300), (10**306, 1e306), (1, 1e-300), (10**6, 1e308)])
@pytest.mark.filterwarnings("error")
def test_an_absurd_count_or_rate_gives_no_warning(count, per_second):
    slices = [
        Period(start_ms, {"http.requests": each}, {"http.request_rate": Rate(per_second)})
        for start_ms, each in ((0, 5), (10_000, count))
    ]
    assert measured_rate(Report(slices[0], tuple(slices)), "http.request_rate").per_second > 0


def steady(start_ms):
    """A slice of two seconds with ten requests in each."""
    return replace(period(start_ms, count=20), first_histogram_ms=start_ms, last_histogram_ms=start_ms + 2000)


def test_a_sketch_without_samples_is_left_out():
    empty = replace(period(), sketches={"http.response_time": Sketch.of([])}, summaries={})

    merged = merge([Report.of([empty]), Report.of([empty])])

    assert merged.aggregate.counters["http.requests"] == 2 and not merged.aggregate.summaries
