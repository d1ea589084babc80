"""The recorder: every event in the period of its own instant, under its own name, none lost."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen import recorder as module
from loadgen.clock import WallOffset, now_ns
from loadgen.http.exchange import EXAMINED, LATER, STAMPED
from loadgen.recorder import Recorder, server_timing
from reports.sketch import Sketch
from tests.support.exchanges import FixedWall, answer, filed

PERIOD_NS = 10_000_000_000


def test_an_answer_counts_under_artillerys_names():
    recorder = Recorder(FixedWall())
    recorder.request(5 * PERIOD_NS)
    filed(recorder, answer(5 * PERIOD_NS + 3_000_000, waited_ns=2_500_000))
    filed(recorder, answer(5 * PERIOD_NS + 4_000_000, status=404))
    total = recorder.report().aggregate
    assert total.counters == {
        "http.requests": 1, "http.codes.200": 1, "http.codes.404": 1, "http.responses": 2, "http.downloaded_bytes": 10,
    }  # fmt: skip
    assert total.summaries["http.response_time"].max == 2.5
    assert total.summaries["http.response_time.2xx"].count == total.summaries["http.response_time.4xx"].count == 1


def test_a_plain_answer_counts_for_its_endpoint_at_once():
    """Others may be redirects: they count when they turn out to be final."""
    recorder = Recorder(FixedWall())
    endpoint = recorder.endpoint("/a")
    for n in range(module._FLUSH_ROWS + 10):
        filed(recorder, answer(5 * PERIOD_NS + n, status=200 + n % 2), endpoint=endpoint)
    filed(recorder, answer(6 * PERIOD_NS, status=302), endpoint=endpoint)
    total = recorder.report().aggregate
    assert total.counters["plugins.metrics-by-endpoint./a.codes.201"] == (module._FLUSH_ROWS + 10) // 2
    assert total.counters["http.codes.302"] == 1
    assert "plugins.metrics-by-endpoint./a.codes.302" not in total.counters


def test_request_answer_and_body_may_fall_into_three_periods():
    recorder = Recorder(FixedWall())
    recorder.request(PERIOD_NS - 1)
    filed(recorder, answer(2 * PERIOD_NS - 1, last_ns=2 * PERIOD_NS + 1))
    periods = recorder.report().periods
    assert [set(p.counters) for p in periods] == [
        {"http.requests"}, {"http.codes.200", "http.responses"}, {"http.downloaded_bytes"},
    ]  # fmt: skip
    assert [p.start_ms for p in periods] == [0, 10_000, 20_000]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4 * PERIOD_NS), st.sampled_from([200, 301, 404, 503])), max_size=200))
def test_the_aggregate_is_the_sum_of_the_periods(events):
    recorder = Recorder(FixedWall())
    for at, status in events:
        recorder.request(at)
        filed(recorder, answer(at + 1_000_000, status=status))
    report = recorder.report()
    assert report.aggregate.counters.get("http.responses", 0) == len(events)
    for name, total in report.aggregate.counters.items():
        assert total == sum(p.counters.get(name, 0) for p in report.periods)
    for name, sketch in report.aggregate.sketches.items():
        assert sketch == Sketch.merged([p.sketches[name] for p in report.periods if name in p.sketches])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2 * PERIOD_NS), st.sampled_from([200, 404, 503])), max_size=200))
def test_the_seconds_of_a_period_add_up_to_it(events):
    recorder = Recorder(FixedWall())
    for at, status in events:
        recorder.request(at)
        filed(recorder, answer(at + 700_000_000, status=status, waited_ns=1 + at % 10**9))
    for period in recorder.report().periods:
        seconds = period.seconds
        assert [s.start_ms for s in seconds] == sorted({s.start_ms for s in seconds})
        assert all(period.start_ms <= s.start_ms < period.start_ms + 10_000 and s.start_ms % 1000 == 0 for s in seconds)
        assert sum(s.requests for s in seconds) == period.counters.get("http.requests", 0)
        assert sum(s.answers for s in seconds) == period.counters.get("http.responses", 0)
        times = Sketch.merged([s.response_time for s in seconds if s.response_time])
        assert times.count == sum(s.answers for s in seconds)
        if times.count:
            assert times.positive == period.sketches["http.response_time"].positive


def test_an_event_belongs_to_the_second_of_its_own_instant():
    recorder = Recorder(FixedWall())
    recorder.request(1_900_000_000)
    filed(recorder, answer(2_100_000_000, waited_ns=200_000_000))
    one, two = recorder.report().periods[0].seconds
    assert (one.start_ms, one.requests, one.answers, one.response_time) == (1000, 1, 0, None)
    assert (two.start_ms, two.requests, two.answers, two.response_time.max) == (2000, 0, 1, 200.0)


def test_errors_are_counted_in_their_second():
    wall = WallOffset()
    recorder = Recorder(wall)
    recorder.count("errors.ECONNRESET")
    recorder.count("errors.ETIMEDOUT", 2)
    recorder.count("vusers.failed")
    [period] = recorder.report().periods
    assert sum(second.errors for second in period.seconds) == 3


def test_a_counter_given_many_different_amounts_is_one_counter():
    recorder = Recorder(WallOffset())
    for amount in range(3000):
        recorder.count("bytes", amount)
    recorder.count("a later one")
    for amount in (0, 1, 5):
        recorder.count("errors.own", amount)
    total = recorder.report().aggregate.counters
    assert total == {"bytes": 3000 * 2999 // 2, "a later one": 1, "errors.own": 6}
    assert recorder.errors == 6


def test_beyond_the_most_counters_amounts_are_dropped_and_those_of_errors_counted_together():
    recorder = Recorder(WallOffset())
    for number in range(module._NAMES_MAX):
        recorder.count(f"c{number}", number)
    for amount in (1, 7, 0):
        recorder.count("one too many", amount)
        recorder.count("errors.One of too many", amount)
        recorder.count("c5", amount)
    total = recorder.report().aggregate.counters
    assert len(total) == module._NAMES_MAX + 2
    assert (total["loadgen.dropped"], total["errors.TOO_MANY_DIFFERENT_ERRORS"], total["c5"]) == (6, 8, 13)


def test_answers_of_429_are_counted_in_their_second():
    recorder = Recorder(FixedWall())
    for at_s, status in ((5.0, 429), (5.9, 429), (5.95, 200), (7.1, 429)):
        filed(recorder, answer(int(at_s * 1e9), status=status))
    recorder.report()
    assert recorder.turned_away == {5: 2, 7: 1}


def test_flushing_in_between_changes_nothing(monkeypatch):
    rng = random.Random(1)
    events = [(rng.randrange(3 * PERIOD_NS), rng.choice([200, 500]), rng.randrange(1, 10**9)) for _ in range(500)]

    def run(rows):
        monkeypatch.setattr(module, "_FLUSH_ROWS", rows)
        recorder = Recorder(FixedWall())
        for at, status, waited in events:
            recorder.request(at)
            filed(recorder, answer(at + 1, status=status, waited_ns=waited))
        total = recorder.report().aggregate
        return total.counters, total.rates, {name: s.positive for name, s in total.sketches.items()}

    assert run(7) == run(10_000)


def test_the_rate_is_of_the_first_to_the_last_request_in_its_period():
    recorder = Recorder(FixedWall())
    for k in range(8):
        recorder.request(k * 500_000_000)
    assert recorder.report().periods[0].rates["http.request_rate"].per_second == 2  # 8 / 3.5 s


def test_metrics_that_artillery_does_not_know_leave_its_instants_alone():
    recorder = Recorder(FixedWall())
    recorder.started(now_ns())
    assert recorder.report().aggregate.first_histogram_ms is None
    recorder.sample("own", 1.0)
    assert recorder.report().aggregate.first_histogram_ms is not None


def test_an_own_rate_is_counted_as_the_rate_of_requests_is():
    recorder = Recorder(FixedWall())
    for _ in range(3):
        recorder.rate("orders")
    (period,) = recorder.report().periods
    assert (period.rates["orders"].per_second, period.rates["orders"].count) == (3, 3)


def test_endpoints_have_times_and_codes_of_their_own():
    recorder = Recorder(FixedWall())
    one, two = recorder.endpoint("/a"), recorder.endpoint("/b (named)")
    assert recorder.endpoint("/a") == one
    recorder.endpoint_answer(one, answer(10, status=200))
    recorder.endpoint_answer(two, answer(20, status=500))
    total = recorder.report().aggregate
    assert total.counters == {
        "plugins.metrics-by-endpoint./a.codes.200": 1,
        "plugins.metrics-by-endpoint./b (named).codes.500": 1,
    }
    assert total.summaries["plugins.metrics-by-endpoint.response_time./a"].count == 1


def test_the_intended_time_runs_from_the_plan_to_the_last_byte():
    recorder = Recorder(FixedWall())
    filed(recorder, answer(8_000_000_000, last_ns=9_000_000_000), intended_ns=2_000_000_000)
    assert recorder.report().aggregate.summaries["http.response_time.intended"].max == 7000


def test_late_starts_are_counted():
    recorder = Recorder(WallOffset())
    recorder.started(now_ns())
    recorder.started(now_ns() - 50_000_000)
    total = recorder.report().aggregate
    assert total.counters["loadgen.late"] == 1
    assert total.summaries["loadgen.start_lag"].count == 2


def test_server_timing_becomes_metrics():
    recorder = Recorder(FixedWall())
    filed(recorder, answer(10, fields=b"server-timing: pool;dur=1.5, db;desc=x;dur=2, miss\r\n"))
    total = recorder.report().aggregate
    assert {name: s.max for name, s in total.summaries.items() if name.startswith("server.")} == {
        "server.pool": 1.5, "server.db": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("miss", []),
        ("db;dur=53, app;dur=47.2", [("db", 53.0), ("app", 47.2)]),
        ('cache;desc="Cache, Read";dur=23.2, db;dur=1', [("cache", 23.2), ("db", 1.0)]),
        (r'a;desc="x\", y;dur=9";dur=1, b;dur="2"', [("a", 1.0), ("b", 2.0)]),
        ('a;dur=1, b;desc="open, c;dur=2', [("a", 1.0)]),
        ('a b;dur=1, "c";dur=2, é;dur=3, ;dur=4, d;dur=5', [("d", 5.0)]),
        ('cache;desc="Cache Read";dur=23.2', [("cache", 23.2)]),
        ("a;DUR=1 ; x=y,b;dur=", [("a", 1.0)]),
        ("a;dur=nan,b;dur=inf,c;dur=-inf,d;dur=1e400,e;dur=" + "9" * 5000 + ",f;dur=2", [("f", 2.0)]),
    ],
)
def test_server_timing_is_read_as_the_standard_writes_it(text, found):
    assert list(server_timing(text)) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, 10**400])
def test_a_sample_that_is_no_sensible_number_is_left_out(value):
    """A processor may give anything, and one infinite value would spoil the whole distribution."""
    recorder = Recorder(WallOffset())
    recorder.sample("own", value)
    recorder.sample("own", 2)
    assert recorder.report().aggregate.summaries["own"].count == 1


def test_a_period_is_given_once_when_it_is_over():
    recorder = Recorder(WallOffset())
    recorder.request(now_ns() - 25_000_000_000)
    recorder.request(now_ns())
    assert len(list(recorder.over(0))) == 1
    assert not list(recorder.over(0))
    assert len(list(recorder.remaining())) == 1


def test_what_is_known_of_a_stamp_is_counted():
    recorder, found = Recorder(WallOffset()), answer(now_ns())
    file = recorder.answers()
    for known in (0, STAMPED, STAMPED | EXAMINED, STAMPED | EXAMINED | LATER):
        file(found.facts, found.written_ns, found.first_byte_ns, found.last_byte_ns, 0, 2, known, True)
    recorder.flush()
    assert (recorder.responses, recorder.stamped, recorder.examined, recorder.later_segment) == (4, 3, 2, 1)


def test_totals_while_running():
    recorder = Recorder(WallOffset())
    recorder.request(now_ns())
    filed(recorder, answer(now_ns()))
    recorder.count("errors.ECONNRESET", 2)
    recorder.flush()
    assert (recorder.requests, recorder.responses, recorder.errors, recorder.stamped) == (1, 1, 2, 1)


def test_sums_do_not_depend_on_the_arrays_width():
    recorder = Recorder(FixedWall())
    for _ in range(5000):
        filed(recorder, answer(1, body_bytes=2**40))
    assert recorder.report().aggregate.counters["http.downloaded_bytes"] == 5000 * 2**40
    assert np.iinfo(np.int64).max > 5000 * 2**40
