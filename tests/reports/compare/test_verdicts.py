"""Whole comparisons with known truth: a small version of the study whose tables stand in docs/statistics.md."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import duel as duels
from benchmarks import verdicts as study
from reports import names
from reports.compare.diff import Criteria, compare, compare_runs
from reports.compare.gates import Gate
from reports.formats.published import published
from reports.model import Extras, Period, Rate, Report, Summary

REPEATS = 12
QUIET = study.World("calm", periods=12, rate=20, period_deviation=0.02)


def runs_of(world, count, seed=1):
    rng = np.random.default_rng(seed)
    return [study.report(world, rng) for _ in range(count)]


def row(diff, name):
    return next(r for r in diff.rows if r.name == name)


def at_most(share, of):
    """Three standard deviations above: a right program fails one time in 700."""
    return share + 3 * np.sqrt(share * (1 - share) / of)


@pytest.mark.parametrize("world", [w for w in study.QUICK if w.runs == 1][::4], ids=lambda w: w.name)
def test_one_run_a_side_seldom_raises_a_false_alarm(world):
    diffs = study.comparisons(world, 1.0, REPEATS)

    assert study.share([study.called(diff) for diff in diffs]) <= at_most(world.level, REPEATS)


@pytest.mark.parametrize("world", [w for w in study.SEVERAL_RUNS if w.runs in (2, 3)][::2], ids=lambda w: w.name)
def test_few_runs_a_side_seldom_raise_a_false_alarm(world):
    diffs = study.comparisons(replace(world, rate=20), 1.0, REPEATS)

    assert study.share([study.called(diff) for diff in diffs]) <= at_most(world.level, REPEATS)


@pytest.mark.slow
def test_reports_without_our_key_seldom_raise_a_false_alarm():
    world = next(w for w in study.ONE_RUN if not w.sketches)
    diffs = study.comparisons(replace(world, rate=20), 1.0, 40)

    assert study.share([study.called(diff) for diff in diffs]) <= at_most(world.level, 40)


@pytest.mark.parametrize("periods", [11, 12])
def test_the_interval_of_one_run_a_side_holds_the_truth_where_runs_differ_as_is_supposed(periods):
    world = replace(QUIET, periods=periods, run_deviation=0.05)
    spans = [row(diff, study.MEDIAN).span for diff in study.comparisons(world, 1.0, 20)]

    assert sum(span.low <= 0 <= span.high for span in spans) >= 16


def test_a_quantile_beyond_nearly_all_samples_cannot_be_judged():
    found = next(iter(study.comparisons(study.World("", periods=12, load=0.95), 1.2, 1)))

    assert row(found, f"{names.RESPONSE_TIME}.p999").verdict == "cannot be judged"


def test_a_fifth_is_found_by_five_runs_a_side_that_differ_by_2_percent():
    world = next(w for w in study.SEVERAL_RUNS if w.runs == 5 and w.run_deviation == 0.02)
    diffs = list(study.comparisons(world, 1.2, REPEATS))

    assert study.share([study.called(diff, study.MEDIAN) for diff in diffs]) == 1
    assert study.share([study.called(diff, study.P99) for diff in diffs]) >= 0.8


@pytest.mark.parametrize("runs", [4, 5, 6])
def test_doubled_times_are_worse_although_the_rate_is_the_same_in_all_runs(runs):
    world = replace(QUIET, periods=3, run_deviation=0.02)

    found = compare_runs(runs_of(world, runs), runs_of(replace(world, factor=2.0), runs, seed=2))

    assert row(found, study.P99).verdict == row(found, study.MEDIAN).verdict == "worse"
    assert not Gate.parse("p99 worse").check(found).met


def test_one_run_a_side_says_that_the_runs_differ_and_how_many_runs_would_tell():
    long = replace(QUIET, periods=30, rate=50)
    (old,), (new,) = runs_of(long, 1), runs_of(replace(long, factor=1.1), 1, seed=2)

    unsure = row(compare(old, new), study.MEDIAN)
    assert (unsure.verdict, unsure.runs_differ) == ("no clear change", True)
    notes = " ".join(compare(old, new).notes)
    assert "These two runs differ by more than chance within them" in notes and "runs a side would tell" in notes
    assert row(compare(old, new, Criteria(run_deviation=0.0)), study.MEDIAN).verdict == "worse"


def test_every_period_above_every_one_of_the_other_run_is_a_change_although_the_run_sinks():
    calm, sinking = (replace(QUIET, periods=p, drift=d, sketches=False) for p, d in ((20, 0.0), (40, 4.0)))
    (old,), (new,) = runs_of(calm, 1), runs_of(replace(sinking, factor=1.5), 1)

    assert row(compare(old, new), study.MEDIAN).verdict == "worse"


def test_a_run_with_failures_is_compared_with_a_published_one_that_counts_answers_alone():
    counters = {"http.requests": 18000, "http.codes.200": 6000, "http.codes.500": 12000}
    times = Summary(min=2.0, max=9000.0, count=18000, mean=2100.0, p50=1500.0, p95=6500.0, p99=7866.0)
    found = compare(published("A.pool10"), Report(Period(0, counters, {}, {"http.response_time": times})))

    assert [row(found, name).verdict for name in ("errors", study.P99)] == ["worse", "worse"]


# What is looked at beside chance


def test_the_rate_is_events_over_seconds_whatever_slices_the_clock_cuts():
    def run(offset_ms):
        events = np.arange(6000) * 10 + offset_ms
        periods = []
        for i in range(offset_ms // 10_000, int(events[-1]) // 10_000 + 1):
            here = events[(events >= i * 10_000) & (events < (i + 1) * 10_000)]
            first, last = int(here[0]), int(here[-1])
            rate = Rate(Rate.of(len(here), first, last).per_second)
            periods.append(
                Period(i * 10_000, {"http.requests": len(here)}, {"http.request_rate": rate},
                       first_counter_ms=first, last_counter_ms=last)
            )  # fmt: skip
        return Report.of(periods)

    found = row(compare(run(0), run(9_950)), "http.request_rate")

    assert (found.old, found.new) == (pytest.approx(100, rel=0.01), pytest.approx(100, rel=0.01))
    assert found.verdict == "no clear change"
    assert Gate.parse("rps < -5%").check(compare(run(0), run(9_950))).met


def test_a_tenth_of_a_millisecond_and_the_generators_own_lag_fail_no_gate():
    def run(pool_ms, lag_ms):
        summaries = {
            "http.response_time": Summary(count=9000, mean=15.0, p50=14.0),
            "server.pool": Summary(count=9000, mean=pool_ms, p50=pool_ms),
            "loadgen.start_lag": Summary(count=9000, mean=lag_ms, p50=lag_ms),
        }
        return Report(Period(0, {"http.requests": 9000}, {}, summaries))

    found = compare(run(0.1, 0.1), run(0.2, 8.0))

    assert Gate.parse("worse").check(found).met
    assert row(found, "loadgen.start_lag.mean").verdict == "not comparable"
    fine = compare(run(0.1, 0.1), run(0.2, 0.1), Criteria.parse(least_effect="0"))
    assert row(fine, "server.pool.mean").verdict in ("worse", "cannot be judged")
    assert "less than matters" not in row(fine, "server.pool.mean").reason


def test_runs_that_were_late_are_not_judged_and_pass_no_gate_by_a_verdict():
    extras = Extras("1.0", "open", generator={"start_lag_p99_ms": 326.0}, warnings=("arrivals started late",))
    late = [Report(run.aggregate, run.periods, extras) for run in runs_of(replace(QUIET, periods=2), 3)]
    fast = [
        Report(run.aggregate, run.periods, extras) for run in runs_of(replace(QUIET, periods=2, factor=0.5), 3, seed=2)
    ]

    found = compare_runs(late, fast)

    assert {r.verdict for r in found.rows} <= {"cannot be judged", "not comparable"}
    assert any("late" in warning for warning in found.warnings)
    assert "Warning of 3 of 3 old reports: arrivals started late" in found.warnings
    assert Gate.parse("worse").check(found).line == "NOT JUDGED: worse (no figure could be judged)"
    assert not Gate.parse("p99 worse").check(found).met


def test_other_scripts_targets_and_machines_are_told():
    def run(**environment):
        return Report(Period(0), extras=Extras("1.0", "open", environment=environment))

    machine = {"cores": 2, "memory_mb": 1000, "system": "Linux"}
    old = run(script="a", target="http://a", cpu="one", **machine)
    new = run(script="b", target="http://b", cpu="two", **machine)

    warnings = " ".join(compare(old, new).warnings)

    assert all(f"different {what}" in warnings for what in ("scripts", "targets", "machines"))
    assert "different" not in " ".join(compare(old, old).warnings)


@pytest.mark.parametrize("text", ["", "5", "x%", "-5%", "5%,5%", "100%", "1s"])
def test_a_run_deviation_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--run-deviation"):
        Criteria.parse(run_deviation=text)


def test_criteria_are_read_as_they_are_written():
    assert Criteria.parse() == Criteria()
    assert Criteria.parse("2.5%", "0.5ms") == Criteria(0.025, 0.5, 0.0)
    assert Criteria.parse("0", "0") == Criteria(0.0, 0.0, 0.0)


def test_the_page_shows_every_world_of_the_study():
    page = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text("utf-8")
    rows = [
        line.split("|")[1:4] for line in page.split(study.BEGINS)[1].split(study.ENDS)[0].splitlines() if "x" in line
    ]

    shown = [(name.strip(), int(runs)) for name, runs, _ in rows if runs.strip().isdigit()]
    assert shown == [(world.name, world.runs) for world in (*study.ONE_RUN, *study.SEVERAL_RUNS)]


def test_rows_of_the_study_take_the_place_of_those_about_the_same_worlds():
    page = "| a | 3 | 1 x 60 s | 10 | 5% | 6.0% |\n| a | 2 | 1 x 60 s | 10 | 5% | 2.0% |\n"
    row = "| a | 3 | 1 x 60 s | 10 | 5% | 3.0% |"
    assert study.with_rows(page, [row, ""]) == page.replace("6.0%", "3.0%")
    with pytest.raises(ValueError, match="no row about"):
        study.with_rows(page, [row.replace("a", "b")])


def test_short_runs_beside_bursts_differ_and_say_nothing_of_the_versions():
    rng = np.random.default_rng(5)
    world = duels.World("", seconds=30)
    found = [duels.one_after_the_other(world, 1.0, rng) for _ in range(25)]

    assert sum(duels.called(diff) for diff in found) <= 2
    short = [row for diff in found for row in diff.rows if row.runs_differ]
    assert short
    assert {r.verdict for r in short} <= {"cannot be judged", "better", "worse"}
    assert any("cannot be told from a burst" in r.reason for r in short)


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "no clear change"), (2, "cannot be judged"), (20, "worse")])
def test_totals_alone_tell_of_a_change_of_several_times_only(factor, verdict):
    def run(by):
        times = Summary(count=9000, min=1.0 * by, max=90.0 * by, mean=15.0 * by, p50=14.0 * by, p95=30.0 * by)
        return Report(Period(0, {"http.requests": 9000}, {}, {"http.response_time": times}))

    assert row(compare(run(1), run(factor)), "http.response_time.median").verdict == verdict


def test_a_gate_by_a_verdict_does_not_pass_where_the_new_side_lacks_the_figure():
    found = compare(Report(Period(0, summaries={"t": Summary(p99=5.0)})), Report(Period(0)))

    assert Gate.parse("t.p99 worse").check(found).line.startswith("NOT JUDGED: t.p99 worse")
    assert not Gate.parse("t.p99 worse").check(found).met
