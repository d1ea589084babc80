"""`loadgen plan`: from a report to a prediction, and one clear line for each mistake."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.sizing import queueing
from loadgen.sizing.measured import draw_s, variation, workload
from reports.formats.artillery_json import to_json
from reports.model import Extras, Period, Rate, Report, ReportError
from reports.sketch import Sketch
from reports.writers.output import STYLES
from tests.support.plan_command import plan, planned

RATE = 80
HOLD_MS = 10.0


def report(*, holds_ms=None, per_period=None, connects_ms=(2.0, 4.0), model="open", entries=None, failed=0):
    """100 s at 80 requests/s: exponential holds of 10 ms, 0.3 ms of the service's own, two connections opened."""
    rng = np.random.default_rng(1)
    counts = per_period or [775, 820, 790, 830, 811, 768, 795, 842, 774, 795]
    number = sum(counts)
    holds = rng.exponential(HOLD_MS, number) if holds_ms is None else holds_ms
    connects = np.zeros(len(holds))
    connects[: len(connects_ms)] = connects_ms
    waits = rng.exponential(1.0, len(holds))
    sketches = {
        "server.pool": Sketch.of(waits),
        "server.connect": Sketch.of(connects),
        "server.db": Sketch.of(holds),
        "server.total": Sketch.of(waits + connects + holds + 0.3),
    }
    first, last = 0, 10_000 * len(counts)
    periods = tuple(
        Period(
            10_000 * i,
            {"http.requests": count},
            {"http.request_rate": Rate(count // 10, count, 10_000 * i, min(10_000 * (i + 1), last))},
        )
        for i, count in enumerate(counts)
    )
    kept = {name: sketch for name, sketch in sketches.items() if entries is None or name in entries}
    total = Period(
        first,
        {"http.requests": number, "http.codes.503": failed},
        sketches=kept,
        first_counter_ms=first,
        last_counter_ms=last,
    )
    return Report(total, periods, Extras("1", model))


def of_sketch(*, name="server.db", **values):
    """The report with other values of a sketch, by default that of holds."""
    document = json.loads(to_json(report()))
    document["poolbench"]["aggregate"]["sketches"][name].update(values)
    return json.dumps(document)


@pytest.fixture
def measured(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(to_json(report()))
    return path


# From a report to a workload


def test_a_workload_is_what_the_sketches_say():
    found = workload(report())
    assert found.rate_per_s == pytest.approx(RATE)
    assert found.holds.mean == pytest.approx(HOLD_MS, rel=0.05)
    assert found.connects.count == 2
    assert found.connects.mean == 3.0
    assert found.own_s == pytest.approx(0.0003, rel=0.01)
    assert found.doubts == ()


def test_answers_without_a_loan_are_asked_for_but_not_held():
    rng = np.random.default_rng(2)
    holds = np.where(rng.random(8000) < 0.25, 0.0, HOLD_MS)
    found = workload(report(holds_ms=holds, failed=np.count_nonzero(holds == 0)))
    assert found.rate_per_s == pytest.approx(RATE)
    assert found.holds.mean == pytest.approx(HOLD_MS)
    assert found.holds.count == np.count_nonzero(holds)
    assert found.doubts == ()


def test_answers_that_need_no_connection_are_no_part_of_the_workload():
    holds = np.zeros(8000)
    holds[:2000] = HOLD_MS
    found = workload(report(holds_ms=holds))
    assert found.rate_per_s == pytest.approx(RATE / 4)
    assert found.holds.count == 2000
    assert found.doubts == ()


@given(st.lists(st.floats(0.01, 10_000), min_size=1, max_size=200))
def test_samples_of_a_sketch_keep_its_mean_and_its_limits(values):
    sketch = Sketch.of(values)
    drawn_ms = draw_s(sketch, np.random.default_rng(1).random(500)) * 1000
    assert drawn_ms.min() >= 0.98 * min(values)
    assert drawn_ms.max() <= 1.02 * max(values)
    assert len(drawn_ms) == 500


def test_many_samples_of_a_sketch_have_its_quantiles_and_its_variation():
    values = np.random.default_rng(3).lognormal(1, 0.8, 50_000)
    sketch = Sketch.of(values)
    drawn_ms = draw_s(sketch, np.random.default_rng(4).random(100_000)) * 1000
    assert drawn_ms.mean() == pytest.approx(values.mean(), rel=0.01)
    for q in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(drawn_ms, q) == pytest.approx(np.quantile(values, q), rel=0.03)
    assert variation(sketch) == pytest.approx(values.var() / values.mean() ** 2, rel=0.02)


def test_arrivals_are_poisson_unless_the_periods_speak_against_it():
    rng = np.random.default_rng(5)
    by_chance = rng.poisson(800, 12).tolist()
    assert workload(report(per_period=by_chance)).arrival_variation == 1
    assert workload(report(per_period=[800, 801, 800] * 4)).arrival_variation < 0.01
    assert workload(report(per_period=[800, 801, 800])).arrival_variation == 1  # too few to tell


def test_a_rate_that_changed_is_no_law_of_arrivals_and_is_said():
    found = workload(report(per_period=[200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000]))
    assert found.arrival_variation == 1
    assert found.doubts == ("the rate changed during the run, from 40 to 180 requests/s: its mean is used (--rate)",)


def test_what_makes_a_run_doubtful_is_said():
    closed = report(holds_ms=np.full(50, 10.0), model="closed")
    partial = replace(closed, extras=replace(closed.extras, partial=True))
    assert workload(partial).doubts == (
        "a closed run: its rate is what its users reached, not what arrives (--rate)",
        "the run is partial",
        "only 50 loans were measured: the long holds are hardly known",
    )


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (report(entries=()), "no sketch of server.pool"),
        (report(entries=("server.pool",)), "no sketch of server.db"),
        (report(holds_ms=np.zeros(100), failed=100), "no connection was lent"),
    ],
)
def test_a_report_that_tells_of_no_loans_is_refused(given_, says):
    with pytest.raises(ReportError, match=says):
        workload(given_)


# The command


def test_each_size_is_predicted_from_the_measured_run(measured):
    found = planned(measured, "--servers", 1, "--sizes", "2,1,4", "--max-waiting", 1000)
    one, two, four = found["sizes"]
    assert [row["size"] for row in found["sizes"]] == [1, 2, 4]
    assert [row["connections"] for row in found["sizes"]] == [1, 2, 4]
    hold_s = found["workload"]["hold_mean_ms"] / 1000
    assert one["utilisation"] == pytest.approx(RATE * hold_s, rel=0.03)
    assert one["throughput_per_s"] == pytest.approx(RATE, rel=0.02)
    assert two["wait_mean_ms"] == pytest.approx(queueing.mmc_mean_wait_s(RATE, hold_s, 2) * 1000, rel=0.15)
    assert one["wait_p99_ms"] > two["wait_p99_ms"] > four["wait_p99_ms"]
    assert found["arrangement"]["wake_s"] == pytest.approx(0.0003, rel=0.01)


def test_servers_share_rate_and_database(measured):
    alone = planned(measured, "--servers", 1, "--sizes", "8", "--rate", 100)["sizes"][0]
    apart = planned(measured, "--servers", 4, "--sizes", "2", "--rate", 100)["sizes"][0]
    assert alone["connections"] == apart["connections"] == 8
    assert apart["wait_p99_ms"] > 2 * alone["wait_p99_ms"]
    busy = planned(measured, "--sizes", "10", "--rate", 180, "--db-cores", 2)["sizes"][0]
    assert busy["hold_mean_ms"] > 1.5 * HOLD_MS
    assert busy["db_busy"] == pytest.approx(0.9, rel=0.05)
    half = planned(measured, "--sizes", "10", "--rate", 180, "--db-cores", 2, "--db-cpu-ms", HOLD_MS / 2)["sizes"][0]
    assert half["hold_mean_ms"] < 1.1 * HOLD_MS


def test_above_the_capacity_the_rest_times_out_or_is_shed(measured):
    given_ = (measured, "--servers", 1, "--sizes", 1, "--rate", 150, "--requests", 30_000)
    timing_out = planned(*given_, "--timeout", 0.2, "--max-waiting", 1000)["sizes"][0]
    assert timing_out["shed"] == 0
    assert timing_out["timed_out"] == pytest.approx(1 / 3, abs=0.03)
    shedding = planned(*given_, "--timeout", 5)["sizes"][0]  # ten may wait
    assert shedding["timed_out"] == 0
    assert shedding["shed"] == pytest.approx(1 / 3, abs=0.03)
    assert shedding["formulas"]["lost"] == pytest.approx(1 / 3, abs=0.02)
    assert shedding["formulas"]["mmc_p99_ms"] is None


def test_the_smallest_size_that_is_good_enough_is_named(measured):
    given_ = (measured, "--servers", 1, "--sizes", "1-6", "--rate", 150, "--max-waiting", 1000, "--requests", 20_000)
    found = planned(*given_)
    best = found["sizes"][-1]["response_p99_ms"]
    good = [row["size"] for row in found["sizes"] if row["response_p99_ms"] <= 1.1 * best]
    assert found["recommended"] == good[0]
    assert 2 < good[0] < 6
    p99s = {row["size"]: row["response_p99_ms"] for row in found["sizes"]}
    assert planned(*given_, "--p99", p99s[2] + 1)["recommended"] == 2
    assert planned(*given_, "--p99", 1)["recommended"] is None
    assert plan(*given_, "--p99", 1).stdout.splitlines()[0] == "No size is within a p99 of 1 ms, at most 0.1 % lost."


def test_where_nothing_keeps_up_the_advice_says_what_is_lost(measured):
    given_ = (measured, "--servers", 1, "--sizes", "4-6", "--rate", 200, "--db-cores", 1)
    row = planned(*given_)["sizes"][0]
    assert row["formulas"]["db_load"] == pytest.approx(2, rel=0.05)
    assert row["formulas"]["lost"] == pytest.approx(0.5, abs=0.02)
    text = plan(*given_, "--explain").stdout
    assert re.search(
        r"^No size keeps up\. With a pool of 4 .* \(4 connections in all\), as good as any: p99 .* 5\d % refused\.$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^- size 6: load 20\d% of the database's cores: no steady state", text, re.MULTILINE)


def test_where_nothing_is_answered_in_time_no_size_is_called_as_good_as_the_best(measured):
    said = plan(measured, "--rate", 1e6, "--requests", 100).stdout
    assert said.startswith("No size keeps up: hardly any request is answered while the load lasts.")


def test_sizes_that_the_database_has_no_connections_for_are_left_out(measured):
    found = planned(
        measured, "--servers", 4, "--sizes", "1,3-5", "--max-connections", 19, "--max-overflow", 1, "--requests", 500
    )
    assert [row["size"] for row in found["sizes"]] == [1, 3]


def test_no_more_connections_are_advised_than_the_database_has(measured):
    asked = (measured, "--servers", 1, "--sizes", 2, "--rate", 260, "--requests", 5000)
    assert "To change first: more connections." in plan(*asked, "--max-connections", 40).stdout
    assert "To change first: cheaper statement." in plan(*asked, "--max-connections", 3).stdout


def test_hand_over_overflow_and_a_cold_start_have_an_effect(measured):
    given_ = (measured, "--servers", 1, "--sizes", 2, "--rate", 185)
    both = (planned(*given_, "--hand-over", law, "--max-waiting", 1000) for law in ("fifo", "barging"))
    fifo, barging = (found["sizes"][0] for found in both)
    assert barging["wait_p50_ms"] < fifo["wait_p50_ms"]
    overflowing = planned(*given_, "--max-overflow", 4, "--connect-ms", 5)["sizes"][0]
    assert overflowing["connections"] == 6
    assert overflowing["hold_mean_ms"] > HOLD_MS + 0.5
    cold = planned(*given_, "--cold", "--connect-ms", 1000, "--requests", 200)["sizes"][0]
    assert cold["wait_p99_ms"] > 500
    unlimited = planned(*given_, "--sizes", "0", "--max-overflow", -1)["sizes"][0]
    assert unlimited["connections"] is None
    assert unlimited["wait_p99_ms"] == 0


def test_the_text_is_the_advice_then_a_table_then_what_it_was_made_from(measured):
    done = plan(measured, "--sizes", "2,10", "--requests", 5000)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "Use a pool of 2 for each server (8 connections in all): the smallest size that is as good"
    )
    assert lines[0].endswith(" ms, none refused.")
    assert lines[2] == "To change first: smaller pool. A pool of 2 for each server does as well as 10."
    headings = [*("size", "connections", "wait p50 ms", "wait p99 ms", "gave up", "refused", "in use", "answered/s")]
    assert re.split("  +", lines[4]) == [*headings, "held ms", "response p99 ms"]
    assert [line.split()[:2] for line in lines[5:7]] == [["2", "8"], ["10", "40"]]
    assert lines[8].startswith(f"Measured in {measured}: 80 requests for a connection a second, held for ")
    assert lines[9].startswith(
        "Simulated: 80 requests/s (Poisson) at 4 servers, connections are lent in order of arrival,"
    )
    assert lines[10].startswith("The simulation's own error is at most ")


def test_sizes_that_do_equally_well_share_a_row(measured):
    lines = plan(measured, "--sizes", "2,20,30,40", "--rate", 500, "--requests", 2000).stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[5:7]] == ["2", "20 to 40"]
    assert "80 to 160" in lines[6]


def test_explain_says_where_formulas_and_simulation_differ(measured):
    done = plan(measured, "--servers", 1, "--sizes", "1,2", "--rate", 150, "--explain")
    assert done.exit_code == 0
    assert "p99: M/M/c" in done.stdout
    assert "- size 1: load 1" in done.stdout
    assert "no steady state, so no formula of waits" in done.stdout
    calm = plan(measured, "--servers", 1, "--sizes", "4", "--explain", "--wake-ms", 0)
    assert calm.stdout.endswith("They differ nowhere by more than 10% or 0.5 ms.\n")


def test_the_same_seed_gives_the_same_plan(measured):
    given_ = (measured, "--sizes", "1,3", "--requests", 3000)
    assert plan(*given_, "--seed", 7).stdout == plan(*given_, "--seed", 7).stdout
    assert plan(*given_, "--seed", 7).stdout.splitlines()[4:] != plan(*given_, "--seed", 8).stdout.splitlines()[4:]


def test_a_file_is_written_in_the_style_of_its_name(measured, tmp_path):
    out = tmp_path / "plan.json"
    done = plan(measured, "--sizes", "2", "--requests", 1000, "-o", out)
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(out.read_text())["sizes"][0]["size"] == 2


def test_every_format_says_the_same(measured):
    by_style = {
        style: plan(measured, "--sizes", "2,10", "--requests", 5000, "--explain", "--format", style).stdout
        for style in STYLES
    }
    document = json.loads(by_style.pop("json"))
    assert document["recommended"] == 2
    for text in by_style.values():
        assert (
            "Use a pool of 2 for each server (8 connections in all): the smallest size that is as good as the best."
            in text
        )
        assert "80 requests for a connection a second" in text
        assert "Allen and Cunneen" in text
        for size in document["sizes"]:
            assert f"{size['wait_p99_ms']:.2f}" in text
            assert f"{size['throughput_per_s']:.1f}" in text


def test_what_makes_a_plan_doubtful_goes_to_stderr(tmp_path):
    path = tmp_path / "bare.json"
    path.write_text(to_json(report(connects_ms=())))
    done = plan(path, "--sizes", "2", "--max-overflow", 1, "--db-cores", 1, "--requests", 1000)
    assert done.exit_code == 0
    assert "Warning: the measured holds kept 0.8 of 1 database cores busy" in done.stderr
    assert (
        "Warning: no connection was opened in the run: connecting is taken to cost nothing (--connect-ms)"
        in done.stderr
    )
    assert "Warning" not in done.stdout
    assert "0.3 ms is the service's part of that" in plan(path, "--sizes", "2", "--hand-over", "barging").stderr
    assert "part of that" not in plan(path, "--sizes", "2", "--hand-over", "barging", "--wake-ms", 1).stderr


def test_the_warnings_of_the_report_stand_above_the_plan(tmp_path):
    path = tmp_path / "warned.json"
    path.write_text(
        to_json(replace(report(), extras=Extras("1", "open", partial=True, warnings=("the\nCPU was busy",))))
    )
    done = plan(path, "--sizes", "2", "--requests", 1000)
    assert done.exit_code == 0
    above = done.stdout.partition("Measured in")[0]
    assert "Warning: the run did not reach its planned end" in above
    assert "Warning: the report warns: the CPU was busy" in above
    assert "Warning: the report warns: the CPU was busy" in done.stderr
    document = json.loads(plan(path, "--sizes", "2", "--requests", 1000, "--format", "json").stdout)
    assert document["cautions"] == ["the run did not reach its planned end", "the report warns: the CPU was busy"]


def overloaded(waits_ms):
    run = report()
    waits = Sketch.of(np.full(run.aggregate.sketches["server.db"].count, waits_ms))
    return replace(run, aggregate=replace(run.aggregate, sketches={**run.aggregate.sketches, "server.pool": waits}))


def late(by_ms):
    return replace(report(), extras=Extras("1", "open", generator={"start_lag_p99_ms": by_ms}))


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (late(11), "every run started its arrivals late (p99 up to 11 ms)"),
        (report(failed=4500), "4,500 of 8,000 requests failed"),
        (overloaded(326), "requests waited 326 ms for a connection and held it for"),
    ],
)
def test_no_plan_is_made_from_a_run_that_cannot_support_one(tmp_path, run, says):
    path = tmp_path / "unfit.json"
    path.write_text(to_json(run))
    done = plan(path, "--sizes", "2")
    assert (done.exit_code, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: {path}: no plan can be made from this run: {says}")


def queued_at_the_end(periods, waits_ms):
    """The report, with waits that are short on the whole and in the last periods as given."""
    run = report()
    pools = [np.full(800, 0.1)] * (10 - periods) + [np.full(800, waits_ms)] * periods
    each = [replace(p, sketches={"server.pool": Sketch.of(w)}) for p, w in zip(run.periods, pools, strict=True)]
    total = {**run.aggregate.sketches, "server.pool": Sketch.of(np.concatenate(pools))}
    return replace(run, periods=tuple(each), aggregate=replace(run.aggregate, sketches=total))


def test_no_plan_is_made_from_a_run_that_queued_in_the_end(tmp_path):
    path = tmp_path / "ramp.json"
    path.write_text(to_json(queued_at_the_end(2, 20)))
    done = plan(path, "--sizes", "2")
    assert (done.exit_code, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "for 20 s of it, requests waited for a connection for a long time" in line
    for run in (queued_at_the_end(1, 20), queued_at_the_end(2, 4)):
        path.write_text(to_json(run))
        assert plan(path, "--sizes", "2", "--requests", 1000).exit_code == 0


@pytest.mark.parametrize("run", [late(9), report(failed=200), overloaded(4)])
def test_a_plan_is_made_from_a_run_that_was_nearly_as_planned(tmp_path, run):
    path = tmp_path / "fit.json"
    path.write_text(to_json(run))
    assert plan(path, "--sizes", "2", "--requests", 1000).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sizes", "2,x"], "--sizes 2,x: must be whole numbers up to 10000"),
        (["--sizes", ""], "--sizes : must be whole numbers up to 10000"),
        (["--sizes", "9-2"], "--sizes 9-2: must be whole numbers up to 10000"),
        (["--sizes", "1-200"], "--sizes 1-200: at most 100 sizes at once"),
        (["--sizes", "5-9", "--max-connections", 10], "--max-connections 10: even size 5 needs 20 connections"),
        (["--max-overflow", "-1", "--max-connections", 10], "--max-connections cannot be kept with --max-overflow -1"),
        # The formulas would add up as many terms.
        (["--max-overflow", 10**12], "is not in the range -1<=x<=10000"),
        (["--max-waiting", 10**12], "is not in the range 0<=x<=1000000"),
        (["--statements", 0], "is not in the range 1<=x<=1000"),
        (["--measured-servers", 0], "is not in the range 1<=x<=10000"),
        (["--sizes", "0"], "--sizes 0: to a pool, 0 means no limit"),
        (["--sizes", "0,5", "--max-overflow", "5"], "--sizes 0: to a pool, 0 means no limit"),
        (["--sizes", "9" * 5000], "must be whole numbers up to 10000"),
        (["--sizes", "3-"], "must be whole numbers up to 10000"),
        (["--db-cpu-ms", "1"], "--db-cpu-ms has no effect without --db-cores"),
        (["--rate", "0"], "--rate"),
        (["--rate", "inf"], "--rate"),
        (["--timeout", "nan"], "--timeout"),
        (["--servers", "0"], "--servers"),
        (["--hand-over", "lifo"], "--hand-over"),
        (["-o", "/no/such/folder/plan.json"], "cannot write /no/such/folder/plan.json"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(measured, arguments, says):
    done = plan(measured, *arguments)
    assert done.exit_code == 2
    assert says in done.stderr.splitlines()[-1]
    assert done.stderr.count("Error:") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("nothing of the kind", "no report that can be read"),
        (to_json(report(entries=())), "no sketch of server.pool: a plan needs"),
        (to_json(report())[:5000], "not JSON"),
        (to_json(report())[:-2], "not JSON"),
        (to_json(Report(Period(0), (), Extras("1", "open"))), "it made no requests"),
        (to_json(report(entries=(), failed=7000)), "7,000 of 8,000 requests failed"),
        ('{"curves": [{"target_p99_ms": 5, "settled": true, "sizes": []}]}', "it is a result of loadgen sweep"),
        *((of_sketch(sum=value), "the sketch server.db contradicts itself") for value in (-5.0, 0.0, 1e9)),
        (of_sketch(min=-1.0), "the sketch server.db contradicts itself"),
        (of_sketch(max=1e-9), "the sketch server.db contradicts itself"),
        (of_sketch(counts=[], zero_count=0), "no sketch of server.db"),
        (of_sketch(name="server.pool", counts=[], zero_count=0), "no sketch of server.pool"),
        (of_sketch(sum=float("nan")), "NaN is no JSON number"),
    ],
)
def test_an_unreadable_report_gives_one_line_that_names_the_file(tmp_path, content, says):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    done = plan(path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {path}")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_simulations_own_error_shrinks_with_its_requests(measured):
    few, many = (
        planned(measured, "--servers", 1, "--sizes", 2, "--rate", 140, "--requests", number)["sizes"][0]
        for number in (2000, 100_000)
    )
    assert 0 < many["wait_mean_error_ms"] < few["wait_mean_error_ms"]
    assert 0 < many["response_p99_error_ms"] < few["response_p99_error_ms"]
