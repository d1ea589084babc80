"""Claims are judged by criteria alone: given evidence, the verdict follows."""

from dataclasses import replace

import pytest

from loadgen.lab.claims import CLAIMS, NOT, PARTLY, REPRODUCED, UNMEASURED
from loadgen.lab.evidence import Evidence, ExperimentResult, Failures, Memory, Restart
from loadgen.lab.experiments import experiments
from loadgen.lab.findings import claim_lines, comparisons, gain_rows, to_document, to_markdown
from reports.formats.apachebench import AbFailures, AbReport
from reports.model import Period, Report, Summary
from reports.sketch import Sketch

KNOWN = {e.id: e for e in experiments()}


def ab_outcome(key, rps, *, bad=0, refused=0, requests=1000):
    counters = {"http.requests": requests, "http.responses": requests, "http.codes.200": requests - bad}
    if bad:
        counters["http.codes.503"] = bad
    ab = AbReport(
        complete=requests, failed=bad, non_2xx=bad or None, requests_per_second=rps, time_per_request_all_ms=1000 / rps,
        failures=AbFailures(length=bad) if bad else None,
    )  # fmt: skip
    failures = Failures({"53300": refused} if refused else {})
    report = Report(Period(0, counters=counters))
    return ExperimentResult(KNOWN[key], report, ab, requests / rps, 10, 1.0, 1.0, failures)


def script_outcome(key, mean_ms, *, users=1000, completed=None, codes=None, clicks=900, p99=100.0):
    codes = codes if codes is not None else {301: 900, 200: 100}
    counters = {
        "vusers.created": users, "vusers.completed": users if completed is None else completed,
        "http.requests": users, "http.responses": sum(codes.values()),
        **{f"http.codes.{code}": n for code, n in codes.items()},
    }  # fmt: skip
    sketch = Sketch.of([mean_ms] * 10)
    total = Period(
        0,
        counters=counters,
        summaries={"http.response_time": Summary(p99=p99)},
        sketches={"http.response_time": sketch},
    )
    return ExperimentResult(KNOWN[key], Report(total), None, 10.0, 40, 5.0, 3.0, Failures(), clicks_recorded=clicks)


def verdict(claim_id, *outcomes, **rest):
    claim = next(c for c in CLAIMS if c.id == claim_id)
    return claim.finding(Evidence({o.experiment.id: o for o in outcomes}, **rest)).verdict


def test_each_claim_has_a_criterion_and_an_id_of_its_own():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    assert all(c.criterion and c.text and c.published for c in CLAIMS)


def test_what_was_not_run_is_not_judged():
    assert {claim.finding(Evidence()).verdict for claim in CLAIMS} == {UNMEASURED}


def test_an_interrupted_experiment_is_not_judged():
    runs = [ab_outcome("B.3.c1", 500), replace(ab_outcome("B.3.c100", 900), partial=True)]
    assert verdict("B.no-failures", *runs) == UNMEASURED


@pytest.mark.parametrize(
    ("bad", "refused", "expected"), [(500, 500, REPRODUCED), (20, 20, PARTLY), (0, 0, NOT), (600, 0, NOT)]
)
def test_refusals_need_53300_and_many_failures(bad, refused, expected):
    runs = ab_outcome("B.1.c1", 100), ab_outcome("B.1.c100", 100, bad=bad, refused=refused)
    assert verdict("B.too-many-clients", *runs) == expected


@pytest.mark.parametrize(
    ("null_bad", "pool_bad", "pool_rps", "expected"),
    [(700, 60, 20, REPRODUCED), (0, 0, 20, PARTLY), (700, 800, 20, PARTLY), (700, 60, 200, PARTLY), (0, 0, 200, NOT)],
)
def test_a_trade_needs_both_slower_and_fewer_failures(null_bad, pool_bad, pool_rps, expected):
    runs = [
        ab_outcome(f"B.1.{c}", 100, bad=null_bad) for c in ("c1", "c100")
    ] + [ab_outcome(f"B.2.{c}", pool_rps, bad=pool_bad) for c in ("c1", "c100")]  # fmt: skip
    assert verdict("B.pool-per-request", *runs) == expected


@pytest.mark.parametrize(("bad", "expected"), [(0, REPRODUCED), (1, NOT)])
def test_one_failure_is_too_many_for_none(bad, expected):
    assert verdict("B.no-failures", ab_outcome("B.3.c1", 500), ab_outcome("B.3.c100", 900, bad=bad)) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(5.8, REPRODUCED), (3.9, REPRODUCED), (8.6, REPRODUCED), (9.0, PARTLY), (1.3, PARTLY), (1.1, NOT), (0.5, NOT)],
)
def test_a_ratio_is_reproduced_within_a_factor_of_one_and_a_half(ratio, expected):
    assert verdict("B.gain.c1", ab_outcome("B.1.c1", 100), ab_outcome("B.3.c1", 100 * ratio)) == expected


@pytest.mark.parametrize(
    ("clicks", "responses", "expected"),
    [(900, 1000, REPRODUCED), (899, 1000, NOT), (901, 1000, NOT), (905, 990, REPRODUCED), (915, 990, NOT)],
)
def test_clicks_and_answers_must_match(clicks, responses, expected):
    codes = {301: 900, 200: responses - 900}
    assert verdict("A.concurrency", script_outcome("A.pool10", 5, codes=codes, clicks=clicks)) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (script_outcome("A.pool10", 5), REPRODUCED),
        (script_outcome("A.pool10", 5, p99=1500), PARTLY),
        (script_outcome("A.pool10", 5, completed=999), NOT),
        (script_outcome("A.pool10", 5, codes={301: 900, 503: 100}), NOT),
    ],
)
def test_holding_a_rate_means_serving_everybody_soon(outcome, expected):
    assert verdict("A.forty", outcome) == expected


@pytest.mark.parametrize(("nested_ms", "expected"), [(30, REPRODUCED), (15, PARTLY), (11, NOT)])
def test_the_nested_read_must_cost_a_multiple(nested_ms, expected):
    runs = script_outcome("A.pool10", 10), script_outcome("A.analytics", nested_ms)
    assert verdict("A.nested", *runs) == expected


@pytest.mark.parametrize(("per_backend", "expected"), [(1.5, NOT), (5.0, REPRODUCED)])
def test_memory_is_shared_plus_base_plus_eighty_backends(per_backend, expected):
    assert verdict("A.memory", memory=Memory(per_backend, 150, 11, (10, 50))) == expected


@pytest.mark.parametrize(("after", "expected"), [((200, 900), REPRODUCED), ((200, 899), NOT), ((0, 0), NOT)])
def test_a_restart_may_lose_nothing(after, expected):
    assert verdict("A.restart", restart=Restart((200, 900), after)) == expected


@pytest.fixture
def evidence():
    outcomes = [ab_outcome(e.id, 100 + i, bad=10 * (i < 2), refused=10 * (i < 2)) for i, e in enumerate(KNOWN.values())
                if not e.script]  # fmt: skip
    outcomes += [script_outcome(e.id, 10) for e in KNOWN.values() if e.script]
    return Evidence(
        {o.experiment.id: o for o in outcomes},
        Memory(1.5, 150, 11, (10, 50)),
        Restart((200, 900), (200, 900)),
        {"cpu": "a CPU", "cores": 2, "memory_mb": 100, "system": "Linux", "python": "3"},
        ("a note",),
    )


def test_each_report_stands_beside_the_published_one_label_by_label(evidence):
    rows = {label: (was, now) for label, was, now in comparisons(evidence.outcomes["B.1.c1"])}
    assert rows["Requests per second"] == (44.26, 100)
    assert rows["Non-2xx responses"] == (6300, 10)
    rows = {label: (was, now) for label, was, now in comparisons(evidence.outcomes["A.pool10"])}
    assert rows["http.codes.301"] == (16198, 900)
    assert rows["http.response_time, p99 (ms)"] == (127.8, 100.0)


def test_the_table_of_gains_is_recomputed(evidence):
    rows = list(gain_rows(evidence))
    assert [(users, figure) for users, figure, *_ in rows] == [
        (users, figure) for users in ("single", "concurrent") for figure in ("processed", "rps", "time_per_request_ms")
    ]
    assert rows[1][2:] == ((44, 257), "+584.09%", (100, 104))


def test_the_summary_says_it_all_in_both_forms(evidence):
    text, document = to_markdown(evidence), to_document(evidence)
    for claim in CLAIMS:
        assert claim.text in text
        assert claim.criterion in text
    assert set(document["experiments"]) == set(KNOWN)
    assert [c["id"] for c in document["claims"]] == [c.id for c in CLAIMS]
    assert len(list(claim_lines(evidence))) == len(CLAIMS)
    assert "5.84x (+484 %)" in text


def test_a_partial_session_says_so(evidence):
    assert "Partial" in to_markdown(replace(evidence, partial=True))
    assert to_document(replace(evidence, partial=True))["partial"] is True
