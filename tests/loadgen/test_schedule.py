"""Arrivals, against the arithmetic of Artillery's laws."""

from itertools import pairwise
from math import floor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.schedule import arrivals, distortion, expected_users, highest_rate, lasting, spans
from loadgen.script.model import Phase

MS = 1_000_000
S = 1000 * MS


def phase(duration_s=1.0, **law):
    return Phase(index=law.pop("index", 0), name=None, duration_s=duration_s, duration_text="", **law)


def offsets(*phases):
    return [at for at, _ in arrivals(phases, Random(1))]


def test_the_first_arrival_comes_after_one_interval_and_the_last_at_the_end():
    assert offsets(phase(arrival_rate=4)) == [250 * MS, 500 * MS, 750 * MS, S]


@pytest.mark.parametrize("seconds", [60, 7.3, 614.0])
def test_phases_made_to_last_keep_their_rates_and_do_not_take_longer(seconds):
    plan = [
        phase(11, arrival_rate=1, ramp_to=100),
        phase(600, arrival_rate=100),
        phase(2, arrival_count=8),
        phase(1, pause=True),
        phase(5, arrival_count=0),
    ]
    found = lasting(plan, seconds)
    assert seconds * S * 0.99 <= spans(found)[-1].end_ns <= seconds * S + len(plan)
    at = offsets(*found)
    assert max(sum(start <= a < start + S for a in at[7 * i : 7 * i + 200]) for i, start in enumerate(at[::7])) <= 101
    factor = seconds / 614
    assert len(at) == pytest.approx(factor * (11 * 50.5 + 600 * 100 + 8), abs=4)


def test_phases_that_take_no_time_cannot_be_made_to_last():
    with pytest.raises(ValueError, match="no time"):
        lasting([phase(0, pause=True), phase(5, arrival_count=0)], 60)


def test_an_arrival_count_is_spread_evenly_over_its_duration():
    assert offsets(phase(2, arrival_count=4)) == [S // 2, S, 3 * S // 2, 2 * S]


def test_an_arrival_count_wins_over_a_rate():
    assert len(offsets(phase(1, arrival_count=2, arrival_rate=50))) == 2


def test_a_ramp_climbs_in_whole_second_stairs_rounded_half_up():
    at = offsets(phase(4, arrival_rate=1, ramp_to=8))
    per_second = [sum(1 for a in at if i * S < a <= (i + 1) * S) for i in range(4)]
    assert per_second == [1, 3, 6, 8]  # 1, 3.33, 5.67, 8
    assert at[:4] == [S, S + 333 * MS, S + 666 * MS, S + 999 * MS]  # spaced floor(1000 / n) ms


def test_a_ramp_of_one_second_starts_the_mean_at_once():
    assert offsets(phase(1, arrival_rate=1, ramp_to=4)) == [0, 0, 0]  # 2.5 rounds up


def test_a_falling_ramp_ends_with_silence():
    at = offsets(phase(3, arrival_rate=4, ramp_to=0))
    assert [sum(1 for a in at if i * S < a <= (i + 1) * S) for i in range(3)] == [4, 2, 0]


@pytest.mark.parametrize(("length_s", "low", "high", "per_second"), [
    (2.5, 1, 5, [1, 4, 6]),  # 1, 3.67, 6.33: one step takes 1.5 s
    (1.5, 2, 4, [2, 6]),
    (0.5, 3, 9, [3]),
    (2.5, 5, 1, [5, 2, 0]),  # 5, 2.33, -0.33
])  # fmt: skip
def test_a_ramp_of_fractional_length_goes_on_climbing_in_its_last_second(length_s, low, high, per_second):
    at = offsets(phase(length_s, arrival_rate=low, ramp_to=high))
    assert [sum(1 for a in at if i * S < a <= (i + 1) * S) for i in range(len(per_second))] == per_second


def test_a_pause_delays_what_follows():
    assert offsets(phase(3, pause=True), phase(1, arrival_count=1, index=1)) == [4 * S]


def test_rates_below_one_follow_the_same_law():
    assert offsets(phase(4, arrival_rate=0.5)) == [2 * S, 4 * S]


def test_intervals_are_floored_to_microseconds_and_so_the_count_may_exceed_rate_times_duration():
    assert len(offsets(phase(30, arrival_rate=600))) == 30_000_000 // 1666


def test_a_uniform_phase_ends_at_its_last_arrival():
    first, second = spans([phase(1, arrival_rate=3), phase(1, arrival_rate=1, index=1)])
    assert first.end_ns == second.start_ns == 999_999_000


def test_a_ramp_lasts_for_its_duration():
    assert spans([phase(3, arrival_rate=0, ramp_to=1)])[0].end_ns == 3 * S


def test_a_poisson_phase_has_its_rate_in_the_mean_and_exponential_gaps():
    at = offsets(phase(200, arrival_rate=50, poisson=True))
    gaps = [b - a for a, b in pairwise(at)]
    mean = sum(gaps) / len(gaps)
    assert len(at) == pytest.approx(10_000, rel=0.05)
    assert mean == pytest.approx(20 * MS, rel=0.05)
    assert sum(1 for gap in gaps if gap > mean) / len(gaps) == pytest.approx(0.368, abs=0.03)  # 1 / e


@pytest.mark.parametrize(("low", "high"), [(0, 100), (100, 0), (20, 80), (50, 50)])
def test_a_smooth_ramp_follows_its_rate_at_every_instant(low, high):
    at = offsets(phase(10, arrival_rate=low, ramp_to=high, smooth=True))
    assert len(at) == (low + high) * 5
    for second in range(1, 11):
        integral = low * second + (high - low) * second**2 / 20
        assert sum(1 for each in at if each <= second * S) == pytest.approx(integral, abs=1)


def test_a_smooth_ramp_of_poisson_arrivals_climbs_and_is_irregular():
    at = offsets(phase(100, arrival_rate=0, ramp_to=100, poisson=True, smooth=True))
    assert len(at) == pytest.approx(5000, rel=0.06)
    assert sum(1 for each in at if each < 50 * S) == pytest.approx(1250, rel=0.12)
    gaps = [b - a for a, b in pairwise(at[-1000:])]
    mean = sum(gaps) / len(gaps)
    assert sum(1 for gap in gaps if gap > mean) / len(gaps) == pytest.approx(0.368, abs=0.06)


def test_a_smooth_ramp_lasts_for_its_duration():
    assert spans([phase(2.5, arrival_rate=0, ramp_to=8, smooth=True)])[0].end_ns == 2.5 * S


def test_a_ramp_whose_seconds_come_in_bursts_is_told():
    told = distortion([phase(10, arrival_rate=1, ramp_to=501)])
    assert "its second of 501 arrivals sends them at 1000 per second, and then nothing for 0.5 s" in told
    assert distortion([phase(10, arrival_rate=1, ramp_to=501, smooth=True)]) is None
    assert distortion([phase(10, arrival_rate=1, ramp_to=90)]) is None
    assert "of 501 arrivals" in distortion([phase(10, arrival_rate=501, ramp_to=0)])
    assert distortion([phase(2, arrival_count=501, ramp_to=3)]) is None
    assert distortion([phase(9, pause=True), phase(9, concurrency=501)]) is None


def test_a_ramp_of_one_second_is_told_to_come_all_at_once():
    told = distortion([phase(10, arrival_rate=5), phase(1, arrival_rate=1, ramp_to=2001)])
    assert (
        told == "the ramp of one second is Artillery's: its 1001 arrivals come all at once; --arrivals uniform is even"
    )
    assert distortion([phase(1, arrival_rate=1, ramp_to=2001, smooth=True)]) is None
    assert distortion([phase(1, arrival_rate=1, ramp_to=20)]) is None


@pytest.mark.parametrize(
    ("law", "rate"),
    [
        ({"arrival_rate": 5, "ramp_to": 90}, 90),
        ({"arrival_rate": 90, "ramp_to": 5}, 90),
        ({"duration_s": 2, "arrival_count": 90, "ramp_to": 1000}, 45),
        ({"duration_s": 0.001, "arrival_count": 90}, 90),
        ({"concurrency": 90}, 0),
        ({"pause": True}, 0),
    ],
)
def test_the_highest_rate_of_a_plan_is_known(law, rate):
    assert highest_rate([phase(**law)]) == rate
    assert highest_rate([phase(**law), phase(arrival_rate=1000)]) == 1000
    assert highest_rate([]) == 0


laws = st.one_of(
    st.builds(
        phase,
        st.integers(1, 20).map(float),
        arrival_rate=st.integers(0, 300),
        ramp_to=st.integers(0, 300),
        smooth=st.just(True),
        poisson=st.booleans(),
    ),
    st.builds(phase, st.integers(1, 20).map(float), arrival_rate=st.floats(0.1, 400)),
    st.builds(phase, st.integers(1, 20).map(float), arrival_count=st.integers(0, 400)),
    st.builds(phase, st.integers(1, 20).map(float), arrival_rate=st.integers(0, 300), ramp_to=st.integers(0, 1500)),
    st.builds(phase, st.integers(1, 20).map(float), pause=st.just(True)),
    st.builds(phase, st.integers(1, 5).map(float), arrival_rate=st.floats(0.1, 100), poisson=st.just(True)),
)


@given(st.lists(laws, max_size=4))
def test_the_plan_never_goes_back_and_stays_within_its_phases(phases):
    indexed = [Phase(**{**_fields(p), "index": i}) for i, p in enumerate(phases)]
    limits = spans(indexed)
    before = 0
    for at, index in arrivals(indexed, Random(3)):
        assert at >= before
        assert limits[index].start_ns <= at <= limits[index].end_ns
        before = at


@given(st.integers(1, 60), st.integers(1, 2000))
def test_the_count_of_a_rate_is_its_integral_within_the_floor_of_the_interval(duration_s, rate):
    exact = floor(duration_s * 1_000_000 / floor(1_000_000 / rate))
    assert abs(len(offsets(phase(float(duration_s), arrival_rate=rate))) - exact) <= max(1, exact // 1000)


def _fields(law):
    return {name: getattr(law, name) for name in Phase.__dataclass_fields__}


def test_the_expected_users_of_a_plan_are_those_that_arrive():
    phases = (
        Phase(0, None, 10, "10", arrival_rate=5),
        Phase(1, None, 10, "10", arrival_rate=0, ramp_to=20),
        Phase(2, None, 3, "3", arrival_count=7),
        Phase(3, None, 9, "9", pause=True, arrival_rate=9),
    )
    planned = sum(1 for _ in arrivals(phases, Random(1)))
    assert expected_users(phases) == 50 + 100 + 7
    assert abs(planned - expected_users(phases)) <= 10
