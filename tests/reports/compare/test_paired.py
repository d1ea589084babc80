"""The statistics of duels: symmetry, what chance alone gives, what is found, and what too little data leaves open."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import duel as study
from reports import names
from reports.compare import paired
from reports.compare.diff import compare_paired
from reports.model import Period, Report, Second
from reports.sketch import Sketch

SHORT = study.World("half a minute, half of it disturbed", seconds=30, burst_s=2.0, pause_s=2.0)
TIMES = [f"{names.RESPONSE_TIME}.{row}" for row in ("median", "p95", "p99")]


def sides(factor, seed, world=SHORT):
    rng = np.random.default_rng(seed)
    slower, (a, b) = study.levels(world, rng), study.dealt(world, rng)
    return study.side(world, a, slower, 1.0, rng), study.side(world, b, slower, factor, rng)


def by_second(counts, times=()):
    """A report with a second for each (requests, failed), and these times in every second."""
    seconds = tuple(
        Second(1000 * i, requests, requests - failed, failed, Sketch.of(times))
        for i, (requests, failed) in enumerate(counts)
    )
    sketch = Sketch.merged(s.response_time for s in seconds)
    counters = {
        names.REQUESTS: sum(requests for requests, _ in counts),
        f"{names.ERRORS}ETIMEDOUT": sum(failed for _, failed in counts),
    }
    return Report.of([Period(0, counters, sketches={names.RESPONSE_TIME: sketch} if times else {}, seconds=seconds)])


def row(diff, name):
    return next(r for r in diff.rows if r.name == name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factor", [1.0, 1.1, 1.5])
def test_the_sides_exchanged_give_the_mirror_image(factor, seed):
    a, b = sides(factor, seed)
    forth, back = compare_paired(a, b).mirrored(), compare_paired(b, a)
    for there, here in zip(forth.rows, back.rows, strict=True):
        assert (there.verdict, there.reason) == (here.verdict, here.reason)
        assert there.p == (None if here.p is None else pytest.approx(here.p))
        if here.span is not None:
            assert (there.span.low, there.span.high) == pytest.approx((here.span.low, here.span.high))


def test_a_side_against_itself_has_no_change_and_an_interval_around_zero():
    a, _ = sides(1.0, 1)
    found = compare_paired(a, a)
    assert not study.called(found)
    for name in TIMES:
        assert row(found, name).p == 1
        assert row(found, name).low < 0 < row(found, name).high


def test_equal_services_are_hardly_ever_called_different():
    # Of 40 duels at a level of 5 % six or more are called once in 70 times.
    assert sum(study.called(compare_paired(*sides(1.0, seed))) for seed in range(40)) <= 5


def test_half_as_much_again_is_found_in_every_quantile_beside_a_neighbour():
    for seed in range(5):
        found = compare_paired(*sides(1.5, seed))
        for name in TIMES:
            assert row(found, name).verdict == "worse"
            assert row(found, name).basis == "pairs"
        # By what factor the median is longer: about 1.5.
        span = row(found, TIMES[0]).span
        assert log(1.3) < span.low < log(1.55)
        assert log(1.45) < span.high < log(1.7)


@pytest.mark.slow
def test_a_p99_ten_percent_longer_is_found_where_bursts_overload_the_server():
    (world,) = (world for world in study.WORLDS if world.load == 0.3)
    rng = np.random.default_rng(3)
    # At 90 % found, fewer than 31 of 40 are found once in 70 times.
    assert sum(study.worse(study.duel(world, 1.1, rng)) for _ in range(40)) >= 31
    assert sum(study.called(study.duel(world, 1.0, rng)) for _ in range(20)) <= 3


@pytest.mark.slow
def test_queues_that_outlast_the_duel_cannot_be_judged_by_which_side_is_ahead():
    """One side is ahead all the time in both of these: by chance, as its queue happened to be long, or for good."""
    (world,) = (world for world in study.WORLDS if world.load == 0.98)
    found = [study.duel(world, 1.0, np.random.default_rng(seed)) for seed in range(60)]
    unjudged = [diff for diff in found if row(diff, TIMES[0]).verdict == "cannot be judged"]
    assert any("queues near saturation outlast a duel" in row(diff, TIMES[0]).reason for diff in unjudged)
    # At 5 %, eight or more of 60 are called once in 100 times.
    assert sum(study.called(diff) for diff in found) <= 7
    quiet = study.World("no neighbour", burst_s=0.0, drift=0.0, load=0.0)
    far = study.duel(quiet, 3.0, np.random.default_rng(1))
    assert [row(far, name).verdict for name in TIMES] == ["worse"] * 3


def test_what_disturbs_both_sides_is_no_change():
    """One second in three is ten times as slow, on both sides."""
    world = replace(SHORT, burst_s=1.0, pause_s=2.0, slower=(10.0, 10.0))
    a, b = sides(1.0, 3, world)
    assert not study.called(compare_paired(a, b))


def test_failures_of_one_side_are_worse_and_need_no_response_times():
    a, b = by_second([(50, 0)] * 30), by_second([(50, i % 3) for i in range(30)])
    found = row(compare_paired(a, b), "errors")
    assert found.verdict == "worse"
    assert 0 < found.low < 30 / 1500 < found.high
    assert row(compare_paired(b, a), "errors").verdict == "better"


def test_a_handful_of_failures_is_judged_exactly():
    # Five of five on one side happen by chance once in 16 times, however they are spread over time.
    a, b = by_second([(50, 0)] * 30), by_second([(50, 1 if i % 6 == 0 else 0) for i in range(30)])
    found = row(compare_paired(a, b), "errors")
    assert found.verdict == "no clear change"
    assert found.p >= 0.0624


def test_fewer_requests_in_the_same_time_are_worse():
    a, b = by_second([(50 + i % 2, 0) for i in range(30)]), by_second([(40 + i % 3, 0) for i in range(30)])
    duel = paired.Duel(a, b)
    assert duel.rate().high < log(45 / 50) < 0
    assert duel.rate().p < 0.001


@pytest.mark.parametrize(
    ("seconds", "why"),
    [(30, "too little data: 3 of 300 samples lie beyond the quantile"), (5, "12 stretches of 1 s at least")],
)
def test_too_little_data_cannot_be_judged(seconds, why):
    times = [1.0, 2.0, 3.0, 4.0, 5.0]
    duel = paired.Duel(by_second([(5, 0)] * seconds, times), by_second([(5, 0)] * seconds, times))
    assert why in duel.quantile(0.99 if seconds > 5 else 0.5).lacking


def test_reports_without_seconds_cannot_be_judged():
    empty = Report.of([Period(0, {names.REQUESTS: 10})])
    assert paired.Duel(empty, empty).seconds == 0
    assert paired.Duel(empty, empty).quantile(0.5).lacking


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_lowers_no_p_and_keeps_their_order(ps):
    found = paired.holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, found, strict=True))
    assert min(found) == min(1.0, min(ps) * len(ps))
    assert [found[i] for i in sorted(range(len(ps)), key=ps.__getitem__)] == sorted(found)


def test_holms_correction_by_hand():
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_duel_says_how_long_it_would_have_to_be_for_what_it_left_open():
    found = compare_paired(*sides(1.0, 3))
    p99 = row(found, TIMES[2])
    needed = paired.minutes_needed(p99.span.high - p99.span.low, 30)
    assert 0.5 < needed < 60
    (told,) = [note for note in found.notes if "Would need" in note]
    assert f"p99 about {np.ceil(needed):.0f} min" in told
    assert "this duel had 0.5 min" in told


def test_a_verdict_needs_no_longer_duel():
    found = compare_paired(*sides(1.5, 3, study.World("calm", burst_s=0.0, drift=0.0, load=0.0)))
    assert not any("Would need" in note for note in found.notes)


def test_four_times_the_precision_takes_sixteen_times_as_long():
    assert paired.minutes_needed(0.4, 60) == pytest.approx(16 * paired.minutes_needed(0.1, 60))
