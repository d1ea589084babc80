"""Claims are judged by criteria alone: given evidence, the verdict follows."""

import html
import json
import re
from dataclasses import replace

import pytest

from loadgen.lab.claim import BUSY_SHARE, NOT, NOT_JUDGED, PARTLY, REPRODUCED, UNMEASURED
from loadgen.lab.claims import CLAIMS
from loadgen.lab.evidence import Connecting, Evidence, Failures, Memory, Restart
from loadgen.lab.experiment_findings import comparisons
from loadgen.lab.findings import gains, lab_page
from reports.writers.output import STYLES, written
from tests.support.sample_lab import KNOWN, ab_outcome, lab_evidence, script_outcome


def finding(claim_id, *outcomes, **rest):
    claim = next(c for c in CLAIMS if c.id == claim_id)
    return claim.finding(Evidence({o.experiment.id: o for o in outcomes}, **rest))


def verdict(claim_id, *outcomes, **rest):
    return finding(claim_id, *outcomes, **rest).verdict


def test_each_claim_has_a_criterion_and_an_id_of_its_own():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    assert all(c.criterion and c.text and c.published for c in CLAIMS)


def test_what_was_not_run_is_not_judged():
    assert {claim.finding(Evidence()).verdict for claim in CLAIMS} == {UNMEASURED}


def test_an_interrupted_experiment_is_not_judged():
    runs = [ab_outcome("B.3.c1", 500), replace(ab_outcome("B.3.c100", 900), partial=True)]
    assert verdict("B.no-failures", *runs) == UNMEASURED


@pytest.mark.parametrize(
    ("bad", "refused", "expected"),
    [(500, 500, REPRODUCED), (20, 20, PARTLY), (0, 0, NOT), (600, 0, NOT), (600, 1, PARTLY)],
)
def test_refusals_need_53300_and_many_failures(bad, refused, expected):
    runs = ab_outcome("B.1.c1", 100), ab_outcome("B.1.c100", 100, bad=bad, refused=refused)
    assert verdict("B.too-many-clients", *runs) == expected


@pytest.mark.parametrize(
    ("one", "many", "rps", "expected"),
    [
        # Failures in tenths of a per cent without and with the pool, for 1 user and for 100; requests/s with it (100 without).
        ((630, 0), (710, 60), 20, REPRODUCED),
        ((0, 0), (710, 60), 20, REPRODUCED),
        ((630, 0), (710, 60), 90, PARTLY),
        ((630, 0), (710, 60), 200, PARTLY),
        ((630, 0), (20, 20), 20, PARTLY),
        ((0, 0), (0, 0), 20, PARTLY),
        ((0, 0), (0, 0), 200, NOT),
        ((0, 0), (10, 630), 20, NOT),
        ((0, 0), (34, 292), 20, NOT),
        ((0, 0), (20, 20), 20, NOT),
        ((20, 20), (20, 20), 20, NOT),
        ((20, 20), (20, 20), 200, NOT),
        ((630, 0), (60, 710), 20, NOT),
        ((700, 800), (700, 800), 20, NOT),
        ((60, 630), (60, 710), 200, NOT),
    ],
)
def test_a_trade_needs_both_slower_and_fewer_failures(one, many, rps, expected):
    runs = [
        ab_outcome(f"{group}.{users}", speed, bad=bad[index])
        for index, (group, speed) in enumerate((("B.1", 100), ("B.2", rps)))
        for users, bad in (("c1", one), ("c100", many))
    ]
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


@pytest.mark.parametrize(
    ("bad", "expected"),
    [((0, 0), REPRODUCED), ((630, 0), REPRODUCED), ((0, 5), REPRODUCED), ((0, 900), NOT), ((500, 900), NOT)],
)
def test_a_gain_in_failures_is_none(bad, expected):
    runs = ab_outcome("B.1.c1", 100, bad=bad[0]), ab_outcome("B.3.c1", 580, bad=bad[1])
    assert verdict("B.gain.c1", *runs) == expected


@pytest.mark.parametrize(
    ("nested_ms", "cpu_s", "expected"),
    [
        (62, 6, REPRODUCED),
        (30, 3, REPRODUCED),
        (30, 1.3, PARTLY),
        (15, 3, PARTLY),
        (15, 1.3, NOT),
        (11, 1, NOT),
        (8, 3, NOT),
        (62, 0.7, NOT),
        (500, 3, PARTLY),
        (30, None, NOT_JUDGED),
    ],
)
def test_the_nested_read_must_cost_a_multiple_of_time_and_of_the_databases_cpu(nested_ms, cpu_s, expected):
    loads = script_outcome("A.pool10", 10), script_outcome("A.analytics", nested_ms, database_cpu_s=cpu_s)
    assert verdict("A.nested", *loads, *ONE_USER) == expected


ONE_USER = script_outcome("A.plain.c1", 2), script_outcome("A.nested.c1", 7, database_cpu_s=3.0)


def queued(outcome):
    """The outcome, with nearly all of its time spent waiting for a connection."""
    total = outcome.report.aggregate
    sketches = {**total.sketches, "server.pool": total.sketches["http.response_time"]}
    return replace(outcome, report=replace(outcome.report, aggregate=replace(total, sketches=sketches)))


NESTED = script_outcome("A.analytics", 7186, database_cpu_s=6.0)


@pytest.mark.parametrize(
    ("nested", "why"),
    [
        (script_outcome("A.analytics", 7186, codes={200: 910, 503: 90}), "9.0 % of requests failed"),
        (script_outcome("A.analytics", 7186, codes={200: 910}), "9.0 % of requests failed"),
        (queued(NESTED), "waiting for a connection"),
        (replace(NESTED, servers_cpu_s=4.0), "100 % of 1 cores in use"),
    ],
)
def test_a_ratio_under_saturation_is_told_and_not_judged(nested, why):
    loads = script_outcome("A.pool10", 10), nested
    found = finding("A.nested", *loads, *ONE_USER)
    assert found.verdict == REPRODUCED
    assert "with 1 user: mean 2.0 -> 7.0 ms, 3.5x" in found.measured
    assert "718" not in found.measured
    assert why in found.why
    found = finding("A.nested", *loads, *(queued(outcome) for outcome in ONE_USER))
    assert (found.verdict, found.measured) == (NOT_JUDGED, "-")
    assert why in found.why


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0.0, 0.0), REPRODUCED), ((BUSY_SHARE, None), REPRODUCED), ((0.0, 0.62), NOT_JUDGED), ((0.4, 0.62), NOT_JUDGED)],
)
def test_nothing_about_speed_is_judged_on_a_busy_machine(shares, expected):
    runs = [
        replace(ab_outcome(key, rps), others_share=share)
        for key, rps, share in zip(("B.1.c1", "B.3.c1"), (100, 580), shares, strict=True)
    ]
    found = finding("B.gain.c1", *runs)
    assert found.verdict == expected
    if expected == NOT_JUDGED:
        assert (
            "the machine was busy: other programs used 62 % of its CPU during one shared pool of 20, 1 user"
            in found.why
        )
        assert "5.8 times" in found.measured


def test_whether_a_click_is_lost_is_judged_on_a_busy_machine_too():
    assert verdict("A.concurrency", replace(script_outcome("A.pool10", 5), others_share=0.9)) == REPRODUCED


@pytest.mark.parametrize(
    ("connecting", "told", "untold"),
    [
        (
            Connecting(6.1, "scram-sha-256", 100),
            "takes 6.1 ms on the idle database, scram-sha-256 authentication",
            "trust",
        ),
        (Connecting(1.2, "trust", 100), "takes 1.2 ms on the idle database, trust authentication", "scram"),
        (Connecting(1.2, None, 100), "takes 1.2 ms on the idle database", "authentication"),
        (None, "CPU of servers and database for a request 2.0 ms", "opening"),
    ],
)
@pytest.mark.parametrize("ratio", [1.1, 3.0, 5.8, 12.0])
def test_the_reason_for_a_gain_is_what_was_measured(ratio, connecting, told, untold):
    runs = ab_outcome("B.1.c1", 100), ab_outcome("B.3.c1", 100 * ratio)
    why = finding("B.gain.c1", *runs, connecting=connecting).why
    assert told in why
    assert untold not in why.lower()


def test_failures_of_the_shared_pool_are_explained_by_the_servers_log():
    failing = replace(ab_outcome("B.3.c100", 900, bad=7), failures=Failures({"PoolTimeout": 7}))
    assert "PoolTimeout: 7" in finding("B.no-failures", ab_outcome("B.3.c1", 500), failing).why


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
    full = ab_outcome("B.1.c1", 100, bad=100, requests=10_000)
    rows = {c.name: (c.published, c.measured) for c in comparisons(full)}
    assert rows["Requests per second"] == (44.26, 100)
    assert rows["Non-2xx responses"] == (6300, 100)
    full = script_outcome("A.pool10", 5, users=18_007, codes={301: 16_205, 200: 1802})
    rows = {c.name: (c.published, c.measured) for c in comparisons(full)}
    assert rows["http.codes.301"] == (16198, 16_205)
    assert rows["http.response_time, p99 (ms)"] == (127.8, 100.0)
    assert rows["http.response_time, max (ms)"][0] == 303.4


def test_of_a_brief_experiment_only_what_does_not_depend_on_its_size_is_compared(evidence):
    rows = {c.name: (c.published, c.measured) for c in comparisons(evidence.outcomes["B.1.c1"])}
    assert rows["Requests per second"] == (44.26, 100)
    assert rows["Non-2xx responses (% of all)"] == (63, 1)
    assert not {
        "Non-2xx responses",
        "Complete requests",
        "Time taken for tests (s)",
        "100% within (ms)",
        "Total, max (ms)",
    } & set(rows)
    rows = {c.name: (c.published, c.measured) for c in comparisons(evidence.outcomes["A.pool10"])}
    assert rows["http.codes.301 (% of all answers)"] == (pytest.approx(89.99, abs=0.01), 90)
    assert not [name for name in rows if name.startswith("vusers.") or "max" in name or "bytes" in name]
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


def in_rounds(*rounds):
    """Evidence of several rounds, each a list of outcomes; together they are as the first."""
    by_id = {outcome.experiment.id: tuple(some) for some in zip(*rounds, strict=True) for outcome in some[:1]}
    return Evidence({key: some[0] for key, some in by_id.items()}, rounds=by_id)


def gain(ratio):
    return ab_outcome("B.1.c1", 100), ab_outcome("B.3.c1", 100 * ratio)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((5.8, 5.0, 6.5), REPRODUCED),
        ((9.0, 9.5, 12.0), PARTLY),
        ((5.8, 8.6, 9.0), NOT_JUDGED),
        ((1.1, 1.3, 1.1), NOT_JUDGED),
    ],
)
def test_rounds_on_both_sides_of_a_criterion_are_not_judged(ratios, expected):
    claim = next(c for c in CLAIMS if c.id == "B.gain.c1")
    found = claim.finding(in_rounds(*map(gain, ratios)))
    assert found.verdict == expected
    assert ("the rounds disagree" in found.why) == (expected == NOT_JUDGED)
    low, middle, high = sorted(ratios)
    assert f"ratio by round: median {middle:.1f}, {low:.1f} to {high:.1f}" in found.measured


def test_one_failure_in_one_round_is_one_too_many():
    claim = next(c for c in CLAIMS if c.id == "B.no-failures")
    rounds = [(ab_outcome("B.3.c1", 500), ab_outcome("B.3.c100", 900, bad=bad)) for bad in (1, 0, 0)]
    assert claim.finding(in_rounds(*rounds)).verdict == NOT


def test_the_spread_of_rounds_is_in_every_format():
    page = lab_page(in_rounds(*map(gain, (5.8, 5.0, 6.5))))
    for style in STYLES:
        assert "5.0 to 6.5" in written(page, style)
    rounds = json.loads(written(page, "json"))["experiments"]["B.3.c1"]["rounds"]
    assert [round(each["good_per_second"]) for each in rounds] == [580, 500, 650]
    assert "by round: median" in written(page, "markdown")
