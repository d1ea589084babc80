"""The groups that are run by name: P, through PgBouncer and direct, and M, the database with a limit of memory."""

import json
import shutil
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner

from loadgen.commands.lab import lab
from loadgen.lab import group_findings, pgbouncer
from loadgen.lab.claim import NOT, PARTLY, REPRODUCED, UNMEASURED
from loadgen.lab.claims import CLAIMS, MORE_CLAIMS, claims_on
from loadgen.lab.evidence import Evidence, ExperimentResult, Failures, MemoryUse
from loadgen.lab.experiments import BRIEF, FULL, Sizes, chosen, experiments, more_experiments
from loadgen.lab.findings import lab_page
from loadgen.lab.rounds import together, turns
from loadgen.lab.run import Lab, LabOptions
from reports.formats.apachebench import AbFailures, AbSamples
from reports.model import Period, Report
from reports.sketch import Sketch
from reports.writers.output import written

KNOWN = {e.id: e for e in more_experiments()}
USE = MemoryUse(512, 300.0, 0, 0, 80, 230.0, answers_afterwards=True)


def outcome(key, good=100, *, wall_s=1.0, bad=0, **rest):
    counters = {
        "http.requests": good + bad,
        "http.responses": good + bad,
        "http.codes.200": good,
        "http.codes.503": bad,
    }
    total = Period(0, counters=counters, sketches={"http.response_time.intended": Sketch.of([5.0] * 10)})
    return ExperimentResult(KNOWN[key], Report(total), None, wall_s, 20, 0.5, 0.2, Failures(), **rest)


def evidence(*outcomes):
    return Evidence({o.experiment.id: o for o in outcomes}, environment={"cpu": "a CPU"})


def test_both_are_run_by_name_only():
    assert not {e.id for e in experiments()} & set(KNOWN)
    assert [e.id for e in chosen(KNOWN.values(), ["P"])][:3] == ["P.null.c1", "P.fair.c1", "P.direct.c1"]
    assert {e.id for e in chosen(KNOWN.values(), ["P.A"])} == {"P.A.null", "P.A.fair", "P.A.direct"}


def test_each_load_is_run_through_pgbouncer_and_direct_with_the_same_number_of_sessions():
    of_p = [e for e in KNOWN.values() if e.id.startswith("P.")]
    for load in {(e.users, e.script) for e in of_p}:
        same = [e for e in of_p if (e.users, e.script) == load]
        through = {e.strategy: e.pgbouncer for e in same if e.pgbouncer}
        (direct,) = [e for e in same if not e.pgbouncer]
        sessions = direct.servers * int(direct.settings["DB_POOL_SIZE"])
        assert through == {"null": sessions, "fair": sessions}


def test_pools_of_5_to_40_meet_the_sources_limit_and_the_largest_half_of_it():
    of_m = {e.id: (e.memory_mb, e.settings["DB_POOL_SIZE"], e.script) for e in KNOWN.values() if e.id.startswith("M.")}
    assert of_m == {
        **{f"M.pool{n}": (512, str(n), "analytics.yml") for n in (5, 10, 20, 40)},
        "M.pool40.half": (256, "40", "analytics.yml"),
    }


def order(experiments_, sizes, seed=1):
    return [tuple(e.id for e in turn) for turn in turns(experiments_, sizes, Random(seed))]


def test_arrangements_take_turns_in_random_order_each_on_servers_of_its_own():
    found = order(chosen(experiments(), ["B"]), BRIEF)
    rounds = [found[i : i + 4] for i in range(0, 12, 4)]
    assert {tuple(sorted(some)) for some in rounds} == {tuple((f"B.{i}.c1", f"B.{i}.c100") for i in (1, 2, 3, 4))}
    assert len({tuple(some) for some in rounds}) > 1
    assert order(chosen(experiments(), ["B"]), BRIEF) == found != order(chosen(experiments(), ["B"]), BRIEF, seed=2)


def test_one_user_comes_before_what_leaves_connections_open():
    shared = [turn for turn in order(experiments(), BRIEF) if "A.pool10" in turn]
    assert all(set(turn[:2]) == {"A.nested.c1", "A.plain.c1"} for turn in shared)
    assert len(shared) == 3


def test_the_sources_sizes_run_once_in_the_sources_order():
    assert order(experiments(), FULL) == [(e.id,) for e in experiments()]


def test_the_groups_that_run_by_name_have_their_own_rounds():
    found = order(chosen(KNOWN.values(), ["P.null.c1", "P.direct.c1", "M.pool5"]), BRIEF)
    assert found[0] == ("M.pool5",)
    assert sorted(found[1:]) == [("P.direct.c1",)] * 3 + [("P.null.c1",)] * 3


def test_failures_of_an_earlier_experiment_in_the_same_log_are_not_counted_again():
    earlier, later = Failures({"53300": 3}, "a line"), Failures({"53300": 5, "57014": 1}, "a line")
    assert later.since(earlier).by_kind == {"53300": 2, "57014": 1}
    assert earlier.since(earlier) == Failures()


def samples(*total_us, failures=0):
    times = np.array(total_us)
    return AbSamples(
        *("h", 1, "/", 1, 2.0, times // 4, times // 2, times, times * 10),
        failures=AbFailures(length=failures),
        non_2xx=failures,
        answered=len(times),
    )


def test_rounds_become_one_outcome_of_all_requests():
    first = outcome("P.fair.c1", 3, pgbouncer_cpu_s=0.1, samples=samples(1000, 2000, 3000))
    second = outcome("P.fair.c1", 1, bad=1, pgbouncer_cpu_s=0.2, samples=samples(9000, 9000, failures=1))
    first, second = (replace(o, report=Report.of([o.report.aggregate])) for o in (first, second))
    both = together(first, second)
    assert (both.requests, both.wall_s, both.servers_cpu_s) == (5, 2.0, 1.0)
    assert both.pgbouncer_cpu_s == pytest.approx(0.3)
    assert both.failed_share == pytest.approx(0.2)
    assert (both.ab.complete, both.ab.failed, both.ab.non_2xx, both.ab.requests_per_second) == (5, 1, 1, 1.25)
    assert (both.ab.rows["total"].min, both.ab.rows["total"].max) == (1, 9)
    assert (both.samples.answered, both.samples.started_us.tolist()) == (5, [10_000, 20_000, 30_000, 90_000, 90_000])
    assert both.report.aggregate.sketches["http.response_time.intended"].count == 20


def test_a_round_that_was_broken_off_before_it_began_changes_nothing_but_that_it_is_told():
    first = outcome("P.fair.c1", 3)
    later = replace(first, report=Report(Period(0)), partial=True)
    assert together(first, later) == replace(first, partial=True)


def test_each_row_is_compared_with_the_same_load_direct():
    rows = group_findings.throughputs(
        [outcome("P.null.c1", 50, pgbouncer_cpu_s=0.3), outcome("P.direct.c1", 200), outcome("P.A.fair", 10)]
    )
    assert [row.experiment for row in rows] == ["P.null.c1", "P.direct.c1", "P.A.fair"]
    assert [row.of_direct for row in rows] == [0.25, 1, None]
    assert [row.pgbouncer_cpu for row in rows] == [0.3, None, None]


@pytest.mark.parametrize(
    ("points", "slope"),
    [([], None), ([(10, 5.0)], None), ([(10, 5.0), (10, 6.0)], None), ([(10, 5.0), (20, 25.0)], 2.0),
     ([(0, 0.0), (1, 3.0), (2, 3.0)], 1.5)],
)  # fmt: skip
def test_the_slope_is_that_of_least_squares(points, slope):
    assert group_findings.pss_slope_mb(points) == slope


def test_the_slope_leaves_out_what_lost_its_connections_on_the_way():
    uses = (
        replace(USE, connections=20, pss_mb=80.0),
        replace(USE, connections=40, pss_mb=120.0),
        replace(USE, oom_kills=1),
    )
    assert "2.00 MB a connection" in group_findings.memory_note(uses)


@pytest.mark.parametrize(
    ("use", "verdict"),
    [
        (USE, NOT),
        (replace(USE, limit_hits=100), PARTLY),
        (replace(USE, limit_hits=100, oom_kills=1), REPRODUCED),
        (replace(USE, answers_afterwards=False), REPRODUCED),
        (replace(USE, limit_mb=None, peak_mb=None, limit_hits=None, oom_kills=None), UNMEASURED),
    ],
)
def test_twenty_do_not_fit_if_the_kernel_kills(use, verdict):
    (claim,) = MORE_CLAIMS
    found = claim.finding(evidence(outcome("M.pool20", memory_use=use)))
    assert found.verdict == verdict


def test_the_claim_of_a_group_is_told_of_only_where_the_group_was_run():
    assert claims_on(evidence()) == CLAIMS
    with_m = evidence(outcome("M.pool20", memory_use=USE), outcome("M.pool10", bad=100, memory_use=USE))
    assert claims_on(with_m) == CLAIMS + MORE_CLAIMS
    (row,) = [
        c for c in json.loads(written(lab_page(with_m), "json"))["claims"] if "512 MB does not hold" in c["claim"]
    ]
    assert "10 (50 % failed)" in row["measured"]


def test_both_groups_are_in_the_summary_and_on_the_page():
    found = evidence(outcome("P.null.c1"), outcome("P.direct.c1"), outcome("M.pool20", memory_use=USE))
    page = lab_page(found)
    for style in ("text", "markdown", "html"):
        for title in ("P: through PgBouncer and direct", "M: the nested object from a database with a limit of memory"):
            assert title in written(page, style)
    document = json.loads(written(page, "json"))
    assert [len(document[group]) for group in ("pgbouncer", "memory_limit")] == [2, 1]
    assert document["experiments"]["M.pool20"]["memory_use"]["peak_mb"] == 300
    assert "pgbouncer" not in {section.id for section in lab_page(evidence()).sections}


@pytest.mark.parametrize("only", ["P.null.c1", "M"])
def test_neither_can_be_had_on_a_given_database(tmp_path, monkeypatch, only):
    monkeypatch.setattr(pgbouncer, "find", lambda: "pgbouncer")
    arguments = ["--only", only, "--database-url", "postgresql://h/d", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(lab, arguments)
    assert done.exit_code == 2
    assert "needs the lab's own database" in done.output
    assert not list(tmp_path.iterdir())


def test_without_pgbouncer_there_is_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pgbouncer.shutil, "which", lambda *_, **__: None)
    done = CliRunner().invoke(lab, ["--only", "P", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "PgBouncer is not installed" in done.output
    assert "apt-get" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pgbouncer", path="/usr/bin:/usr/sbin:/usr/local/sbin") is None, reason="PgBouncer is not installed"
)
def test_both_for_real(tmp_path):
    wanted = tuple(replace(e, rounds=min(e.rounds, 2)) for e in chosen(more_experiments(1), ["P.fair.c1", "M.pool5"]))
    given = LabOptions(experiments=wanted, sizes=Sizes(requests=30, ab_s=10.0, phase_s=1), out=tmp_path, clicks=3)
    found = Lab(given, lambda _: None, lambda _: None).run()
    through, limited = found.outcomes.values()
    assert through.failed_share == 0
    assert through.requests == through.ab.complete == 60
    assert 1 <= through.peak_backends <= 20
    assert through.pgbouncer_cpu_s is not None
    assert limited.pgbouncer_cpu_s is None
    assert limited.memory_use.answers_afterwards
    assert limited.memory_use.connections >= 1
    assert any("PgBouncer" in note and "transaction mode" in note for note in found.notes)
    assert any("memory" in note for note in found.notes)
    document = json.loads((tmp_path / "summary.json").read_text())
    assert [document[group][0]["experiment"] for group in ("pgbouncer", "memory_limit")] == ["P.fair.c1", "M.pool5"]
    assert {"P.fair.c1.ab.txt", "M.pool5.json", "index.html"} <= {path.name for path in tmp_path.iterdir()}
