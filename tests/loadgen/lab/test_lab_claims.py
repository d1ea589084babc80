"""Claims are judged by criteria alone: given evidence, the verdict follows."""

import html
import json
import re
from dataclasses import replace

import pytest

from loadgen.lab.claims import CLAIMS, NOT, PARTLY, REPRODUCED, UNMEASURED
from loadgen.lab.evidence import Evidence, Memory, Restart
from loadgen.lab.experiment_findings import comparisons
from loadgen.lab.findings import gains, lab_page
from reports.writers.output import STYLES, written
from tests.support.sample_lab import KNOWN, ab_outcome, lab_evidence, script_outcome


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
    return lab_evidence()


def test_each_report_stands_beside_the_published_one_label_by_label(evidence):
    rows = {c.name: (c.published, c.measured) for c in comparisons(evidence.outcomes["B.1.c1"])}
    assert rows["Requests per second"] == (44.26, 100)
    assert rows["Non-2xx responses"] == (6300, 10)
    rows = {c.name: (c.published, c.measured) for c in comparisons(evidence.outcomes["A.pool10"])}
    assert rows["http.codes.301"] == (16198, 900)
    assert rows["http.response_time, p99 (ms)"] == (127.8, 100.0)


def test_the_table_of_gains_is_recomputed(evidence):
    rows = list(gains(evidence))
    assert [(row.users, row.figure) for row in rows] == [
        (users, figure) for users in ("single", "concurrent") for figure in ("processed", "rps", "time_per_request_ms")
    ]
    assert (rows[1].published, rows[1].printed, rows[1].measured) == ((44, 257), "+584.09%", (100, 104))


@pytest.mark.parametrize("style", STYLES)
def test_every_format_says_it_all(evidence, style):
    text = written(lab_page(evidence), style)
    for claim in CLAIMS:
        assert said(claim.text, text)
        assert said(claim.criterion, text)
    for fact in (
        *KNOWN,
        "fairness",
        "a note",
        *(() if style == "json" else ("Restart of the database", "3,229", "484 %")),
    ):
        assert said(fact, text)


def test_json_has_the_values_by_section(evidence):
    document = json.loads(written(lab_page(evidence), "json"))
    assert set(document["experiments"]) == set(KNOWN)
    assert [c["id"] for c in document["claims"]] == [c.id for c in CLAIMS]
    assert document["restart"] == {"before": [200, 3229], "after": [200, 3229]}
    assert document["memory"]["per_backend_mb"] == 1.5
    assert document["fairness"][0]["users"] == 20
    assert document["environment"]["cpu"] == "a CPU"
    figures = {f["name"]: f for f in document["experiments"]["B.1.c1"]["figures"]}
    assert figures["Requests per second"]["ratio"] == pytest.approx(100 / 44.26)


def test_a_session_of_one_group_has_that_group_in_every_format():
    only = Evidence(fairness=lab_evidence().fairness)
    for style in STYLES:
        text = written(lab_page(only), style)
        assert "fairness" in text
        assert "queue" in text
        assert "B.1.c1:" not in text


def test_claims_that_could_not_be_judged_are_told_apart(evidence):
    one = replace(evidence, outcomes={"B.3.c1": evidence.outcomes["B.3.c1"]}, memory=None, restart=None)
    text = written(lab_page(one), "text")
    assert "Not measured, because experiments were not run to their end:" in text
    assert f"- {CLAIMS[0].text}: without B.1.c1, B.1.c100" in text


@pytest.mark.parametrize("style", STYLES)
def test_a_partial_session_says_so(evidence, style):
    assert "artial" in written(lab_page(replace(evidence, partial=True)), style)


def said(text, page):
    """Whether a page says something, whichever way its format escapes it."""
    bare = re.sub(r"\\+|\s+", "", html.unescape(page))
    return re.sub(r"\s+", "", text) in bare
