"""Which sizes a sweep measures and which it recommends, on curves that are known; and sweeps for real."""

import html
import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from math import exp, log2
from pathlib import Path
from random import Random

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from db.embedded import temporary_postgres
from loadgen.cli import cli
from loadgen.commands.sweep import megabytes, share, sizes
from loadgen.sizing.search import Goal, SizeLimits, SizeRun, choose, estimates, ladder, next_sizes
from loadgen.sizing.sweep_findings import (
    Curve,
    Sweep,
    limits_text,
    meets_targets,
    sentence,
    size_results,
    sweep_page,
)
from reports.blocks import amount
from reports.cli import BadInput
from reports.writers.output import STYLES, written
from tests.support.paths import EXAMPLES
from tests.support.server_process import descendants, read_until

SHOP = EXAMPLES / "shop"
LOADGEN = str(Path(sys.executable).with_name("loadgen"))
RATE = 600.0


def one(size, good_per_s, p99_ms):
    return SizeRun(
        size, good_per_s, max(0.0, 1 - good_per_s / RATE), p99_ms, p99_ms and p99_ms / 2, 0.3, 0.9, 3000, 4 * size
    )


def knee(needed, *, slow=10.0, growth=0.0):
    """A service that needs a given pool size: smaller pools answer too few requests too late; p99 grows with each larger size."""

    def at(size):
        if size < needed:
            return RATE * size / needed, 1000.0 * needed / size
        return RATE, slow * (1 + growth * (size - needed))

    return at


def searched(truth, among, goal, *, deviation=0.0, seed=0):
    """Everything measured until the search is content, and the batches."""
    rng, runs, batches = Random(seed), {}, []
    while batch := next_sizes(runs, among, goal):
        batches.append(batch)
        for size in batch:
            good, p99 = truth(size)
            runs.setdefault(size, []).append(one(size, good, p99 * rng.lognormvariate(0, deviation)))
    return runs, batches


ranges = st.tuples(st.integers(1, 10), st.integers(0, 60)).map(lambda ends: range(ends[0], ends[0] + ends[1] + 1))
some_sizes = st.one_of(ranges, st.sets(st.integers(1, 80), min_size=1, max_size=15).map(sorted))


@given(some_sizes, st.integers(1, 80), st.sampled_from([None, 50.0]))
def test_on_an_undisturbed_curve_the_answer_is_the_smallest_size_that_suffices(among, needed, target):
    runs, _ = searched(knee(needed), among, Goal(RATE, target))
    enough = [size for size in among if size >= needed]
    found = choose(estimates(runs), Goal(RATE, target))
    if enough:
        assert found.size == min(enough)
        assert found.reason == ("as good as the best" if target is None else "meets the target")
    else:
        assert knee(needed)(found.size)[0] >= 0.95 * knee(needed)(max(among))[0]
        assert found.reason == ("as good as the best" if target is None else "nothing meets the target")


@given(ranges, st.integers(1, 80))
def test_few_sizes_are_measured_instead_of_the_whole_grid(among, needed):
    runs, batches = searched(knee(needed), among, Goal(RATE, 50.0))
    assert len(runs) <= len(ladder(among)) + log2(len(among)) + 1
    assert sum(map(len, batches)) <= 2 * len(ladder(among)) + 3 * (log2(len(among)) + 2) + 3


@given(some_sizes, st.integers(1, 80), st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_the_search_ends_and_keeps_to_the_sizes_and_runs_allowed(among, needed, rounds, deviation, seed):
    goal = Goal(RATE, precision=0.02, max_rounds=rounds)
    runs, batches = searched(knee(needed), among, goal, deviation=deviation, seed=seed)
    assert set(runs) <= set(among)
    assert max(len(some) for some in runs.values()) <= rounds
    assert all(len(set(batch)) == len(batch) > 0 for batch in batches)


@given(st.integers(1, 40), st.integers(0, 999))
def test_noise_does_not_make_a_size_that_loses_requests_the_answer(needed, seed):
    runs, _ = searched(knee(needed), range(1, 41), Goal(RATE), deviation=0.15, seed=seed)
    assert choose(estimates(runs), Goal(RATE)).size >= needed


@given(st.integers(1, 20), st.floats(0.02, 0.5))
def test_where_more_connections_are_slower_the_answer_is_as_quick_as_the_best(needed, growth):
    truth = knee(needed, growth=growth)
    runs, _ = searched(truth, range(1, 41), Goal(RATE))
    found = choose(estimates(runs), Goal(RATE))
    assert found.size == needed
    assert truth(found.size)[1] <= 1.1 * min(truth(size)[1] for size in runs)


def test_a_size_is_repeated_until_it_is_known_as_precisely_as_asked():
    runs, _ = searched(knee(5), range(1, 41), Goal(RATE, precision=0.1, max_rounds=50), deviation=0.2)
    known = estimates(runs)
    found = choose(known, Goal(RATE))
    assert known[found.size].half_width <= 0.1
    assert known[found.size].runs > 4


def test_runs_that_agree_by_chance_are_not_taken_to_agree_always():
    runs = {1: [one(1, RATE, 100.0), one(1, RATE, 100.0)], 2: [one(2, RATE, 50.0), one(2, RATE, 200.0)]}
    assert estimates(runs)[1].half_width > 0.5


def test_single_runs_are_supposed_to_vary_and_still_tell_large_differences():
    runs = {1: [one(1, 300.0, 900.0)], 4: [one(4, 597.0, 15.0)], 8: [one(8, RATE, 14.0)]}
    assert 0.2 < estimates(runs)[8].half_width < 0.5
    assert choose(estimates(runs), Goal(RATE)).size == 4
    assert "assumed, not measured" in sentence(Curve(Goal(RATE), runs), SizeLimits(4, 100))


def test_where_one_size_answers_fewer_and_the_other_fails_more_that_which_answers_most_is_chosen():
    failing = SizeRun(20, RATE, 0.025, 30.0, 15.0, 0.3, 0.9, 3000, 80)
    late = SizeRun(2, 390.0, 0.0, 900.0, 450.0, 0.3, 0.9, 3000, 8)
    assert choose(estimates({2: [late], 20: [failing]}), Goal(RATE)).size == 20


def test_a_difference_of_less_than_the_precision_does_not_count():
    curve = {1: [one(1, RATE, 10.8)] * 9, 8: [one(8, RATE, 10.0)] * 9}
    assert choose(estimates(curve), Goal(RATE, precision=0.1)).size == 1
    assert choose(estimates(curve), Goal(RATE, precision=0.05)).size == 8


def test_failing_one_request_in_fifty_counts_however_little_is_known_of_the_rate():
    lossy = [one(1, 0.98 * RATE * factor, 5.0) for factor in (0.97, 1.0, 1.02)]
    sound = [replace(one(2, RATE * factor, 5.0), failed_share=0.0) for factor in (0.95, 1.0, 1.05)]
    curve = {1: lossy, 2: sound}
    assert choose(estimates(curve), Goal(RATE, 50.0)).size == 2
    text = sentence(Curve(Goal(RATE, 50.0), curve), SizeLimits(4, 100))
    assert "1 is too small" in text
    assert "% failed" in text


def test_losing_one_request_in_fifty_counts_whatever_the_precision():
    curve = {1: [one(1, RATE * 0.98, 10.0)] * 9, 8: [one(8, RATE, 10.0)] * 9}
    assert choose(estimates(curve), Goal(RATE, precision=0.5)).size == 8


def test_with_a_target_slower_but_quick_enough_is_good_enough():
    curve = {1: [one(1, RATE, 40.0)] * 3, 8: [one(8, RATE, 10.0)] * 3}
    assert choose(estimates(curve), Goal(RATE, 50.0)).size == 1
    assert choose(estimates(curve), Goal(RATE, 30.0)).size == 8
    none = choose(estimates(curve), Goal(RATE, 5.0))
    assert (none.size, none.reason) == (8, "nothing meets the target")


def test_one_size_in_the_time_given_is_no_answer():
    runs = {4: (SizeRun(4, 20.0, 0.0, 5.0, 0.1, 0.1, 0.1, 40, 4),)}
    ended = Curve(Goal(RATE), runs, "its time was up (--max-seconds)")
    limits = SizeLimits(4, 100)
    text = sentence(ended, limits)
    assert "No answer: one size was run in the time given" in text
    sweep = Sweep("app", "fair", limits, (1, 2, 4), 1.0, (ended,))
    page = written(sweep_page(sweep), "text")
    assert "(the answer)" not in page and "No answer: one size" in page
    assert not meets_targets(sweep)
    assert json.loads(written(sweep_page(sweep), "json"))["curves"][0]["answer"] is None


def test_nothing_is_recommended_where_nothing_was_answered():
    curve = Curve(Goal(RATE), {1: (one(1, 0.0, None),), 8: (one(8, 0.0, None),)})
    assert choose(estimates(curve.runs), curve.goal).reason == "nothing answers"
    assert "no request was answered" in sentence(curve, SizeLimits(4, 100))


@given(some_sizes)
def test_the_ladder_doubles_from_the_least_to_the_greatest(among):
    steps = ladder(among)
    assert (steps[0], steps[-1]) == (min(among), max(among))
    assert list(steps) == sorted(set(steps))
    assert all(b >= 2 * a for a, b in pairwise(steps[:-1]))


@given(st.integers(1, 8), st.integers(5, 300), st.integers(0, 5), st.floats(100, 4000), st.floats(0.5, 5))
def test_sizes_within_the_limits_fit_and_the_next_one_does_not(servers, connections, reserved, memory, each):
    limits = SizeLimits(servers, connections, reserved, memory, 160.0, each)
    allowed = limits.allowed(range(1, 500))
    assert allowed == tuple(range(1, len(allowed) + 1))
    for size in (len(allowed), len(allowed) + 1):
        fits = size * servers <= connections - reserved and 160.0 + size * servers * each <= memory + 1e-6
        assert fits == (size <= len(allowed)) or not size


def test_the_limits_of_the_example():
    limits = SizeLimits(4, 100, 3, 512.0, 161.0, 1.96)
    assert (limits.by_connections, limits.by_memory) == (24, 44)
    assert SizeLimits(4, 100, 3).by_memory is None


def test_on_a_database_of_ones_own_the_connections_that_may_be_used_are_a_limit():
    limits = SizeLimits(4, 100, 3, usable=42)
    assert limits.by_connections == 10
    assert limits_text(limits) == (
        "100 connections, of which 3 are reserved and 42 may be used, allow pools of up to 10"
    )
    # What all of them are limited to counts as well.
    assert SizeLimits(4, 30, 3, usable=42).by_connections == 6


@pytest.fixture
def found():
    goal = Goal(RATE, 50.0)
    runs, _ = searched(knee(6, slow=12.0, growth=0.01), range(1, 25), goal, deviation=0.05)
    curve = Curve(goal, {size: tuple(some) for size, some in sorted(runs.items())})
    environment = {"cpu": "a CPU", "cores": 2, "memory_mb": 100, "system": "Linux", "python": "3"}
    return Sweep(
        "a <shop>", "fair", SizeLimits(4, 100, 3, 512.0, 161.0, 1.9), range(1, 25), 5, [curve], environment, ["a note"]
    )


def test_the_answer_is_one_sentence_with_why(found):
    text = sentence(found.curves[0], found.limits)
    assert text.startswith(
        "600 users/s: use a pool of 6 (connections: 24, servers: 4). It is the smallest that meets the target"
    )
    assert "5 is too small: p99 1," in text
    assert meets_targets(found)


def test_a_neighbour_that_only_chance_may_speak_against_seems_too_small():
    curve = {1: [one(1, RATE, 40.0), one(1, RATE, 70.0)], 2: [one(2, RATE, 20.0), one(2, RATE, 35.0)]}
    assert "1 seems too small" in sentence(Curve(Goal(RATE, 50.0), curve), SizeLimits(4, 100))


def test_a_p99_far_within_the_target_needs_not_be_known_precisely():
    runs = {size: [one(size, RATE, 4.0), one(size, RATE, 7.0), one(size, RATE, 5.0)] for size in (1, 2, 4)}
    far, near = Goal(RATE, 100.0), Goal(RATE, 7.0)
    assert "use a pool of 1" in sentence(Curve(far, runs), SizeLimits(4, 100))
    assert next_sizes(runs, (1, 2, 4), far) == ()
    assert "not settled" in sentence(Curve(near, runs), SizeLimits(4, 100))
    assert 1 in next_sizes(runs, (1, 2, 4), near)


def test_an_answer_that_is_not_known_precisely_says_so():
    runs, _ = searched(knee(6), range(1, 25), Goal(RATE, max_rounds=2), deviation=0.5)
    text = sentence(Curve(Goal(RATE), runs, "its time was up (--max-seconds)"), SizeLimits(4, 100))
    assert "not settled" in text
    assert "not to the ±10% asked for" in text
    assert "its time was up" in text


def test_the_greatest_size_says_that_a_greater_one_may_be_better():
    runs, _ = searched(knee(100), range(1, 25), Goal(RATE))
    assert "largest size that the limits allow" in sentence(Curve(Goal(RATE), runs), SizeLimits(4, 100, 3))
    assert "largest size that was asked for" in sentence(Curve(Goal(RATE), runs), SizeLimits(1, 100, 3))


@pytest.mark.parametrize(
    ("wait_ms", "by_chance", "doubtful"), [(0.1, False, True), (0.1, True, False), (30.0, False, False)]
)
def test_a_size_that_users_at_even_distances_never_waited_for_is_doubtful(wait_ms, by_chance, doubtful):
    runs = {size: [replace(one(size, 10.0, 5.0), wait_p99_ms=wait_ms)] * 3 for size in (1, 2)}
    text = sentence(Curve(Goal(10.0, 50.0), runs, by_chance=by_chance), SizeLimits(1, 100))
    assert ("users came exactly every 100 ms" in text and "`mode: poisson`" in text) == doubtful


@pytest.mark.parametrize(("requests", "doubtful"), [(9, True), (100, False)])
def test_a_p99_of_fewer_than_a_hundred_requests_is_told_to_be_the_slowest(requests, doubtful):
    runs = {size: [replace(one(size, 10.0, 5.0), requests=requests)] * 3 for size in (1, 2)}
    text = sentence(Curve(Goal(10.0, 50.0), runs), SizeLimits(1, 100))
    assert (f"The p99 of so few requests ({requests}) is the time of the slowest one" in text) == doubtful


def test_a_sweep_is_told_as_values_as_a_table_and_as_a_page(found):
    document = json.loads(written(sweep_page(found), "json"))
    assert document["curves"][0]["answer"] == {"size": 6, "best": 6, "reason": "meets the target"}
    assert document["curves"][0]["settled"] is True
    row = next(row for row in document["curves"][0]["sizes"] if row["size"] == 6)
    assert row["connections"] == 24
    assert row["needed_mb"] == pytest.approx(161 + 24 * 1.9)
    assert row["p99_ms"]["low"] < row["p99_ms"]["value"] < row["p99_ms"]["high"]
    assert len(document["curves"][0]["runs"]) == sum(map(len, found.curves[0].runs.values()))
    text = written(sweep_page(found), "markdown")
    assert "| 6 (the answer) | 24 |" in text
    assert "Partial" not in text
    page = written(sweep_page(found), "html")
    assert "a &lt;shop&gt;" in page
    assert page.count('class="drawing"') == 4


def test_every_format_says_the_same(found):
    said = sentence(found.curves[0], found.limits)
    sizes = size_results(found.curves[0], found.limits)
    for style in STYLES:
        text = html.unescape(written(sweep_page(found), style)).replace("\\", "")
        assert said in text
        assert "a note" in text
        assert "of which 3 are reserved" in text
        for size in sizes:
            p99_ms = size.p99_ms.value
            assert (repr(p99_ms) if style == "json" else amount(p99_ms)) in text


def test_a_sweep_without_a_run_has_a_page_too(found):
    empty = Sweep("x", "fair", found.limits, [1], 5, [Curve(Goal(RATE))], found.environment, partial=True)
    assert json.loads(written(sweep_page(empty), "json"))["curves"][0]["settled"] is False
    for style in ("text", "markdown", "html"):
        assert "nothing was measured" in written(sweep_page(empty), style)
        assert "Partial" in written(sweep_page(empty), style)


def test_options_are_read():
    assert sizes("1-3, 10,2") == (1, 2, 3, 10)
    assert (megabytes("512MB"), megabytes("2 gb"), megabytes("100")) == (512, 2048, 100)
    assert (share("10%"), share("0.05")) == (0.1, 0.05)
    for parse, texts in (
        (sizes, ("0-3", "5-1", "a", "", "1-99999")),
        (megabytes, ("0", "x", "9" * 400)),
        (share, ("0", "x", "200%", "10")),
    ):
        for text in texts:
            with pytest.raises(BadInput, match=f" {text}:"):
                parse(text)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rate", "0"], "--rate 0"),
        (["--rate", "fast"], "--rate fast"),
        (["--rate", "5", "--app", "app:app"], "--script"),
        (["--rate", "5", "--memory", "512MB", "--database-url", "postgresql://h/d"], "--memory"),
        (["--rate", "5", "--script", "missing.yml"], "missing.yml"),
        (["--rate", "5", "--db-rtt", "x"], "--db-rtt"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_started(tmp_path, arguments, told):
    done = CliRunner().invoke(cli, ["sweep", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert [told in line for line in done.stderr.splitlines() if line.startswith("Error: ")] == [True]


def test_a_folder_that_cannot_be_made_is_named():
    done = CliRunner().invoke(cli, ["sweep", "--rate", "5", "--out", "/dev/null/out"])
    assert (done.exit_code, done.stderr) == (2, "Error: cannot write into /dev/null/out: Not a directory\n")


def command(out, *arguments):
    given = ("--servers", "1", "--seconds", "1", "--max-rounds", "1", "--out", str(out), *arguments)
    return [LOADGEN, "sweep", *given]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_service_is_swept_within_its_limits(tmp_path):
    out = tmp_path / "made" / "by it"
    arguments = ("--rate", "30", "--sizes", "2,5-40", "--max-connections", "8", "--memory", "512MB", "--p99", "4000")
    done = subprocess.run(command(out, *arguments), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "sweep.json").read_text())
    assert document["limits"]["size_by_connections"] == 5
    assert 0.5 < document["limits"]["per_backend_mb"] < 10
    curve = document["curves"][0]
    assert [row["size"] for row in curve["sizes"]] == [2, 5]
    assert curve["answer"]["size"] == 2
    assert all(row["good_per_s"]["value"] > 20 and row["failed_share"] == 0 for row in curve["sizes"])
    assert all(row["wait_p99_ms"] is not None and row["database_cpu"] > 0 for row in curve["sizes"])
    assert curve["sentence"] in done.stdout
    assert curve["sentence"] in (out / "sweep.md").read_text().replace("\\", "")
    assert "<svg" in (out / "sweep.html").read_text()
    assert (out / "sweep.svg").read_text().startswith("<svg ")
    assert "<svg" in (out / "index.html").read_text()
    settings = json.loads((out / "environment.json").read_text())["settings"]
    assert (settings["max_connections"], settings["goals"][0]["p99_ms"]) == (8, 4000)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ones_own_application_is_swept_on_a_given_database_and_ctrl_c_leaves_what_was_measured(
    postgres, start_process, tmp_path
):
    arguments = (
        "--app",
        "app:app",
        "--script",
        "load.yml",
        "--rate",
        "20",
        "--sizes",
        "1-4",
        "--database-url",
        postgres.url,
        "--yes",
    )
    process = start_process(command(tmp_path / "out", *arguments), cwd=SHOP)
    read_until(process.stderr, "run 1:")
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert "Partial" in stdout
    document = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert document["partial"] is True
    assert document["subject"] == "app:app under load.yml"
    assert document["curves"][0]["runs"][0]["good_per_s"] > 10
    assert document["curves"][0]["runs"][0]["database_cpu"] is None


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_size_is_run_that_ones_own_database_has_no_connections_for(tmp_path):
    with temporary_postgres(max_connections=20) as server:
        given = ("--app", "app:app", "--script", "load.yml", "--database-url", server.url, "--yes")
        arguments = (*given, "--rate", "20", "--sizes", "2,5-40", "-o", str(tmp_path / "found.json"))
        done = subprocess.run(
            command(tmp_path / "out", *arguments), cwd=SHOP, capture_output=True, text=True, timeout=100, check=False
        )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "found.json").read_text())
    limits = document["limits"]
    # Half of those that are free; a session that has just ended may still have counted.
    assert limits["usable"] in (7, 8) and limits["size_by_connections"] == limits["usable"]
    (curve,) = document["curves"]
    assert max(row["size"] for row in curve["sizes"]) == limits["usable"]
    assert all(run["peak_backends"] <= run["size"] for run in curve["runs"])


def test_intervals_are_of_the_figures_not_of_their_logarithms(found):
    known = estimates(found.curves[0].runs)[6]
    assert 5 < exp(known.p99.value) < 30
